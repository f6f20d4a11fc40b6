"""Channel estimates of a whole resource grid, of several users and streams, by estimators of single links."""

from collections.abc import Mapping

from torch import Tensor

from fanfold.observation import Estimator
from fanfold.problems.radio.resource_grid import estimates_in_field, observations_of


class GridEstimator:
    """Least squares at the pilots of each stream, then that stream's estimator on each of its links.

    Args:
        pilots: `(tx, stream, symbol, subcarrier)`, complex, zero where a stream sends none; see `observations_of`.
        estimators: By transmitter and stream, since each has its own pilots; of the whole grid, with error variances.

    Raises:
        ValueError: If a stream has no estimator.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.OFDMChannel("rayleigh:array=4,subcarriers=12")
        >>> pilots = problem.mask.to(torch.complex64)[None, None]  # of one user with one stream
        >>> estimator = ff.estimators.ofdm.GridEstimator(pilots, {(0, 0): ff.estimators.ofdm.Interpolation.of(problem)})
        >>> h_hat, err_var = estimator(torch.ones(2, 1, 4, 1, 12, dtype=torch.complex64), 0.1)
        >>> tuple(h_hat.shape)
        (2, 1, 4, 1, 1, 1, 12)
    """

    def __init__(self, pilots: Tensor, estimators: Mapping[tuple[int, int], Estimator]):
        missing = [(t, s) for t in range(pilots.shape[0]) for s in range(pilots.shape[1]) if (t, s) not in estimators]
        if missing:
            raise ValueError(f"(transmitter, stream) {missing[0]} has no estimator; {len(missing)} are missing.")
        self.pilots, self.estimators = pilots, estimators

    def __call__(self, received: Tensor, noise_var: Tensor | float | None = None) -> tuple[Tensor, Tensor]:
        """The estimates and their error variances, both `[batch, rx, rx_ant, tx, stream, symbol, subcarrier]`.

        Args:
            received: `[batch, rx, rx_ant, symbol, subcarrier]`.
            noise_var: Noise variance of a received resource element, a number or `(batch, rx)`; None if unknown.

        Raises:
            ValueError: If the grid is not that of the pilots, or an estimator gives no error variance.
        """
        observed = observations_of(received, self.pilots, noise_var)
        estimates = {key: self.estimators[key](obs) for key, obs in observed.items()}
        batch, rx, antennas, symbols, subcarriers = received.shape
        return estimates_in_field(estimates, (batch, rx, antennas, *self.pilots.shape[:2], symbols, subcarriers))
