"""Van Trees' bound of a simulator without a likelihood: the joint score `s = ∇_x log p(x, y)` is learned from pairs.

Score matching: Hyvärinen (2005), theorem 1. The bound is `(E s sᵀ)⁻¹`, Van Trees (1968), eq. 2.4.1.4.
"""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.bounds.assumptions import has_atoms

WIDTH = 64  # hidden units
BATCH = 512
RATE = 1e-2  # of Adam
CHECKS = 10  # of the score on validation pairs: the best of them is kept
FOLDS = 2
UNFINISHED = 0.03  # by which E f fᵀ and -E ∇f may differ, which are the same for the score
BOOTSTRAP = 300
FEW = 10_000  # pairs below which the result says so
JUMP = 0.6  # see `_refuse_jumps`


class LearnedBoundWarning(UserWarning):
    """A learned bound is an estimate, and not a limit that is proven.

    Example:
        >>> import fanfold as ff, warnings
        >>> warnings.simplefilter("ignore", ff.bounds.LearnedBoundWarning)
    """


@dataclass(frozen=True)
class LearnedBound:
    """The bound as far as pairs tell it.

    Attributes:
        mse: The bound on each parameter, `(n,)`, float64, from scores that were learned on other pairs than they are
            applied to: an information that is on average too small, and hence a bound that is rather too high.
        naive: `(E f fᵀ)⁻¹` of scores on the pairs that they were learned from: too low where few pairs are learned by
            heart, optimistic, and too high where the score is not learned to its end.
        low: Lower end of the 95 % bootstrap interval of `mse`.
        high: Upper end.
        information: `E s sᵀ`, `(n, n)`.
        samples: Pairs.
        text: What to keep in mind.

    Example:
        >>> import fanfold as ff, torch, warnings
        >>> warnings.simplefilter("ignore", ff.bounds.LearnedBoundWarning)
        >>> x, obs = ff.problems.LinearGaussian(n=1, m=1).sample(4000, torch.Generator().manual_seed(0))
        >>> bound = ff.bounds.learned_bound(x, obs.y, steps=0)
        >>> bool(bound.low < bound.mse < bound.high), bound.samples
        (True, 4000)
    """

    mse: Tensor
    naive: Tensor
    low: Tensor
    high: Tensor
    information: Tensor
    samples: int
    text: str

    def __str__(self) -> str:
        rows = zip(self.mse.tolist(), self.low.tolist(), self.high.tolist(), strict=True)
        return "\n".join([*(f"x{i}: {m:.3g} ({a:.3g} to {b:.3g})" for i, (m, a, b) in enumerate(rows)), self.text])


def learned_bound(x: Tensor, y: Tensor, steps: int = 1000, seed: int = 0) -> LearnedBound:
    """The Bayesian Cramér-Rao bound, learned from pairs alone.

    The score is linear in x and y, which is exact for Gaussian pairs, plus a network of one hidden layer that starts at
    zero and is kept as far as it helps on pairs set aside. For any f, `E s sᵀ ⪰ -E ∇f - E ∇fᵀ - E f fᵀ`, with equality
    where f is the score: the information is the right side on pairs that f was not learned from, so that an error of f
    counts squared and makes it smaller.

    The prior needs a density that vanishes at the ends of its support, as for Van Trees: uniform priors and atoms are
    refused as far as draws show them.

    Args:
        x: Parameters `(samples, n)`, real.
        y: Observations `(samples, ...)`, real or complex.
        steps: Steps of the network's training in each fold; 0 is a linear score.
        seed: Seed of the network, the folds and the bootstrap.

    Raises:
        ValueError: If there are fewer than 10 pairs to an entry, or the prior is seen to have atoms or jumps.

    Warns:
        LearnedBoundWarning: Always.
    """
    x, y = _checked(x, y)
    generator = torch.Generator().manual_seed(seed)
    scale = x.std(0)
    z = torch.cat([(x - x.mean(0)) / scale, (y - y.mean(0)) / y.std(0).clamp_min(1e-12)], -1)
    n = x.shape[-1]
    folds = torch.randperm(len(z), generator=generator).chunk(FOLDS)
    terms, squares = [], []
    for fold in folds:
        rest = torch.cat([other for other in folds if other is not fold])
        score = _Score(z[rest], n, steps, generator)
        terms.append(score.information(z[fold]))
        values = score(z[rest])
        squares.append(values.mT @ values / len(rest))
    each = torch.cat(terms)
    unit = torch.outer(scale, scale)
    mse = _bound(each.mean(0)) * scale.square()
    draws = _bootstrap(each, generator) * scale.square()
    low, high = torch.quantile(draws, 0.025, dim=0), torch.quantile(draws, 0.975, dim=0)
    naive = _bound(torch.stack(squares).mean(0)) * scale.square()
    text = _text(len(x), (naive.sum() / mse.sum()).item())
    warnings.warn(text, LearnedBoundWarning, stacklevel=2)
    return LearnedBound(mse, naive, low, high, each.mean(0) / unit, len(x), text)


class _Score:
    """`f(z) = L z + V (tanh(U z + b) - mean)` for standardised pairs z, of which the first n entries are x."""

    def __init__(self, z: Tensor, n: int, steps: int, generator: torch.Generator):
        self.n, size = n, z.shape[-1]
        train, check = z[: -len(z) // 5], z[-len(z) // 5 :]
        every = torch.cat([z, torch.ones(len(z), 1, dtype=z.dtype)], -1)
        # minimises E ‖f‖² / 2 + div f over linear f: L E z zᵀ = -(I 0)
        self.linear = -torch.linalg.pinv(every.mT @ every / len(z), hermitian=True)[:n]
        U = torch.randn(WIDTH, size, generator=generator, dtype=z.dtype) / size**0.5
        b = torch.randn(WIDTH, generator=generator, dtype=z.dtype)
        self.weights = [U, b, torch.zeros(n, WIDTH, dtype=z.dtype)]
        if steps:
            self._learn(train, check, steps, generator)

    def _learn(self, train: Tensor, check: Tensor, steps: int, generator: torch.Generator) -> None:
        weights = [w.clone().requires_grad_() for w in self.weights]
        optimiser = torch.optim.Adam(weights, RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        best, least = self.weights, self._loss(check, self.weights).item()
        for step in range(1, steps + 1):
            rows = torch.randint(len(train), (BATCH,), generator=generator)
            optimiser.zero_grad()
            self._loss(train[rows], weights).backward()
            optimiser.step()
            schedule.step()
            if step % max(1, steps // CHECKS) == 0:
                with torch.no_grad():
                    loss = self._loss(check, weights).item()
                if loss < least:
                    best, least = [w.detach().clone() for w in weights], loss
        self.weights = best

    def _loss(self, z: Tensor, weights: list[Tensor]) -> Tensor:
        """Hyvärinen's, `E ‖f‖² / 2 + E div f`."""
        U, b, V = weights
        hidden = torch.tanh(z @ U.mT + b)
        f = z @ self.linear[:, :-1].mT + self.linear[:, -1] + hidden @ V.mT
        divergence = self.linear[:, : self.n].trace() + (1 - hidden.square()) @ (V.mT * U[:, : self.n]).sum(-1)
        return (0.5 * f.square().sum(-1) + divergence).mean()

    def __call__(self, z: Tensor) -> Tensor:
        U, b, V = self.weights
        return z @ self.linear[:, :-1].mT + self.linear[:, -1] + torch.tanh(z @ U.mT + b) @ V.mT

    def information(self, z: Tensor) -> Tensor:
        """`-∇f - ∇fᵀ - f fᵀ` at each pair, `(samples, n, n)`."""
        U, b, V = self.weights
        f, bend = self(z), 1 - torch.tanh(z @ U.mT + b).square()
        slope = self.linear[:, : self.n] + torch.einsum("ih,sh,hj->sij", V, bend, U[:, : self.n])
        return -slope - slope.mT - f.unsqueeze(-1) * f.unsqueeze(-2)


def _bound(information: Tensor) -> Tensor:
    """The diagonal of the inverse, `(..., n)`; infinite where the information is not positive."""
    values, vectors = torch.linalg.eigh(information)
    inverse = torch.where(values > 0, 1 / values.clamp_min(1e-300), torch.inf)
    return torch.einsum("...ik,...k->...i", vectors.square(), inverse)


def _bootstrap(each: Tensor, generator: torch.Generator) -> Tensor:
    """Bounds of resampled pairs, `(draws, n)`."""
    count = len(each)
    draws = []
    for _ in range(BOOTSTRAP):
        times = torch.bincount(torch.randint(count, (count,), generator=generator), minlength=count).to(each)
        draws.append(_bound((times @ each.flatten(1) / count).unflatten(-1, each.shape[1:])))
    return torch.stack(draws)


def _text(samples: int, ratio: float) -> str:
    words = [
        f"Learned from {samples} pairs: a learned bound is an estimate and no proof, and optimistic on few samples."
    ]
    if samples < FEW:
        words.append(f"These are few; at {FEW} and more it settles.")
    words.append(
        f"Scores judged on the pairs that they were learned from would give {ratio:.2f} times this bound, which errs "
        "high where the score is hard to learn."
    )
    if ratio > 1 + UNFINISHED:
        words.append("The score is not learned to its end, as the two would then agree: take more steps.")
    words.append(
        "The interval is that of resampled pairs with the scores as they are. The prior's density has to vanish at the "
        "ends of its support."
    )
    return " ".join(words)


def _checked(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both flat and in double precision."""
    if x.ndim != 2 or x.is_complex() or len(x) != len(y):
        raise ValueError(f"x is {tuple(x.shape)} and y {tuple(y.shape)}; pass real (samples, n) and (samples, ...).")
    y = torch.view_as_real(y) if y.is_complex() else y
    x, y = x.double(), y.reshape(len(y), -1).double()
    entries = x.shape[-1] + y.shape[-1]
    if len(x) < max(100, 10 * entries):
        raise ValueError(f"{len(x)} pairs of {entries} entries are too few; pass at least {max(100, 10 * entries)}.")
    for i, column in enumerate(x.mT):
        if has_atoms(column):
            raise ValueError(
                f"parameter {i} has atoms, and the bound needs a density; use the exact MMSE (exact_mmse)."
            )
        _refuse_jumps(i, column)
    return x, y


def _refuse_jumps(i: int, column: Tensor) -> None:
    """A density that jumps at an end has twice the draws in twice the distance; one that vanishes more.

    The ratio of the distances of k and 2k draws from the end is a half with a standard deviation of `1 / √(8k)` where
    it jumps, and `√½` and more where it falls to zero linearly or faster.
    """
    k = max(50, int(len(column) ** 0.5))
    for ordered in (column.sort().values, (-column).sort().values):
        if len(column) >= 20 * k and (ordered[k] - ordered[0]) < JUMP * (ordered[2 * k] - ordered[0]):
            raise ValueError(
                f"the density of parameter {i} seems to jump at an end of its support (is it uniform?), where this "
                "bound does not hold: use Ziv-Zakai (ziv_zakai) or the exact MMSE (exact_mmse)."
            )
