"""The mean of a channel under a mixture of Kronecker covariances. Koller, Fesl, Turan & Utschick (2022)."""

import torch
from torch import Tensor

from fanfold.core.complex_pairs import from_left
from fanfold.estimators.ofdm.filter_bank import FilteredPilots, MixtureNetwork
from fanfold.estimators.ofdm.front_end import UnitPower, estimate_of
from fanfold.estimators.ofdm.mixture import Mixture
from fanfold.estimators.ofdm.scale import at_any_scale
from fanfold.measurements import takes_measurements
from fanfold.observation import Estimate, Observation
from fanfold.problems.protocols import ChannelProblem

OBSERVATIONS_AT_A_TIME = 64  # each takes an estimate of every component
ROUNDING = torch.finfo(torch.float32).eps


class KroneckerGMM(MixtureNetwork):
    """The posterior mean of a mixture: LMMSE filters of all components, weighted by how well each explains the pilots.

    With one component it is LMMSE over space and grid. The error variance is that of the mixture, by the law of total
    variance. Scale-equivariant: power and, where it is unknown, noise variance are measured for each observation.

    Args:
        antennas: Number of the array's antennas.
        mask: Where the pilots are, `(symbols, subcarriers)`.
        mixture: Mixture of channels of unit mean power.
        known_power: Whether entries of the channel are known to have unit mean power, which is then not measured.

    Raises:
        ValueError: If the mixture is of another layout.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.OFDMChannel("umi", "comb-4")
        >>> mixture = ff.estimators.ofdm.Mixture.of(problem, components=2, samples=100, rounds=2)
        >>> ff.estimators.ofdm.KroneckerGMM.of(problem, mixture).measures_noise
        True
    """

    grid_var: Tensor

    def __init__(self, antennas: int, mask: Tensor, mixture: Mixture, *, known_power: bool = False):
        super().__init__(antennas, mask, *mixture.modes.shape[:2], known_power=known_power)
        self.bank.requires_grad_(requires_grad=False)
        self.start(mixture)
        grid_var = mixture.grid.diagonal(dim1=1, dim2=2).real.clamp_min(0)
        self.register_buffer("grid_var", grid_var.float())  # (components, entries)

    @classmethod
    def of(
        cls, problem: ChannelProblem, mixture: Mixture | None = None, *, known_power: bool = False
    ) -> "KroneckerGMM":
        """The estimator for a problem's layout and pilots.

        Args:
            problem: Layout and pilots.
            mixture: Mixture of channels of unit mean power; `Mixture.of` the problem if None.
            known_power: Whether entries of the channel are known to have unit mean power.
        """
        mixture = Mixture.of(problem) if mixture is None else mixture
        return cls(problem.layout.antennas, problem.mask, mixture, known_power=known_power)

    @takes_measurements
    @at_any_scale
    def forward(self, obs: Observation) -> Estimate:
        """The channel `(..., n)` and its error variance.

        Raises:
            ValueError: If the pilots are not those that the estimator was made for.
        """
        y, noise_var = self.front_end.pairs_of(obs)
        if torch.compiler.is_compiling():  # whoever runs the program says how many there are at once
            return estimate_of(*self.at_scale(y, noise_var), obs)
        size = OBSERVATIONS_AT_A_TIME
        parts = [
            self.at_scale(y[k : k + size], None if noise_var is None else noise_var[k : k + size])
            for k in range(0, len(y), size)
        ]
        x, var = (torch.cat(part) for part in zip(*parts, strict=True))
        return estimate_of(x, var, obs)

    def at_unit_power(self, pilots: UnitPower) -> tuple[Tensor, Tensor]:
        """See `ChannelNetwork`."""
        bank = self.bank
        filtered = bank(bank.modes_of(pilots.y), pilots.noise_var)
        x = bank.at_grid(bank.mean(filtered))
        each = bank.each_mean(filtered).square().sum(2)  # (batch, components, entries, antennas)
        total = ((self._variances(filtered) + each) * filtered.shares[..., None, None]).sum(1)
        size = x.square().sum(-1)
        var = torch.maximum(total.transpose(1, 2).flatten(1) - size, ROUNDING * size)
        return x, var

    def _variances(self, filtered: FilteredPilots) -> Tensor:
        """Variances of the errors of each component, `(batch, components, entries, antennas)`."""
        bank = self.bank
        U = bank.U.square().sum(0)  # (components, eigenvectors, antennas)
        back = (from_left(bank.basis) @ from_left(bank.back)[..., : bank.rank]).unflatten(-2, (2, -1)).square().sum(-3)
        prior_var = self.grid_var[..., None] * (bank.of_space[:, None] @ U)
        return (prior_var - back @ filtered.gains @ (bank.of_space[..., None] * U)).clamp_min(0)
