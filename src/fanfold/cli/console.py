"""What people see in a terminal: progress bars that become lines off it, tables, and errors that say the fix."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable

from fanfold.core.commands import printable
from fanfold.core.events import DrawingEvent, DrawingFinished, DrawingStarted, DrawsKept
from fanfold.core.table import Table
from fanfold.evaluation.link import SlotsSent
from fanfold.training.events import Event, Finished, RoundStarted, Started, Stepped, Validated, summary


class Plain(Console):
    """A console that prints text as it is: paths may hold what passes for markup elsewhere."""

    def __init__(self, *, stderr: bool = False):
        super().__init__(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Leave it to who ends the command."""
        raise


out = Plain()
notes = Plain(stderr=True)  # progress and remarks, so that stdout holds the result


class Watch:
    """Shows what goes on: a training, a drawing ahead of it, or slots of a link; a bar on a terminal, lines elsewhere.

    Lines come for each validation of a training and for each tenth of a drawing.
    """

    def __init__(self, title: str):
        self.title = printable(title)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False), TimeRemainingColumn(), console=notes, transient=True,
        )  # fmt: skip
        self.task = self.progress.add_task(self.title, total=None, note="")
        self.bar = notes.is_terminal
        self.wanted, self.next_line = 0, 0.0  # draws; how many of them are there when the next line comes

    def __call__(self, event: Event | DrawingEvent | SlotsSent) -> None:
        match event:
            case Started():
                self.progress.update(self.task, total=event.steps, completed=event.step)
                if event.reading:
                    self._say(event.reading)
                self._begin(f"{event.parameters} parameters, {event.threads} threads")
            case RoundStarted():
                self._say(
                    f"round {event.number} of {event.rounds}: {event.made} new simulations, {event.kept} in a box that "
                    f"holds {event.share:.3g} of the prior"
                )
            case Stepped():
                self.progress.update(self.task, completed=event.step)
            case Validated():
                note = "" if event.loss is None else f"loss {event.loss:.4f}, "
                note += f"{event.nmse_db:.2f} dB" + (f" at depth {event.depth}" if event.depth else "")
                if event.loss is not None and not (event.best or event.depth):
                    note += "; no better, earlier weights are kept"
                self.progress.update(self.task, note=note)
                if not self.bar:
                    self._say(f"step {event.step}, {note}")
            case Finished():
                self._end(f"{summary(event)}, {event.seconds:.1f} s")
            case DrawingStarted():
                self.wanted, self.next_line = event.wanted, event.done + event.wanted / 10
                self.progress.update(self.task, total=event.wanted, completed=event.done)
                workers = f", {event.workers} workers" if event.workers > 1 else ""
                self._begin(f"{event.done} of {event.wanted} draws are there{workers}")
            case DrawsKept():
                failed = counted(event.failures)
                self.progress.update(self.task, completed=event.done, note=failed.removeprefix(", "))
                if not self.bar and event.done >= self.next_line:
                    self.next_line = event.done + self.wanted / 10
                    self._say(f"{event.done} of {self.wanted}{failed}")
            case DrawingFinished():
                made = f"{event.made} made now, {event.seconds:.1f} s"
                self._end(f"{event.good} good draws{counted(event.failures)}; {made}")
            case SlotsSent():
                self._sent(event)

    def _sent(self, event: SlotsSent) -> None:
        self.progress.update(self.task, completed=event.done, total=event.total)
        if not self.bar:
            self._say(f"{event.done} of {event.total} rounds")
        elif event.done < event.total:
            self.progress.start()
        else:
            self.stop()

    def _begin(self, line: str) -> None:
        if self.bar:
            self.progress.start()
        else:
            self._say(line)

    def _end(self, line: str) -> None:
        self.stop()
        self._say(line)

    def _say(self, line: str) -> None:
        note(f"{self.title}: {line}")

    def stop(self) -> None:
        """Take the bar away."""
        if self.bar:
            self.progress.stop()


@contextmanager
def watching(title: str) -> Iterator[Watch]:
    """A `Watch` whose bar goes away however the block ends."""
    watch = Watch(title)
    try:
        yield watch
    finally:
        watch.stop()


@contextmanager
def resumable(sentence: Callable[[], str]) -> Iterator[None]:
    """A block after whose interruption by Ctrl-C there is something to say: what is kept, and what goes on with it."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(sentence()) from stop


def note(line: str) -> None:
    """Say something on a line of stderr."""
    notes.print(printable(line))


def proposed(*commands: str) -> None:
    """Say what can be done next."""
    note(f"next: {' · '.join(commands)}")


def counted(counts: Mapping[str, int]) -> str:
    """The numbers of failed runs by kind, each after a comma."""
    return "".join(f", {count} {kind}" for kind, count in counts.items())


def show(table: Table, title: str = "") -> None:
    """Print a table: ruled on a terminal, aligned columns in a file or pipe."""
    table = Table([{k: printable(v) if isinstance(v, str) else v for k, v in row.items()} for row in table])
    if not out.is_terminal:
        print(table)
        return
    rich = RichTable(title=title or None)
    for name in table.columns:
        rich.add_column(name, justify="left" if all(isinstance(r[name], str) for r in table) else "right")
    for row in table:
        rich.add_row(*("" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()))
    out.print(rich)
