"""The intervention is what the papers write, and touches nothing else."""

import pytest
import torch

from helpers.interventions import Clamp, Gate, Scale, after_bos, hot_fraction
from tests.toy import D_MODEL, D_SAE, brute_force_clamp, toy_sae

FEATURES = [3, 5, 8, 13, 21]


@pytest.fixture(scope="module")
def residual():
    return 2 * torch.randn(3, 10, D_MODEL, generator=torch.Generator().manual_seed(1))


def full(residual):
    return torch.ones(residual.shape[:2], dtype=torch.bool)


def padded(residual, side, n=4):
    """The same rows with n padding positions of large junk on one side."""
    junk = torch.full((len(residual), n, D_MODEL), 9.0)
    off = torch.zeros(len(residual), n, dtype=torch.bool)
    parts = [(residual, full(residual)), (junk, off)]
    parts = parts if side == "right" else parts[::-1]
    return torch.cat([p[0] for p in parts], dim=1), torch.cat([p[1] for p in parts], dim=1)


def test_hot_fraction_counts_neither_bos_nor_padding():
    # four real tokens after BOS, features fire at two of them, at BOS and at padding: 2 / 4
    activations = torch.zeros(1, 7, 2)
    activations[0, [0, 1, 3, 6], [0, 1, 0, 1]] = 1.0
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0]]).bool()
    assert hot_fraction(activations, mask).tolist() == [0.5]


def test_hot_fraction_counts_a_token_once_however_many_features_fire():
    activations = torch.tensor([[[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]])
    assert hot_fraction(activations, torch.ones(1, 3)).tolist() == [0.5]


def test_hot_fraction_of_a_row_with_bos_only_is_zero():
    assert hot_fraction(torch.ones(1, 2, 1), torch.tensor([[0, 1]])).tolist() == [0.0]


def test_after_bos_finds_bos_on_either_side():
    mask = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]])
    assert after_bos(mask).tolist() == [[False, True, True, False], [False, False, True, True]]


def test_a_gate_exactly_at_its_threshold_stays_shut():
    activations, mask = torch.zeros(1, 11, 1), torch.ones(1, 11)
    activations[0, 1:4] = 1.0
    assert not Gate(0.3).opens(activations, mask).item()
    assert Gate(0.29).opens(activations, mask).item()


@pytest.mark.parametrize("where", ["own", "any"])
@pytest.mark.parametrize("threshold", [None, 0.0, 0.4, 1.0])
def test_delta_form_is_decode_of_edited_plus_error(residual, where, threshold):
    sae, mask = toy_sae(), full(residual)
    mask[1, 7:] = False
    gate = None if threshold is None else Gate(threshold)
    ours = Clamp(sae, FEATURES, -7.0, where, gate)(residual, mask)
    theirs = brute_force_clamp(sae, residual, mask, FEATURES, -7.0, where, threshold)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_own_and_any_differ(residual):
    own, both = (Clamp(toy_sae(), FEATURES, -7.0, where)(residual, full(residual)) for where in ("own", "any"))
    assert not torch.allclose(own, both)


def test_no_features_change_nothing(residual):
    assert torch.equal(Clamp(toy_sae(), [], -7.0)(residual, full(residual)), residual)


def test_all_features_set_to_zero_leave_error_and_bias(residual):
    sae = toy_sae()
    ours = Clamp(sae, range(D_SAE), 0.0)(residual, full(residual))
    theirs = residual - sae.decode(sae.encode(residual)) + sae.b_dec
    torch.testing.assert_close(ours[:, 1:], theirs[:, 1:], atol=1e-5, rtol=0)


def test_setting_features_to_their_own_activation_changes_nothing(residual):
    torch.testing.assert_close(Clamp(toy_sae(), FEATURES, Scale(1.0))(residual, full(residual)), residual)


def test_scale_zero_is_zero_ablation(residual):
    scaled, ablated = (Clamp(toy_sae(), FEATURES, v)(residual, full(residual)) for v in (Scale(0.0), 0.0))
    torch.testing.assert_close(scaled, ablated)


def test_one_value_per_feature(residual):
    sae, mask = toy_sae(), full(residual)
    together = Clamp(sae, [3, 5], [-2.0, -9.0])(residual, mask)
    apart = Clamp(sae, [3], -2.0)(residual, mask) + Clamp(sae, [5], -9.0)(residual, mask) - residual
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


def test_another_decoder_moves_along_it_only(residual):
    sae = toy_sae()
    change = Clamp(sae, [3], -7.0, decoders=[4])(residual, full(residual)) - residual
    direction = sae.W_dec[4] / sae.W_dec[4].norm()
    torch.testing.assert_close(change, (change @ direction)[..., None] * direction, atol=1e-5, rtol=0)
    assert change.abs().max() > 1


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("gate", [None, Gate(0.4)])
def test_a_row_alone_equals_the_row_in_a_padded_batch(residual, side, gate):
    clamp = Clamp(toy_sae(), FEATURES, -7.0, "any", gate)
    rows, mask = padded(residual, side)
    edited = clamp(rows, mask)
    alone = torch.cat([clamp(row[None], torch.ones(1, 10)) for row in residual])
    torch.testing.assert_close(edited[mask].view_as(alone), alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_bos_and_padding_are_untouched(residual, side):
    rows, mask = padded(residual, side)
    edited = Clamp(toy_sae(), range(D_SAE), -7.0)(rows, mask)
    assert torch.equal(edited[~after_bos(mask)], rows[~after_bos(mask)])
    assert not torch.equal(edited, rows)


def test_in_bfloat16_tokens_where_nothing_fires_stay_bit_equal_and_the_full_form_moves_them(residual):
    sae, rows = toy_sae(), residual.bfloat16()
    quiet = ~(sae.encode(rows.float())[..., FEATURES] > 0).any(dim=-1)
    ours = Clamp(sae, FEATURES, -7.0)(rows, full(rows))
    reconstruction = sae.decode(sae.encode(rows.float())).bfloat16()
    theirs = reconstruction + (rows - reconstruction)
    assert quiet.any()
    assert torch.equal(ours[quiet], rows[quiet])
    assert not torch.equal(theirs[quiet], rows[quiet])


def test_the_clamp_knows_its_layer():
    assert Clamp(toy_sae(layer=2), [0], 0.0).layer == 2
    assert Clamp(toy_sae(layer=2, hook="resid_pre"), [0], 0.0).layer == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(features=[D_SAE], value=-1.0), "outside this SAE, which has 0 to 31"),
        (dict(features=[-1], value=-1.0), "outside this SAE"),
        (dict(features=[1, 1], value=-1.0), "repeated"),
        (dict(features=[0.5], value=-1.0), "whole numbers"),
        (dict(features=[1], value=float("nan")), "finite"),
        (dict(features=[1, 2], value=[-1.0]), "one number or one per feature"),
        (dict(features=[1], value=-1.0, where="all"), "allowed are 'own' and 'any'"),
        (dict(features=[1, 2], value=-1.0, decoders=[3]), "as many decoders"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Clamp(toy_sae(), **arguments)


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_that_is_no_fraction_is_refused(threshold):
    with pytest.raises(ValueError, match="fraction"):
        Gate(threshold)
