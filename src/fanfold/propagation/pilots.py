"""Pilots: which resource elements of a slot carry known symbols. 3GPP TS 38.211, 6.4.1.1, 6.4.1.4 and 7.4.1.1."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fanfold.core.array_files import array_of
from fanfold.core.suggest import did_you_mean

SLOT_SYMBOLS = 14  # with the normal cyclic prefix
FRONT_SYMBOL = 2  # dmrs-TypeA-Position pos2: the third symbol of a slot
# More places of DMRS in a whole slot, mapping type A: TS 38.211, tables 6.4.1.1.3-3 (single) and 6.4.1.1.3-4 (double)
ADDITIONAL_SYMBOLS = {1: {0: (), 1: (11,), 2: (7, 11), 3: (5, 8, 11)}, 2: {0: (), 1: (10,)}}
NAMED = ("comb-2", "comb-4", "comb-6", "comb-12", "dmrs-1", "dmrs-2", "srs-2", "srs-4", "srs-8")


def pilot_mask(pilots: str, symbols: int, subcarriers: int) -> Tensor:
    """The places of the pilots in a slot, `(symbols, subcarriers)`, boolean.

    Args:
        pilots: `comb-4`, every fourth subcarrier of the first symbol; `dmrs-1` or `dmrs-2`, the demodulation reference
            signals of a slot, from its third symbol; `srs-2`, `srs-4` or `srs-8`, sounding in its last one; of a single
            symbol all take the first. Options follow a colon: `offset` of a comb or SRS; of DMRS `group` (code division
            group), `length` (1 or 2 symbols) and `additional` (0 to 3 more places): `dmrs-1:group=1,additional=1`.
            Other symbols, counted from 0, follow an @: `comb-4@2,11`. `0,12,23` are subcarriers one by one. A `.npy`
            file holds a mask of the user's own, boolean.
        symbols: How many symbols the layout has.
        subcarriers: How many subcarriers the layout has.

    Returns:
        The mask `(symbols, subcarriers)`, true where pilots are.

    Raises:
        ValueError: If the pattern is unknown, does not fit the layout or leaves nothing to interpolate.

    Example:
        >>> import fanfold as ff
        >>> ff.propagation.pilot_mask("comb-4:offset=1", symbols=1, subcarriers=8).int().tolist()
        [[0, 1, 0, 0, 0, 1, 0, 0]]
    """
    if pilots.endswith(".npy"):
        mask = _of_file(pilots, symbols, subcarriers)
    else:
        head, at, places = pilots.partition("@")
        name, _, text = head.partition(":")
        rows, columns = _pattern(pilots, name, text, symbols, subcarriers)
        if at:
            rows = _numbers(pilots, places)
        mask = _marked(pilots, rows, columns, symbols, subcarriers)
    check_interpolable(mask, pilots)
    return mask


def check_interpolable(mask: Tensor, name: str = "the mask") -> None:
    """Refuse a mask `(symbols, subcarriers)` that leaves nothing to interpolate along frequency.

    One symbol with pilots is enough for a slot, for it is held; one subcarrier is not enough for several.

    Raises:
        ValueError: If the mask leaves nothing to interpolate, or has no pilot.
    """
    columns = mask.any(0).nonzero().flatten().tolist()
    if not columns:
        raise ValueError(
            f"pilots {name}: there is no pilot among {mask.shape[0]} symbols of {mask.shape[1]} subcarriers."
        )
    if len(columns) < 2 < mask.shape[1]:
        raise ValueError(
            f"pilots {name} are on subcarrier {columns[0]} only, of {mask.shape[1]}: along frequency there is nothing "
            "to interpolate between; take a denser comb."
        )


def gold_qpsk(count: int, initial: int = 1) -> Tensor:
    """`count` pilot symbols of unit modulus `(count,)`, complex64: QPSK of the Gold sequence of TS 38.211, 5.2.1.

    Raises:
        ValueError: If the initial state has more than 31 bits.
    """
    if not 0 <= initial < 2**31:
        raise ValueError(f"initial is {initial}; it has 31 bits, from 0 to {2**31 - 1}.")
    first, second, bits = 1, initial, []
    for n in range(1600 + 2 * count):
        if n >= 1600:
            bits.append((first ^ second) & 1)
        first = first >> 1 | ((first >> 3 ^ first) & 1) << 30
        second = second >> 1 | ((second >> 3 ^ second >> 2 ^ second >> 1 ^ second) & 1) << 30
    signs = 1 - 2 * torch.tensor(bits, dtype=torch.float32).reshape(count, 2)
    return torch.view_as_complex((signs / math.sqrt(2)).contiguous())


def _pattern(pilots: str, name: str, text: str, symbols: int, subcarriers: int) -> tuple[Sequence[int], Sequence[int]]:
    """The symbols and the subcarriers that carry pilots."""
    if name[:1].isdecimal():
        _ = _options(pilots, name, text, {})
        return [0], _numbers(pilots, name)
    kind, _, size = name.partition("-")
    spacing = int(size) if size.isdecimal() else 0
    if kind == "dmrs" and spacing in (1, 2):
        return _dmrs(pilots, name, text, spacing, symbols, subcarriers)
    if (kind == "comb" and spacing) or (kind == "srs" and spacing in (2, 4, 8)):
        offset = _options(pilots, name, text, {"offset": range(spacing)})["offset"]
        return [symbols - 1 if kind == "srs" else 0], range(offset, subcarriers, spacing)
    raise ValueError(
        f"unknown pilots {pilots!r}; pass {', '.join(NAMED)}, any other comb, subcarriers such as 0,12,23, or a .npy "
        f"file.{did_you_mean(name, NAMED)}"
    )


def _dmrs(
    pilots: str, name: str, text: str, kind: int, symbols: int, subcarriers: int
) -> tuple[Sequence[int], Sequence[int]]:
    """Type 1: every second subcarrier, two groups. Type 2: two neighbours in every six, three groups."""
    known = {"group": range(kind + 1), "length": range(1, 3), "additional": range(4)}
    chosen = _options(pilots, name, text, known)
    length, additional = chosen["length"], chosen["additional"]
    if additional not in ADDITIONAL_SYMBOLS[length]:
        raise ValueError(f"pilots {pilots!r}: of double symbols (length=2) additional is 0 or 1, not {additional}.")
    if additional and symbols != SLOT_SYMBOLS:
        raise ValueError(
            f"pilots {pilots!r}: additional places are those in a slot of {SLOT_SYMBOLS} symbols, not {symbols}."
        )
    front = FRONT_SYMBOL if symbols > FRONT_SYMBOL else 0
    rows = [place + k for place in (front, *ADDITIONAL_SYMBOLS[length][additional]) for k in range(length)]
    spacing, run = (2, 1) if kind == 1 else (6, 2)
    first = run * chosen["group"]
    return rows, [k for k in range(subcarriers) if first <= k % spacing < first + run]


def _options(pilots: str, name: str, text: str, known: Mapping[str, range]) -> dict[str, int]:
    """The options: those given after the colon, and the least value of each other."""
    chosen = {option: values.start for option, values in known.items()}
    for part in filter(None, text.split(",")):
        option, _, value = part.partition("=")
        if option not in known:
            raise ValueError(f"pilots {pilots!r}: {name} has no option {option}; it has {_listed(known)}.")
        if not value.isdecimal():
            raise ValueError(f"pilots {pilots!r}: an option is written {option}=1, not {part!r}.")
        values = known[option]
        if int(value) not in values:
            raise ValueError(f"pilots {pilots!r}: {option} is {value}; it is from {values[0]} to {values[-1]}.")
        chosen[option] = int(value)
    return chosen


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _numbers(pilots: str, text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"pilots {pilots!r}: symbols are written @2,11 and subcarriers 0,12,23, not {text!r}.")
    return [int(part) for part in parts]


def _marked(pilots: str, rows: Sequence[int], columns: Sequence[int], symbols: int, subcarriers: int) -> Tensor:
    mask = torch.zeros(symbols, subcarriers, dtype=torch.bool)
    for what, wanted, size in (("symbol", rows, symbols), ("subcarrier", columns, subcarriers)):
        if len(wanted) and max(wanted) >= size:
            raise ValueError(f"pilots {pilots!r} are on {what} {max(wanted)}, but there are {size}, counted from 0.")
    for row in rows:
        mask[row, list(columns)] = True
    return mask


def _of_file(pilots: str, symbols: int, subcarriers: int) -> Tensor:
    mask = array_of(pilots)
    if mask.dtype != np.bool_ or mask.shape != (symbols, subcarriers):
        raise ValueError(
            f"{pilots} holds {mask.dtype} of shape {mask.shape}; pass a mask that is bool, ({symbols}, {subcarriers}), "
            "true where pilots are."
        )
    return torch.from_numpy(mask)
