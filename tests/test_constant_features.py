"""Measurements that tell nothing: a neural estimator is then the prior's mean and spread, and says so."""

from dataclasses import dataclass

import pytest
import torch

import fanfold as ff
from fanfold.estimators.posterior.features import fit_linear, ridge
from fanfold.observation import Observation

pytestmark = pytest.mark.filterwarnings("ignore:y is the same in all")
CENTRE = torch.tensor([1.5, 3.5])


@dataclass(frozen=True)
class Uniform:
    """x is uniform on a unit square around (1.5, 3.5), and y tells of it what its kind says."""

    kind_of_y: str = "zero"
    A = None

    def sample(self, n, generator):
        x = CENTRE - 0.5 + torch.rand(n, 2, generator=generator)
        w = torch.randn(n, 3, generator=generator)
        y = {
            "zero": torch.zeros(n, 3),
            "constant": torch.full((n, 3), 0.1),
            "nearly constant": 0.1 + 5.0 * (torch.arange(n) == 0)[:, None].float().expand(n, 3),
            "tiny": 1e-30 * w,
            "huge": 1e30 * w,
            "far": 1e6 + w,
            "partly": torch.cat([x[:, :1] + 0.1 * w[:, :1], torch.full((n, 2), 0.1)], 1),
        }[self.kind_of_y]
        return x, Observation(y.contiguous())

    def held_out(self):
        return self

    def shifted(self, **changes):
        return self


def flow(problem):
    pytest.importorskip("zuko")
    return ff.estimators.FlowPosterior.of(problem, transforms=1, width=8)


MADE = {
    "ensemble": lambda p: ff.neural(p, width=8),
    "squared error": lambda p: ff.neural(p, members=1, width=8),
    "absolute": lambda p: ff.neural(p, "absolute", width=8),
    "quantiles": lambda p: ff.neural(p, "pinball", width=8),
    "gaussian": lambda p: ff.neural(p, "gaussian", members=2, width=8),
    "flow": flow,
}


@pytest.mark.parametrize("kind", ["zero", "constant", "nearly constant", "tiny", "huge", "far", "partly"])
@pytest.mark.parametrize("name", MADE)
def test_what_tells_nothing_leaves_the_prior(name, kind):
    problem = Uniform(kind)
    net = MADE[name](problem)
    net.prepare(*problem.sample(4000, torch.Generator().manual_seed(0)))
    x, obs = problem.sample(2000, torch.Generator().manual_seed(1))
    with torch.no_grad():
        estimate = net(obs)
    error = (estimate.x - x).square().mean(0)
    # of the prior 1 / 12; a mean of 2000 squares deviates by 2 %, and what 4000 draws say of the mean errs by 1 / 4000
    known = torch.tensor([0.01 * (1 / 12) / (1 / 12 + 0.01) if kind == "partly" else 1 / 12, 1 / 12])
    assert (error / known - 1).abs().max() < 0.15
    if estimate.var is not None:
        assert (estimate.var.mean(0) / known - 1).abs().max() < 0.15


@pytest.mark.parametrize("name", MADE)
def test_y_that_never_changes_is_named(name):
    problem = Uniform("constant")
    with pytest.warns(UserWarning, match="y is the same in all 100 draws: it tells nothing"):
        MADE[name](problem).prepare(*problem.sample(100, torch.Generator()))


def test_a_parameter_that_only_rounding_changes_is_refused():
    x = torch.rand(1000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 0.1  # whose mean over a thousand is not 0.1 to the last bit
    with pytest.raises(ValueError, match="parameter 1 has the same value in all 1000 draws"):
        fit_linear(torch.randn(1000, 3, dtype=torch.float64), x)


def test_ridge_on_nothing_is_nothing():
    x = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    W, left_out = ridge(torch.zeros(50, 3, dtype=torch.float64), x)
    assert (W == 0).all()
    assert torch.equal(left_out, x)


def test_a_spread_far_below_the_estimate_is_not_rounded_away():
    """x = 1e6 ± 0.3: single precision keeps the variance of what the flow adds, not that of the sum."""
    problem = Uniform("partly")
    net = flow(problem)
    net.prepare(*problem.sample(4000, torch.Generator().manual_seed(0)))
    _, obs = problem.sample(5, torch.Generator().manual_seed(1))
    near = net(obs).var
    net.linear.centre += 1e8
    assert torch.equal(net(obs).var, near)
