"""What people see in a terminal: progress bars that become lines off it, tables, and errors that say the fix."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable

from fanfold.core.table import Table
from fanfold.evaluation.link import SlotsSent
from fanfold.propagation.drawing import DrawingEvent, DrawingFinished, DrawingStarted, ShardDrawn
from fanfold.training.events import Event, Finished, Started, Stepped, Validated, summary
from fanfold.training.simulate import Simulated, SimulationEvent, SimulationStarted

out = Console(highlight=False, soft_wrap=True)
notes = Console(stderr=True, highlight=False, soft_wrap=True)  # progress and remarks, so that stdout holds the result


class Watch:
    """Shows a training as it goes: a bar on a terminal, a line for each validation elsewhere."""

    def __init__(self, title: str):
        self.title = title
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(), console=notes, transient=True,
        )  # fmt: skip
        self.task = self.progress.add_task(title, total=None, note="")
        self.bar = notes.is_terminal

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self.progress.update(self.task, total=event.steps, completed=event.step)
            if self.bar:
                self.progress.start()
            else:
                notes.print(f"{self.title}: {event.parameters} parameters, {event.threads} threads", markup=False)
        elif isinstance(event, Stepped):
            self.progress.update(self.task, completed=event.step)
        elif isinstance(event, Validated):
            note = "" if event.loss is None else f"loss {event.loss:.4f}, "
            note += f"{event.nmse_db:.2f} dB" + (f" at depth {event.depth}" if event.depth else "")
            self.progress.update(self.task, note=note)
            if not self.bar:
                notes.print(f"{self.title}: step {event.step}, {note}", markup=False)
        elif isinstance(event, Finished):
            self.stop()
            notes.print(f"{self.title}: {summary(event)}, {event.seconds:.1f} s", markup=False)

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


class SimulationWatch(Watch):
    """Shows a simulation as it goes: a bar on a terminal, a line for each tenth of the draws elsewhere."""

    def __call__(self, event: SimulationEvent) -> None:
        if isinstance(event, SimulationStarted):
            done = event.good + sum(event.failed.values())
            self.total, self.next_line = event.count, event.count / 10
            self.progress.update(self.task, total=event.count, completed=min(done, event.count))
            if self.bar:
                self.progress.start()
            else:
                notes.print(f"{self.title}: {done} draws there, {event.count} wanted, {event.workers} workers")
        elif isinstance(event, Simulated):
            self.progress.update(self.task, completed=event.done, note=failures(event.failed).removeprefix(", "))
            if not self.bar and event.done >= self.next_line:
                self.next_line = event.done + self.total / 10
                notes.print(f"{self.title}: {event.done} of {self.total}{failures(event.failed)}", markup=False)
        else:
            self.stop()
            notes.print(
                f"{self.title}: {event.good} good draws{failures(event.failed)}; {event.made} made now, "
                f"{event.seconds:.1f} s", markup=False,
            )  # fmt: skip


class DrawingWatch(Watch):
    """Shows a drawing of channels as it goes: a bar on a terminal, a line for each tenth elsewhere."""

    def __call__(self, event: DrawingEvent) -> None:  # type: ignore[override]
        if isinstance(event, DrawingStarted):
            self.draws, self.next_line = event.draws, event.there + event.draws / 10
            self.progress.update(self.task, total=event.draws, completed=event.there)
            if self.bar:
                self.progress.start()
            else:
                notes.print(f"{self.title}: {event.there} of {event.draws} draws are there", markup=False)
        elif isinstance(event, ShardDrawn):
            self.progress.update(self.task, completed=event.done)
            if not self.bar and event.done >= self.next_line:
                self.next_line = event.done + self.draws / 10
                notes.print(f"{self.title}: {event.done} of {self.draws}", markup=False)
        else:
            self.stop()
            notes.print(
                f"{self.title}: {event.draws} draws, {event.made} of them now, {event.seconds:.1f} s", markup=False
            )


class StudyWatch(DrawingWatch):
    """Shows what goes on in a study: a training, a drawing before it, slots of a link after it."""

    def __call__(self, event: Event | DrawingEvent | SlotsSent) -> None:  # type: ignore[override]
        if isinstance(event, SlotsSent):
            self._sent(event)
        elif isinstance(event, DrawingStarted | ShardDrawn | DrawingFinished):
            DrawingWatch.__call__(self, event)
        else:
            Watch.__call__(self, event)

    def _sent(self, event: SlotsSent) -> None:
        self.progress.update(self.task, completed=event.done, total=event.total)
        if not self.bar:
            notes.print(f"{self.title}: {event.done} of {event.total} rounds", markup=False)
        elif event.done < event.total:
            self.progress.start()
        else:
            self.stop()


def failures(counts: Mapping[str, int]) -> str:
    """Failed runs by kind, after a comma."""
    return "".join(f", {count} {kind}" for kind, count in counts.items())


@contextmanager
def simulation_watch(title: str) -> Iterator[SimulationWatch]:
    """A `SimulationWatch` whose bar goes away however the block ends."""
    watch = SimulationWatch(title)
    try:
        yield watch
    finally:
        watch.stop()


@contextmanager
def drawing_watch(title: str) -> Iterator[DrawingWatch]:
    """A `DrawingWatch` whose bar goes away however the block ends."""
    watch = DrawingWatch(title)
    try:
        yield watch
    finally:
        watch.stop()


def show(table: Table, title: str = "") -> None:
    """Print a table: ruled on a terminal, aligned columns in a file or pipe."""
    if not out.is_terminal:
        print(table)
        return
    rich = RichTable(title=title or None)
    for name in table.columns:
        rich.add_column(name, justify="left" if all(isinstance(r[name], str) for r in table) else "right")
    for row in table:
        rich.add_row(*("" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()))
    out.print(rich)
