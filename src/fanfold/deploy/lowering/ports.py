"""The ports of a program: what goes in and comes out, in words."""

from typing import NamedTuple

BATCH = "batch"  # the name of the axis of samples, of any number


class Port(NamedTuple):
    """One input or output of a program.

    Example:
        >>> from fanfold.deploy.lowering import Port
        >>> Port("y", ("batch", 64, 2), "float32", "that of the measurements", True).axes
        'batch x 64 x 2'
    """

    name: str
    shape: tuple[int | str, ...]  # "batch" where any number of samples will do
    dtype: str
    unit: str  # in words
    pairs: bool  # whether the last axis holds the real and the imaginary part, interleaved

    @property
    def axes(self) -> str:
        """The shape in words."""
        return " x ".join(map(str, self.shape))

    def described(self) -> str:
        """The port in one line, for a file's metadata."""
        layout = "; pairs of real and imaginary part along the last axis" if self.pairs else ""
        return f"{self.dtype} ({self.axes}); unit: {self.unit}{layout}"
