"""The laws that every algorithm obeys, as plain functions, so that one from outside the package can be tested too."""

import copy
import warnings

import torch

from fanfold import iterate, unfold
from fanfold.algorithms import Algorithm
from fanfold.deploy import FromMeasurements
from fanfold.observation import Observation
from fanfold.problems import CompressedSensing
from fanfold.unfolding.learn import GRANULARITY
from strict import StrictPromotion

DTYPES = ("float32", "float64", "complex64", "complex128")
LAYERS = 6


def small_problem(dtype: str = "float64", seed: int = 0) -> CompressedSensing:
    return CompressedSensing(n=48, m=26, sparsity=0.15, snr_db=30, seed=seed, dtype=dtype)


def observed(dtype: str, samples: int = 3) -> tuple[torch.Tensor, Observation]:
    return small_problem(dtype).sample(samples, torch.Generator().manual_seed(7))


def every_learn(algorithm: Algorithm, obs: Observation) -> list[dict[str, str]]:
    """No learning; each quantity alone in every sharing and granularity that fits; all at once."""
    theta = vars(algorithm.nominal_theta(obs))
    grains = {name: [GRANULARITY[v.ndim]] for name, v in theta.items()}
    for name, v in theta.items():
        if v.ndim == 0 and algorithm.nominals[name].vector:
            grains[name].append("vector")
    one = [{name: f"{sharing} {g}"} for name in theta for g in grains[name] for sharing in ("tied", "per-layer")]
    return [{}, *one, dict.fromkeys(theta, "per-layer")]


def check_zero_deviation_is_the_algorithm(algorithm: Algorithm, dtype: str) -> None:
    """`torch.equal`, with and without gradients, in every sharing and granularity, also for one sample."""
    _, batch = observed(dtype)
    for obs in (batch, Observation(batch.y[0], batch.A, batch.noise_var)):
        classical = iterate(algorithm, LAYERS)(obs).x
        assert classical.abs().sum() > 0, "an estimate of nothing but zeros would make this law empty"
        for learn in every_learn(algorithm, obs):
            net = unfold(algorithm, obs, LAYERS, learn)
            assert torch.equal(net(obs).x, classical), learn
            with torch.no_grad():
                assert torch.equal(net(obs).x, classical), learn
                assert torch.equal(net(obs).x, classical), learn  # from the kept values


def check_zero_strength_is_the_algorithm(algorithm: Algorithm, dtype: str) -> None:
    _, obs = observed(dtype)
    net = moved(algorithm, obs)
    assert not torch.equal(net(obs).x, iterate(algorithm, LAYERS)(obs).x)
    net.strength = 0.0
    assert torch.equal(net(obs).x, iterate(algorithm, LAYERS)(obs).x)


def check_precision_is_kept(algorithm: Algorithm, dtype: str) -> None:
    """No silent promotion inside a step, forward or backward, and the estimate has the dtype of the data."""
    x, obs = observed(dtype)
    net = moved(algorithm, obs)
    unfold(algorithm, obs, 1, {})(obs)  # what derives from A is computed, in double precision if it likes, before
    with StrictPromotion():
        x_hat = net(obs).x
        (x_hat - x).abs().square().sum().backward()
    assert x_hat.dtype == obs.y.dtype
    assert x_hat.shape == x.shape


def check_gradients_are_finite_and_right(algorithm: Algorithm, dtype: str) -> None:
    """Every deviation gets a finite gradient; in double precision it matches a central difference."""
    x, obs = observed(dtype)
    net = moved(algorithm, obs)

    def loss() -> torch.Tensor:
        return (net(obs).x - x).abs().square().sum()

    value = loss()
    value.backward()
    step = 1e-6
    for name, d in net.deviations.items():
        assert d.grad is not None, name
        assert torch.isfinite(torch.view_as_real(d.grad) if d.is_complex() else d.grad).all(), name
        if torch.finfo(d.dtype).bits < 64:
            continue
        direction = torch.randn(d.shape, generator=torch.Generator().manual_seed(3), dtype=d.dtype)
        slope = (d.grad.conj() * direction).sum().real.item()
        with torch.no_grad():
            d += step * direction
            up = loss()
            d -= 2 * step * direction
            down = loss()
            d += step * direction
        numeric = ((up - down) / (2 * step)).item()
        # a central difference errs by step² times a third derivative, and by eps/step in rounding
        assert abs(slope - numeric) <= 1e-4 * (abs(slope) + abs(numeric)) + 1e-7 * value.item() / step * 1e-3, name


def check_it_traces(algorithm: Algorithm, dtype: str) -> None:
    """`torch.export` gives a program with the same output to rounding, classical and unfolded.

    Two layers: each is traced anew, which takes its time, and the second is as every later one; exports are deeper.
    """
    _, obs = observed(dtype)
    for estimator in (iterate(algorithm, 2), moved(algorithm, obs, 2)):
        module = FromMeasurements(estimator, obs)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, (obs.y,))
            assert_close(program.module()(obs.y), estimator(obs).x)


def check_batches_are_independent(algorithm: Algorithm, dtype: str) -> None:
    """A sample's estimate does not depend on its neighbours, beyond the order of sums in matrix products."""
    _, obs = observed(dtype, samples=4)
    alone = torch.stack([iterate(algorithm, LAYERS)(Observation(y, obs.A, obs.noise_var)).x for y in obs.y])
    assert_close(iterate(algorithm, LAYERS)(obs).x, alone)


def check_silence_gives_finite_numbers(algorithm: Algorithm, dtype: str) -> None:
    """`y = 0`, told some noise, none, or not told: long after every variance has fallen as far as it can."""
    _, obs = observed(dtype)
    for noise_var in (obs.noise_var, torch.zeros(()), None):
        silent = Observation(torch.zeros_like(obs.y), obs.A, noise_var)
        for iterations in (10, 80):
            x_hat = estimate_or_refusal(algorithm, silent, iterations)
            if isinstance(x_hat, str):  # some have to be told, and say so
                assert noise_var is None
                assert "noise_var" in x_hat
            else:
                assert torch.isfinite(torch.view_as_real(x_hat) if x_hat.is_complex() else x_hat).all()


def estimate_or_refusal(algorithm: Algorithm, obs: Observation, iterations: int) -> torch.Tensor | str:
    try:
        return iterate(algorithm, iterations)(obs).x
    except ValueError as refusal:
        return str(refusal)


def check_copies_are_alike(algorithm: Algorithm, dtype: str) -> None:
    _, obs = observed(dtype)
    net = moved(algorithm, obs)
    assert torch.equal(copy.deepcopy(net)(obs).x, net(obs).x)


LAWS = {name.removeprefix("check_"): law for name, law in sorted(globals().items()) if name.startswith("check_")}
# a graph is the same in single and in double precision, and takes long to trace
LAWS_IN_DTYPES = [(n, d) for n in LAWS for d in DTYPES if n != "it_traces" or d in ("float32", "complex64")]


def moved(algorithm: Algorithm, obs: Observation, layers: int = LAYERS):
    """An unfolded network whose deviations are small and random."""
    net = unfold(algorithm, obs, layers, dict.fromkeys(algorithm.nominals, "per-layer"))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for d in net.deviations.values():
            d += 0.02 * torch.randn(d.shape, generator=generator, dtype=d.dtype)
    return net


def assert_close(a: torch.Tensor, b: torch.Tensor) -> None:
    """Equal up to rounding: a few layers of sums over n entries, amplified by the thresholds' kinks."""
    scale = b.abs().max().item()
    assert (a - b).abs().max().item() <= 1e3 * torch.finfo(b.dtype).eps * scale
