"""The Bayes limit of a problem: the error at which state evolution settles, or that of the exact posterior."""

from torch import Tensor

from fanfold.bounds.gamp_evolution import gamp
from fanfold.bounds.state_evolution import amp, vamp
from fanfold.core.abilities import offers
from fanfold.core.units import power
from fanfold.observation import Observation
from fanfold.problems.protocols import RandomMatrix, likelihood_of, posterior_of

IID = ("iid", "unit-columns")  # ensembles that follow the evolutions of AMP and GAMP


def bayes_limit(problem: object) -> float | None:
    """NMSE of the posterior mean on a random matrix as it grows; None where it is not known.

    Entries of variance `1 / m`, with or without columns made unit, follow AMP's evolution, or GAMP's where measurements
    come through a likelihood. Row-orthogonal and conditioned matrices follow VAMP's on their singular values, and
    through a likelihood are not known. Where an evolution that knows nothing and one that starts from nearly all end in
    different errors, message passing stops above the posterior mean and neither is given.

    Args:
        problem: Any; the limit is known of a `RandomMatrix`.

    Example:
        >>> import fanfold as ff
        >>> limit = ff.bounds.bayes_limit(ff.problems.CompressedSensing(snr_db=40.0))
        >>> 1e-5 < limit < 1e-4, ff.bounds.bayes_limit(ff.problems.Tone()) is None
        (True, True)
    """
    if not offers(problem, RandomMatrix) or problem.prior is None:
        return None
    prior, is_complex = problem.prior, problem.A.dtype.is_complex
    likelihood = likelihood_of(problem)
    if likelihood is not None and problem.ensemble not in IID:
        return None
    tiny = 1e-12 * prior.power
    noise_var = max(problem.noise_var, tiny)

    def settled(start: float) -> float:
        if likelihood is not None:
            noise = problem.noise_var if likelihood.uses_noise_var else 0.0
            return gamp(prior, likelihood, problem.m / problem.n, noise, 50, is_complex=is_complex, start=start)[-1]
        if problem.ensemble in IID:
            return amp(prior, problem.m / problem.n, noise_var, is_complex=is_complex, start=start)[-1]
        return vamp(prior, problem.A.svd().s, problem.n, noise_var, is_complex=is_complex, start=start)[-1]

    least = 1e-9 if likelihood is None else 1e-4  # a likelihood's edges are not resolved to less
    ignorant, informed = settled(1.0), settled(max(noise_var / prior.power, least))
    if abs(ignorant - informed) > 0.01 * ignorant:
        return None
    limit = ignorant / prior.power
    return 0.0 if noise_var == tiny and limit < 1e-9 else limit


def bayes_limit_of(problem: object, x: Tensor, obs: Observation) -> float | None:
    """NMSE of the posterior mean: by state evolution, else by the exact posterior on these draws; None if unknown.

    Args:
        problem: Any; see `bayes_limit` and `problems.protocols.posterior_of`.
        x: Signals that were drawn, `(samples, n)`.
        obs: What was observed of them.
    """
    limit, posterior = bayes_limit(problem), posterior_of(problem)
    if limit is not None or posterior is None:
        return limit
    var = posterior(obs).var
    return None if var is None else (var.double().sum() / power(x).double().sum()).item()
