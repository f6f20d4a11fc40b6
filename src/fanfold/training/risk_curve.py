"""A curve through risks at several numbers of simulations, and what it says of further ones.

Cortes, Jackel, Solla, Vapnik & Denker (1993), eq. 1: the risk falls as `floor + c N⁻ᵃ`. Floor, c and a are not told
apart by a few points as well as least squares pretend, so that all that fit the risks within their errors are weighed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fanfold.core.table import Table

GOAL = 0.01  # excess that further simulations are to reach
RATES = torch.linspace(0.1, 2.0, 381, dtype=torch.float64)
USUAL_RATE, RATE_SPREAD = 0.9, 0.5  # of a log-normal prior: 1 of a model of fixed size, less of one that grows
CURVES = 400  # of each rate that are weighed
TOO_WIDE = 30.0  # between the ends of an interval that tells nothing


@dataclass(frozen=True)
class LearningCurve:
    """Risks at several budgets and what they say of the largest; made by `learning_curve`.

    Risks are mean squared errors over the variance of the parameters, averaged over these; the excess is over the floor
    that the curve goes to, of this network with ever more simulations. Where the network can be the posterior mean, the
    floor is the Bayes risk.

    Attributes:
        counts: The numbers of pairs, rising.
        risks: The risk at each.
        errors: The standard error of each risk, that of held-out draws which all share left out.
        floor: What the risk goes to.
        rate: The exponent a.
        excess: What the risk at the last budget is above the floor, over the floor; with `low` and `high`, 95 %.
        more: How many more simulations lead to an excess of 1 %, with `more_low` and `more_high`, 68 %; infinity where
            the curve does not tell.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.training.risk_curve import curve_of
        >>> counts = (1000, 2000, 4000, 8000)
        >>> curve = curve_of(counts, [0.2 * (1 + 300 / n) for n in counts], errors=[1e-3] * 4)
        >>> curve.low < 300 / 8000 < curve.high
        True
    """

    counts: tuple[int, ...]
    risks: tuple[float, ...]
    errors: tuple[float, ...]
    floor: float
    rate: float
    excess: float
    low: float
    high: float
    more: float
    more_low: float
    more_high: float

    @property
    def table(self) -> Table:
        """Rows with `simulations`, `risk`, its `error`, and the curve's `fitted` risk."""
        last = self.counts[-1]
        fitted = [self.floor * (1 + self.excess * (last / n) ** self.rate) for n in self.counts]
        rows = zip(self.counts, self.risks, self.errors, fitted, strict=True)
        return Table([{"simulations": n, "risk": r, "error": e, "fitted": f} for n, r, e, f in rows])

    @property
    def tells(self) -> bool:
        """Whether the risks tell how many more simulations it takes."""
        return self.high <= GOAL or self.more_high <= TOO_WIDE * max(self.more_low, 0.1 * self.counts[-1])

    @property
    def sentence(self) -> str:
        """The excess, and how many more simulations leave 1 % of it, in words."""
        begin = (
            f"At {self.counts[-1]} simulations the risk is about {100 * self.excess:.2g} % above what ever more lead "
            f"to ({100 * self.low:.2g} to {100 * self.high:.2g} %): "
        )
        if self.high <= GOAL:
            return begin + "more of them gain less than 1 %."
        if not self.tells:
            return begin + "the curve does not tell how many more it takes for an excess of 1 %."
        if self.more_high <= 0:
            return begin + "likely less than 1 % already."
        if self.more_low <= 0:
            return f"{begin}none, or up to about {_round(self.more_high)} more for an excess of 1 %."
        return (
            f"{begin}about {_round(self.more)} more simulations for an excess of 1 % ({_round(self.more_low)} to "
            f"{_round(self.more_high)})."
        )

    def as_dict(self) -> dict[str, Any]:
        """All as plain data, with the sentence."""
        return asdict(self) | {"sentence": self.sentence}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "LearningCurve":
        """What `as_dict` gave.

        Raises:
            ValueError: If it is something else.
        """
        try:
            counts = tuple(int(n) for n in data["counts"])
            risks, errors = (tuple(float(value) for value in data[name]) for name in ("risks", "errors"))
            floor, rate, excess = (float(data[name]) for name in ("floor", "rate", "excess"))
            ends = [float(data[name]) for name in ("low", "high", "more", "more_low", "more_high")]
            return cls(counts, risks, errors, floor, rate, excess, *ends)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is no learning curve: {error!r}; make it again.") from error


class WeighedCurves(NamedTuple):
    """Curves `floor + gain (last / n)^rate`, `(rates, curves)` each, with weights of sum one."""

    floor: Tensor
    gain: Tensor
    rate: Tensor
    weight: Tensor


def curve_of(
    counts: Sequence[int], risks: Sequence[float], errors: Sequence[float], shared: Tensor | None = None
) -> LearningCurve:
    """The curve through risks, from all that fit them.

    Args:
        counts: Numbers of simulations, rising.
        risks: The risk at each.
        errors: Their standard errors, independent of each other.
        shared: A further covariance of the errors, `(counts, counts)`, if any.
    """
    n = torch.tensor(counts, dtype=torch.float64)
    C = torch.tensor(errors, dtype=torch.float64).square().diag() + (0.0 if shared is None else shared)
    curves = _weighed(n, torch.tensor(risks, dtype=torch.float64), C)
    excess = (curves.gain / curves.floor).clamp(1e-6, 1e6)
    more = n[-1] * ((excess / GOAL) ** (1 / curves.rate) - 1).clamp_min(0.0)
    low, middle, high = _quantiles(excess, curves.weight, (0.025, 0.5, 0.975))
    more_low, more_middle, more_high = _quantiles(more, curves.weight, (0.16, 0.5, 0.84))
    # one curve to draw: the mean of those whose excess is about the middle one
    about = curves.weight * torch.exp(-0.5 * ((excess / middle).log() / 0.1).square())
    floor, rate = ((about * values).sum() / about.sum() for values in (curves.floor, curves.rate))
    return LearningCurve(
        tuple(counts), tuple(risks), tuple(errors), floor.item(), rate.item(), middle, low, high, more_middle, more_low,
        more_high,
    )  # fmt: skip


def _weighed(n: Tensor, risks: Tensor, C: Tensor) -> WeighedCurves:
    """Curves of each rate with floors and gains as likely as the risks say, and the weight of each.

    Given the rate, floor and gain are Gaussian. Excesses of all sizes above 1 % are held to be as likely, and less to
    be as likely as that.
    """
    shape = torch.stack([torch.ones(len(RATES), len(n), dtype=n.dtype), (n[-1] / n) ** RATES[:, None]], -1)
    root = torch.linalg.cholesky(C + 1e-12 * risks.square().mean() * torch.eye(len(n), dtype=C.dtype))
    white = torch.linalg.solve_triangular(root, risks[:, None], upper=False)[:, 0]
    flat = torch.linalg.solve_triangular(root, shape, upper=False)  # (rates, counts, 2)
    precision = flat.mT @ flat
    best = torch.linalg.solve(precision, flat.mT @ white)
    misfit = (white - (flat @ best.unsqueeze(-1)).squeeze(-1)).square().sum(-1)
    z = torch.randn(CURVES, 2, generator=torch.Generator().manual_seed(0), dtype=n.dtype)
    spread = torch.linalg.cholesky(torch.linalg.inv(precision))
    floor, gain = (best[:, None] + z @ spread.mT).unbind(-1)  # (rates, curves)
    possible = (floor > 0) & (gain > 0)
    if not possible.any():  # risks that rise: nothing is gained by more
        floor, gain, possible = floor.abs(), gain.abs() * 1e-6, torch.ones_like(possible)
    log_prior = -0.5 * ((RATES / USUAL_RATE).log() / RATE_SPREAD).square() + spread.diagonal(
        dim1=-2, dim2=-1
    ).log().sum(-1)
    logs = (log_prior - 0.5 * misfit)[:, None] - (gain + GOAL * floor).clamp_min(1e-300).log()
    weight = torch.softmax(torch.where(possible, logs, -torch.inf).flatten(), 0).reshape(gain.shape)
    floor = torch.where(possible, floor, 1.0)
    return WeighedCurves(floor, gain, RATES[:, None].expand_as(gain), weight)


def _quantiles(values: Tensor, weight: Tensor, levels: Sequence[float]) -> list[float]:
    order = values.flatten().argsort()
    shares = weight.flatten()[order].cumsum(0)
    places = torch.searchsorted(shares, torch.tensor(levels, dtype=shares.dtype)).clamp_max(len(order) - 1)
    return values.flatten()[order][places].tolist()


def _round(count: float) -> str:
    """A number of simulations with two digits."""
    return f"{float(f'{count:.2g}'):.0f}"
