"""What is said of observations that are unlike those of calibration: how many, by what, and what to do."""

from collections.abc import Mapping

from scipy.stats import binom
from torch import Tensor

from fanfold.guard.monitoring.conditional import rate_given
from fanfold.guard.monitoring.registry import COMBINED, SCORES

SHOWN = 5  # indices that a sentence names
LEVELS = (1, 2, 5, 10)  # times the rate of false alarms, up to which p-values are counted


def remarks_on(
    p_values: Mapping[str, Tensor],
    usable: Tensor,
    draws: int,
    alarm: float,
    confidence: float,
    instead: str,
) -> list[str]:
    """Sentences about samples, `(count,)` each: those that are no numbers, and small p-values where they are too many.

    Too many are more p-values up to one of four levels than chance gives in a share `alarm` of batches, at the largest
    rates that the draws of calibration allow for; of one observation alone, a p-value up to `alarm`.

    Args:
        p_values: Those of every score and the combined one by name.
        usable: Which samples are numbers.
        draws: How many the p-values are ranks among.
        alarm: The share of usual batches of which anything is said.
        confidence: That of the rates, given the draws.
        instead: What there is beside the estimator.
    """
    sentences = []
    if not usable.all():
        sentences.append(
            f"{places_of(~usable)} hold NaN or infinity and have the least p-value there is, 1/{draws + 1}: repair or "
            "remove these measurements."
        )
    of = int(usable.sum())
    levels = [level for level in (factor * alarm for factor in LEVELS) if level < 1]
    for level in levels:
        small = (p_values[COMBINED] <= level) & usable.cpu()
        count, highest = int(small.sum()), rate_given(draws, level, confidence)[1]
        enough = alarm / len(levels) if of > 1 else highest if level == alarm else 0.0
        if count and binom.sf(count - 1, of, highest) <= enough:
            return [*sentences, _unlike(p_values, small, draws, level, instead)]
    return sentences


def _unlike(p_values: Mapping[str, Tensor], small: Tensor, draws: int, level: float, instead: str) -> str:
    each = {name: p[small].log().mean().item() for name, p in p_values.items() if name != COMBINED}
    strangest = min(each, key=lambda name: each[name])
    return (
        f"{places_of(small)} are unlike the {draws} draws of calibration (p-value up to {level:g}, which chance gives "
        f"to {100 * level:g} %), most by their {strangest}, which sees {SCORES[strangest].sees}: do not trust their "
        f"estimates, nor intervals around them; check the receiver, take {instead}, or train on such measurements."
    )


def places_of(which: Tensor) -> str:
    """How many samples `(count,)` it is true of, of how many, and which of them are the first."""
    places = which.nonzero()[:, 0].tolist()
    shown = ", ".join(map(str, places[:SHOWN])) + (", ..." if len(places) > SHOWN else "")
    return f"{len(places)} of {len(which)} samples (first at {shown})"
