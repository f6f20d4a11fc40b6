"""What happens while draws are made ahead and kept in a folder: the same events for channels and for simulators."""

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TypeVar

E = TypeVar("E")


@dataclass(frozen=True)
class DrawingStarted:
    """Drawing into a folder begins.

    Attributes:
        folder: Where the draws are kept.
        wanted: How many draws were asked for.
        done: How many of these are there already, failed ones included.
        failures: How many of those failed, by kind.
        workers: How many runs may go on at once.

    Example:
        >>> from fanfold.core.events import DrawingStarted
        >>> started = DrawingStarted("umi-64", wanted=10_000, done=2000)
        >>> started.workers, started.failures
        (1, {})
    """

    folder: str
    wanted: int
    done: int
    failures: Mapping[str, int] = field(default_factory=dict)
    workers: int = 1


@dataclass(frozen=True)
class DrawsKept:
    """Some draws were made and are on the disk.

    Attributes:
        done: How many of the draws that were asked for are there by now, failed ones included.
        failures: How many of those failed, by kind.

    Example:
        >>> from fanfold.core.events import DrawsKept
        >>> kept = DrawsKept(done=64, failures={"crash": 3})
        >>> kept.done - sum(kept.failures.values())
        61
    """

    done: int
    failures: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DrawingFinished:
    """All draws that were asked for are there.

    Attributes:
        folder: Where the draws are kept.
        good: How many draws succeeded, in this call or before.
        made: How many draws this call made, failed ones included.
        seconds: How long this call took.
        failures: How many draws failed, by kind.

    Example:
        >>> import tempfile, fanfold as ff
        >>> events = []
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = ff.simulate(ff.problems.Modulation(), 100, folder, on_event=events.append)
        >>> events[-1].good, events[-1].made
        (100, 100)
    """

    folder: str
    good: int
    made: int
    seconds: float
    failures: Mapping[str, int] = field(default_factory=dict)


DrawingEvent = DrawingStarted | DrawsKept | DrawingFinished


def exhaust(events: Generator[E, None, None], on_event: Callable[[E], None] | None = None) -> None:
    """Take the events of a generator to the last one, and so do the work that lies between them.

    Args:
        events: The generator. It is closed at once, and so lets go of its folder, if `on_event` raises.
        on_event: Called with each event.

    Example:
        >>> from fanfold.core.events import DrawsKept, exhaust
        >>> exhaust((DrawsKept(done) for done in (64, 100)), lambda event: print(event.done))
        64
        100
    """
    with closing(events):
        for event in events:
            if on_event is not None:
                on_event(event)
