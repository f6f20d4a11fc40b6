"""A trained run on a file of measurements: estimates, their variances and, if asked for, intervals around them."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fanfold.draws import VALIDATION_STREAM, draw
from fanfold.estimators import Neural
from fanfold.estimators.neural import Regression
from fanfold.guard import conformal
from fanfold.observation import Observation
from fanfold.problems import Problem
from fanfold.runs import Run
from fanfold.unfold import Unfolded

CALIBRATION_DRAWS = 10_000  # of an interval, where draws are to be had


@torch.no_grad()
def apply_to_file(
    run: Run, y: Path, out: Path, strength: float = 1.0, coverage: float | None = None, *, joint: bool = False
) -> dict[Path, Tensor]:
    """Estimate x from measurements in a file.

    Args:
        run: A trained run.
        y: An `.npy` file of measurements as the problem draws them, one or a batch.
        out: Where the estimates go, as `.npy`; `_var`, `_low` and `_high` of other files' names come before its ending.
        strength: How far to trust what was learned, in [0, 1].
        coverage: Of conformal intervals, calibrated on held-out draws of the problem; none if None.
        joint: Whether intervals hold all entries of a sample at once.

    Returns:
        What each written file holds.

    Raises:
        ValueError: If the file cannot be read or does not fit, or the problem's observations hold more than y.
    """
    net, problem = run.estimator(), run.problem()
    if isinstance(net, Unfolded | Regression):
        net.strength = strength
    elif strength != 1:
        raise ValueError("a class posterior has no classical algorithm to go back to: leave --strength at 1.")
    obs = _observe(y, net, problem)
    estimate = net(obs)
    files = {out: estimate.x}
    if isinstance(net, Neural) and estimate.var is not None:
        files[_beside(out, "var")] = estimate.var
    if coverage is not None:
        x, seen = draw(problem.held_out(), CALIBRATION_DRAWS, run.environment["seed"], VALIDATION_STREAM, 1)
        interval = conformal(net, (x, seen), coverage, "joint" if joint else "each")(obs)
        if interval.low is None or interval.high is None:
            files[_beside(out, "radius")] = interval.radius
        else:
            files |= {_beside(out, "low"): interval.low, _beside(out, "high"): interval.high}
    for path, values in files.items():
        with path.open("wb") as file:
            np.save(file, values.numpy())
    return files


def _observe(y: Path, net: Unfolded | Neural, problem: Problem) -> Observation:
    """Measurements of a file, with the operator and the noise variance of the problem."""
    example = problem.sample(2, torch.Generator().manual_seed(0))[1]
    A, noise_var = example.A, example.noise_var
    if isinstance(net, Unfolded):  # which may well do without
        noise_var = getattr(problem, "noise_var", None)
    elif noise_var is not None and noise_var.ndim:
        raise ValueError(
            f"each measurement of {type(problem).__name__} has a noise variance of its own, which {y} does not hold: "
            "apply the network in Python, net(Observation(y, None, noise_var))."
        )
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
    return Observation(measured, A, noise_var)


def _beside(out: Path, what: str) -> Path:
    return out.with_name(f"{out.stem}_{what}{out.suffix}")
