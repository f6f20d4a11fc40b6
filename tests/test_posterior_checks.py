"""The page of a network that draws from a posterior says whether it is one."""

import json
import re

import pytest
import torch

from fanfold.problems import LinearGaussian, Pairs
from fanfold.problems.draws import draw
from fanfold.report.page import write_page
from fanfold.report.posterior_checks import posterior_sections

PROBLEM = LinearGaussian(n=2, m=3, snr_db=8.0)
TITLES = [
    "Ranks of the truth",
    "Coverage around random points",
    "At single observations",
    "What the posterior predicts",
]


class Drawing(torch.nn.Module):
    """The exact posterior, so many times as wide."""

    def __init__(self, spread=1.0):
        super().__init__()
        A = PROBLEM.operator.matrix().double()
        covariance = torch.linalg.inv(A.mT @ A / PROBLEM.noise_var + torch.eye(2, dtype=A.dtype))
        self.root = spread * torch.linalg.cholesky(covariance).float()

    def forward(self, obs):
        return PROBLEM.posterior(obs)

    def sample(self, obs, count, generator):
        mean = PROBLEM.posterior(obs).x
        return mean + torch.randn(count, *mean.shape, generator=generator) @ self.root.mT


class Silent(torch.nn.Module):
    def sample(self, obs, count, generator):
        raise ValueError("made for squared error: it has no posterior")


def test_a_right_posterior_passes_every_section_and_a_narrow_one_does_not(tmp_path):
    lines = []
    right = posterior_sections(Drawing(), PROBLEM, lines.append)
    assert [section.title for section in right] == TITLES
    assert len(lines) == 3
    for section, words in zip(right, ("are uniform", "as often as they promise", "", "All 20 observations are like")):
        assert words in section.text
    narrow = posterior_sections(Drawing(0.4), PROBLEM)
    assert "not uniform" in narrow[0].text
    assert "the posterior is wrong" in narrow[1].text
    assert "is told from the truth at" in narrow[2].text
    page = write_page(tmp_path / "page.html", "run", "", narrow, {}).read_text()
    assert page.count("<svg") == 3
    tables = [json.loads(data) for data in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page)]
    assert [len(table) for table in tables] == [2, 19, 6, 20]
    assert all(row["p"] <= 0.05 for row in tables[0])


def test_networks_without_draws_have_no_such_sections():
    assert posterior_sections(torch.nn.Identity(), PROBLEM) == []
    assert posterior_sections(Silent(), PROBLEM) == []


@pytest.mark.parametrize(("count", "checked"), [(200, False), (900, True)])
def test_stored_pairs_are_checked_as_far_as_they_go(count, checked):
    x, obs = draw(PROBLEM, count, 0, 2, 0)
    stored = Pairs(x=x, y=obs.y, noise_var=PROBLEM.noise_var)
    sections = posterior_sections(Drawing(), stored)
    assert [section.title for section in sections] == (TITLES[:3] if checked else [TITLES[0], TITLES[2]])
    assert all(("This was not checked" in section.text) is not checked for section in sections)
