"""A profile is complete and right, or one message says what is not."""

import pytest

from helpers.profiles import FOLDER, available_profiles, load_profile, parse_profile, run_name

TINY = (FOLDER / "tiny.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", available_profiles())
def test_every_profile_loads(name):
    assert load_profile(name).name == name


def test_an_unknown_profile_lists_the_known():
    with pytest.raises(ValueError, match=r"'gemma-7' is unknown, the known ones are: .*tiny"):
        load_profile("gemma-7")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("width = 2048", "width = 2048\nwidht = 1", "unknown key sae.widht"),
        ("width = 2048", "", "missing value sae.width"),
        ("width = 2048", 'width = "2048"', "sae.width = '2048': input should be a valid integer"),
        ("width = 2048", "width = 0", "sae.width = 0: input should be greater than 0"),
        ("learning_rate = 1e-2", "learning_rate = nan", "rmu.learning_rate = nan: input should be a finite number"),
        ("n_features = [10, 20, 50]", "n_features = [10, 20.5]", "pareto.n_features.1 = 20.5"),
        ("strengths = [0.0, 1.0, 2.0", "strengths = [-1.0, 1.0, 2.0", "clamp_curve.strengths.0 = -1.0"),
        ("fires_above = 0.05", "fires_above = -0.05", "conditional.fires_above = -0.05"),
        ('dtype = "float32"', 'dtype = "float16"', "model.dtype = 'float16': input should be 'float32' or 'bfloat16'"),
        ('name = "tiny"', 'name = "small"', "calls itself 'small'"),
        ("[pareto]", "[pareto", "not valid TOML"),
    ],
)
def test_a_fault_is_named_with_its_place(old, new, message):
    assert old in TINY
    with pytest.raises(ValueError, match="profile 'tiny'") as caught:
        parse_profile(TINY.replace(old, new, 1), "tiny")
    assert message in str(caught.value)


def test_a_heir_says_only_what_differs():
    cyber, bio = load_profile("gemma-2-2b-it-cyber"), load_profile("gemma-2-2b-it")
    assert (cyber.sae.id, cyber.sae.source) == ("layer_3/width_16k/average_l0_142", bio.sae.source)
    assert (cyber.questions.forget, cyber.selection.ratio_percentile) == ("wmdp-cyber", 90)
    assert (cyber.model, cyber.rmu, cyber.guardrail) == (bio.model, bio.rmu, bio.guardrail)


@pytest.mark.parametrize(("parent", "message"), [("tiny", "calls itself 'tiny'"), ("nobody", "'nobody' is unknown")])
def test_a_heir_needs_a_name_of_its_own_and_a_parent(parent, message):
    with pytest.raises(ValueError, match=message):
        parse_profile(f'extends = "{parent}"', "heir")


def test_a_profile_that_extends_itself_is_refused(monkeypatch, tmp_path):
    (tmp_path / "a.toml").write_text('extends = "b"')
    (tmp_path / "b.toml").write_text('extends = "a"')
    monkeypatch.setattr("helpers.profiles.FOLDER", tmp_path)
    with pytest.raises(ValueError, match="'a' extends itself: a -> b -> a"):
        load_profile("a")


def test_a_notebook_may_have_settings_of_its_own_and_overrides_win_over_them():
    ids = [load_profile("gemma-2-2b-it", notebook=number).sae.id for number in ("03", "05")]
    assert [name.rpartition("_")[2] for name in ids] == ["59", "142"]
    changed = load_profile("gemma-2-2b-it", {"sae.id": "other", "questions.limit": 8}, "05")
    assert (changed.sae.id, changed.sae.layer, changed.questions.limit) == ("other", 3, 8)


def test_a_fault_in_one_notebooks_settings_is_found_when_the_profile_is_loaded():
    with pytest.raises(ValueError, match="'tiny, notebook 05': unknown key sae.widht"):
        parse_profile(TINY + '\n[notebook."05".sae]\nwidht = 1', "tiny")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("questions.limit", -1, "questions.limit = -1: input should be greater than or equal to 0"),
        ("questions.limits", 1, "unknown key questions.limits"),
        ("limit", 1, "override 'limit' is not of the form table.key"),
        ("rmu.layers", "2", "rmu.layers = '2': input should be a valid array"),
    ],
)
def test_an_override_is_checked_like_the_file(key, value, message):
    with pytest.raises(ValueError, match="profile 'tiny'") as caught:
        load_profile("tiny", {key: value})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (None, "tiny"),
        ({"model.device": "cpu", "model.batch_tokens": 8, "cache.disk_mb": 0, "questions.show_text": True}, "tiny"),
        ({"model.device": "cpu", "questions.limit": 8}, "tiny+changed"),
        ({"model.device_map": "auto"}, "tiny+changed"),
    ],
)
def test_only_what_may_change_a_result_has_a_folder_of_its_own(overrides, name):
    assert run_name("tiny", overrides) == name
