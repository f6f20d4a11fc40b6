"""What state evolution takes for granted, put to the test: the operator, the noise variance, the prior.

Each test gives words if the assumption is broken and nothing else. Spectrum of iid matrices: Marchenko & Pastur (1967).
"""

import math

import torch
from torch import Tensor

from fanfold.core.units import power
from fanfold.linops import LinearOperator
from fanfold.observation import Observation
from fanfold.priors import Prior


def marchenko_pastur_distance(A: LinearOperator) -> float:
    """Largest distance of the distribution of `s²` from that of an iid matrix of this shape, scale apart.

    With `λ = 1 + q + 2 √q cos t`, the density `√((b - λ)(λ - a)) / (2π q λ)` on `[a, b] = (1 ∓ √q)²` becomes
    `2 sin² t / (π λ)` in t.
    """
    q = min(A.m, A.n) / max(A.m, A.n)
    seen = A.svd().s.double().square().cpu().sort().values
    seen = seen / seen.mean()
    t = torch.linspace(math.pi, 0, 4001, dtype=torch.float64)
    at = 1 + q + 2 * math.sqrt(q) * torch.cos(t)
    share = torch.cumulative_trapezoid(2 * torch.sin(t) ** 2 / (math.pi * at.clamp_min(1e-12)), -t)
    share = torch.cat([share.new_zeros(1), share])
    i = torch.searchsorted(at, seen).clamp(1, len(at) - 1)
    weight = ((seen - at[i - 1]) / (at[i] - at[i - 1]).clamp_min(1e-15)).clamp(0, 1)
    expected = torch.where(seen < at[0], 0.0, share[i - 1] + weight * (share[i] - share[i - 1]))
    steps = torch.arange(len(seen), dtype=torch.float64) / len(seen)
    return float(torch.maximum((expected - steps).abs(), (expected - steps - 1 / len(seen)).abs()).max())


def has_atoms(draws: Tensor) -> bool:
    """Whether some value comes again and again among draws `(samples,)` of a parameter.

    Of a density in single precision two or three draws may be the same by chance, and five are not.
    """
    return int(torch.unique(draws, return_counts=True)[1].max()) >= 5


def not_iid(A: LinearOperator) -> str | None:
    """Whether A cannot be iid with unit columns.

    Eigenvalues repel each other, so that those of an iid matrix with k of them stay within about `log k / k` of their
    places (Götze & Tikhomirov, 2016): twice that is allowed.
    """
    k, s = min(A.m, A.n), A.svd().s
    distance, allowed = marchenko_pastur_distance(A), 2 * math.log(k) / k
    scale = s.double().square().sum().item() / A.n
    if distance > allowed:
        condition = s.max().item() / max(s.min().item(), 1e-300)
        return (
            f"A is not iid: condition number {condition:.1f}, and its spectrum lies {distance:.2f} from "
            f"Marchenko and Pastur's, {allowed:.2f} allowed"
        )
    if abs(scale - 1) > 5 * math.sqrt(2 / (A.m * A.n)) + 0.02:
        return f"the columns of A have a norm of {math.sqrt(scale):.3g} and not of 1"
    return None


def not_haar(A: LinearOperator) -> str | None:
    """Whether the right singular vectors of A are far from isotropic: their entries have too heavy tails.

    `n² E|V_ij|⁴` is 3 for Haar matrices (complex: 2); a Kronecker product of two has its square, a mask n. Flatter
    ones, such as Fourier rows, do no harm.
    """
    _, s, V = A.svd()
    if s.max() <= 1.01 * s.min():  # they may be turned among themselves; what they span together may not
        share = A.gram_diagonal().double()
        spread = (share.std() / share.mean()).item()
        if spread <= 2 * math.sqrt(2 / A.m):  # Haar rows: √(2 / m), less for complex ones and where m nears n
            return None
        return f"A is not rotationally invariant: of some unknowns it sees far more than of others, by {spread:.1f}"
    columns = torch.arange(0, V.n, max(1, V.n // 64), device=A.device)
    entries = power(V @ torch.eye(V.n, dtype=A.dtype, device=A.device)[columns]).double()
    kurtosis = (entries.square().mean() / entries.mean() ** 2).item()
    haar = 2 if A.dtype.is_complex else 3
    if kurtosis <= 1.25 * haar + 10 * haar / math.sqrt(entries.numel()):
        return None
    return (
        f"A is not rotationally invariant at this size, as a Kronecker product is not: the fourth moment of its right "
        f"singular vectors is {kurtosis:.1f} and would be {haar}"
    )


def wrong_noise(obs: Observation, measured: float, x: Tensor | None = None, slack: float = 0.0) -> list[str]:
    """Whether the noise variance is another than was given: `measured` by a run or, if x is known, in the noise itself.

    What a run measures errs by a tenth under a wrong prior, and by `slack`.
    """
    assert obs.A is not None
    if obs.noise_var is None:
        return []
    given, share = obs.noise_var.mean().item(), 0.4
    if x is not None:
        measured, share, slack = power(obs.y - obs.A @ x).mean().item(), 5 * math.sqrt(2 / obs.y.numel()), 0.0
    if given / (1 + share) - slack <= measured <= given * (1 + share) + slack:
        return []
    return [f"the noise variance: told {given:.2g}, found {max(measured, 0.0):.2g}"]


def wrong_power(obs: Observation, prior: Prior | None, x: Tensor | None = None) -> list[str]:
    """Whether signals are stronger or weaker than the prior says, by the energy of y or, if it is known, of x."""
    assert obs.A is not None
    if prior is None:
        return []
    if x is not None:
        energies = power(x).mean(-1).flatten().double()
    else:
        noise = 0.0 if obs.noise_var is None else obs.noise_var.mean().item()
        gain = obs.A.svd().s.double().square().sum().item() / obs.A.m
        energies = (power(obs.y).mean(-1).flatten().double() - noise) / gain
    measured, count = energies.mean().item(), len(energies)
    spread = energies.std().item() / math.sqrt(count) if count > 1 else measured * math.sqrt(20 / obs.A.n)
    if abs(measured - prior.power) <= 4 * spread:
        return []
    return [f"the prior: signals have a power of {measured:.3g}, and {prior} one of {prior.power:.3g}"]
