"""The intervention is what the papers write, and touches nothing else."""

from dataclasses import replace

import pytest
import torch

from helpers.engine.interventions import Add, Clamp, DuringGeneration, Gate, Scale, after_bos, hot_fraction
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
    hot = torch.zeros(1, 7, dtype=torch.bool)
    hot[0, [0, 1, 3, 6]] = True
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0]]).bool()
    assert hot_fraction(hot, mask).tolist() == [0.5]


def test_hot_fraction_of_a_row_with_bos_only_is_zero():
    assert hot_fraction(torch.ones(1, 2).bool(), torch.tensor([[0, 1]])).tolist() == [0.0]


def test_a_token_is_hot_where_any_chosen_feature_fires_however_many(residual):
    sae = toy_sae()
    fires = [[any(sae.encode(x)[i] > 0 for i in FEATURES) for x in row] for row in residual]
    assert Clamp(sae, FEATURES, 0.0).hot(residual).tolist() == fires
    assert 0 < sum(map(sum, fires)) < 30


def test_after_bos_finds_bos_on_either_side():
    mask = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]])
    assert after_bos(mask).tolist() == [[False, True, True, False], [False, False, True, True]]


def test_a_gate_exactly_at_its_threshold_stays_shut():
    hot, mask = torch.zeros(1, 11, dtype=torch.bool), torch.ones(1, 11)
    hot[0, 1:4] = True
    assert not Gate(0.3).opens(hot, mask).item()
    assert Gate(0.29).opens(hot, mask).item()


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


def test_refusal_clamp_sets_one_feature_where_any_harmful_one_fires_above_the_threshold(residual):
    """Token by token: the harmful features keep their activations, the refusal feature is set to 4."""
    sae, refusal = toy_sae(), 21
    expected = residual.clone()
    for b, t in torch.cartesian_prod(torch.arange(3), torch.arange(1, 10)):
        f = sae.encode(residual[b, t])
        if (f[[3, 5, 8]] > 2.5).any():
            expected[b, t] += (4.0 - f[refusal]) * sae.W_dec[refusal]
    clamp = Clamp(sae, [refusal], 4.0, "any", triggers=[3, 5, 8], fires_above=2.5)
    torch.testing.assert_close(clamp(residual, full(residual)), expected, atol=1e-5, rtol=0)
    softer = Clamp(sae, [refusal], 4.0, "any", triggers=[3, 5, 8], fires_above=0.3)
    assert (softer.hot(residual).sum() > clamp.hot(residual).sum()) and clamp.hot(residual).any()


def test_without_the_error_term_every_token_after_bos_becomes_its_edited_reconstruction(residual):
    """The third party's refusal clamp: decode(edited f) and nothing else, where it fires and where it does not."""
    sae, mask = toy_sae(), full(residual)
    mask[2, 6:] = False
    expected = residual.clone()
    for b, t in after_bos(mask).nonzero().tolist():
        f = sae.encode(residual[b, t])
        if (f[[3, 5, 8]] > 0).any():
            f[21] = 4.0
        expected[b, t] = sae.decode(f)
    clamp = Clamp(sae, [21], 4.0, "any", triggers=[3, 5, 8], keep_error=False)
    torch.testing.assert_close(clamp(residual, mask), expected, atol=1e-5, rtol=0)
    assert clamp.set_at(clamp.hot(residual)).all() and not clamp.hot(residual).all()


def test_adding_always_moves_every_token_after_bos_by_the_same_vector(residual):
    sae, mask = toy_sae(), full(residual)
    mask[0, 8:] = False
    change = Clamp(sae, [3, 5], Add([-2.0, 0.5]), "always")(residual, mask) - residual
    expected = after_bos(mask)[..., None] * (-2.0 * sae.W_dec[3] + 0.5 * sae.W_dec[5])
    torch.testing.assert_close(change, expected, atol=1e-5, rtol=0)


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


@pytest.mark.parametrize("side", ["left", "right"])
def test_bos_is_touched_where_that_is_asked_for_and_never_counted_nor_is_padding_touched(residual, side):
    rows, mask = padded(residual, side)
    features = list(range(D_SAE))  # one of them fires at every token
    edited = Clamp(toy_sae(), features, -7.0, bos=True)(rows, mask)
    assert ((edited != rows).any(dim=-1) == mask).all()
    clamp = Clamp(toy_sae(), FEATURES, -7.0, "any", Gate(0.4), bos=True)
    opened = clamp.opened(clamp.hot(rows), mask)
    assert torch.equal(opened, replace(clamp, bos=False).opened(clamp.hot(rows), mask))
    assert torch.equal(clamp(rows, mask), DuringGeneration(clamp, mask)(rows))
    assert ((clamp(rows, mask) != rows).any(dim=-1) == clamp.hot(rows) & mask & opened[:, None]).all()


def test_in_bfloat16_tokens_where_nothing_fires_stay_bit_equal_and_the_full_form_moves_them(residual):
    sae, rows = toy_sae(), residual.bfloat16()
    quiet = ~(sae.encode(rows.float())[..., FEATURES] > 0).any(dim=-1)
    ours = Clamp(sae, FEATURES, -7.0)(rows, full(rows))
    reconstruction = sae.decode(sae.encode(rows.float())).bfloat16()
    theirs = reconstruction + (rows - reconstruction)
    assert quiet.any()
    assert torch.equal(ours[quiet], rows[quiet])
    assert not torch.equal(theirs[quiet], rows[quiet])


def test_under_autocast_features_fire_where_they_fire_without_it(residual):
    clamp = Clamp(toy_sae(), FEATURES, -7.0)
    activations = clamp.columns.encode(residual)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(clamp.columns.encode(residual), activations) and activations.any()
        low = clamp(residual, full(residual))
    assert torch.equal(low, clamp(residual, full(residual)))


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
        (dict(features=[1], value=-1.0, where="all"), "allowed are 'own', 'any' and 'always'"),
        (dict(features=[1, 2], value=-1.0, decoders=[3]), "as many decoders"),
        (dict(features=[1], value=-1.0, triggers=[2]), "triggers need where='any'"),
        (dict(features=[1], value=-1.0, where="any", triggers=[]), "at least one id"),
        (dict(features=[1], value=-1.0, where="any", triggers=[D_SAE]), "outside this SAE"),
        (dict(features=[1], value=-1.0, fires_above=-0.1), "at least 0"),
        (dict(features=[1], value=Add([1.0, 2.0])), "one number or one per feature"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Clamp(toy_sae(), **arguments)


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_that_is_no_fraction_is_refused(threshold):
    with pytest.raises(ValueError, match="fraction"):
        Gate(threshold)


def steps_by_hand(clamp, residual, new):
    """Which of the 4 new tokens behind a prompt of 6 are touched, [batch, 4], counted token by token."""
    hot = clamp.hot(residual)
    touched = torch.zeros(len(residual), 4, dtype=torch.bool)
    for i, row in enumerate(hot.tolist()):
        for t in range(4):
            judged = {"held": row[1:6], "each": row[6 + t : 7 + t], "running": row[1 : 7 + t], "never": [False]}[new]
            touched[i, t] = sum(judged) / len(judged) > clamp.gate.threshold
    return touched


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("new", ["never", "held", "each", "running"])
def test_through_generation_the_gate_decides_as_told(residual, side, new):
    """Prompts of 6 tokens, of whose gates one stays shut at least, then 4 tokens one by one."""
    sae = toy_sae()
    residual = residual.roll(1, dims=1)  # so that the prompts differ in their hot fractions
    rho = hot_fraction(Clamp(sae, FEATURES, 0.0).hot(residual[:, :6]), torch.ones(3, 6))
    clamp = Clamp(sae, FEATURES, -7.0, "any", Gate(float(rho.min())))
    rows, mask = padded(residual[:, :6], side)
    edit = DuringGeneration(clamp, mask, new)
    prompt, steps = edit(rows), torch.cat([edit(residual[:, [t]]) for t in range(6, 10)], dim=1)
    assert torch.equal(prompt, clamp(rows, mask))
    opened = rho > rho.min()
    assert 0 < opened.sum() < 3
    ungated = Clamp(sae, FEATURES, -7.0, "any")(residual, full(residual))[:, 6:]
    touched = steps_by_hand(clamp, residual, new)
    assert not torch.equal(ungated, residual[:, 6:])
    torch.testing.assert_close(steps[touched], ungated[touched])
    assert torch.equal(steps[~touched], residual[:, 6:][~touched])


def test_the_ways_to_decide_differ_here(residual):
    residual = residual.roll(1, dims=1)
    clamp = Clamp(toy_sae(), FEATURES, -7.0, "any", Gate(0.5))
    ways = [steps_by_hand(clamp, residual, new) for new in ("never", "held", "each", "running")]
    assert all(not torch.equal(a, b) for i, a in enumerate(ways) for b in ways[:i])


def test_an_unknown_way_to_decide_is_refused():
    with pytest.raises(ValueError, match="new='sometimes' is unknown, allowed are 'never', 'held', 'each', 'running'"):
        DuringGeneration(Clamp(toy_sae(), FEATURES, 0.0), torch.ones(1, 2), "sometimes")
