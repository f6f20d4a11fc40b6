"""A model of measurements given parameters, learned beside the networks that it teaches with draws of its own."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fanfold.estimators.posterior.features import Features
from fanfold.estimators.posterior.network_kinds import within
from fanfold.networks import StackedMLP

MOST_FEATURES = 32  # whose covariance is learned whole
WIDTH, DEPTH = 64, 3  # of its networks
BLUR = 0.3  # standard deviations of the parameters, by which a draw is moved
LEAST_LOG, LARGEST_LOG = -6.0, 9.0  # of the inverse standard deviations of features
BEYOND = 0.1  # of the range of the features, that a draw of them may lie beyond it
RATE, DECAY = 0.75, 0.25  # of the learning rate, and of the weight decay
LOAD = 1e-9  # of the variances, that is added to them


def may_be_emulated(features: Features) -> bool:
    """Whether an observation is a vector of few enough numbers."""
    return features.kind == "vector" and features.mean.numel() <= MOST_FEATURES


class Emulator(nn.Module):
    """`z | x ~ N(μ(x), (L(x) L(x)ᵀ)⁻¹)` of the features z of a vector, by networks that leave out a fold each.

    The factor of the inverse covariance is learned, so that the likelihood needs no inverse (Williams, 1996, "Using
    neural networks to model conditional multivariate densities"). Parameters for new draws are those of a batch, moved
    by a Gaussian and shrunk to keep their mean and covariance (West, 1993, "Approximating posterior distributions by
    mixture", section 2.2).

    Args:
        features: What is seen of an observation, a vector.
        d: The number of parameters.
        members: The number of networks.
        seed: The seed of the starting weights.

    Example:
        >>> import torch, fanfold as ff
        >>> from fanfold.estimators.posterior.emulator import Emulator
        >>> from fanfold.estimators.posterior.features import Features
        >>> emulator = Emulator(Features(ff.Observation(torch.ones(2, 3)), "vector"), d=4, members=2, seed=0)
        >>> emulator.losses(torch.ones(5, 4), torch.ones(5, 3)).shape
        torch.Size([2, 5])
    """

    centre: Tensor
    root: Tensor
    low: Tensor
    high: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(self, features: Features, d: int, members: int, seed: int):
        super().__init__()
        self.m = features.mean.numel()
        dtype = features.mean.dtype
        self.networks = StackedMLP(members, d, self.m + self.m * (self.m + 1) // 2, WIDTH, DEPTH, seed)
        for name, start in (("centre", torch.zeros(d)), ("root", torch.eye(d))):  # of the parameters
            self.register_buffer(name, start.to(dtype))
        for name in ("low", "high"):  # of the features
            self.register_buffer(name, torch.zeros(self.m, dtype=dtype))
        rows, columns = torch.tril_indices(self.m, self.m)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.to(dtype)

    def prepare(self, u: Tensor, z: Tensor) -> None:
        """Learn the moments of parameters `(samples, d)` and the range of features `(samples, features)`."""
        u, z = u.double(), z[:, : self.m]
        covariance = torch.cov(u.mT).reshape(u.shape[1], -1)
        covariance = covariance + LOAD * covariance.diagonal().diag_embed()
        self.centre.copy_(u.mean(0))
        self.root.copy_(torch.linalg.cholesky(covariance))
        margin = BEYOND * (z.amax(0) - z.amin(0))
        self.low.copy_(z.amin(0) - margin)
        self.high.copy_(z.amax(0) + margin)

    def parameter_group(self, lr: float) -> dict[str, Any]:
        """Its parameters, for an optimiser."""
        return {"params": [*self.parameters()], "lr": RATE * lr, "decay_scale": DECAY, "matrices": True}

    def adopt(self, best: Mapping[str, Tensor], weights: Mapping[str, Tensor], which: Tensor) -> None:
        """Copy the weights of some members, `which` of `(members,)`, into the best ones, in place."""
        self.networks.take(*(within(tensors, "networks.") for tensors in (best, weights)), which=which)

    def losses(self, u: Tensor, z: Tensor) -> Tensor:
        """Minus log-likelihoods, `(members, batch)`, of features `(batch, features)` given parameters `(batch, d)`.

        The constant is left out.
        """
        mean, factor = self._of(u)
        error = z[:, : self.m].clamp(self.low, self.high) - mean
        white = (factor.mT @ error.unsqueeze(-1)).squeeze(-1)
        return 0.5 * white.square().sum(-1) - factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @torch.no_grad()
    def draws(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """New parameters `(batch, d)` near those of a batch, and features of them by each member `(members, batch, m)`.

        They come from torch's global generator. Features that stand for two, as logarithms do, are the first of them.
        """
        noise = torch.randn_like(u) @ self.root.mT
        u = self.centre + (1 - BLUR**2) ** 0.5 * (u - self.centre) + BLUR * noise
        mean, factor = self._of(u)
        white = torch.randn_like(mean).unsqueeze(-1)
        z = mean + torch.linalg.solve_triangular(factor.mT, white, upper=True).squeeze(-1)
        return u, z.clamp(self.low, self.high)

    def _of(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Means `(members, batch, m)` and the factors of the inverse covariances `(members, batch, m, m)`."""
        scale = self.root.square().sum(1).sqrt()
        mean, entries = self.networks((u - self.centre) / scale).tensor_split([self.m], -1)
        factor = entries.new_zeros(*entries.shape[:-1], self.m, self.m)
        factor[..., self.rows, self.columns] = entries
        diagonal = factor.diagonal(dim1=-2, dim2=-1).clamp(LEAST_LOG, LARGEST_LOG).exp()
        return mean, factor.tril(-1) + diagonal.diag_embed()
