"""Unfolding: what may be learned, how it is shared, and what is refused."""

import pytest
import torch

import fanfold as ff
from fanfold.algorithms import FREE, POSITIVE, UNIT, Domain
from strict import StrictPromotion


def problem(**changes):
    return ff.problems.CompressedSensing(n=20, m=10, snr_db=30, **changes)


@pytest.mark.parametrize("domain", Domain)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_deviation_leaves_a_value_bit_for_bit(domain, dtype):
    v = torch.rand(10_000, generator=torch.Generator().manual_seed(0), dtype=dtype)
    assert torch.equal(domain.deviate(v, torch.zeros_like(v)), v)
    assert torch.equal(domain.deviate(v, torch.zeros((), dtype=dtype)), v)


def test_deviations_stay_in_their_domain():
    v, d = torch.rand(1000), 3 * torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert (POSITIVE.deviate(v + 1e-3, d) > 0).all()
    inside = UNIT.deviate(v.clamp(0.01, 0.99), d)
    assert ((inside >= 0) & (inside <= 1)).all()
    assert torch.equal(FREE.deviate(v, d), v + d)


@pytest.mark.parametrize(
    ("words", "shape"),
    [
        ("tied", (1,)),
        ("per-layer", (5,)),
        ("per-layer scalar", (5,)),
        ("tied vector", (1, 20)),
        ("vector per-layer", (5, 20)),
    ],
)
def test_sharing_and_granularity_of_a_number(words, shape):
    net = ff.unfold(ff.algorithms.ISTA(), problem(), 5, {"threshold": words})
    assert net.deviations["threshold"].shape == shape


@pytest.mark.parametrize(("words", "shape"), [("tied", (1, 20, 10)), ("per-layer matrix", (5, 20, 10))])
def test_sharing_of_a_matrix(words, shape):
    net = ff.unfold(ff.algorithms.LISTA(), problem(), 5, {"W1": words})
    assert net.deviations["W1"].shape == shape


def test_lista_has_the_parameters_of_its_paper():
    """`T (n m + n² + 1)`: two matrices and a threshold a layer."""
    net = ff.unfold(ff.algorithms.LISTA(), problem(), 5, dict.fromkeys(("W1", "W2", "threshold"), "per-layer"))
    assert sum(p.numel() for p in net.parameters()) == 5 * (20 * 10 + 20 * 20 + 1)


def test_tied_is_per_layer_with_equal_deviations():
    _, obs = problem().sample(3, torch.Generator().manual_seed(0))
    tied, free = (ff.unfold(ff.algorithms.FISTA(), problem(), 5, {"step": s}) for s in ("tied", "per-layer"))
    with torch.no_grad():
        tied.deviations["step"].fill_(0.3)
        free.deviations["step"].fill_(0.3)
    assert torch.equal(tied(obs).x, free(obs).x)


def test_strength_interpolates_between_algorithm_and_network():
    _, obs = problem().sample(3, torch.Generator().manual_seed(0))
    net = ff.unfold(ff.algorithms.ISTA(), problem(), 5, {"step": "per-layer"})
    half = ff.unfold(ff.algorithms.ISTA(), problem(), 5, {"step": "per-layer"})
    with torch.no_grad():
        net.deviations["step"].fill_(0.5)
        half.deviations["step"].fill_(0.25)
    net.strength = 0.5
    assert torch.equal(net(obs).x, half(obs).x)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_strength_outside_the_unit_interval_is_refused(value):
    net = ff.unfold(ff.algorithms.ISTA(), problem(), 5)
    with pytest.raises(ValueError, match="strength"):
        net.strength = value


def test_kept_matrices_follow_their_deviation():
    """What a network keeps between calls is renewed when training or loading has moved it."""
    _, obs = problem().sample(3, torch.Generator().manual_seed(0))
    net = ff.unfold(ff.algorithms.LISTA(), problem(), 5, {"W1": "per-layer"})
    with torch.no_grad():
        before = net(obs).x
        net.deviations["W1"] += 0.01
        after = net(obs).x
        net.strength = 0.0
        assert torch.equal(net(obs).x, before)
    net.strength = 1.0
    assert torch.equal(net(obs).x, after)
    assert not torch.equal(after, before)


def test_trajectory_ends_in_the_estimate():
    _, obs = problem().sample(3, torch.Generator().manual_seed(0))
    net = ff.unfold(ff.algorithms.AMP(), problem(), 5, {"alpha": "per-layer"})
    layers = net.trajectory(obs)
    assert len(layers) == 5
    assert torch.equal(layers[-1].x, net(obs).x)
    assert torch.equal(layers[2].x, ff.iterate(ff.algorithms.AMP(), 3)(obs).x)
    assert len(net.trajectory(obs, depth=2)) == 2


@pytest.mark.parametrize(
    ("learn", "message"),
    [
        ({"treshold": "per-layer"}, "Did you mean 'threshold'"),
        ({"threshold": "per-leyer"}, "Did you mean 'per-layer'"),
        ({"threshold": "vector"}, "does not say how layers share"),
        ({"threshold": "tied per-layer"}, "cannot read"),
        ({"threshold": "tied matrix"}, "is a scalar; learn it as scalar or vector"),
    ],
)
def test_what_cannot_be_learned_is_refused(learn, message):
    with pytest.raises(ValueError, match=message):
        ff.unfold(ff.algorithms.ISTA(), problem(), 5, learn)


def test_a_matrix_is_not_learned_as_a_number():
    with pytest.raises(ValueError, match="is a matrix; learn it as matrix"):
        ff.unfold(ff.algorithms.LISTA(), problem(), 5, {"W1": "tied scalar"})


@pytest.mark.parametrize("count", [0, -1])
def test_a_network_has_layers_and_a_run_has_iterations(count):
    with pytest.raises(ValueError, match="at least 1"):
        ff.unfold(ff.algorithms.ISTA(), problem(), count)
    with pytest.raises(ValueError, match="at least 1"):
        ff.iterate(ff.algorithms.ISTA(), count)


def test_an_algorithm_needs_an_operator():
    with pytest.raises(ValueError, match="needs the operator"):
        ff.iterate(ff.algorithms.ISTA(), 3)(ff.Observation(torch.ones(2, 3)))


@pytest.mark.parametrize("kind", [ff.algorithms.ISTA, ff.algorithms.FISTA, ff.algorithms.LISTA, ff.algorithms.LISTACP])
@pytest.mark.parametrize("lam", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_not_positive_is_refused(kind, lam):
    with pytest.raises(ValueError, match="lam is"):
        kind(lam)


def test_strict_promotion_catches_what_it_is_for():
    with StrictPromotion(), pytest.raises(RuntimeError, match="mixes"):
        torch.ones(2) + torch.ones(2, dtype=torch.float64)


def test_kept_values_follow_replaced_and_converted_parameters():
    _, obs = problem(dtype="float64").sample(3, torch.Generator().manual_seed(0))
    net, other = (ff.unfold(ff.algorithms.ISTA(), problem(dtype="float64"), 5, {"step": "per-layer"}) for _ in range(2))
    with torch.no_grad():
        other.deviations["step"] += 0.3
        before = net(obs).x
        net.load_state_dict(other.state_dict(), assign=True)
        assert torch.equal(net(obs).x, other(obs).x)
        assert not torch.equal(net(obs).x, before)


def test_the_name_of_a_group_stands_for_its_quantities():
    on = problem()
    oamp = ff.algorithms.OAMP()
    net = ff.unfold(oamp, on, 3, {"prior": "per-layer", "noise_var": "tied", "p": "tied"})
    assert net.learn == {"p": "tied", "var": "per-layer", "noise_scale": "tied"}
    assert {name: len(d) for name, d in net.deviations.items()} == {"p": 1, "var": 3, "noise_scale": 1}
    with pytest.raises(ValueError, match=r"no quantity 'priors'.*prior.*Did you mean"):
        ff.unfold(oamp, on, 3, {"priors": "tied"})


def test_numbers_move_to_another_operator_and_matrices_do_not():
    """A network that was moved is one that had these deviations there from the start."""
    small, large = problem(), ff.problems.CompressedSensing(n=40, m=30, snr_db=30)
    learn = {"step": "per-layer", "threshold": "tied"}
    nets = [ff.unfold(ff.algorithms.ISTA(), where, 3, learn) for where in (small, large)]
    for net in nets:
        for d in net.deviations.values():
            d.data.fill_(0.3)
    _, obs = large.sample(4, torch.Generator().manual_seed(0))
    nets[0].strength = nets[1].strength = 0.5
    assert torch.equal(nets[0].moved_to(large)(obs).x, nets[1](obs).x)
    with pytest.raises(ValueError, match="only numbers"):
        ff.unfold(ff.algorithms.ISTA(), small, 3, {"threshold": "per-layer vector"}).moved_to(large)
    hybrid = ff.estimators.HybridOAMP.of(small, ff.algorithms.OAMP(), 2, scene=(4, 5), width=2)
    with pytest.raises(ValueError, match="only numbers"):
        hybrid.moved_to(large)
