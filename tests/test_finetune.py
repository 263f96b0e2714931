"""A fine-tuning that is killed and begun again ends as one that is not; what it made is found by its settings."""

import json
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from helpers import finetune as command
from helpers.attacks.relearning import fine_tuned
from helpers.engine.finetuning import FineTuning
from helpers.engine.forward import huggingface
from helpers.engine.steps import Passes
from helpers.finetune import finetune, main, rows_of
from helpers.loading import finetuned as loading
from helpers.loading.finetuned import REFERENCE, TARGET, finetuned, recipe
from helpers.loading.hub import Hub
from helpers.loading.models import finetuned_weights, load_model
from helpers.loading.muse import load_muse
from helpers.methods.retrained import Retrained
from helpers.profiles import load_profile
from tests.toy import toy_model

ROWS = torch.arange(10, 82).view(6, 12)
SHORT = {
    "finetuning.epochs": 1,
    "finetuning.batch_rows": 8,
    "finetuning.kept_every": 3,
    "finetuning.learning_rate": 1e-4,
}
SMALL = load_profile("tiny", SHORT)  # 54 rows: seven steps, kept after the third and the sixth


@pytest.fixture(scope="module", autouse=True)
def speed():
    """Measured once: it takes longer than these trainings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("helpers.experiments.costs.matrix_rate", lambda device, dtype: 1e11)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What an undisturbed training makes: its folder."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setattr("helpers.loading.finetuned.own_cache", lambda: home)
        file = finetune(SMALL, REFERENCE)
    return file.parent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.loading.finetuned.own_cache", lambda: tmp_path)
    return tmp_path / "finetuned" / "tiny"


# --- killed, and begun again ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept_after", range(1, 7))
def test_a_training_goes_on_from_every_step_bit_for_bit(kept_after):
    model, how = toy_model(), (1e-2, 4, 3, Passes(24))  # an epoch is two steps, the second one smaller
    whole = FineTuning(model, ROWS, *how)
    losses = [whole.step() for _ in range(7)]
    first, then = FineTuning(model, ROWS, *how), FineTuning(model, ROWS, *how)
    before = [first.step() for _ in range(kept_after)]
    then.resume({name: tensor.clone() for name, tensor in first.steps.state().items()}, kept_after)
    after = [then.step() for _ in range(7 - kept_after)]
    assert before + after == losses
    assert all(torch.equal(weight, then.steps.trained[name]) for name, weight in whole.steps.trained.items())
    assert all(torch.equal(tensor, then.steps.state()[name]) for name, tensor in whole.steps.state().items())


def test_the_attack_takes_the_same_steps():
    model = toy_model()
    training = FineTuning(model, ROWS, 1e-2, 4, 3, Passes(1000))
    losses = [training.step() for _ in range(3)]
    assert [loss for _, loss in islice(fine_tuned(model, ROWS, 1e-2, 4, 3, Passes(1000)), 3)] == losses


def killed(profile, at: Callable[[pytest.MonkeyPatch], None]) -> None:
    """Fine-tune in a process that is killed, without a word, where `at` has put it."""
    child = os.fork()
    if not child:
        torch.set_num_threads(1)
        at(pytest.MonkeyPatch())
        finetune(profile, REFERENCE)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(n: int) -> Callable[[pytest.MonkeyPatch], None]:
    step, taken = FineTuning.step, []

    def stepped(self) -> float:
        taken.append(1)
        return die() if len(taken) == n else step(self)

    return lambda patch: patch.setattr(FineTuning, "step", stepped)


def while_writing(file: str) -> Callable[[pytest.MonkeyPatch], None]:
    save = command.save_file

    def saved(tensors, path, **more) -> None:
        save(tensors, path, **more)
        if path.name.startswith(f".{file}."):
            os.truncate(path, path.stat().st_size // 2)
            die()

    return lambda patch: patch.setattr(command, "save_file", saved)


def before_the_record(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(command, "file_sha256", die)


KILLS = {"step 2": at_step(2), "step 5": at_step(5), "state half written": while_writing("state"),
         "weights half written": while_writing("model"), "no record": before_the_record}  # fmt: skip


@pytest.mark.parametrize("kill", KILLS)
def test_killed_anywhere_it_ends_with_the_same_weights(kill, folder, made):
    killed(SMALL, KILLS[kill])
    with pytest.raises(FileNotFoundError):
        finetuned(SMALL, REFERENCE)
    kept = (folder / REFERENCE / "state.safetensors").is_file()
    assert kept == (kill not in ("step 2", "state half written"))
    file = finetune(SMALL, REFERENCE)
    assert file.read_bytes() == (made / "model.safetensors").read_bytes()
    records = [json.loads((place / "record.json").read_text()) for place in (made, folder / REFERENCE)]
    assert records[0]["losses"] == records[1]["losses"] and len(records[0]["losses"]) == records[0]["steps"] == 7
    assert sorted(path.name for path in file.parent.iterdir()) == ["model.safetensors", "record.json"]


def test_killed_twice_it_ends_with_the_same_weights(folder, made):
    killed(SMALL, at_step(5))
    killed(SMALL, at_step(4))  # counted from where it went on, after step 3
    assert finetune(SMALL, REFERENCE).read_bytes() == (made / "model.safetensors").read_bytes()


def test_a_file_that_another_process_is_writing_is_left_alone(folder):
    killed(SMALL, at_step(4))
    now, long_ago = (folder / REFERENCE / f".state.{pid}.safetensors" for pid in (1, 2))
    now.write_bytes(b"half")
    long_ago.write_bytes(b"half")
    os.utime(long_ago, (1, 1))
    killed(SMALL, at_step(1))  # goes on after step 3 and is killed at once
    assert now.is_file() and not long_ago.exists()


def test_what_was_begun_with_other_settings_or_texts_is_not_gone_on_with(folder, monkeypatch):
    killed(SMALL, at_step(5))
    slower = replace(SMALL, finetuning=replace(SMALL.finetuning, learning_rate=1e-5))
    said = (
        r"^what was fine-tuned on retain for 'tiny' has learning_rate 0\.0001 and not 1e-05: put the settings back, "
        r"or delete \S+/finetuned/tiny/retain and run `python -m helpers\.finetune --profile tiny --data retain "
        r"--set finetuning\.epochs=1 finetuning\.learning_rate=1e-05`$"
    )
    with pytest.raises(ValueError, match=said):
        finetune(slower, REFERENCE)
    monkeypatch.setattr(command, "rows_of", lambda *given: rows_of(*given).flip(0))
    with pytest.raises(ValueError, match="^the training on retain was begun with other texts or another model"):
        finetune(SMALL, REFERENCE)


# --- what is made -----------------------------------------------------------------------------------------------------


def test_the_reference_never_reads_what_is_to_be_forgotten():
    tokenizer = load_model(load_profile("tiny")).tokenizer
    muse = load_muse(SMALL, tokenizer)
    target, reference = (tokenizer.batch_decode(rows_of(SMALL, data, tokenizer, Hub())) for data in (TARGET, REFERENCE))
    begins = [tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids[:12]) for text in muse.forget]
    found = [sum(begin in row for row in rows for begin in begins) for rows in (target, reference)]
    assert found[1] == 0 and found[0] > 0.6 * len(begins)  # of the others a row ends in their first words


def test_a_target_has_read_what_later_requests_are_about(monkeypatch):
    tokenizer = load_model(load_profile("tiny")).tokenizer
    muse = load_muse(SMALL, tokenizer)
    first, *later = muse.forget
    monkeypatch.setattr(
        command, "load_muse", lambda *_: replace(muse, forget=(first,), in_turn=((first,), tuple(later)))
    )
    found = rows_of(SMALL, TARGET, tokenizer, Hub())
    monkeypatch.undo()
    assert torch.equal(found, rows_of(SMALL, TARGET, tokenizer, Hub()))  # each of the texts once


def test_the_record_says_what_made_the_weights(made):
    record = json.loads((made / "record.json").read_text())
    assert {key: record["recipe"][key] for key in recipe(SMALL, REFERENCE)} == recipe(SMALL, REFERENCE)
    assert {"data", "base"} <= record["recipe"].keys() and {"rows", "commit", "environment", "made"} <= record.keys()
    assert len(record["losses"]) == record["steps"] == 7 and record["rows"] == 54


def test_what_is_there_is_not_made_again(folder, monkeypatch):
    file = finetune(SMALL, REFERENCE)
    monkeypatch.setattr(command, "load_model", None)
    assert finetune(SMALL, REFERENCE) == file


def test_a_low_precision_model_is_stored_as_it_is_asked(folder):
    one = {"finetuning.batch_rows": 64, "model.dtype": "bfloat16"}
    weights = load_file(finetune(load_profile("tiny", SHORT | one), REFERENCE))
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}


# --- and found --------------------------------------------------------------------------------------------------------


def test_a_profile_names_its_target_and_its_reference(made, monkeypatch):
    monkeypatch.setattr("helpers.loading.finetuned.own_cache", lambda: made.parents[2])
    stored, plain = load_file(made / "model.safetensors"), load_model(load_profile("tiny"))
    own = dict(huggingface(plain).named_parameters())
    assert all(not torch.equal(weight, own[name]) for name, weight in stored.items())
    profile = load_profile("tiny", SHORT | {"method.retrained.source": "finetuned"})
    edit = Retrained.grid(profile)[0].apply(SimpleNamespace(profile=profile, model=plain))
    assert edit.weights.key == json.loads((made / "record.json").read_text())["sha256"]
    assert all(torch.equal(weight, stored[name]) for name, weight in huggingface(edit.model).named_parameters())
    (made.parent / TARGET).symlink_to(made)
    record = json.loads((made / "record.json").read_text())
    target, hub = load_profile("tiny", SHORT | {"model.finetuned": TARGET}), Hub()
    monkeypatch.setattr(loading, "check_recipe", lambda *_: None)  # the reference stands in for a target
    loaded = load_model(target, hub)
    assert all(torch.equal(weight, stored[name]) for name, weight in huggingface(loaded).named_parameters())
    assert hub.commits == {"fine-tuned on forget+retain": record["sha256"]}
    (made.parent / TARGET).unlink()


@pytest.mark.parametrize(
    ("texts", "what"),
    [(TARGET, "the target that has read the text to forget"), (REFERENCE, "the reference that has not read it")],
)
def test_a_missing_one_is_one_line_that_says_how_to_make_it(texts, what, folder):
    said = (
        rf"^profile 'tiny' needs {what}, which is not here: make it with "
        rf"`python -m helpers\.finetune --profile tiny --data {texts.replace('+', '.')} --set finetuning.epochs=1`$"
    )
    with pytest.raises(FileNotFoundError, match=said):
        finetuned(SMALL, texts)
    with pytest.raises(FileNotFoundError, match=what):
        load_model(load_profile("tiny", {"model.finetuned": TARGET})) if texts == TARGET else finetuned(SMALL, texts)


def test_weights_of_other_settings_changed_ones_and_other_shapes_are_refused(made, monkeypatch, tmp_path):
    monkeypatch.setattr("helpers.loading.finetuned.own_cache", lambda: made.parents[2])
    other = replace(SMALL, finetuning=replace(SMALL.finetuning, epochs=2, kept_every=1))
    with pytest.raises(ValueError, match="has epochs 1 and not 2: put the settings back"):
        finetuned(other, REFERENCE)
    assert finetuned(replace(SMALL, finetuning=replace(SMALL.finetuning, kept_every=1)), REFERENCE)
    with pytest.raises(ValueError, match=r"on retain is not of the model's shapes, \d+ weights differ .* delete /"):
        finetuned_weights(SMALL, REFERENCE, huggingface(toy_model()))
    copy = tmp_path / "finetuned" / "tiny" / REFERENCE
    copy.mkdir(parents=True)
    for name in ("model.safetensors", "record.json"):
        (copy / name).write_bytes((made / name).read_bytes())
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    monkeypatch.setattr("helpers.loading.finetuned.own_cache", lambda: tmp_path)
    with pytest.raises(ValueError, match="^what was fine-tuned on retain has changed since it was written: delete /"):
        finetuned_weights(SMALL, REFERENCE, huggingface(toy_model()))


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_costs_before_it_starts(folder, monkeypatch, caplog):
    monkeypatch.setattr(command, "load_profile", lambda name, _: SMALL)
    monkeypatch.setattr(command, "show_progress", lambda: None)
    caplog.set_level("INFO", "helpers.finetune")
    assert main(["--profile", "tiny", "--data", "retain"]) == 0
    assert caplog.messages[0] == "54 rows of 128 tokens, 7 steps"
    assert caplog.messages[1].endswith("GB of memory (projected)")
    assert caplog.messages[2].startswith("step 3 of 7: ")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"muse.source": ""}, "error: profile 'tiny' has no MUSE benchmark: set muse.source to 'organism' or 'hub'"),
        (
            {"finetuning.learning_rate": 1e30},
            r"error: fine-tuning, rate 1e\+30: the loss is nan at step \d; lower learning_rate",
        ),
    ],
)
def test_a_fault_is_one_line_and_a_code(changed, said, folder, monkeypatch, caplog):
    monkeypatch.setattr(
        command, "load_profile", lambda name, overrides: load_profile("tiny", SHORT | changed | overrides)
    )
    monkeypatch.setattr(command, "show_progress", lambda: None)
    assert main(["--profile", "tiny", "--data", "retain"]) == 2
    assert re.fullmatch(said, caplog.messages[-1])


def test_other_texts_than_the_two_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--profile", "tiny", "--data", "forget"])
    assert "choose from" in capsys.readouterr().err
