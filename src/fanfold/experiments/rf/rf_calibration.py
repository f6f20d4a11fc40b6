"""RF imaging through an array that is not what it is thought to be, and a hundred pairs to mend that.

Question: of what 10° of phase, 1 dB of gain or the responses of real antennas cost an estimator that trusts the nominal
operator, how much does each method win back from 100 calibration pairs of scenes and measurements? Networks train on
the pairs with the nominal operator; least squares fits the operator itself, element by element or factor by factor; and
a network that is OAMP plus deviations learns the responses and OAMP's numbers together, end to end.
Source: the text that the project implements; least squares as in Kolda & Bader (2009), section 3.4.
"""

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from fanfold.algorithms import EP, FISTA, OAMP, Algorithm
from fanfold.core.abilities import ability
from fanfold.core.streams import Stream
from fanfold.core.table import Table
from fanfold.core.units import nmse_db
from fanfold.estimators import BackProjectionUNet, LearnedResponses, fit_factors, fit_responses
from fanfold.estimators.base import Layered
from fanfold.evaluation.evaluate import Estimator, errors_db
from fanfold.experiments.base import Goal, Study, mean_goal
from fanfold.experiments.rf.rf_methods import LEARNED
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.linops import Kronecker, LinearOperator
from fanfold.observation import Observation
from fanfold.priors import BernoulliGaussian
from fanfold.problems import RFImaging
from fanfold.problems.draws import draw
from fanfold.problems.rf.imaging import Sensing
from fanfold.report.page import Section
from fanfold.report.plots import Series, line_chart
from fanfold.training.events import Event
from fanfold.training.fit import fit
from fanfold.training.settings import TrainingOptions
from fanfold.unfolding.unfold import UnfoldedSettings, iterate, unfold

PRIOR = BernoulliGaussian(0.1)  # of the scenes, which all are told
PAIRS, LAYERS = 100, 12
ERRORS: Mapping[str, dict[str, Any]] = {
    "10° phase, 1 dB gain": {"phase_deg": 10.0, "gain_db": 1.0},
    "measured antennas": {"measured": True},
}
NOMINAL, ORACLE = "OAMP, nominal operator", "OAMP, true operator"
UNFOLDED, UNFOLDED_FISTA, UNET = "unfolded OAMP, nominal", "unfolded FISTA, nominal", "U-Net on the LMMSE image"
RESPONSES, FACTORS, BOTH = "OAMP, fitted responses", "OAMP, fitted factors", "unfolded OAMP, fitted responses"
END_TO_END = "unfolded OAMP, responses learned with it"


@dataclass(frozen=True)
class Calibration:
    """Pairs of scenes and measurements beside an operator; the last fifth is for validation."""

    x: Tensor
    obs: Observation
    part: slice

    @property
    def A(self) -> LinearOperator | None:  # noqa: N802
        """What the measurements are taken to come through."""
        return self.obs.A

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` pairs at random."""
        x, y = self.x[self.part], self.obs.y[self.part]
        pick = torch.randint(len(x), (n,), generator=generator)
        return x[pick], Observation.unchecked(y[pick], self.obs.A, self.obs.noise_var)

    def shifted(self, **changes: Any) -> "Calibration":
        """Refused: there are no other pairs."""
        raise ValueError(f"calibration pairs are what they are; they cannot be drawn at {changes}.")

    def held_out(self) -> "Calibration":
        """The pairs for validation."""
        return Calibration(self.x, self.obs, slice(-max(1, len(self.x) // 5), None))

    @classmethod
    def of(cls, x: Tensor, obs: Observation, A: LinearOperator) -> "Calibration":
        """All but the last fifth, seen through A."""
        through = Observation.unchecked(obs.y, A, obs.noise_var)
        return cls(x, through, slice(0, max(1, len(x) - len(x) // 5)))


def through(estimator: Estimator, A: LinearOperator) -> Estimator:
    """An estimator that takes the measurements to come through A."""
    return lambda obs: estimator(Observation.unchecked(obs.y, A, obs.noise_var))


def best_on(pairs: Calibration, candidates: Iterator[Algorithm], iterations: int) -> Estimator:
    """The candidate with the least error on the pairs, bound to their operator."""

    def error(algorithm: Algorithm) -> float:
        value = nmse_db(iterate(algorithm, iterations)(pairs.obs).x, pairs.x)
        return value if math.isfinite(value) else math.inf

    assert pairs.A is not None
    return through(iterate(min(candidates, key=error), iterations), pairs.A)


def oamps() -> Iterator[OAMP]:
    """OAMP that takes what the operator gets wrong for noise, or does not."""
    for noise, spread in itertools.product(("estimated", "given"), (0.03, 1.0)):
        yield OAMP(PRIOR, noise=cast(Any, noise), spread=spread, adapt=True)


@torch.no_grad()
def methods(on: RFImaging, count: int, steps: int, seed: int, watch: Watcher) -> dict[str, Estimator]:
    """What each makes of so many pairs."""
    x, obs = draw(on, count, seed, Stream.TUNING, 0)
    nominal = cast(Kronecker, on.A)
    operators = {
        NOMINAL: nominal,
        RESPONSES: fit_responses(nominal, x, obs.y),
        FACTORS: fit_factors(nominal, x, obs.y),
        ORACLE: on.true_A,
    }
    estimators = {name: best_on(Calibration.of(x, obs, A), oamps(), 30) for name, A in operators.items()}
    pairs = Calibration.of(x, obs, nominal)
    lams = [0.5 * (nominal.H @ obs.y).abs().max().item() * 500 ** (-i / 9) for i in range(10)]
    estimators["FISTA, nominal operator"] = best_on(pairs, (FISTA(lam) for lam in lams), 100)
    start = min(lams, key=lambda lam: nmse_db(iterate(FISTA(lam), LAYERS)(pairs.obs).x, x))
    fista = unfold(FISTA(start), on, LAYERS, dict.fromkeys(("step", "threshold", "momentum"), "per-layer"))
    oamp, learn = OAMP(PRIOR, noise="estimated"), dict.fromkeys(LEARNED, "per-layer")
    joint = LearnedResponses.of(on, UnfoldedSettings(oamp, LAYERS, learn))
    unet = BackProjectionUNet.of(on, signal_var=PRIOR.power, seed=seed)
    estimators[UNFOLDED_FISTA] = trained(fista, pairs, steps, 4e-3, seed, watch(UNFOLDED_FISTA))
    estimators[UNFOLDED] = trained(unfold(oamp, on, LAYERS, learn), pairs, steps, 1e-2, seed, watch(UNFOLDED))
    estimators[END_TO_END] = trained(joint, pairs, steps, 3e-2, seed, watch(END_TO_END))
    estimators[UNET] = trained(unet, pairs, steps, 2e-3, seed, watch(UNET))
    mended = Calibration.of(x, obs, operators[RESPONSES])
    both = trained(unfold(oamp, mended, LAYERS, learn), mended, steps, 1e-2, seed, watch(BOTH))
    estimators[BOTH] = through(both, operators[RESPONSES])
    if on.sensing == "steering":  # where one error variance for all voxels is too little
        ep = iterate(EP(PRIOR, noise="estimated", damping=0.95, improper="forget"), 10)
        operators["OAMP, learned responses"] = joint.operator(nominal)
        estimators |= {name.replace("OAMP", "EP"): through(ep, A) for name, A in operators.items()}
    return estimators


def trained(
    net: nn.Module, pairs: Calibration, steps: int, lr: float, seed: int, show: Callable[[Event], None]
) -> nn.Module:
    """The network after so many steps on the pairs, with the weights that did best on the last fifth."""
    how: TrainingOptions = {"batch": 16, "lr": lr, "loss_layers": 2 if ability(net, Layered) else 1}
    with torch.enable_grad():
        return fit(net, pairs, steps=steps, validation_samples=64, seed=seed, on_event=show, **how)


def measure(
    sensing: Sensing, errors: str, count: int, steps: int, seed: int, watch: Watcher, samples: int = 48
) -> dict[str, float]:
    """NMSE in dB of every method on fresh scenes; EP on a third of them."""
    on = RFImaging(sensing, seed=seed, **ERRORS[errors])
    estimators = methods(on, count, steps, seed, watch)
    x, obs = draw(on, samples, seed, Stream.TESTING, 0)
    values = {}
    with torch.no_grad():
        for name, estimator in estimators.items():
            rows = slice(samples // 3 if name.startswith("EP") else None)
            values[name] = errors_db(estimator(obs[rows]).x, x[rows])["nmse_db"]
    return values


def won_back(values: Mapping[str, float], name: str) -> float:
    """Share of the decibels between OAMP with the nominal operator and with the true one."""
    return (values[NOMINAL] - values[name]) / (values[NOMINAL] - values[ORACLE])


def section(title: str, runs: list[dict[str, float]]) -> Section:
    """The table of one kind of array and error, means over seeds."""

    def columns(what: str, numbers: list[float]) -> dict[str, float]:
        error = {f"± {what}": statistics.stdev(numbers) / len(numbers) ** 0.5} if len(numbers) > 1 else {}
        return {what: statistics.mean(numbers)} | error

    rows = [
        {"method": name}
        | columns("NMSE in dB", [values[name] for values in runs])
        | columns("won back of the loss", [won_back(values, name) for values in runs])
        for name in runs[0]
    ]
    text = (
        f"Mean of {len(runs)} arrays; {PAIRS} pairs; ± one standard error. The loss is that of OAMP with the nominal "
        "operator, in dB, against OAMP with the true one: a better algorithm wins back more than all of it."
    )
    return Section(title, text, table=Table(sorted(rows, key=lambda row: row["NMSE in dB"])))


def curve(steps: int, seed: int, watch: Watcher) -> Section:
    """Error against the number of pairs."""
    counts, errors = (10, 30, 100, 1000), "10° phase, 1 dB gain"
    runs = [measure("gaussian", errors, count, steps, seed, watch) for count in counts]
    names = (NOMINAL, UNFOLDED, UNET, RESPONSES, FACTORS, BOTH, END_TO_END, ORACLE)
    series = [Series(name, counts, [r[name] for r in runs], "learned") for name in names]
    rows = [{"pairs": count} | {name: r[name] for name in names} for count, r in zip(counts, runs, strict=True)]
    chart = line_chart(series, "calibration pairs", "NMSE in dB", log_x=True)
    return Section(f"More and fewer pairs: Kron(Gauss), {errors}", "One array.", [chart], Table(rows))


def study(*, quick: bool, seed: int, watch: Watcher) -> Study:
    """Two arrays and two kinds of error, five seeds, and a curve; one of each and short training if quick."""
    began = time.perf_counter()
    seeds, steps = (range(seed, seed + 1), 15) if quick else (range(seed, seed + 5), 80)
    arrays: list[Sensing] = ["gaussian"] if quick else ["gaussian", "steering"]
    settings = list(itertools.product(arrays, list(ERRORS)[:1] if quick else ERRORS))
    results = {s: [measure(*s, PAIRS, steps, i, watch) for i in seeds] for s in settings}
    goals: list[Goal] = []
    for (sensing, errors), runs in results.items():
        title = f"Kron({sensing}), {errors}"
        shares = [won_back(values, RESPONSES) for values in runs]
        goals.append(mean_goal(f"{title}: won back by fitted responses", "share", ">=", 0.9, shares))
        gains = [values[NOMINAL] - values[UNFOLDED] for values in runs]
        goals.append(mean_goal(f"{title}: unfolded OAMP ahead of OAMP, nominal both", "dB", ">=", 0.0, gains))
    sections = [section(f"Kron({sensing}), {errors}", runs) for (sensing, errors), runs in results.items()]
    first = results[settings[0]]
    learned, fitted, joint, both = (
        100 * statistics.mean(won_back(v, name) for v in first) for name in (UNFOLDED, RESPONSES, END_TO_END, BOTH)
    )
    return Study(
        "rf-calibration",
        f"What {PAIRS} calibration pairs win back where the array is not the nominal one.",
        f"Least squares for each element's response wins back {fitted:.0f} % of the decibels on Kron(Gauss) with "
        f"{settings[0][1]}, a network that keeps the nominal operator {learned:.0f} %, one that learns the responses "
        f"too {joint:.0f} %, one trained after least squares {both:.0f} %: calibrate the operator first, and let a "
        "network learn what is left.",
        time.perf_counter() - began,
        goals,
        sections if quick else [*sections, curve(steps, seed, watch)],
        {"seeds": list(seeds), "pairs": PAIRS, "steps": steps},
    )
