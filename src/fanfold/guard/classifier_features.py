"""What a classifier of truths and posterior draws sees: numbers of an observation, and features that it has learned."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from fanfold.core.streams import Stream, generator_of
from fanfold.estimators.posterior.features import fit_linear
from fanfold.guard.sbc import real
from fanfold.networks.layers import linear
from fanfold.observation import Observation

WIDTH, STEPS, BATCH, LR, DECAY = 32, 300, 64, 5e-3, 1e-2  # of the perceptron
MOST_SHOWN = 12  # numbers of an observation that are shown as they are; of more, a linear estimate and components
COMPONENTS = 6
FAR = 6.0  # standard deviations beyond which all is as far


class Shown:
    """What a classifier is shown of observations: a few standardised real numbers.

    They are those of y and, where it differs, the log of the noise variance; of many, the best linear estimate of the
    parameters and the first principal components.

    Args:
        obs: Observations that the numbers are standardised by.
        truth: Their true parameters, `(samples, n)`.
    """

    def __init__(self, obs: Observation, truth: Tensor):
        self.mean, self.scale = torch.zeros(()), torch.ones(())
        self.project: Tensor | None = None
        z = self._raw(obs)
        self.mean, self.scale = z.mean(0), z.std(0)
        self.scale = torch.where(self.scale > 1e-12 * self.mean.abs(), self.scale, 1.0)
        if z.shape[-1] > MOST_SHOWN:
            z = self._near(obs)
            varies = truth.std(0) > 0
            W = fit_linear(z, truth[:, varies]).W[:MOST_SHOWN]
            components = torch.linalg.svd(z - z.mean(0), full_matrices=False).Vh[:COMPONENTS]
            project = torch.cat([W, components]).mT
            spread = (z @ project).std(0)
            self.project = project / torch.where(spread > 0, spread, 1.0)

    def numbers(self, obs: Observation) -> Tensor:
        """What is shown, `(samples, numbers)`."""
        z = self._near(obs)
        return z if self.project is None else (z @ self.project).clamp(-FAR, FAR)

    def _near(self, obs: Observation) -> Tensor:
        return ((self._raw(obs) - self.mean) / self.scale).clamp(-FAR, FAR)

    @staticmethod
    def _raw(obs: Observation) -> Tensor:
        y = real(obs.y.flatten(1)).double()
        if obs.noise_var is None or obs.noise_var.ndim == 0:
            return y
        level = obs.noise_var.double().expand(*obs.y.shape[:-1], 1).flatten(1)[:, :1]
        return torch.cat([y, torch.log(level.clamp_min(1e-300))], -1)


def learned_features(rows: Tensor, v: Tensor, seed: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The features of a perceptron that has learned which row of each pair is the truth, the first one.

    Args:
        rows: Truths and draws `(1 + draws, pairs, n)`.
        v: What is shown of each observation, `(pairs, numbers)`.
        seed: The seed of the perceptron and of its batches.

    Returns:
        A function of further rows and observations that gives features `(rows, pairs, features)`, of zero mean over the
        draws of each observation.
    """
    generator = generator_of(seed, Stream.PROBES, 1)
    inputs = rows.shape[-1] + v.shape[-1]
    trunk = nn.Sequential(linear(inputs, WIDTH, generator), nn.SiLU(), linear(WIDTH, WIDTH, generator), nn.SiLU())
    head = linear(WIDTH, 1, None)
    optimiser = torch.optim.AdamW([*trunk.parameters(), *head.parameters()], lr=LR, weight_decay=DECAY)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, total_steps=STEPS)
    joined = torch.cat([rows, v.expand(len(rows), -1, -1)], -1).float()
    with torch.enable_grad():
        for _ in range(STEPS):
            pick = torch.randint(len(v), (min(BATCH, len(v)),), generator=generator)
            scores = head(trunk(joined[:, pick])).squeeze(-1).mT  # (batch, rows), the truth first
            loss = functional.cross_entropy(scores, torch.zeros(len(pick), dtype=torch.long))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rates.step()

    @torch.no_grad()
    def features(rows: Tensor, v: Tensor) -> Tensor:
        phi = trunk(torch.cat([rows, v.expand(len(rows), -1, -1)], -1).float()).double()
        return phi - phi.mean(0)

    return features
