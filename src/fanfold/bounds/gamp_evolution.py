"""State evolution of Bayes-optimal GAMP, through any likelihood. Rangan (2011); Javanmard & Montanari (2013).

On large A with iid entries of variance `1 / m`, z = A x and its prediction p are jointly Gaussian with
`E|z - p|² = tau_p`, and one number an iteration, the mean squared error, says all.
"""

import math

import torch
from torch import Tensor

from fanfold.bounds.state_evolution import mmse
from fanfold.likelihoods import Likelihood
from fanfold.priors import Prior

DRAWS = 20_000  # where outcomes cannot be listed; the same ones in every iteration, for errors of 1 % or 0.05 dB


def gamp(
    prior: Prior,
    likelihood: Likelihood,
    delta: float,
    noise_var: float,
    iterations: int = 100,
    *,
    is_complex: bool = False,
    start: float = 1.0,
) -> list[float]:
    """Error variance per unknown, `E|x_hat - x|²`, after each iteration of GAMP that knows prior and likelihood.

    Divided by the prior's power it is the NMSE of the estimate as it stands, without any rescaling. A one-bit
    likelihood tells the scale of x against that of its noise; where there is none the prior's power is taken for that
    of each signal, which holds as n grows: at `n = 1000` and `p = 0.1` the power of a signal varies by 17 %.

    Args:
        prior: Prior of each unknown, with zero mean.
        likelihood: Likelihood of each measurement.
        delta: `m / n`; A has iid entries of variance `1 / m`.
        noise_var: Noise variance of the likelihood.
        iterations: How many.
        is_complex: Whether x is circular complex.
        start: Error to start from, as a share of the signal's power: 1 knows nothing, close to 0 nearly all.
    """
    error, errors = start * prior.power, []
    for _ in range(iterations):
        known = max(prior.power - error, 0.0) / delta
        tau_s = output_precision(likelihood, known, error / delta, noise_var, is_complex=is_complex)
        error = mmse(prior, 1 / tau_s if tau_s > 0 else math.inf, is_complex=is_complex)
        errors.append(error)
    return errors


def output_precision(
    likelihood: Likelihood, known: float, tau: float, noise_var: float, *, is_complex: bool = False
) -> float:
    """Mean curvature of the likelihood, `E[score²]`, where `p ~ N(0, known)` and `z ~ N(p, tau)`.

    By the trapezoidal rule over p, fine enough for the likelihood's edges, and a sum over outcomes; by seeded draws
    where these cannot be listed.
    """
    if likelihood.linear:
        return 1 / (tau + noise_var) if tau + noise_var > 0 else math.inf
    if is_complex:  # two axes with half of every variance, and each says a quarter
        return output_precision(likelihood, known / 2, tau / 2, noise_var / 2) / 2
    tau_p, noise = (torch.tensor(v, dtype=torch.float64) for v in (tau, noise_var))
    if likelihood.outcomes is None:
        return _by_draws(likelihood, known, tau_p, noise)
    width = math.sqrt(max(tau + noise_var, 1e-18))
    nodes = min(max(401, int(64 * math.sqrt(known) / width)), 20_001)
    u = torch.linspace(-8, 8, nodes, dtype=torch.float64)
    p, density = math.sqrt(known) * u, torch.exp(-u.square() / 2) / math.sqrt(2 * math.pi)
    total = torch.zeros_like(p)
    for outcome in likelihood.outcomes:
        y = torch.full_like(p, outcome)
        chance = torch.exp(likelihood.log_evidence(y, p, tau_p, noise))
        total = total + chance * likelihood.score(y, p, tau_p, noise)[1]
    return float(torch.trapezoid(total * density, u))


def _by_draws(likelihood: Likelihood, known: float, tau: Tensor, noise_var: Tensor) -> float:
    generator = torch.Generator().manual_seed(0)
    p = math.sqrt(known) * torch.randn(DRAWS, generator=generator, dtype=torch.float64)
    z = p + tau.sqrt() * torch.randn(DRAWS, generator=generator, dtype=torch.float64)
    y = likelihood.sample(z, generator, noise_var.item())
    return float(likelihood.score(y, p, tau, noise_var)[1].mean())
