"""Atomic writes, fingerprints, and cached stages that are verified when they are read."""

import json
import linecache
import logging
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers.records.store import Store, code_fingerprint, fingerprint, write_atomically


@dataclass(frozen=True)
class Settings:
    value: float
    features: tuple[int, ...]


@dataclass
class Mutable:
    value: float


class Colour(Enum):
    RED = 1
    BLUE = 2


def a_function() -> None: ...


def another_function() -> None: ...


# --- atomic writes ----------------------------------------------------------------------------------------------------


def test_a_writer_that_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("old")

    def half_way(file: Path) -> None:
        file.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, half_way)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["rows.csv"]


def test_a_writer_that_ends_replaces_the_file_and_makes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    for text in ("one", "two"):
        write_atomically(path, lambda file, text=text: file.write_text(text))
        assert path.read_text() == text
    with open(path) as reader:  # who is reading meanwhile goes on with the file as it was
        write_atomically(path, lambda file: file.write_text("three"))
        assert reader.read() == "two"
    assert len(list(path.parent.iterdir())) == 1


def test_an_unwritable_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "figures").write_text("a file where a folder should be")
    with pytest.raises(OSError, match=r"cannot write rows.csv in .*figures: .*choose a folder"):
        write_atomically(tmp_path / "figures" / "rows.csv", lambda file: file.write_text(""))


# --- fingerprints -----------------------------------------------------------------------------------------------------


def different_values() -> list[Any]:
    import torch

    return [
        *(None, True, 1, 1.0, -0.0, 0.0, "1", [1], [1, 2], [[1], 2], {"a": 1}, {"a": 2}, {"b": 1}, {1: "a"}),
        *(float("nan"), float("inf"), 0.1, 0.1 + 2**-50, "", " ", Colour.RED, Colour.BLUE),
        *(Settings(1.0, (1,)), Settings(1.0, (2,)), Settings(1, (1,)), a_function, another_function),
        *(np.zeros(2), np.zeros(3), np.zeros((1, 2)), np.zeros(2, "float32"), np.array([0.0, 1.0]), np.float64(1)),
        *(np.array(["a", "b"], dtype=object), np.array(["a", "c"], dtype=object), np.zeros(0)),
        *(torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16), torch.tensor(0.0)),
        *(torch.float32, torch.float16, torch.device("cpu"), torch.zeros(2, dtype=torch.bool)),
        *(pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1.0, 2]}), pd.DataFrame({"b": [1, 2]})),
        *(pd.DataFrame({"a": [1, 2]}, index=[1, 0]), pd.DataFrame({"a": ["x", "y"]}), pd.DataFrame({"a": ["x", None]})),
    ]


def test_different_values_have_different_fingerprints() -> None:
    prints = [fingerprint(value) for value in different_values()]
    assert len(set(prints)) == len(prints)


def test_equal_values_have_equal_fingerprints() -> None:
    first, second = different_values(), different_values()
    assert [fingerprint(value) for value in first] == [fingerprint(value) for value in second]


def test_the_order_of_a_dict_and_the_layout_of_an_array_do_not_matter() -> None:
    import torch

    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint((1, 2)) == fingerprint([1, 2])
    assert fingerprint(np.arange(6).reshape(2, 3)) == fingerprint(np.asfortranarray(np.arange(6).reshape(2, 3)))
    table = torch.arange(6.0).reshape(2, 3)
    assert fingerprint(table.T) == fingerprint(table.T.contiguous()) == fingerprint(table.T.clone().requires_grad_())


@pytest.mark.parametrize("value", [Path("a"), {1, 2}, object(), Mutable(1.0), lambda: 0, [Path("a")], print, int])
def test_what_cannot_be_told_apart_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=r"stage's key|says what it does"):
        fingerprint(value)


@dataclass(frozen=True)
class Pair:
    first: Any
    second: Any


class Named:
    """Stands for what it says of itself, and for nothing else that it holds."""

    def __init__(self, meaning: Any, baggage: Any = None) -> None:
        self.meaning, self.baggage = meaning, baggage

    def __fingerprint__(self) -> Any:
        return self.meaning


class OtherNamed(Named): ...


def test_an_object_may_say_what_stands_for_it() -> None:
    one = fingerprint(Named(["a", 1.0], object()))
    assert one == fingerprint(Named(("a", 1.0), {1, 2}))
    others = [Named(["a", 2.0]), OtherNamed(["a", 1.0]), ["a", 1.0], Pair(Named(["a", 1.0]), None)]
    assert len({one, *map(fingerprint, others)}) == 5
    with pytest.raises(TypeError, match="stage's key"):
        fingerprint(Named(object()))


def test_a_dataclass_may_say_what_stands_for_it() -> None:
    @dataclass(frozen=True)
    class Weights:
        key: str
        make: Any

        def __fingerprint__(self) -> str:
            return self.key

    assert fingerprint(Weights("a", lambda: 1)) == fingerprint(Weights("a", lambda: 2)) != fingerprint(Weights("b", 1))


def test_what_is_known_is_not_looked_at_again() -> None:
    large, twin, other = np.zeros(1000), np.zeros(1000), np.zeros(1000)
    known = {id(large): "the large one", id(other): "the other one"}
    one = fingerprint({"rows": [large], "n": 1}, known)
    large[0] = 1.0  # it does not change, so nobody looks
    assert fingerprint({"rows": [large], "n": 1}, known) == one
    changed = [{"rows": [large], "n": 2}, {"rows": [other], "n": 1}, {"rows": [twin], "n": 1}]
    assert len({one, *(fingerprint(value, known) for value in changed)}) == 4
    assert fingerprint(twin, known) == fingerprint(np.zeros(1000))  # only the object itself is known, not its equals
    assert fingerprint(large, {}) == fingerprint(large) != fingerprint(large, known)


def test_what_is_known_may_be_of_any_type_and_anywhere() -> None:
    secret = object()
    known = {id(secret): "s"}
    values = [secret, [secret], {"a": secret}, Pair(secret, 1), Pair(1, secret), Named(secret), Named([secret])]
    prints = [fingerprint(value, known) for value in values]
    assert len(set(prints)) == len(prints)
    assert prints == [fingerprint(value, known) for value in values]
    assert prints != [fingerprint(value, {id(secret): "t"}) for value in values]
    with pytest.raises(TypeError, match="stage's key"):
        fingerprint(Pair(secret, 1))


def tiny_gemma(**changes: Any) -> Any:
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 11, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "head_dim": 4}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    return Gemma2ForCausalLM(Gemma2Config(**(sizes | heads | changes)))


def tiny_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "a": 2}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>")


def test_a_model_is_its_weights_and_its_config() -> None:
    import torch

    model = tiny_gemma()
    same = tiny_gemma()
    assert fingerprint(model) == fingerprint(same)
    assert fingerprint(model) != fingerprint(tiny_gemma(final_logit_softcapping=7.0))
    with torch.no_grad():
        same.model.norm.weight[0] += 1e-3
    assert fingerprint(model) != fingerprint(same)
    assert fingerprint(model.to(torch.bfloat16)) != fingerprint(tiny_gemma())


def test_the_kernel_of_attention_counts() -> None:
    model = tiny_gemma()
    before = fingerprint(model)
    model.config._attn_implementation = "sdpa" if model.config._attn_implementation == "eager" else "eager"
    assert fingerprint(model) != before


def test_a_wrapped_model_is_the_model() -> None:
    import nnsight

    wrapped = nnsight.TransformersModel(tiny_gemma(), tokenizer=tiny_tokenizer())
    assert fingerprint(wrapped) == fingerprint(nnsight.TransformersModel(tiny_gemma(), tokenizer=tiny_tokenizer()))
    other = nnsight.TransformersModel(tiny_gemma(final_logit_softcapping=7.0), tokenizer=tiny_tokenizer())
    assert fingerprint(wrapped) != fingerprint(other)


def test_a_tokenizer_is_its_rules_whatever_it_was_used_for() -> None:
    tokenizer = tiny_tokenizer()
    before = fingerprint(tokenizer)
    tokenizer(["a", "a a"], padding=True, truncation=True, max_length=2)
    assert fingerprint(tokenizer) == before
    tokenizer.chat_template = "{{ messages }}"
    assert fingerprint(tokenizer) != before


def test_an_sae_is_its_weights_and_its_config() -> None:
    import torch
    from sae_lens import StandardSAE, StandardSAEConfig

    def make(**changes: Any) -> StandardSAE:
        torch.manual_seed(0)
        return StandardSAE(StandardSAEConfig(d_in=4, d_sae=8, **changes))

    assert fingerprint(make()) == fingerprint(make())
    assert fingerprint(make()) != fingerprint(make(apply_b_dec_to_input=False))


# --- fingerprints of code ---------------------------------------------------------------------------------------------

HOUSE = {
    "__init__.py": "",
    "sweep.py": "from house import interventions\nimport numpy\ndef sweep(): return interventions\n",
    "interventions.py": "def clamp():\n    from .rooms.gate import gate\n    from .attic import x\n    return gate\n",
    "attic/__init__.py": "x = 1\n",
    "rooms/__init__.py": "",
    "rooms/gate.py": "import house.sweep\ndef gate(): return 1\n",
    "plots.py": "from house.sweep import sweep\n",
}


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, source in HOUSE.items():
        write_atomically(tmp_path / "house" / name, lambda file, source=source: file.write_text(source))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "house"
    for name in [name for name in sys.modules if name.partition(".")[0] == "house"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("file", "changes"),
    # a package counts where a name is taken from it, and not because a module lies in it
    [("sweep.py", True), ("interventions.py", True), ("rooms/gate.py", True), ("attic/__init__.py", True),
     ("rooms/__init__.py", False), ("__init__.py", False), ("plots.py", False)],
)  # fmt: skip
def test_code_counts_when_it_is_reached(house: Path, file: str, changes: bool) -> None:
    from house.sweep import sweep  # a cycle of imports, a relative one and one inside a function lie behind it

    before = code_fingerprint(sweep)
    assert code_fingerprint(sweep) == before
    (house / file).write_text((house / file).read_text() + "\nX = 1\n")
    os.utime(house / file, (1, 1))
    assert (code_fingerprint(sweep) != before) == changes


TYPED = """from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from house.rooms import gate
    if len("x"):
        import house.plots
else:
    from house import interventions
def sweep() -> gate.Gate: ...
"""


@pytest.mark.parametrize(
    ("file", "changes"),
    [("sweep.py", True), ("rooms/gate.py", True), ("plots.py", False), ("extra.py", False), ("runs.py", True)],
)
def test_imports_for_types_alone_do_not_count(house: Path, file: str, changes: bool) -> None:
    """`rooms/gate.py` is reached even so: by `interventions.py`, which is imported where types are not checked."""
    (house / "extra.py").write_text("")
    (house / "runs.py").write_text("")
    (house / "sweep.py").write_text(TYPED)
    (house / "interventions.py").write_text(
        "import typing\nfrom typing import TYPE_CHECKING\nfrom .rooms import gate\nif TYPE_CHECKING:\n"
        "    from house import extra\nelif typing:\n    from house import runs\n"
    )
    from house.sweep import sweep

    before = code_fingerprint(sweep)
    (house / file).write_text((house / file).read_text() + "\nX = 1\n")
    os.utime(house / file, (1, 1))
    assert (code_fingerprint(sweep) != before) == changes


def test_an_import_under_another_condition_counts(house: Path) -> None:
    (house / "sweep.py").write_text(
        "import sys\ndef sweep():\n    if sys.version_info > (3,):\n        from house import plots\n"
    )
    from house.sweep import sweep

    before = code_fingerprint(sweep)
    (house / "plots.py").write_text("X = 1\n")
    os.utime(house / "plots.py", (1, 1))
    assert code_fingerprint(sweep) != before


def test_code_from_a_notebook_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    monkeypatch.setattr(a_function, "__module__", "__main__")
    with pytest.raises(TypeError, match="a_function has no source file"):
        code_fingerprint(a_function)


def defined_in_a_cell(source: str) -> object:
    """The setting that a notebook's cell of this text makes, with the text where a kernel puts it."""
    linecache.cache["<cell>"] = (len(source), None, source.splitlines(keepends=True), "<cell>")
    names: dict[str, Any] = {"__name__": "__main__", "dataclass": dataclass}
    exec(compile(source, "<cell>", "exec"), names)
    return names["Mine"](2.0)


def test_a_class_of_a_notebook_counts_with_its_cell() -> None:
    cell = (
        "@dataclass(frozen=True)\nclass Mine:\n    factor: float\n    rule = 'a'\n    def of(self, x): return x * 2\n"
    )
    first = fingerprint(defined_in_a_cell(cell))
    assert fingerprint(defined_in_a_cell(cell)) == first
    assert fingerprint(defined_in_a_cell(cell.replace("* 2", "* 3"))) != first
    assert fingerprint(defined_in_a_cell(cell.replace("'a'", "'b'"))) != first
    parent = cell.replace("Mine", "Base") + "@dataclass(frozen=True)\nclass Mine(Base):\n    pass\n"
    assert fingerprint(defined_in_a_cell(parent)) != fingerprint(defined_in_a_cell(parent.replace("* 2", "* 3")))


def test_a_setting_of_this_package_counts_with_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    from helpers.records import store
    from helpers.text.questions import Question

    question = Question("1", "biology", "Which?", ("a", "b", "c", "d"), 0)
    before = fingerprint(question)
    monkeypatch.setattr(store, "code_fingerprint", lambda thing: "other code")
    assert fingerprint(question) != before


# --- the store --------------------------------------------------------------------------------------------------------


class Counted:
    """A result, and how often it was computed."""

    def __init__(self, result: Any) -> None:
        self.result, self.times = result, 0

    def __call__(self) -> Any:
        self.times += 1
        return self.result


def entry_of(store: Store, name: str = "rates") -> Path:
    (entry,) = store.folder.glob(f"{name}-*")
    return entry


def test_a_table_survives_exactly_and_is_computed_once(tmp_path: Path) -> None:
    columns = {"n": [1, 2], "rate": [0.1, float("nan")], "name": ["a", "nan"], "known": [True, False]}
    table = pd.DataFrame(columns | {"small": np.array([1, 2], "float32")})
    compute = Counted(table)
    first, second = (Store(tmp_path).stage("rates", compute, {"seed": "1"}) for _ in range(2))
    assert (compute.times, first.cached, second.cached) == (1, False, True)
    for stage in (first, second):
        pd.testing.assert_frame_equal(stage.result, table, check_exact=True)
    assert second.seconds == first.seconds


def test_arrays_survive_exactly(tmp_path: Path) -> None:
    import torch

    shared = torch.arange(6.0).reshape(2, 3)
    arrays = {
        "bfloat16": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        "view": shared.T,
        "same memory": shared,
        "scalar": torch.tensor(3),
        "numpy": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "empty": np.zeros((0, 2), "float32"),
    }
    result = Store(tmp_path).stage("rates", lambda: arrays, {}).result
    assert set(result) == set(arrays)
    for name, array in arrays.items():
        assert type(result[name]) is type(array) and result[name].dtype == array.dtype
        assert result[name].shape == array.shape and bool((result[name] == array).all())


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True, "x"]}, [], {}, None, 0.1, "text", [float("inf")]])
def test_json_values_survive_exactly(tmp_path: Path, value: Any) -> None:
    assert Store(tmp_path).stage("rates", lambda: value, {}).result == value


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (pd.DataFrame({"a": [1, 2]}, index=[5, 6]), "reset_index"),
        (pd.DataFrame({"a": [(1, 2), (3,)]}), "comes back from parquet as another one"),
        (pd.DataFrame({"a": [1, "x"]}), "cannot be stored"),
        ({1: "a"}, "the key 1"),
        ({"a": [np.float64(1)]}, r"\['a'\]\[0\] is numpy.float64"),
        ({"a": np.zeros(1), "b": 1}, r"\['a'\] is numpy.ndarray"),
        (Settings(1.0, (1,)), "Settings; a stage returns"),
    ],
)
def test_a_result_that_would_change_is_refused(tmp_path: Path, result: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Store(tmp_path).stage("rates", lambda: result, {})
    assert list(tmp_path.iterdir()) == []


def flip_a_byte(entry: Path) -> None:
    data = entry / "data.parquet"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)


def truncate(entry: Path) -> None:
    data = entry / "data.parquet"
    data.write_bytes(data.read_bytes()[:-1])


def edit_manifest(entry: Path, **changes: Any) -> None:
    manifest = json.loads((entry / "manifest.json").read_text())
    (entry / "manifest.json").write_text(json.dumps(manifest | changes))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped byte": (flip_a_byte, "the SHA-256 of data.parquet is not the one"),
    "truncated": (truncate, r"data.parquet has \d+ bytes, expected \d+"),
    "no data": (lambda entry: (entry / "data.parquet").unlink(), "data.parquet is missing"),
    "no manifest": (lambda entry: (entry / "manifest.json").unlink(), "manifest.json is missing"),
    "half a manifest": (lambda entry: (entry / "manifest.json").write_text('{"name"'), "not JSON"),
    "a manifest without size": (lambda entry: edit_manifest(entry, bytes=None), "no valid 'bytes'"),
    "a foreign key": (lambda entry: edit_manifest(entry, key={"seed": "2"}), "made from something else: seed"),
    "a foreign file": (lambda entry: edit_manifest(entry, file="../x.parquet"), "unknown data file"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_entry_is_said_and_computed_again(tmp_path: Path, caplog: Any, fault: str) -> None:
    damage, why = FAULTS[fault]
    store, compute = Store(tmp_path), Counted(pd.DataFrame({"a": range(50)}))
    store.stage("rates", compute, {"seed": "1"})
    damage(entry_of(store))
    again = store.stage("rates", compute, {"seed": "1"})
    assert compute.times == 2 and again.result.equals(compute.result)
    (message,) = caplog.messages
    assert re.fullmatch(rf"stage rates is corrupt \(.*{why}.*\), computing again", message)
    assert store.stage("rates", compute, {"seed": "1"}).cached and len(caplog.messages) == 1


def test_the_log_says_which_part_of_the_key_changed(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "helpers")
    store, key = Store(tmp_path), {"settings": "1", "the code": "2", "seed": "3"}
    store.stage("static", lambda: 1, key)
    store.stage("static-any", lambda: 1, {})
    assert caplog.text == ""
    assert not store.stage("static", lambda: 2, key | {"settings": "9", "the code": "9"}).cached
    assert "static: computed anew (settings, the code changed)" in caplog.text
    assert store.stage("static", lambda: 3, key).result == 1


def test_a_stage_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        Store(tmp_path / "stages").stage("rates", lambda: 1 / 0, {})
    assert not (tmp_path / "stages").exists()


def test_a_store_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a folder should be")
    with pytest.raises(OSError, match=r"cannot write stage rates in .*runs"):
        Store(tmp_path / "runs").stage("rates", lambda: 1, {})


def test_what_was_written_is_read_and_what_was_not_is_none(tmp_path: Path) -> None:
    store, key = Store(tmp_path / "stages"), {"seed": "1", "code": "2"}
    assert store.read("rates", key) is None and not (tmp_path / "stages").exists()
    table = pd.DataFrame({"a": [0.1, float("nan")], "b": ["x", "y"]})
    written, read = store.write("rates", table, key, 12.34567), Store(tmp_path / "stages").read("rates", key)
    assert (written.cached, read.cached, read.name) == (False, True, "rates")
    assert written.seconds == read.seconds == 12.346
    for stage in (written, read):
        pd.testing.assert_frame_equal(stage.result, table, check_exact=True)
    for other in (("rates", key | {"seed": "2"}), ("rates", {"seed": "1"}), ("rate", key)):
        assert store.read(*other) is None
    assert store.stage("rates", lambda: 1 / 0, key).cached  # a stage finds it, and computes nothing


def test_what_a_stage_computed_can_be_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = store.stage("rates", lambda: {"a": 1}, {"seed": "1"})
    assert store.read("rates", {"seed": "1"}).result == made.result == {"a": 1}


def test_what_another_run_wrote_meanwhile_stays(tmp_path: Path) -> None:
    store, key = Store(tmp_path), {"seed": "1"}
    store.write("rates", [1], key, 1.0)
    before = (entry_of(store) / "manifest.json").read_bytes()
    assert Store(tmp_path).write("rates", [1], key, 2.0).result == [1]
    assert (entry_of(store) / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [entry_of(store).name]  # nothing half done lies beside it


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_entry_is_none_and_gone(tmp_path: Path, caplog: Any, fault: str) -> None:
    damage, why = FAULTS[fault]
    store, key = Store(tmp_path), {"seed": "1"}
    store.write("rates", pd.DataFrame({"a": range(50)}), key, 1.0)
    damage(entry_of(store))
    assert store.read("rates", key) is None
    assert re.search(why, caplog.text) and list(tmp_path.iterdir()) == []
    assert store.read("rates", key) is None and len(caplog.messages) == 1
    assert store.write("rates", {"a": 2}, key, 1.0).result == store.read("rates", key).result == {"a": 2}


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b"])
def test_a_name_that_is_no_folders_is_refused(tmp_path: Path, name: str) -> None:
    for use in (lambda: Store(tmp_path).read(name, {}), lambda: Store(tmp_path).write(name, 1, {}, 1.0)):
        with pytest.raises(ValueError, match="stage name"):
            use()


def test_a_result_that_would_change_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="reset_index"):
        Store(tmp_path).write("rates", pd.DataFrame({"a": [1]}, index=[5]), {}, 1.0)
    assert list(tmp_path.iterdir()) == []
