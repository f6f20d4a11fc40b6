"""The receiver chain: each part obeys its law, and without them all it is the linear model."""

import math

import pytest
import torch

from fanfold.problems import Problem, ReceiverChain
from fanfold.problems.radio.receiver_chain import pilots

INF = math.inf
IDEAL = ReceiverChain(snr_db=INF, linewidth=0.0, saturation=INF, full_scale=INF, dtype="complex128")
EPS = torch.finfo(torch.float64).eps


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clean_of(chain: ReceiverChain, x: torch.Tensor) -> torch.Tensor:
    return chain.clean(torch.complex(x[:, :1], x[:, 1:2]), x[:, 2:])


def test_without_impairments_the_chain_is_the_linear_model():
    x, obs = IDEAL.sample(50, rng(0))
    assert torch.equal(obs.y, clean_of(IDEAL, x))
    s, t = pilots(32, 0), torch.arange(32)
    h, omega = torch.complex(x[:, :1], x[:, 1:2]), IDEAL.offset * x[:, 2:]
    model = h * s * torch.exp(1j * omega * t)
    # one rounding of the angle, below 32 · 0.1 radians, and a few of products
    assert (obs.y - model).abs().max() < 20 * EPS * h.abs().max()


def test_noise_has_its_power():
    chain = IDEAL.shifted(snr_db=7.0)
    x, obs = chain.sample(500, rng(1))
    w = obs.y - clean_of(chain, x)
    # mean of |w|², whose deviation is its mean, over 500 · 32 entries
    assert abs(w.abs().square().mean().item() / chain.noise_var - 1) < 5 / w.numel() ** 0.5
    assert chain.noise_var == pytest.approx(10**-0.7)


def test_the_phase_walks_with_its_linewidth():
    chain = IDEAL.shifted(linewidth=0.01)
    x, obs = chain.sample(500, rng(2))
    phase = (obs.y / clean_of(chain, x)).angle()
    steps = torch.cat([phase[:, :1], phase.diff(dim=-1)], -1)
    steps = torch.remainder(steps + math.pi, 2 * math.pi) - math.pi
    assert abs(steps.var().item() / 0.01 - 1) < 5 * (2 / steps.numel()) ** 0.5  # variance of a variance of Gaussians
    late = phase[:, 10].var().item() / 0.11  # the sum of 11 independent steps
    assert abs(late - 1) < 5 * (2 / 500) ** 0.5


def test_channel_and_offset_have_their_prior():
    x, _ = IDEAL.sample(4000, rng(3))
    expected = torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64)
    assert (x.square().mean(0) / expected - 1).abs().max() < 5 * (2 / 4000) ** 0.5  # squares of Gaussians
    assert (x.mean(0) / (expected / 4000).sqrt()).abs().max() < 5


def test_the_amplifier_is_linear_below_and_saturates_above():
    chain = ReceiverChain(saturation=2.0)
    small = torch.polar(torch.tensor([0.02, 0.1]).double(), torch.tensor([0.3, 2.0]).double())
    # the first term of Rapp's series is (|a| / saturation)^4 / 4
    assert ((chain.amplified(small) / small - 1).abs() <= (small.abs() / 2) ** 4 / 4 + EPS).all()
    magnitudes = torch.logspace(-2, 3, 200, dtype=torch.float64)
    out = chain.amplified(torch.polar(magnitudes, torch.full_like(magnitudes, 1.1)))
    assert (out.abs() <= 2.0).all()
    assert (out.abs().diff() >= -2 * 2 * EPS).all()  # it never falls, but for rounding of two values near 2
    assert (out.angle() - 1.1).abs().max() < 4 * EPS
    at_saturation = chain.amplified(torch.tensor([2.0 + 0j], dtype=torch.complex128)).abs().item()
    assert at_saturation == pytest.approx(2 / 2**0.25, rel=4 * EPS)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_the_converter_has_its_levels_and_is_off_by_half_a_step(bits):
    chain = ReceiverChain(bits=bits, full_scale=1.5)
    axis = torch.linspace(-1.499, 1.499, 4000, dtype=torch.float64)  # none on the edge of a cell
    out = chain.converted(torch.complex(axis, axis.flip(0)))
    step = 3.0 / 2**bits
    assert len(out.real.unique()) == 2**bits
    assert (out.real - axis).abs().max() <= step / 2 + 4 * EPS
    assert torch.equal(out.imag, out.real.flip(0))
    assert torch.equal(out.real, -out.real.flip(0))


def test_the_converter_clips_at_full_scale():
    chain = ReceiverChain(bits=4, full_scale=1.5)
    out = chain.converted(torch.tensor([9 - 9j, -1.6 + 1.6j], dtype=torch.complex128))
    top = 1.5 - 1.5 / 16
    assert out.tolist() == [top - 1j * top, -top + 1j * top]


def test_fine_quantisation_is_white_noise_of_a_twelfth_of_the_squared_step():
    chain = IDEAL.shifted(full_scale=6.0, bits=10)
    x, obs = chain.sample(500, rng(4))
    error = torch.view_as_real(obs.y - clean_of(chain, x))
    step = 12.0 / 2**10
    # uniform errors; that of a block hangs on its channel, so count blocks only: the deviation of a square is 0.9 of it
    assert abs(error.square().mean().item() * 12 / step**2 - 1) < 5 * 0.9 / 500**0.5


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_draws_repeat_with_their_generator_in_the_precision_asked_for(dtype):
    chain = ReceiverChain(dtype=dtype)
    (x, obs), (again, obs_again) = chain.sample(4, rng(5)), chain.sample(4, rng(5))
    assert torch.equal(x, again)
    assert torch.equal(obs.y, obs_again.y)
    assert obs.y.dtype == getattr(torch, dtype)
    assert x.dtype == obs.y.real.dtype
    assert x.shape == (4, 3)
    assert obs.y.shape == (4, 32)
    assert obs.noise_var is None  # nobody knows the variance behind what is not linear
    assert isinstance(chain, Problem)


def test_pilots_have_unit_power_and_are_told_by_their_seed():
    assert (pilots(64, 0).abs() - 1).abs().max() < 4 * EPS
    assert torch.equal(pilots(64, 0), pilots(64, 0))
    assert not torch.equal(pilots(64, 0), pilots(64, 1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pilots": 1}, "1 pilots and 4 bits"),
        ({"bits": 0}, "32 pilots and 0 bits"),
        ({"offset": 4.0}, "offset is 4.0"),
        ({"linewidth": -1.0}, "linewidth -1.0"),
        ({"saturation": 0.0}, "saturation and full_scale are positive"),
    ],
)
def test_what_is_no_receiver_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ReceiverChain(**fields)
