"""Local two-sample tests refuse a posterior where it is wrong, and not where it is right."""

import pytest
import torch

import fanfold as ff
from fanfold.guard import lc2st, sbc, tarp
from fanfold.observation import Observation
from fanfold.problems import LinearGaussian, Tone
from fanfold.problems.draws import draw

PROBLEM = LinearGaussian(n=2, m=3, snr_db=8.0)
DRAWS = draw(PROBLEM, 300, 7, 2, 0)[1]


class Posterior:
    """The exact one of the linear Gaussian model, `spread` times as wide, moved where the first measurement says so."""

    def __init__(self, spread=1.0, shift=0.0):
        A = PROBLEM.operator.matrix().double()
        self.covariance = torch.linalg.inv(A.mT @ A / PROBLEM.noise_var + torch.eye(2, dtype=A.dtype))
        self.root, self.shift = spread * torch.linalg.cholesky(self.covariance), shift

    def sample(self, obs, count, generator):
        mean = PROBLEM.posterior(obs).x.double()
        mean = mean + self.shift * self.covariance.diagonal().sqrt() * (obs.y[..., :1] > 0)
        return (mean + torch.randn(count, *mean.shape, generator=generator, dtype=mean.dtype) @ self.root.mT).float()


class Prior:
    def sample(self, obs, count, generator):
        return torch.randn(count, len(obs.y), 2, generator=generator)


def at(*places):
    """Observations whose first measurements are next to these."""
    rows = [int((DRAWS.y[:, 0] - place).abs().argmin()) for place in places]
    return DRAWS[torch.tensor(rows)]


def test_the_exact_posterior_is_refused_as_often_as_chance_says():
    trials = [lc2st(Posterior(), PROBLEM, at(-1.0, 1.0), samples=300, nulls=60, seed=s) for s in range(5)]
    p = torch.stack([result.p_values for result in trials])
    # ten p-values, each exact by itself: four below 0.05 come by chance once in a thousand times
    assert (p <= 0.05).sum() <= 3
    assert 0.2 < p.mean() < 0.8  # of uniform ones 0.5, within 3.3 / √(12 · 10)
    assert p.min() >= 1 / 61


@pytest.mark.parametrize("wrong", [Posterior(spread=2.0**0.5), Prior()], ids=["wide", "prior"])
def test_a_posterior_that_is_wrong_everywhere_is_refused_everywhere(wrong):
    result = lc2st(wrong, PROBLEM, at(-0.5, 0.5), samples=1000, nulls=99)
    assert (result.p_values <= 0.05).all()
    assert (result.statistic > result.quantile()).all()
    assert "at 2 of 2 observations" in result.sentence


def test_a_local_fault_is_seen_where_it_is():
    moved = Posterior(shift=0.5)
    p = torch.stack([lc2st(moved, PROBLEM, at(-1.2, -0.9, 0.9, 1.2), nulls=99, seed=s).p_values for s in range(2)])
    assert (p[:, 2:] <= 0.05).all()
    assert (p[:, :2] <= 0.05).sum() <= 1  # of four
    assert p[:, :2].median() > 0.1


def test_the_prior_passes_the_checks_that_are_averages():
    """Which is why there is a local one."""
    assert sbc(Prior(), PROBLEM).p_value > 1e-3
    assert tarp(Prior(), PROBLEM).p_value > 1e-3


def test_tarp_is_that_of_sbc_and_sees_lost_width():
    right, narrow = tarp(Posterior(), PROBLEM), tarp(Posterior(spread=0.7), PROBLEM)
    assert torch.equal(right.nearer, sbc(Posterior(), PROBLEM).nearer)
    assert right.p_value > 1e-3
    assert narrow.p_value < 1e-6
    rows = right.table.rows
    assert [row["nominal"] for row in rows][::9] == [0.05, 0.5, 0.95]
    assert sum(row["low"] <= row["measured"] <= row["high"] for row in rows) >= 15
    assert "as often as they promise" in right.sentence
    assert "promise 80%" in narrow.sentence
    assert "not uniform" in sbc(Posterior(spread=0.7), PROBLEM).sentence


def test_the_same_seed_gives_the_same_and_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    first, again = (lc2st(Posterior(), PROBLEM, at(0.0), samples=120, nulls=9, seed=3) for _ in range(2))
    assert torch.equal(first.null, again.null)
    assert torch.equal(first.statistic, again.statistic)
    assert torch.equal(before, torch.random.get_rng_state())


def test_many_measurements_complex_ones_and_noise_of_each_sample_go_in():
    tone = Tone(n=20, snr_db=(0.0, 20.0))

    class Sharp:
        """The exact moments alone."""

        def sample(self, obs, count, generator):
            said = tone.posterior(obs)
            return said.x + said.var.sqrt() * torch.randn(count, *said.x.shape, generator=generator)

    _, obs = draw(tone, 2, 0, 2, 0)
    assert lc2st(Sharp(), draw(tone, 150, 1, 2, 0), obs, nulls=19).null.shape == (19, 2)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="at least 100"):
        lc2st(Posterior(), PROBLEM, at(0.0), samples=50)
    with pytest.raises(ValueError, match="pass a batch of shape"):
        lc2st(Posterior(), PROBLEM, Observation(torch.zeros(3)))

    class Short:
        def sample(self, obs, count, generator):
            return torch.zeros(3, 2)

    with pytest.raises(ValueError, match=r"pass draws of shape \(80, 100, 2\)"):
        lc2st(Short(), PROBLEM, at(0.0), samples=100)

    class Certain:
        def sample(self, obs, count, generator):
            return torch.ones(count, len(obs.y), 2)

    with pytest.raises(ValueError, match="one value alone at observation 0"):
        lc2st(Certain(), PROBLEM, at(0.0), samples=100)
    assert ff.guard.LC2ST(torch.zeros(1), torch.ones(9, 1)).sentence == (
        "The posterior is not told from the truth at the observation (every p above 0.05)."
    )
