"""Decibels, errors and noise: one definition each, checked against what the words mean."""

import cmath
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fanfold.core.noise import circular
from fanfold.core.units import db, from_db, nmse, nmse_db, power, psnr_db, rms

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
EPS = torch.finfo(torch.float64).eps


@given(st.floats(-200, 200))
def test_db_inverts_from_db(value_db):
    # log10 turns a relative error eps of the ratio into an absolute one of 10 eps / ln 10; the value adds eps of itself
    assert abs(db(from_db(value_db)) - value_db) <= 8 * EPS * (10 + abs(value_db))


@given(st.floats(1e-20, 1e20), st.floats(1e-20, 1e20))
def test_db_turns_products_into_sums(a, b):
    assert abs(db(a * b) - db(a) - db(b)) <= 8 * EPS * (10 + abs(db(a)) + abs(db(b)))


def test_db_knows_the_values_on_every_data_sheet():
    assert db(1.0) == 0
    assert db(100.0) == pytest.approx(20)
    assert db(2.0) == pytest.approx(3.0103, abs=5e-5)
    assert from_db(-30.0) == pytest.approx(1e-3)


def test_no_power_is_minus_infinity_db():
    assert db(0.0) == -math.inf
    assert db(torch.zeros(2)).tolist() == [-math.inf, -math.inf]


def test_db_of_a_tensor_is_db_of_its_entries(generator):
    ratios = torch.rand(7, generator=generator, dtype=torch.float64)
    assert db(ratios).tolist() == pytest.approx([db(r) for r in ratios.tolist()], rel=8 * EPS)


def test_power_of_a_complex_number_is_its_squared_magnitude():
    z = torch.tensor([3 + 4j, -2j, 0], dtype=torch.complex64)
    assert power(z).tolist() == [25, 4, 0]
    assert power(z).dtype == torch.float32
    assert power(torch.tensor([-3.0])).tolist() == [9]


@pytest.mark.parametrize("dtype", DTYPES)
def test_power_does_not_depend_on_phase(dtype, generator):
    z = torch.randn(50, generator=generator, dtype=dtype)
    turned = z * (cmath.exp(0.7j) if dtype.is_complex else -1)
    # a few roundings in each of two squares
    assert torch.allclose(power(turned), power(z), rtol=16 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_is_one_real_number_per_signal(dtype):
    x = torch.ones(2, 3, 4, dtype=dtype) * torch.tensor([2.0, 3.0]).reshape(2, 1, 1).to(dtype)
    assert rms(x).shape == (2, 3, 1)
    assert rms(x).dtype == dtype.to_real()
    assert rms(x)[:, 0, 0].tolist() == [2, 3]


@given(st.floats(1e-3, 1e3))
def test_rms_is_homogeneous(scale):
    x = torch.tensor([[1.0, -2, 3], [0.5, 0, 0]], dtype=torch.float64)
    assert torch.allclose(rms(-scale * x), scale * rms(x), rtol=16 * EPS, atol=0)


def test_nmse_is_a_ratio_of_sums_and_not_a_mean_of_ratios():
    x = torch.tensor([[10.0, 0], [1, 0]], dtype=torch.float64)
    x_hat = torch.tensor([[10.0, 1], [0, 0]], dtype=torch.float64)
    assert nmse(x_hat, x).item() == pytest.approx(2 / 101)  # the mean of ratios would be (1/100 + 1) / 2
    assert nmse_db(x_hat, x) == pytest.approx(10 * math.log10(2 / 101))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nmse_of_nothing_is_one_and_of_the_truth_is_zero(dtype, generator):
    x = torch.randn(5, 8, generator=generator, dtype=dtype)
    assert nmse(torch.zeros_like(x), x).item() == 1
    assert nmse_db(torch.zeros_like(x), x) == 0
    assert nmse_db(x, x) == -math.inf


@given(st.floats(1e-6, 1e6))
def test_nmse_has_no_unit(scale):
    x = torch.tensor([1.0, -2, 3], dtype=torch.float64)
    x_hat = torch.tensor([1.5, -2, 2], dtype=torch.float64)
    assert nmse_db(scale * x_hat, scale * x) == pytest.approx(nmse_db(x_hat, x), abs=1e-12)  # some eps, in dB


def test_psnr_counts_from_the_peak():
    x = torch.full((4, 4), 0.5, dtype=torch.float64)
    assert psnr_db(x + 0.1, x) == pytest.approx(20)
    assert psnr_db(x + 0.01, x) == pytest.approx(40)  # a tenth of the error: 20 dB more
    assert psnr_db(255 * (x + 0.1), 255 * x, peak=255.0) == pytest.approx(20)
    assert psnr_db(x + 0.1, x, peak=2.0) == pytest.approx(20 + 20 * math.log10(2))


@pytest.mark.parametrize("var", [1e-4, 1.0, 10.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_noise_has_the_variance_it_says(dtype, var, generator):
    draws = 100_000
    w = circular((draws,), generator, dtype, var)
    assert w.dtype == dtype
    # |w|² has standard deviation sqrt(2) var if real and var if complex; 5 standard errors
    error = 5 * var * (1 if dtype.is_complex else 2**0.5) / draws**0.5
    assert abs(power(w).double().mean().item() - var) < error
    assert abs(w.mean().item()) < 5 * (var / draws) ** 0.5


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_noise_is_circular(dtype, generator):
    draws, var = 100_000, 3.0
    w = circular((draws,), generator, dtype, var)
    for half in (w.real, w.imag):  # variance var / 2 each; its square deviates by sqrt(2) of that
        assert abs(half.double().square().mean().item() - var / 2) < 5 * 2**0.5 * var / 2 / draws**0.5
    # the product of independent halves deviates by var / 2
    assert abs((w.real * w.imag).double().mean().item()) < 5 * var / 2 / draws**0.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_noise_repeats_with_its_generator(dtype):
    first, again, other = (circular((3, 4), torch.Generator().manual_seed(seed), dtype, 2.0) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_noise_does_not_touch_the_global_generator(dtype):
    before = torch.random.get_rng_state()
    circular((3,), torch.Generator().manual_seed(5), dtype)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_noise_takes_one_variance_per_sample(dtype, generator):
    draws = 20_000
    var = torch.tensor([[1e-6], [4.0]], dtype=dtype.to_real())
    w = circular((2, draws), generator, dtype, var)
    assert w.dtype == dtype
    ratio = power(w).double().mean(-1, keepdim=True) / var
    assert (ratio - 1).abs().max() < 5 * (2 / draws) ** 0.5
