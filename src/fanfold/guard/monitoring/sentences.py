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

    Too many are more than chance gives with a probability of `alarm`, at the largest rate that the draws allow for.
    """
    sentences = []
    if not usable.all():
        sentences.append(
            f"{_places(~usable)} hold NaN or infinity and have the least p-value there is, 1/{draws + 1}: repair or "
            "remove these measurements."
        )
    small = (p_values[COMBINED] <= alarm) & usable.cpu()
    count, of = int(small.sum()), int(usable.sum())
    highest = rate_given(draws, alarm, confidence)[1]
    if not count or binom.sf(count - 1, of, highest) > max(alarm, highest):
        return sentences
    strangest = min((name for name in p_values if name != COMBINED), key=lambda name: _mean_log(p_values[name][small]))
    return [
        *sentences,
        f"{_places(small)} are unlike the {draws} draws of calibration (p-value up to {alarm:g}, which chance gives to "
        f"{100 * alarm:g} %), most by their {strangest}, which sees {SCORES[strangest].sees}: do not trust their "
        "estimates, nor intervals around them; check the receiver, take strength 0 or a classical estimator, or train "
        "on such measurements.",
    ]


def _places(which: Tensor) -> str:
    places = which.nonzero()[:, 0].tolist()
    shown = ", ".join(map(str, places[:SHOWN])) + (", ..." if len(places) > SHOWN else "")
    return f"{len(places)} of {len(which)} samples (first at {shown})"


def _mean_log(p: Tensor) -> float:
    return p.log().mean().item()
