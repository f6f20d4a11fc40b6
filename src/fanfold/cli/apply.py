"""A trained run on a file of measurements: estimates, their variances and, if asked for, intervals around them."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fanfold.core.abilities import ability
from fanfold.core.streams import Stream
from fanfold.estimators.base import Layered, MeasuresNoise, Restrainable
from fanfold.guard import Conformal, UsualRange, conformal
from fanfold.observation import Observation
from fanfold.problems import Problem
from fanfold.problems.draws import draw
from fanfold.problems.protocols import noise_var_of
from fanfold.runs.directory import Run
from fanfold.runs.usual import NAME as USUAL

CALIBRATION_DRAWS = 10_000  # of an interval, where draws are to be had


@torch.no_grad()
def apply_to_file(
    run: Run,
    y: Path,
    out: Path,
    strength: float = 1.0,
    coverage: float | None = None,
    *,
    joint: bool = False,
    noise_var: float | None = None,
    on_remark: Callable[[str], None] | None = None,
) -> dict[Path, Tensor]:
    """Estimate x from measurements in a file.

    Args:
        run: A trained run.
        y: An `.npy` file of measurements as the problem draws them, one or a batch.
        out: Where the estimates go, as `.npy`; `_var`, `_low` and `_high` of other files' names come before its ending.
        strength: How far to trust what was learned, in [0, 1].
        coverage: Coverage of conformal intervals, calibrated on held-out draws of the problem; none if None. They are
            kept in the run, and taken from there the next time.
        joint: Whether intervals hold all entries of a sample at once.
        noise_var: Noise variance of the measurements; that of the problem if None, and where draws differ in it a
            network of channels measures it.
        on_remark: Called with each sentence about measurements that are unlike those of the training.

    Returns:
        What each written file holds.

    Raises:
        ValueError: If the file cannot be read or does not fit, or the problem's observations hold more than y.
    """
    net, problem = run.estimator(), run.problem()
    if (network := ability(net, Restrainable)) is not None:
        network.strength = strength
    elif strength != 1:
        raise ValueError("this network has no classical algorithm to go back to: leave --strength at 1.")
    obs = _observe(y, net, problem, noise_var)
    estimate = net(obs)
    if on_remark is not None and (usual := run.kept(USUAL)) is not None:
        for sentence in UsualRange(net, usual).remarks(obs, estimate):
            on_remark(sentence)
    files = {out: estimate.x}
    if ability(net, Layered) is None and estimate.var is not None:
        files[_beside(out, "var")] = estimate.var
    if coverage is not None:
        interval = calibrated(run, net, problem, coverage, strength, joint=joint)(obs)
        if interval.low is None or interval.high is None:
            files[_beside(out, "radius")] = interval.radius
        else:
            files |= {_beside(out, "low"): interval.low, _beside(out, "high"): interval.high}
    for path, values in files.items():
        with path.open("wb") as file:
            np.save(file, values.numpy())
    return files


def calibrated(
    run: Run, net: nn.Module, problem: Problem, coverage: float, strength: float, *, joint: bool
) -> Conformal:
    """Intervals around a run's network: those that the run keeps, else calibrated on held-out draws and kept."""
    kind = "joint" if joint else "each"
    name = f"intervals-{kind}-{coverage:g}" + ("" if strength == 1 else f"-strength-{strength:g}")
    if (data := run.kept(name)) is not None:
        return Conformal.from_dict(net, data)
    draws = draw(problem.held_out(), CALIBRATION_DRAWS, run.environment["seed"], Stream.VALIDATION, 1)
    intervals = conformal(net, draws, coverage, kind)
    run.keep(name, intervals.as_dict())
    return intervals


def _observe(y: Path, net: nn.Module, problem: Problem, noise_var: float | None) -> Observation:
    """Measurements of a file, with the operator and the noise variance of the problem."""
    example = problem.sample(2, torch.Generator().manual_seed(0))[1]
    A = example.A
    if A is not None and A.varies:
        raise ValueError(
            f"each measurement of {type(problem).__name__} has an operator of its own, which {y} does not hold: apply "
            "the network in Python, net(Observation(y, Batched(matrices), noise_var))."
        )
    measured, var = _read(y, example), _noise_var(y, net, problem, example, noise_var)
    if var is not None and example.noise_var is not None and example.noise_var.ndim:
        var = var.expand(*measured.shape[:-1], 1)  # as it is drawn
    return Observation(measured, A, var)


def _noise_var(y: Path, net: nn.Module, problem: Problem, example: Observation, given: float | None) -> Tensor | None:
    """The noise variance of the measurements; None where the network measures it or does without."""
    if given is not None:
        if not 0 <= given < math.inf:
            raise ValueError(f"the noise variance is {given}; pass a finite one from zero on.")
        return torch.as_tensor(given, dtype=example.y.real.dtype)
    if ability(net, Layered):  # which may well do without
        return noise_var_of(problem)
    if example.noise_var is None or not example.noise_var.ndim:
        return example.noise_var
    meter = ability(net, MeasuresNoise)
    if meter is None or not meter.measures_noise:
        raise ValueError(
            f"each measurement of {type(problem).__name__} has a noise variance of its own, which {y} does not hold: "
            "pass --noise-var, or apply the network in Python, net(Observation(y, None, noise_var))."
        )
    return None


def _read(y: Path, example: Observation) -> Tensor:
    """The array of a file, in the precision of the problem's measurements."""
    try:
        measured = torch.as_tensor(np.load(y, allow_pickle=False))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{y} is no readable .npy file of numbers: {error}") from error
    if measured.is_complex() and not example.y.is_complex():
        raise ValueError(f"{y} holds {measured.dtype} and the problem's measurements are real; pass real ones.")
    if example.A is None or measured.is_complex() == example.y.is_complex():
        measured = measured.to(example.y.dtype)
    return measured


def _beside(out: Path, what: str) -> Path:
    return out.with_name(f"{out.stem}_{what}{out.suffix}")
