"""Bernoulli-Gaussian entries whose support is a Markov chain. Schniter (2010), section III."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.priors.base import Prior, capped_power, gaussian_log_prob, in_single, log_odds, raised


@dataclass(frozen=True, eq=False)
class SupportChain(Prior):
    """Entry i is `N(0, var_i)` with probability `p_i`, else zero, and follows its neighbour with `persistence`.

    An entry that follows is zero after a zero, and after a non-zero it is one with probability `p_i / p_{i-1}`; any
    other is drawn afresh. So the marginals are `p`, and non-zeros come in clusters. Entries are not independent: their
    densities are conditional on those before them, and add up to that of the signal. Posteriors use the whole signal.

    Raises:
        ValueError: If `p` rises, or a probability is out of range.

    Example:
        >>> import fanfold as ff, torch
        >>> prior = ff.priors.SupportChain(p=torch.full((64,), 0.1), var=torch.ones(64))
        >>> prior.sample((5, 64), torch.Generator().manual_seed(0)).shape
        torch.Size([5, 64])
    """

    p: Tensor  # (n,) probability that an entry is not zero, falling
    var: Tensor  # (n,) variance of an entry that is not zero
    persistence: float = 0.8  # probability that an entry follows its neighbour

    independent = False

    def __post_init__(self):
        if not ((self.p > 0) & (self.p < 1)).all() or (self.p.diff() > 0).any():
            raise ValueError("p is not between 0 and 1 or rises along the signal; pass probabilities that fall.")
        if not 0 <= self.persistence < 1:
            raise ValueError(f"persistence is {self.persistence}; it is a probability below 1.")

    @property
    def power(self) -> float:
        return (self.p * self.var).mean().item()

    def sample(self, shape, generator, dtype=torch.float32):
        u = torch.rand(shape, generator=generator, device=generator.device)
        after_zero, after_one = self._transitions(u)
        support = [u[..., 0] < self.p[0]]
        for i in range(1, shape[-1]):
            support.append(u[..., i] < torch.where(support[-1], after_one[i], after_zero[i]))
        return circular(shape, generator, dtype, self.var.to(u)) * torch.stack(support, -1)

    def log_prob(self, x):
        p = self._tensors(x)[0]
        after_zero, after_one = self._transitions(x)
        before = (x != 0).roll(1, -1)
        expected = torch.where(before, after_one, after_zero)
        expected = torch.cat([p[:1].expand(*x.shape[:-1], 1), expected[..., 1:]], -1)
        active = torch.log(expected) + gaussian_log_prob(x, self._tensors(x)[1])
        return torch.where(x == 0, torch.log1p(-expected), active)

    @in_single
    def log_evidence(self, r, v):
        var, v = self._tensors(r)[1], torch.as_tensor(v, dtype=r.real.dtype, device=r.device)
        expected = self._forward(log_odds(r, var, v))
        one, zero = gaussian_log_prob(r, var + v), gaussian_log_prob(r, raised(v))
        noisy = torch.logaddexp(torch.log(expected) + one, torch.log1p(-expected) + zero)
        return torch.where(v == 0, self.log_prob(r), noisy)

    @in_single
    def posterior(self, r, v, given=None):
        var, v = self._tensors(r)[1], torch.as_tensor(v, dtype=r.real.dtype, device=r.device)
        gain, ratio = var / (var + v), log_odds(r, var, v)
        active = torch.sigmoid(torch.logit(self._forward(ratio)) + ratio + self._backward(ratio))
        return r * (active * gain), active * (gain * v + (1 - active) * capped_power(r, var, v) * gain**2)

    def _tensors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return self.p.to(like.real), self.var.to(like.real)

    def _transitions(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The probability that entry i is not zero after a zero and after a non-zero; meaningless for entry 0."""
        p = self._tensors(like)[0]
        afresh = (1 - self.persistence) * p
        return afresh, afresh + self.persistence * (p / p.roll(1)).clamp_max(1.0)

    def _forward(self, ratio: Tensor) -> Tensor:
        """The probability of a non-zero given all r before: `(..., n)`, from log density ratios."""
        after_zero, after_one = self._transitions(ratio)
        expected = [self.p[0].to(ratio).expand(ratio.shape[:-1])]
        for i in range(1, ratio.shape[-1]):
            active = torch.sigmoid(torch.logit(expected[-1]) + ratio[..., i - 1])
            expected.append(after_zero[i] + (after_one[i] - after_zero[i]) * active)
        return torch.stack(expected, -1)

    def _backward(self, ratio: Tensor) -> Tensor:
        """The log ratio of the densities of all r after entry i, given a non-zero and given a zero there."""
        after_zero, after_one = self._transitions(ratio)
        ratios = [torch.zeros_like(ratio[..., 0])]
        for i in range(ratio.shape[-1] - 1, 0, -1):
            ahead = ratio[..., i] + ratios[-1]
            one, zero = (torch.logaddexp(torch.log(a[i]) + ahead, torch.log1p(-a[i])) for a in (after_one, after_zero))
            ratios.append(one - zero)
        return torch.stack(ratios[::-1], -1)
