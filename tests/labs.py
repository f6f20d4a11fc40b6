"""A lab of its own process for tests: its address, requests to it, and the processes that it has."""

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

PATIENCE = 300.0  # seconds, for machines that are busy: a state is waited for, and no time is asserted


class LabProcess:
    """`fanfold lab` on a folder of runs."""

    def __init__(self, runs: Path):
        words = [sys.executable, "-m", "fanfold", "lab", "--no-browser", "--runs", str(runs)]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, f"{line}{self.process.communicate()}"
        self.address = found[0]
        self.parts = urlsplit(self.address)

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(str(self.parts.hostname), self.parts.port, timeout=PATIENCE)

    def ask(
        self, path: str, body: Any = None, method: str = "", headers: dict[str, str] | None = None, token: str = ""
    ) -> tuple[int, bytes]:
        """The status and the body of an answer; a body of bytes is sent as it is, another one as JSON."""
        connection = self.connection()
        sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        where = f"/{token}/{path}" if token else self.parts.path + path
        connection.request(method or ("GET" if body is None else "POST"), where, sent, headers or {})
        answer = connection.getresponse()
        said = answer.status, answer.read()
        connection.close()
        return said

    def json(self, path: str, body: Any = None, method: str = "", wanted: int = 200) -> Any:
        status, said = self.ask(path, body, method)
        assert status == wanted, said.decode()
        return json.loads(said)

    def run(self, name: str) -> dict[str, Any]:
        return next(run for run in self.json("runs")["runs"] if run["name"] == name)

    def children(self) -> list[int]:
        """The processes that work for the lab: what its nursery, which has no work of its own, forked."""
        (nursery,) = _children_of(self.process.pid)
        return _children_of(nursery)

    def end(self) -> tuple[int, str]:
        """End the lab as by Ctrl-C; its exit code and what it said last."""
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said


def _children_of(process: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True)
    return [int(pid) for pid in listed.stdout.split()]


@contextmanager
def lab_of(runs: Path) -> Iterator[LabProcess]:
    lab = LabProcess(runs)
    try:
        yield lab
    finally:
        if lab.process.poll() is None:
            lab.end()


class Following:
    """A stream of a run's events, read one by one."""

    def __init__(self, lab: LabProcess, name: str, mark: str = ""):
        self.mark = mark
        self.connection = lab.connection()
        headers = {"Last-Event-ID": mark} if mark else {}
        self.connection.request("GET", f"{lab.parts.path}runs/{name}/events", headers=headers)
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Each event with its data; to the end of the stream."""
        kind, data = "", ""
        while line := self.answer.readline().decode():
            field, _, value = line.rstrip("\n").partition(": ")
            if field == "id":
                self.mark = value
            elif field == "event":
                kind = value
            elif field == "data":
                data = value
            elif not line.strip() and kind:
                yield kind, json.loads(data)
                kind = ""
        self.vanish()

    def vanish(self) -> None:
        self.answer.close()
        self.connection.close()


def wait_for(condition: Any, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.1)


def stored(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


def sparse_pairs(path: Path, dtype: type = float) -> Path:
    draws = np.random.default_rng(0)
    A = draws.normal(size=(20, 40)).astype(dtype) / 20**0.5
    x = draws.normal(size=(200, 40)).astype(dtype) * (draws.random((200, 40)) < 0.1)
    return stored(path, x=x, y=x @ A.T + 0.02 * draws.normal(size=(200, 20)), A=A)
