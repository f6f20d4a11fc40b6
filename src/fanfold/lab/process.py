"""Processes that work for the lab: each runs a module of fanfold as a program, and ends as by Ctrl-C without the lab.

`python -m fanfold.lab.process MODULE WORDS` is one of them. `python -m fanfold.lab.process --nursery MODULES` imports
modules, which takes seconds where torch is among them, and then forks for each piece of work that the lab sends it over
its standard input, a socket; so that work begins at once. It forks before torch has threads, and computes nothing.

The lab holds the other end of the standard input of all of them; when that closes, because the lab cancels or is gone,
however it went, the work is interrupted, and a training keeps its last checkpoint.
"""

import _thread
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from importlib import import_module

NURSERY = "--nursery"
DESCRIPTORS = 4  # that come with each piece of work: what it reads, prints, says, and where its end is told
SIZE = 2**16


def work(module: str, words: list[str]) -> None:
    """Run a module as a program until it ends, or the lab lets go of this process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a lab in the background of a shell ignores
    threading.Thread(target=_interrupt_at_the_end, args=(0,), daemon=True).start()
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _interrupt_at_the_end(descriptor: int) -> None:
    while os.read(descriptor, 1024):  # no buffered reader: Python would wait for its lock as it ends
        pass
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:  # a true signal, which also wakes what sleeps
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def nurse(lab: socket.socket) -> None:
    """Fork for each piece of work, and tell the lab the number of its process, and how it ended."""
    woken, wakes = os.pipe()
    for descriptor in (woken, wakes):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # which writes to the pipe
    working = dict[int, int]()  # process: where its end is told
    while True:
        ready = select.select([lab, woken], [], [])[0]
        if woken in ready:
            os.read(woken, 1024)
            _tell_ends(working)
        if lab in ready:
            asked, descriptors = _received(lab)
            if not asked:
                return
            process = os.fork()
            if not process:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                lab.close()
                for descriptor in (woken, wakes, *working.values(), descriptors[3]):
                    os.close(descriptor)
                _take_places(descriptors[:3])
                module, *words = json.loads(asked)
                work(module, words)
                sys.exit()
            for descriptor in descriptors[:3]:
                os.close(descriptor)
            working[process] = descriptors[3]
            _tell(descriptors[3], process)


def _received(lab: socket.socket) -> tuple[bytes, list[int]]:
    """A line of the lab, and the descriptors that came with it; nothing where the lab is gone."""
    asked, descriptors = b"", list[int]()
    while not asked.endswith(b"\n"):
        part, more, *_ = socket.recv_fds(lab, SIZE, DESCRIPTORS)
        if not part:
            return b"", []
        asked, descriptors = asked + part, descriptors + more
    return asked, descriptors


def _take_places(descriptors: list[int]) -> None:
    """Make these the standard input, output and error; Python's own remember what kind of files the nursery's were."""
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)
        os.close(descriptor)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - for as long as the process lives
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115


def _tell_ends(working: dict[int, int]) -> None:
    for process in list(working):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            descriptor = working.pop(process)
            _tell(descriptor, os.waitstatus_to_exitcode(status))
            os.close(descriptor)


def _tell(descriptor: int, number: int) -> None:
    with suppress(BrokenPipeError):  # the lab is gone
        os.write(descriptor, b"%d\n" % number)


def main() -> None:
    """Do the work that the words name, or nurse."""
    module, *words = sys.argv[1:]
    if module != NURSERY:
        work(module, words)
        return
    for name in words:
        import_module(name)
    with socket.socket(fileno=os.dup(0)) as lab:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        nurse(lab)


if __name__ == "__main__":
    main()
