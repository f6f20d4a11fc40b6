"""The settings that every channel network has, as plain data that a run directory keeps."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import nn

from fanfold.core.abilities import offers
from fanfold.core.settings import Checked
from fanfold.problems import Problem
from fanfold.problems.protocols import ChannelProblem


def at_least(least: int, **counts: int) -> None:
    """Refuse counts below the least.

    Raises:
        ValueError: That names the first of them.
    """
    for name, count in counts.items():
        if not count >= least:
            raise ValueError(f"{name} is {count}; pass at least {least}.")


@dataclass(frozen=True, kw_only=True)
class ChannelNetworkSettings(Checked):
    """The settings of all networks that estimate OFDM channels; each kind adds its own.

    Example:
        >>> from fanfold.estimators import ofdm
        >>> issubclass(ofdm.MixerSettings, ofdm.ChannelNetworkSettings), ofdm.MixerSettings().known_power
        (True, False)
    """

    network_seed: int = 0  # seed of the starting weights
    known_power: bool = False  # whether entries of the channel have unit mean power, which is then not measured

    def build(self, problem: Problem) -> nn.Module:
        """The untrained network for a problem.

        Raises:
            ValueError: If the problem has no OFDM channels, or a setting does not fit it.
        """
        if not offers(problem, ChannelProblem):
            raise ValueError(
                f"{type(self).__name__.removesuffix('Settings')} estimates OFDM channels and {type(problem).__name__} "
                "draws something else: train it on ofdm-channel or few-channels, or train neural."
            )
        return self._built(problem)

    @abstractmethod
    def _built(self, problem: ChannelProblem) -> nn.Module: ...
