"""What the study of uncertainty measures on one seed: coverage, variances, risk without the truth, ranks."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fanfold.algorithms import OAMP
from fanfold.core.streams import Stream
from fanfold.core.table import Table
from fanfold.core.units import power
from fanfold.estimators import FlowPosterior, Locator
from fanfold.evaluation.evaluate import Estimator
from fanfold.evaluation.scores import coverage_by_part, equal_parts, normalised_square, share
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.guard import SBC, calibrate_variance, calibration_curve, conformal, sbc, sure
from fanfold.guard.answers import answers
from fanfold.guard.sure import View
from fanfold.observation import Estimate, Observation
from fanfold.priors import BernoulliGaussian
from fanfold.problems import CompressedSensing, LinearGaussian, MixtureSignal, Problem, Tone
from fanfold.problems.draws import draw
from fanfold.shrinkage import soft
from fanfold.training.fit import fit
from fanfold.unfolding.unfold import iterate, unfold

COVERAGE, LAYERS, TONE_DB, LINEAR_DB = 0.9, 10, 0.0, 7.0
VARIANTS: Mapping[str, dict[str, Any]] = {
    "constant width": {"kind": "each", "scale": "constant"},
    "√var": {"kind": "each"},
    "√var, nine groups": {"kind": "each", "groups": 9},
    "joint": {"kind": "joint"},
    "joint, nine groups": {"kind": "joint", "groups": 9},
}


@dataclass(frozen=True)
class Size:
    """How large a study is."""

    tests: int  # draws that coverage is measured on
    calibration: int  # draws; the coverage given one set of them has a standard deviation of 30 % / √calibration
    layer_steps: int  # of training of unfolded OAMP; 0 takes the algorithm itself
    tone_steps: int
    flow_steps: int
    ranks: int  # draws of simulation-based calibration
    risks: int  # draws that SURE sees


@dataclass(frozen=True)
class Recorded:
    """Estimates that were made once, for one observation."""

    estimate: Estimate

    def __call__(self, obs: Observation) -> Estimate:
        return self.estimate


@dataclass
class Measured:
    """What was measured with one seed."""

    coverages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by problem, rows of variants
    deciles: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # coverage by predicted magnitude
    together: dict[str, list[float]] = field(default_factory=dict)  # coverage of the first 1 … 10 entries at once
    squares: dict[str, tuple[float, float]] = field(default_factory=dict)  # normalised, of raw and calibrated variances
    curves: dict[str, Table] = field(default_factory=dict)
    risks: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    ranks: dict[str, SBC] = field(default_factory=dict)


def measure(size: Size, seed: int, watch: Watcher) -> Measured:
    """Measure everything on one seed."""
    measured = Measured(ranks=rank_flow(size, seed, watch))  # first, as it takes zuko
    sparse = CompressedSensing(n=100, m=50, snr_db=20, seed=seed)
    oamp = iterate(OAMP(sparse.prior), LAYERS)
    if size.layer_steps:
        guess = OAMP(BernoulliGaussian(0.3))  # three times too many non-zeros: learning has something to do
        net = unfold(guess, sparse, LAYERS, dict.fromkeys(("prior", "noise_var", "variances"), "per-layer"))
        settings = {"steps": size.layer_steps, "lr": 3e-3, "seed": seed, "threads": 1}
        learned = fit(net, sparse, on_event=watch("unfolded OAMP"), **settings)
        cover(measured, "sparse recovery, unfolded OAMP", learned, sparse, size, seed)
    estimate, x = cover(measured, "sparse recovery, OAMP", oamp, sparse, size, seed)
    compare_variances(measured, oamp, sparse, estimate, x, size, seed)
    tone = Tone(snr_db=TONE_DB)
    settings = {"steps": size.tone_steps, "seed": seed, "threads": 1, "validate_every": size.tone_steps}
    locator = fit(Locator.of(tone, seed=seed), tone, on_event=watch("tone"), **settings)
    cover(measured, "tone, network", locator, tone, size, seed)
    linear = LinearGaussian(snr_db=LINEAR_DB, seed=seed)
    cover(measured, "linear Gaussian, d = 10", linear.posterior, linear, size, seed)
    measured.risks = {"soft thresholding": thresholds(size, seed), "OAMP": iterations(sparse, size, seed)}
    return measured


@torch.no_grad()
def cover(
    measured: Measured, name: str, estimator: Estimator, on: Problem, size: Size, seed: int
) -> tuple[Estimate, Tensor]:
    """Coverage and width of every variant on the same draws, by tercile and by decile of the predicted magnitude."""
    x_cal, obs_cal = draw(on, size.calibration, seed, Stream.CALIBRATION, 0)
    x, obs = draw(on, size.tests, seed, Stream.TESTING, 0)
    early, late = Recorded(answers(estimator, obs_cal)), Recorded(answers(estimator, obs))
    variants: dict[str, dict[str, Any]] = {
        k: v for k, v in VARIANTS.items() if not (x.shape[-1] == 1 and v["kind"] == "joint")
    }
    if isinstance(on, LinearGaussian):
        variants = {k: VARIANTS[k] for k in ("√var", "joint")} | {"ellipsoid": {"kind": "energy"}}
    rows, deciles = measured.coverages.setdefault(name, []), measured.deciles.setdefault(name, {})
    sizes = {1: power(late.estimate.x).mean(-1), 2: late.estimate.x.abs()}  # of samples, of entries
    labels = {n: {k: equal_parts(size, n) for k, size in sizes.items()} for n in (3, 10)}
    for variant, settings in variants.items():
        cal = conformal(early, (x_cal, obs_cal), COVERAGE, batch=size.calibration, **settings)
        interval = dataclasses.replace(cal, estimator=late)(obs)
        inside, entries = interval.covers(x), interval.entries_cover(x)
        value, terciles, parts = (
            share(inside),
            *([100 * s.value for s in coverage_by_part(inside, labels[n][inside.ndim], n)] for n in (3, 10)),
        )
        deciles[variant] = parts
        rows.append(
            {
                "intervals": variant,
                "coverage (%)": 100 * value.value,
                "± (95 %)": 196 * value.standard_error,
                "all at once (%)": None if variant == "ellipsoid" else 100 * share(entries.all(-1)).value,
                "least tercile (%)": min(terciles),
                "best tercile (%)": max(terciles),
                "spread (points)": max(terciles) - min(terciles),
                "mean width (1/1000)": 1000 * interval.width.mean().item(),
            }
        )
        if isinstance(on, LinearGaussian) and variant != "ellipsoid":
            measured.together[variant] = (100 * entries.cumprod(-1).double().mean(0)).tolist()
    return late.estimate, x


@torch.no_grad()
def compare_variances(
    measured: Measured, estimator: Estimator, on: Problem, estimate: Estimate, x: Tensor, size: Size, seed: int
) -> None:
    """The variance that OAMP carries, as it is and calibrated: is it the error that is made, and do intervals cover?"""
    x_cal, obs_cal = draw(on, size.calibration, seed, Stream.CALIBRATION, 0)
    early = Recorded(answers(estimator, obs_cal))
    kinds: dict[str, Estimate] = {"as carried": estimate}
    for name, kind in (("scaled", "scale"), ("monotone map", "monotone")):
        cal = calibrate_variance(early, (x_cal, obs_cal), kind, batch=size.calibration)
        kinds[name] = dataclasses.replace(cal, estimator=Recorded(estimate))(obs_cal)
    for name, given in kinds.items():
        measured.squares[name] = normalised_square(given, x)
        measured.curves[name] = calibration_curve(given, x)


def thresholded(level: Tensor, obs: Observation) -> Estimate:
    """Soft thresholding of what is observed."""
    return Estimate(soft(obs.y, level))


@torch.no_grad()
def thresholds(size: Size, seed: int) -> list[dict[str, float]]:
    """Risk of soft thresholding of 100 entries in noise, with and without the truth."""
    generator = torch.Generator().manual_seed(seed)
    noise_var = 0.1
    x = BernoulliGaussian(0.1).sample((size.risks, 100), generator)
    y = x + noise_var**0.5 * torch.randn(x.shape, generator=generator)
    obs, rows = Observation(y, None, torch.tensor(noise_var)), []
    for i in range(1, 16):
        level = 0.1 * i
        estimator = partial(thresholded, torch.tensor(level))
        risk = sure(estimator, obs, seed=seed)
        loss = power(estimator(obs).x - x).sum(-1).double()
        rows.append({"threshold": level} | compared(risk.values, loss))
    return rows


@torch.no_grad()
def iterations(on: CompressedSensing, size: Size, seed: int) -> list[dict[str, float]]:
    """Risk of OAMP after each iteration, of the part of x that A sees, with and without the truth."""
    x, obs = draw(on, size.risks, seed, Stream.TESTING, 1)
    view, rows = View(obs, "signal"), []
    for count in range(1, LAYERS + 1):
        estimator = iterate(OAMP(on.prior), count)
        risk = sure(estimator, obs, seed=seed, probes=2)
        loss = power(view.project(estimator(obs).x - x)).sum(-1).double()
        rows.append({"iteration": count} | compared(risk.values, loss))
    return rows


def compared(values: Tensor, loss: Tensor) -> dict[str, float]:
    """An estimated risk beside the true one, and their distance in its own standard errors."""
    gap = values - loss
    error = gap.std().item() / len(gap) ** 0.5
    return {"SURE": values.mean().item(), "true risk": loss.mean().item(), "gap / s.e.": gap.mean().item() / error}


@dataclass(frozen=True)
class Narrowed:
    """A sampler whose draws lie nearer to their mean than they should."""

    sampler: FlowPosterior
    factor: float = 0.8

    def sample(self, obs: Observation, count: int, generator: torch.Generator) -> Tensor:
        draws = self.sampler.sample(obs, count, generator)
        middle = draws.mean(0)
        return middle + self.factor * (draws - middle)


def rank_flow(size: Size, seed: int, watch: Watcher) -> dict[str, SBC]:
    """Simulation-based calibration of a flow, before training, after it, and deliberately too narrow."""
    on = MixtureSignal(n=2, m=2, seed=seed)
    flow = FlowPosterior.of(on, transforms=2, seed=seed)
    flow.prepare(*draw(on, size.calibration, seed, Stream.PREPARATION, 0))
    ranks = {"untrained (Gaussian)": sbc(flow, on, samples=size.ranks, seed=seed)}
    settings = {"validate_every": size.flow_steps, "validation_samples": 200, "threads": 1, "lr": 3e-3}
    fit(flow, on, steps=size.flow_steps, seed=seed, on_event=watch("flow"), **settings)
    samplers: Sequence[tuple[str, Any]] = (("trained flow", flow), ("drawn in by a fifth", Narrowed(flow)))
    return ranks | {name: sbc(sampler, on, samples=size.ranks, seed=seed) for name, sampler in samplers}
