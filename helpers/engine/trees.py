"""Prompts that begin alike, merged at their common beginnings: each token is computed once, whoever it belongs to.

The 24 orders of a question share its stem, and pairs of them much of the choices. Written as one row in the order of a
walk through the tree, where every token sees its ancestors and nothing else, they give what 24 rows give.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, takewhile

import torch
from torch import Tensor

from helpers.text.batches import Batch, by_length


@dataclass(frozen=True)
class Tree:
    """Prompts as one row of nodes; a node's descendants follow it without a gap.

    Attributes:
        ids: the token at each node, [nodes].
        depths: its position in its prompt, [nodes].
        ends: the node after its last descendant, [nodes]: j is i or an ancestor of i where j <= i < ends[j].
        leaves: the last node of each prompt, [prompts].
    """

    ids: list[int]
    depths: list[int]
    ends: list[int]
    leaves: list[int]


def merge(prompts: Sequence[Sequence[int]]) -> Tree:
    """The tree of some prompts. A prompt may end inside another or equal it.

    Raises:
        ValueError: there are no prompts, one is empty, or they do not all begin with the same token (BOS).
    """
    _check(prompts)
    ids: list[int] = []
    depths: list[int] = []
    ends: list[int] = []
    leaves = [0] * len(prompts)
    path: list[int] = []
    order, shared = _neighbours(prompts)
    # a node is left for good when its last descendant is written
    for i, n in zip(order, shared, strict=True):
        for node in path[n:]:
            ends[node] = len(ids)
        new = range(len(ids), len(ids) + len(prompts[i]) - n)
        path = [*path[:n], *new]
        ids += prompts[i][n:]
        depths += range(n, len(prompts[i]))
        ends += new
        leaves[i] = path[-1]
    for node in path:
        ends[node] = len(ids)
    return Tree(ids, depths, ends, leaves)


def split(prompts: Sequence[Sequence[int]], cost: Callable[[int], float]) -> list[list[int]]:
    """Prompts parted into the trees that cost least together, as indices of the prompts in each.

    One large tree repeats no token; several small ones leave out most of the pairs of nodes that do not see each other.

    Args:
        cost: of a tree of so many nodes, in any unit.

    Raises:
        ValueError: as `merge`.
    """
    _check(prompts)
    order, shared = _neighbours(prompts)
    # the first prompt of a tree is there in full, of each other one what it does not share with the one before
    new = [0, *accumulate(len(prompts[i]) - n for i, n in zip(order, shared, strict=True))]
    best = [(0.0, 0)]  # of the first so many prompts: what they cost, and where their last tree begins
    for end in range(1, len(order) + 1):
        best.append(min((best[i][0] + cost(len(prompts[order[i]]) + new[end] - new[i + 1]), i) for i in range(end)))
    parts, end = [], len(order)
    while end:
        parts.append(order[best[end][1] : end])
        end = best[end][1]
    return parts


def _check(prompts: Sequence[Sequence[int]]) -> None:
    if not prompts or not all(len(p) for p in prompts) or len({p[0] for p in prompts}) > 1:
        raise ValueError(f"a tree needs prompts that begin with the same token, got {len(prompts)} prompts")


def _neighbours(prompts: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Indices in lexicographic order, where neighbours share most, and how many tokens each shares with the last."""
    order = sorted(range(len(prompts)), key=lambda i: tuple(prompts[i]))
    shared = [0]
    for one, two in pairwise(order):
        pairs = zip(prompts[one], prompts[two], strict=False)
        shared.append(sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)))
    return order, shared


@dataclass(frozen=True, eq=False)
class Trees(Batch):
    """Trees padded on the right; `rows` [prompts] says where each prompt stood in the caller's list.

    Attributes:
        depths, ends: of every node, [batch, seq]; a padding node has no ancestor but itself.
        owners: [prompts], the tree in which each prompt is.
        leaves: [prompts], its last node there.
    """

    depths: Tensor
    ends: Tensor
    owners: Tensor
    leaves: Tensor

    def inputs(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """The arguments of a Hugging Face forward call: the mask is 4-D, 0 at a node's ancestors and lowest elsewhere.

        It knows no sliding window: a prompt must not be longer than that.
        """
        node = torch.arange(self.ids.shape[1], device=self.ids.device)
        sees = (node <= node[:, None]) & (node[:, None] < self.ends[:, None])
        mask = torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)
        return {"input_ids": self.ids, "attention_mask": mask[:, None], "position_ids": self.depths}

    def select(self, chosen: Tensor) -> "Trees":
        """The trees where `chosen` [batch] is true, with all their prompts."""
        kept = chosen[self.owners]
        place = chosen.cumsum(dim=0) - 1
        return Trees(
            self.ids[chosen], self.mask[chosen], self.rows[kept.cpu()], self.depths[chosen], self.ends[chosen],
            place[self.owners[kept]], self.leaves[kept],
        )  # fmt: skip

    def owner(self) -> Tensor:
        """[prompts]: the tree in which each prompt is."""
        return self.owners

    def last(self) -> Tensor:
        """[prompts]: each prompt's last node."""
        return self.leaves

    def paths(self) -> Tensor:
        """[prompts, seq] bool: the nodes that a prompt consists of."""
        node = torch.arange(self.ids.shape[1], device=self.ids.device)
        leaf = self.leaves[:, None]
        return (node <= leaf) & (leaf < self.ends[self.owners])


def tree_batches(
    groups: Sequence[Sequence[Sequence[int]]],
    cost: Callable[[int], float],
    batch_tokens: int,
    pad_id: int,
    device: torch.device | str = "cpu",
) -> Iterator[Trees]:
    """Groups of prompts as trees (`split`), sorted by size into batches of at most `batch_tokens` nodes, largest first.

    `rows` counts the prompts through all groups, in the caller's order.

    Raises:
        ValueError: a group cannot be merged.
    """
    trees, rows, start = [], [], 0
    for group in groups:
        for indices in split(group, cost):
            trees.append(merge([group[i] for i in indices]))
            rows.append([start + i for i in indices])
        start += len(group)
    for taken in by_length([len(tree.ids) for tree in trees], batch_tokens):
        yield _padded([trees[i] for i in taken], [rows[i] for i in taken], pad_id, device)


def _padded(trees: Sequence[Tree], rows: Sequence[list[int]], pad_id: int, device: torch.device | str) -> Trees:
    shape = (len(trees), max(len(tree.ids) for tree in trees))
    ids, depths = torch.full(shape, pad_id), torch.zeros(shape, dtype=torch.long)
    mask, ends = torch.zeros(shape, dtype=torch.bool), torch.arange(1, shape[1] + 1).repeat(len(trees), 1)
    for b, tree in enumerate(trees):
        n = len(tree.ids)
        ids[b, :n], depths[b, :n], ends[b, :n] = map(torch.tensor, (tree.ids, tree.depths, tree.ends))
        mask[b, :n] = True
    owners = torch.tensor([b for b, tree in enumerate(trees) for _ in tree.leaves])
    leaves = torch.tensor([leaf for tree in trees for leaf in tree.leaves])
    ids, mask, depths, ends, owners, leaves = (x.to(device) for x in (ids, mask, depths, ends, owners, leaves))
    return Trees(ids, mask, torch.tensor([row for of in rows for row in of]), depths, ends, owners, leaves)
