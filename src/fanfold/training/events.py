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
    """Training ends: "steps" were taken, "patience" ran out, or it "diverged" (100 skipped steps in a row).

    The weights that are kept are those of `best_step`. Where training came to little, `advice` says so and what to try;
    `verdict` is what an estimator says that learned something in closed form at the end.
    """

    step: int
    reason: Ending
    nmse_db: float
    skipped: int
    seconds: float
    loss: float | None = None
    best_step: int = 0
    advice: str | None = None
    verdict: str | None = None


@dataclass(frozen=True)
class RoundStarted:
    """A round of simulations near one observation is drawn, and its training begins.

    `made` are new, `thrown_away` those that a problem without a prior of its own drew outside the box; the round trains
    on `kept`, among them what earlier rounds drew inside. `share` is the part of the prior that the box holds, as
    counted on the draws; `low` and `high` are the box.
    """

    number: int
    rounds: int
    made: int
    kept: int
    share: float
    low: tuple[float, ...]
    high: tuple[float, ...]
    thrown_away: int = 0


Event = Started | Stepped | Validated | Finished | RoundStarted


def summary(finished: Finished) -> str:
    """One line on how a training ended."""
    skipped = f", {finished.skipped} non-finite steps skipped" if finished.skipped else ""
    loss = "" if finished.loss is None else f"loss {finished.loss:.4f}, "
    line = f"{loss}{finished.nmse_db:.2f} dB on held-out draws after {finished.step} steps ({finished.reason}){skipped}"
    verdict = None if finished.verdict is None else finished.verdict.removesuffix(".")
    return ". ".join(text for text in (line, verdict, finished.advice) if text is not None)


def advice_on(reason: Ending, step: int, skipped: int, best_step: int, *, judged: bool) -> str | None:
    """What to say of a training that came to little, and what to try; None of the others.

    Args:
        reason: How it ended.
        step: How many steps there were.
        skipped: How many of them were skipped.
        best_step: The step whose weights are the best.
        judged: Whether any validation gave a number.
    """
    if step and skipped == step:
        return (
            f"No step was taken: in all {step} the loss or its gradient was not finite, and the network is as it was "
            "prepared. Look for huge or empty samples among x and y, or pass a smaller lr."
        )
    if not judged:
        return (
            "No validation gave a finite error: the network is as it was prepared. Look for huge or empty samples "
            "among the held-out draws, or pass a smaller lr."
        )
    if reason == "diverged":
        return f"Training diverged: the weights of step {best_step} are kept. Pass a smaller lr."
    if step and not best_step:
        return (
            f"The best weights are those of step 0: nothing was learned in {step} steps. Pass another lr, more steps "
            "or a larger batch, or let more of the network learn; or what it starts from is as good as it gets."
        )
    return None
