"""QAM constellations: their geometry, Gray labels, hard decisions and exact soft decisions."""

import math

import pytest
import torch
from scipy.stats import norm

from fanfold.bounds import mmse
from fanfold.core.noise import circular
from fanfold.core.units import power
from fanfold.priors import Constellation
from fanfold.priors.constellation import BITS

PRECISE = (torch.float64, torch.complex128)
DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)

each_name = pytest.mark.parametrize("name", BITS)
each_dtype = pytest.mark.parametrize("dtype", PRECISE, ids=str)


def points(prior: Constellation, dtype: torch.dtype) -> torch.Tensor:
    a = prior.levels(torch.empty((), dtype=dtype))
    return torch.complex(*torch.meshgrid(a, a, indexing="ij")).flatten() if dtype.is_complex else a


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@each_name
def test_points_are_as_many_as_the_name_says_with_unit_power_and_zero_mean(name, dtype):
    x = points(Constellation(name), dtype)
    count = 2 ** (BITS[name] * (2 if dtype.is_complex else 1))
    assert len(x) == count
    if dtype.is_complex and name != "qpsk":
        assert count == int(name.split("-")[0])
    rounding = 4 * torch.finfo(dtype).eps
    assert abs(power(x).mean().item() - 1) < rounding
    assert abs(x.mean().item()) < rounding


@each_dtype
@each_name
def test_posterior_is_the_sum_over_all_points(name, dtype, generator):
    prior = Constellation(name)
    x, v = points(prior, dtype), 0.05
    r = circular((200,), generator, dtype, 1.5)
    log_weight = -power(r[:, None] - x) / (v if dtype.is_complex else 2 * v)
    share = log_weight.softmax(-1)
    mean = (share * x).sum(-1)
    var = (share * power(x - mean[:, None])).sum(-1)
    evidence = log_weight.logsumexp(-1) - math.log(len(x)) - math.log(math.pi * v if dtype.is_complex else 1)
    evidence -= 0 if dtype.is_complex else 0.5 * math.log(2 * math.pi * v)
    torch.testing.assert_close(prior.posterior_mean(r, v), mean, rtol=0, atol=1e-13)  # sums of at most 256 terms
    torch.testing.assert_close(prior.posterior_var(r, v), var, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(prior.log_evidence(r, v), evidence, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@each_name
def test_hard_decision_is_the_nearest_point_and_keeps_points(name, dtype, generator):
    prior = Constellation(name)
    x = points(prior, dtype)
    r = circular((500,), generator, dtype, 2.0)  # many beyond the edges
    rounding = 8 * torch.finfo(dtype).eps * r.abs().max()
    assert ((r - prior.nearest(r)).abs() <= (r[:, None] - x).abs().amin(-1) + rounding).all()
    assert torch.equal(prior.nearest(x), x)
    sample = prior.sample((4, 50), generator, dtype)
    assert torch.equal(prior.nearest(sample), sample)
    assert torch.isfinite(prior.log_prob(sample)).all()


@each_dtype
@each_name
def test_gray_labels_are_distinct_and_neighbours_differ_in_one_bit(name, dtype):
    prior = Constellation(name)
    x = points(prior, dtype)
    bits = prior.bits(x)
    assert bits.shape == (len(x), int(math.log2(len(x))))
    assert len({tuple(row) for row in bits.tolist()}) == len(x)
    spacing = prior.levels(x).diff()[0]
    neighbours = (x[:, None] - x).abs() < 1.1 * spacing
    assert neighbours.sum() > len(x)
    assert (((bits[:, None] ^ bits).sum(-1) == 1) == (neighbours & ~torch.eye(len(x), dtype=torch.bool)))[
        neighbours
    ].all()


@each_dtype
def test_probabilities_of_the_points_add_up_and_elsewhere_there_is_nothing(dtype):
    prior = Constellation("16-qam")
    assert prior.log_prob(points(prior, dtype)).exp().sum().item() == pytest.approx(1)
    assert prior.log_prob(torch.zeros(1, dtype=dtype)).exp().item() == 0


@each_name
def test_hard_decisions_err_as_often_as_the_textbook_says(name, generator):
    """`1 - (1 - 2 (1 - 1/L) Q(d / sigma))²` for L levels an axis at half distance d (Proakis & Salehi, 4.3-30)."""
    prior, draws = Constellation(name), 100_000
    v = 0.3 / (prior.side**2 - 1)
    x = prior.sample((draws,), generator, torch.complex128)
    wrong = (prior.nearest(x + circular((draws,), generator, torch.complex128, v)) != x).double()
    half = prior.levels(x).diff()[0].item() / 2
    axis = 2 * (1 - 1 / prior.side) * norm.sf(half / math.sqrt(v / 2))
    expected = 1 - (1 - axis) ** 2
    assert abs(wrong.mean().item() - expected) < 5 * (expected / draws) ** 0.5


@pytest.mark.parametrize("v", [1e-30, 1e-12, 1e-6])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@each_name
def test_tiny_variances_give_hard_decisions_without_a_nan(name, v, dtype, generator):
    """At 256 points and v = 1e-6 half the distance is 54 standard deviations."""
    prior = Constellation(name)
    x = prior.sample((500,), generator, dtype)
    mean, var = prior.posterior(x + circular((500,), generator, dtype, min(v, 1e-6)), v)
    # float32 data of a level are off by eps: only there a posterior at v = 1e-30 cannot be sharper than its rounding
    assert (mean - x).abs().max() <= 4 * torch.finfo(dtype).eps
    assert (var >= 0).all()
    assert var.max() <= 16 * torch.finfo(dtype).eps ** 2


@each_name
def test_complex_error_is_that_of_an_axis(name, generator):
    prior, draws, v = Constellation(name), 50_000, 0.1
    x = prior.sample((draws,), generator, torch.complex128)
    error = power(prior.posterior_mean(x + circular((draws,), generator, torch.complex128, v), v) - x)
    limit = mmse(prior, v, is_complex=True)
    assert limit == mmse(prior, v, is_complex=False)
    assert abs(error.mean() - limit) < 5 * error.std() / draws**0.5


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="kind is '8-psk'; take qpsk"):
        Constellation("8-psk")
