"""The classical peers of every problem of OFDM channels."""

from fanfold.estimators.base import known_peers
from fanfold.estimators.ofdm.covariance import ChannelCovariance
from fanfold.estimators.ofdm.interpolation import Interpolation
from fanfold.estimators.ofdm.wiener import Wiener
from fanfold.observation import Estimator
from fanfold.problems import FewChannels, OFDMChannel

LEAST_SQUARES = "least squares, linear"


@known_peers.register
def channel_peers(problem: OFDMChannel) -> dict[str, Estimator]:
    """Least squares, LMMSE over the grid of each antenna, and LMMSE over antennas and grid."""
    return _peers(problem)


@known_peers.register
def few_channel_peers(problem: FewChannels) -> dict[str, Estimator]:
    """The peers of a channel problem, with the covariance of the few channels; least squares if they are not known."""
    return _peers(problem) if problem.known else {LEAST_SQUARES: Interpolation.of(problem)}


def _peers(problem: OFDMChannel | FewChannels) -> dict[str, Estimator]:
    covariance = ChannelCovariance.of(problem)
    return {
        LEAST_SQUARES: Interpolation.of(problem),
        "LMMSE, grid": Wiener.of(problem, covariance, "grid"),
        "LMMSE, space ⊗ grid": Wiener.of(problem, covariance),
    }
