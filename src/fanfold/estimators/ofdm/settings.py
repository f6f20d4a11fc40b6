"""What every channel network is told, as plain data that a run directory keeps."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import nn

from fanfold.problems import OFDMChannel, Problem


def at_least(least: int, **counts: int) -> None:
    """Refuse counts below the least.

    Raises:
        ValueError: That names the first of them.
    """
    for name, count in counts.items():
        if not count >= least:
            raise ValueError(f"{name} is {count}; pass at least {least}.")


@dataclass(frozen=True, kw_only=True)
class ChannelNetworkSettings:
    """Of a network that estimates OFDM channels; each kind adds its own."""

    network_seed: int = 0  # of the starting weights
    known_power: bool = False  # whether entries of the channel have unit mean power, which is then not measured

    def build(self, problem: Problem) -> nn.Module:
        """The untrained network.

        Raises:
            ValueError: If the problem has no OFDM channels, or a setting does not fit it.
        """
        if not isinstance(problem, OFDMChannel):
            raise ValueError(
                f"{type(self).__name__.removesuffix('Settings')} estimates OFDM channels and {type(problem).__name__} "
                "draws something else: train it on ofdm-channel, or train neural."
            )
        return self._built(problem)

    @abstractmethod
    def _built(self, problem: OFDMChannel) -> nn.Module: ...
