"""The mean of a channel under a mixture of Kronecker covariances. Koller, Fesl, Turan & Utschick (2022)."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fanfold.estimators.ofdm.filter_bank import FilterBank, Filtered, from_left
from fanfold.estimators.ofdm.mixture import Mixture, learn_mixture
from fanfold.observation import Estimate, Observation
from fanfold.problems.radio.ofdm_channel import OFDMChannel

CHUNK = 64  # observations at a time: each takes an estimate of every component
ROUNDING = torch.finfo(torch.float32).eps


class KroneckerGMM(nn.Module):
    """The posterior mean of a mixture: LMMSE filters of all components, weighted by how well each explains the pilots.

    With one component it is LMMSE over space and grid. The error variance is that of the mixture, by the law of total
    variance. Scale-equivariant: power and, where it is unknown, noise variance are measured for each observation.

    Args:
        problem: Layout and pilots.
        mixture: Of channels of unit mean power.
        known_power: Whether entries of the channel are known to have unit mean power, which is then not measured.

    Raises:
        ValueError: If the mixture is of another layout.
    """

    grid_var: Tensor

    def __init__(self, problem: OFDMChannel, mixture: Mixture, *, known_power: bool = False):
        super().__init__()
        self.known_power = known_power
        self.bank = FilterBank(problem, *mixture.modes.shape[:2]).requires_grad_(requires_grad=False)
        self.bank.set(mixture)
        own = mixture.grid.diagonal(dim1=1, dim2=2).real.clamp_min(0)
        self.register_buffer("grid_var", own.float())  # (components, entries)

    @classmethod
    def of(
        cls,
        problem: OFDMChannel,
        components: int = 16,
        samples: int = 20_000,
        rounds: int = 15,
        seed: int = 0,
        on_round: Callable[[Mixture, float], None] | None = None,
    ) -> "KroneckerGMM":
        """After so many rounds of expectation-maximisation.

        Args:
            problem: Where channels come from, and which pilots the estimator takes.
            components: Of the mixture.
            samples: Training channels.
            rounds: Of expectation-maximisation.
            seed: Of the draws and the first components.
            on_round: Called after each round with the mixture, which can be saved and gone on from, and the mean
                log-likelihood of the draws before it.
        """
        if rounds < 1:
            raise ValueError(f"rounds is {rounds}; pass at least one.")
        steps, mixture = learn_mixture(problem, components, samples, seed=seed), None
        for mixture, likelihood in itertools.islice(steps, rounds):
            if on_round:
                on_round(mixture, likelihood)
        assert mixture is not None
        return cls(problem, mixture)

    def forward(self, obs: Observation) -> Estimate:
        """The channel `(..., n)` and its error variance.

        Raises:
            ValueError: If the pilots are not those that the estimator was made for.
        """
        y, noise_var = pairs_of(obs, self.bank)
        parts = [
            self.of_pairs(y[k : k + CHUNK], None if noise_var is None else noise_var[k : k + CHUNK])
            for k in range(0, len(y), CHUNK)
        ]
        x, var = (torch.cat(part) for part in zip(*parts, strict=True))
        return estimate_of(x, var, obs)

    def of_pairs(self, y: Tensor, noise_var: Tensor | None) -> tuple[Tensor, Tensor]:
        """In real pairs: y `(batch, m, 2)`, the noise variance `(batch, 1)` -> `(batch, n, 2)`, `(batch, n)`."""
        bank = self.bank
        z, noise_var, scale = bank.scaled(y, noise_var, known_power=self.known_power)
        filtered = bank(z, noise_var)
        x = bank.at_grid(bank.mean(filtered))
        each = bank.each_mean(filtered).square().sum(2)  # (batch, components, entries, antennas)
        total = ((self._variances(filtered) + each) * filtered.shares[..., None, None]).sum(1)
        size = x.square().sum(-1)
        var = torch.maximum(total.transpose(1, 2).flatten(1) - size, ROUNDING * size)
        return x * scale.sqrt()[..., None], var * scale

    def _variances(self, filtered: Filtered) -> Tensor:
        """Of the errors of each component, `(batch, components, entries, antennas)`."""
        bank = self.bank
        U = bank.U.square().sum(0)  # (components, eigenvectors, antennas)
        back = (from_left(bank.basis) @ from_left(bank.back)[..., : bank.rank]).unflatten(-2, (2, -1)).square().sum(-3)
        own = self.grid_var[..., None] * (bank.of_space[:, None] @ U)
        return (own - back @ filtered.gains @ (bank.of_space[..., None] * U)).clamp_min(0)


def pairs_of(obs: Observation, bank: FilterBank) -> tuple[Tensor, Tensor | None]:
    """Pilots as real pairs `(batch, m, 2)` in single precision, and their noise variance `(batch, 1)`, where known."""
    wanted = bank.antennas * bank.pilots
    if obs.y.shape[-1] != wanted:
        raise ValueError(
            f"y has {obs.y.shape[-1]} entries; this estimator takes the {bank.pilots} pilots of each of "
            f"{bank.antennas} antennas, (..., {wanted})."
        )
    leading, y = obs.y.shape[:-1], obs.y.reshape(-1, wanted).to(torch.complex64)
    noise_var = obs.noise_var
    if noise_var is not None:
        noise_var = noise_var.float().expand(*leading, 1).reshape(-1, 1)
    return torch.view_as_real(y.resolve_conj()), noise_var


def estimate_of(x: Tensor, var: Tensor, obs: Observation) -> Estimate:
    """Pairs `(batch, n, 2)` and variances `(batch, n)` in the shape and precision of an observation."""
    leading = obs.y.shape[:-1]
    channel = torch.view_as_complex(x.contiguous()).to(obs.y.dtype)
    return Estimate(channel.reshape(*leading, -1), var.to(channel.real.dtype).reshape(*leading, -1))
