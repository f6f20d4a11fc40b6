"""What the studies of channels make of what they measured."""

import re

import pytest
import torch

from fanfold.experiments.channels import channel_estimation
from fanfold.experiments.channels.channel_estimation import channel_section, costs
from fanfold.experiments.channels.channel_measures import BY_HAND, Measured
from fanfold.experiments.channels.channel_methods import ADMM_NET, BOTH, LS, MIXER, Methods, Size
from fanfold.problems import OFDMChannel

TINY = Size(0, 300, 0, 0, {MIXER: 1}, 0, batch=8)


def test_what_does_not_run_in_the_runtime_misses_its_goal():
    measured = Measured(
        rows=[{"estimator": ADMM_NET, "pilots": "comb-2", "snr_db": 10.0, "nmse_db": -25.0}],
        costs=[{"estimator": ADMM_NET, "pilots": "comb-2", "stored kB, float32": 9.0, BY_HAND: None}],
    )
    weights, latency = costs(measured)
    assert weights.passed
    assert not latency.passed


def test_a_channel_is_shown_with_the_errors_of_the_estimates_not_of_their_magnitudes():
    h = torch.full((32, 24), 0.4 + 0.3j)
    measured = Measured(
        rows=[{"estimator": name, "pilots": "comb-4", "snr_db": 10.0, "nmse_db": -9.5} for name in (BOTH, LS)],
        pictures={"comb-4": {"channel": h, LS: -h, BOTH: 0.9 * h, "another": h}},
    )
    shown = channel_section(measured, "comb-4")
    assert re.findall(r'alt="error of ([^"]*)"', shown.figures[2]) == [BOTH, LS]
    assert re.findall(r"<br>([\d.]+) %", shown.figures[2]) == ["5", "100"]  # |h| is 0.5
    assert "-9.5 dB over all draws" in shown.figures[1]


def test_a_missing_runtime_is_said_before_anything_is_trained(monkeypatch):
    monkeypatch.setattr(channel_estimation, "runtime_installed", lambda: False)
    with pytest.raises(ImportError, match="export"):
        channel_estimation.study(quick=False, seed=0, watch=lambda _: pytest.fail("something is drawn or trained"))


def test_the_seed_of_a_study_is_that_of_its_networks():
    problem = OFDMChannel("kronecker:array=2x2,subcarriers=12", "comb-2", snr_db=(0.0, 20.0))
    found = [Methods(problem, TINY, seed, lambda _: lambda _: None).networks(problem)[MIXER] for seed in (0, 0, 1)]
    first, same, other = (net.stages[0].to_beams for net in found)
    assert torch.equal(first, same)
    assert (first - other).abs().max() > 0.1  # one step moves a weight by less
