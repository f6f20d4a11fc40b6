"""An uplink obeys theory where there is some, and better channel estimates lose fewer blocks."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from fanfold.core.noise import circular
from fanfold.core.table import Table
from fanfold.estimators.ofdm import ChannelCovariance, Interpolation, Wiener
from fanfold.evaluation.link import PERFECT, SLOT_SYMBOLS, Uplink, lmmse_equalise, simulate
from fanfold.experiments.channels.channel_methods import BOTH, LS
from fanfold.experiments.channels.link_level import QUICK, crossing, goals_of, needs, rayleigh_ber, verdict
from fanfold.propagation.models import Jakes

MOVING = "jakes:array=1x2x4,subcarriers=24,frequency=0.97,speed_mps=50"


def test_the_equaliser_is_that_of_sionna():
    mimo = pytest.importorskip("sionna.phy.mimo")
    generator = torch.Generator().manual_seed(0)
    h, y = circular((50, 8, 3), generator, torch.complex64), circular((50, 8), generator, torch.complex64)
    noise = 0.1 + torch.rand(50, 8, generator=generator)
    x, var = lmmse_equalise(y, h, noise)
    theirs, their_var = mimo.lmmse_equalizer(y, h, torch.diag_embed(noise).to(y.dtype))
    torch.testing.assert_close(x, theirs, rtol=1e-3, atol=1e-3)  # two inverses in single precision
    torch.testing.assert_close(var, their_var, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("antennas", [1, 2, 4])
def test_the_closed_form_is_the_mean_over_fading(antennas):
    generator = torch.Generator().manual_seed(1)
    gain = circular((200_000, antennas), generator, torch.complex128).abs().square().sum(1)
    for snr in (0.5, 2.0):
        p = torch.special.erfc((gain * snr / 2).sqrt()) / 2  # of a bit of QPSK
        assert rayleigh_ber(snr, antennas) == pytest.approx(p.mean().item(), abs=4 * p.std().item() / len(p) ** 0.5)


def test_bits_of_a_known_rayleigh_channel_fail_as_theory_says():
    pytest.importorskip("sionna.phy")
    link = Uplink("rayleigh:array=1x1x2,subcarriers=24", users=1, channels_a_round=200)
    for row in simulate(link, {}, [0.0, 5.0], 1, 3):
        wanted = rayleigh_ber(10 ** (row["snr_db"] / 10), 2)
        assert row["ber"] == pytest.approx(wanted, abs=2 * row["ber_ci"])  # 3.9 standard deviations


def test_a_moving_slot_with_lmmse_loses_fewer_blocks_than_with_least_squares():
    pytest.importorskip("sionna.phy")
    link = Uplink(MOVING, users=2, channels_a_round=96)
    model = link.problems[0].channels
    assert isinstance(model, Jakes)
    time, frequency = model.correlations()[-2:]
    covariance = ChannelCovariance(torch.eye(8, dtype=torch.complex128), torch.kron(time, frequency))
    makers = {"LS": Interpolation.of, "LMMSE": lambda p: Wiener.of(p, covariance, "grid", known_power=True)}
    table = simulate(link, link.estimators(makers), [-2.0], 1, 0)
    ber, bler = ({row["estimate"]: row[key] for row in table} for key in ("ber", "bler"))
    assert ber[PERFECT] < ber["LMMSE"] < ber["LS"]
    assert bler[PERFECT] <= bler["LMMSE"] < bler["LS"]


def test_pilots_are_taken_off_the_efficiency():
    link = Uplink("umi", users=4)
    assert link.efficiency(0.0) == pytest.approx(4 * 2 * 0.5 * 13 / 14)  # users, bits, rate, symbols with data
    assert link.efficiency(0.25) == pytest.approx(0.75 * link.efficiency(0.0))
    assert Uplink(MOVING, users=2, bits=4).efficiency(0.0) == pytest.approx(2 * 4 * 0.5 * 12 / 14)


def test_where_a_curve_crosses():
    assert crossing([(0.0, 4.0), (2.0, 2.0), (4.0, 0.0)], 1.0) == pytest.approx(3.0)
    assert crossing([(0.0, 4.0), (2.0, 2.0)], 1.0) == math.inf
    assert crossing([(0.0, 0.5), (2.0, 0.1)], 1.0) == -math.inf
    rows = [{"estimate": "a", "snr_db": s, "bler": b, "blocks": 100} for s, b in ((0.0, 1.0), (1.0, 0.01))]
    assert needs(Table(rows))["a"] == pytest.approx(math.log(0.1) / math.log(0.01))


def test_what_a_curve_that_does_not_cross_would_tell_is_a_goal_missed():
    crossed = {LS: -2.0, BOTH: -6.0, "Kronecker-GMM, 6": -6.2, PERFECT: -11.0}
    assert all(goal.passed for goal in goals_of(crossed, 2, QUICK))
    for name in crossed:
        for side in (math.inf, -math.inf):
            assert not all(goal.passed for goal in goals_of(crossed | {name: side}, 2, QUICK))
    assert "more than the highest" in verdict(crossed | {LS: math.inf})


@pytest.mark.parametrize(
    "wrong",
    [
        {"users": 0},
        {"channels_a_round": 3},
        {"bits": 3},
        {"rate": 1.0},
        {"at": (2, 2)},
        {"at": (14,)},
        {"iterations": 0},
    ],
)
def test_a_link_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="|".join(wrong)):
        Uplink("umi", **wrong)


def test_one_slot_has_no_interval():
    pytest.importorskip("sionna.phy")
    with pytest.raises(ValueError, match="takes two"):
        simulate(Uplink("rayleigh:array=1x1x2,subcarriers=24", users=1, channels_a_round=1), {}, [0.0], 1, 0)


def test_too_few_test_channels_or_no_rounds_are_said(tmp_path):
    pytest.importorskip("sionna.phy")
    H = circular((20, 2, 24), torch.Generator().manual_seed(0), torch.complex64)
    np.savez(tmp_path / "few.npz", H=H.numpy())
    with pytest.raises(ValueError, match="keeps 2 channels for testing, 4 users"):
        simulate(Uplink(f"{tmp_path}/few.npz"), {}, [0.0], 5, 0)
    for rounds, snrs_db in ((0, [0.0]), (1, [])):
        with pytest.raises(ValueError, match="at least one"):
            simulate(Uplink("umi"), {}, snrs_db, rounds, 0)


def test_slots_are_counted_while_they_are_sent():
    pytest.importorskip("sionna.phy")
    told = []
    simulate(
        Uplink("rayleigh:array=1x1x2,subcarriers=24", users=1, channels_a_round=4), {}, [0.0, 3.0], 2, 0, told.append
    )
    assert [(event.done, event.total) for event in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_source_of_other_symbols_is_said():
    with pytest.raises(ValueError, match=f"7 symbols; a slot has {SLOT_SYMBOLS}"):
        Uplink("rayleigh:array=1x1x2,symbols=7,subcarriers=24")


def test_the_page_runs_and_prints_what_it_says(capsys):
    pytest.importorskip("sionna.phy")
    page = (Path(__file__).parent.parent / "docs/link-level.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict = {}
    for block in blocks:
        exec(block, names)
    said = re.findall(r"^print\(.*\)  # (.*)$", "".join(blocks), re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == said
