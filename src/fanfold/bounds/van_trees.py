"""The Bayesian Cramér–Rao bound of Van Trees (1968), eq. 2.4.1.4: `MSE ≥ (E J(x) + E ∇log p(x) ∇log p(x)ᵀ)⁻¹`.

It holds for every estimator, biased or not, but takes for granted that the prior's density vanishes at the ends of its
support and has no atoms; where it does not, it says nothing, and this file refuses.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import hessian, vmap

from fanfold.bounds.assumptions import has_atoms
from fanfold.bounds.cramer_rao import cramer_rao
from fanfold.bounds.fisher import model_fisher, score
from fanfold.core.abilities import offers, require
from fanfold.observation import Observation
from fanfold.problems.protocols import KnownModel, KnownPriorInformation, periodic_of

DOUBT = 6.0  # standard errors at which an identity that the theorem needs counts as broken: 2e-9 by chance
LINES = 64  # draws through which the ends of the support are looked for
EDGE = 1e-6  # of the density at a draw, from which that at an end is no zero
SLACK = 0.02  # and the least that it must be broken by, as scores near an end have heavy tails


@dataclass(frozen=True)
class VanTrees:
    """The bound on the wanted parameters, and what it is made of.

    Attributes:
        covariance: Least mean squared error matrix `(w, w)`, float64.
        information: Information on all parameters, `(n, n)`: of the data and of the prior together.
        prior_information: The prior's part of it.
        names: Names of the wanted parameters.
        relative_error: Standard error of the trace of `covariance` over itself, from ten parts of the draws.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.Denoising(ff.priors.Gaussian(1.0), snr_db=0.0)
        >>> round(ff.bounds.van_trees(problem).mse.item(), 3)
        0.5
    """

    covariance: Tensor
    information: Tensor
    prior_information: Tensor
    names: tuple[str, ...]
    relative_error: float

    @property
    def mse(self) -> Tensor:
        """Least mean squared error of each wanted parameter, `(w,)`."""
        return self.covariance.diagonal()


def van_trees(problem: object, samples: int = 4000, seed: int = 0) -> VanTrees:
    """Van Trees' bound of a problem with a known prior and likelihood, averaged over draws of its prior.

    The data's information is that of Slepian and Bangs at each draw where the problem is a Gaussian model, and the
    score's mean square elsewhere. Parameters that are not wanted are nuisance: theirs is left out after inversion.

    Args:
        problem: A `problems.protocols.KnownModel`.
        samples: Draws of the prior.
        seed: Seed of the draws.

    Raises:
        ValueError: If the problem's likelihood is not known, or its prior has atoms or a density that jumps: the error
            names the parameter and the bound to use instead.
    """
    model = require(problem, KnownModel, "van_trees", "Learn a bound from draws instead: learned_bound.")
    x, obs = model.sample_all(samples, torch.Generator().manual_seed(seed))
    x = x.double()
    wanted = list(model.wanted)
    scores = score(x, model.log_prior)
    _refuse_irregular(x, scores, model.names, wanted, periodic_of(model, x.shape[-1]), model.log_prior)
    data = _data_information(model, x, obs)
    each = data + _prior_information(x, scores, model)
    parts = [cramer_rao(part.mean(0), model.names, wanted).trace() for part in each.chunk(10)]
    covariance = cramer_rao(each.mean(0), model.names, wanted)
    spread = (torch.stack(parts).std() / len(parts) ** 0.5 / covariance.trace()).item()
    names = tuple(model.names[i] for i in wanted)
    return VanTrees(covariance, each.mean(0), (each - data).mean(0), names, spread)


def _prior_information(x: Tensor, scores: Tensor, model: KnownModel) -> Tensor:
    """`s sᵀ` or `-∇² log p` at each draw: the same on average unless the density has kinks; the steadier one.

    The second derivative of a Gaussian prior is the same everywhere. A problem may know its `prior_information`
    `(n, n)`, where draws cannot tell: the variance of a raised cosine's squared score is infinite.
    """
    known = model.prior_information if offers(model, KnownPriorInformation) else None
    if known is not None:
        return known.to(x).expand(len(x), -1, -1)
    squares = scores.unsqueeze(-1) * scores.unsqueeze(-2)
    bends = -vmap(hessian(model.log_prior))(x)
    gap = squares - bends
    same = (gap.mean(0).abs() <= 5 * gap.std(0) / len(x) ** 0.5 + 1e-12).all() and torch.isfinite(bends).all()
    return bends if same and bends.var(0).sum() < squares.var(0).sum() else squares


def _data_information(model: KnownModel, x: Tensor, obs: Observation) -> Tensor:
    """Fisher information at each draw `(samples, n, n)`; where there is no Gaussian model, the square of its score."""
    information = model_fisher(model, x)
    if information is not None:
        return information
    scores = score(x, model.log_likelihood, obs)
    return scores.unsqueeze(-1) * scores.unsqueeze(-2)


def _refuse_irregular(
    x: Tensor,
    scores: Tensor,
    names: tuple[str, ...],
    wanted: list[int],
    periodic: tuple[bool, ...],
    log_prior: Callable[[Tensor], Tensor],
) -> None:
    """Integration by parts, put to the test on draws: `E ∂_i log p = 0` and `E x_j ∂_i log p = -[i = j]`.

    Of a nuisance parameter on a circle the ends are one point, and only products with wanted parameters matter.
    """
    for i, name in enumerate(names):
        if has_atoms(x[:, i]):
            raise ValueError(
                f"the prior of {name} has atoms, and Van Trees' bound needs a density: hold estimators against state "
                "evolution (bayes_limit) or the exact MMSE (exact_mmse)."
            )
        turns = periodic[i] and i not in wanted
        slopes = scores[:, i : i + 1] * x[:, i].std()  # without units
        tests, expected = [slopes], [0.0]
        for j in wanted if turns else range(len(names)):
            tests.append(slopes * (x[:, j : j + 1] - x[:, j].mean()) / x[:, j].std())
            expected.append(-1.0 if i == j else 0.0)
        products = torch.cat(tests, -1)
        gap = (products.mean(0) - torch.tensor(expected, dtype=x.dtype)).abs()
        broken = (gap > DOUBT * products.std(0) / len(x) ** 0.5) & (gap > SLACK)
        jumps = not turns and _jumps(x[:LINES], i, log_prior)
        if jumps or broken.any() or not torch.isfinite(products).all():
            raise ValueError(
                f"the prior's density of {name} jumps or does not vanish at an end of its support (is it uniform?), "
                "and Van Trees' bound does not cover it: use Ziv–Zakai (ziv_zakai) or the exact MMSE (exact_mmse)."
            )


def _jumps(x: Tensor, i: int, log_prior: Callable[[Tensor], Tensor]) -> bool:
    """Whether the density is still there where it ends, along parameter i through each of some draws.

    What averages over draws cannot show where the mass near an end is small: a Gaussian cut off at three deviations.
    """
    at_draws = log_prior(x)
    for side in (-1.0, 1.0):
        inside, outside = x.clone(), x.clone()
        outside[:, i] += side * 4 * (x[:, i].max() - x[:, i].min())
        ended = torch.isneginf(log_prior(outside))
        for _ in range(60):
            middle = (inside + outside) / 2
            within = torch.isfinite(log_prior(middle)).unsqueeze(-1)
            inside, outside = torch.where(within, middle, inside), torch.where(within, outside, middle)
        if (ended & (log_prior(inside) - at_draws > math.log(EDGE))).any():
            return True
    return False
