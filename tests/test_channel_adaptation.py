"""Adapting channel networks to another place, and the counting of pilots."""

import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import fanfold as ff
from fanfold.core.streams import generator_of
from fanfold.core.units import power
from fanfold.estimators.base import known_peers
from fanfold.estimators.ofdm import (
    Adapted,
    AdaptedSettings,
    BeamMixer,
    FilterSettings,
    LearnedFilters,
    MixerSettings,
    Mixture,
)
from fanfold.estimators.ofdm.adaptation import unbiased_risk
from fanfold.experiments.channels.pilot_overhead import crossing
from fanfold.observation import Estimate, Observation
from fanfold.problems import FewChannels, OFDMChannel
from fanfold.problems.draws import Pool
from fanfold.problems.radio.few_channels import turns
from fanfold.runs.weights import parameters_of
from fanfold.training.events import Stepped
from fanfold.training.fit import fit_events
from fanfold.training.settings import Training

SMALL = MixerSettings(6, 6, 1, 6, 16, 24)
PLACE = "kronecker:array=2x2x2,subcarriers=12,delay_spread_ns=300"


class Shrunk(nn.Module):
    """Pilots times a gain that depends on them, put back on the grid."""

    def forward(self, obs: Observation) -> Estimate:
        gain = power(obs.y).mean(-1, keepdim=True).sqrt().clamp_max(1.0)
        return Estimate(obs.A.H @ (gain * obs.y))


def test_the_risk_without_channels_is_that_with_them():
    problem = OFDMChannel(PLACE, "comb-2", snr_db=3.0)
    x, obs = problem.sample(20_000, generator_of(0))
    claimed = unbiased_risk(Shrunk(), obs, generator_of(1)).double()
    true = (power(problem.A @ (Shrunk()(obs).x - x)).mean(-1) / obs.noise_var).double()
    difference = claimed - true
    assert true.mean() > 0.2  # there is a risk to tell
    assert abs(difference.mean()) < 4 * difference.std() / len(x) ** 0.5  # four standard errors


def test_known_channels_are_observed_anew_and_others_once():
    problem = OFDMChannel(PLACE, "comb-2")
    known, unknown = (FewChannels(problem, 10, kind, varied=False) for kind in (True, False))
    for few, observations in ((known, 400), (unknown, 8)):
        x, obs = few.sample(400, generator_of(0))
        assert len(x.real.unique(dim=0)) == 8  # a fifth of ten is held out
        assert len(obs.y.real.unique(dim=0)) == observations
    assert not torch.isin(known.held_out().drawn()[0].real, known.drawn()[0].real).any()


@pytest.mark.parametrize("known", [True, False])
def test_varied_channels_are_many_of_the_same_power_with_the_noise_that_is_said(known):
    few = FewChannels(OFDMChannel(PLACE, "comb-2", snr_db=(0.0, 20.0)), 40, known)
    x, obs = few.sample(4000, generator_of(0))
    assert len(x.real.unique(dim=0)) == 4000
    drawn, _ = few.drawn()
    # 32 channels of 96 entries, all but alike in power, in shares that add up to one and phases without a preference
    assert power(x).mean() == pytest.approx(power(drawn).mean().item(), rel=0.05)
    left = power(obs.y - few.A @ x).mean(-1) / obs.noise_var.flatten()
    assert left.mean() == pytest.approx(1, abs=0.1)  # 32 noises of 48 entries: four times 1 / √1536
    kept, _ = few.held_out().sample(100, generator_of(0))
    assert len(kept.real.unique(dim=0)) == 8


def test_of_stored_channels_none_is_taken_twice():
    few = FewChannels(OFDMChannel("umi"), 100, varied=False)
    trained, kept = (part.drawn()[0].real for part in (few, few.held_out()))
    assert len(torch.cat([trained, kept]).unique(dim=0)) == 100
    with pytest.raises(ValueError, match="different channels"):
        _ = FewChannels(OFDMChannel("umi"), 100_000).drawn()


def test_of_mixed_channels_none_is_taken_twice():
    mixed = OFDMChannel("umi+kronecker:array=2x4x4,subcarriers=24,spacing_hz=30000")
    x, _ = mixed.distinct(301, generator_of(3))
    assert len(x.real.unique(dim=0)) == 301
    stored = OFDMChannel("umi").channels
    of_umi = torch.isin(x[:, 0].real, stored.read(torch.arange(stored.count))[:, 0, 0, 0].real)
    assert abs(of_umi.sum().item() - 150.5) == 0.5


def test_a_source_that_is_named_twice_has_no_distinct_channels():
    with pytest.raises(ValueError, match="twice"):
        _ = FewChannels(OFDMChannel("umi+umi"), 100).drawn()


@pytest.mark.parametrize("known", [True, False])
def test_a_budget_of_few_channels_holds_others_out(known):
    few = FewChannels(OFDMChannel("umi", snr_db=(0.0, 20.0)), 100, known)
    parts = [Pool(few, 60, 0).part(held_out=kind)[0].real for kind in (True, False)]
    assert len(torch.cat(parts).unique(dim=0)) == 60
    with pytest.raises(ValueError, match="81 different"):
        Pool(few, 81, 0)


def test_a_budget_of_stored_channels_holds_others_out():
    pool = Pool(OFDMChannel("umi"), 200, 0)
    parts = [pool.part(held_out=kind)[0].real for kind in (True, False)]
    assert len(torch.cat(parts).unique(dim=0)) == 200


def test_adapting_without_channels_resumes_to_the_same_numbers(tmp_path):
    few = FewChannels(OFDMChannel(PLACE, "comb-2", snr_db=(0.0, 20.0)), 40, known=False)
    settings = Training(steps=8, batch=8, validate_every=4, validation_samples=10)

    def network() -> Adapted:
        net = BeamMixer.of(few.problem, SMALL)
        net.prepare(*few.problem.sample(300, generator_of(0)))
        return Adapted(net, False)

    whole, cut = (fit_events(network(), few, settings, tmp_path / name) for name in ("whole", "cut"))
    for _ in whole:
        pass
    for event in cut:
        if getattr(event, "step", 0) == 5:
            break
    cut.close()
    for _ in fit_events(network(), few, settings, tmp_path / "cut", resume=True):
        pass
    _same_checkpoints(tmp_path)


def _same_checkpoints(folder):
    one, two = (load_file(folder / name / "checkpoint.safetensors") for name in ("whole", "cut"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


QUICK = {"steps": 4, "batch": 8, "lr": 3e-3, "validate_every": 4, "validation_samples": 10, "threads": 1}


def _killed_at_the_first_step(net, problem, path):
    training = fit_events(net, problem, Training(**QUICK), path)
    for event in training:
        if isinstance(event, Stepped):
            break
    training.close()


@pytest.mark.parametrize("known", [True, False])
def test_what_a_trained_network_learned_in_closed_form_outlives_a_break_and_a_second_training(known, tmp_path):
    few = FewChannels(OFDMChannel(PLACE, "comb-2", snr_db=(0.0, 20.0)), 40, known)
    elsewhere = OFDMChannel("rician:k_db=15,array=2x2x2,subcarriers=12,delay_spread_ns=300", "comb-2")

    def network() -> Adapted:
        net = BeamMixer.of(few, SMALL)
        net.prepare(*elsewhere.sample(300, generator_of(0)))
        return Adapted(net, known)

    whole = ff.fit(network(), few, run_dir=tmp_path / "whole", **QUICK)
    _killed_at_the_first_step(network(), few, tmp_path / "cut")
    resumed, loaded = ff.resume(tmp_path / "cut"), ff.load(tmp_path / "whole")
    for net in (resumed, loaded):
        assert net.prepared
        assert all(torch.equal(net.state_dict()[name], t) for name, t in whole.state_dict().items())
    _same_checkpoints(tmp_path)
    beams = loaded.net.beams.clone()
    ff.fit(loaded, few, **QUICK)
    assert torch.equal(loaded.net.beams, beams)
    assert torch.equal(loaded.net.beams, network().net.beams)


def test_a_mixture_that_was_given_outlives_a_break(tmp_path):
    problem = OFDMChannel(PLACE, "comb-2", snr_db=(0.0, 20.0))
    mixture = Mixture.of(problem, 2, 100, rounds=2, modes=4)
    size = FilterSettings(stages=1, corrected=3, width=8, depth=2)
    nets = [LearnedFilters.of(problem, size, mixture=mixture) for _ in range(2)]
    whole = ff.fit(nets[0], problem, run_dir=tmp_path / "whole", **QUICK)
    _killed_at_the_first_step(nets[1], problem, tmp_path / "cut")
    resumed = ff.resume(tmp_path / "cut")
    assert resumed.given
    assert all(torch.equal(resumed.state_dict()[name], t) for name, t in whole.state_dict().items())
    _same_checkpoints(tmp_path)


def test_what_is_kept_of_closed_form_learning_is_one_entry_and_no_number():
    net = BeamMixer.of(OFDMChannel(PLACE), SMALL)
    adapted = Adapted(net, known=True)
    assert set(parameters_of(adapted)) == {f"net.{name}" for name in parameters_of(net)} | {"prepared"}
    assert ff.deploy.stored_numbers(adapted) == ff.deploy.stored_numbers(net)
    assert [p.shape for p in adapted.parameters()] == [p.shape for p in net.parameters()]


def test_asking_what_a_guest_can_do_evaluates_none_of_its_properties():
    asked = []

    class Asking(OFDMChannel):
        @property
        def A(self):
            asked.append("A")
            return super().A

    problem = Asking(PLACE)
    asked.clear()
    assert SMALL.build(problem).settings == SMALL
    assert asked == []

    class Asked(Judged):
        @property
        def settings(self):
            asked.append("settings")
            return SMALL

        @property
        def measures_noise(self):
            asked.append("measures_noise")
            return True

    adapted = Adapted(Asked(), known=True)
    assert asked == []
    assert adapted.settings == AdaptedSettings(SMALL)
    assert adapted.measures_noise
    assert asked == ["settings", "measures_noise"]


def test_a_turn_is_linear_in_columns_rows_and_subcarriers_and_the_same_elsewhere():
    layout = OFDMChannel("jakes:array=2x3x4,subcarriers=5,symbols=2").layout
    turn = turns(layout, 3, generator_of(0)).reshape(3, *layout.array, 2, 5)
    assert torch.allclose(turn.abs(), torch.ones(()))
    assert torch.equal(turn[:, 0], turn[:, 1])
    assert torch.equal(turn[..., 0, :], turn[..., 1, :])
    for axis in (2, 3, 5):
        steps = turn.movedim(axis, 0)[1:] * turn.movedim(axis, 0)[:-1].conj()
        # single precision of phases of a few radians
        assert torch.allclose(steps, steps[:1].expand_as(steps), atol=1e-5)
        assert (steps.angle().abs() > 1e-3).any()


def test_few_channels_are_shifted_as_the_problem_that_they_are_of():
    few = FewChannels(OFDMChannel(PLACE, "comb-2"), 40, known=False)
    assert few.shifted(snr_db=20.0, count=50) == FewChannels(few.problem.shifted(snr_db=20.0), 50, known=False)
    assert few.held_out().shifted(snr_db=20.0).part == "test"
    with pytest.raises(ValueError, match="no 'sparsity'"):
        few.shifted(sparsity=0.1)


def test_few_stored_channels_that_were_drawn_anew_are_chosen_anew(tmp_path):
    _store(tmp_path, 0)
    few = FewChannels(OFDMChannel(f"{tmp_path}/mine.npz:array=2x2x2", "comb-2"), 10)
    before, fingerprint = few.drawn()[0], few.fingerprint
    _store(tmp_path, 1)
    assert few.fingerprint != fingerprint
    assert not torch.equal(few.drawn()[0], before)


def _store(folder, seed):
    H = torch.randn(80, 8, 12, 2, generator=torch.Generator().manual_seed(seed)).numpy()
    np.savez(folder / "mine.npz", H=H[..., 0] + 1j * H[..., 1])
    os.utime(folder / "mine.npz", ns=(seed, seed))  # whatever the clock's resolution


def test_an_adapted_network_is_built_again_from_its_settings_and_prepares_if_it_was_not_trained():
    few = FewChannels(OFDMChannel(PLACE, "comb-2", snr_db=(0.0, 20.0)), 40)
    x, obs = few.sample(300, generator_of(0))
    trained = BeamMixer.of(few, SMALL)
    trained.prepare(x, obs)
    adapted = Adapted(trained, known=False, seed=5)
    assert adapted.settings == AdaptedSettings(SMALL, known_channels=False, probe_seed=5)
    assert adapted.measures_noise
    beams = trained.beams.clone()
    adapted.prepare(*few.sample(300, generator_of(1)))
    assert torch.equal(trained.beams, beams)
    built = AdaptedSettings(SMALL).build(few)
    built.prepare(x, obs)
    assert torch.equal(built(obs).x, trained(obs).x)
    with pytest.raises(ValueError, match="closed form"):
        adapted.settings.build(few).prepare(x, obs)
    with pytest.raises(ValueError, match="channels are not known"):
        AdaptedSettings(SMALL).build(few.shifted(known=False))
    assert Adapted(Judged(), known=True).settings is None
    with pytest.raises(ValueError, match="Adapted needs `losses"):
        Adapted(Shrunk(), known=True)


class Judged(Shrunk):
    """A network of the user's own, without settings."""

    def losses(self, obs: Observation, x: torch.Tensor) -> torch.Tensor:
        return power(self(obs).x - x).mean(-1)


def test_peers_of_few_channels_know_them_only_if_they_are_known():
    few = FewChannels(OFDMChannel(PLACE, "comb-2"), 40)
    assert list(known_peers(few)) == list(known_peers(few.problem))
    assert list(known_peers(few.shifted(known=False))) == ["least squares, linear"]


def test_few_channels_are_at_least_five():
    with pytest.raises(ValueError, match="at least five"):
        FewChannels(OFDMChannel(PLACE), 4)


def test_adapting_keeps_what_was_learned_in_closed_form_and_lowers_the_error():
    from_here = OFDMChannel(PLACE, "comb-2", snr_db=(0.0, 20.0))
    there = from_here.shifted(source="rician:k_db=15,array=2x2x2,subcarriers=12,delay_spread_ns=300")
    net = ff.fit(
        BeamMixer.of(from_here, SMALL), from_here, steps=60, batch=64, validate_every=30, validation_samples=200
    )
    x, obs = there.shifted(snr_db=10.0).sample(1000, generator_of(7))
    before, start = ff.units.nmse_db(net(obs).x, x), net.beams.clone()
    adapted = ff.fit(Adapted(net, True), FewChannels(there, 200), steps=150, batch=64, lr=3e-3, validate_every=50)
    assert torch.equal(start, adapted.net.beams)
    assert ff.units.nmse_db(adapted(obs).x, x) < before - 0.3


def test_adapting_to_unknown_channels_needs_the_noise_variance():
    problem = OFDMChannel(PLACE, known_noise=False)
    x, obs = problem.sample(2, generator_of(0))
    with pytest.raises(ValueError, match="noise_var"):
        Adapted(BeamMixer.of(problem, SMALL), False).losses(obs, x)


def test_pilots_for_an_error_lie_where_the_curve_crosses_it():
    curve = [(4, -10.0), (8, -14.0), (16, -18.0)]
    assert crossing(curve, -14.0) == pytest.approx(8)
    assert crossing(curve, -16.0) == pytest.approx(8 * 2**0.5)  # linear in dB over the logarithm
    assert crossing(curve, -18.5) is None
    assert crossing(curve, -3.0) == 4
