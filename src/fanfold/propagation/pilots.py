"""Pilots: which resource elements of a slot carry known symbols. 3GPP TS 38.211, 5.2.1, 6.4.1.1, 6.4.1.4 and 7.4.1.1."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fanfold.suggest import did_you_mean

FRONT = 2  # dmrs-TypeA-Position pos2: the third symbol of a slot
EXAMPLES = "comb-4, comb-4+1@2,11, dmrs-1:additional=1, srs-4+1@13, 0,12,23@2 or mask.npy"
NAME = re.compile(r"(?P<kind>comb|srs|dmrs)-(?P<size>\d+)(\+(?P<offset>\d+))?(:(?P<settings>[^@]*))?(@(?P<at>[\d,]+))?")
LIST = re.compile(r"(?P<columns>\d+(,\d+)*)(@(?P<at>[\d,]+))?")
# More places of DMRS after the front, mapping type A: by number of additional ones, from what duration on (in symbols)
SINGLE = {
    1: ((13, (11,)), (10, (9,)), (8, (7,))),
    2: ((13, (7, 11)), (10, (6, 9)), (8, (7,))),
    3: ((12, (5, 8, 11)), (10, (6, 9)), (8, (7,))),
}
DOUBLE = {1: ((13, (10,)), (10, (8,)))}


def pilot_mask(pilots: str, symbols: int, subcarriers: int) -> Tensor:
    """Where the pilots are: `(symbols, subcarriers)`, boolean.

    Args:
        pilots: `comb-4`, every fourth subcarrier; `comb-4+1@2,11`, from subcarrier 1 on in symbols 2 and 11, counted
            from 0. `dmrs-1` or `dmrs-2` with settings: `group` (code division group) or `port`, `length` (1 or 2
            symbols), `additional` (0 to 3 more places), `front` (2 or 3), as in `dmrs-1:group=1,additional=1`. `srs-2`,
            `srs-4` or `srs-8`, with offset and symbols as a comb. `0,12,23@2`: subcarriers of symbols. A `.npy` file
            of zeros and ones `(symbols, subcarriers)`. Unless said, a comb is in the third symbol, SRS in the last one;
            where there are fewer than three symbols, a comb and DMRS begin with the first.
        symbols: Of the layout.
        subcarriers: Of the layout.

    Raises:
        ValueError: If the pattern is unknown, does not fit the layout or has no pilot at all.
    """
    if pilots.endswith(".npy"):
        return _of_file(pilots, symbols, subcarriers)
    front = FRONT if symbols > FRONT else 0
    if found := LIST.fullmatch(pilots):
        rows = _numbers(found["at"]) if found["at"] else [front]
        return _marked(pilots, rows, _numbers(found["columns"]), symbols, subcarriers)
    found = NAME.fullmatch(pilots)
    if not found:
        raise ValueError(f"unknown pilots {pilots!r}; pass {EXAMPLES}.")
    kind, size, offset = found["kind"], int(found["size"]), int(found["offset"] or 0)
    if kind == "dmrs":
        return _dmrs(pilots, size, _settings(pilots, found), symbols, subcarriers)
    if found["settings"] is not None:
        raise ValueError(f"pilots {pilots!r} have settings; only dmrs has. Offset and symbols of a comb: comb-4+1@2.")
    if kind == "srs" and size not in (2, 4, 8):
        raise ValueError(f"pilots {pilots!r}: combs of SRS are srs-2, srs-4 and srs-8 (TS 38.211, 6.4.1.4).")
    if not 1 <= size <= subcarriers:
        raise ValueError(
            f"pilots {pilots!r} for {subcarriers} subcarriers; pass a comb from 1 to that, such as comb-2."
        )
    if not offset < size:
        raise ValueError(f"pilots {pilots!r}: the offset {offset} is at most {size - 1}, one less than the comb.")
    rows = _numbers(found["at"]) if found["at"] else [front if kind == "comb" else symbols - 1]
    return _marked(pilots, rows, range(offset, subcarriers, size), symbols, subcarriers)


def check_interpolable(mask: Tensor) -> None:
    """Refuse a mask `(symbols, subcarriers)` that leaves nothing to interpolate between along an axis.

    One symbol with pilots is enough for a slot, for it is held; one subcarrier is not enough for several.

    Raises:
        ValueError: If so, or if there are no pilots.
    """
    columns = mask.any(0).nonzero().flatten().tolist()
    if not columns:
        raise ValueError(
            f"there is no pilot in {mask.shape[0]} symbols of {mask.shape[1]} subcarriers; pass {EXAMPLES}."
        )
    if len(columns) < 2 < mask.shape[1]:
        raise ValueError(
            f"pilots are on subcarrier {columns[0]} only, of {mask.shape[1]}: along frequency there is nothing to "
            "interpolate between; take a comb with at least two pilots."
        )


def dmrs_symbols(duration: int, length: int = 1, additional: int = 0, front: int = FRONT) -> list[int]:
    """Symbols with DMRS, mapping type A without hopping: TS 38.211, tables 6.4.1.1.3-3 and 6.4.1.1.3-4.

    Args:
        duration: Symbols of the transmission, from the first of the slot.
        length: 1 or 2, single or double symbols.
        additional: How many more places are asked for; a short transmission has fewer.
        front: Of the first place, 2 or 3; 0 where the transmission has fewer than three symbols.

    Raises:
        ValueError: If a setting is none of the standard's.
    """
    if length not in (1, 2) or not 0 <= additional <= (3 if length == 1 else 1):
        raise ValueError(
            f"DMRS of length {length} with {additional} additional places; length 1 has 0 to 3, length 2 has 0 or 1."
        )
    if front not in (2, 3) and not (front == 0 and duration <= FRONT):
        raise ValueError(f"DMRS with front {front}; it is 2 or 3 (dmrs-TypeA-Position).")
    if length == 1 and additional == 3 and front == 3:
        raise ValueError("DMRS has 3 additional places only with front=2 (TS 38.211, 6.4.1.1.3).")
    table = (SINGLE if length == 1 else DOUBLE).get(additional, ())
    more = next((places for least, places in table if duration >= least), ())
    return [place + k for place in (front, *more) for k in range(length)]


def gold_qpsk(count: int, initial: int = 1) -> Tensor:
    """`count` pilot symbols of unit modulus `(count,)`, complex64, from the Gold sequence of TS 38.211, 5.2.1."""
    first, second = 1, initial & 0x7FFFFFFF
    if not 0 <= initial < 2**31:
        raise ValueError(f"initial is {initial}; it has 31 bits, from 0 to {2**31 - 1}.")
    bits = []
    for n in range(1600 + 2 * count):
        if n >= 1600:
            bits.append((first ^ second) & 1)
        first = first >> 1 | ((first >> 3 ^ first) & 1) << 30
        second = second >> 1 | ((second >> 3 ^ second >> 2 ^ second >> 1 ^ second) & 1) << 30
    signs = 1 - 2 * torch.tensor(bits, dtype=torch.float32).reshape(count, 2)
    return torch.view_as_complex((signs / math.sqrt(2)).contiguous())


def _dmrs(pilots: str, kind: int, settings: dict[str, int], symbols: int, subcarriers: int) -> Tensor:
    if kind not in (1, 2):
        raise ValueError(f"pilots {pilots!r}: DMRS is of type 1 or 2; pass dmrs-1 or dmrs-2.")
    length, groups = settings.get("length", 1), 1 + kind
    ports = 2 * groups * length
    port = settings.get("port", 0)
    if "port" in settings and ("group" in settings or port >= ports):
        raise ValueError(f"pilots {pilots!r}: pass group or port, a port from 0 to {ports - 1} (1000 less).")
    group = settings.get("group", port // 2 % groups)
    if group >= groups:
        raise ValueError(f"pilots {pilots!r}: groups of dmrs-{kind} are 0 to {groups - 1}.")
    front = settings.get("front", FRONT if symbols > FRONT else 0)
    rows = dmrs_symbols(symbols, length, settings.get("additional", 0), front)
    spacing, run = (2, 1) if kind == 1 else (6, 2)
    columns = [k for k in range(subcarriers) if 0 <= k % spacing - run * group < run]
    return _marked(pilots, rows, columns, symbols, subcarriers)


def _settings(pilots: str, found: re.Match[str]) -> dict[str, int]:
    known = ("group", "port", "length", "additional", "front")
    if found["offset"] or found["at"]:
        raise ValueError(f"pilots {pilots!r}: DMRS is placed by {', '.join(known)}, as in dmrs-1:group=1,additional=1.")
    settings = {}
    for part in filter(None, (found["settings"] or "").split(",")):
        name, _, value = part.partition("=")
        if name not in known or not value.isdecimal():
            hint = "" if name in known else did_you_mean(name, known)
            raise ValueError(f"pilots {pilots!r}: {part!r} is none of {', '.join(known)} with a whole number.{hint}")
        settings[name] = int(value)
    return settings


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def _marked(pilots: str, rows: Sequence[int], columns: Sequence[int], symbols: int, subcarriers: int) -> Tensor:
    for name, wanted, size in (("symbol", rows, symbols), ("subcarrier", columns, subcarriers)):
        if not len(wanted):
            raise ValueError(f"pilots {pilots!r} have no {name} among {size}: there is no pilot at all.")
        if max(wanted) >= size:
            raise ValueError(f"pilots {pilots!r} have {name} {max(wanted)}, but there are {size}, counted from 0.")
    mask = torch.zeros(symbols, subcarriers, dtype=torch.bool)
    mask[torch.tensor(rows)[:, None], torch.tensor(columns)] = True
    return mask


def _of_file(pilots: str, symbols: int, subcarriers: int) -> Tensor:
    if not Path(pilots).is_file():
        raise ValueError(f"there is no file of pilots {pilots}.")
    try:
        stored = np.load(pilots)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{pilots} cannot be read as .npy ({error}); is it whole?") from error
    if stored.shape != (symbols, subcarriers) or not np.isin(stored, (0, 1)).all():
        raise ValueError(
            f"{pilots} holds {stored.dtype} of shape {stored.shape}; pass zeros and ones of shape (symbols, "
            f"subcarriers) = ({symbols}, {subcarriers})."
        )
    if not stored.any():
        raise ValueError(f"{pilots} marks no pilot at all.")
    return torch.from_numpy(stored.astype(bool))
