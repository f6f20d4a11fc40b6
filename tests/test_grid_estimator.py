"""A whole slot of several moving users is estimated from its pilots, with the error that is told."""

import pytest
import torch

from fanfold.core.noise import circular
from fanfold.core.units import nmse_db
from fanfold.estimators import GridEstimator
from fanfold.estimators.ofdm import ChannelCovariance, Interpolation, Wiener
from fanfold.problems import OFDMChannel
from fanfold.propagation.models import Jakes

USERS, SYMBOLS, SUBCARRIERS = 2, 14, 12
MOVING = "jakes:array=1x1x2,subcarriers=12,frequency=0.99,speed_mps=60"  # J0 falls to .46 between symbols 2 and 11
PROBLEMS = [OFDMChannel(MOVING, f"comb-{USERS}:offset={k}@2,11") for k in range(USERS)]
PILOTS = torch.stack([problem.mask for problem in PROBLEMS]).to(torch.complex64)[:, None]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def slots(n, noise_var):
    h = PROBLEMS[0].channels.draw(n * USERS, generator()).unflatten(0, (n, USERS))
    h = h.transpose(1, 2)[:, None, :, :, None]  # [batch, rx, rx_ant, tx, stream, symbol, subcarrier]
    y = (h * PILOTS).sum((3, 4))
    return h, y + circular(tuple(y.shape), generator(1), y.dtype, torch.tensor(noise_var))


def test_a_slot_of_two_moving_users_is_estimated_with_the_error_that_is_told():
    model = PROBLEMS[0].channels
    assert isinstance(model, Jakes)
    time, frequency = model.correlations()[-2:]
    covariance = ChannelCovariance(torch.eye(2, dtype=torch.complex128), torch.kron(time, frequency))
    h, y = slots(400, 0.05)
    filters = {(k, 0): Wiener.of(p, covariance, "grid", known_power=True) for k, p in enumerate(PROBLEMS)}
    h_hat, err_var = GridEstimator(PILOTS, filters)(y, 0.05)
    assert h_hat.shape == err_var.shape == h.shape
    assert h_hat.dtype == h.dtype
    error = (h_hat - h).abs().square()
    # 1600 independent links, each with an error of some 10 independent modes: 1/sqrt(16000) = .8 %, five times that
    assert (error / err_var).mean().item() == pytest.approx(1, abs=0.04)
    linear, _ = GridEstimator(PILOTS, {(k, 0): Interpolation.of(p) for k, p in enumerate(PROBLEMS)})(y, 0.05)
    assert nmse_db(h_hat, h) < nmse_db(linear, h) - 1  # it knows how fast the channel turns


def test_a_stream_without_an_estimator_is_said():
    with pytest.raises(ValueError, match=r"\(1, 0\) has no estimator"):
        GridEstimator(PILOTS, {(0, 0): Interpolation.of(PROBLEMS[0])})
