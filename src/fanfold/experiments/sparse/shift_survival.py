"""A network beside a baseline while the world changes: what every shift does to it, guarded and not.

Claim: guarded, a network costs at most 2 % where it is at home, errs at most 1.05 times as much as its baseline under
every shift, and is within 0.5 dB of the better of both while home and another world alternate every thousand calls,
whether the network collapses there or is the better path still.
Sources: Herbster & Warmuth (1998), fixed share; Oliveira, Lei & Tibshirani (2021), losses without the truth.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fanfold.algorithms import FISTA, OAMP
from fanfold.core.streams import Stream
from fanfold.core.table import Table
from fanfold.core.units import db
from fanfold.evaluation.evaluate import energies
from fanfold.experiments.base import Goal, Study
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.guard.answers import answers
from fanfold.guard.fallback import Guarded, guarded
from fanfold.guard.monitoring import Monitor, monitor
from fanfold.guard.shifts import Shift, ShiftTable, shift_table, shifts
from fanfold.observation import Estimator
from fanfold.priors import BernoulliGaussian
from fanfold.problems import CompressedSensing, Problem
from fanfold.problems.draws import draw
from fanfold.report.page import Section
from fanfold.report.plots import Series, line_chart
from fanfold.training.fit import fit
from fanfold.unfolding.unfold import Unfolded, iterate, unfold

LAYERS, ITERATIONS, LAM = 10, 300, 0.01
GUESS = 0.3  # of the share of non-zeros, which is 0.1
BASELINE = f"FISTA, {ITERATIONS} iterations"
COLLAPSES = ("gain, x3 (+9.5 dB)", "heavy tails, Student, 2 degrees of freedom")  # that home alternates with
BETTER = (
    "noise, not known, x10 (+20.0 dB)",
    "operator, wrong by 10 %",
)  # where the network is, though the world is not
FEW = (*COLLAPSES, "noise, not known, x10 (+20.0 dB)", "sparsity, 0.2 of the entries, x2", "operator, wrong by 10 %")
BLOCK = 20  # points of the chart in a phase


@dataclass(frozen=True)
class Size:
    """How much is trained, calibrated on and called."""

    steps: int
    reach: float
    calibration: int  # draws of the guard
    monitored: int  # draws of the monitor; none if 0
    calls: int  # of each cell and of each phase
    phases: int
    names: tuple[str, ...] | None  # of the shifts; all if None
    specialist_steps: int  # in each cell; no specialists if 0
    collapses: tuple[str, ...]


QUICK = Size(40, 0.999, 1000, 0, 100, 4, FEW, 0, COLLAPSES[:1])
FULL = Size(150, 0.999, 1000, 6000, 1000, 6, None, 150, (*COLLAPSES, *BETTER))


@dataclass(frozen=True)
class Phase:
    """Squared errors in one phase of an alternation, `(calls,)` each, and those of the signal."""

    away: bool
    network: torch.Tensor
    baseline: torch.Tensor
    guarded: torch.Tensor
    signal: torch.Tensor

    @property
    def better(self) -> float:
        """The sum of errors of whichever of the two errs less in this phase."""
        return min(self.network.sum().item(), self.baseline.sum().item())


def study(*, quick: bool, seed: int, watch: Watcher) -> Study:
    """The experiment: every shift with a thousand calls, or five of them with a hundred if quick."""
    began, size = time.perf_counter(), QUICK if quick else FULL
    on = CompressedSensing(seed=seed)
    net = trained(on, size, seed, watch)
    guard = guarded(net, baseline(), on, reach=size.reach, samples=size.calibration, seed=seed)
    watching = monitor(net, on, draws=size.monitored, seed=seed) if size.monitored else None
    everything = [s for s in shifts(on) if size.names is None or s.name in size.names]
    tuned = table_of(net, on, guard, watching, [s for s in everything if not s.untouched], size, seed)
    runs = {s.name: alternated(guard, on, s.problem, size, seed) for s in everything if s.name in size.collapses}
    untouched = [s for s in everything if s.untouched]
    last = table_of(net, on, guard, watching, untouched, size, seed) if untouched else None
    return Study(
        "shifts",
        "Guarded, a network survives every shift that its baseline survives, and costs next to nothing at home.",
        f"{tuned.verdict} Do not trust a number of this page where the baseline itself fails.",
        time.perf_counter() - began,
        goals(tuned, last, runs, size),
        sections(tuned, last, runs),
        {"seed": seed, "operator": on.A.fingerprint()[:12], "calls of a cell": size.calls},
    )


def trained(on: CompressedSensing, size: Size, seed: int, watch: Watcher) -> Unfolded:
    """Unfolded OAMP, which learns prior and noise variance of each layer, from a wrong guess of the prior."""
    start = OAMP(prior=BernoulliGaussian(GUESS))
    net = unfold(start, on, LAYERS, {"prior": "per-layer", "noise_var": "per-layer"})
    return fit(net, on, steps=size.steps, batch=64, seed=seed, threads=1, on_event=watch("unfolded OAMP"))


def baseline() -> Estimator:
    """FISTA with a small weight: slow and never far off."""
    return iterate(FISTA(lam=LAM), ITERATIONS)


def table_of(
    net: Unfolded,
    on: CompressedSensing,
    guard: Guarded,
    watching: Monitor | None,
    cells: Sequence[Shift],
    size: Size,
    seed: int,
) -> ShiftTable:
    """What these shifts do."""
    return shift_table(
        net,
        on,
        guarded=guard,
        peers={},
        monitor=watching,
        cells=cells,
        calls=size.calls,
        specialist_steps=size.specialist_steps,
        seed=seed,
    )


@torch.no_grad()
def alternated(guard: Guarded, home: Problem, away: Problem, size: Size, seed: int) -> list[Phase]:
    """A stream that leaves home and comes back, with the errors of both estimators and of the guarded one."""
    guard.reset()
    phases = []
    for number in range(size.phases):
        is_away = number % 2 == 1
        x, obs = draw(away if is_away else home, size.calls, seed, Stream.TESTING, 1 + number)
        both = (answers(estimator, obs) for estimator in (guard.estimator, guard.baseline))
        estimates = [*both, guard(obs)]
        network, base, of_guarded = (energies(estimate.x, x)[0] for estimate in estimates)
        phases.append(Phase(is_away, network, base, of_guarded, energies(x, x)[1]))
    guard.reset()
    return phases


def lost_db(phases: Sequence[Phase]) -> float:
    """The errors of the guarded estimator over those of the better of both, phase by phase, in dB."""
    return db(sum(p.guarded.sum().item() for p in phases) / sum(p.better for p in phases))


def goals(tuned: ShiftTable, last: ShiftTable | None, runs: dict[str, list[Phase]], size: Size) -> list[Goal]:
    """At home, under the shifts, under the families on which nothing was tuned, and in alternation."""
    home = tuned.cells[0]
    assert home.guarded_risk is not None
    kept = home.guarded_risk.value / home.risk.value
    reached = [Goal("error of the guarded over that of the network, no shift", "ratio", "<=", 1.02, kept)]
    for table, which in ((tuned, "of {} shifts"), (last, "of {} shifts of two families that nothing was tuned on")):
        if table is not None and (risk := table.worst.guarded_risk) is not None:
            what = f"error of the guarded over that of {BASELINE}, worst {which.format(len(table.shifted))}"
            reached.append(Goal(what, "ratio", "<=", 1.05, risk.value, (risk.high - risk.low) / 2))
    for name, phases in runs.items():
        for away in (False, True):
            where = "in it" if away else "at home"
            what = f"guarded against the better of both, {name} every {size.calls} calls, {where}"
            reached.append(Goal(what, "dB", "<=", 0.5, lost_db([p for p in phases if p.away == away])))
    return reached


def sections(tuned: ShiftTable, last: ShiftTable | None, runs: dict[str, list[Phase]]) -> list[Section]:
    """The table of shifts, and the streams."""
    text = (
        "Risks are ratios of summed squared errors to those of the baseline. Each cell is one stream of calls, on "
        "which the guarded estimator starts with even weights."
    )
    shown = [Section("What every shift does", text, table=tuned.table, details=Table(tuned.rows))]
    if last is not None:
        about = "Nothing in the network, the guard or its settings was chosen by these."
        shown.append(Section("Families that nothing was tuned on", about, table=last.table, details=Table(last.rows)))
    return shown + [Section(f"Home and {name} in turn", "", [chart(phases)]) for name, phases in runs.items()]


def chart(phases: Sequence[Phase]) -> str:
    """Errors along the stream, each point a block of calls."""
    series = []
    for name, kind in (("network", "learned"), ("baseline", "classical"), ("guarded", "limit")):
        errors = torch.cat([vars(phase)[name] for phase in phases])
        signal = torch.cat([phase.signal for phase in phases])
        blocks = [
            (e.sum() / s.sum()).item()
            for e, s in zip(errors.chunk(BLOCK * len(phases)), signal.chunk(BLOCK * len(phases)))
        ]
        step = len(errors) / len(blocks)
        series.append(Series(name, [step * (i + 1) for i in range(len(blocks))], [db(b) for b in blocks], kind))
    return line_chart(series, "call", "NMSE in dB")
