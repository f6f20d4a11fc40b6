"""What measurements and estimates are like at the end of a training, as quantiles over held-out draws."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fanfold.core.abilities import ability
from fanfold.core.units import power
from fanfold.estimators.base import ScaleAware
from fanfold.observation import Estimate, Observation
from fanfold.runs.folders import checked

NAME = "usual"  # of the file in a run directory
QUANTILES = (0.01, 0.5, 0.99)
LEAST_DRAWS = 30  # of fewer no quantile is known
EACH_ENTRY = 16  # unknowns up to which each has a range of its own; of more only the extremes do
NORM, RESIDUAL = "log10 of the norm of y", "the residual ‖y - A x_hat‖ / ‖y‖"


def usual_of(net: nn.Module, obs: Observation) -> dict[str, Any]:
    """The quantiles of each number that `numbers_of` reads off held-out draws, as plain data; none of too few."""
    with torch.no_grad():
        numbers = numbers_of(net, obs, net(obs))
    levels = torch.tensor(QUANTILES, dtype=torch.float64)
    finite = {name: values.cpu() for name, values in numbers.items() if torch.isfinite(values).all()}
    draws = int(obs.y.shape[0])
    known = finite if draws >= LEAST_DRAWS else {}
    quantiles = {name: torch.quantile(values, levels).tolist() for name, values in known.items()}
    return {"draws": draws, "levels": list(QUANTILES), "quantiles": quantiles}


def checked_usual(data: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """What `usual_of` gave, as a run directory keeps it.

    Raises:
        ValueError: If it is damaged.
    """
    return checked(file, data, {"draws": int, "quantiles": Mapping[str, tuple[float, float, float]]})


def numbers_of(net: nn.Module, obs: Observation, estimate: Estimate) -> Mapping[str, Tensor]:
    """Numbers by which an observation and its estimate may be told from others, `(samples,)` each.

    The norm of y, the residual where there is an operator, and the estimate: each of few unknowns, or the least and the
    largest of many, in magnitude if they are complex. A network that is scale-equivariant knows no scale: of it there
    is the residual alone.
    """
    x = estimate.x.flatten(0, -2) if estimate.x.ndim > 1 else estimate.x[None]
    y = obs.y.reshape(len(x), -1)
    norm = power(y).double().sum(-1).sqrt()
    tiny = torch.finfo(norm.dtype).tiny
    numbers: dict[str, Tensor] = {}
    aware = ability(net, ScaleAware)
    if aware is None or not aware.scale_equivariant:
        numbers[NORM] = torch.log10(norm.clamp_min(tiny))
        size = (x.abs() if x.is_complex() else x).double()
        what = "|x_hat|" if x.is_complex() else "x_hat"
        if size.shape[-1] <= EACH_ENTRY:
            numbers |= {f"{what}[{k}]": values for k, values in enumerate(size.unbind(-1))}
        else:
            numbers[f"the largest of {what}"] = size.amax(-1)
            if not x.is_complex():
                numbers[f"the least of {what}"] = size.amin(-1)
    A, real = obs.A, not estimate.x.is_complex()
    if A is not None and (A.m, A.n) == (obs.y.shape[-1], estimate.x.shape[-1]) and (real or A.dtype.is_complex):
        residual = power(obs.y - A @ estimate.x.to(A.dtype)).double().sum(-1).sqrt().reshape(-1)
        numbers[RESIDUAL] = residual / norm.clamp_min(tiny)
    return numbers
