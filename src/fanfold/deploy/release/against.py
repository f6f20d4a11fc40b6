"""What moved since the last release, which cells got worse beyond their intervals, and whether a call got slower."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from fanfold.core.table import plain
from fanfold.core.units import db
from fanfold.deploy.release.bundle import CELLS, CERTIFICATE, Bundle
from fanfold.deploy.release.cells import LEAST, CellErrors
from fanfold.deploy.release.hashes import same_host
from fanfold.deploy.release.results import WORDS, ReleaseCertificate, ReleaseResult
from fanfold.evaluation.evaluate import Z95, ratio_of
from fanfold.runs.weights import read_tensors, write_tensors

LATENCY, WORSE, SLOWER = "latency", "NMSE against the last release", "latency against the last release"
ROUNDING = 1e-5  # relative: signals of the same draws on two machines


def write_cells(path: Path, cells: Sequence[CellErrors]) -> None:
    """Keep the errors of every draw, so that the next release is compared draw by draw."""
    tensors = {f"{i}/error": errors.error for i, errors in enumerate(cells)}
    tensors |= {f"{i}/signal": errors.signal for i, errors in enumerate(cells)}
    write_tensors(path, tensors, {"cells": [dict(errors.cell) for errors in cells]})


def read_cells(path: Path) -> list[CellErrors]:
    """What `write_cells` wrote.

    Raises:
        ValueError: If the file is damaged.
    """
    tensors, facts = read_tensors(path, "Certify that release anew.")
    try:
        cells = enumerate(facts["cells"])
        return [CellErrors(cell, tensors[f"{i}/error"], tensors[f"{i}/signal"]) for i, cell in cells]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no errors of draws: {error!r}.") from error


def read_certificate(bundle: Bundle) -> ReleaseCertificate:
    """The certificate of a bundle.

    Raises:
        ValueError: If it is damaged.
    """
    return ReleaseCertificate.from_dict(bundle.json(CERTIFICATE))


def compared(
    old: Bundle, new: ReleaseCertificate, cells: Sequence[CellErrors], slower: float | None
) -> ReleaseCertificate:
    """A certificate with what moved since an older release, and the results that gate it.

    Args:
        old: The older release, which was found whole.
        new: The certificate of the new one.
        cells: Errors of its draws.
        slower: How many times as long as before a call may take; None where no latency is asked for.

    Raises:
        ValueError: If the older release is damaged.
    """
    before = read_certificate(old)
    results = [*_cells(read_cells(old.path / CELLS), cells), *_latency(before, new, slower)]
    return new._replace(results=(*new.results, *results), moved=tuple(_moved(before, new)))


def _cells(old: Sequence[CellErrors], new: Sequence[CellErrors]) -> Iterator[ReleaseResult]:
    present = [(plain(errors.cell), errors) for errors in new]  # as JSON gives it back
    for before in old:
        now = [errors for cell, errors in present if cell == plain(before.cell)]
        if now:
            yield difference(before, now[0])
        else:
            yield ReleaseResult(WORSE, before.cell, "dB", None, limit=0.0, note="the cell is declared no more")


def difference(old: CellErrors, new: CellErrors) -> ReleaseResult:
    """How much the NMSE of a cell rose, in dB, with its 95 % interval: of draws in pairs where they are the same."""
    paired = old.signal.shape == new.signal.shape and torch.allclose(old.signal, new.signal, rtol=ROUNDING)
    before, spread_before = ratio_of(old.error, old.signal)
    now, spread_now = ratio_of(new.error, new.signal)
    if paired:
        _, spread = ratio_of(new.error - old.error, new.signal)
    else:
        spread = math.hypot(spread_before, spread_now)
    if not math.isfinite(before + now + spread):
        return ReleaseResult(WORSE, new.cell, "dB", None, limit=0.0, note="an error is not finite")
    base = max(before, LEAST)
    value, low, high = (db(max(now + end * Z95 * spread, LEAST) / base) for end in (0, -1, 1))
    note = "the same draws, in pairs" if paired else "other draws: as two independent samples"
    return ReleaseResult(WORSE, new.cell, "dB", value, low, high, 0.0, "not clearly above", note)


def _latency(before: ReleaseCertificate, now: ReleaseCertificate, slower: float | None) -> Iterator[ReleaseResult]:
    if slower is None:
        return
    times = [[r for r in certificate.results if r.what.startswith(LATENCY)] for certificate in (before, now)]
    old, new = times[0][:1], times[1][:1]
    if not old or not new or not old[0].value or new[0].value is None:
        yield ReleaseResult(SLOWER, {}, "ratio", None, note="one of the two was not timed")
    elif old[0].what != new[0].what:
        yield ReleaseResult(SLOWER, {}, "ratio", None, note=f"the last release was timed otherwise: {old[0].what}")
    elif not same_host(before.host, now.host):
        yield ReleaseResult(SLOWER, {}, "ratio", None, note="the last release was timed on another host")
    else:
        yield ReleaseResult(SLOWER, {}, "ratio", new[0].value / old[0].value, limit=slower, note=new[0].what)


def _moved(before: ReleaseCertificate, now: ReleaseCertificate) -> Iterator[str]:
    """What is other than before, in sentences."""
    for name in {**before.hashes, **now.hashes}:
        old, new = before.hashes.get(name), now.hashes.get(name)
        if old != new:
            yield f"{name}: the hash was {str(old)[:12]} and is {str(new)[:12]}"
    for kind in ("life_cycle", "facts", "host"):
        old, new = before._asdict()[kind], now._asdict()[kind]
        for name in {**old, **new}:
            if old.get(name) != new.get(name) and name != "certified":
                yield f"{name.replace('_', ' ')}: was {_short(old.get(name))} and is {_short(new.get(name))}"
    known = {(r.what, repr(plain(r.cell))): r for r in before.results}
    for result in now.results:
        last = known.get((result.what, repr(plain(result.cell))))
        place = f" at {result.where}" if result.cell else ""
        if last is None:
            yield f"{result.what}{place}: it was not measured before"
        elif last.limit != result.limit:
            yield f"{result.what}{place}: the limit was {last.limit} and is {result.limit}"
        elif last.passed is not result.passed:
            yield f"{result.what}{place}: was {WORDS[last.passed]} and is {WORDS[result.passed]}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
