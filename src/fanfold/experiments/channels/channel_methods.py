"""What the studies of channel estimation run: classical filters, a Gaussian mixture, networks for all SNRs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from fanfold.estimators.ofdm import (
    ADMMSettings,
    ChannelCovariance,
    ChannelNetworkSettings,
    CNNSettings,
    FilterSettings,
    Interpolation,
    KroneckerGMM,
    MixerSettings,
    Mixture,
    OAMPSettings,
    Wiener,
)
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.observation import Estimator
from fanfold.problems import OFDMChannel
from fanfold.propagation.drawing import cached_channels
from fanfold.propagation.tr38901 import TR38901
from fanfold.training.fit import fit

LS, SPLINE, ROBUST = "LS, linear", "LS, spline", "LMMSE, robust"
FREQUENCY, SPACE, BOTH = "LMMSE, frequency", "LMMSE, space", "LMMSE, space ⊗ frequency"
CNN, ADMM_NET, OAMP_NET = "residual CNN", "unfolded ADMM", "unfolded OAMP"
FILTERS, MIXER = "learned filters (unfolded GMM)", "beam mixer"
NETWORKS: dict[str, type[ChannelNetworkSettings]] = {
    CNN: CNNSettings,
    ADMM_NET: ADMMSettings,
    OAMP_NET: OAMPSettings,
    FILTERS: FilterSettings,
    MIXER: MixerSettings,
}
TRAINED_DB = (-2.0, 22.0)  # SNRs that every network is trained for


@dataclass(frozen=True)
class Size:
    """The size of a study: how much is drawn, trained and tested."""

    draws: int  # of the study's own UMi channels; 0 takes those that are shipped
    samples: int  # that covariances and mixtures are learned from
    components: int  # of the Gaussian mixture
    rounds: int  # of its expectation-maximisation
    steps: Mapping[str, int]  # of training, by network; the others are left out
    tests: int
    batch: int = 64
    source_seed: int = field(default=11)


def study_channels(size: Size, watch: Watcher) -> OFDMChannel:
    """The problem: UMi from TR 38.901, 64 antennas and 48 subcarriers at 30 kHz, or the shipped draw.

    Raises:
        ImportError: If the channels are not in the cache yet and Sionna is missing.
    """
    if not size.draws:
        return OFDMChannel("umi", snr_db=TRAINED_DB)
    drawing: Any = watch("drawing UMi")
    drawn = cached_channels(TR38901("umi"), size.draws, seed=size.source_seed, on_event=drawing)
    return OFDMChannel(drawn.path, snr_db=TRAINED_DB)


def gmm_name(size: Size) -> str:
    """The name of the Gaussian mixture, with its number of components."""
    return f"Kronecker-GMM, {size.components}"


class Methods:
    """Builds every estimator for a pilot pattern; what does not depend on pilots is learned once."""

    def __init__(self, problem: OFDMChannel, size: Size, seed: int, watch: Watcher):
        self.size, self.seed, self.watch = size, seed, watch
        self.covariance = ChannelCovariance.of(problem, size.samples, seed)
        self.mixture: Mixture | None = None
        if size.components:
            self.mixture = Mixture.of(problem, size.components, size.samples, size.rounds, seed=seed)

    def __call__(self, problem: OFDMChannel) -> dict[str, Estimator]:
        """All estimators, by name."""
        return self.classical(problem) | self.networks(problem)

    def classical(self, problem: OFDMChannel) -> dict[str, Estimator]:
        """The estimators without training by gradients."""
        robust = ChannelCovariance.robust(problem.layout)
        estimators: dict[str, Estimator] = {
            LS: Interpolation.of(problem),
            SPLINE: Interpolation.of(problem, "spline"),
            ROBUST: Wiener.of(problem, robust, "grid"),
            SPACE: Wiener.of(problem, self.covariance, "space"),
            FREQUENCY: Wiener.of(problem, self.covariance, "grid"),
            BOTH: Wiener.of(problem, self.covariance),
        }
        if self.mixture:
            estimators[gmm_name(self.size)] = KroneckerGMM.of(problem, self.mixture)
        return estimators

    def networks(self, problem: OFDMChannel) -> dict[str, Estimator]:
        """The networks, each trained for all SNRs at once."""
        nets = {name: NETWORKS[name](network_seed=self.seed).build(problem) for name in self.size.steps}
        return {
            name: trained(net, name, problem, self.size.steps[name], self.size.batch, self.seed, self.watch)
            for name, net in nets.items()
        }


def trained(
    net: nn.Module, name: str, problem: OFDMChannel, steps: int, batch: int, seed: int, watch: Watcher
) -> nn.Module:
    """A network after so many steps."""
    with torch.enable_grad():
        return fit(
            net,
            problem,
            steps=steps,
            batch=batch,
            validate_every=max(1, steps // 4),
            validation_samples=400,
            seed=seed,
            on_event=watch(f"{name}, {problem.pilots}"),
        )


def pilots_of(patterns: Sequence[str], subcarriers: int) -> dict[str, int]:
    """Pilots that each pattern has on one antenna and symbol."""
    return {pattern: len(range(0, subcarriers, int(pattern.removeprefix("comb-")))) for pattern in patterns}
