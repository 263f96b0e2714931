"""The loopback hub answers as the hub does, and what it serves says what the embedded model and its SAE say."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers.engine.forward import final_state, residual_after, unembed, wrap
from helpers.text.batches import batches
from helpers.text.questions import ORDERS, prompt_tokens
from tests.hub import Hub
from tests.hub_files import GEMMA_1, GEMMA_2, GEMMA_2_DEEP, SPREAD, served_questions, wide_sae, write_model


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub with one open data set and one gated model; token 'in' may read it, token 'out' may not."""
    for name in ("datasets/a/open/part/x.txt", "models/a/gated/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("0123456789")
    with Hub(tmp_path, frozenset(["a/gated"]), {"in": frozenset(["a/gated"]), "out": frozenset()}) as running:
        yield running


def ask(hub: Hub, path: str, token: str = "", data: bytes | None = None, **headers: str):
    """Status, headers and body of a request."""
    rights = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(hub.url + path, data, headers | rights)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoErrors())
    with opener.open(request, timeout=10) as answer:
        return answer.status, answer.headers, answer.read()


class _NoErrors(urllib.request.HTTPErrorProcessor):
    def http_response(self, request, response):
        return response


def test_a_file_comes_with_etag_commit_and_length_whole_or_in_part(hub: Hub) -> None:
    path = "/datasets/a/open/resolve/main/part/x.txt"
    status, headers, body = ask(hub, path)
    assert (status, body, headers["Content-Length"]) == (200, b"0123456789", "10")
    assert headers["ETag"] == '"84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"'  # its SHA-256
    status, headers, body = ask(hub, path.replace("main", headers["X-Repo-Commit"]), Range="bytes=4-")
    assert (status, body, headers["Content-Range"]) == (206, b"456789", "bytes 4-9/10")
    assert hub.requests[-1].endswith("x.txt bytes=4-")


def test_a_cut_breaks_one_answer_off(hub: Hub) -> None:
    hub.cuts["x.txt"] = 3
    with pytest.raises(Exception, match="3 bytes read, 7 more expected"):
        ask(hub, "/datasets/a/open/resolve/main/part/x.txt")
    assert ask(hub, "/datasets/a/open/resolve/main/part/x.txt")[2] == b"0123456789"


def test_repository_tree_and_paths_agree(hub: Hub) -> None:
    commit = json.loads(ask(hub, "/api/datasets/a/open")[2])["sha"]
    tree = json.loads(ask(hub, f"/api/datasets/a/open/tree/{commit}?recursive=true")[2])
    assert [(entry["type"], entry["path"]) for entry in tree] == [("directory", "part"), ("file", "part/x.txt")]
    assert json.loads(ask(hub, "/api/datasets/a/open/tree/main")[2]) == tree[:1]
    assert json.loads(ask(hub, "/api/datasets/a/open/paths-info/main", data=b"paths=part/x.txt&paths=y")[2]) == tree[1:]


@pytest.mark.parametrize(
    ("path", "token", "status", "code"),
    [
        ("/a/gated/resolve/main/x.txt", "", 401, "GatedRepo"),
        ("/a/gated/resolve/main/x.txt", "wrong", 401, ""),
        ("/a/gated/resolve/main/x.txt", "out", 403, "GatedRepo"),
        ("/a/gated/resolve/main/x.txt", "in", 200, None),
        ("/a/gated/resolve/main/y.txt", "in", 404, "EntryNotFound"),
        ("/a/gated/resolve/other/x.txt", "in", 404, "RevisionNotFound"),
        ("/a/unknown/resolve/main/x.txt", "in", 404, "RepoNotFound"),
        ("/a/unknown/resolve/main/x.txt", "", 401, "RepoNotFound"),
        ("/api/models/a/gated", "", 200, None),
        ("/api/models/a/gated/auth-check", "out", 403, "GatedRepo"),
        ("/api/whoami-v2", "", 401, ""),
        ("/api/whoami-v2", "in", 200, None),
    ],
)
def test_who_may_read_what(hub: Hub, path: str, token: str, status: int, code: str | None) -> None:
    answer = ask(hub, path, token)
    assert (answer[0], answer[1]["X-Error-Code"]) == (status, code)


@pytest.mark.parametrize(("layout", "layer"), [(GEMMA_2, 3), (GEMMA_2_DEEP, 7), (GEMMA_1, 8)])
@torch.no_grad()
def test_the_served_model_and_sae_are_the_organisms(tmp_path: Path, model, sae, layout, layer: int) -> None:
    write_model(tmp_path / "served", *layout)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "served", attn_implementation="eager")
    served, d = wrap(found, model.tokenizer), sae.cfg.d_in
    rows = prompt_tokens(model.tokenizer, served_questions("wmdp-bio")[:4], ORDERS[:3], "chat")
    batch = next(batches(rows, 10**6, pad_id=0))
    ours, theirs = residual_after(model, batch, 1)[batch.mask], residual_after(served, batch, layer)[batch.mask]
    torch.testing.assert_close(theirs[:, :d], ours, atol=1e-4, rtol=0)
    assert not theirs[:, d:].any()
    logits = [unembed(each, final_state(each, batch))[batch.mask] for each in (model, served)]
    torch.testing.assert_close(*logits, atol=1e-4, rtol=0)
    wide = wide_sae(layout[0])
    before = theirs @ wide["W_enc"] + wide["b_enc"]
    activations = before.relu() * (before > wide["threshold"])
    torch.testing.assert_close(activations[:, SPREAD], sae.encode(ours), atol=1e-4, rtol=0)
    assert (activations > 0).sum() == (activations[:, SPREAD] > 0).sum()
    back = (activations @ wide["W_dec"] + wide["b_dec"])[:, :d]
    torch.testing.assert_close(back, sae.decode(sae.encode(ours)), atol=1e-4, rtol=0)
