"""What is said of observations that are unlike those of calibration: how many, by what, and what to do."""

from collections.abc import Mapping

from scipy.stats import binom
from torch import Tensor

from fanfold.guard.monitoring.conditional import rate_given
from fanfold.guard.monitoring.registry import COMBINED, SCORES

SHOWN = 5  # indices that a sentence names


def remarks_on(
    p_values: Mapping[str, Tensor], usable: Tensor, draws: int, alarm: float, confidence: float
) -> list[str]:
    """Sentences about samples, `(count,)` each: those that are no numbers, and small p-values where they are too many.

    Too many are more p-values up to `alarm`, or up to its root, than chance gives in one batch of a hundred at an alarm
    of 1 %, at the largest rate that the draws of calibration allow for.
    """
    sentences = []
    if not usable.all():
        sentences.append(
            f"{_places(~usable)} hold NaN or infinity and have the least p-value there is, 1/{draws + 1}: repair or "
            "remove these measurements."
        )
    of = int(usable.sum())
    for level in (alarm, alarm**0.5):
        small = (p_values[COMBINED] <= level) & usable.cpu()
        count, highest = int(small.sum()), rate_given(draws, level, confidence)[1]
        if count and binom.sf(count - 1, of, highest) <= max(alarm, highest if of == 1 and level == alarm else 0):
            return [*sentences, _unlike(p_values, small, draws, level)]
    return sentences


def _unlike(p_values: Mapping[str, Tensor], small: Tensor, draws: int, level: float) -> str:
    each = {name: p[small].log().mean().item() for name, p in p_values.items() if name != COMBINED}
    strangest = min(each, key=lambda name: each[name])
    return (
        f"{_places(small)} are unlike the {draws} draws of calibration (p-value up to {level:g}, which chance gives to "
        f"{100 * level:g} %), most by their {strangest}, which sees {SCORES[strangest].sees}: do not trust their "
        "estimates, nor intervals around them; check the receiver, take strength 0 or a classical estimator, or train "
        "on such measurements."
    )


def _places(which: Tensor) -> str:
    places = which.nonzero()[:, 0].tolist()
    shown = ", ".join(map(str, places[:SHOWN])) + (", ..." if len(places) > SHOWN else "")
    return f"{len(places)} of {len(which)} samples (first at {shown})"
