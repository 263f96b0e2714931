"""The authors' CSV becomes the intervention it describes, and a `.pt` of ours says what lm-eval's `steered` does."""

from dataclasses import replace

import pytest
import torch

from helpers.engine.interventions import Add, Clamp, Gate, Scale
from helpers.steering import main, read_steering, write_steered
from tests.toy import D_MODEL, LAYER, toy_sae

HEADER = "latent_idx,hook_action,steering_coefficient,sae_id,sae_release,description,clamp_value,refuse_id"
SAE_ID = f"layer_{LAYER}/width_16k/canonical"
RESIDUAL = 2 * torch.randn(2, 9, D_MODEL, generator=torch.Generator().manual_seed(1))
MASK = torch.ones(2, 9, dtype=torch.bool)


def row(latent=3, action="clamp", coefficient="-5", sae_id=SAE_ID, release="r", clamp_value="", refuse_id=""):
    return f'{latent},{action},{coefficient},{sae_id},{release},"words, and more",{clamp_value},{refuse_id}'


@pytest.fixture
def steering_file(tmp_path):
    """A writer of steering files: rows in, path out."""

    def write(*rows, header=HEADER):
        path = tmp_path / "steer.csv"
        path.write_text("\n".join([header, *rows]) + "\n")
        return path

    return write


def by_hand(action, latents, coefficients, clamp_value, refuse, bos):
    """The authors' rules token by token, row by row, on the whole SAE with its error term."""
    sae, edited = toy_sae(), RESIDUAL.clone()
    for b, t in torch.cartesian_prod(torch.arange(2), torch.arange(0 if bos else 1, 9)):
        f = sae.encode(RESIDUAL[b, t])
        new = f.clone()
        for latent, c in zip(latents, coefficients, strict=True):
            if action == "add":
                new[latent] += c
            elif action == "clamp_refusal" and f[latent] > clamp_value:
                new[refuse] = c
            elif action != "clamp_refusal" and f[latent] > (0 if action == "clamp" else clamp_value):
                new[latent] = c
        edited[b, t] = sae.decode(new) + RESIDUAL[b, t] - sae.decode(f)
    return edited


@pytest.mark.parametrize("action", ["add", "clamp", "clamp_cond", "clamp_refusal"])
@pytest.mark.parametrize("bos", [False, True])
def test_a_file_is_what_the_authors_code_does_with_it(steering_file, action, bos):
    latents, coefficients = [3, 5, 8, 13], [-5.0] * 4 if action == "clamp_refusal" else [-5.0, 2.0, -1.5, 4.0]
    cells = {"clamp_value": 1.6, "refuse_id": 21.0} if "_" in action else {}
    path = steering_file(*[row(i, action, c, **cells) for i, c in zip(latents, coefficients, strict=True)])
    steering = read_steering(path, toy_sae(), bos)
    expected = by_hand(action, latents, coefficients, 1.6, 21, bos)
    assert steering.action == action and (expected != RESIDUAL).any()
    torch.testing.assert_close(steering.clamp(RESIDUAL, MASK), expected, atol=1e-5, rtol=0)


def test_columns_of_no_use_and_a_spreadsheets_mark_are_passed_over(steering_file):
    path = steering_file(
        "https://x,7,clamp,-5,r," + SAE_ID,
        header="\ufeffurl,latent_idx,hook_action,steering_coefficient,sae_release,sae_id",
    )
    assert read_steering(path, toy_sae()).clamp.features == [7]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), row(action="print")], "row 2: hook_action 'print' is unknown, .* add, clamp, clamp_cond, clamp_ref"),
        ([row(32)], "row 1: latent_idx = 32 is outside this SAE, which has 0 to 31"),
        ([row(-1)], "row 1: latent_idx = -1 is outside"),
        ([row(), row("x")], "row 2: latent_idx = 'x' is not a whole number"),
        ([row(), row(4.5)], "row 2: latent_idx = '4.5' is not a whole number"),
        ([row(coefficient="")], "row 1: steering_coefficient = '' is not a finite number"),
        ([row(coefficient="nan")], "row 1: steering_coefficient = 'nan' is not a finite"),
        ([row(coefficient="inf")], "row 1: steering_coefficient = 'inf' is not a finite"),
        ([row(sae_id="layer_7/width_16k/canonical")], "row 1: sae_id .* is of layer 7, this SAE is of layer 1"),
        ([row(), row(4, sae_id="canonical")], "row 2: sae_id 'canonical' names no layer"),
        ([row(), row(4, action="add")], "row 2: action 'add' differs from row 1's 'clamp'"),
        ([row(), row(4, release="s")], "row 2: sae .* differs"),
        ([row(), row(5), row()], "row 3: latent_idx 3 is in row 1 already"),
        ([row(action="clamp_cond", clamp_value=0.1), row(4, "clamp_cond", clamp_value=0.2)], "row 2: clamp_value 0.2"),
        ([row(action="clamp_cond")], "row 1: clamp_value = '' is not a finite"),
        ([row(action="clamp_cond", clamp_value=-1)], "row 1: clamp_value = -1 is below 0"),
        ([row(action="clamp_refusal", clamp_value=0, refuse_id=32)], "row 1: refuse_id = 32 is outside this SAE"),
        ([row(action="clamp_refusal", clamp_value=0)], "row 1: refuse_id = '' is not a whole number"),
        ([row(3, "clamp_refusal", -5, clamp_value=0, refuse_id=9), row(4, "clamp_refusal", -5, clamp_value=0,
          refuse_id=8)], "row 2: refuse_id 8 differs from row 1's 9"),
        ([row(3, "clamp_refusal", -5, clamp_value=0, refuse_id=9), row(4, "clamp_refusal", -6, clamp_value=0,
          refuse_id=9)], "row 2: coefficient -6.0 differs from row 1's -5.0"),
        (["3,clamp"], "row 1: sae_id '' names no layer"),
        ([], "steer.csv has no rows"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_by_its_number(steering_file, rows, message):
    with pytest.raises(ValueError, match=message):
        read_steering(steering_file(*rows), toy_sae())


@pytest.mark.parametrize(
    ("action", "column"),
    [("clamp", "latent_idx"), ("clamp", "hook_action"), ("clamp", "steering_coefficient"), ("clamp", "sae_id"),
     ("clamp", "sae_release"), ("clamp_cond", "clamp_value"), ("clamp_refusal", "refuse_id")],
)  # fmt: skip
def test_a_missing_column_is_named(steering_file, action, column):
    header = ",".join("other" if name == column else name for name in HEADER.split(","))
    with pytest.raises(ValueError, match=f"steer.csv lacks the column {column}; it has "):
        read_steering(steering_file(row(action=action), header=header), toy_sae())


# --- for lm-eval ------------------------------------------------------------------------------------------------------


def add(features=(3, 5), amount=(-2.0, 0.5), **options):
    return Clamp(toy_sae(), features, Add(amount), "always", **{"bos": True, **options})


def test_the_tensors_for_lm_eval_add_what_we_add(tmp_path):
    """lm-eval multiplies vector and coefficient and adds the product everywhere."""
    path, other = tmp_path / "steer.pt", replace(add([7], 3.0), sae=toy_sae(layer=2))
    write_steered(path, [add(), other])
    config = torch.load(path, weights_only=True)
    assert set(config) == {"layers.1", "layers.2"} and all(c["action"] == "add" for c in config.values())
    for clamp, entry in ((add(), config["layers.1"]), (other, config["layers.2"])):
        moved = RESIDUAL + entry["steering_vector"] * entry["steering_coefficient"]
        torch.testing.assert_close(moved, clamp(RESIDUAL, MASK), atol=1e-5, rtol=0)
    assert [file.name for file in tmp_path.iterdir()] == ["steer.pt"]


@pytest.mark.parametrize(
    ("clamps", "reason"),
    [
        ([Clamp(toy_sae(), [3], -5.0)], r"cannot see whether a feature fires \(where='own'\)"),
        ([Clamp(toy_sae(), [3], -5.0, "always", bos=True)], "cannot set an activation to -5.0, for it never encodes"),
        ([Clamp(toy_sae(), [3], Scale(2.0), "always", bos=True)], r"cannot set an activation to Scale\(factor=2.0\)"),
        ([add(gate=Gate(0.1))], "it has no gate"),
        ([add(keep_error=False)], "it has no SAE, so what is not reconstructed stays"),
        ([add(bos=False)], "it touches BOS too, so say bos=True"),
        ([add([], 1.0)], "no feature is chosen"),
        ([add(), add([7], 1.0)], r"one direction a layer, got interventions after layers \[1, 1\]"),
        ([], r"one direction a layer, got interventions after layers \[\]"),
    ],
)
def test_what_steered_cannot_express_is_refused_with_the_reason(tmp_path, clamps, reason):
    with pytest.raises(ValueError, match=reason):
        write_steered(tmp_path / "steer.pt", clamps)
    assert not list(tmp_path.iterdir())


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"from a \.pt file only, got 'steer.csv'"):
        write_steered(tmp_path / "steer.csv", [add()])


def test_the_command_turns_one_into_the_other(steering_file, sae, tmp_path, capsys):
    good = steering_file(row(3, "add", -2.0), row(5, "add", 0.5))
    assert main([str(good), str(tmp_path / "steer.pt")]) == 0
    vector = torch.load(tmp_path / "steer.pt", weights_only=True)["layers.1"]["steering_vector"]
    torch.testing.assert_close(vector, -2.0 * sae.W_dec[3] + 0.5 * sae.W_dec[5])
    assert main([str(steering_file(row())), str(tmp_path / "other.pt")]) == 2
    assert "error: lm-eval's `steered` cannot express this intervention" in capsys.readouterr().out
    assert main([str(tmp_path / "absent.csv"), str(tmp_path / "other.pt")]) == 2
