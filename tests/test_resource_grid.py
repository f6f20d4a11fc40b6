"""Links and grids are one another's views, and a whole slot of several moving users is estimated from its pilots."""

import pytest
import torch

from fanfold.estimators.ofdm import ChannelCovariance, Interpolation, Wiener
from fanfold.estimators.ofdm.resource_grid import GridEstimator
from fanfold.noise import circular
from fanfold.observation import Estimate
from fanfold.problems import OFDMChannel
from fanfold.propagation import source_of
from fanfold.propagation.grid import GridPilots, GridShape, from_links, to_links
from fanfold.units import nmse_db

SHAPE = GridShape(2, 3, 4, 2, 2, 5, 6)
MOVING = (
    "jakes:array=1x1x2,subcarriers=12,frequency=0.99,speed_mps=60"  # J0 falls to .46 between pilots 9 symbols apart
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_links_and_grid_are_the_same_numbers():
    h = circular(tuple(SHAPE), generator(), torch.complex64)
    links = to_links(h)
    assert links.shape == (2 * 3 * 2 * 2, 4 * 5 * 6)
    assert torch.equal(from_links(links, SHAPE), h)
    assert torch.equal(links[((1 * 3 + 2) * 2 + 1) * 2 + 0], h[1, 2, :, 1, 0].flatten())


def test_least_squares_without_noise_is_the_channel_at_the_pilots():
    pilots = GridPilots(2j * GridPilots.combs(4, 14, 12).values)
    h = circular((3, 1, 2, 4, 1, 14, 12), generator(), torch.complex64)
    y = (h * pilots.values).sum((3, 4))
    for k, (at_pilots, var) in enumerate(pilots.least_squares(y, torch.tensor([1.0, 2.0, 4.0]))):
        wanted = h[:, 0, :, k, 0][..., pilots.masks[k]].flatten(1)
        torch.testing.assert_close(at_pilots, wanted)
        assert var.flatten().tolist() == [0.25, 0.5, 1.0]


def test_combs_are_those_of_sionna():
    ofdm = pytest.importorskip("sionna.phy.ofdm")
    grid = ofdm.ResourceGrid(14, 24, 30e3, 4, 1, pilot_pattern="kronecker", pilot_ofdm_symbol_indices=[2, 11])
    theirs = torch.zeros(4, 14, 24, dtype=torch.bool)
    sent = torch.as_tensor(grid.pilot_pattern.pilots).reshape(4, 2, 24).abs() > 0
    theirs[:, [2, 11]] = sent.cpu()
    pilots = GridPilots.combs(4, 14, 24)
    assert torch.equal(pilots.masks, theirs)
    assert pilots.overhead == pytest.approx(2 / 14)


def slots(users, n, noise_var):
    pilots = GridPilots.combs(users, 14, 12)
    h = source_of(MOVING).draw(n * users, generator()).unflatten(0, (n, users))  # (n, users, antennas, 14, 12)
    h = h.permute(0, 2, 1, 3, 4)[:, None, :, :, None]  # [batch, rx, rx_ant, tx, stream, symbol, subcarrier]
    y = (h * pilots.values).sum((3, 4))
    return pilots, h, y + circular(tuple(y.shape), generator(1), y.dtype, torch.tensor(noise_var))


def of_each(users, make):
    problems = [OFDMChannel(MOVING, f"comb-{users}:offset={k}@2,11") for k in range(users)]
    return [make(problem) for problem in problems]


def test_a_slot_of_two_moving_users_is_estimated_with_the_error_that_is_told():
    model = source_of(MOVING)
    space, time, frequency = torch.eye(2, dtype=torch.complex128), *model.correlations()[-2:]
    covariance = ChannelCovariance(space, torch.kron(time, frequency))
    pilots, h, y = slots(2, 400, 0.05)
    estimator = GridEstimator(pilots, of_each(2, lambda p: Wiener(p, covariance, "grid", known_power=True)))
    h_hat, err_var = estimator(y, 0.05)
    assert h_hat.shape == err_var.shape == h.shape
    assert h_hat.dtype == h.dtype
    error = (h_hat - h).abs().square()
    # 1600 independent links, each with an error of some 10 independent modes: 1/sqrt(16000) = .8 %, five times that
    assert (error / err_var).mean().item() == pytest.approx(1, abs=0.04)
    linear, _ = GridEstimator(pilots, of_each(2, Interpolation))(y, 0.05)
    assert nmse_db(h_hat, h) < nmse_db(linear, h) - 1  # it knows how fast the channel turns


def test_wrong_grids_are_said():
    pilots = GridPilots.combs(2, 14, 12)
    for wrong, said in (
        (pilots.values.real, "float32"),
        (pilots.values.sum(0, keepdim=True).expand(2, -1, -1, -1), "symbol 2, subcarrier 0"),
        (pilots.values * torch.tensor([1.0, 0.0])[:, None, None, None], "stream 1 has no pilot"),
        (pilots.values * torch.linspace(1, 2, 12), "magnitudes"),
    ):
        with pytest.raises(ValueError, match=said):
            GridPilots(wrong)
    with pytest.raises(ValueError, match="seven axes"):
        to_links(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="links of shape"):
        from_links(torch.zeros(2, 3), SHAPE)
    with pytest.raises(ValueError, match=r"\(14, 12\)"):
        pilots.least_squares(torch.zeros(1, 1, 2, 14, 24, dtype=torch.complex64), 0.1)
    with pytest.raises(ValueError, match="one for each"):
        GridEstimator(pilots, [])
    silent = GridEstimator(pilots, 2 * [lambda obs: Estimate(obs.y)])
    with pytest.raises(ValueError, match="no error variance"):
        silent(torch.zeros(1, 1, 2, 14, 12, dtype=torch.complex64), 0.1)
