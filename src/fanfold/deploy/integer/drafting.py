"""The reader that writes an integer program, of layers as their form says them, with the weights that they have."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from fanfold.deploy.integer.draft import Draft
from fanfold.deploy.integer.program import IntegerProgram
from fanfold.estimators.base import InWholeNumbers
from fanfold.estimators.fixed_point import FormPort, RoundedMatrix, Scaled, ShapedArithmetic, Widths
from fanfold.estimators.fixed_point.arithmetic import PORT_BITS


class Drafting(ShapedArithmetic[str]):
    """Writes layers into a draft: a value is its name there.

    Args:
        draft: What is written into.
        ports: The ports that go in, by name.
        widths: The bits of weights and activations.
        fractions: The fraction of each port and of each value that is narrowed, in order.
        pairs_fit: See `Arithmetic`.
        noise_var: See `Arithmetic`.

    Example:
        >>> import torch
        >>> from fanfold.deploy.integer import Draft
        >>> from fanfold.deploy.integer.drafting import Drafting
        >>> from fanfold.estimators.fixed_point import FormPort
        >>> reader = Drafting(Draft("soft"), {"y": FormPort("y", (4,))}, "w8a8", [8, 6])
        >>> x = reader.narrowed(reader.soft(reader.entered("y"), torch.tensor([1.0])), name="x_hat")
        >>> [op.kind for op in reader.draft.operations]
        ['CLAMP', 'SUB', 'RESCALE', 'CLAMP']
    """

    def __init__(
        self,
        draft: Draft,
        ports: Mapping[str, FormPort],
        widths: Widths,
        fractions: Sequence[int],
        *,
        pairs_fit: bool = False,
        noise_var: float | None = None,
    ):
        super().__init__(widths, fractions, pairs_fit=pairs_fit, noise_var=noise_var)
        self.draft, self.ports = draft, ports

    def _entered(self, name: str, fraction: int, bits: int) -> str:
        port = self.ports[name]
        return self.draft.input(
            name, port.shape, "int16" if bits == PORT_BITS else "int32", fraction, port.layout, port.unit
        )

    def _constant(self, numbers: Tensor, fraction: np.ndarray) -> str:
        return self.draft.const(_whole(numbers, fraction))

    def _product(self, x: Scaled[str], weights: RoundedMatrix, outer: int, inner: int) -> str:
        return self.draft.matmul(x.value, weights.integers, outer, inner)

    def _rounded(self, x: Scaled[str], fraction: np.ndarray, name: str | None) -> str:
        return self.draft.rescale(x.value, x.fraction - fraction, name)

    def _clamped(self, x: Scaled[str], low: Tensor, high: Tensor, name: str | None) -> str:
        return self.draft.clamp(x.value, _whole(low, x.fraction), _whole(high, x.fraction), name)

    def _sum(self, left: Scaled[str], right: Scaled[str], sign: int, name: str | None) -> str:
        write = self.draft.add if sign > 0 else self.draft.sub
        return write(left.value, right.value, name)

    def _times(self, left: Scaled[str], right: Scaled[str]) -> str:
        return self.draft.mul(left.value, right.value)

    def _moved(self, x: Scaled[str], shape: tuple[int, ...], axes: tuple[int, ...]) -> str:
        return self.draft.transpose(x.value, shape, axes)

    def _looked_up(
        self,
        x: Scaled[str],
        tables: Tensor,
        fraction: np.ndarray,
        row: Scaled[str] | None,
        edges: np.ndarray | None,
        name: str | None,
    ) -> str:
        values = _whole(tables, fraction)
        if row is None or edges is None:
            return self.draft.lookup(x.value, -x.largest, values[0], name)
        return self.draft.bank(x.value, row.value, edges, -x.largest, values, name)

    def _joined(self, left: str, right: str, outer: int) -> str:
        return self.draft.join(left, right, outer)

    def _convolved(
        self, x: Scaled[str], weights: RoundedMatrix, shape: tuple[int, int, int], kernel: tuple[int, int]
    ) -> str:
        return self.draft.matmul(self.draft.windows(x.value, shape, kernel), weights.integers, shape[0] * shape[1])

    def _regarded(self, x: Scaled[str], fraction: np.ndarray) -> str:
        return x.value

    def _octaves(self, x: Scaled[str], first: int, count: int, digits: int) -> str:
        total = None
        for octave in range(first, first + count):
            shifted = self.draft.rescale(x.value, octave) if octave else x.value
            part = self.draft.clamp(shifted, 1 << digits, 2 << digits)
            total = part if total is None else self.draft.add(total, part)
        assert total is not None
        return self.draft.sub(total, self.draft.const(count << digits))


def _whole(numbers: Tensor, fraction: np.ndarray) -> np.ndarray:
    """The whole numbers that numbers on a grid are."""
    return np.ldexp(numbers.detach().cpu().numpy(), fraction).astype(np.int64)


def drafted(network: InWholeNumbers, name: str = "estimator") -> IntegerProgram:
    """The integer program of a quantised network, whose forward pass it is, bit for bit.

    Args:
        network: The network, with scales.
        name: The name of the program.

    Raises:
        ValueError: If no scales are chosen yet, or a range cannot be proved.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> net = ff.unfold(ff.algorithms.LISTACP(), problem, 3, {"threshold": "per-layer"})
        >>> x, obs = problem.sample(200, torch.Generator().manual_seed(0))
        >>> whole = ff.estimators.quantised(net, "w8a8", obs)
        >>> integer = ff.deploy.integer.IntegerEstimator(ff.deploy.integer.drafted(whole))
        >>> torch.equal(integer(obs).x, whole(obs).x)
        True
    """
    if not network.calibrated:
        raise ValueError("the scales of whole numbers are not chosen yet: train the network, or calibrate it.")
    draft, form = Draft(name), network.form
    ports = {port.name: port for port in form.inputs}
    known = {"pairs_fit": network.pairs_fit, "noise_var": network.known_noise_var}
    reader = Drafting(draft, ports, network.widths, network.fractions.tolist(), **known)
    values = form.written(reader)
    for port in form.outputs:
        value = values[port.name]
        draft.output(value.value, port.shape, int(value.fraction[0]), port.layout, port.unit)
    return draft.finish()
