"""The words of the text's table, and of each whether the measurement bears it out: rules that were written beforehand.

Each rule is an inequality between numbers of one world, and says its numbers in words.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fanfold.experiments.comparison.scorecards import COVERAGE, Scorecard
from fanfold.experiments.comparison.worlds import Family

SURE = 0.05  # of a coverage, up to which an interval's own promise holds
A_LITTLE_DB = 0.1  # up to which two errors are the same


@dataclass(frozen=True)
class Finding:
    """A word of the text about one estimator, and whether it holds.

    Example:
        >>> from fanfold.experiments.comparison.words import Finding
        >>> Finding("Moderate dataset", "30 pairs", holds=False, why="the other needs 10").verdict
        'does not hold: the other needs 10'
    """

    word: str  # the text's
    measured: str  # in words
    holds: bool
    why: str  # what decides

    @property
    def verdict(self) -> str:
        """Whether it holds, and why."""
        return f"{'holds' if self.holds else 'does not hold'}: {self.why}"


World = Mapping[Family, Scorecard]
Rule = Callable[[World], tuple[bool, str]]


@dataclass(frozen=True)
class Criterion:
    """A row of the text's table."""

    title: str
    about: str  # what is measured
    measured: Callable[[Scorecard], str]
    words: Mapping[Family, tuple[str, Rule]]

    def findings(self, world: World) -> dict[Family, Finding]:
        """What the row says in one world."""
        findings = {}
        for family, (word, rule) in self.words.items():
            holds, why = rule(world)
            findings[family] = Finding(word, self.measured(world[family]), holds, why)
        return findings


def pairs_in_words(card: Scorecard) -> str:
    """How many pairs are enough, and what for."""
    least = max(n for n in card.curve if n is not None)
    count = f"more than {least}" if card.needed is None else str(card.needed)
    return f"{count} pairs (ceiling {card.reached_db:.1f} dB)"


def pairs_of(card: Scorecard) -> float:
    """The pairs that are enough, without end where no count was."""
    return math.inf if card.needed is None else card.needed


def counted_pairs(card: Scorecard) -> str:
    """The pairs that are enough, as a word."""
    return "more than were tried" if card.needed is None else str(card.needed)


def no_data(w: World) -> tuple[bool, str]:
    """None: without any pair it is within 1 dB of what it reaches."""
    card = w["model-based"]
    return card.needed == 0, f"without pairs {card.curve[0]:.1f} dB, with all {card.reached_db:.1f} dB"


def most_data(w: World) -> tuple[bool, str]:
    """Large: it needs more than the others."""
    mine, others = w["end-to-end"], [w["model-based"], w["unfolding"]]
    names = " and ".join(counted_pairs(card) for card in others)
    return all(pairs_of(mine) > pairs_of(card) for card in others), f"the others need {names}"


def moderate_data(w: World) -> tuple[bool, str]:
    """Moderate: some pairs, and fewer than end to end."""
    mine, other = w["unfolding"], w["end-to-end"]
    why = f"untrained {mine.curve[0]:.1f} dB; end to end needs {counted_pairs(other)}"
    return 0 < pairs_of(mine) < pairs_of(other), why


def cost_in_words(card: Scorecard) -> str:
    """Products and microseconds of a call."""
    late = "" if card.microseconds is None else f", {card.microseconds:.0f} µs ({BACKENDS[card.backend]})"
    return f"{card.contender.steps}: {card.products / 1e6:.2f} M products{late}"


BACKENDS = {"c": "C", "onnx": "ONNX Runtime", "eager": "PyTorch"}


def many_iterations(w: World) -> tuple[bool, str]:
    """Many iterations: more products than the layers of the unfolded network."""
    times = w["model-based"].products / w["unfolding"].products
    return times > 1, f"{times:.2g} times the products of the unfolded layers"


def one_pass(w: World) -> tuple[bool, str]:
    """One forward pass, which is meant to be cheap: no more products than the cheaper of the others."""
    least = min(w["model-based"].products, w["unfolding"].products)
    times = w["end-to-end"].products / least
    return times <= 1, f"one pass it is, with {times:.2g} times the products of the cheapest other"


def few_layers(w: World) -> tuple[bool, str]:
    """T layers, T small: fewer products than the model-based estimator."""
    times = w["unfolding"].products / w["model-based"].products
    return times < 1, f"{times:.2g} times the products of the model-based estimator"


def drift_in_words(card: Scorecard) -> str:
    """Mean and worst risk, and what a shift costs on average."""
    worst = card.worst
    return (
        f"risk {times(card.mean_risk)} of the baseline's on average, {times(worst.risk)} at worst "
        f"({worst.shift}); a shift costs {card.mean_lost_db:.1f} dB"
    )


def times(ratio: float) -> str:
    """A ratio in words."""
    return f"{ratio:.2f}×" if ratio < 10 else f"{ratio:.0f}×"


def not_robust(w: World) -> tuple[bool, str]:
    """No (biased): a shift costs it more than it costs the unfolded network."""
    mine, other = w["model-based"].mean_lost_db, w["unfolding"].mean_lost_db
    return mine > other, f"a shift costs {mine:.1f} dB, unfolded {other:.1f} dB"


def only_retrained(w: World) -> tuple[bool, str]:
    """Only if retrained: as it is, it errs more under shifts than the conservative baseline does."""
    card = w["end-to-end"]
    return card.mean_risk_db > 0, f"{times(card.mean_risk)} the errors of {card.baseline}"


def backbone(w: World) -> tuple[bool, str]:
    """Partially: it errs less under shifts than end to end, on average and at worst."""
    mine, other = w["unfolding"], w["end-to-end"]
    mean, worst = mine.mean_risk_db - other.mean_risk_db, mine.worst.risk_db - other.worst.risk_db
    return max(mean, worst) < 0, f"{mean:+.1f} dB from end-to-end on average, {worst:+.1f} dB at worst"


def learned_in_words(card: Scorecard) -> str:
    """How many numbers, how many have a name, how far they moved."""
    moved = "" if card.learned.moved is None else f", moved by a factor of {card.learned.moved:.2f} in the median"
    return f"{card.learned.numbers} numbers, {100 * card.learned.share:.0f} % with a name{moved}"


def all_named(w: World) -> tuple[bool, str]:
    """High: every learned number is a quantity of the model."""
    return w["model-based"].learned.share == 1, "every number is one of the model's"


def none_named(w: World) -> tuple[bool, str]:
    """Low: no learned number is."""
    return w["end-to-end"].learned.share == 0, "no number is one of an algorithm's"


def half_named(w: World) -> tuple[bool, str]:
    """Medium: some are and some are not."""
    share = w["unfolding"].learned.share
    return 0 < share < 1, f"{100 * share:.0f} % are quantities of the algorithm"


def coverage_in_words(card: Scorecard) -> str:
    """Coverage of its own and of calibrated intervals."""
    said = "says no variance" if card.said is None else f"{100 * card.said:.1f} % in its own"
    return f"{said}, {100 * card.conformal:.1f} % in calibrated ones (radius {card.radius:.2g} of the signal's rms)"


def sure(card: Scorecard) -> tuple[bool, str]:
    """Whether its own intervals hold what they promise."""
    if card.said is None:
        return False, "it says no variance"
    return abs(card.said - COVERAGE) <= SURE, f"its own 90 % intervals hold {100 * card.said:.1f} %"


def posterior(w: World) -> tuple[bool, str]:
    """Yes: its own intervals hold 90 %."""
    return sure(w["model-based"])


def rare(w: World) -> tuple[bool, str]:
    """Rare or ad hoc: it has no intervals of its own that hold 90 %."""
    holds, why = sure(w["end-to-end"])
    return not holds, why


def possible(w: World) -> tuple[bool, str]:
    """Possible: its own intervals hold 90 %."""
    return sure(w["unfolding"])


def ceiling_in_words(card: Scorecard) -> str:
    """What it reaches, and the gap."""
    return f"{card.reached_db:.1f} dB, {card.gap_db:.1f} dB from the limit ({card.limit})"


def below_limit(w: World) -> tuple[bool, str]:
    """Bounded: it stays at or above the limit, which is the Bayes error and no Cramér-Rao bound."""
    card = w["model-based"]
    return card.gap_db >= -2 * A_LITTLE_DB, f"{card.gap_db:.1f} dB above the Bayes limit, which bounds all three"


def data_bound(w: World) -> tuple[bool, str]:
    """Bounded by data size: fresh draws without end still gain on the most pairs that were tried."""
    card = w["end-to-end"]
    most = max(n for n in card.curve if n is not None)
    gain = card.curve[most] - card.reached_db
    return gain > A_LITTLE_DB, f"fresh draws gain {gain:.1f} dB on {most} pairs, and {card.gap_db:.1f} dB are left"


def beats_both(w: World) -> tuple[bool, str]:
    """Typically beats both."""
    mine, model, other = (w[family].reached_db for family in ("unfolding", "model-based", "end-to-end"))
    return mine < min(model, other), f"{mine - model:+.1f} dB from model-based, {mine - other:+.1f} dB from end-to-end"


CRITERIA = (
    Criterion(
        "Data requirement",
        "the fewest pairs from which on the error is within 1 dB of that with fresh draws without end",
        pairs_in_words,
        {
            "model-based": ("None (closed-form model)", no_data),
            "end-to-end": ("Large labeled dataset", most_data),
            "unfolding": ("Moderate dataset", moderate_data),
        },
    ),
    Criterion(
        "Inference cost",
        "real multiply-accumulates and median microseconds of a call with one sample on one core",
        cost_in_words,
        {
            "model-based": ("Many iterations", many_iterations),
            "end-to-end": ("One forward pass", one_pass),
            "unfolding": ("T layers (small T)", few_layers),
        },
    ),
    Criterion(
        "Robust to model drift",
        "squared errors over those of a conservative baseline under the same shift, for every shift of the problem",
        drift_in_words,
        {
            "model-based": ("No (biased)", not_robust),
            "end-to-end": ("Only if retrained", only_retrained),
            "unfolding": ("Partially (model backbone)", backbone),
        },
    ),
    Criterion(
        "Interpretability",
        "learned numbers, the share that a quantity of the algorithm names, and how far the median of these moved",
        learned_in_words,
        {
            "model-based": ("High", all_named),
            "end-to-end": ("Low", none_named),
            "unfolding": ("Medium", half_named),
        },
    ),
    Criterion(
        "Uncertainty quantification",
        "the share of entries in 90 % intervals, Gaussian ones of its own variance and conformal ones",
        coverage_in_words,
        {
            "model-based": ("Yes (Bayesian posterior)", posterior),
            "end-to-end": ("Rare / ad hoc", rare),
            "unfolding": ("Possible via unfolded Bayesian methods", possible),
        },
    ),
    Criterion(
        "Performance ceiling",
        "the error with fresh draws without end, and its distance from the limit",
        ceiling_in_words,
        {
            "model-based": ("Bounded by CRLB", below_limit),
            "end-to-end": ("Bounded by data size", data_bound),
            "unfolding": ("Typically beats both at moderate T", beats_both),
        },
    ),
)
