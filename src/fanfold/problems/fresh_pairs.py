"""Pairs that nothing was trained on: all of them are for tests."""

from dataclasses import dataclass

from fanfold.problems.pairs import Pairs


@dataclass(frozen=True, init=False)
class FreshPairs(Pairs):
    """Stored pairs, all of which are for tests: they are drawn each once, and none is trained on.

    They are read or handed over as `Pairs` are, with its errors.

    Example:
        >>> import fanfold as ff, numpy as np
        >>> from fanfold.problems.fresh_pairs import FreshPairs
        >>> fresh = FreshPairs(x=np.ones((10, 3)), y=np.ones((10, 2)), part="test")
        >>> fresh.rows(), len(fresh.held_out().every()[0])
        (range(0, 10), 10)
    """

    def rows(self) -> range:
        """The places of all pairs.

        Raises:
            ValueError: If it is the part to train on, which fresh pairs have not.
        """
        if self.part != "test":
            raise ValueError("fresh pairs are for tests alone: pass part='test', or Pairs to train on.")
        return range(len(self._stored().x))
