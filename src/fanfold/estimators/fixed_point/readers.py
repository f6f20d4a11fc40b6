"""Readers in torch: the numbers that whole numbers stand for, with gradients that pass straight through rounding.

Numbers on grids of powers of two are exact in double precision, and sums of products that are proved to stay within
2^24 in single precision too, so that these are an integer program's bits.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fanfold.estimators.fixed_point.arithmetic import Widths
from fanfold.estimators.fixed_point.rounding import half_up, unit_of
from fanfold.estimators.fixed_point.shaped import ShapedArithmetic
from fanfold.estimators.fixed_point.values import RoundedMatrix, Scaled, finest

SINGLE_EXACT = 1 << 24  # whole numbers up to here are exact in single precision
SINGLE_FRACTION = 100  # fractions up to here, either way, are far from its smallest and largest numbers
HEADROOM = 1.25  # over what is seen
FINER = 3  # how many scales are tried that clip more and more


class FakeQuantised(ShapedArithmetic[Tensor]):
    """Computes values as tensors of numbers `(batch, size)`, in double precision.

    Args:
        ports: The numbers of each port that goes in, `(batch, size)`.
        widths: The bits of weights and activations.
        fractions: The fraction of each port and of each value that is narrowed, in order.
        pairs_fit: See `Arithmetic`.
        noise_var: See `Arithmetic`.

    Example:
        >>> import torch
        >>> from fanfold.estimators.fixed_point.readers import FakeQuantised
        >>> reader = FakeQuantised({"y": torch.tensor([[0.3, -5.0]])}, "w8a8", [8, 6])
        >>> y = reader.entered("y")
        >>> reader.narrowed(reader.soft(y, torch.tensor([0.1]))).value
        tensor([[ 0.2031, -2.0000]], dtype=torch.float64)
    """

    def __init__(
        self,
        ports: Mapping[str, Tensor],
        widths: Widths,
        fractions: Sequence[int] = (),
        *,
        pairs_fit: bool = False,
        noise_var: float | None = None,
    ):
        super().__init__(widths, fractions, pairs_fit=pairs_fit, noise_var=noise_var)
        self.ports = ports

    def _entered(self, name: str, fraction: int, bits: int) -> Tensor:
        unit, most = np.ldexp(1.0, -fraction), 1 << (bits - 1)
        return half_up(self.ports[name].double(), np.array([fraction])).clamp(-most * unit, (most - 1) * unit)

    def _constant(self, numbers: Tensor, fraction: np.ndarray) -> Tensor:
        return numbers[None]

    def _product(self, x: Scaled[Tensor], weights: RoundedMatrix, outer: int, inner: int) -> Tensor:
        carrier = self._carrier(x, weights)
        seen, numbers = x.value.to(carrier), weights.numbers.to(carrier)
        if outer * inner == 1:
            return (seen @ numbers.mT).double()
        seen = seen.reshape(len(seen), outer, numbers.shape[1], inner)
        return (numbers @ seen).flatten(1).double()

    def _carrier(self, x: Scaled[Tensor], weights: RoundedMatrix) -> torch.dtype:
        """The type in which the sums of a product are exact."""
        steep = max(np.abs(weights.fraction).max(), np.abs(x.fraction).max())
        exact = weights.row_sum * x.largest <= SINGLE_EXACT and steep <= SINGLE_FRACTION // 2
        return torch.float32 if exact else torch.float64

    def _rounded(self, x: Scaled[Tensor], fraction: np.ndarray, name: str | None) -> Tensor:
        return half_up(x.value, fraction) if (x.fraction > fraction).any() else x.value

    def _clamped(self, x: Scaled[Tensor], low: Tensor, high: Tensor, name: str | None) -> Tensor:
        return torch.clamp(x.value, low.to(x.value.device), high.to(x.value.device))

    def _sum(self, left: Scaled[Tensor], right: Scaled[Tensor], sign: int, name: str | None) -> Tensor:
        return left.value + right.value if sign > 0 else left.value - right.value

    def _times(self, left: Scaled[Tensor], right: Scaled[Tensor]) -> Tensor:
        return left.value * right.value

    def _moved(self, x: Scaled[Tensor], shape: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
        return x.value.reshape(len(x.value), *shape).permute(0, *(1 + axis for axis in axes)).flatten(1)

    def _looked_up(
        self,
        x: Scaled[Tensor],
        tables: Tensor,
        fraction: np.ndarray,
        row: Scaled[Tensor] | None,
        edges: np.ndarray | None,
        name: str | None,
    ) -> Tensor:
        unit = float(unit_of(x.fraction)[0])
        at = (x.value.detach() / unit).long() + x.largest
        picked = torch.zeros_like(at[:, :1])
        if row is not None and edges is not None:
            reached = torch.from_numpy(np.ldexp(edges.astype(np.float64), -row.fraction)).to(x.value.device)
            picked = (row.value.detach()[..., None] >= reached).sum(-1)
        picked, at = torch.broadcast_tensors(picked, at)
        if not torch.is_grad_enabled():
            return tables[picked, at]
        rise = tables.detach().diff(dim=1, prepend=tables[:, :1].detach(), append=tables[:, -1:].detach()) / (2 * unit)
        slope = rise[:, 1:] + rise[:, :-1]  # half of either neighbour's
        return tables[picked, at] + slope[picked, at] * (x.value - x.value.detach())

    def _joined(self, left: Tensor, right: Tensor, outer: int) -> Tensor:
        batch = max(len(left), len(right))  # numbers of the layer itself have none
        return torch.cat([x.expand(batch, -1).unflatten(1, (outer, -1)) for x in (left, right)], 2).flatten(1)

    def _convolved(
        self, x: Scaled[Tensor], weights: RoundedMatrix, shape: tuple[int, int, int], kernel: tuple[int, int]
    ) -> Tensor:
        carrier = self._carrier(x, weights)
        picture = x.value.to(carrier).reshape(-1, *shape).permute(0, 3, 1, 2)
        taps = weights.numbers.to(carrier).reshape(-1, *kernel, shape[2]).permute(0, 3, 1, 2)
        out = nn.functional.conv2d(picture, taps, padding=(kernel[0] // 2, kernel[1] // 2))
        return out.permute(0, 2, 3, 1).flatten(1).double()

    def _regarded(self, x: Scaled[Tensor], fraction: np.ndarray) -> Tensor:
        return x.value * unit_of(fraction - x.fraction).to(x.value.device)

    def _octaves(self, x: Scaled[Tensor], first: int, count: int, digits: int) -> Tensor:
        whole = x.value / float(unit_of(x.fraction)[0])
        whole = whole.clamp(2.0 ** (first + digits), 2.0 ** (first + digits + count))
        octave = torch.frexp(whole.detach())[1] - 1 - digits - first
        within = torch.ldexp(whole, -(octave + first + digits))  # from 1 to 2
        return octave + half_up(within, np.array([digits])) - 1


class Calibrating(FakeQuantised):
    """Chooses the fractions while it computes: each is that of the least squared error on what comes in.

    It is the error on these numbers and on one more, larger than all of them; beyond it, numbers saturate.

    Args:
        ports: The numbers of each port that goes in, `(batch, size)`.
        widths: The bits of weights and activations.
        headroom: How much larger.
        pairs_fit: See `Arithmetic`.
        noise_var: See `Arithmetic`.

    Attributes:
        chosen: The fractions, in order.

    Example:
        >>> import torch
        >>> from fanfold.estimators.fixed_point.readers import Calibrating
        >>> reader = Calibrating({"y": torch.tensor([[0.3, -5.0]])}, "w8a8")
        >>> reader.narrowed(reader.entered("y")).largest, reader.chosen
        (128, [12, 4])
    """

    def __init__(
        self,
        ports: Mapping[str, Tensor],
        widths: Widths,
        *,
        headroom: float = HEADROOM,
        pairs_fit: bool = False,
        noise_var: float | None = None,
    ):
        super().__init__(ports, widths, pairs_fit=pairs_fit, noise_var=noise_var)
        self.headroom = headroom
        self.chosen: list[int] = []

    def _roomier(self, bits: int) -> float:
        """Over the largest number seen: what has bits to spare gives some of them for what was not seen."""
        return self.headroom * 2 ** max(0, (bits - 8) // 3)

    def _entered_fraction(self, name: str, bits: int) -> int:
        self.chosen.append(finest(self.headroom * float(self.ports[name].abs().max()), bits))
        return self.chosen[-1]

    def _fraction_for(self, x: Scaled[Tensor], bits: int, least: int | None) -> int:
        seen = x.value.flatten()
        largest = self.headroom * seen.abs().max()
        numbers, first = torch.cat([seen, largest[None]]), finest(float(largest), bits)  # later ones may be larger
        losses = []
        for fraction in range(first, first + FINER):
            unit, most = 2.0**-fraction, (1 << (bits - 1)) - 1
            on_grid = half_up(numbers, np.array([fraction])).clamp(-most * unit, most * unit)
            losses.append(float((on_grid - numbers).square().sum()))
        best = first + int(np.argmin(losses))
        self.chosen.append(best if least is None else max(best, least))
        return self.chosen[-1]

    def _fractions_for(self, x: Scaled[Tensor], bits: int, shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
        seen = x.value.reshape(-1, *shape).movedim([1 + axis for axis in axes], [*range(len(axes))])
        seen = seen.reshape(math.prod(shape[axis] for axis in axes), -1)
        largest = self._roomier(bits) * seen.abs().amax(1, keepdim=True)
        first = np.array([finest(size, bits) for size in largest.flatten().tolist()])
        numbers, losses = torch.cat([seen, largest], 1), []
        for fraction in (first + k for k in range(FINER)):
            unit = unit_of(fraction)[:, None]
            most = ((1 << (bits - 1)) - 1) * unit
            on_grid = torch.clamp(half_up(numbers, fraction[:, None]), -most, most)
            losses.append((on_grid - numbers).square().sum(1))
        chosen = first + torch.stack(losses).argmin(0).numpy()
        self.chosen += chosen.tolist()
        return chosen
