"""The lab as a server of this machine alone: a socket, a token, and an end at which no process is left."""

import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

import uvicorn

from fanfold.core.files import is_regular
from fanfold.lab.app import application
from fanfold.lab.doors import HOSTS, Doors
from fanfold.lab.folder import CONFIG
from fanfold.lab.service import Lab

TOKEN_BYTES = 24
STREAM_SECONDS = 2  # that open streams have to end before they are cut, as the server ends


def listening(port: int) -> socket.socket:
    """A socket of this machine alone.

    Args:
        port: Its port; 0 takes a free one.

    Raises:
        ValueError: If the port cannot be had.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"--port is {port}; a port is from 1 to 65535, and 0 takes a free one.")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOSTS[0], port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ValueError(
            f"port {port} cannot be had ({error.strerror}); choose another --port, or leave it out."
        ) from error
    return listener


class LabServer(uvicorn.Server):
    """A server that tells the lab when it is to end, so that streams close and trainings stop at a checkpoint.

    Args:
        config: Of uvicorn.
        lab: What is served.

    Example:
        >>> import uvicorn
        >>> from pathlib import Path
        >>> from fanfold.lab.app import application
        >>> from fanfold.lab.serve import LabServer
        >>> from fanfold.lab.service import Lab
        >>> lab = Lab(Path("runs"))
        >>> LabServer(uvicorn.Config(application(lab)), lab).should_exit
        False
    """

    def __init__(self, config: uvicorn.Config, lab: Lab):
        super().__init__(config)
        self.lab = lab

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.lab.jobs.ending = True
        super().handle_exit(sig, frame)


def serve(runs: Path, port: int, *, browser: bool, say: Callable[[str], None]) -> dict[str, list[str]]:
    """Serve the lab until it is interrupted.

    Args:
        runs: The folder of runs.
        port: The port; 0 takes a free one.
        browser: Whether to open a browser.
        say: Called with the address, once it can be opened.

    Returns:
        The names of the runs that can be resumed, of those that were cancelled or that the end of the lab stopped, each
        with the flags that `fanfold resume` takes then.

    Raises:
        ValueError: If the port cannot be had.
    """
    token, listener = secrets.token_urlsafe(TOKEN_BYTES), listening(port)
    lab = Lab(runs)
    with listener:
        address = f"http://{HOSTS[0]}:{listener.getsockname()[1]}/{token}/"
        doors = Doors(application(lab), token, listener.getsockname()[1])
        config = uvicorn.Config(
            doors,
            log_level="error",
            access_log=False,
            timeout_graceful_shutdown=STREAM_SECONDS,
            server_header=False,
            proxy_headers=False,
        )
        say(address)
        if browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()  # some do not come back
        with suppress(KeyboardInterrupt):  # which uvicorn raises again when all is closed
            LabServer(config, lab).run(sockets=[listener])
    return {name: flags for name, flags in lab.jobs.stopped().items() if is_regular(runs / name / CONFIG)}
