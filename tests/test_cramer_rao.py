"""Fisher information and Cramér–Rao bounds: closed forms, laws between bounds, and what cannot be identified."""

import math

import pytest
import torch

from fanfold.bounds import biased_cramer_rao, cramer_rao, gaussian_fisher, score_fisher
from fanfold.core.noise import circular
from fanfold.observation import Observation
from fanfold.problems import DirectionOfArrival, LinearGaussian, TimeDelay, Tone

F = torch.float64
N, SNR = 20, 6.25
NAMES = ("amplitude", "phase", "frequency")


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tone(x: torch.Tensor) -> torch.Tensor:
    phase = x[..., 1:2] + x[..., 2:3] * torch.arange(N, dtype=x.dtype)
    return x[..., :1] * torch.complex(phase.cos(), phase.sin())


POINT = torch.tensor([1.0, 0.3, 0.8], dtype=F)
TONE = gaussian_fisher(POINT, tone, noise_var=1 / SNR)


# Closed forms


def test_complex_tone():
    """Rife & Boorstyn (1974), eqs. 17-19."""
    bound = cramer_rao(TONE, NAMES).diagonal()
    expected = [1 / (2 * SNR * N), (2 * N - 1) / (SNR * N * (N + 1)), 6 / (SNR * N * (N**2 - 1))]
    assert bound.tolist() == pytest.approx(expected, rel=1e-9)
    assert bound[2].item() == pytest.approx(1.2030e-4, rel=1e-4)
    assert bound[1].item() == pytest.approx(1.4857e-2, rel=1e-4)


def test_tone_as_a_problem_has_the_same_bound():
    problem = Tone(n=N, gain="rayleigh", snr_db=10 * math.log10(SNR))
    J = gaussian_fisher(torch.tensor([0.8, 0.3, 1.0], dtype=F), problem.mean, noise_var=problem.noise_var)
    bound = cramer_rao(J, problem.names, problem.wanted)
    assert bound.item() == pytest.approx(6 / (SNR * N * (N**2 - 1)), rel=1e-9)


def test_time_delay_by_its_mean_square_bandwidth():
    """Kay (1993), eq. 3.41: `noise_var / (energy * mean-square bandwidth)`, here of a Gaussian pulse."""
    width, var, t = 3.0, 0.2, torch.arange(200, dtype=F)
    pulse = lambda x: torch.exp(-((t - 100 - x) ** 2) / (2 * width**2))  # noqa: E731
    bound = cramer_rao(gaussian_fisher(torch.tensor([0.37], dtype=F), pulse, noise_var=var))
    energy, bandwidth = width * math.sqrt(math.pi), 1 / (2 * width**2)  # sums of samples this dense are integrals
    assert bound.item() == pytest.approx(var / (energy * bandwidth), rel=1e-9)


def test_time_delay_as_a_problem_is_its_derivatives_energy():
    problem = TimeDelay(gain="known", snr_db=3)
    x = torch.tensor([sum(problem.window) / 2 + 0.21], dtype=F)
    step = 1e-5
    slope = (problem.mean(x + step) - problem.mean(x - step)) / (2 * step)
    factor = 2 if slope.is_complex() else 1
    bound = cramer_rao(gaussian_fisher(x, problem.mean, noise_var=problem.noise_var))
    # a central difference errs by step² and by eps / step
    assert bound.item() == pytest.approx(problem.noise_var / (factor * slope.abs().square().sum().item()), rel=1e-8)


@pytest.mark.parametrize("sources", [1, 2])
def test_direction_of_arrival_deterministic(sources):
    """Stoica & Nehorai (1989), eq. 4.1: `noise_var / 2 · Re[(Dᴴ P⊥ D) ∘ Σ s sᴴᵀ]⁻¹`."""
    problem = DirectionOfArrival(sensors=8, snapshots=5, sources=sources, signals="deterministic", snr_db=2)
    x = problem.sample_all(1, rng(0))[0][0].double()
    bound = cramer_rao(gaussian_fisher(x, problem.mean, noise_var=problem.noise_var), problem.names, problem.wanted)
    A, D = steering(problem, x[:sources])
    S = torch.complex(*x[sources:].reshape(2, sources, 5))
    inner = (D.mH @ orthogonal(A) @ D) * (S @ S.mH).mT
    expected = problem.noise_var / 2 * torch.linalg.inv(inner.real)
    assert torch.allclose(bound, expected, rtol=1e-9, atol=0)
    if sources == 1:
        energy = S.abs().square().sum().item() / problem.noise_var
        assert bound.item() == pytest.approx(6 / (energy * 8 * (8**2 - 1)), rel=1e-9)


def test_direction_of_arrival_stochastic():
    """Stoica & Nehorai (1990), eq. 2.14, with covariance of the sources and noise variance unknown."""
    problem = DirectionOfArrival(sensors=6, snapshots=1, sources=2)
    P = torch.tensor([[1.0, 0.3 + 0.2j], [0.3 - 0.2j, 0.7]], dtype=torch.complex128)
    var, snapshots = 0.4, 50

    def covariance(x):
        A = problem.steering(x[:2])
        off = torch.complex(x[4], x[5])
        diagonal = torch.complex(x[2:4], torch.zeros_like(x[2:4]))
        sources = torch.stack([torch.stack([diagonal[0], off]), torch.stack([off.conj(), diagonal[1]])])
        return A @ sources @ A.mH + x[6] * torch.eye(6, dtype=A.dtype)

    x = torch.tensor([-0.4, 0.5, 1.0, 0.7, 0.3, 0.2, var], dtype=F)
    bound = cramer_rao(snapshots * gaussian_fisher(x, covariance=covariance), wanted=[0, 1])
    A, D = steering(problem, x[:2])
    R = A @ P @ A.mH + var * torch.eye(6, dtype=A.dtype)
    inner = (D.mH @ orthogonal(A) @ D) * (P @ A.mH @ torch.linalg.solve(R, A) @ P).mT
    assert torch.allclose(bound, var / (2 * snapshots) * torch.linalg.inv(inner.real), rtol=1e-9, atol=0)


def steering(problem: DirectionOfArrival, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The array's response and its derivative by each angle."""
    A = problem.steering(x)
    return A, 1j * (torch.arange(problem.sensors, dtype=F) - (problem.sensors - 1) / 2).unsqueeze(-1) * A


def orthogonal(A: torch.Tensor) -> torch.Tensor:
    """The projection onto what A does not reach."""
    return torch.eye(len(A), dtype=A.dtype) - A @ torch.linalg.solve(A.mH @ A, A.mH)


def test_mean_and_variance_of_real_samples():
    """Kay (1993), example 3.11: `var / m` and `2 var² / m`."""
    m, x = 12, torch.tensor([0.5, 2.0], dtype=F)
    J = gaussian_fisher(x, lambda p: p[0] * torch.ones(m, dtype=F), lambda p: p[1] * torch.eye(m, dtype=F))
    assert cramer_rao(J).diagonal().tolist() == pytest.approx([2.0 / m, 2 * 4.0 / m], rel=1e-12)


@pytest.mark.parametrize("real", ["mean", "covariance"])
def test_one_real_half_of_a_complex_model_is_taken_for_complex(real):
    m, point = 6, torch.tensor([0.7, 0.4], dtype=F)
    phase = torch.linspace(0, 3, m, dtype=F)
    turn = torch.ones(m, dtype=F) if real == "mean" else torch.complex(phase.cos(), phase.sin())
    eye = torch.eye(m, dtype=F if real == "covariance" else torch.complex128)
    J = gaussian_fisher(point, lambda p: p[0] * turn, lambda p: p[1] * eye)
    expected = torch.diag(torch.tensor([2 * m / 0.4, m / 0.4**2], dtype=F))
    assert torch.allclose(J, expected, rtol=1e-12)


# Monte Carlo


@pytest.mark.parametrize("problem", [Tone(n=10, gain="rayleigh"), LinearGaussian(n=3, m=4)], ids=["tone", "linear"])
def test_the_scores_mean_square_is_the_information(problem):
    draws = 100_000
    x = problem.sample_all(1, rng(1))[0][0].double()
    clean = problem.mean(x).expand(draws, -1)
    obs = Observation(clean + circular(tuple(clean.shape), rng(2), clean.dtype, problem.noise_var), None)
    obs = Observation(obs.y, None, torch.tensor(problem.noise_var, dtype=F))
    J = gaussian_fisher(x, problem.mean, noise_var=problem.noise_var)
    found = score_fisher(x, problem.log_likelihood, obs)
    scale = J.diagonal().sqrt()
    # a product of two unit Gaussian scores deviates by at most √2
    assert ((found - J) / scale[:, None] / scale).abs().max() < 5 * math.sqrt(2 / draws)


def test_no_unbiased_estimator_beats_it():
    """Least squares of a linear model reaches it."""
    problem = LinearGaussian(n=3, m=6, snr_db=5)
    x, obs = problem.sample(50_000, rng(3))
    A = problem.operator.matrix()
    error = obs.y @ torch.linalg.pinv(A).mT - x
    bound = cramer_rao(gaussian_fisher(x[0], problem.mean, noise_var=problem.noise_var)).diagonal()
    ratio = error.double().square().mean(0) / bound
    assert (ratio - 1).abs().max() < 5 * math.sqrt(2 / 50_000)


# Laws


def random_information(seed: int, n: int = 5) -> torch.Tensor:
    G = torch.randn(n, 2 * n, generator=rng(seed), dtype=F)
    return G @ G.mT


@pytest.mark.parametrize("seed", range(5))
def test_nuisance_parameters_never_help(seed):
    J = random_information(seed)
    wanted = [0, 3]
    told = cramer_rao(J[wanted][:, wanted])
    untold = cramer_rao(J, wanted=wanted)
    assert torch.linalg.eigvalsh(untold - told).min() > -1e-12
    rest = [1, 2, 4]
    schur = J[wanted][:, wanted] - J[wanted][:, rest] @ torch.linalg.solve(J[rest][:, rest], J[rest][:, wanted])
    assert torch.allclose(untold, torch.linalg.inv(schur), rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_constraints_never_raise_it(seed):
    J, C = random_information(seed), torch.randn(2, 5, generator=rng(seed + 50), dtype=F)
    free, bound = cramer_rao(J), cramer_rao(J, constraint=C)
    assert torch.linalg.eigvalsh(free - bound).min() > -1e-12
    assert (C @ bound).abs().max() < 1e-9  # nothing moves off the surface
    # Gorman & Hero (1990), theorem 1
    expected = free - free @ C.mT @ torch.linalg.solve(C @ free @ C.mT, C @ free)
    assert torch.allclose(bound, expected, rtol=1e-8, atol=1e-12)


def test_units_of_a_constraint_do_not_matter():
    J, C = random_information(0), torch.randn(2, 5, generator=rng(7), dtype=F)
    rescaled = C * torch.tensor([[1e9], [1e-9]], dtype=F)
    assert torch.allclose(cramer_rao(J, constraint=rescaled), cramer_rao(J, constraint=C), rtol=1e-9, atol=1e-12)


def test_a_constraint_may_make_identifiable_what_was_not():
    J = torch.ones(2, 2, dtype=F)  # only the sum is seen
    bound = cramer_rao(J, constraint=torch.tensor([[1.0, -1.0]], dtype=F))
    assert torch.allclose(bound, torch.full((2, 2), 0.25, dtype=F))


@pytest.mark.parametrize("seed", range(3))
def test_it_follows_a_change_of_parameters(seed):
    J, G = random_information(seed), torch.randn(5, 5, generator=rng(seed + 9), dtype=F)
    direct = cramer_rao(torch.linalg.inv(G).mT @ J @ torch.linalg.inv(G))  # information on g = G x
    assert torch.allclose(direct, cramer_rao(J, jacobian=G), rtol=1e-7)


def test_units_do_not_matter():
    units = torch.tensor([1e-9, 1.0, 1e9], dtype=F)
    J = TONE / units[:, None] / units
    assert torch.allclose(cramer_rao(J), cramer_rao(TONE) * units[:, None] * units, rtol=1e-9)


def test_a_batch_is_each_of_its_points():
    points = torch.stack([POINT, 2 * POINT])
    J = gaussian_fisher(points, tone, noise_var=0.5)
    assert J.shape == (2, 3, 3)
    assert torch.allclose(cramer_rao(J)[1], cramer_rao(gaussian_fisher(2 * POINT, tone, noise_var=0.5)), rtol=1e-9)


def test_a_shrunken_estimator_has_its_biased_bound():
    """`k y` for `y = x + w`: bias `(k - 1) x`, variance `k² var`; it meets the bound."""
    k, x, var = 0.6, 1.5, 0.8
    J = torch.tensor([[1 / var]], dtype=F)
    bound = biased_cramer_rao(J, torch.tensor([(k - 1) * x]), torch.tensor([[k - 1]]))
    assert bound.item() == pytest.approx(k**2 * var + (k - 1) ** 2 * x**2, rel=1e-6)
    assert bound.item() < 1 / J.item()  # below the bound on unbiased ones


# Errors


def test_what_cannot_be_identified_is_named():
    two_phases = gaussian_fisher(
        torch.tensor([1.0, 0.3, 0.8, 0.1], dtype=F), lambda p: tone(p) * torch.exp(1j * p[3]), noise_var=1.0
    )
    with pytest.raises(ValueError, match="phase, offset together cannot be identified"):
        cramer_rao(two_phases, (*NAMES, "offset"))
    blind = torch.diag(torch.tensor([2.0, 0.0, 1.0], dtype=F))
    with pytest.raises(ValueError, match=r"singular: phase cannot be identified"):
        cramer_rao(blind, NAMES)
    units = torch.tensor([1.0, 1e6, 1.0, 1e-6], dtype=F)
    with pytest.raises(ValueError, match="phase, offset together"):
        cramer_rao(two_phases * units[:, None] * units, (*NAMES, "offset"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian_fisher(POINT, None), "neither a mean nor a covariance"),
        (lambda: gaussian_fisher(POINT, tone), "noise_var is None"),
        (lambda: gaussian_fisher(POINT, tone, noise_var=0.0), "noise_var is 0"),
        (lambda: gaussian_fisher(POINT, tone, noise_var=torch.ones(3)), "one positive variance"),
        (lambda: cramer_rao(TONE * math.nan), "not finite"),
        (lambda: cramer_rao(TONE, ("a", "b")), "2|names"),
        (lambda: cramer_rao(TONE, wanted=[0], jacobian=torch.eye(3)), "not both"),
        (lambda: cramer_rao(TONE, constraint=torch.eye(3)), "nothing free"),
        (lambda: cramer_rao(TONE, constraint=torch.ones(1, 2)), r"pass \(constraints, 3\)"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
