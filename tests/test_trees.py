"""A tree holds every prompt once and nothing else, and a model that reads it says what it says of each prompt alone."""

from itertools import combinations, pairwise, permutations

import pytest
import torch

from helpers.engine.forward import final_state, huggingface
from helpers.engine.trees import merge, split, tree_batches
from tests.toy import toy_model

# BOS, a stem, and three choices of one or two tokens in every order, with the same word at the end
PROMPTS = [[2, 30, 31, *a, *b, *c, 40] for a, b, c in permutations([[50], [60, 61], [70]])]


def COST(nodes):  # noqa: N802
    """Few nodes are all that counts: prompts of one group are one tree."""
    return nodes


def ancestors(tree, node):
    """A node and its ancestors from the root down, by the definition of `ends`."""
    return [j for j in range(node + 1) if node < tree.ends[j]]


@pytest.mark.parametrize(
    "prompts",
    [PROMPTS, PROMPTS[::-1], [[2]], [[2, 5, 6], [2, 5]], [[2, 5], [2, 5]], [[2, 5, 6, 7], [2, 6, 6, 7], [2, 5, 8]]],
)
def test_the_path_to_each_leaf_is_the_prompt(prompts):
    tree = merge(prompts)
    for prompt, leaf in zip(prompts, tree.leaves, strict=True):
        path = ancestors(tree, leaf)
        assert [tree.ids[j] for j in path] == prompt
        assert [tree.depths[j] for j in path] == list(range(len(prompt)))


def test_each_common_beginning_is_there_once():
    """By hand: BOS and stem 3; then each prefix of choices once, 4 + 4 * 2 tokens at depths one and two, and so on."""
    prefixes = {tuple(p[:n]) for p in PROMPTS for n in range(1, len(p) + 1)}
    assert len(merge(PROMPTS).ids) == len(prefixes) < sum(map(len, PROMPTS))
    assert merge([[2, 5, 6], [2, 5, 7], [2, 5]]).ids == [2, 5, 6, 7]


@pytest.mark.parametrize(
    ("prompts", "message"), [([], "got 0 prompts"), ([[2], []], "got 2"), ([[2], [3]], "same token")]
)
def test_what_is_no_tree_is_refused(prompts, message):
    with pytest.raises(ValueError, match=message):
        merge(prompts)


def parted(prompts, cost):
    return sorted(sorted(part) for part in split(prompts, cost))


def test_prompts_are_parted_where_small_trees_cost_less():
    """Six orders of three choices: by hand, 3 first tokens, and what the orders share behind them."""
    firsts = sorted(sorted(i for i, p in enumerate(PROMPTS) if p[3] == first) for first in (50, 60, 70))
    assert parted(PROMPTS, lambda nodes: nodes) == [list(range(6))]
    assert parted(PROMPTS, lambda nodes: nodes**6) == [[i] for i in range(6)]
    pairs = {len(merge([PROMPTS[i] for i in part]).ids) for part in firsts}
    assert parted(PROMPTS, lambda nodes: 30 if nodes in pairs else 20 if nodes == 8 else 100) == firsts


def test_a_split_costs_no_more_than_any_split_into_neighbours():
    """Brute force over all ways to cut the sorted prompts in pieces, for a cost between the extremes."""
    prompts, cost = sorted(PROMPTS), lambda nodes: 60 * nodes + nodes**2
    pieces = [
        sum(cost(len(merge(prompts[a:b]).ids)) for a, b in pairwise([0, *cuts, len(prompts)]))
        for n in range(len(prompts))
        for cuts in combinations(range(1, len(prompts)), n)
    ]
    found = sum(cost(len(merge([prompts[i] for i in part]).ids)) for part in split(prompts, cost))
    assert found == min(pieces)


@pytest.fixture(scope="module")
def groups():
    """Three questions of different lengths, so that a batch of trees is padded."""
    return [[[2, *range(10, 10 + n), *prompt[3:]] for prompt in PROMPTS[: n + 1]] for n in (1, 5, 3)]


@pytest.mark.parametrize("batch_tokens", [1, 50, 1000])
@pytest.mark.parametrize("cost", [COST, lambda nodes: 60 * nodes + nodes**2, lambda nodes: nodes**6])
@torch.no_grad()
def test_the_state_at_a_leaf_is_the_state_at_the_end_of_its_prompt(groups, batch_tokens, cost):
    model, rows = toy_model(sliding_window=64), [row for group in groups for row in group]
    seen = []
    for batch in tree_batches(groups, cost, batch_tokens, 0):
        states = final_state(model, batch)[batch.owner(), batch.last()]
        for row, state in zip(batch.rows.tolist(), states, strict=True):
            alone = huggingface(model).model(input_ids=torch.tensor([rows[row]]), use_cache=False).last_hidden_state
            torch.testing.assert_close(state, alone[0, -1], atol=1e-5, rtol=1e-5)
        assert batch.ids.numel() <= batch_tokens or len(batch.ids) == 1
        seen += batch.rows.tolist()
    assert sorted(seen) == list(range(len(rows)))


def test_paths_hold_the_prompts_tokens(groups):
    rows = [row for group in groups for row in group]
    (batch,) = tree_batches(groups, COST, 1000, 0)
    for row, owner, path in zip(batch.rows.tolist(), batch.owner(), batch.paths(), strict=True):
        assert batch.ids[owner][path].tolist() == rows[row]


def test_select_keeps_whole_trees_with_their_prompts(groups):
    (batch,) = tree_batches(groups, COST, 1000, 0)
    part = batch.select(torch.tensor([True, False, True]))
    kept = batch.owner() != 1
    assert torch.equal(part.rows, batch.rows[kept])
    assert torch.equal(part.ids[part.owner()][part.paths()], batch.ids[batch.owner()][batch.paths() & kept[:, None]])
