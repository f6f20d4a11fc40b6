"""Adapting: never worse on fresh draws, half of what a specialist gains from few pairs, and the old network stays."""

import copy
import json
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import fanfold as ff
from fanfold.cli import main as cli
from fanfold.core.units import nmse_db
from fanfold.guard.adaptation_losses import OfMeasurements, OfPairs

PROBLEM = ff.problems.CompressedSensing(n=60, m=30, sparsity=0.1, snr_db=30, seed=0)


class Louder:
    """The problem with signals that are larger by a factor, in the same noise."""

    A = PROBLEM.A

    def __init__(self, gain: float):
        self.gain = gain

    def sample(self, n, generator):
        x, obs = PROBLEM.sample(n, generator)
        more = (self.gain - 1) * x
        return x + more, ff.Observation(obs.y + obs.A @ more, obs.A, obs.noise_var)


@cache
def trained() -> nn.Module:
    net = ff.unfold(ff.algorithms.ISTA(lam=0.05), PROBLEM, 8, {"step": "per-layer", "threshold": "per-layer"})
    return ff.fit(net, PROBLEM, steps=200, batch=64, lr=1e-2, seed=0)


def draws(place, samples: int, seed: int):
    return place.sample(samples, torch.Generator().manual_seed(seed))


@torch.no_grad()
def error_db(net: nn.Module, place) -> float:
    x, obs = draws(place, 2000, 999)
    return nmse_db(net(obs).x, x)


PLACES = {
    "home": PROBLEM,
    "10 dB": PROBLEM.shifted(snr_db=10),
    "denser": PROBLEM.shifted(sparsity=0.2),
    "louder": Louder(1.5),
    "far louder": Louder(10.0),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("seed", [1, 2])
def test_pairs_never_make_it_worse_on_fresh_draws(name, seed):
    net, place = trained(), PLACES[name]
    adapted = ff.guard.adapt(net, draws(place, 100, seed))
    assert error_db(adapted.network, place) <= error_db(net, place) + 0.1  # what 2000 draws of another kind resolve


@pytest.mark.parametrize("name", ["denser", "louder"])
def test_a_hundred_pairs_win_back_half_of_what_a_thousand_do(name):
    net, place = trained(), PLACES[name]
    many, few = (error_db(ff.guard.adapt(net, draws(place, n, 5)).network, place) for n in (1000, 100))
    before = error_db(net, place)
    assert many < before - 1  # where there is something to win
    assert before - few >= 0.5 * (before - many)


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("snr_db", [10, 30])
def test_measurements_alone_never_lose_a_tenth_of_a_decibel(name, snr_db):
    net, place = trained(), PLACES[name]
    if name in ("home", "denser"):
        place = place.shifted(snr_db=snr_db)
    adapted = ff.guard.adapt(net, draws(place, 100, 1)[1])
    assert error_db(adapted.network, place) <= error_db(net, place) + 0.1


def test_measurements_alone_restrain_a_network_that_is_worse_than_silence():
    place = PLACES["far louder"]
    adapted = ff.guard.adapt(trained(), draws(place, 100, 1)[1])
    assert adapted.level.startswith("strength")
    assert error_db(adapted.network, place) < error_db(trained(), place) - 3


def test_the_excess_over_silence_is_unbiased():
    place = PLACES["denser"]
    x, obs = draws(place, 4000, 3)
    a = ff.guard.NoiseSplit().fraction
    loss = OfMeasurements(obs, ff.guard.NoiseSplit()).losses(trained()).loss[:, 0]
    noisier = ff.Observation(obs.y + a * obs.noise_var.sqrt() * torch.randn(obs.y.shape), obs.A, 1.25 * obs.noise_var)
    with torch.no_grad():
        seen = obs.A @ trained()(noisier).x
    truth = ((seen - obs.A @ x).square() - (obs.A @ x).square()).sum(-1) / obs.y.square().sum(-1).mean()
    bound = 4 * (loss - truth).std() / len(x) ** 0.5  # standard errors of the mean difference
    assert abs(loss.mean() - truth.mean()) <= bound


@pytest.mark.parametrize("labelled", [True, False])
def test_the_network_that_came_is_untouched(labelled):
    net = copy.deepcopy(trained())
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    x, obs = draws(PLACES["far louder"], 50, 1)
    adapted = ff.guard.adapt(net, (x, obs) if labelled else obs)
    assert adapted.network is not net
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())
    assert net.strength == 1
    assert all(p.grad is None and p.requires_grad for p in (*net.parameters(), *adapted.network.parameters()))
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_gained_gives_the_old_network_back():
    net = ff.unfold(ff.algorithms.OAMP(ff.priors.BernoulliGaussian(0.1)), PROBLEM, 6)  # matched; nothing may be learned
    adapted = ff.guard.adapt(net, draws(PROBLEM, 40, 1))
    assert (adapted.level, adapted.gain) == ("nothing", 0)
    assert "stays as it was" in adapted.verdict
    _, obs = draws(PROBLEM, 5, 2)
    assert torch.equal(adapted.network(obs).x, net(obs).x)


def test_the_same_draws_and_seed_adapt_alike():
    pairs = draws(PLACES["10 dB"], 60, 1)
    one, two = (ff.guard.adapt(trained(), pairs, seed=3) for _ in range(2))
    assert one.verdict == two.verdict
    assert one.tried.rows == two.tried.rows


def test_sums_of_pairs_are_pairs():
    x, obs = draws(PROBLEM, 4000, 1)
    added = OfPairs(x, obs)._sums(7)
    noise = added.obs.y - added.obs.A @ added.x
    assert noise.square().mean().item() == pytest.approx(added.obs.noise_var.item(), rel=0.03)  # 4 sigma of 120000


def test_a_network_that_judges_itself_is_judged_by_its_loss():
    tone = ff.problems.Tone()
    net = ff.neural(tone)
    ff.fit(net, tone, steps=60, batch=32)
    adapted = ff.guard.adapt(net, draws(tone.shifted(snr_db=0), 60, 1))
    assert adapted.unit == "of its loss"
    assert {row["level"].split(",")[0] for row in adapted.tried} >= {"all weights"}


def test_a_channel_network_adapts_to_pairs():
    home = ff.problems.OFDMChannel("kronecker:array=2x2x2,subcarriers=12", "comb-2", snr_db=10)
    away = home.shifted(snr_db=0)
    net = ff.estimators.ofdm.MixerSettings(stages=1).build(home)
    ff.fit(net, home, steps=10, batch=16)
    adapted = ff.guard.adapt(net, draws(away, 30, 1))
    x, obs = draws(away, 300, 2)
    with torch.no_grad():
        assert nmse_db(adapted.network(obs).x, x) <= nmse_db(net(obs).x, x) + 0.1
    with pytest.raises(ValueError, match=r"BeamMixer has no strength.*pass pairs"):
        ff.guard.adapt(net, draws(away, 30, 1)[1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, obs: (x[:5], obs[:5]), r"y is \(5, 30\); pass at least 10 samples"),
        (lambda x, obs: obs[:9], r"y is \(9, 30\); pass at least 10 samples"),
        (lambda x, obs: (x[:11], obs), r"x is \(11, 60\) for 20 observations"),
        (lambda x, obs: (x * torch.nan, obs), "x"),
        (lambda x, obs: ff.Observation(obs.y, obs.A), "has no noise variance"),
        (lambda x, obs: ff.Observation(obs.y, None, obs.noise_var), "has no operator"),
    ],
)
def test_draws_that_do_not_fit_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        ff.guard.adapt(trained(), change(*draws(PROBLEM, 20, 1)))


def test_settings_that_do_not_fit_are_refused():
    pairs = draws(PROBLEM, 20, 1)
    with pytest.raises(ValueError, match=r"held_out is 1\.0; pass the share"):
        ff.guard.adapt(trained(), pairs, held_out=1.0)
    with pytest.raises(ValueError, match="Identity has no weights and no strength"):
        ff.guard.adapt(nn.Identity(), pairs)


def test_a_single_pair_teaches_by_itself():
    x, obs = draws(PROBLEM, 1, 1)
    assert torch.isfinite(OfPairs(x, obs).lesson(trained(), 1))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapt")
    ff.save(trained(), folder / "old", PROBLEM)
    x, obs = draws(PLACES["10 dB"], 60, 1)
    var = obs.noise_var.numpy()
    np.savez(folder / "few.npz", x=x.numpy(), y=obs.y.numpy(), noise_var=var)
    np.savez(folder / "other.npz", x=x[:, :50].numpy(), y=obs.y.numpy())
    np.savez(folder / "matrix.npz", x=x.numpy(), y=obs.y.numpy(), A=np.ones((30, 60), np.float32))
    np.save(folder / "y.npy", draws(PLACES["far louder"], 60, 1)[1].y.numpy())
    return folder


@pytest.mark.parametrize("flags", [["--pairs", "few.npz"], ["--observations", "y.npy"]])
def test_the_verb_keeps_a_run_of_its_own(run, tmp_path, monkeypatch, capsys, flags):
    monkeypatch.chdir(run)
    before = {file: file.read_bytes() for file in (run / "old").iterdir()}
    assert cli.run(["adapt", "old", *flags, "--out", str(tmp_path / "new"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["verdict"].startswith("Changed: ")
    assert said["level"] in [row["level"] for row in said["tried"]]
    assert {file: file.read_bytes() for file in (run / "old").iterdir()} == before
    new, old = ff.load(tmp_path / "new"), ff.load(run / "old")
    _, obs = draws(PROBLEM, 5, 1)
    assert not torch.equal(new(obs).x, old(obs).x)
    assert cli.run(["adapt", "old", *flags, "--out", str(tmp_path / "new")]) == 2
    assert "exists; choose another run directory" in capsys.readouterr().err


def test_the_verb_keeps_a_receiver_that_has_drifted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ff.save(trained(), "old", PROBLEM)
    x, obs = draws(ff.guard.CalibrationDrift(PROBLEM, 3.0), 100, 1)
    np.savez("few.npz", x=x.numpy(), y=obs.y.numpy(), noise_var=obs.noise_var.numpy())
    assert cli.run(["adapt", "old", "--pairs", "few.npz", "--out", "new", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["level"].startswith("gains")
    new, place = ff.load("new"), ff.guard.CalibrationDrift(PROBLEM, 3.0)
    assert error_db(new, place) < error_db(trained(), place) - 1
    np.save("y.npy", obs.y[:3].numpy())
    assert cli.run(["apply", "new", "y.npy", "--alarm", "0"]) == 0
    np.testing.assert_allclose(np.load("x_hat.npy"), new(obs[:3]).x.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "give --pairs, a file of x and y, or --observations"),
        (["--pairs", "few.npz", "--observations", "y.npy"], "one of both"),
        (["--pairs", "other.npz"], "other.npz holds x (60, 50)"),
        (["--pairs", "matrix.npz"], "matrix.npz holds another A"),
        (["--observations", "y.npy", "--noise-var", "nan"], "noise-var"),
    ],
)
def test_the_verb_refuses_what_does_not_fit(run, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(run)
    assert cli.run(["adapt", "old", *flags, "--out", "new"]) == 2
    assert said in capsys.readouterr().err
    assert not (run / "new").exists()
