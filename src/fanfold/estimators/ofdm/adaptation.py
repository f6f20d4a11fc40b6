"""Adapting a trained channel network to where it is deployed, from few channels, or from their noisy pilots alone.

Without channels the risk at the pilots is estimated without bias, Stein (1981), with a probed divergence, Ramani, Blu &
Unser (2008).
"""

import zlib
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fanfold.core.abilities import ability, require
from fanfold.core.settings import Checked
from fanfold.core.streams import generator_of
from fanfold.core.units import power
from fanfold.estimators.base import Kept, MeasuresNoise, Preparable, ScaleAware, SelfJudged
from fanfold.estimators.ofdm.beam_mixer import MixerSettings
from fanfold.estimators.ofdm.grid_cnn import CNNSettings
from fanfold.estimators.ofdm.learned_filters import FilterSettings
from fanfold.estimators.ofdm.unfolded_admm import ADMMSettings
from fanfold.estimators.ofdm.unfolded_oamp import OAMPSettings
from fanfold.observation import Estimate, Estimator, Observation, takes_measurements
from fanfold.problems import FewChannels, Problem

PROBE_STEP = 0.05  # in standard deviations of the noise

NetworkSettings = MixerSettings | FilterSettings | CNNSettings | ADMMSettings | OAMPSettings


@dataclass(frozen=True)
class AdaptedSettings(Checked):
    """A channel network that goes on training on the channels of one place, or on their pilots alone.

    Example:
        >>> import fanfold as ff
        >>> settings = ff.estimators.ofdm.AdaptedSettings(ff.estimators.ofdm.MixerSettings(stages=1))
        >>> settings.build(ff.problems.FewChannels()).settings == settings
        True
    """

    network: NetworkSettings = field(default_factory=MixerSettings)  # the network that is adapted
    known_channels: bool = True  # whether channels are known; if not, pilots and the noise variance are
    probe_seed: int = 0  # seed of the probes of the divergence

    def build(self, problem: Problem) -> "Adapted":
        """The untrained network, which learns in closed form when training begins.

        Raises:
            ValueError: If the problem has no OFDM channels or does not know them, or a setting does not fit it.
        """
        if isinstance(problem, FewChannels) and not problem.known and self.known_channels:
            raise ValueError(
                "the problem's channels are not known, so that a network cannot be trained on them: adapt a trained "
                "one to their pilots in Python, Adapted(net, known=False), or let the problem know them."
            )
        return Adapted(self.network.build(problem), self.known_channels, self.probe_seed, prepared=False)


class Adapted(nn.Module):
    """A channel network that goes on training elsewhere; what it learned in closed form stays.

    To export one, export its `net`.

    Args:
        net: A trained network, with `forward(obs)` and `losses(obs, x)`; it is changed, so pass a copy to keep it.
        known: Whether channels are known there; if not, pilots and the noise variance are.
        seed: The seed of the probes of the divergence.
        prepared: Whether the network has learned in closed form what it needs; kept with the weights, so that a loaded
            network does not learn it anew.

    Raises:
        ValueError: If the network has no `losses`.

    Example:
        >>> import fanfold as ff
        >>> place = ff.problems.OFDMChannel("umi", "comb-4")
        >>> net = ff.estimators.ofdm.BeamMixer.of(place)  # and train it
        >>> ff.estimators.ofdm.Adapted(net, known=True).settings.network == net.settings
        True
    """

    prepared: Tensor  # a boolean

    training_defaults = {"steps": 1500, "batch": 32, "lr": 3e-3, "validate_every": 250, "validation_samples": 500}

    def __init__(self, net: nn.Module, known: bool, seed: int = 0, *, prepared: bool = True):
        super().__init__()
        _self_judged(net)
        self.net, self.known, self.seed = net, known, seed
        self.register_buffer("prepared", torch.tensor(prepared))

    @property
    def settings(self) -> AdaptedSettings | None:
        """The settings that build the network again; None where its inner one is of the user's own."""
        kept = ability(self.net, Kept)
        settings = None if kept is None else kept.settings
        return AdaptedSettings(settings, self.known, self.seed) if isinstance(settings, NetworkSettings) else None

    @property
    def measures_noise(self) -> bool:
        """Whether the inner network measures a noise variance that is not known."""
        measuring = ability(self.net, MeasuresNoise)
        return measuring is not None and measuring.measures_noise

    @property
    def scale_equivariant(self) -> bool:
        """Whether the inner network is scale-equivariant."""
        aware = ability(self.net, ScaleAware)
        return aware is not None and aware.scale_equivariant

    def prepare(self, x: Tensor, obs: Observation) -> None:
        """Let a network that is yet untrained learn in closed form; one that was trained stays as it is.

        Raises:
            ValueError: If it would have to learn from channels that are not known.
        """
        learner = ability(self.net, Preparable)
        if self.prepared or learner is None:
            return
        if not self.known:
            raise ValueError(
                "an untrained network learns in closed form from channels, and they are not known: train it where they "
                "are and adapt that, Adapted(net, known=False), or pass known=True."
            )
        learner.prepare(x, obs)
        self.prepared.fill_(value=True)

    @takes_measurements
    def forward(self, obs: Observation) -> Estimate:
        """The channel and its error variance, as the inner network estimates them."""
        return self.net(obs)

    def losses(self, obs: Observation, x: Tensor) -> Tensor:
        """The network's losses, or the estimated risk at the pilots over the noise variance.

        Raises:
            ValueError: If neither channels nor the noise variance are known.
        """
        if self.known:
            return _self_judged(self.net).losses(obs, x)
        if obs.noise_var is None or obs.A is None:
            raise ValueError("without channels the risk takes noise_var and A; pass both in the Observation.")
        # No stream: the checksum stands in its place, which makes the probes the same when a run resumes. It is the
        # number of a stream by chance alone, once in 2^32 / 9 batches. `Stream.PROBES` would move all that was adapted.
        drawn = zlib.crc32(obs.y.detach().cpu().resolve_conj().numpy().tobytes())
        return unbiased_risk(self.net, obs, generator_of(self.seed, drawn))


def _self_judged(net: object) -> SelfJudged:
    return require(net, SelfJudged, "Adapted", "Pass a channel network.")


def unbiased_risk(estimator: Estimator, obs: Observation, generator: torch.Generator) -> Tensor:
    """An unbiased estimate of `E‖A x_hat − A x‖² / (m noise_var)` of each observation, `(batch,)`; complex y.

    `‖A x_hat(y) − y‖²/m − noise_var + 2 noise_var Re bᴴ(A x_hat(y + εb) − A x_hat(y)) / (ε m)` with `b ~ CN(0, I)`.
    """
    assert obs.A is not None
    assert obs.noise_var is not None
    noise_var = obs.noise_var.expand(len(obs.y), 1)
    b = torch.randn(obs.y.shape, generator=generator, dtype=obs.y.dtype, device=generator.device).to(obs.y.device)
    step = PROBE_STEP * noise_var.sqrt()
    fitted = obs.A @ estimator(obs).x
    moved = obs.A @ estimator(Observation.unchecked(obs.y + step * b, obs.A, obs.noise_var)).x
    divergence = ((moved - fitted) * b.conj()).real.mean(-1, keepdim=True) / step
    risk = power(fitted - obs.y).mean(-1, keepdim=True) / noise_var - 1 + 2 * divergence
    return risk.flatten()
