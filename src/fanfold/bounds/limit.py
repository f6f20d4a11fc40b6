"""The Bayes limit of a problem: the error at which state evolution settles."""

from typing import cast

from fanfold.bounds.gamp_evolution import gamp
from fanfold.bounds.state_evolution import amp, vamp
from fanfold.priors import Prior


def bayes_limit(problem) -> float | None:
    """NMSE of the posterior mean on a compressed-sensing problem as it grows; None where it is not known.

    Entries of variance `1 / m`, with or without columns made unit, follow AMP's evolution, or GAMP's where there is an
    likelihood. Row-orthogonal and conditioned matrices follow VAMP's on their singular values, and through an
    likelihood are not known. Where an evolution that knows nothing and one that
    starts from nearly all end in different errors, message passing stops above the posterior mean and neither is given.
    """
    prior = getattr(problem, "prior", None)
    if prior is None or not hasattr(problem, "ensemble"):
        return None
    prior, is_complex = cast(Prior, prior), problem.A.dtype.is_complex
    likelihood = getattr(problem, "likelihood", None)
    if likelihood is not None and problem.ensemble not in ("iid", "unit-columns"):
        return None
    tiny = 1e-12 * prior.power
    noise_var = max(problem.noise_var, tiny)

    def settled(start: float) -> float:
        if likelihood is not None:
            noise = problem.noise_var if likelihood.uses_noise_var else 0.0
            return gamp(prior, likelihood, problem.m / problem.n, noise, 50, is_complex=is_complex, start=start)[-1]
        if problem.ensemble in ("iid", "unit-columns"):
            return amp(prior, problem.m / problem.n, noise_var, is_complex=is_complex, start=start)[-1]
        return vamp(prior, problem.A.svd().s, problem.n, noise_var, is_complex=is_complex, start=start)[-1]

    least = 1e-9 if likelihood is None else 1e-4  # a likelihood's edges are not resolved to less
    ignorant, informed = settled(1.0), settled(max(noise_var / prior.power, least))
    if abs(ignorant - informed) > 0.01 * ignorant:
        return None
    limit = ignorant / prior.power
    return 0.0 if noise_var == tiny and limit < 1e-9 else limit
