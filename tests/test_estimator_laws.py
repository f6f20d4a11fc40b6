"""Laws of everything that can be trained: each row of the registry goes through all of them, and a new one too."""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fanfold as ff
from fanfold import estimators, unfolding
from fanfold.algorithms import EP, FISTA, ISTA, LISTACP, OAMP
from fanfold.core.abilities import ability
from fanfold.estimators import ofdm
from fanfold.estimators.base import Bound, Kept, Preparable, Settings
from fanfold.estimators.posterior.features import Features
from fanfold.linops import Dense
from fanfold.observation import Estimate, Observation
from fanfold.priors import BernoulliGaussian
from fanfold.problems import CompressedSensing, LinearGaussian, Modulation, OFDMChannel, RFImaging, Tone
from fanfold.runs import recipe

IMAGING = RFImaging("gaussian", (8, 8), (6, 7), dtype="complex128")
SPARSE = CompressedSensing(n=20, m=12, dtype="float64")
ORTHOGONAL = CompressedSensing(n=12, m=12, ensemble="row-orthogonal", dtype="float64")  # fixed points are near
ONE_PHASE = RFImaging("gaussian", (8, 8), (6, 7), targets="photographs", speckle=False, dtype="complex128")
LINEAR = LinearGaussian(n=2, m=3)
CHANNELS = OFDMChannel("umi", "comb-4", snr_db=10.0)
STEPS = {"step": "per-layer", "threshold": "tied"}
UNFOLDED_CP = estimators.UnfoldedSettings(LISTACP(0.05), 3, {"W": "per-layer", "threshold": "tied"})
UNFOLDED_ISTA = estimators.UnfoldedSettings(ISTA(0.05), 3, STEPS)
MAPS = estimators.ThresholdMapFISTASettings(FISTA(0.02), 2, width=4, depth=2)


@dataclass(frozen=True)
class Case:
    """A small network of a row, for a small problem."""

    problem: Any
    settings: Any
    rounding: float  # of its estimates, relative to their size: sums of another batch are taken in another order


# Double precision leaves 1e-16 of every sum, single precision 1e-7; inverses and dozens of sums raise both.
DOUBLE, SINGLE = 1e-9, 1e-3
ROWS = {
    "unfolded": Case(SPARSE, estimators.UnfoldedSettings(ISTA(0.05), 3, STEPS), DOUBLE),
    "equilibrium": Case(ORTHOGONAL, estimators.EquilibriumSettings(ISTA(0.05), {"threshold": "tied"}, 1e-9), 1e-6),
    "hybrid-oamp": Case(IMAGING, estimators.HybridOAMPSettings(OAMP(), 2, {"damping": "tied"}, width=4), DOUBLE),
    "hybrid-ep": Case(IMAGING, estimators.HybridEPSettings(EP(BernoulliGaussian()), 2, width=4, reach=1), SINGLE),
    "threshold-map-fista": Case(IMAGING, MAPS, DOUBLE),
    "modl": Case(IMAGING, estimators.MoDLSettings(layers=2, width=4, depth=2), DOUBLE),
    "back-projection-unet": Case(IMAGING, estimators.BackProjectionUNetSettings(width=8, levels=1), DOUBLE),
    "one-phase": Case(ONE_PHASE, estimators.OnePhaseSettings(MAPS), DOUBLE),
    "learned-responses": Case(IMAGING, estimators.LearnedResponsesSettings(MAPS), DOUBLE),
    "locator": Case(Tone(n=9), estimators.LocatorSettings(width=4), SINGLE),
    "neural": Case(LINEAR, estimators.NeuralSettings("gaussian", 2, width=8), SINGLE),
    "flow-posterior": Case(LINEAR, estimators.FlowPosteriorSettings(transforms=2, width=8), SINGLE),
    "whole-numbers": Case(SPARSE, estimators.QuantisedSettings(UNFOLDED_CP, "w16a16"), DOUBLE),
    "recalibrated": Case(
        SPARSE, estimators.RecalibratedSettings(UNFOLDED_ISTA, corrects=True, directions=2, scales=True), DOUBLE
    ),
}
OFDM_ROWS = {  # which all measure the scale
    "beam-mixer": Case(CHANNELS, ofdm.MixerSettings(8, 6, 1, 6, 16, 16), SINGLE),
    "grid-cnn": Case(CHANNELS, ofdm.CNNSettings(width=8, depth=2, modes=6), SINGLE),
    "beam-delay-admm": Case(CHANNELS, ofdm.ADMMSettings(2, 32, 4), SINGLE),
    "beam-delay-oamp": Case(CHANNELS, ofdm.OAMPSettings(2, 32, 4), SINGLE),
    "learned-filters": Case(CHANNELS, ofdm.FilterSettings(3, 2, 6, 1, 4, 8, 2), SINGLE),
    "adapted": Case(CHANNELS, ofdm.AdaptedSettings(ofdm.MixerSettings(8, 6, 1, 6, 16, 16)), SINGLE),
}
OTHERS = {  # other networks of the same rows
    "modl, back-projection": Case(IMAGING, estimators.MoDLSettings("back-projection", layers=2, width=4), DOUBLE),
    "unet, back-projection": Case(
        IMAGING, estimators.BackProjectionUNetSettings("back-projection", width=8, levels=1), DOUBLE
    ),
    "hybrid-oamp, mean": Case(IMAGING, estimators.HybridOAMPSettings(OAMP(), 2, correct="mean", width=4), DOUBLE),
    "beam-mixer, known power": Case(CHANNELS, ofdm.MixerSettings(8, 6, 1, 6, 16, 16, known_power=True), SINGLE),
    "neural, squared error": Case(LINEAR, estimators.NeuralSettings(width=8), SINGLE),
    "neural, quantiles": Case(LINEAR, estimators.NeuralSettings("pinball", width=8), SINGLE),
    "neural, classes": Case(Modulation(), estimators.NeuralSettings("cross-entropy", width=8), SINGLE),
}
CASES = ROWS | OFDM_ROWS | OTHERS
every = pytest.mark.parametrize("name", CASES)


def test_the_package_shows_what_a_user_may_call_and_nothing_else():
    names = dir(ff.estimators)
    assert sorted(names) == sorted(estimators.__all__)
    assert {"OMP", "Lasso", "DebiasedLasso", "MCP", "LMMSE", "neural"} <= set(names)
    assert not [name for name in names if inspect.ismodule(vars(estimators)[name])]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@functools.cache
def made(name: str) -> nn.Module:
    """A network with weights as if it had learned."""
    if name == "flow-posterior":
        pytest.importorskip("zuko")
    case = CASES[name]
    net = case.settings.build(case.problem).requires_grad_(requires_grad=False)
    if learner := ability(net, Preparable):
        learner.prepare(*case.problem.sample(300, generator()))
    for p in net.parameters():
        p += 0.02 * torch.randn(p.shape, generator=generator(1), dtype=p.dtype)
    return net


@functools.cache
def drawn(name: str) -> tuple[Tensor, Observation]:
    return CASES[name].problem.held_out().sample(6, generator(2))


def close(name: str, one: Tensor | None, other: Tensor | None) -> None:
    if one is None or other is None:
        assert one is other
        return
    size = other.abs().max().item()
    torch.testing.assert_close(one, other, rtol=0, atol=CASES[name].rounding * size)


def test_no_row_is_left_out():
    rows = ROWS | OFDM_ROWS
    assert rows.keys() == estimators.REGISTRY.keys()
    for name, case in rows.items():
        assert type(case.settings) is estimators.REGISTRY[name]
        assert ability(case.settings, Settings)


# Keeping


@every
def test_settings_build_an_equal_network(name):
    """The same names, shapes and bits, from the settings that the network has and from their description."""
    case = CASES[name]
    if name == "flow-posterior":
        pytest.importorskip("zuko")
    net = case.settings.build(case.problem)
    kept = ability(net, Kept)
    assert kept is not None
    described = recipe.build_settings(recipe.describe_network(net))
    assert described == kept.settings
    for settings in (kept.settings, described):
        twin = settings.build(case.problem)
        assert type(twin) is type(net)
        ours, theirs = net.state_dict(), twin.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


@every
def test_a_network_with_the_same_weights_estimates_the_same(name):
    case, (_, obs) = CASES[name], drawn(name)
    twin = case.settings.build(case.problem).requires_grad_(
        requires_grad=False
    )  # as that one: matmul sums in an order by it
    twin.load_state_dict(made(name).state_dict())
    assert torch.equal(twin(obs).x, made(name)(obs).x)


def image(obs: Observation) -> Estimate:
    return Estimate(obs.A.H @ obs.y)


OF_OWN_PARTS = {  # networks that are made of a user's objects, which no settings describe
    "modl": lambda: estimators.MoDL((8, 8), image, width=4),
    "back-projection-unet": lambda: estimators.BackProjectionUNet((8, 8), image, width=8),
    "one-phase": lambda: estimators.OnePhase(image, image),
    "learned-responses": lambda: estimators.LearnedResponses(made("threshold-map-fista"), (6, 7)),
    "locator": lambda: estimators.Locator(torch.ones(5, 3), torch.linspace(0, 1, 5)),
}


@pytest.mark.parametrize("name", OF_OWN_PARTS)
def test_networks_of_the_users_own_parts_say_that_they_have_no_settings(name):
    net = OF_OWN_PARTS[name]()
    assert ability(net, Kept)
    assert net.settings is None


# Estimates

REFUSALS = r"another operator|made for scenes|takes the 6 pilots|of 42 elements|gains are of"


@every
def test_samples_do_not_see_each_other(name):
    _, obs = drawn(name)
    whole, half = made(name)(obs), made(name)(obs[:3])
    close(name, half.x, whole.x[:3])
    close(name, half.var, None if whole.var is None else whole.var[:3])


@every
def test_dtype_device_and_shape_are_those_of_the_signals(name):
    x, obs = drawn(name)
    estimate = made(name)(obs)
    assert (estimate.x.dtype, estimate.x.shape, estimate.x.device) == (x.dtype, x.shape, x.device)
    if estimate.var is not None:
        assert (estimate.var.dtype, estimate.var.shape) == (x.real.dtype, x.shape)
        assert (estimate.var >= 0).all()


@every
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_scale_equivariant_or_says_that_it_is_not(name, scale):
    net, (_, obs) = made(name), drawn(name)
    if net.scale_equivariant:
        whole = net(obs)
        scaled = net(Observation(scale * obs.y, obs.A, None if obs.noise_var is None else scale**2 * obs.noise_var))
        close(name, scaled.x / scale, whole.x)
        close(name, None if scaled.var is None else scaled.var / scale**2, whole.var)
    else:
        texts = " ".join(inspect.getdoc(kind) or "" for kind in type(net).__mro__ if kind is not nn.Module)
        assert "scale-equivariant" in texts.lower().replace("_", "-")


@every
@pytest.mark.parametrize("scale", [0.0, 1e6])
def test_silence_and_a_million_times_the_signal_give_finite_estimates(name, scale):
    _, obs = drawn(name)
    estimate = made(name)(Observation(scale * obs.y, obs.A, obs.noise_var))
    assert torch.isfinite(estimate.x).all()
    assert estimate.var is None or torch.isfinite(estimate.var).all()


def answer(call: Callable[[], Estimate]) -> Estimate | str:
    """What an estimator says, or the sentence by which it refuses."""
    try:
        return call()
    except ValueError as refused:
        return str(refused)


@every
def test_one_silent_sample_changes_no_other(name):
    """No bit of another sample, and of silence a number: the prior's, or what is as large as the noise lets it be."""
    _, obs = drawn(name)
    whole, y, others = made(name)(obs), obs.y.clone(), [0, 1, 3, 4, 5]
    y[2] = 0
    estimate = made(name)(Observation(y, obs.A, obs.noise_var))
    assert torch.equal(estimate.x[others], whole.x[others])
    assert torch.isfinite(estimate.x).all()
    if estimate.var is not None:
        assert torch.equal(estimate.var[others], whole.var[others])
        assert torch.isfinite(estimate.var).all()
        assert (estimate.var[2] > 0).all()


@every
@pytest.mark.parametrize("scale", [1e-18, 1e-15, 1e15, 1e18, 1e30])
def test_other_units_give_numbers_or_a_sentence(name, scale):
    """Measurements and noise in other units: the same estimate where it is equivariant, and numbers from all."""
    net, (_, obs) = made(name), drawn(name)
    noise_var = None if obs.noise_var is None else scale**2 * obs.noise_var.double()
    scaled = answer(lambda: net(Observation(scale * obs.y, obs.A, noise_var)))
    if isinstance(scaled, str):
        assert scale == 1e30  # whose square is no number in single precision
        assert any(words in scaled for words in ("is not finite", "no number in", "cannot hold"))
        return
    assert torch.isfinite(scaled.x).all()
    assert scaled.var is None or torch.isfinite(scaled.var).all()
    if net.scale_equivariant:
        close(name, scaled.x / scale, net(obs).x)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@every
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(name, half):
    """The estimate is that of the same numbers in single precision, and comes in half or in the network's precision.

    A network that belongs to an operator knows it in half precision, and goes on with its own.
    """
    net, (_, obs) = made(name), drawn(name)
    kind = torch.complex32 if obs.y.is_complex() else half
    A = None if obs.A is None else obs.A.to(dtype=kind)
    single = torch.promote_types(kind, torch.float32)
    estimate = answer(lambda: net(Observation(obs.y.to(kind), A, obs.noise_var)))
    if isinstance(estimate, str):  # within these is a network whose operator is made of the one that came
        assert "belongs to another operator" in estimate
        assert name in ("one-phase", "learned-responses", "recalibrated")
        return
    if isinstance(net, unfolding.Unfolded | estimators.QuantisedNetwork):
        assert obs.A is not None
        wide = net(Observation(obs.y.to(kind).to(obs.A.dtype), obs.A, obs.noise_var))
    else:
        wide = net(Observation(obs.y.to(kind).to(single), None if A is None else A.to(dtype=single), obs.noise_var))
    came = kind if wide.x.is_complex() else kind.to_real()  # places are real, whatever is measured
    assert estimate.x.dtype in (came, wide.x.dtype)
    assert torch.equal(estimate.x.to(wide.x.dtype), wide.x.to(estimate.x.dtype).to(wide.x.dtype))


@every
def test_measurements_of_another_shape_are_refused_by_a_sentence(name):
    """One measurement fewer, alone and with an operator that fits it."""
    _, obs = drawn(name)
    with pytest.raises(ValueError, match=r"needs|shape|takes|pass"):
        made(name)(Observation(obs.y[..., :-1], None, obs.noise_var))
    if obs.A is not None:
        other = Dense(obs.A.matrix()[:-1, :-1])
        with pytest.raises(ValueError, match=REFUSALS):
            made(name)(Observation(obs.y[..., :-1], other, obs.noise_var))


# Nothing beside the registry


def estimating() -> set[type]:
    """Every class of ours that maps an observation and may have parameters."""
    names = [m.name for p in (estimators, unfolding) for m in pkgutil.walk_packages(p.__path__, f"{p.__name__}.")]
    kinds = {kind for name in names for kind in vars(importlib.import_module(name)).values() if inspect.isclass(kind)}
    ours = {kind for kind in kinds if issubclass(kind, nn.Module) and kind.__module__ in names}
    return {kind for kind in ours if "obs" in inspect.signature(kind.forward).parameters}


def test_whatever_has_parameters_is_built_by_a_row():
    """Each class is built by a row, a base of one that is, or shown to have no parameters."""
    pytest.importorskip("zuko")
    covariance = ofdm.ChannelCovariance.of(CHANNELS, 300)
    without = [
        Features(drawn("neural")[1], "vector"),
        ofdm.Interpolation.of(CHANNELS),
        ofdm.DelayThreshold.of(CHANNELS),
        ofdm.Wiener.of(CHANNELS, covariance),
        ofdm.FullGaussian.of(CHANNELS, 300, modes=4),
        ofdm.KroneckerGMM.of(CHANNELS, ofdm.Mixture.of(CHANNELS, 2, 300, 1)),
        ofdm.BeamDelayOMP.of(CHANNELS, 4),
        ofdm.BeamDelayOAMP.of(CHANNELS, 2),
    ]
    assert not [type(module) for module in without if any(p.requires_grad for p in module.parameters())]
    built = {type(module) for name in CASES for module in made(name).modules()}
    near = ff.neural(LINEAR, observed=drawn("neural")[1].y[0])  # the row "neural" with one more setting
    assert type(near.settings) is estimators.REGISTRY["neural"]
    built |= {type(module) for module in near.modules()}
    shown = built | {type(module) for module in without}
    bases = {base for kind in shown for base in kind.__mro__[1:]}
    assert not {kind.__name__ for kind in estimating() - shown - bases}


@every
def test_y_alone_is_the_observation_that_is_made_of_it(name):
    net, (_, obs) = made(name), drawn(name)
    bound = ability(net, Bound)
    expected = answer_or_refusal(net, Observation(obs.y, None if bound is None else bound.operator))
    for y in (obs.y, obs.y.numpy()):
        assert answer_or_refusal(net, y) == expected


def answer_or_refusal(net: nn.Module, observed: Any) -> list | str:
    """The estimate, or the sentence by which a network asks for its operator or the noise variance."""
    try:
        return net(observed).x.tolist()
    except ValueError as error:
        return str(error)
