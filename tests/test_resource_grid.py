"""Channels go to the field's shape and back, and users on orthogonal pilots are told apart."""

import pytest
import torch

import fanfold as ff
from fanfold.estimators.ofdm import ChannelCovariance, Wiener
from fanfold.problems.radio.resource_grid import estimates_in_field, field_of, links_of, observations_of, pilot_grid
from fanfold.propagation import pilot_mask

BATCH, RX, ANTENNAS, TX, STREAMS, SYMBOLS, SUBCARRIERS = SHAPE = (3, 2, 4, 2, 2, 2, 12)


def channels(seed=0, shape=SHAPE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.complex64)


def pilots_of(modulus=1.0):
    """QPSK on a comb of its own for each of four streams."""
    generator = torch.Generator().manual_seed(1)
    masks = [pilot_mask(f"comb-4:offset={k}@0,1", SYMBOLS, SUBCARRIERS) for k in range(TX * STREAMS)]
    turns = torch.randint(4, (len(masks), SYMBOLS, SUBCARRIERS), generator=generator)
    pilots = modulus * torch.stack(masks) * torch.exp(0.5j * torch.pi * (turns + 0.5))
    return pilots.reshape(TX, STREAMS, SYMBOLS, SUBCARRIERS)


def received(H, pilots):
    return torch.einsum("brmtskf,tskf->brmkf", H, pilots)


def test_links_go_to_the_field_and_back():
    H = channels()
    links = links_of(H)
    assert torch.equal(field_of(links, SHAPE), H)
    assert torch.equal(links[5], H[0, 1, :, 0, 1].flatten())  # batch, rx, tx and stream, the last one fastest


@pytest.mark.parametrize("modulus", [1.0, 2.0])
def test_every_user_has_its_own_channel_at_its_pilots(modulus):
    H, pilots = channels(), pilots_of(modulus)
    found = observations_of(received(H, pilots), pilots)
    for (tx, stream), obs in found.items():
        x = links_of(H[:, :, :, tx : tx + 1, stream : stream + 1])
        torch.testing.assert_close(obs.y, obs.A @ x)  # rounding of a product and a quotient
        mask = pilot_mask(f"comb-4:offset={2 * tx + stream}@0,1", SYMBOLS, SUBCARRIERS)
        assert obs.A.m == ANTENNAS * mask.sum()
    assert len(found) == TX * STREAMS


def test_the_noise_of_a_division_by_pilots_is_told():
    pilots, noise_var = pilots_of(2.0), torch.rand(BATCH, RX, generator=torch.Generator().manual_seed(0))
    obs = observations_of(received(channels(), pilots), pilots, noise_var)[1, 0]
    torch.testing.assert_close(obs.noise_var, noise_var.reshape(-1, 1) / 4)
    many = torch.zeros(200, 1, 16, SYMBOLS, SUBCARRIERS, dtype=torch.complex64)
    many = many + ff.noise.circular(tuple(many.shape), torch.Generator().manual_seed(2), many.dtype, 0.3)
    obs = observations_of(many, pilots, 0.3)[0, 0]
    power = obs.y.abs().square()
    assert abs(power.mean() / obs.noise_var - 1) < 4 / power.numel() ** 0.5  # |w|² is exponential: its std is its mean


def test_estimates_go_back_as_the_receiver_takes_them():
    problem = ff.problems.OFDMChannel("rayleigh:array=4,subcarriers=12")
    H = problem.sample(BATCH * RX * 4, torch.Generator().manual_seed(0))[0]
    shape = (BATCH, RX, ANTENNAS, 4, 1, 1, SUBCARRIERS)
    H = field_of(H, shape)
    names = [f"comb-4:offset={k}" for k in range(4)]
    pilots = torch.stack([pilot_mask(name, 1, SUBCARRIERS) for name in names])[:, None].to(torch.complex64)
    covariance = ChannelCovariance.of(problem, 500)
    estimates = {}
    for (tx, stream), obs in observations_of(received(H, pilots), pilots, 0.1).items():
        estimates[tx, stream] = Wiener.of(problem.shifted(pilots=names[tx]), covariance)(obs)
    h_hat, err_var = estimates_in_field(estimates, shape)
    assert h_hat.shape == err_var.shape == shape
    assert torch.equal(h_hat[1, 1, :, 2, 0].flatten(), estimates[2, 0].x[1 * RX + 1])
    assert torch.equal(err_var[1, 1, :, 2, 0].flatten(), estimates[2, 0].var[1 * RX + 1])


def test_pilots_of_sionna_are_where_its_mapper_puts_them():
    ofdm = pytest.importorskip("sionna.phy.ofdm")
    grid = ofdm.ResourceGrid(14, 24, 30e3, 4, 1, pilot_pattern="kronecker", pilot_ofdm_symbol_indices=[2, 11])
    pattern = grid.pilot_pattern
    ours = pilot_grid(pattern.mask, pattern.pilots)
    data = torch.zeros(1, 4, 1, grid.num_data_symbols, dtype=torch.complex64)
    assert torch.equal(ours, ofdm.ResourceGridMapper(grid)(data)[0])
    H = channels(shape=(2, 1, 4, 4, 1, 14, 24))
    found = observations_of(received(H, ours), ours, 0.1)
    assert torch.allclose(found[3, 0].noise_var, torch.tensor(0.1 / 4))  # each sends on every fourth subcarrier only
    torch.testing.assert_close(found[3, 0].y, found[3, 0].A @ links_of(H[:, :, :, 3:]))


def test_what_does_not_fit_is_said():
    H, pilots = channels(), pilots_of()
    grid = received(H, pilots)
    with pytest.raises(ValueError, match="two streams"):
        observations_of(grid, torch.ones_like(pilots))
    with pytest.raises(ValueError, match="stream 1 of transmitter 0 has no pilots"):
        observations_of(grid, pilots * torch.tensor([1, 0])[:, None, None])
    with pytest.raises(ValueError, match="powers from"):
        observations_of(grid, pilots * torch.arange(1, 13))
    with pytest.raises(ValueError, match="pilots have shape"):
        observations_of(grid, pilots[..., :6])
    with pytest.raises(ValueError, match="noise_var has shape"):
        observations_of(grid, pilots, torch.ones(BATCH))
    with pytest.raises(ValueError, match="complex"):
        observations_of(grid.real, pilots)
    with pytest.raises(ValueError, match="rx_ant"):
        links_of(H[0])
    with pytest.raises(ValueError, match="has links"):
        field_of(links_of(H)[:-1], SHAPE)
    with pytest.raises(ValueError, match="as many set entries"):
        pilot_grid(pilots != 0, torch.ones(TX, STREAMS, 5))
    estimates = {key: ff.Estimate(obs.y) for key, obs in observations_of(grid, pilots).items()}
    with pytest.raises(ValueError, match="no error variance"):
        estimates_in_field(estimates, SHAPE)
    with pytest.raises(ValueError, match=r"\(1, 1\)"):
        estimates_in_field({k: v for k, v in estimates.items() if k != (1, 1)}, SHAPE)
