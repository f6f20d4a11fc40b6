"""Channels of TR 38.901: Sionna's, told by the seed, of unit power, with the delays, Doppler and array asked for."""

import math
import sys

import numpy as np
import pytest
import torch
from scipy.special import j0

pytest.importorskip("sionna")

from fanfold.adapters.sionna import SCENARIOS, _arrays, profile_paths, sionna_at
from fanfold.propagation import Dataset, source_of
from fanfold.propagation.drawing import draw_channels, shard_seed
from fanfold.propagation.models import LIGHT
from fanfold.propagation.settings import said
from fanfold.propagation.sources import files_of_source
from fanfold.propagation.statistics import delay_spread_ns
from fanfold.propagation.tr38901 import MODELS, TR38901

EPS = torch.finfo(torch.float32).eps
TINY = {"array": (1, 1, 2), "subcarriers": 4}


@pytest.mark.parametrize("model", MODELS)
def test_every_model_draws_unit_power_told_by_its_seed(model):
    recipe = TR38901(model, **TINY)
    h, power = recipe.make(4, 5)
    assert h.shape == (4, 2, 1, 4)
    assert h.dtype == torch.complex64
    assert ((h.abs() ** 2).mean((1, 2, 3)) - 1).abs().max() < 100 * EPS
    assert power > 0
    assert torch.equal(recipe.make(4, 5)[0], h)
    assert not torch.equal(recipe.make(4, 6)[0], h)


def test_drawing_leaves_random_numbers_elsewhere_as_they_were():
    import sionna.phy

    config = sionna.phy.config
    config.seed = 9
    torch.manual_seed(1)
    expected = torch.rand(3), torch.rand(3, generator=config.torch_rng("cpu")), config.np_rng.random()
    config.seed = 9
    torch.manual_seed(1)
    TR38901("umi", **TINY).make(2, 0)
    assert torch.equal(torch.rand(3), expected[0])
    assert torch.equal(torch.rand(3, generator=config.torch_rng("cpu")), expected[1])
    assert config.np_rng.random() == expected[2]
    assert config.seed == 9


def test_the_response_is_that_of_sionna():
    from sionna.phy.channel import cir_to_ofdm_channel, subcarrier_frequencies

    recipe = TR38901("tdl-c", array=(1, 1, 3), symbols=2, subcarriers=17, spacing_khz=60)
    g = torch.Generator().manual_seed(0)
    gains = torch.randn(5, 3, 6, 2, dtype=torch.complex64, generator=g)
    delays = 1e-6 * torch.rand(5, 6, generator=g)
    a, tau = gains[:, None, :, None, None], delays[:, None, None]
    theirs = cir_to_ofdm_channel(subcarrier_frequencies(17, 60e3, device="cpu"), a, tau)[:, 0, :, 0, 0]
    # phases of up to 2π 480 kHz 1 µs = 3 rad to the precision of a float, six paths of a few units
    assert (recipe.response(gains, delays) - theirs).abs().max() < 6 * 4 * 10 * EPS


def test_antennas_are_by_panel_polarisation_column_and_row():
    recipe = TR38901("cdl-a", array=(2, 3, 4), panels=(2, 5), panel_gap=1.5)
    assert recipe.layout.array == (2, 5, 2, 3, 4)
    with sionna_at(0):
        array = _arrays(recipe)["bs_array"]
        place = array.ant_pos.reshape(2, 5, 2, 3, 4, 3) / (LIGHT / 3.5e9)  # in wavelengths
        assert array.num_ant == recipe.layout.antennas
    expected = {0: (1, 1.0 + 1.5), 1: (2, -(1.5 + 1.5)), 2: (1, 0.0), 3: (1, 0.5), 4: (2, -0.5)}  # y and z of a step
    for axis, (coordinate, step) in expected.items():
        moved = place.diff(dim=axis)
        assert torch.allclose(moved[..., coordinate], torch.tensor(step), atol=1e-4)
        assert torch.allclose(moved[..., 3 - coordinate], torch.tensor(0.0), atol=1e-4)


def test_delays_are_those_of_theprofile_paths():
    """Of the standard's table 7.7.2-1 (TDL-A), times 300 ns: the correlation of subcarriers is its transform."""
    from sionna.phy.channel.tr38901 import TDL

    draws = 4000
    recipe = TR38901("tdl-a", array=(1, 1, 1), subcarriers=8, delay_spread_ns=300.0)
    with sionna_at(1) as sionna, torch.no_grad():
        a, tau = TDL("A", 300e-9, 3.5e9)(draws, 1, 1.0)
        h = recipe.response(a[:, 0, :, 0, 0], tau[:, 0, 0])[:, 0, 0]
        profile = TDL("A", 300e-9, 3.5e9)
        power, delays = profile.mean_powers, profile.delays
        assert sionna.config.device == "cpu"
    lags = torch.arange(8) * 30e3
    expected = (power * torch.polar(torch.ones(()), -2 * math.pi * lags[:, None] * delays.reshape(-1))).sum(-1)
    sample = (h[:, :1].conj() * h).mean(0)
    assert (sample - expected).abs().max() < 5 * (2 / draws) ** 0.5  # entries of variance 2 at most, as of Rayleigh's
    whole = TR38901("tdl-a", delay_spread_ns=300.0, subcarriers=4).make(300, 0)[0].to(torch.complex128)
    # 300 draws of 64 independent antennas
    assert delay_spread_ns(whole, recipe.layout) == pytest.approx(300, rel=5 * 2 / (300 * 64) ** 0.5)


def test_delays_of_a_cluster_model_grow_with_the_spread_asked_for():
    spreads = [
        delay_spread_ns(recipe.make(200, 0)[0].to(torch.complex128), recipe.layout)
        for recipe in (TR38901("cdl-a", subcarriers=12, array=(1, 1, 1), delay_spread_ns=ns) for ns in (100.0, 300.0))
    ]
    # each draw has unit power and elements look ahead, so that it is not that of the profile: but it is proportional
    assert spreads[1] == pytest.approx(3 * spreads[0], rel=0.2)


def test_a_recipe_is_made_again_from_its_manifest():
    import json

    recipe = TR38901("inh", array=(1, 2, 2), speed_mps=(1.0, 2.0), panels=(1, 2))
    again = TR38901(**json.loads(json.dumps(recipe.describe())))
    assert again == recipe
    assert hash(again) == hash(recipe)


def test_doppler_is_that_of_the_speed():
    recipe = TR38901("tdl-b", array=(1, 1, 8), symbols=14, subcarriers=1, speed_mps=60.0, spacing_khz=15)
    h = recipe.make(500, 3)[0][..., 0]  # 500 draws of eight antennas, which share the angles of a draw's waves
    sample = (h[..., :1].conj() * h).mean((0, 1)) / h.abs().square().mean()
    angle = 2 * math.pi * 60 * 3.5e9 / LIGHT * 1e-3 / 14 * np.arange(14)
    assert np.abs(sample.numpy() - j0(angle)).max() < 5 * (2 / 500) ** 0.5
    still = TR38901("umi", array=(1, 1, 2), symbols=14, subcarriers=2, speed_mps=0.0).make(3, 0)[0]
    assert torch.allclose(still, still[:, :, :1].expand_as(still), atol=100 * EPS)
    for model in (*SCENARIOS, "cdl-a"):
        moving = TR38901(model, array=(1, 1, 2), symbols=14, subcarriers=2, speed_mps=(50.0, 60.0)).make(3, 0)[0]
        assert (moving - moving[:, :, :1]).abs().mean() > 0.01


def test_neighbours_of_a_tapped_delay_line_are_correlated_as_asked():
    draws, rho = 3000, 0.8
    recipe = TR38901("tdl-a", array=(2, 1, 3), correlation=rho)
    with sionna_at(0) as sionna, torch.no_grad():  # before each draw is scaled, which moves correlations
        gains, _ = profile_paths(recipe, sionna)(draws)
    h = gains.sum(2).to(torch.complex128).reshape(draws, 2, 3)
    sample = torch.einsum("bpr,bqs->prqs", h, h.conj()) / draws
    p, r = torch.arange(2), torch.arange(3)
    expected = torch.einsum("pq,rs->prqs", rho ** (p[:, None] - p).abs(), rho ** (r[:, None] - r).abs())
    assert (sample - expected).abs().max() < 6 * (1 / draws) ** 0.5  # Gaussian entries: deviations of 1 / sqrt(draws)


@pytest.mark.parametrize("model", SCENARIOS)
def test_the_line_of_sight_shortens_delays(model):
    spreads = []
    for sight in ("force", "forbid"):
        recipe = TR38901(model, array=(1, 1, 2), subcarriers=8, line_of_sight=sight)
        drawn = recipe.make(200, 0)[0].to(torch.complex128)
        spreads.append(np.median([delay_spread_ns(h[None], recipe.layout) for h in drawn]))
    # at 3.5 GHz medians of the standard's table 7.5-6 differ by factors of 2 (UMi, InH) and 4 (UMa); the median of 200
    # draws of a deviation of up to a factor of 4 deviates by 12 %
    assert spreads[0] < 0.7 * spreads[1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "umj"}, "Did you mean 'umi'"),
        ({"array": (3, 1, 1)}, "1 or 2 polarisations"),
        ({"array": (1, 0, 1)}, "empty"),
        ({"panels": (0, 1)}, "positive"),
        ({"panel_gap": 0.0}, "positive"),
        ({"symbols": 15}, "a slot has 14"),
        ({"spacing_khz": 45}, "15, 30, 60 or 120"),
        ({"speed_mps": (3.0, 1.0)}, "range from a lower"),
        ({"delay_spread_ns": 100.0}, "umi draws its own"),
        ({"model": "cdl-a", "delay_spread_ns": -1.0}, "positive"),
        ({"model": "cdl-a", "line_of_sight": "force"}, "profiles D and E have one"),
        ({"model": "umi", "correlation": 0.5}, "tdl-a to tdl-c"),
        ({"model": "tdl-a", "correlation": 1.0}, "below 1"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        TR38901(**settings)


def test_a_dataset_is_drawn_shard_by_shard_from_seeds_of_their_own(tmp_path):
    recipe = TR38901("inh", **TINY)
    kept = draw_channels(recipe, 30, tmp_path / "inh", seed=4, shard_draws=20)
    assert isinstance(kept, Dataset)
    assert kept.layout == recipe.layout == source_of(str(tmp_path / "inh")).layout
    second = recipe.make(10, shard_seed(4, 1))[0]
    assert (kept.read(torch.arange(20, 30)) - second).abs().max() < 2.0**-11 * second.abs().max()
    assert kept.manifest["drawn_by"].keys() == {"sionna-no-rt"}
    assert TR38901(**kept.manifest["recipe"]).describe() == recipe.describe()


def test_without_sionna_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sionna", None)
    monkeypatch.setitem(sys.modules, "sionna.phy", None)
    with pytest.raises(ImportError, match=r"pip install 'fanfold\[channels\]'"):
        TR38901("umi").make(1, 0)


# Drawn as they are asked for


def test_a_source_of_the_standard_draws_as_it_is_asked():
    source = source_of("tr38901:model=tdl-a,array=1x1x2,subcarriers=12,spacing_khz=60")
    assert source.layout.spacing_hz == 60e3
    one, two, other = (source.draw(3, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert one.shape == (3, 2, 1, 12)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    torch.testing.assert_close(one.abs().square().mean((1, 2, 3)), torch.ones(3))
    assert files_of_source("tr38901:model=tdl-a,array=1x1x2 + umi") == []


@pytest.mark.parametrize(
    "recipe",
    [
        TR38901(),
        TR38901("cdl-c", symbols=4, speed_mps=(1e-7, 2.5), delay_spread_ns=33.3),
        TR38901("uma", panels=(2, 1), spacing_khz=120, carrier_ghz=28.0, line_of_sight="force"),
    ],
)
def test_a_name_says_all_settings(recipe):
    assert source_of(f"tr38901:{said(recipe)}") == recipe


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tr38901:modell=umi", "has no setting 'modell'"),
        ("tr38901:model=umx", "unknown model 'umx'"),
        ("tr38901:spacing_khz=31", "pass 15 or 30 or 60 or 120"),
        ("tr38901:speed_mps=fast", "speed_mps is 'fast'"),
    ],
)
def test_a_name_with_wrong_settings_is_refused(name, says):
    with pytest.raises(ValueError, match=says):
        source_of(name)
