"""A simulator whose posterior is known: networks that learned its mean from draws, beside the mean itself.

`y = x + 1.5 sin(2 x) + 0.3 w` with x normal of deviation 1.5: up to three values of x explain one y. The posterior is
Bayes' rule on a grid of x, its mean a sum, and its quantiles are where running sums pass 5 and 95 %.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fanfold.deploy import WithIntervals
from fanfold.deploy.codegen import CFiles, to_c
from fanfold.estimators.posterior.lone import Neural
from fanfold.estimators.posterior.neural import neural
from fanfold.guard import conformal
from fanfold.priors import Gaussian
from fanfold.problems import BatchSimulator, Independent
from fanfold.report.figure.programs import written
from fanfold.report.figure.topics.controls import slider
from fanfold.training.fit import fit

DEVIATION, BEND, NOISE = 1.5, 1.5, 0.3
COUNTS = (100, 1000, 10_000)  # of simulations
COVERAGE = 0.9
GRID = torch.linspace(-5.5, 5.5, 221)  # of x
SEEN = torch.linspace(-4, 4, 81)  # of y, where curves are drawn
STEPS = {100: 400, 1000: 1500, 10_000: 3000}


class Simulated(nn.Module):
    """The simulator, of x and standard noise w, `(batch, 1)` each.

    Example:
        >>> import torch
        >>> from fanfold.report.figure.topics.posterior import Simulated
        >>> Simulated()(torch.zeros(1, 1), torch.ones(1, 1))[0].item()
        0.30000001192092896
    """

    def forward(self, x: Tensor, w: Tensor) -> tuple[Tensor]:
        """The observation, `(batch, 1)`."""
        return (x + BEND * torch.sin(2 * x) + NOISE * w,)


class OnGrid(nn.Module):
    """The posterior of one observation: its density on the grid, and its mean.

    Example:
        >>> import torch
        >>> from fanfold.report.figure.topics.posterior import GRID, OnGrid
        >>> density, mean = OnGrid()(torch.zeros(1, 1))
        >>> density.shape == (1, len(GRID)), abs(mean.item()) < 1e-5
        (True, True)
    """

    def __init__(self):
        super().__init__()
        self.grid = GRID.clone()

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Density `(batch, points)` and mean `(batch, 1)`, of y `(batch, 1)`."""
        x = self.grid
        off = (y - x - BEND * torch.sin(2 * x)) / NOISE
        share = torch.softmax(-0.5 * (off * off) - 0.5 * (x / DEVIATION) ** 2, -1)
        return share / (GRID[1] - GRID[0]).item(), (share * x).sum(-1, keepdim=True)


class BestLinear(nn.Module):
    """The linear estimate `c y`, of a mean of zero.

    Example:
        >>> import torch
        >>> from fanfold.report.figure.topics.posterior import BestLinear
        >>> BestLinear(torch.tensor(0.5))(torch.ones(1, 1))[0].item()
        0.5
    """

    def __init__(self, factor: Tensor):
        super().__init__()
        self.register_buffer("factor", factor)

    def forward(self, y: Tensor) -> tuple[Tensor]:
        """The estimate, `(batch, 1)`."""
        return (self.factor * y,)


def problem() -> BatchSimulator:
    """The simulator as a problem."""

    def simulate(x: Tensor, generator: torch.Generator) -> Tensor:
        return Simulated()(x, torch.randn(x.shape, generator=generator, dtype=x.dtype))[0]

    return BatchSimulator(Independent(Gaussian(DEVIATION**2)), simulate)


def train() -> dict[str, Tensor]:
    """What the networks learned, by count and name."""
    x, obs = problem().sample(100_000, torch.Generator().manual_seed(1))
    weights = {"linear": (x * obs.y).mean() / obs.y.square().mean()}
    for count in COUNTS:
        net = fit(_untrained(), problem(), simulations=count, steps=STEPS[count], lr=1e-3, threads=1)
        weights |= {f"{count}.{k}": v for k, v in net.state_dict().items()}
    return weights


def networks(weights: Mapping[str, Tensor]) -> dict[int, Neural]:
    """The trained networks, by their count of simulations."""
    nets = {}
    for count in COUNTS:
        nets[count], prefix = _untrained(), f"{count}."
        nets[count].load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    return nets


def _untrained() -> Neural:
    net = neural(problem(), loss="gaussian", members=1, width=24)
    assert isinstance(net, Neural)
    return net


def intervals(net: Neural) -> WithIntervals:
    """A network with intervals that hold the truth in 90 of 100 draws."""
    return WithIntervals(conformal(net, problem(), COVERAGE, scale="variance"))


def c_of(weights: Mapping[str, Tensor], folder: Path) -> list[CFiles]:
    """The C of every program."""
    one, several = torch.ones(1, 1), problem().sample(3, torch.Generator().manual_seed(0))[1]
    files = [
        written(Simulated(), ["y"], {"x": one, "w": one}, folder, "simulated"),
        written(OnGrid(), ["density", "mean"], {"y": one}, folder, "posterior"),
        written(BestLinear(weights["linear"]), ["x_hat"], {"y": one}, folder, "linear"),
    ]
    for count, net in networks(weights).items():
        files.append(to_c(intervals(net), several, folder, name=f"network_{count}"))
    return files


def arrays(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The grids."""
    return {"grid": GRID, "seen": SEEN}


def facts(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Words, sliders and curves."""
    observed = [round(v, 1) + 0.0 for v in SEEN.tolist()]  # where -0 is 0
    return {
        "title": "A posterior with several modes, and networks that learned its mean",
        "lead": "A simulator bends one parameter and adds noise, so that up to three values explain one observation. "
        "Networks that saw nothing but draws are held against the posterior mean, which is known here. Every number "
        "is computed in this page, by the C that fanfold exports.",
        "note": "y = x + 1.5 sin 2x + 0.3 w, x normal with deviation 1.5. Each network is one of 3700 numbers that "
        "says mean and variance; its interval is calibrated to hold 90 of 100. The list has the root mean square "
        "error over 2000 draws. The exact mean is Bayes' rule on a grid; no estimator errs less.",
        "controls": [
            slider("y", "Observation y", observed, 1.0, "{:.1f}".format),
            slider("count", "Simulations", COUNTS, COUNTS[-1], lambda n: f"{n:,}".replace(",", " ")),
        ],
        "titles": ["Estimate for every observation", "Posterior of this observation"],
        "listed": "Root mean square error",
        "below": "Upright lines are the estimates; of the bars below, the upper one is the exact interval of 90 % "
        "and the lower one the network's.",
        "deviation": DEVIATION,
        "series": {"exact mean": "limit", "linear": "ISTA", "network": "unfolded ISTA"},
    }
