"""Patterns of pilots are those of the standard and say what is wrong with others."""

import os

import numpy as np
import pytest
import torch

from fanfold.problems import OFDMChannel
from fanfold.propagation import pilot_mask
from fanfold.propagation.pilots import gold_qpsk


def columns(name, subcarriers=24, symbols=1):
    return pilot_mask(name, symbols, subcarriers).any(0).nonzero().flatten().tolist()


def rows(name, symbols=14, subcarriers=24):
    return pilot_mask(name, symbols, subcarriers).any(1).nonzero().flatten().tolist()


@pytest.mark.parametrize("spacing", [1, 2, 3, 4, 6, 12])
def test_a_comb_is_every_so_many_subcarriers_of_the_first_symbol(spacing):
    assert columns(f"comb-{spacing}") == list(range(0, 24, spacing))
    assert rows(f"comb-{spacing}") == [0]
    assert rows(f"comb-{spacing}@2,11") == [2, 11]


@pytest.mark.parametrize("name", ["comb-4:offset=", "srs-2:offset=", "srs-4:offset=", "srs-8:offset=", "dmrs-1:group="])
def test_the_combs_of_all_offsets_share_the_band_without_a_rest(name):
    spacing = 2 if "dmrs" in name else int(name[name.index("-") + 1])
    masks = [pilot_mask(f"{name}{k}@0", 1, 48) for k in range(spacing)]
    assert torch.stack(masks).sum(0).eq(1).all()


def test_type_2_is_pairs_of_neighbours_and_its_three_groups_share_the_band():
    assert columns("dmrs-2") == [0, 1, 6, 7, 12, 13, 18, 19]
    assert columns("dmrs-2:group=1", 12) == [2, 3, 8, 9]
    assert torch.stack([pilot_mask(f"dmrs-2:group={k}", 1, 24) for k in range(3)]).sum(0).eq(1).all()


def test_where_a_slot_has_its_reference_signals():
    assert rows("dmrs-1") == [2]
    assert rows("dmrs-2:group=1@2,11") == [2, 11]
    assert rows("srs-4") == [13]
    assert all(rows(name, symbols=1) == [0] for name in ("comb-2", "dmrs-1", "dmrs-2", "srs-2"))


@pytest.mark.parametrize("kind", [1, 2])
@pytest.mark.parametrize("group", [0, 1])
@pytest.mark.parametrize(("length", "additional"), [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1)])
def test_dmrs_is_that_of_sionna(kind, group, length, additional):
    nr = pytest.importorskip("sionna.phy.nr")
    config = nr.PUSCHConfig()
    config.carrier.n_size_grid = 4
    config.symbol_allocation = [0, 14]
    config.dmrs.type_a_position = 2
    config.dmrs.config_type, config.dmrs.length = kind, length
    config.dmrs.additional_position = additional
    config.dmrs.num_cdm_groups_without_data = 2
    config.dmrs.dmrs_port_set = [2 * group]
    theirs = torch.from_numpy(np.abs(config.dmrs_grid[0]).T > 0)
    ours = pilot_mask(f"dmrs-{kind}:group={group},length={length},additional={additional}", 14, 48)
    assert torch.equal(ours, theirs)


def test_a_mask_of_ones_own_is_taken_as_it_is(tmp_path):
    mask = np.random.default_rng(0).random((1, 24)) < 0.3
    np.save(tmp_path / "mask.npy", mask)
    assert np.array_equal(pilot_mask(str(tmp_path / "mask.npy"), 1, 24).numpy(), mask)
    problem = OFDMChannel(pilots=str(tmp_path / "mask.npy"))
    assert problem.sample(3, torch.Generator().manual_seed(0))[1].y.shape == (3, 32 * mask.sum())


def test_a_mask_that_is_written_anew_is_read_anew(tmp_path):
    file, mask = tmp_path / "mask.npy", np.zeros((1, 24), dtype=bool)
    mask[0, ::4] = True
    np.save(file, mask)
    before = OFDMChannel(pilots=str(file)).A.m
    mask[0, ::2] = True
    np.save(file, mask)
    os.utime(file, ns=(1, 1))  # whatever the clock's resolution
    assert OFDMChannel(pilots=str(file)).A.m == 2 * before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("combs-2", "dmrs-1, dmrs-2, srs-2.*Did you mean 'comb-2'"),
        ("comb-0", "unknown pilots"),
        ("comb", "unknown pilots"),
        ("dmrs-3", "unknown pilots"),
        ("srs-3", "unknown pilots"),
        ("comb-24", "nothing to interpolate"),
        ("comb-99", "nothing to interpolate"),
        ("srs-8:offset=8", "offset is 8; it is from 0 to 7"),
        ("dmrs-1:group=2", "group is 2"),
        ("dmrs-1:length=0", "from 1 to 2"),
        ("dmrs-1:additional=4", "additional is 4"),
        ("dmrs-1:offset=1", "no option offset"),
        ("comb-2:offset", "written offset=1"),
        ("comb-2:offset=-1", "written offset=1"),
        ("comb-2@14", "on symbol 14, but there are 14"),
        ("comb-2@", "written @2,11"),
        ("comb-2@2,x", "written @2,11"),
    ],
)
def test_what_is_no_pattern_is_said(name, said):
    with pytest.raises(ValueError, match=said):
        pilot_mask(name, 14, 24)


def test_symbols_that_a_short_grid_lacks_are_said():
    with pytest.raises(ValueError, match="slot of 14"):
        pilot_mask("dmrs-1:additional=1", 7, 24)
    with pytest.raises(ValueError, match="on symbol 2"):
        pilot_mask("dmrs-1@2", 1, 24)


def test_a_mask_that_does_not_fit_is_said(tmp_path):
    file = tmp_path / "mask.npy"
    for mask, said in (
        (np.ones((2, 24), bool), r"bool, \(1, 24\)"),
        (np.ones((1, 24)), "float64"),
        (np.zeros((1, 24), bool), "no pilot"),
        (np.arange(24)[None] == 3, "subcarrier 3 only"),
    ):
        np.save(file, mask)
        with pytest.raises(ValueError, match=said):
            pilot_mask(str(file), 1, 24)
    file.write_bytes(b"short")
    with pytest.raises(ValueError, match="cannot be read"):
        pilot_mask(str(file), 1, 24)
    with pytest.raises(ValueError, match="there is no file"):
        pilot_mask("nowhere.npy", 1, 24)


def test_subcarriers_are_taken_one_by_one():
    assert columns("0,5,23") == [0, 5, 23]
    assert rows("0,5,23@2,11") == [2, 11]


@pytest.mark.parametrize("initial", [1, 12345, 2**31 - 1])
def test_pilot_symbols_are_the_gold_sequence_of_sionna(initial):
    utils = pytest.importorskip("sionna.phy.nr.utils")
    bits = torch.as_tensor(np.asarray(utils.generate_prng_seq(200, initial)), dtype=torch.float32)
    signs = torch.view_as_real(gold_qpsk(100, initial)).flatten().sign()
    assert torch.equal(signs, 1 - 2 * bits)
    with pytest.raises(ValueError, match="31 bits"):
        gold_qpsk(1, 2**31)
