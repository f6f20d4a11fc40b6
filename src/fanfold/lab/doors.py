"""Who may come in: requests to this machine's own address, from the lab's own page, that know the token."""

import hmac

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
ALWAYS = {  # headers of every answer
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Doors:
    """An application behind checks of Host, Origin and a token, which is the first part of every path.

    A page of another site can send requests to this machine, by its address or by a name that it makes lead here; its
    browser says from where in Origin, and for whom in Host. The token keeps out other users and programs of the
    machine.

    Args:
        app: What is behind the doors; it sees paths without the token.
        token: What must be known; it is compared in constant time.
        port: The port of the server.

    Example:
        >>> from starlette.applications import Starlette
        >>> from fanfold.lab.doors import Doors
        >>> doors = Doors(Starlette(), "secret", 8000)
        >>> doors.refusal("localhost:8000", None, None, "/secret/runs")
        ''
        >>> doors.refusal("evil.example:8000", None, None, "/secret/runs")
        'this is no address of the lab: evil.example:8000.'
    """

    def __init__(self, app: ASGIApp, token: str, port: int):
        self.app, self.token = app, token
        self.hosts = {f"{host}:{port}" for host in HOSTS} | ({*HOSTS} if port == 80 else set())

    def refusal(self, host: str | None, origin: str | None, site: str | None, path: str) -> str:
        """Why a request is refused, in a sentence; empty if it is not.

        Args:
            host: Its header Host.
            origin: Its header Origin.
            site: Its header Sec-Fetch-Site.
            path: Its path.
        """
        if host not in self.hosts:
            return f"this is no address of the lab: {host or 'none'}."
        if (origin is not None and origin != f"http://{host}") or site in ("cross-site", "same-site"):
            return f"the lab answers its own page alone, and not one of {origin or 'another site'}."
        given = path.split("/")[1] if path.startswith("/") else ""
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return "the lab wants its token: open the address that fanfold lab printed."
        return ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(scope=message)
                for name, value in ALWAYS.items():
                    answered.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        refused = self.refusal(headers.get("host"), origin, site, scope["path"])
        path = scope["path"].removeprefix(f"/{self.token}")
        if refused and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif refused:
            await PlainTextResponse(refused, 403)(scope, receive, guarded)
        elif not path:  # from where the page would not find its parts
            await RedirectResponse(f"/{self.token}/")(scope, receive, guarded)
        else:
            await self.app({**scope, "path": path}, receive, guarded)
