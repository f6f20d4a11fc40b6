"""The verb of the lab. It imports no torch: the page answers before anything heavy is loaded."""

import sys
from pathlib import Path
from typing import Any

from fanfold.cli.outputs import check_folder
from fanfold.core.commands import command, printable


def lab(port: int = 0, runs: Path = Path("runs"), browser: bool = True) -> dict[str, Any]:
    """Open the lab, a page on this machine alone: train live, compare runs, on your own pairs too.

    Args:
        port: The port; 0 takes a free one.
        runs: The folder of runs, as train makes them.
        browser: Open the page in a browser.
    """
    check_folder(runs)
    try:
        from fanfold.lab.serve import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "anyio", "h11", "click"):
            raise
        raise ImportError("the lab needs Starlette and uvicorn: pip install 'fanfold[lab]'") from error
    stopped = serve(runs, port, browser=browser, say=_say)
    for name, flags in stopped.items():
        print(f"stopped; go on with: {printable(command('resume', runs / name, *flags))}", file=sys.stderr)
    return {"runs": str(runs), "stopped": stopped}


def _say(address: str) -> None:
    print(f"fanfold lab: {address}\nCtrl-C ends it; trainings keep their last checkpoint.", flush=True)
