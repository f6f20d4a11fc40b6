"""A training that came to little says so wherever it ends, says what to try, and gives back the best that there was."""

import json
import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import fanfold as ff
from fanfold.cli import main as cli
from fanfold.observation import Estimate, Observation
from fanfold.training.events import Finished, advice_on, summary

PROBLEM = ff.problems.LinearGaussian(n=2, m=3)
SHORT = {"steps": 5, "batch": 4, "validate_every": 2, "validation_samples": 20, "threads": 1}


@dataclass(frozen=True)
class Spoilt:
    """A problem whose training draws, and held-out ones if so wished, overflow the squares of the loss."""

    level: float
    held_out_level: float = 1.0
    A = None

    def sample(self, n, generator):
        x, obs = PROBLEM.sample(n, generator)
        return self.level * x, Observation(self.level * obs.y)

    def held_out(self):
        return Spoilt(self.held_out_level)

    def shifted(self, **changes):
        return self


class Prepared(nn.Module):
    """A factor that is prepared as 2 and trained by a loss that is no number where x is huge."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(()))

    def prepare(self, x, obs):
        self.factor.fill_(2.0)

    def forward(self, obs):
        return Estimate(self.factor * obs.y[..., :2])

    def losses(self, obs, x):
        return (self(obs).x - x).square().sum(-1)


@pytest.mark.parametrize("held_out_level", [1.0, 1e30])
def test_a_training_whose_every_step_is_skipped_says_so_and_keeps_what_was_prepared(held_out_level):
    net = Prepared()
    with pytest.warns(UserWarning, match="No step was taken: in all 5 the loss or its gradient was not finite"):
        ff.fit(net, Spoilt(1e30, held_out_level), **SHORT)
    assert net.factor.item() == 2.0


def test_validations_that_are_no_numbers_are_named_and_the_prepared_start_comes_back():
    net = Prepared()
    with pytest.warns(UserWarning, match="No validation gave a finite error"):
        ff.fit(net, Spoilt(1.0, 1e30), lr=0.1, **SHORT)
    assert net.factor.item() == 2.0


def test_a_divergence_keeps_the_best_and_names_its_step():
    class Diverging(Prepared):
        steps = 0

        def losses(self, obs, x):
            self.steps += torch.is_grad_enabled()
            return super().losses(obs, x) * (1.0 if self.steps < 4 or not torch.is_grad_enabled() else math.nan)

    net = Diverging()
    with pytest.warns(UserWarning, match=r"Training diverged: the weights of step \d+ are kept. Pass a smaller lr"):
        ff.fit(net, PROBLEM, lr=0.1, **(SHORT | {"steps": 300}))
    assert torch.isfinite(net.factor)


def test_nothing_learned_is_said_by_fit_and_by_its_last_event():
    seen = []
    net = ff.unfold(ff.algorithms.ISTA(), ff.problems.CompressedSensing(n=20, m=10), 2, {"step": "per-layer"})
    ff.fit(net, ff.problems.CompressedSensing(n=20, m=10), lr=1e-30, on_event=seen.append, **SHORT)
    assert isinstance(seen[-1], Finished)
    assert seen[-1].best_step == 0
    assert seen[-1].advice.startswith("The best weights are those of step 0: nothing was learned in 5 steps. Pass")
    assert summary(seen[-1]).endswith(seen[-1].advice)
    with pytest.warns(UserWarning, match="The best weights are those of step 0"):
        ff.fit(net, ff.problems.CompressedSensing(n=20, m=10), lr=1e-30, **SHORT)


def test_a_training_that_learned_says_nothing(recwarn):
    seen = []
    ff.fit(Prepared(), PROBLEM, lr=0.1, on_event=seen.append, **(SHORT | {"steps": 40}))
    assert seen[-1].best_step > 0
    assert seen[-1].advice is None
    ff.fit(Prepared(), PROBLEM, lr=0.1, **(SHORT | {"steps": 40}))
    assert not recwarn.list


@pytest.mark.parametrize("reason", ["steps", "patience", "diverged"])
def test_no_steps_at_all_are_no_failure(reason):
    assert advice_on(reason, 0, 0, 0, judged=True) is None or reason == "diverged"


def test_the_shell_the_metrics_the_list_of_runs_and_the_page_say_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["train", "linear-gaussian", "--n", "2", "--m", "3", "neural", "--width", "8"]
    how = ["--steps", "4", "--batch", "4", "--validate-every", "2", "--validation-samples", "20", "--threads", "1"]
    assert cli.run([*words, *how, "--lr", "1e-30", "--run-dir", "runs/a"]) == 0
    assert "nothing was learned in 4 steps" in " ".join(capsys.readouterr().err.split())
    last = [json.loads(line) for line in (tmp_path / "runs/a/metrics.jsonl").read_text().splitlines()][-1]
    assert (last["event"], last["best_step"]) == ("finished", 0)
    assert cli.run(["runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["note"] == last["advice"]
    assert cli.run(["report", "runs/a", "--samples", "20"]) == 0
    assert last["advice"] in (tmp_path / "runs/a/report.html").read_text()
    capsys.readouterr()
    assert cli.run(["resume", "runs/a"]) == 0
    assert "nothing was learned in 4 steps" in " ".join(capsys.readouterr().err.split())
