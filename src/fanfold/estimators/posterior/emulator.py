"""A model of measurements given parameters, learned beside the networks that it teaches with draws of its own."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fanfold.estimators.posterior.features import Features
from fanfold.estimators.posterior.network_kinds import within
from fanfold.networks import StackedFourier, StackedMLP

MOST_FEATURES = 32  # whose covariance is learned whole
WIDTH, DEPTH = 64, 3  # of the networks of the mean
SLOWEST = 0.25  # frequency of the sines that they see
NOISE_WIDTH, NOISE_DEPTH = 64, 3  # of those of the covariance
FREEDOM = 4.0  # degrees of freedom of the law by which the mean is learned
BLUR = 0.3  # standard deviations of the parameters, by which a draw is moved
LEAST_LOG, LARGEST_LOG = -6.0, 9.0  # of the inverse standard deviations of features
PAIRS = 2  # of draws for the parameters of one, whose noise is opposite
BEYOND = 0.1  # of the range of the features, that a draw of them may lie beyond it
RATE = 2.5  # of the learning rate
LOAD = 1e-9  # of the variances, that is added to them
STEPS = 2  # of Gauss and Newton
FARTHEST_STEP = 0.3  # standard deviations of a parameter, in each


def may_be_emulated(features: Features) -> bool:
    """Whether an observation is a vector of few enough numbers."""
    return features.kind == "vector" and features.mean.numel() <= MOST_FEATURES


class Emulator(nn.Module):
    """`z | x ~ N(μ(x), (L(x) L(x)ᵀ)⁻¹)` of the features z of a vector, by networks that leave out a fold each.

    The covariance, `L(x) = C F(x)` with triangles C and F (Williams, 1996), is learned of what the mean leaves, and the
    mean by Student's law around it (Lange, Little & Taylor, 1989), half with the covariance of x and half with one for
    all x: learned together by the Gaussian law, what varies fast is taken for noise and no longer looked at (Seitzer et
    al., 2022, "On the pitfalls of heteroscedastic uncertainty estimation with probabilistic neural networks").

    Parameters for new draws are those of a batch, moved by a Gaussian and shrunk to keep their mean and covariance
    (West, 1993, "Approximating posterior distributions by mixture", section 2.2).

    Args:
        features: What is seen of an observation, a vector.
        d: The number of parameters.
        members: The number of networks.
        seed: The seed of the starting weights.
        decay: Its share of the weight decay.
        fastest: The frequency of the fastest sine that the networks of the mean see, in radians for a deviation of a
            parameter: of few draws fast ones would be learned by heart.

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
    precision: Tensor
    low: Tensor
    high: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(self, features: Features, d: int, members: int, seed: int, decay: float = 0.25, fastest: float = 4.0):
        super().__init__()
        self.m, self.decay = features.mean.numel(), decay
        entries = self.m * (self.m + 1) // 2
        dtype = features.mean.dtype
        self.means = StackedFourier(members, d, self.m, WIDTH, DEPTH, frequencies=(SLOWEST, fastest), seed=seed)
        self.noises = StackedMLP(members, d, entries, NOISE_WIDTH, NOISE_DEPTH, seed)
        self.noise = nn.Parameter(torch.zeros(members, 1, entries))  # the entries of C, logarithms on its diagonal
        for name, start in (("centre", torch.zeros(d)), ("root", torch.eye(d)), ("precision", torch.eye(d))):
            self.register_buffer(name, start.to(dtype))  # of the parameters; the last one in units of their spread
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
        spread = covariance.diagonal().sqrt()
        self.precision.copy_(torch.linalg.inv(covariance / spread / spread[:, None]))
        margin = BEYOND * (z.amax(0) - z.amin(0))
        self.low.copy_(z.amin(0) - margin)
        self.high.copy_(z.amax(0) + margin)

    def parameter_group(self, lr: float) -> dict[str, Any]:
        """Its parameters, for an optimiser."""
        return {"params": [*self.parameters()], "lr": RATE * lr, "decay_scale": self.decay, "matrices": True}

    def cost(self) -> int:
        """The number of weights that steps of Gauss and Newton multiply by, of the mean once for every slope."""
        slopes = len(self.centre) + 1
        return STEPS * slopes * self.means.cost() + self.means.cost() + self.noises.cost()

    def adopt(self, best: Mapping[str, Tensor], weights: Mapping[str, Tensor], which: Tensor) -> None:
        """Copy the weights of some members, `which` of `(members,)`, into the best ones, in place."""
        for part in ("means.", "noises."):
            StackedMLP.take(*(within(tensors, part) for tensors in (best, weights)), which=which)
        best["noise"][which] = weights["noise"][which]

    def losses(self, u: Tensor, z: Tensor) -> Tensor:
        """Minus log-likelihoods, `(members, batch)`, of features `(batch, features)` given parameters `(batch, d)`.

        The constant is left out.
        """
        a = self._scaled(u)
        return self._gaussian(self._triangle(self.noises(a)), self._white(a, z)) - self._log_volume()

    def training_losses(self, u: Tensor, z: Tensor) -> Tensor:
        """What is minimised, `(members, batch)`: losses of the mean by Student's law, and of the covariance."""
        a = self._scaled(u)
        white = self._white(a, z)
        F = self._triangle(self.noises(a))
        alike, weighed = (self._student(each) for each in (white, (white.unsqueeze(-2) @ F.detach()).squeeze(-2)))
        return 0.5 * (alike + weighed) - self._log_volume() + self._gaussian(F, white.detach())

    @torch.no_grad()
    def draws(self, u: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """New parameters `(batch, d)` near those of a batch, and draws of their features `(count, draws, batch, m)`.

        They come from torch's global generator, `count` members say them, and half of them have the noise of the other
        half with the other sign. Features that stand for two, as logarithms do, are the first of them.
        """
        noise = torch.randn_like(u) @ self.root.mT
        u = self.centre + (1 - BLUR**2) ** 0.5 * (u - self.centre) + BLUR * noise
        a = self._scaled(u)
        mean, entries = (_of_first(count, networks, a) for networks in (self.means, self.noises))
        C, F = self._triangle(self.noise[:count]), self._triangle(entries)
        white = torch.randn(PAIRS, *mean.shape, dtype=mean.dtype, device=mean.device).movedim(0, -1)
        white = torch.linalg.solve_triangular(F.mT, white, upper=True).movedim(-1, 1)
        noise = torch.linalg.solve_triangular(C, white, upper=False, left=False)
        mean = mean.unsqueeze(1)
        return u, torch.cat([mean + noise, mean - noise], 1).clamp(self.low, self.high)

    def climbed(self, z: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Steps of Gauss and Newton towards the most likely parameters, and the variances there, of each member.

        The prior counts as a Gaussian, and the covariance of the features as that of the start. Where the end is less
        likely than the start, that is what is said.

        Args:
            z: Features, `(batch, features)` or `(members, batch, features)`.
            u: Where each member starts, `(members, batch, d)`.

        Returns:
            Means and variances, `(members, batch, d)` each.
        """
        z = z[..., : self.m].clamp(self.low, self.high)
        scale, start = self._scale(), self._scaled(u)
        L = self._triangle(self.noise) @ self._triangle(self.noises(start))
        a, begun, covariance = start, start.new_zeros(()), start.new_zeros(())
        for step in range(STEPS):
            mean, slopes = self.means.linearised(a)
            slopes, left = slopes @ L, ((z - mean).unsqueeze(-2) @ L).squeeze(-2)
            if not step:
                begun = self._misfit(left, a)
            covariance = torch.linalg.inv(slopes @ slopes.mT + self.precision)
            uphill = (slopes @ left.unsqueeze(-1)).squeeze(-1) - a @ self.precision
            change = (covariance @ uphill.unsqueeze(-1)).squeeze(-1)
            a = a + change.clamp(-FARTHEST_STEP, FARTHEST_STEP)
        ended = self._misfit(((z - self.means(a)).unsqueeze(-2) @ L).squeeze(-2), a)
        a = torch.where((ended <= begun).unsqueeze(-1), a, start)
        var = covariance.diagonal(dim1=-2, dim2=-1)
        var = torch.where(var > 0, var, 1.0)  # that of the prior where rounding leaves none
        return self.centre + scale * a, scale.square() * var

    def _misfit(self, left: Tensor, a: Tensor) -> Tensor:
        """Twice minus a log-density, `(members, batch)`, but for what is the same everywhere."""
        return left.square().sum(-1) + ((a @ self.precision) * a).sum(-1)

    def _scale(self) -> Tensor:
        return self.root.square().sum(1).sqrt()

    def _scaled(self, u: Tensor) -> Tensor:
        return (u - self.centre) / self._scale()

    def _white(self, a: Tensor, z: Tensor) -> Tensor:
        """What the means leave of features, times C, `(members, batch, m)`."""
        return (z[:, : self.m].clamp(self.low, self.high) - self.means(a)) @ self._triangle(self.noise).squeeze(1)

    def _student(self, white: Tensor) -> Tensor:
        return (FREEDOM + self.m) / 2 * torch.log1p(white.square().sum(-1) / FREEDOM)

    def _gaussian(self, F: Tensor, white: Tensor) -> Tensor:
        """Minus the log-likelihood of what is left, in units of C, `(members, batch)`."""
        return 0.5 * (white.unsqueeze(-2) @ F).square().sum((-2, -1)) - F.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def _log_volume(self) -> Tensor:
        return self._triangle(self.noise).diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def _triangle(self, entries: Tensor) -> Tensor:
        """The triangles `(..., m, m)` of entries `(..., m (m + 1) / 2)`, with positive diagonals."""
        diagonal = entries.clamp(LEAST_LOG, LARGEST_LOG).exp()
        entries = torch.where(self.rows == self.columns, diagonal, entries)
        flat = entries.new_zeros(*entries.shape[:-1], self.m * self.m)
        return flat.index_copy(-1, self.rows * self.m + self.columns, entries).unflatten(-1, (self.m, self.m))


def _of_first(count: int, networks: nn.Module, a: Tensor) -> Tensor:
    """What the first members say, `(count, batch, outputs)`, without the others."""
    return functional_call(networks, {name: p[:count] for name, p in networks.named_parameters()}, (a,))
