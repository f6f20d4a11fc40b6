"""Figures of topics: a posterior, intervals, a guard, a release; their programs say what torch says."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from fanfold.deploy.integer import IntegerEstimator
from fanfold.observation import Observation
from fanfold.report.figure.page import TOPIC_MODULES, figure
from fanfold.report.figure.topics import TOPICS, guard, intervals, kept_topic, posterior, release
from fanfold.report.figure.topics.controls import slider
from fanfold.report.figure.topics.kept import write_topic
from fanfold.report.figure.topics.made import MADE, programs_of_topic
from fanfold.report.figure.topics.manifest import pack_topic
from machines import need
from test_figure import modules_in

HERE = Path(__file__).parent
EPS = float(np.finfo(np.float32).eps)
MOST_BYTES, MOST_DATA = 260_000, 150_000
CALLS = 20


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What the page's programs say in Node of inputs `(calls, size)` each, by topic and program."""
    need("node")

    def run(topic: str, program: str, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        folder = tmp_path_factory.mktemp(f"{topic}-{program}")
        modules_in(folder, TOPIC_MODULES)
        packed = pack_topic(topic)
        (folder / "manifest.json").write_text(packed.manifest_text)
        (folder / "payload.b64").write_text(packed.payload)
        (folder / "given.json").write_text(json.dumps({k: t.double().tolist() for k, t in given.items()}))
        done = subprocess.run(
            ["node", str(HERE / "topics_in_node.mjs"), str(folder), program], check=True, capture_output=True, text=True
        )
        return {name: torch.tensor(rows) for name, rows in json.loads(done.stdout).items()}

    return run


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Sums in another order, some ten layers deep."""
    return bool((one - other).abs().max() <= 1e3 * EPS * other.abs().max())


@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_of_a_topic_is_small(topic, tmp_path):
    assert figure(tmp_path / "page.html", world=topic).stat().st_size <= MOST_BYTES
    assert len(pack_topic(topic).payload) <= MOST_DATA
    assert json.loads(json.dumps(MADE[topic].facts(kept_topic(topic).weights))) == kept_topic(topic).facts


def test_topics_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match="no topic 'gaurd'; choose of posterior"):
        kept_topic("gaurd")
    with pytest.raises(ValueError, match="gain stands at 3 at first"):
        slider("gain", "Gain", [1, 2], 3, str)


@torch.no_grad()
def test_networks_of_a_posterior_are_those_of_torch_and_near_the_mean(said):
    y = torch.linspace(-4, 4, CALLS)[:, None]
    there = said("posterior", "posterior", {"y": y})
    density, mean = posterior.OnGrid()(y)
    assert close(there["density"], density)
    assert close(there["mean"], mean)
    net = posterior.networks(kept_topic("posterior").weights)[10_000]
    whole = posterior.intervals(net)
    there, here = said("posterior", "network_10000", {"y": y}), whole(Observation(y))
    low, high = whole.ends(here)
    for name, wanted in {"x_hat": here.x, "var": here.var, "low": low, "high": high}.items():
        assert close(there[name], wanted), name
    assert (here.x - mean)[5:-5].abs().max() < 0.1  # at its ends few draws are


@torch.no_grad()
def test_the_posterior_is_bayes_rule_by_draws(said):
    """Draws of the prior, weighed by the likelihood: an independent way to the same mean."""
    x = posterior.DEVIATION * torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for y in (-2.0, 1.0):
        off = (y - x - posterior.BEND * torch.sin(2 * x)) / posterior.NOISE
        weights = (-0.5 * off.square()).exp()
        mean = (weights * x).sum() / weights.sum()
        spread = (weights * (x - mean)).square().sum().sqrt() / weights.sum()
        assert abs(posterior.OnGrid()(torch.tensor([[y]]))[1].item() - mean) < 5 * spread


@torch.no_grad()
def test_estimates_and_variances_under_the_intervals_are_those_of_torch(said):
    _, obs = intervals.PROBLEM.sample(CALLS, torch.Generator().manual_seed(3))
    noise_var = torch.full((CALLS, 1), intervals.PROBLEM.noise_var)
    there = said("intervals", "estimator", {"y": obs.y, "noise_var": noise_var})
    here = intervals.estimator()(Observation(obs.y, obs.A, noise_var))
    assert close(there["x_hat"], here.x)
    assert close(there["var"], here.var)


@torch.no_grad()
def test_the_guard_in_the_page_goes_call_by_call_as_in_torch(said):
    net, safe, guarded = guard.paths(kept_topic("guard").weights)
    _, obs = guard.PROBLEM.sample(CALLS, torch.Generator().manual_seed(3))
    y = obs.y * torch.where(torch.arange(CALLS) < CALLS // 2, 1.0, 8.0)[:, None]
    noise_var = torch.full((CALLS, 1), guard.PROBLEM.noise_var)
    obs = Observation(y, guard.PROBLEM.A, noise_var)
    assert close(said("guard", "network", {"y": y})["x_hat"], net(obs).x)
    assert close(said("guard", "baseline", {"y": y})["x_hat"], safe(obs).x)
    (drawn,) = guarded.chance(obs, range(CALLS)).values()
    there = said("guard", "guarded", {"y": y, "noise_var": noise_var, "drawn": drawn})
    assert close(there["x_hat"], guarded(obs).x)
    assert there["trust_next"][0, 0] != there["trust_next"][-1, 0]


@torch.no_grad()
@pytest.mark.parametrize("widths", release.WIDTHS)
def test_whole_numbers_in_the_page_are_those_of_the_program_bit_for_bit(said, widths):
    weights = kept_topic("release").weights
    y = 3 * release.PROBLEM.sample(CALLS, torch.Generator().manual_seed(3))[1].y  # so that some are cut off
    there = said("release", widths, {"y": y})["x_hat"]
    assert torch.equal(there, IntegerEstimator(release.integers(weights)[widths])(Observation(y)).x)
    assert close(
        said("release", "float", {"y": y})["x_hat"], release.network(weights)(Observation(y, release.PROBLEM.A)).x
    )


def test_a_topic_is_made_again_and_kept(tmp_path, monkeypatch):
    need("clang", "wasm-ld")
    before = kept_topic("release")
    monkeypatch.setattr("fanfold.report.figure.topics.release.WIDTHS", ("w8a8",))
    programs = programs_of_topic("release", before.weights)
    assert {k: one[1:] for k, one in programs.items()} == {k: before.programs[k][1:] for k in programs}
    assert programs.keys() == {"measured", "float", "w8a8"}
    monkeypatch.setattr("fanfold.report.figure.topics.kept.FOLDER", tmp_path)
    write_topic("release", before._replace(programs=programs), tmp_path)
    try:
        again = kept_topic("release")
    finally:
        kept_topic.cache_clear()
    assert again.programs == programs
    assert again.facts == before.facts
    assert {k: v.tolist() for k, v in again.weights.items()} == {k: v.tolist() for k, v in before.weights.items()}


def test_calibrated_reaches_hold_their_levels_on_other_draws():
    x, obs = intervals.PROBLEM.sample(1000, torch.Generator().manual_seed(9))
    estimate = intervals.estimator()(obs)
    off = (x - estimate.x).abs() / estimate.var.sqrt()
    for level, reach in zip(intervals.LEVELS, kept_topic("intervals").arrays["calibrated"], strict=True):
        # of 60 entries by 1000 draws, which depend on each other within a draw: 4 deviations of draws alone
        assert abs((off <= reach).float().mean().item() - level) < 4 * (level * (1 - level) / 1000) ** 0.5
