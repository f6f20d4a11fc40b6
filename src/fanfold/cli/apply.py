"""A trained run on a file of measurements: estimates, their variances and, if asked for, intervals around them."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fanfold.core.streams import Stream
from fanfold.estimators.ofdm import ChannelNetworkSettings
from fanfold.estimators.posterior.neural import Regression
from fanfold.guard import conformal
from fanfold.observation import Observation
from fanfold.problems import Problem
from fanfold.problems.draws import draw
from fanfold.runs.directory import Run
from fanfold.unfolding.unfold import Unfolded

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
) -> dict[Path, Tensor]:
    """Estimate x from measurements in a file.

    Args:
        run: A trained run.
        y: An `.npy` file of measurements as the problem draws them, one or a batch.
        out: Where the estimates go, as `.npy`; `_var`, `_low` and `_high` of other files' names come before its ending.
        strength: How far to trust what was learned, in [0, 1].
        coverage: Of conformal intervals, calibrated on held-out draws of the problem; none if None.
        joint: Whether intervals hold all entries of a sample at once.
        noise_var: Of the measurements; that of the problem if None, and where draws differ in it a network of channels
            measures it.

    Returns:
        What each written file holds.

    Raises:
        ValueError: If the file cannot be read or does not fit, or the problem's observations hold more than y.
    """
    net, problem = run.estimator(), run.problem()
    if isinstance(net, Unfolded | Regression):  # the others have no classical algorithm within
        net.strength = strength
    elif strength != 1:
        raise ValueError("this network has no classical algorithm to go back to: leave --strength at 1.")
    obs = _observe(y, net, problem, noise_var)
    estimate = net(obs)
    files = {out: estimate.x}
    if not isinstance(net, Unfolded) and estimate.var is not None:
        files[_beside(out, "var")] = estimate.var
    if coverage is not None:
        x, seen = draw(problem.held_out(), CALIBRATION_DRAWS, run.environment["seed"], Stream.VALIDATION, 1)
        interval = conformal(net, (x, seen), coverage, "joint" if joint else "each")(obs)
        if interval.low is None or interval.high is None:
            files[_beside(out, "radius")] = interval.radius
        else:
            files |= {_beside(out, "low"): interval.low, _beside(out, "high"): interval.high}
    for path, values in files.items():
        with path.open("wb") as file:
            np.save(file, values.numpy())
    return files


def _observe(y: Path, net: nn.Module, problem: Problem, told: float | None) -> Observation:
    """Measurements of a file, with the operator and the noise variance of the problem."""
    example = problem.sample(2, torch.Generator().manual_seed(0))[1]
    A, noise_var = example.A, example.noise_var
    if told is not None:
        if not 0 <= told < math.inf:
            raise ValueError(f"the noise variance is {told}; pass a finite one from zero on.")
        noise_var = torch.as_tensor(told, dtype=example.y.real.dtype)
    elif isinstance(net, Unfolded):  # which may well do without
        noise_var = getattr(problem, "noise_var", None)
    elif noise_var is not None and noise_var.ndim:
        if not isinstance(getattr(net, "settings", None), ChannelNetworkSettings):  # which measure it
            raise ValueError(
                f"each measurement of {type(problem).__name__} has a noise variance of its own, which {y} does not "
                "hold: pass --noise-var, or apply the network in Python, net(Observation(y, None, noise_var))."
            )
        noise_var = None
    if A is not None and A.varies:
        raise ValueError(
            f"each measurement of {type(problem).__name__} has an operator of its own, which {y} does not hold: apply "
            "the network in Python, net(Observation(y, Batched(matrices), noise_var))."
        )
    try:
        measured = torch.as_tensor(np.load(y, allow_pickle=False))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{y} is no readable .npy file of numbers: {error}") from error
    if measured.is_complex() and not example.y.is_complex():
        raise ValueError(f"{y} holds {measured.dtype} and the problem's measurements are real; pass real ones.")
    if A is None or measured.is_complex() == example.y.is_complex():
        measured = measured.to(example.y.dtype)
    if noise_var is not None and example.noise_var is not None and example.noise_var.ndim:
        noise_var = noise_var.expand(*measured.shape[:-1], 1)  # as it is drawn
    return Observation(measured, A, noise_var)


def _beside(out: Path, what: str) -> Path:
    return out.with_name(f"{out.stem}_{what}{out.suffix}")
