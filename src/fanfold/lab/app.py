"""The application: the page and its parts, runs that are begun, followed, cancelled, resumed and exported."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from fanfold.core.files import is_regular
from fanfold.core.table import plain
from fanfold.lab.folder import CONFIG, DATA, exported, facts_of, run_names, script_of
from fanfold.lab.follow import EventLog
from fanfold.lab.jobs import LIVE, Jobs
from fanfold.lab.page import FILES, POLICY, REPORT_POLICY, page
from fanfold.lab.uploads import TooLargeError, taken
from fanfold.lab.words import words_of

LOOK_SECONDS = 0.1  # between looks at a log that somebody follows
BEAT_SECONDS = 15.0  # between signs of life, by which a client that is gone is noticed
MOST_REQUEST = 2**16  # bytes of a request for a run
REPORT_SAMPLES = "500"
MODULE = "fanfold.lab.parts"


class NotThereError(ValueError):
    """A run that is not there.

    Example:
        >>> from fanfold.lab.app import NotThereError
        >>> issubclass(NotThereError, ValueError)
        True
    """


STATUS: dict[type[Exception], int] = {  # that an error is answered with
    NotThereError: 404,
    TooLargeError: 413,
    ValueError: 400,
    ClientDisconnect: 400,
    OSError: 500,
}


class Lab:
    """What the routes do, over the runs of a folder.

    Args:
        folder: Where the runs are.
        at_once: How many train at once; see `Jobs`.

    Example:
        >>> from pathlib import Path
        >>> from fanfold.lab.app import Lab
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

    def run(self, request: Request) -> Path:
        """The directory of the run that a request names.

        Raises:
            ValueError: If there is none.
        """
        name = request.path_params["name"]
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
                await self.jobs.help("fanfold", ["report", _path(run), "--samples", REPORT_SAMPLES])
        return page


def _message(event: str, data: str, mark: str = "") -> str:
    """A server-sent event; a mark is what a client says when it comes back."""
    return (f"id: {mark}\n" if mark else "") + f"event: {event}\ndata: {data}\n\n"


def _path(run: Path) -> str:
    """A path as a word of a command, which does not begin with a dash."""
    return f"./{run}" if str(run).startswith("-") else str(run)


def application(lab: Lab) -> Starlette:
    """The routes of a lab, without its doors.

    Example:
        >>> from pathlib import Path
        >>> from fanfold.lab.app import Lab, application
        >>> len(application(Lab(Path("runs"))).routes) > 10
        True
    """

    async def front(request: Request) -> Response:
        return HTMLResponse(page(), headers={"Content-Security-Policy": POLICY})

    async def static(request: Request) -> Response:
        file = FILES.get(request.path_params["file"])
        return Response("not here", 404) if file is None else FileResponse(file)

    async def choices(request: Request) -> Response:
        return JSONResponse((await lab.parts())["choices"])

    async def figure(request: Request) -> Response:
        parts = (await lab.parts())["figure"]
        if request.path_params["part"] == "host.js":
            return Response(parts["host"], media_type="text/javascript")
        return JSONResponse({"manifest": parts["manifest"], "payload": parts["payload"]})

    async def hand_over(request: Request) -> Response:
        declared = request.headers.get("content-length", "")
        size = int(declared) if declared.isdecimal() and len(declared) < 16 else 0
        file = await taken(request.query_params.get("name", ""), size, request.stream(), lab.data)
        try:
            said = json.loads(await lab.jobs.help(MODULE, ["pairs", str(file)]))
        except ValueError as error:
            file.unlink(missing_ok=True)
            raise ValueError(
                str(error).replace(str(file.resolve()), "the file").replace(str(file), "the file")
            ) from error
        return JSONResponse(said, 201)

    async def handed_over(request: Request) -> Response:
        name = request.path_params["name"]
        if not lab.data.is_dir() or name not in {file.name for file in lab.data.glob("*.npz")}:
            raise NotThereError(f"there is no file {name[:60]!r} of pairs; drop it onto the page again.")
        return JSONResponse(json.loads(await lab.jobs.help(MODULE, ["pairs", str(lab.data / name)])))

    async def runs(request: Request) -> Response:
        return JSONResponse(plain({"folder": str(lab.folder), "runs": lab.listed()}))  # a config may hold infinities

    async def begin(request: Request) -> Response:
        asked = await _object_of(request)
        words = words_of(asked, (await lab.parts())["choices"], lab.data)
        name = lab.jobs.free_name(f"{asked['problem']}-{asked['network']}")
        lab.jobs.begin(name, [*words, "--run-dir", _path(lab.folder / name)])
        return JSONResponse({"name": name, "command": lab.jobs.jobs[name].words}, 201)

    async def follow(request: Request) -> Response:
        mark = request.headers.get("last-event-id") or request.query_params.get("after", "")
        return StreamingResponse(lab.events(lab.run(request), mark), media_type="text/event-stream")

    async def cancel(request: Request) -> Response:
        name = lab.run(request).name
        await lab.jobs.cancel(name)
        return JSONResponse({"name": name, "condition": lab.jobs.condition(name)})

    async def resume(request: Request) -> Response:
        run = lab.run(request)
        lab.jobs.check_idle(run.name)
        if not is_regular(run / CONFIG):
            raise ValueError(f"{run.name} stopped before it was a run; begin it anew.")
        if is_regular(run / "weights.safetensors"):
            raise ValueError(f"{run.name} came to its end; there is nothing to resume.")
        lab.jobs.begin(run.name, ["resume", _path(run)])
        return JSONResponse({"name": run.name}, 202)

    async def config(request: Request) -> Response:
        run = lab.run(request)
        if not is_regular(run / CONFIG):
            raise NotThereError(f"{run.name} has no config yet.")
        return FileResponse(run / CONFIG, media_type="text/plain; charset=utf-8")

    async def script(request: Request) -> Response:
        return Response(script_of(lab.run(request)), media_type="text/plain; charset=utf-8")

    async def report(request: Request) -> Response:
        return FileResponse(await lab.report(lab.run(request)), headers={"Content-Security-Policy": REPORT_POLICY})

    async def export(request: Request) -> Response:
        run = lab.run(request)
        report = (await lab.report(run)).read_bytes()
        archive = await asyncio.to_thread(exported, run, report)
        return Response(archive, media_type="application/zip", headers=_attached(f"{run.name}.zip"))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await lab.jobs.close()

    one = "/runs/{name}"
    return Starlette(
        routes=[
            Route("/", front),
            Route("/static/{file}", static),
            Route("/choices", choices),
            Route("/figure/{part}", figure),
            Route("/data", hand_over, methods=["POST"]),
            Route("/data/{name}", handed_over),
            Route("/runs", runs),
            Route("/runs", begin, methods=["POST"]),
            Route(f"{one}/events", follow),
            Route(f"{one}/cancel", cancel, methods=["POST"]),
            Route(f"{one}/resume", resume, methods=["POST"]),
            Route(f"{one}/config.toml", config),
            Route(f"{one}/train.py", script),
            Route(f"{one}/report", report),
            Route(f"{one}/export.zip", export),
        ],
        exception_handlers={kind: _refused(status) for kind, status in STATUS.items()},
        lifespan=lifespan,
    )  # fmt: skip


async def _object_of(request: Request) -> Any:
    """The JSON of a request.

    Raises:
        ValueError: If it is none, or longer than any that the page sends.
    """
    content = b""
    async for block in request.stream():
        content += block
        if len(content) > MOST_REQUEST:
            raise TooLargeError(f"a request for a run has at most {MOST_REQUEST} bytes.")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the request is no JSON: {error}.") from error


def _refused(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, status)

    return answer


def _attached(name: str) -> dict[str, str]:
    simple = "".join(c if (c.isalnum() and c.isascii()) or c in "-_." else "-" for c in name)
    return {"Content-Disposition": f'attachment; filename="{simple}"'}
