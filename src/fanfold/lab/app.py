"""The routes: the page and its parts, runs that are begun, followed, cancelled, resumed and exported."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from fanfold.core.commands import path_word
from fanfold.core.files import is_regular
from fanfold.core.table import plain
from fanfold.lab.folder import CONFIG, exported, script_of
from fanfold.lab.page import FILES, POLICY, REPORT_POLICY, page
from fanfold.lab.service import MODULE, Lab, NotThereError
from fanfold.lab.uploads import TooLargeError, handed_over, taken
from fanfold.lab.words import words_of

MOST_REQUEST = 2**16  # bytes of a request for a run
STATUS: dict[type[Exception], int] = {  # that an error is answered with
    NotThereError: 404,
    TooLargeError: 413,
    ValueError: 400,
    ClientDisconnect: 400,
    OSError: 500,
}


def application(lab: Lab) -> Starlette:
    """The routes of a lab, without its doors.

    Example:
        >>> from pathlib import Path
        >>> from fanfold.lab.app import application
        >>> from fanfold.lab.service import Lab
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

    async def read_again(request: Request) -> Response:
        try:
            file = handed_over(request.path_params["name"], lab.data)
        except ValueError as error:
            raise NotThereError(str(error)) from error
        return JSONResponse(json.loads(await lab.jobs.help(MODULE, ["pairs", str(file)])))

    async def runs(request: Request) -> Response:
        return JSONResponse(plain({"folder": str(lab.folder), "runs": lab.listed()}))  # a config may hold infinities

    async def begin(request: Request) -> Response:
        asked = await _object_of(request)
        words = words_of(asked, (await lab.parts())["choices"], lab.data)
        if asked.get("more") or asked.get("quantise"):  # what the page cannot know, the command line does
            await lab.jobs.help("fanfold", [*words, "--check"])
        name = lab.jobs.free_name(f"{asked['problem']}-{asked['network']}")
        lab.jobs.begin(name, [*words, "--run-dir", path_word(lab.folder / name)])
        return JSONResponse({"name": name, "command": lab.jobs.jobs[name].words}, 201)

    async def follow(request: Request) -> Response:
        mark = request.headers.get("last-event-id") or request.query_params.get("after", "")
        return StreamingResponse(lab.events(lab.run(request.path_params["name"]), mark), media_type="text/event-stream")

    async def cancel(request: Request) -> Response:
        name = lab.run(request.path_params["name"]).name
        await lab.jobs.cancel(name)
        return JSONResponse({"name": name, "condition": lab.jobs.condition(name)})

    async def resume(request: Request) -> Response:
        run = lab.run(request.path_params["name"])
        lab.jobs.check_idle(run.name)
        if not is_regular(run / CONFIG):
            raise ValueError(f"{run.name} stopped before it was a run; begin it anew.")
        if is_regular(run / "weights.safetensors"):
            raise ValueError(f"{run.name} came to its end; there is nothing to resume.")
        begun = lab.jobs.jobs.get(run.name)
        lab.jobs.begin(run.name, ["resume", path_word(run), *([] if begun is None else begun.further)])
        return JSONResponse({"name": run.name}, 202)

    async def config(request: Request) -> Response:
        run = lab.run(request.path_params["name"])
        if not is_regular(run / CONFIG):
            raise NotThereError(f"{run.name} has no config yet.")
        return FileResponse(run / CONFIG, media_type="text/plain; charset=utf-8")

    async def script(request: Request) -> Response:
        return Response(script_of(lab.run(request.path_params["name"])), media_type="text/plain; charset=utf-8")

    async def report(request: Request) -> Response:
        return FileResponse(
            await lab.report(lab.run(request.path_params["name"])), headers={"Content-Security-Policy": REPORT_POLICY}
        )

    async def export(request: Request) -> Response:
        run = lab.run(request.path_params["name"])
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
            Route("/data/{name}", read_again),
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
