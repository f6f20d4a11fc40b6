"""What happens while training, as typed events that the API, the command line and the lab all consume."""

from dataclasses import dataclass
from typing import Literal

Ending = Literal["steps", "patience", "diverged"]


@dataclass(frozen=True)
class Started:
    """Training begins, at `step` if it is resumed; `reading` says what the problem read from the user's files."""

    step: int
    steps: int
    parameters: int
    threads: int
    processes: int
    reading: str = ""


@dataclass(frozen=True)
class Stepped:
    """One optimiser step; `skipped` if the loss or its gradient was not finite."""

    step: int
    loss: float
    gradient_norm: float
    lr: float
    skipped: bool


@dataclass(frozen=True)
class Validated:
    """NMSE on held-out draws, of the network cut to `depth` layers (0: whole); the mean of dBs if samples are judged.

    `loss` is the mean loss there of an estimator with losses of its own, and then decides which one is the best.
    """

    step: int
    depth: int
    nmse_db: float
    best: bool
    loss: float | None = None


@dataclass(frozen=True)
class Finished:
    """Training ends: "steps" were taken, "patience" ran out, or it "diverged" (100 skipped steps in a row)."""

    step: int
    reason: Ending
    nmse_db: float
    skipped: int
    seconds: float
    loss: float | None = None


Event = Started | Stepped | Validated | Finished


def summary(finished: Finished) -> str:
    """One line on how a training ended."""
    skipped = f", {finished.skipped} non-finite steps skipped" if finished.skipped else ""
    loss = "" if finished.loss is None else f"loss {finished.loss:.4f}, "
    return f"{loss}{finished.nmse_db:.2f} dB on held-out draws after {finished.step} steps ({finished.reason}){skipped}"
