"""Operators of arrays and radars: they are the physics that they claim, and refuse geometries that are none."""

import math

import pytest
import torch

from fanfold.linops import (
    Born,
    Kronecker,
    coupling,
    dot_test,
    field_of_view,
    ofdm_radar,
    partial_fourier,
    planar_array,
    steering,
    uniform_linear,
)


def born(dtype: torch.dtype = torch.complex128, voxels: int = 40) -> Born:
    generator = torch.Generator().manual_seed(0)
    transmitters, receivers = (torch.rand(count, 3, generator=generator, dtype=torch.float64) for count in (3, 4))
    points = torch.rand(voxels, 3, generator=generator, dtype=torch.float64) + torch.tensor([0.0, 0.0, 1.0])
    return Born(transmitters, receivers, 2 * math.pi * torch.tensor([10.0, 11.0, 12.0]), points, dtype)


def test_far_scatterers_in_the_near_field_operator_are_the_steering_matrix():
    """At distance d the phases of an array of size a differ from a plane wave's by about `2 pi a² / (2 d λ)`."""
    positions, distance = uniform_linear(8), 1e6
    sines = field_of_view(5, 0.8)
    elements = torch.stack([positions, torch.zeros(8), torch.zeros(8)], -1).double()
    far = distance * torch.stack([sines, torch.zeros(5), (1 - sines**2).sqrt()], -1)
    A = Born(torch.zeros(1, 3).double(), elements, torch.tensor([2 * math.pi]), far, torch.complex128).matrix()
    B = steering(positions, sines, torch.complex128)
    relative = (A / A[0]) / (B / B[0])  # the phase of the centre does not matter
    allowed = 2 * math.pi * (4**2 / (2 * distance) + 4 * torch.finfo(torch.float64).eps * distance)
    assert (relative - 1).abs().max() < allowed


def test_paths_go_from_transmitter_to_voxel_to_receiver():
    A, (tx, rx, k, v) = born(), born().parts()
    path = (v[7] - tx[2]).norm() + (v[7] - rx[1]).norm()
    row = (2 * 4 + 1) * 3 + 2
    expected = torch.polar(torch.ones(()).double(), -k[2] * path) / A.m**0.5
    torch.testing.assert_close(A.matrix()[row, 7], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_near_field_operator_and_its_adjoint_in_blocks(dtype, monkeypatch):
    for name in ("MAX_KEPT_ENTRIES", "BLOCK_ENTRIES"):  # several blocks, none kept
        monkeypatch.setattr(f"fanfold.linops.born.{name}", 200)
    A = born(dtype)
    assert A._rows < 12
    dot_test(A)
    x = torch.randn(2, 3, A.n, dtype=dtype, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(A @ x, x @ A.matrix().mT, rtol=0, atol=1e3 * torch.finfo(dtype).eps)


def test_steering_columns_are_unit_plane_waves():
    B = steering(uniform_linear(6), field_of_view(9, 0.8), torch.complex128)
    torch.testing.assert_close(B.norm(dim=0), torch.ones(9, dtype=torch.float64))
    expected = torch.exp(1j * math.pi * torch.arange(6)[:, None] * torch.linspace(-0.8, 0.8, 9).double())
    torch.testing.assert_close(B * 6**0.5, expected.to(torch.complex128), rtol=0, atol=1e-6)


def test_partial_fourier_is_rows_of_the_transform():
    x = torch.randn(16, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([3, 0, 11])
    torch.testing.assert_close(partial_fourier(16, rows, torch.complex128) @ x, torch.fft.fft(x)[rows] / 3**0.5)


def test_ofdm_radar_has_one_harmonic_for_each_axis():
    A = ofdm_radar(4, 6, 5, (7, 8, 9), dtype=torch.complex128)
    assert isinstance(A, Kronecker)
    assert A.shape == (4 * 6 * 5, 7 * 8 * 9)
    delay = torch.exp(-2j * math.pi * torch.arange(6)[:, None] * torch.arange(8) / 8) / 6**0.5
    torch.testing.assert_close(A.factors[1], delay.to(torch.complex128), rtol=0, atol=1e-6)


def test_planar_array_is_the_steering_matrix_of_a_plane():
    """Element (i, j) and direction (u, v): `exp(i pi (i u + j v)) / sqrt(m)`, by the definition."""
    A = planar_array(4, 3, (5, 6), 0.6, torch.complex128)
    dot_test(A)
    i, j = (a.flatten() for a in torch.meshgrid(torch.arange(4), torch.arange(3), indexing="ij"))
    u, v = (a.flatten() for a in torch.meshgrid(field_of_view(5, 0.6), field_of_view(6, 0.6), indexing="ij"))
    expected = torch.exp(1j * math.pi * (i[:, None] * u + j[:, None] * v)) / 12**0.5
    torch.testing.assert_close(A.matrix(), expected, rtol=0, atol=1e-13)  # phases up to 20, rounded at eps


def test_coupling_is_symmetric_and_falls_off_with_distance():
    C = coupling(uniform_linear(8), -20.0, torch.complex128)
    assert torch.equal(C, C.mT)
    torch.testing.assert_close(C.diagonal(), torch.ones(8, dtype=torch.complex128), rtol=0, atol=0)
    expected = 0.1 / torch.arange(1, 8, dtype=torch.float64)  # -20 dB at half a wavelength
    torch.testing.assert_close(C[0, 1:].abs(), expected)
    torch.testing.assert_close(C[0, 1:].angle().abs().cos(), torch.cos(math.pi * torch.arange(1, 8).double()))


def test_coupling_that_vanishes_leaves_the_array_alone():
    positions = torch.tensor([0.0, 0.4, 1.3])
    B = steering(positions, field_of_view(6), torch.complex128)
    gap = (coupling(positions, -200.0, torch.complex128) @ B - B).abs().max()
    assert 0 < gap < 3 * 10**-10 / 0.8  # two neighbours at 0.4 wavelengths or more pass on 1e-10 / 0.8 each at most


def test_coupled_factors_make_a_kronecker_product():
    p, u = uniform_linear(4), field_of_view(6, 0.8)
    C, B = coupling(p, -15.0, torch.complex128), steering(p, u, torch.complex128)
    A = Kronecker(C @ B, C @ B)
    dot_test(A)
    expected = torch.kron(C, C) @ torch.kron(B, B)
    torch.testing.assert_close(A.matrix(), expected, rtol=0, atol=1e-13)


def test_a_scene_of_131072_voxels_runs_without_its_matrix():
    """The matrix would take 54 GiB; a product takes the factors and two scenes."""
    generator = torch.Generator().manual_seed(1)
    sizes = ((48, 64), (48, 64), (24, 32))
    factors = [torch.randn(m, n, dtype=torch.complex64, generator=generator) for m, n in sizes]
    A = Kronecker(*factors)
    assert A.n == 64 * 64 * 32
    x = torch.randn(2, A.n, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    y, expected = (A @ x).reshape(2, 48, 48, 24), x.reshape(2, 64, 64, 32)
    for factor in factors:  # each contraction puts its axis last
        expected = torch.tensordot(expected, factor, ([1], [1]))
    assert (y - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: steering(torch.tensor([0.0, 0.5, 0.5]), field_of_view(4)), "coincide at 0.5"),
        (lambda: steering(uniform_linear(3), torch.tensor([0.0, 1.5])), "no sine"),
        (lambda: steering(uniform_linear(3), field_of_view(4), torch.float32), "is complex"),
        (lambda: steering(torch.tensor([0.0, math.nan]), field_of_view(4)), "not finite"),
        (lambda: coupling(torch.tensor([0.5, 0.0, 0.5]), -20), "coincide at 0.5"),
        (lambda: coupling(uniform_linear(3), 0.0), "below 0 dB"),
        (lambda: coupling(uniform_linear(3), -20, torch.float64), "is complex"),
        (lambda: planar_array(4, 0, (5, 6)), "at least one"),
        (lambda: planar_array(4, 3, (5,)), "two axes"),  # type: ignore[arg-type]
        (lambda: uniform_linear(4, 0.0), "positive spacing"),
        (lambda: field_of_view(4, 1.2), "share"),
        (lambda: partial_fourier(8, torch.tensor([1, 1])), "different numbers"),
        (lambda: partial_fourier(8, torch.tensor([8])), "different numbers"),
        (
            lambda: Born(torch.zeros(2, 3), torch.ones(1, 3), torch.ones(1), torch.ones(4, 3)),
            "two transmitters coincide",
        ),
        (lambda: Born(torch.zeros(1, 2), torch.ones(1, 3), torch.ones(1), torch.ones(4, 3)), "transmitters have shape"),
        (lambda: Born(torch.zeros(1, 3), torch.ones(1, 3), torch.ones(1, 1), torch.ones(4, 3)), "wavenumbers"),
        (
            lambda: Born(torch.zeros(1, 3), torch.ones(1, 3), torch.ones(1), torch.ones(4, 3), torch.float32),
            "is complex",
        ),
    ],
)
def test_geometries_that_are_none_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
