"""MUSIC, root-MUSIC and ESPRIT: exact without noise, consistent, as good as theory says, blind to scale and turns."""

import math

import pytest
import torch

from fanfold.core.units import from_db
from fanfold.estimators import ESPRIT, MUSIC, RootMUSIC
from fanfold.estimators.arrays.subspace import null_spectrum, polynomial_roots
from fanfold.observation import Observation
from fanfold.problems import DirectionOfArrival

EPS = torch.finfo(torch.float64).eps
METHODS = {
    "MUSIC": MUSIC,
    "root-MUSIC": RootMUSIC,
    "ESPRIT": ESPRIT,
    "ESPRIT by least squares": lambda *args, **settings: ESPRIT(*args, fit="least-squares", **settings),
}
each_method = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS.keys())


def clean(problem: DirectionOfArrival, n: int, snapshots: int, coherent: bool = False):
    """Angles and observations without noise, in double precision."""
    g = torch.Generator().manual_seed(7)
    x = problem.sample(n, g)[0].double()
    S = torch.randn(n, problem.sources, snapshots, dtype=torch.complex128, generator=g)
    if coherent:
        S = S[:, :1] * torch.randn(n, problem.sources, 1, dtype=torch.complex128, generator=g)
    return x, Observation((problem.steering(x) @ S).flatten(-2))


@each_method
@pytest.mark.parametrize("sources", [1, 2, 3])
def test_exact_without_noise(sources, make):
    p = DirectionOfArrival(sensors=8, sources=sources)
    x, obs = clean(p, 50, snapshots=6)
    error = (make(8, sources)(obs).x - x).abs().max()
    # eigenvectors err by eps over the gap of the eigenvalues, here above 1e-3 of the largest; roots that are double
    # up to the lift of 1e-12 err by eps over its root
    assert error < (1e-7 if make is RootMUSIC else 1e5 * EPS)


@each_method
def test_one_snapshot_of_two_sources_is_enough_with_a_subarray(make):
    p = DirectionOfArrival(sensors=9, sources=2)
    x, obs = clean(p, 50, snapshots=1)
    assert (make(9, 2, subarray=6, forward_backward=False)(obs).x - x).abs().max() < 1e-6  # as above, smaller gaps
    with pytest.raises(ValueError, match="rank 1 at most"):
        make(9, 2, forward_backward=False)(obs)


@each_method
def test_smoothing_parts_coherent_sources(make):
    p = DirectionOfArrival(sensors=10, sources=2)
    x, obs = clean(p, 50, snapshots=20, coherent=True)
    assert (make(10, 2, subarray=7)(obs).x - x).abs().max() < 1e-6
    with pytest.warns(UserWarning, match="lower rank than its 2 sources"):  # one direction for two: it cannot
        assert make(10, 2, forward_backward=False)(obs).x.isnan().all()


@each_method
@pytest.mark.parametrize("sources", [1, 2])
def test_error_falls_as_one_over_the_snapshots(sources, make, generator):
    errors = []
    for snapshots in (50, 800):
        p = DirectionOfArrival(sensors=6, snapshots=snapshots, sources=sources, snr_db=5.0)
        x, obs = p.sample(400, generator)
        errors.append((make(6, sources)(obs).x - x).square().sum(-1).median().item())
    # a median of n errors deviates by about 1.6 / √n of it (χ² of one degree: 1.57), two of them; small-sample terms
    # of relative order 1 / (snr snapshots) are below 2 %
    assert errors[0] / errors[1] == pytest.approx(16, rel=5 * math.sqrt(2) * 1.6 / 400**0.5)


def test_one_strong_source_is_found_as_well_as_theory_says(generator):
    """At high SNR: the bound for MUSIC; `1 / (N rho (M - 1)²)` for ESPRIT, whose error is that of the two end sensors.

    Rao & Hari (1989), "Performance analysis of ESPRIT and TAM".
    """
    M, N, rho, draws = 8, 20, from_db(30), 4000
    p = DirectionOfArrival(sensors=M, snapshots=N, snr_db=30.0)
    x, obs = p.sample(draws, generator)
    random_energy = N / (N - 1)  # E 1 / Σ|S|², which has no share in the bound
    bound = 6 / (N * rho * M * (M**2 - 1)) * random_energy
    ends = 1 / (N * rho * (M - 1) ** 2) * random_energy
    for method, wanted in ((MUSIC, bound), (RootMUSIC, bound), (ESPRIT, ends)):
        error = (method(M, 1)(obs).x - x).square().mean().item()
        # relative deviation of a mean square √(2 / draws) and a little more as energies differ; 1 / rho is left out
        assert error / wanted == pytest.approx(1, abs=5 * (2.5 / draws) ** 0.5 + 2 / rho)


def test_two_sources_are_found_near_the_bound(generator):
    """Stoica & Nehorai (1989): MUSIC meets the bound as the SNR and the snapshots grow."""
    M, N, draws = 8, 100, 2000
    p = DirectionOfArrival(sensors=M, snapshots=N, sources=2, snr_db=25.0, separation=1.0)
    x, obs = p.sample(draws, generator)
    A, place = p.steering(x.double()), torch.arange(M) - (M - 1) / 2
    D = 1j * place[:, None] * A
    off = D - A @ torch.linalg.solve(A.mH @ A, A.mH @ D)
    J = 2 * N / p.noise_var * (D.mH @ off).diagonal(dim1=-2, dim2=-1).real  # signals are uncorrelated
    bound = (1 / J).sum(-1).mean().item()
    for method in (MUSIC(M, 2), RootMUSIC(M, 2)):
        error = (method(obs).x - x).square().sum(-1).mean().item()
        # finite N: N / (N - 2) as for one source, and sample correlations of the signals, of order 1 / N
        assert 1 - 5 * (1 / draws) ** 0.5 < error / bound < N / (N - 2) + 2 / N + 5 * (1 / draws) ** 0.5
    ratio = (ESPRIT(M, 2)(obs).x - x).square().sum(-1).mean().item() / bound
    assert 1 < ratio < 4  # of one source 72 / 42: the ends against the bound; close ones cost more


@each_method
def test_scale_changes_nothing_and_a_turn_of_the_array_adds_up(make, generator):
    p = DirectionOfArrival(sensors=7, sources=2, snr_db=10.0, sector=30.0)
    _, obs = p.sample(40, generator)
    y = obs.y.to(torch.complex128)
    method = make(7, 2)
    x = method(Observation(y)).x
    assert (method(Observation(y * (3e-7 - 2e-7j))).x - x).abs().max() < 1e-7  # of roots that are nearly double
    turn = torch.exp(1.3j * torch.arange(7.0, dtype=torch.float64)).repeat_interleave(p.snapshots)
    assert (method(Observation(y * turn)).x - x - 1.3).abs().max() < 1e-7
    assert (method(Observation(y.conj())).x + x.flip(-1)).abs().max() < 1e-7
    order = torch.randperm(p.snapshots, generator=generator)
    assert (method(Observation(p.snapshot_matrix(y)[..., order].flatten(-2))).x - x).abs().max() < 1e-7


@each_method
def test_samples_do_not_see_each_other_and_precision_is_kept(make, generator):
    p = DirectionOfArrival(sensors=6, sources=2, snr_db=10.0)
    _, obs = p.sample(6, generator)
    method = make(6, 2)
    x = method(obs).x
    assert x.dtype == torch.float32
    assert method(Observation(obs.y.to(torch.complex128))).x.dtype == torch.float64
    assert (method(Observation(obs.y[3])).x - x[3]).abs().max() < 1e-5  # single precision
    assert torch.equal(method(Observation(obs.y.reshape(2, 3, -1))).x, x.reshape(2, 3, 2))
    assert (x.diff(dim=-1) > 0).all()


def test_null_spectrum_is_the_norm_of_the_projection(generator):
    E = torch.linalg.qr(torch.randn(3, 6, 4, dtype=torch.complex128, generator=generator))[0]
    lags = null_spectrum(E)
    x = torch.linspace(-3, 3, 11, dtype=torch.float64)
    a = torch.polar(torch.ones(6, 11).double(), torch.arange(6)[:, None] * x)
    wanted = (E.mH @ a).abs().square().sum(-2)
    weight = torch.tensor([1.0] + [2.0] * 5)
    assert ((lags * weight) @ a).real.sub(wanted).abs().max() < 100 * EPS


def test_roots_are_roots(generator):
    roots = torch.randn(5, 4, dtype=torch.complex128, generator=generator)
    coefficients = torch.ones(5, 1, dtype=torch.complex128)
    for root in roots.unbind(-1):  # times (z - root)
        zero = torch.zeros(5, 1, dtype=torch.complex128)
        coefficients = torch.cat([zero, coefficients], -1) - root[:, None] * torch.cat([coefficients, zero], -1)
    found = polynomial_roots(coefficients)
    assert (found.unsqueeze(-1) - roots.unsqueeze(-2)).abs().amin(-1).max() < 1e-10


def test_music_stays_within_its_limits(generator):
    p = DirectionOfArrival(sensors=6, snr_db=-10.0)
    _, obs = p.sample(200, generator)
    x = MUSIC(6, 1, limits=(-1.0, 0.5))(obs).x
    assert x.min() >= -1
    assert x.max() <= 0.5
    assert (x == 0.5).any()  # of sources beyond the limit


@each_method
def test_what_cannot_be_is_refused(make):
    with pytest.raises(ValueError, match="no noise subspace"):
        make(4, 4)
    with pytest.raises(ValueError, match="stretch"):
        make(8, 3, subarray=3)
    with pytest.raises(ValueError, match="at least one source"):
        make(4, 0)
    with pytest.raises(ValueError, match="at most the 8 sensors"):
        make(8, 3, subarray=9)
    with pytest.raises(ValueError, match="complex"):
        make(4, 1)(Observation(torch.ones(2, 8)))
    with pytest.raises(ValueError, match="multiple of 4 sensors"):
        make(4, 1)(Observation(torch.ones(2, 9, dtype=torch.complex64)))
    with pytest.raises(ValueError, match="more snapshots"):
        make(6, 3)(Observation(torch.ones(2, 6, dtype=torch.complex64)))


def test_an_unknown_fit_is_refused():
    with pytest.raises(ValueError, match="take total or least-squares"):
        ESPRIT(8, 2, fit="best")
