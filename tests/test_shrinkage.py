"""Shrinkage functions are proximal maps, and their divergences are what calculus and Stein say they are."""

import cmath
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fanfold.core.noise import circular
from fanfold.core.units import power
from fanfold.penalties import L1, MCP, SCAD, GroupL1, Ridge
from fanfold.shrinkage import (
    firm,
    firm_divergence,
    group_soft,
    group_soft_divergence,
    scad,
    scad_divergence,
    soft,
    soft_divergence,
)

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
PRECISE = (torch.float64, torch.complex128)
EPS = torch.finfo(torch.float64).eps


def proper(value):
    """Zero, or a number whose square is one too: gradients divide by squares, so what is smaller may count as zero."""
    return value if abs(value) > 1e-100 else 0 * value


number = st.floats(-20, 20).map(proper)
threshold = st.floats(0, 10).map(proper)
planar = st.complex_numbers(max_magnitude=20, allow_nan=False, allow_infinity=False).map(proper)


def shrunk(r: float | complex, t: float) -> float | complex:
    """`soft` of one number, in double precision."""
    dtype = torch.complex128 if isinstance(r, complex) else torch.float64
    return soft(torch.tensor([r], dtype=dtype), torch.tensor(t, dtype=torch.float64)).item()


def objective(x: float | complex, r: float | complex, t: float) -> float:
    return abs(x - r) ** 2 / 2 + t * abs(x)


@given(number, threshold)
def test_real_soft_meets_the_optimality_condition(r, t):
    """Zero is in `x - r + t ∂|x|`."""
    x = shrunk(r, t)
    if x == 0:
        assert abs(r) <= t
    else:
        assert abs(x - r + (t if x > 0 else -t)) <= 4 * EPS * (abs(r) + t)


@given(number, threshold, number)
def test_no_number_has_a_lower_objective(r, t, other):
    slack = 16 * EPS * (objective(0, r, t) + 1)  # rounding of two objectives, each at most that at zero
    assert objective(shrunk(r, t), r, t) <= objective(other, r, t) + slack


@given(planar, threshold, planar)
def test_no_complex_number_has_a_lower_objective(r, t, other):
    slack = 16 * EPS * (objective(0, r, t) + 1)
    assert objective(shrunk(r, t), r, t) <= objective(other, r, t) + slack


@given(planar, threshold)
def test_complex_soft_keeps_the_phase_and_shrinks_the_magnitude(r, t):
    x = shrunk(r, t)
    assert abs(abs(x) - max(abs(r) - t, 0)) <= 8 * EPS * (abs(r) + t)
    if x != 0:
        assert abs(x / abs(x) - cmath.exp(1j * cmath.phase(r))) <= 16 * EPS


@given(number, threshold)
def test_complex_soft_of_real_numbers_is_real_soft(r, t):
    assert abs(shrunk(complex(r), t) - shrunk(r, t)) <= 8 * EPS * (abs(r) + t)


@given(planar, planar, threshold)
def test_soft_never_pushes_two_points_apart(a, b, t):
    assert abs(shrunk(a, t) - shrunk(b, t)) <= abs(a - b) + 8 * EPS * (abs(a) + abs(b) + t)


@pytest.mark.parametrize("dtype", DTYPES)
def test_precision_is_kept(dtype, generator):
    r = torch.randn(3, 5, generator=generator, dtype=dtype)
    for t in (torch.tensor(0.5, dtype=dtype.to_real()), torch.full((3, 1), 0.5, dtype=dtype.to_real())):
        assert soft(r, t).dtype == dtype
        assert soft(r, t).shape == (3, 5)
        assert soft_divergence(r, t).dtype == dtype.to_real()
        assert soft_divergence(r, t).shape == (3, 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_sample_has_its_own_threshold(dtype, generator):
    r = torch.randn(3, 5, generator=generator, dtype=dtype)
    t = torch.tensor([[0.0], [0.5], [100.0]], dtype=dtype.to_real())
    for row in range(3):
        assert torch.equal(soft(r, t)[row], soft(r[row], t[row]))
        assert torch.equal(soft_divergence(r, t)[row], soft_divergence(r[row], t[row]))
    # no threshold, no change; a complex product with |r| / |r| may round
    torch.testing.assert_close(soft(r, t)[0], r[0], rtol=2 * torch.finfo(dtype).eps if dtype.is_complex else 0, atol=0)
    assert not soft(r, t)[2].any()


@pytest.mark.parametrize("t", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("dtype", PRECISE)
def test_divergence_is_the_mean_derivative(dtype, t, generator):
    """Complex: the real part of the Wirtinger derivative `(∂/∂Re r - i ∂/∂Im r) / 2`."""
    r = torch.randn(4, 50, generator=generator, dtype=dtype, requires_grad=True)
    x = soft(r, torch.tensor(t, dtype=torch.float64))
    if dtype.is_complex:  # torch gives ∂L/∂Re r + i ∂L/∂Im r for a real L; entries do not mix
        (by_real,) = torch.autograd.grad(x.real.sum(), r, retain_graph=True)
        (by_imag,) = torch.autograd.grad(x.imag.sum(), r)
        derivative = (by_real.real + by_imag.imag) / 2
    else:
        (derivative,) = torch.autograd.grad(x.sum(), r)
    # an average of numbers up to 1, each with a few roundings
    divergence = soft_divergence(r.detach(), torch.tensor(t, dtype=torch.float64))
    assert torch.allclose(divergence, derivative.mean(-1, keepdim=True), rtol=0, atol=32 * EPS)


@pytest.mark.parametrize("t", [0.1, 0.5, 1.5])
@pytest.mark.parametrize("dtype", PRECISE)
def test_divergence_is_steins_average(dtype, t, generator):
    """`E div(x + w) = Re E[w* eta(x + w)] / var`: what the Onsager term rests on."""
    draws, var = 40_000, 0.3
    x = torch.linspace(-2, 2, 8).to(dtype)
    w = circular((draws, 8), generator, dtype, var)
    level = torch.tensor(t, dtype=torch.float64)
    stein = (w.conj() * soft(x + w, level)).real.mean(-1) / var
    gap = stein - soft_divergence(x + w, level).squeeze(-1)
    assert abs(gap.mean()) < 5 * gap.std() / draws**0.5  # 5 standard errors of the mean


@given(planar, st.floats(0, 1e15))
def test_divergence_is_between_zero_and_one(r, t):
    """A proximal map neither grows a difference nor turns it round; also in single precision, also at zero."""
    level = torch.tensor(t, dtype=torch.float32)
    for point in (torch.tensor([r, 0], dtype=torch.complex64), torch.tensor([r.real, 0], dtype=torch.float32)):
        assert 0 <= soft_divergence(point, level).item() <= 1


@pytest.mark.parametrize("magnitude", [0.0, 1e-30, 1.0])
@pytest.mark.parametrize("t", [0.0, 1.0, 10.0, 1000.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_finite_also_at_zero(dtype, t, magnitude):
    r = torch.full((3,), magnitude, dtype=dtype, requires_grad=True)
    level = torch.tensor(t, dtype=dtype.to_real(), requires_grad=True)
    loss = power(soft(r, level) - 1).sum() + soft_divergence(r, level).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.view_as_real(r.grad) if dtype.is_complex else r.grad).all()
    assert torch.isfinite(level.grad)


# Every other shrinkage: a map with its divergence, and a penalty whose proximal map it is

MAPS = {
    "firm": (lambda r: firm(r, 0.5, 1 / 3), lambda r: firm_divergence(r, 0.5, 1 / 3)),
    "firm, no concavity": (lambda r: firm(r, 0.5, 0.0), lambda r: firm_divergence(r, 0.5, 0.0)),
    "scad": (lambda r: scad(r, 0.5), lambda r: scad_divergence(r, 0.5)),
    "scad, long step": (lambda r: scad(r, 0.9, 3.0, 1.8), lambda r: scad_divergence(r, 0.9, 3.0, 1.8)),
    "groups": (lambda r: group_soft(r, 1.0, 4), lambda r: group_soft_divergence(r, 1.0, 4)),
    "groups of one": (lambda r: group_soft(r, 0.5, 1), lambda r: group_soft_divergence(r, 0.5, 1)),
}
PENALTIES = (L1(0.7), MCP(0.7, 2.5), SCAD(0.7, 3.7), GroupL1(0.7, 3), Ridge(0.7))
STEPS = (0.3, 1.0, 2.0, 6.0)  # the last makes MCP and SCAD jump
each_map = pytest.mark.parametrize(("shrink", "divergence"), MAPS.values(), ids=MAPS)
each_penalty = pytest.mark.parametrize("penalty", PENALTIES, ids=lambda p: type(p).__name__)


@pytest.mark.parametrize("dtype", PRECISE)
@each_map
def test_each_divergence_is_the_mean_derivative(shrink, divergence, dtype, generator):
    """By automatic differentiation of the whole map, entry by entry of its Jacobian's diagonal."""
    r = 2 * torch.randn(12, generator=generator, dtype=dtype)

    def of_real_pairs(pairs):
        return torch.view_as_real(shrink(torch.view_as_complex(pairs)))

    if dtype.is_complex:
        jacobian = torch.autograd.functional.jacobian(of_real_pairs, torch.view_as_real(r))
        trace = torch.einsum("iaia->", jacobian) / 2
    else:
        trace = torch.autograd.functional.jacobian(shrink, r).trace()
    # an average of numbers up to 10, each with a few roundings
    assert abs(divergence(r).item() - trace.item() / 12) <= 320 * EPS


@pytest.mark.parametrize("dtype", PRECISE)
@each_map
def test_each_divergence_is_steins_average(shrink, divergence, dtype, generator):
    draws, var = 40_000, 0.3
    x = torch.linspace(-2, 2, 8).to(dtype)
    w = circular((draws, 8), generator, dtype, var)
    gap = (w.conj() * shrink(x + w)).real.mean(-1) / var - divergence(x + w).squeeze(-1)
    assert abs(gap.mean()) < 5 * gap.std() / draws**0.5  # 5 standard errors of the mean


@pytest.mark.parametrize("dtype", PRECISE)
@each_map
def test_each_divergence_is_what_a_small_random_push_shows(shrink, divergence, dtype, generator):
    """`E Re⟨b, eta(r + h b) - eta(r)⟩ / (n h)` for white b of unit power: the Monte-Carlo estimate of Ramani (2008)."""
    r = 2 * torch.randn(12, generator=generator, dtype=dtype)
    draws, h = 20_000, 1e-6  # too short to reach a kink
    b = circular((draws, 12), generator, dtype)
    pushed = (b.conj() * (shrink(r + h * b) - shrink(r))).real.mean(-1) / h
    assert abs(pushed.mean() - divergence(r).item()) < 5 * pushed.std() / draws**0.5 + 1e-6


@pytest.mark.parametrize("step", STEPS)
@each_penalty
def test_no_signal_has_a_lower_penalised_distance(penalty, step, generator):
    """Against all real numbers on a fine grid; groups: all lengths along r and all directions of a sample."""
    size = getattr(penalty, "size", 1)
    rows = torch.linspace(-6, 6, 241, dtype=torch.float64)[:, None] * torch.linspace(1, 2, size, dtype=torch.float64)
    grid = torch.linspace(-1.2, 1.2, 4801, dtype=torch.float64)[:, None, None] * rows
    stray = rows + torch.randn(500, *rows.shape, generator=generator, dtype=torch.float64)

    def distance(x):
        return power(x - rows).sum(-1) / 2 + step * penalty.value(x)

    best = distance(penalty.prox(rows, step))
    for others in (grid, stray, torch.zeros_like(rows)[None]):
        assert (best <= distance(others).amin(0) + 1e-13 * (1 + best)).all()  # rounding of two distances


@pytest.mark.parametrize("step", STEPS)
@each_penalty
def test_no_complex_signal_has_a_lower_penalised_distance(penalty, step, generator):
    r = 3 * torch.randn(200, 6, generator=generator, dtype=torch.complex128)
    x = penalty.prox(r, step)

    def distance(x):
        return power(x - r).sum(-1) / 2 + step * penalty.value(x)

    best = distance(x)
    for spread in (1e-3, 0.1, 1.0, 3.0):
        others = x + spread * torch.randn(500, *r.shape, generator=generator, dtype=r.dtype)
        assert (best <= distance(others).amin(0) + 1e-13 * (1 + best)).all()
    for share in torch.linspace(0, 1.2, 25):
        assert (best <= distance(share * r) + 1e-13 * (1 + best)).all()
    signs = r / r.abs()
    # a real signal in another direction of the plane: the same map
    torch.testing.assert_close(penalty.prox(r * signs.conj()[..., :1], step), x * signs.conj()[..., :1])


@pytest.mark.parametrize("dtype", PRECISE)
def test_firm_lies_between_soft_and_hard(dtype, generator):
    r = 3 * torch.randn(1000, generator=generator, dtype=dtype)
    t = torch.tensor(0.8, dtype=torch.float64)
    torch.testing.assert_close(firm(r, t, 0.0), soft(r, t), rtol=4 * EPS, atol=4 * EPS)
    torch.testing.assert_close(firm(r, t, 1.0), r * (r.abs() > t), rtol=4 * EPS, atol=0)
    assert (firm(r, t, 0.4).abs() >= soft(r, t).abs() - 4 * EPS).all()
    assert (firm(r, t, 0.4).abs() <= r.abs() * (1 + 4 * EPS)).all()


def test_groups_must_divide_the_signal():
    with pytest.raises(ValueError, match="groups of 4 do not divide 10"):
        group_soft(torch.zeros(10), torch.tensor(1.0), 4)


@pytest.mark.parametrize("magnitude", [0.0, 1e-30, 1.0, 1e6])
@pytest.mark.parametrize("dtype", DTYPES)
@each_map
def test_each_gradient_is_finite_also_at_zero(shrink, divergence, dtype, magnitude):
    r = torch.full((4,), magnitude, dtype=dtype, requires_grad=True)
    loss = power(shrink(r) - 1).sum()
    (slope,) = torch.autograd.grad(loss, r)
    assert torch.isfinite(torch.view_as_real(slope) if dtype.is_complex else slope).all()
    assert torch.isfinite(divergence(r)).all()
    assert shrink(r).dtype == dtype
    assert divergence(r).dtype == dtype.to_real()


@pytest.mark.parametrize("dtype", DTYPES)
@each_penalty
def test_settings_of_a_penalty_learn(penalty, dtype, generator):
    r = 3 * torch.randn(4, 6, generator=generator, dtype=dtype)
    given = {
        k: torch.full((4, 1), getattr(penalty, k), dtype=dtype.to_real()).requires_grad_() for k in penalty.learnable
    }
    x = penalty.prox(r, torch.full((4, 1), 0.5, dtype=dtype.to_real()), SimpleNamespace(**given))
    assert x.dtype == dtype
    torch.testing.assert_close(x, penalty.prox(r, 0.5))
    power(x).sum().backward()
    for k, value in given.items():
        assert value.grad is not None, k
        assert torch.isfinite(value.grad).all()
        assert value.grad.any()
