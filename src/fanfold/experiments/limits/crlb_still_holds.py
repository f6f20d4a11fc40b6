"""The CRLB still holds: who dips below it is biased, and nobody beats the Bayesian limit.

Claim: at low SNR a network, MAP and shrinkage have a mean squared error below the Cramér-Rao bound because they are
biased; no estimator is below Van Trees' bound or the exact MMSE, and at high SNR all are back at the CRB. Source: the
text's common mistake "The CRLB Still Holds"; Van Trees (1968), section 2.4.3; James & Stein (1961). A tone of four
samples shows threshold and bias, ten unknowns in Gaussian noise show James and Stein's estimator.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from fanfold.core.table import Table
from fanfold.core.units import db
from fanfold.estimators import MaximumAPosteriori, MaximumLikelihood, neural
from fanfold.experiments.base import Goal, Study, mean_goal
from fanfold.experiments.limits.crlb_estimators import CorrectedPeak, JamesStein, LeastSquares, Shrunk
from fanfold.experiments.limits.crlb_scores import EXACT, Score, Split, judge, shrinkage_bound, split, unbiased_bound
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.problems import LinearGaussian, Tone
from fanfold.report.page import Section
from fanfold.report.plots import Series, line_chart
from fanfold.training.fit import fit

TONE = Tone(n=4, density="raised-cosine")
LINEAR = LinearGaussian(n=10, m=20)
LOW, HIGH = -20.0, 40.0
SHOWN = (LOW, 0.0, HIGH)
LIMITS = {"Cramér-Rao": "cramer_rao", "Van Trees": "van_trees", "MMSE": "mmse"}
MLE, MAP, SHRUNK, NETWORK, STEIN = "MLE", "MAP", "shrunk MLE", "network", "James-Stein"


@dataclass(frozen=True)
class Size:
    """How much is drawn and trained."""

    snrs_db: tuple[float, ...]
    draws: int  # for each SNR
    steps: int  # of the tone's network
    linear_steps: int  # of each network of the linear model
    points: int  # frequencies at which bias and variance are told apart
    repeats: int  # of the noise at each


QUICK = Size((-20.0, -10.0, 0.0, 10.0, 20.0, 40.0), 10_000, 600, 100, 100, 100)
FULL = Size(tuple(float(snr_db) for snr_db in range(-20, 41, 5)), 40_000, 4000, 400, 200, 200)
TONE_TEXT = (
    "The frequency of a tone of unknown phase, from four samples; its prior is a raised cosine on ±0.8 pi. The network "
    "is the MLE plus a perceptron, one for all SNRs.\n"
    "At low SNR all but the MLE retreat to the prior: far below the Cramér-Rao bound, and not below the MMSE. Van "
    "Trees' bound is lower still, and valid. In between outliers part the MLE from its bound; at high SNR all limits "
    "agree."
)
LINEAR_TEXT = (
    "Ten unknowns of unit variance from twenty measurements. All is Gaussian: MAP is the posterior mean, and Van "
    "Trees' bound is the MMSE. James and Stein's estimator knows no prior and is below least squares, the best "
    "unbiased estimator, at every SNR: it is biased too, and it stays above the MMSE."
)
BIAS_TEXT = (
    "The same errors at given frequencies, with the noise alone repeated, on average over frequencies from the prior; "
    "95 % intervals. In the chart a bias² below its standard error is drawn at that.\n"
    "Cramér and Rao bound the variance of unbiased estimators. With a bias b(x) the bound is (1 + b')² CRB + b²: who "
    "answers nearly the same whatever the frequency, b' near -1, has hardly any variance, and pays with a bias as "
    "large as the prior is wide. Even the MLE dips below at -20 dB: frequencies are bounded, and so is its error."
)


@dataclass(frozen=True)
class SeedScores:
    """What one seed gave."""

    scores: list[Score]
    splits: list[Split]
    biased_db: list[float]  # shrunk least squares over the biased bound, at each SNR

    def of(self, model: str, estimator: str) -> list[Score]:
        """The scores of one estimator by SNR."""
        return [s for s in self.scores if s.model == model and s.estimator == estimator]

    def at(self, model: str, estimator: str, snr_db: float) -> Score:
        return next(s for s in self.of(model, estimator) if s.snr_db == snr_db)


def measure(size: Size, seed: int, watch: Watcher) -> SeedScores:
    """Train one network for the tone at all SNRs and one for each SNR of the linear model, and judge everything."""
    network = CorrectedPeak(TONE, seed=seed)
    every = TONE.shifted(snr_db=(min(size.snrs_db), max(size.snrs_db)))
    settings = {"seed": seed, "threads": 1}
    fit(network, every, steps=size.steps, validate_every=size.steps, on_event=watch(f"{NETWORK}, tone"), **settings)
    outcome = SeedScores([], [], [])
    for snr_db in size.snrs_db:
        tone, linear = TONE.shifted(snr_db=snr_db), LINEAR.shifted(snr_db=snr_db)
        peak, least_squares = MaximumLikelihood.of(tone), LeastSquares(linear)
        estimators = {MLE: peak, MAP: MaximumAPosteriori.of(tone), SHRUNK: Shrunk(peak, tone, seed), NETWORK: network}
        outcome.scores.extend(judge("tone", estimators, tone, size.draws, seed))
        outcome.splits.extend(split(estimators, tone, size.points, size.repeats, seed))
        learned = neural(linear, members=1, width=32, seed=seed)
        show = watch(f"{NETWORK}, linear model at {snr_db:g} dB")
        fit(learned, linear, steps=size.linear_steps, validate_every=size.linear_steps, on_event=show, **settings)
        shrunk = Shrunk(least_squares, linear, seed)
        estimators = {MLE: least_squares, STEIN: JamesStein(linear), SHRUNK: shrunk, NETWORK: learned}
        outcome.scores.extend(judge("linear", estimators, linear, size.draws, seed))
        bound = shrinkage_bound(linear, shrunk.factor, size.draws, seed)
        outcome.biased_db.append(db(outcome.at("linear", SHRUNK, snr_db).mse / bound))
    return outcome


def goals(outcomes: Sequence[SeedScores], *, quick: bool) -> list[Goal]:
    """What the mistake gets wrong, in numbers: worst cases over SNRs and seeds, and means over seeds."""
    scores = [s for outcome in outcomes for s in outcome.scores]
    lead, under = max(scores, key=lambda s: s.below_mmse), max(scores, key=lambda s: s.below_van_trees)

    def below_crb(model: str, estimator: str) -> Goal:
        what = f"{model}, {estimator} at {LOW:g} dB: below the Cramér-Rao bound"
        values = [-outcome.at(model, estimator, LOW).over("cramer_rao") for outcome in outcomes]
        return mean_goal(what, "dB", ">=", 5.0, values)

    shares = [s.share for o in outcomes for s in o.splits if (s.estimator, s.snr_db) == (NETWORK, LOW)]
    at_bound = [abs(outcome.at("tone", MLE, HIGH).over("cramer_rao")) for outcome in outcomes]
    stein = [
        db(james.mse / least.mse)
        for outcome in outcomes
        for james, least in zip(outcome.of("linear", STEIN), outcome.of("linear", MLE), strict=True)
    ]
    worst = max(s.excess_db for s in scores if s.estimator == NETWORK)
    biased = max((value for outcome in outcomes for value in outcome.biased_db), key=abs)
    errors = "std errors"
    return [
        Goal(f"largest lead over the MMSE ({lead.model}, {lead.estimator})", errors, "<=", 3, lead.below_mmse),
        Goal(
            f"largest lead over Van Trees' bound ({under.model}, {under.estimator})",
            errors,
            "<=",
            3,
            under.below_van_trees,
        ),
        Goal("networks, worst excess over the MMSE", "dB", "<=", 0.5 if quick else 0.3, worst),
        *(below_crb("tone", name) for name in (NETWORK, MAP, SHRUNK)),
        below_crb("linear", STEIN),
        mean_goal(f"tone, network at {LOW:g} dB: share of bias² in its error", "%", ">=", 80, shares),
        Goal("linear, shrunk MLE: distance to the biased Cramér-Rao bound", "dB", "=", 0, biased, tolerance=0.1),
        # it is below; at high SNR by less than its draws tell
        Goal("linear, James-Stein over least squares, at worst", "dB", "<=", 0.01, max(stein)),
        mean_goal(f"tone, MLE at {HIGH:g} dB: distance to the Cramér-Rao bound", "dB", "<=", 0.2, at_bound),
    ]


def section(outcome: SeedScores, model: str, title: str, text: str) -> Section:
    """Mean squared error of one seed against SNR, with the three limits, and again over the MMSE at low SNR."""
    names = dict.fromkeys(s.estimator for s in outcome.scores if s.model == model)
    curves = {name: outcome.of(model, name) for name in names}
    exact = curves[EXACT]
    least = {s.snr_db: s.limits.mmse for s in exact}
    values = {name: [s.mse for s in curve] for name, curve in curves.items() if name != EXACT}
    values |= {label: [vars(s.limits)[name] for s in exact] for label, name in LIMITS.items()}
    kinds = dict.fromkeys(values, "classical") | dict.fromkeys(LIMITS, "limit") | {NETWORK: "learned"}

    def chart(label: str, highest: float, reference: dict[float, float]) -> str:
        series = []
        for name, mse in values.items():
            ratios = {x: db(v / reference.get(x, 1.0)) for x, v in zip(least, mse, strict=True) if x <= highest}
            series.append(Series(name, list(ratios), list(ratios.values()), kinds[name]))
        return line_chart(series, "SNR in dB", label)

    charts = [chart("mean squared error in dB", HIGH, {}), chart("mean squared error over the MMSE in dB", 0.0, least)]
    rows = [
        {
            "estimator": s.estimator,
            "SNR (dB)": s.snr_db,
            "MSE (dB)": db(s.mse),
            "over Cramér-Rao (dB)": s.over("cramer_rao"),
            "over Van Trees (dB)": s.over("van_trees"),
            "over MMSE (dB)": s.over("mmse"),
            "lead over MMSE (std errors)": s.below_mmse,
        }
        for curve in curves.values()
        for s in curve
    ]
    return Section(title, text, charts, Table([row for row in rows if row["SNR (dB)"] in SHOWN]), Table(rows))


def bias_section(outcome: SeedScores) -> Section:
    """Bias² and variance of one seed against SNR."""
    series, bounds = [], {}
    for name, kind in ((MLE, "classical"), (NETWORK, "learned")):
        splits = [s for s in outcome.splits if s.estimator == name]
        bounds = {s.snr_db: unbiased_bound(TONE.shifted(snr_db=s.snr_db)) for s in splits}
        series += [
            Series(f"{name}, bias²", list(bounds), [db(max(s.bias, s.bias_error)) for s in splits], kind),
            Series(f"{name}, variance", list(bounds), [db(s.variance) for s in splits], kind),
        ]
    series.append(Series("Cramér-Rao", list(bounds), [db(bound) for bound in bounds.values()], "limit"))
    rows = [
        {
            "estimator": s.estimator,
            "SNR (dB)": s.snr_db,
            "bias²": f"{s.bias:.3g} ± {1.96 * s.bias_error:.1g}",
            "variance": f"{s.variance:.3g} ± {1.96 * s.variance_error:.1g}",
            "Cramér-Rao": f"{bounds[s.snr_db]:.3g}",
            "share of bias² (%)": s.share,
        }
        for s in outcome.splits
    ]
    chart = line_chart(series, "SNR in dB", "bias² and variance in dB")
    return Section("Below the bound by bias", BIAS_TEXT, [chart], Table(rows))


def verdict(outcomes: Sequence[SeedScores]) -> str:
    """Who dips below what, and who does not."""
    network, a_posteriori = (outcomes[0].at("tone", name, LOW) for name in (NETWORK, MAP))
    lead = max(s.below_mmse for outcome in outcomes for s in outcome.scores)
    return (
        f"At {LOW:g} dB the network is {-network.over('cramer_rao'):.1f} dB below the Cramér-Rao bound and MAP "
        f"{-a_posteriori.over('cramer_rao'):.1f} dB, by bias; the network is {network.excess_db:.2f} dB above "
        f"the MMSE, which no estimator beats by more than {max(lead, 0):.1f} standard errors at any SNR: do not hold a "
        "biased estimator against the Cramér-Rao bound, nor trust the network on draws of another prior"
    )


def study(*, quick: bool, seed: int, watch: Watcher) -> Study:
    """Thirteen SNRs and three seeds, or five and one if quick."""
    began, size = time.perf_counter(), QUICK if quick else FULL
    seeds = [seed] if quick else [seed, seed + 1, seed + 2]
    outcomes = [measure(size, s, watch) for s in seeds]
    first = outcomes[0]
    return Study(
        "crlb-still-holds",
        "The CRLB still holds: who is below it is biased, and nobody beats the Bayesian limit.",
        f"{verdict(outcomes)}.",
        time.perf_counter() - began,
        goals(outcomes, quick=quick),
        [
            section(first, "tone", "A tone of four samples", TONE_TEXT),
            bias_section(first),
            section(first, "linear", "Ten unknowns in Gaussian noise", LINEAR_TEXT),
        ],
        {"seeds": seeds, "test draws": size.draws},
    )
