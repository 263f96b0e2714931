"""A profile is complete and right, or one message says what is not."""

import pytest

from helpers.profiles import FOLDER, available_profiles, load_profile, parse_profile

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
