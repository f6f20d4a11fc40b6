"""What the lab does over the runs of a folder: list them, follow one, make its report, and know what can be chosen."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fanfold.core.commands import path_word
from fanfold.core.files import is_regular
from fanfold.lab.folder import CONFIG, DATA, facts_of, run_names
from fanfold.lab.follow import EventLog
from fanfold.lab.jobs import LIVE, Jobs

LOOK_SECONDS = 0.1  # between looks at a log that somebody follows
BEAT_SECONDS = 15.0  # between signs of life, by which a client that is gone is noticed
REPORT_SAMPLES = "500"
MODULE = "fanfold.lab.parts"


class NotThereError(ValueError):
    """A run that is not there.

    Example:
        >>> from fanfold.lab.service import NotThereError
        >>> issubclass(NotThereError, ValueError)
        True
    """


class Lab:
    """What the routes do, over the runs of a folder.

    Args:
        folder: Where the runs are.
        at_once: How many train at once; see `Jobs`.

    Example:
        >>> from pathlib import Path
        >>> from fanfold.lab.service import Lab
        >>> Lab(Path("runs")).jobs.workers.working
        set()
    """

    def __init__(self, folder: Path, at_once: int | None = None):
        self.folder, self.data = folder, folder / DATA
        self.jobs = Jobs(folder, at_once)
        self.logs: dict[str, EventLog] = {}
        self.followers = 0  # streams that are open
        self._parts: asyncio.Task[dict[str, Any]] | None = None
        self._reports: dict[str, asyncio.Lock] = {}

    async def parts(self) -> dict[str, Any]:
        """The choices and the figure, made once by a process that imports torch."""
        if self._parts is None or (self._parts.done() and (self._parts.cancelled() or self._parts.exception())):
            self._parts = asyncio.get_running_loop().create_task(self._made())
        return await asyncio.shield(self._parts)

    async def _made(self) -> dict[str, Any]:
        return json.loads(await self.jobs.help(MODULE, ["page"]))

    def run(self, name: str) -> Path:
        """The directory of the run with a name, as a request says it.

        Raises:
            ValueError: If there is none.
        """
        within = bool(name) and name not in (".", "..") and not set(name) & {"/", "\\", "\0"}
        folder = self.folder / name
        known = within and (name in self.jobs.jobs or (not folder.is_symlink() and is_regular(folder / CONFIG)))
        if not known:
            raise NotThereError(f"there is no run {name[:60]!r} in {self.folder}.")
        return folder

    def listed(self) -> list[dict[str, Any]]:
        """All runs, those first that are not in the folder yet."""
        there = run_names(self.folder)
        begun = [{"name": name} for name in reversed(self.jobs.jobs) if name not in there]
        return [self._with_condition(facts) for facts in [*begun, *(facts_of(self.folder / name) for name in there)]]

    def _with_condition(self, facts: dict[str, Any]) -> dict[str, Any]:
        name = facts["name"]
        job = self.jobs.jobs.get(name)
        state = {"condition": self.jobs.condition(name), "message": "" if job is None else job.message}
        resumable = state["condition"] not in (*LIVE, "finished") and is_regular(self.folder / name / CONFIG)
        return facts | state | {"resumable": resumable, "command": [] if job is None else job.words}

    async def events(self, run: Path, mark: str) -> AsyncIterator[str]:
        """The events of a run as server-sent ones: those after a mark, and all that come until the run ends."""
        log = self.logs.setdefault(run.name, EventLog(run))
        self.followers += 1
        said, quiet = "", 0.0
        try:
            yield "retry: 500\n\n"
            while True:
                facts = self._with_condition({"name": run.name})  # before the log: what ended has logged all
                job = self.jobs.jobs.get(run.name)
                news = log.since(mark, 0 if job is None else job.attempt)
                if news.events or news.mark != mark:
                    lines = f'{{"anew":{json.dumps(news.anew)},"lines":[{",".join(news.events)}]}}'
                    yield _message("lines", lines, news.mark)
                    mark, quiet = news.mark, 0.0
                state = json.dumps(facts | {"damage": log.damage})
                if state != said:
                    yield _message("state", state)
                    said, quiet = state, 0.0
                if facts["condition"] not in LIVE or log.damage:
                    yield _message("end", "{}")
                    return
                if self.jobs.ending:
                    return
                await asyncio.sleep(LOOK_SECONDS)
                quiet += LOOK_SECONDS
                if quiet > BEAT_SECONDS:
                    yield ": still here\n\n"
                    quiet = 0.0
        finally:
            self.followers -= 1
            if self.jobs.condition(run.name) not in LIVE:
                self.logs.pop(run.name, None)

    async def report(self, run: Path) -> Path:
        """The page of a run, made by `fanfold report` where there is none that is newer than the weights.

        Raises:
            ValueError: If the run has no weights, or the page cannot be made.
        """
        page, weights = run / "report.html", run / "weights.safetensors"
        async with self._reports.setdefault(run.name, asyncio.Lock()):
            if not is_regular(weights):
                raise ValueError(f"{run.name} has no weights yet; its report comes when its training has ended.")
            if not is_regular(page) or page.stat().st_mtime < weights.stat().st_mtime:
                await self.jobs.help("fanfold", ["report", path_word(run), "--samples", REPORT_SAMPLES])
        return page


def _message(event: str, data: str, mark: str = "") -> str:
    """A server-sent event; a mark is what a client says when it comes back."""
    return (f"id: {mark}\n" if mark else "") + f"event: {event}\ndata: {data}\n\n"
