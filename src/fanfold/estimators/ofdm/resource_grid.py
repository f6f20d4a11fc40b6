"""Channel estimates of a whole resource grid, of several users and streams, by estimators of single links."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fanfold.observation import Estimate, Observation
from fanfold.propagation.grid import GridPilots, GridShape, from_links


class GridEstimator:
    """Least squares at the pilots of each stream, then that stream's estimator on every link.

    Args:
        pilots: Of all streams.
        estimators: One for each stream, transmitters slowest, since each has its own pilots; of the whole grid.

    Raises:
        ValueError: If there are not as many as streams.
    """

    def __init__(self, pilots: GridPilots, estimators: Sequence[Callable[[Observation], Estimate]]):
        tx, stream = pilots.values.shape[:2]
        if len(estimators) != tx * stream:
            raise ValueError(f"there are {len(estimators)} estimators for {tx} x {stream} streams; pass one for each.")
        self.pilots, self.estimators = pilots, estimators

    def __call__(self, y: Tensor, noise_var: Tensor | float) -> tuple[Tensor, Tensor]:
        """Channel estimates and error variances, both `[batch, rx, rx_ant, tx, stream, symbol, subcarrier]`.

        Args:
            y: Received grid `[batch, rx, rx_ant, symbol, subcarrier]`.
            noise_var: Of y; a number, or one for each of the batch `(batch,)`.

        Raises:
            ValueError: If the grid is not that of the pilots, or an estimator gives no error variance.
        """
        batch, rx, rx_ant, symbol, subcarrier = y.shape
        tx, stream = self.pilots.values.shape[:2]
        found = [
            estimator(Observation(at_pilots, noise_var=var))
            for estimator, (at_pilots, var) in zip(self.estimators, self.pilots.least_squares(y, noise_var))
        ]
        shape = GridShape(batch, rx, rx_ant, tx, stream, symbol, subcarrier)
        x = torch.stack([estimate.x for estimate in found], 1).flatten(0, 1)
        var = torch.stack([_variance(estimate) for estimate in found], 1).flatten(0, 1)
        return from_links(x, shape), from_links(var, shape)


def _variance(estimate: Estimate) -> Tensor:
    if estimate.var is None:
        raise ValueError("an estimator gives no error variance, which an equaliser needs; take one that does.")
    return estimate.var.expand(estimate.x.shape)
