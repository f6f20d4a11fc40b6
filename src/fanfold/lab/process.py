"""The process that works for the lab: a module of fanfold, which ends as by Ctrl-C when the lab lets go of it.

`python -m fanfold.lab.process MODULE WORDS` runs the module as a program. The lab holds the other end of its standard
input; when that closes, because the lab cancels or is gone, however it went, the work is interrupted and a training
keeps its last checkpoint.
"""

import _thread
import os
import runpy
import sys
import threading


def _interrupt_at_the_end(descriptor: int) -> None:
    while os.read(descriptor, 1024):  # no buffered reader: Python would wait for its lock as it ends
        pass
    _thread.interrupt_main()


def main() -> None:
    """Run the module that the first word names, with the other words, until it ends or the lab lets go."""
    threading.Thread(target=_interrupt_at_the_end, args=(sys.stdin.fileno(),), daemon=True).start()
    module = sys.argv[1]
    sys.argv = [module, *sys.argv[2:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
