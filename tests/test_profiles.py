"""A profile is complete and right, or one message says what is not."""

import pytest

from helpers.methods import METHODS
from helpers.profiles import (
    FOLDER,
    Count,
    available_profiles,
    load_profile,
    parse_profile,
    run_name,
    settings_table,
)

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
        (
            "learning_rates = [2e-4",
            "learning_rates = [nan",
            "relearning.learning_rates.0 = nan: input should be a finite",
        ),
        ("n_features = [1, 5, 20]", "n_features = [1, 20.5]", "clamp_curve.n_features.1 = 20.5"),
        ("strengths = [0.0, 1.0, 2.0", "strengths = [-1.0, 1.0, 2.0", "clamp_curve.strengths.0 = -1.0"),
        ("threads = 1", "threads = -1", "compute.threads = -1: input should be greater than or equal to 0"),
        ("threads = 1", "", "missing value compute.threads"),
        ("own_methods = []", "own_methods = [1]", "own_methods.0 = 1: input should be a valid string"),
        ("[method.rmu]", "[method]\nrmu = 3\n[clamp_prime]", "method.rmu = 3: input should be an object"),
        ('dtype = "float32"', 'dtype = "float16"', "model.dtype = 'float16': input should be 'float32' or 'bfloat16'"),
        ('name = "tiny"', 'name = "small"', "calls itself 'small'"),
        ("[method.dsg]", "[method.dsg", "not valid TOML"),
    ],
)
def test_a_fault_is_named_with_its_place(old, new, message):
    assert old in TINY
    with pytest.raises(ValueError, match="profile 'tiny'") as caught:
        parse_profile(TINY.replace(old, new, 1), "tiny")
    assert message in str(caught.value)


def test_other_families_have_strengths_in_lengths_of_the_residual():
    found = {name: load_profile(name) for name in available_profiles()}
    units = {name: profile.clamp_unit for name, profile in found.items()}
    relative = {"gemma-2-9b-it", "gemma-3-1b-it", "gemma-3-4b-it", "llama-3.1-8b-it"}
    assert {name for name, unit in units.items() if unit == "residual norm"} == relative
    for name in relative:  # DSG's 500 over Gemma-2-2b's 92 is the strongest of theirs
        strengths = found[name].method["dsg"]["strengths"]
        assert max(strengths) == pytest.approx(500 / 92, rel=0.02)
        for number in found[name].notebooks:
            version = load_profile(name, notebook=number)
            assert (version.sae.id, version.sae.layer) == (found[name].sae.id, found[name].sae.layer)


def test_a_heir_says_only_what_differs():
    cyber, bio = load_profile("gemma-2-2b-it-cyber"), load_profile("gemma-2-2b-it")
    assert (cyber.sae.id, cyber.sae.source) == ("layer_3/width_16k/average_l0_142", bio.sae.source)
    assert (cyber.questions.forget, cyber.selection.ratio_percentile) == ("wmdp-cyber", 90)
    assert (cyber.model, cyber.method, cyber.relearning) == (bio.model, bio.method, bio.relearning)


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


def test_a_notebooks_grid_of_a_method_replaces_the_common_one_key_by_key():
    common, special = (load_profile("tiny", notebook=number).method for number in ("04", "05"))
    assert common["clamp_prime"]["n_features"] == [5, 10, 20, 40] and common["clamp_prime"]["proportional"] == [
        False,
        True,
    ]
    assert special["clamp_prime"]["n_features"] == [10, 20, 40] and special["clamp_prime"]["proportional"] == [False]
    assert {**common, "clamp_prime": None} == {**special, "clamp_prime": None}
    changed = load_profile("tiny", {"method.clamp_prime.strengths": [3.0]}, "05").method["clamp_prime"]
    assert changed == special["clamp_prime"] | {"strengths": [3.0]}


# --- grids of methods -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", available_profiles())
def test_every_profile_has_a_grid_of_every_method(name):
    for number in (None, *(load_profile(name).notebooks or ("03", "04", "05", "06"))):
        profile = load_profile(name, notebook=number)
        assert set(profile.method) == set(METHODS)
        for key, method in METHODS.items():
            grid = method.grid(profile)
            # nobody has Gemma trained anew
            assert bool(grid) == (profile.method[key] != {"source": ""}), key
            assert {type(setting) for setting in grid} <= {method} and len(set(grid)) == len(grid), key


@settings_table
class Sizes:
    widths: tuple[Count, ...]
    deep: bool


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "profile 'tiny' has no table [method.mine], which it needs; it has static_clamp, rmu, "),
        ({"widths": [1], "deep": True, "tall": 1}, "profile 'tiny': unknown key method.mine.tall"),
        ({"widths": [1]}, "profile 'tiny': missing value method.mine.deep"),
        ({"widths": 1, "deep": True}, "profile 'tiny': method.mine.widths = 1: input should be a valid array"),
        ({"widths": [1, 0], "deep": True}, "method.mine.widths.1 = 0: input should be greater than 0"),
        ({"widths": [1], "deep": 1}, "method.mine.deep = 1: input should be a valid boolean"),
    ],
)
def test_a_table_of_a_method_is_checked_by_the_class_that_says_what_stands_in_it(table, message):
    profile = load_profile("tiny", None if table is None else {"method.mine": table})
    with pytest.raises(ValueError, match=r"^profile 'tiny'") as caught:
        profile.grid_of("mine", Sizes)
    assert message in str(caught.value)


def test_a_right_table_comes_back_as_its_class():
    profile = load_profile("tiny", {"method.mine.widths": [1, 2], "method.mine.deep": False})
    assert profile.grid_of("mine", Sizes) == Sizes((1, 2), False)


@pytest.mark.parametrize(
    ("method", "key", "value", "message"),
    [
        ("rmu", "learning_rates", ["nan"], "method.rmu.learning_rates.0 = 'nan': input should be a valid number"),
        ("rmu", "layers", "2", "method.rmu.layers = '2': input should be a valid array"),
        ("rmu", "step", 3, "unknown key method.rmu.step"),
        ("static_clamp", "n_features", [10, 20.5], "method.static_clamp.n_features.1 = 20.5: "),
        ("dsg", "strengths", [-1.0], "method.dsg.strengths.0 = -1.0: input should be greater than or equal to 0"),
        (
            "dsg",
            "gate_percentile",
            101.0,
            "method.dsg.gate_percentile = 101.0: input should be less than or equal to 100",
        ),
        ("refusal_clamp", "fires_above", -0.05, "method.refusal_clamp.fires_above = -0.05"),
        ("clamp_prime", "proportional", [0], "method.clamp_prime.proportional.0 = 0: input should be a valid boolean"),
        ("unconditional", "n_features", [0], "method.unconditional.n_features.0 = 0: input should be greater than 0"),
    ],
)
def test_a_fault_in_a_methods_table_is_named_with_its_place(method, key, value, message):
    with pytest.raises(ValueError, match="^profile 'tiny'") as caught:
        METHODS[method].grid(load_profile("tiny", {f"method.{method}.{key}": value}))
    assert message in str(caught.value)


def test_a_fault_in_one_notebooks_settings_is_found_when_the_profile_is_loaded():
    with pytest.raises(ValueError, match="'tiny, notebook 05': unknown key sae.widht"):
        parse_profile(TINY + '\n[notebook."05".sae]\nwidht = 1', "tiny")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("questions.limit", -1, "questions.limit = -1: input should be greater than or equal to 0"),
        ("questions.limits", 1, "unknown key questions.limits"),
        ("limit", 1, "override 'limit' is not of the form table.key"),
        ("clamp_curve.n_features", "2", "clamp_curve.n_features = '2': input should be a valid array"),
        ("rmu.layers", [2], "unknown key rmu"),
        ("compute.jobs", -1, "compute.jobs = -1: input should be greater than or equal to 0"),
        ("own_methods", "mine.py", "own_methods = 'mine.py': input should be a valid array"),
        ("name", "other", "override 'name' is not of the form table.key"),
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
        ({"model.attention": "sdpa", "model.gradient_checkpointing": True}, "tiny"),
        ({"model.optimizer": "adamw 8-bit"}, "tiny+changed"),
        ({"model.training_dtype": "bfloat16"}, "tiny+changed"),
        ({"compute.jobs": 4, "compute.threads": 2, "compute.scheduler": "tcp://a:1"}, "tiny"),
        ({"texts.forget_file": "copy.jsonl"}, "tiny"),
        ({"own_methods": ["mine.py"]}, "tiny+changed"),
        ({"clamp_unit": "residual norm"}, "tiny+changed"),
        ({"compute.jobs": 4, "method.rmu.steps": 3}, "tiny+changed"),
    ],
)
def test_only_what_may_change_a_result_has_a_folder_of_its_own(overrides, name):
    assert run_name("tiny", overrides) == name
