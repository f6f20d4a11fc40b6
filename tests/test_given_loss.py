"""A loss of the user's own in the training of networks that do not judge themselves: unfolded, and plain modules."""

import pytest
import torch
from torch import nn

import fanfold as ff
from fanfold.runs.directory import Run

PROBLEM = ff.problems.CompressedSensing(n=20, m=12, dtype="float64")
SMALL = {"steps": 6, "batch": 16, "lr": 1e-2, "validate_every": 3, "validation_samples": 40}


def absolute(x_hat, x):
    """Another loss than the squared error."""
    return (x_hat - x).abs().mean(-1)


def squared(x_hat, x):
    return torch.log10((x_hat - x).square().sum() / x.square().sum())  # which the default is, in units of 10 dB


def untrained(layers=3):
    return ff.unfold(ff.algorithms.ISTA(0.05), PROBLEM, layers, {"step": "per-layer", "threshold": "per-layer"})


class Scaled(nn.Module):
    """A plain module of the user's own."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, obs):
        return ff.Estimate(self.factor * (obs.A.H @ obs.y))


def parameters(net):
    return [p.detach().clone() for p in net.parameters()]


@pytest.mark.parametrize("options", [{}, {"loss_layers": 2}, {"schedule": "layer-by-layer"}], ids=str)
def test_the_default_said_as_a_function_trains_the_same(options):
    default = ff.fit(untrained(), PROBLEM, **SMALL, **options)
    said = ff.fit(untrained(), PROBLEM, **SMALL, **options, loss=squared)
    for one, other in zip(parameters(default), parameters(said), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [untrained, Scaled])
def test_what_is_minimised_is_the_loss(make):
    """In the end its mean on new draws is below that of the start, and the best held-out one is what comes back."""
    x, obs = PROBLEM.sample(500, torch.Generator().manual_seed(5))
    before = absolute(make()(obs).x, x).mean()
    events = []
    net = ff.fit(make(), PROBLEM, **{**SMALL, "steps": 60, "validate_every": 20}, loss=absolute, on_event=events.append)
    assert absolute(net(obs).x, x).mean() < before
    assert events[-1].loss == min(e.loss for e in events if isinstance(e, type(events[1])) and hasattr(e, "best"))


def test_a_number_and_one_for_each_sample_are_the_same_loss():
    each, number = (
        ff.fit(untrained(), PROBLEM, **SMALL, loss=f) for f in (absolute, lambda a, b: absolute(a, b).mean())
    )
    for one, other in zip(parameters(each), parameters(number), strict=True):
        torch.testing.assert_close(one, other)


def test_a_kept_run_names_the_loss_and_resumes_with_it_to_the_same_bits(tmp_path):
    whole = ff.fit(untrained(), PROBLEM, **SMALL, loss=absolute, run_dir=tmp_path / "whole")
    assert Run.open(tmp_path / "whole").config["training"]["loss"] == {"given": "absolute"}
    stopped = ff.fit_events(untrained(), PROBLEM, ff.Training(**SMALL, threads=1, loss=absolute), tmp_path / "cut")
    for event in stopped:
        if getattr(event, "step", 0) == 4:
            break
    stopped.close()
    with pytest.raises(ValueError, match=r"made with a loss of the user's own, absolute: hand it in"):
        ff.resume(tmp_path / "cut")
    with pytest.raises(ValueError, match="the loss absolute, and squared was handed in"):
        ff.resume(tmp_path / "cut", loss=squared)
    resumed = ff.resume(tmp_path / "cut", loss=absolute)
    assert all(torch.equal(a, b) for a, b in zip(parameters(whole), parameters(resumed), strict=True))
    assert all(
        torch.equal(a, b) for a, b in zip(parameters(ff.load(tmp_path / "whole")), parameters(whole), strict=True)
    )


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (lambda x_hat, x: (x_hat - x).abs(), r"the loss gave shape \(16, 20\)|the loss gave shape \(40, 20\)"),
        (lambda x_hat, x: 1.0, "the loss gave float for x_hat and x"),
        (lambda x_hat, x: (x_hat.detach() - x).abs().mean(-1), "the loss has no gradient"),
        ("absolute", "loss is 'absolute'"),
    ],
)
def test_what_is_no_loss_is_refused(loss, sentence):
    with pytest.raises(ValueError, match=sentence):
        ff.fit(untrained(), PROBLEM, **SMALL, loss=loss)


def test_a_lambda_is_refused_before_training_where_it_must_be_named(tmp_path):
    with pytest.raises(ValueError, match="cannot name a lambda"):
        ff.fit(untrained(), PROBLEM, **SMALL, loss=lambda x_hat, x: absolute(x_hat, x), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_that_judges_itself_says_where_its_loss_goes():
    net = ff.neural(PROBLEM, width=8)
    with pytest.raises(ValueError, match=r"says itself what to minimise.*ff.neural\(problem, loss="):
        ff.fit(net, PROBLEM, steps=2, loss=absolute)
