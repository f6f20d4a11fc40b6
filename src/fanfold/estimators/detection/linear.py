"""Linear detectors: zero forcing, and LMMSE made unbiased. Verdú (1998), ch. 5 and 6."""

import torch

from fanfold.estimators.linear.lmmse import LMMSE
from fanfold.linops import refuse_rank_deficient, refuse_unseen, refuse_zero
from fanfold.observation import Estimate, Observation, in_working_precision, takes_measurements


class ZeroForcing:
    """`x_hat = A⁺ y`: no interference is left, and the noise is as strong as A is ill-conditioned.

    Example:
        >>> import torch, fanfold as ff
        >>> problem = ff.problems.MIMODetection()
        >>> x, obs = problem.sample(3, torch.Generator())
        >>> ff.estimators.ZeroForcing()(obs).x.shape == x.shape
        True
    """

    @takes_measurements
    @in_working_precision
    def __call__(self, obs: Observation) -> Estimate:
        """The estimate and, where the noise variance is known, its error variance, `(..., n)` each.

        Raises:
            ValueError: If the operator is unknown or zero, has fewer measurements than unknowns, is rank-deficient, or
                does not see an unknown.
        """
        if obs.A is None or obs.A.m < obs.A.n:
            raise ValueError(f"zero forcing needs an operator with at least as many measurements as unknowns: {obs.A}.")
        refuse_zero(obs.A)
        refuse_unseen(obs.A, "zero forcing")
        refuse_rank_deficient(obs.A)
        U, d, V = obs.A.svd()
        x = V @ ((U.H @ obs.y) / d)
        if obs.noise_var is None:
            return Estimate(x)
        rows = V.matrix().abs().square() / d.square()[..., None, :]
        return Estimate(x, obs.noise_var * rows.sum(-1).expand(x.shape))


class UnbiasedLMMSE:
    """LMMSE for independent entries of power `power`, scaled so that each entry comes through with gain 1.

    LMMSE shrinks entry i by `1 - var_i / power`; decisions on points of several amplitudes need that undone.

    Args:
        power: `E|x|²` of an entry.

    Example:
        >>> import torch, fanfold as ff
        >>> problem = ff.problems.MIMODetection()
        >>> x, obs = problem.sample(3, torch.Generator())
        >>> ff.estimators.UnbiasedLMMSE()(obs).x.shape == x.shape
        True
    """

    def __init__(self, power: float = 1.0):
        self.power = power

    @takes_measurements
    @in_working_precision
    def __call__(self, obs: Observation) -> Estimate:
        """The estimate and its error variance, `(..., n)` each.

        Raises:
            ValueError: If the operator or the noise variance is unknown, or the operator is zero.
        """
        if obs.A is None:
            raise ValueError("LMMSE needs the operator A and noise_var; pass both in the Observation.")
        shrunk = LMMSE(None, self.power * torch.eye(obs.A.n, dtype=obs.A.dtype, device=obs.A.device))(obs)
        assert shrunk.var is not None
        gain = (1 - shrunk.var / self.power).clamp_min(torch.finfo(shrunk.var.dtype).eps)
        gain = obs.A.seen().only(gain, 1)  # an unknown that nothing sees keeps its prior
        return Estimate(shrunk.x / gain, shrunk.var / gain)


def matched_filter_bound(obs: Observation) -> torch.Tensor:
    """Noise variance of each entry when all the others are known, `noise_var / ‖a_i‖²`: no detector has less.

    It is infinite for an entry that A does not see.
    """
    if obs.A is None or obs.noise_var is None:
        raise ValueError("the matched-filter bound needs the operator A and noise_var; pass both in the Observation.")
    return obs.A.seen().only(obs.noise_var / obs.A.gram_diagonal(), torch.inf)
