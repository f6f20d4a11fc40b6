"""What the study of detection measures: false alarms, what single observations show, and alarms over time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fanfold.algorithms import OAMP
from fanfold.core.streams import Stream, generator_of
from fanfold.estimators import neural
from fanfold.experiments.sparse.sparse_limit import LEARNED, WRONG
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.guard import Monitor, monitor
from fanfold.observation import Observation
from fanfold.problems import BatchSimulator, Box, CompressedSensing, Mismatched, Problem
from fanfold.problems.draws import draw
from fanfold.training.fit import fit
from fanfold.unfolding.unfold import unfold

LAYERS = 10
RATES = (0.05, 0.001)  # of false alarms of single observations
FOR_EVER = 0.01  # of streams that ever alarm
QUICKLY = 0.001  # the same, where mild shifts are to be seen
CALLS = 50  # within which they are
BETWEEN = 1000  # usual calls between alarms of CUSUM
NOISE = 0.05  # standard deviation of the simulator's
TIMES = torch.linspace(0, 4, 40)
PHASE = 0.3  # standard deviation of the phase, a nuisance parameter


class Size(NamedTuple):
    """How much is trained and drawn."""

    steps: int
    calibration: int
    usual: int  # fresh usual draws, for rates
    strange: int  # draws of each shift
    paths: int
    calls: int  # of a path
    simulations: int
    simulator_steps: int
    members: int | None  # of the simulator's estimator; the default one if None


@dataclass(frozen=True)
class Sight:
    """What a monitor shows of one kind of observations."""

    auroc: Mapping[str, float]  # of each score against usual draws
    seen: float  # share with a combined p-value up to 0.1 %
    p: Tensor  # combined p-values


def sparse_shifts(on: CompressedSensing, count: int, seed: int) -> dict[str, Observation]:
    """Observations under shifts, that still say the noise variance which the receiver believes."""

    def drawn(problem: Problem) -> Tensor:
        return draw(problem, count, seed, Stream.TESTING, 2)[1].y

    louder = 10 * torch.log10(torch.tensor(1.5)).item()  # so that the noise stays as it is
    changed = {
        "noise × 2": drawn(on.shifted(snr_db=on.snr_db - 3.0103)),
        "sparsity × 2": drawn(on.shifted(sparsity=2 * on.sparsity, snr_db=on.snr_db + 3.0103)),
        "gain × 1.5": 1.5 * drawn(on),
        "20 dB": drawn(on.shifted(snr_db=20.0)),
        "p = 0.15": drawn(on.shifted(sparsity=1.5 * on.sparsity, snr_db=on.snr_db + louder)),
        "A wrong by 10 %": drawn(Mismatched(on, error=0.1)),
    }
    return {name: Observation(y, on.A, torch.tensor(on.noise_var)) for name, y in changed.items()}


STARK, MILD = ("noise × 2", "sparsity × 2", "gain × 1.5"), ("20 dB", "p = 0.15", "A wrong by 10 %")


@dataclass(frozen=True)
class Damped:
    """`y = a exp(-t / 3) cos(ω t + φ) + offset + noise`, with x = (a, ω) and a nuisance phase, contaminated or not."""

    noise: float = NOISE
    offset: float = 0.0
    contaminated: float = 0.0  # share of entries with an error ten times the noise

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Draws `(n, 40)` of the measurements of parameters `(n, 2)`."""
        phase = PHASE * torch.randn(len(x), 1, generator=generator)
        clean = x[:, :1] * torch.exp(-TIMES / 3) * torch.cos(x[:, 1:] * TIMES + phase) + self.offset
        w = self.noise * torch.randn(clean.shape, generator=generator)
        hit = torch.rand(clean.shape, generator=generator) < self.contaminated
        return clean + w + 10 * NOISE * hit * torch.randn(clean.shape, generator=generator)


BOX = Box((0.5, 0.5), (2.0, 3.0))
OUTSIDE: dict[str, Problem] = {
    "noise × 2": BatchSimulator(BOX, Damped(noise=2 * NOISE)),
    "noise / 2": BatchSimulator(BOX, Damped(noise=NOISE / 2)),
    "one entry in ten contaminated": BatchSimulator(BOX, Damped(contaminated=0.1)),
    "a nuisance offset of 0.2": BatchSimulator(BOX, Damped(offset=0.2)),
    "parameters beyond the prior": BatchSimulator(Box((2.5, 3.5), (3.0, 4.0)), Damped()),
}


def sparse_monitor(size: Size, seed: int, watch: Watcher) -> tuple[Monitor, CompressedSensing]:
    """Unfolded OAMP of ten layers at 40 dB, and its monitor."""
    on = CompressedSensing(n=500, m=250, sparsity=0.1, snr_db=40.0, seed=seed)
    net = unfold(OAMP(WRONG, noise="estimated"), on, LAYERS, dict.fromkeys(LEARNED, "per-layer"))
    fit(net, on, steps=size.steps, lr=6e-3, loss_layers=2, seed=seed, threads=1, on_event=watch("unfolded OAMP"))
    alarm = 0.001 if size.calibration >= 20_000 else 0.01
    scores = ("energy", "residual", "variance", "course", "summary", "held-out")
    return monitor(net, on, alarm, draws=size.calibration + 2000, scores=scores, seed=seed), on


def simulator_monitor(size: Size, seed: int, watch: Watcher) -> tuple[Monitor, Problem]:
    """An end-to-end estimator of a simulator, and its monitor."""
    on = BatchSimulator(BOX, Damped())
    net = neural(on, members=size.members, seed=seed)
    steps = size.simulator_steps
    fit(net, on, simulations=size.simulations, steps=steps, seed=seed, threads=1, on_event=watch("simulator"))
    return monitor(net, on, seed=seed), on


def usual_draws(on: Problem, count: int, seed: int) -> Observation:
    """Fresh observations that neither training nor calibration saw."""
    return draw(on.held_out(), count, seed, Stream.TESTING, 3)[1]


def shown(guard: Monitor, strange: Observation, usual: Mapping[str, Tensor]) -> Sight:
    """What scores and p-values say of observations, beside the scores of usual ones."""
    scores, p = guard.scores(strange), guard.p_values(strange)
    return Sight(
        {name: auroc(usual[name], scores[name]) for name in guard.names}, (p <= 0.001).double().mean().item(), p
    )


def auroc(usual: Tensor, strange: Tensor) -> float:
    """The chance that a strange observation has the larger score, ties counting half. Mann & Whitney (1947)."""
    ordered = usual.sort().values
    below = torch.searchsorted(ordered, strange.contiguous())
    upto = torch.searchsorted(ordered, strange.contiguous(), right=True)
    return ((below + upto).double() / 2).mean().item() / len(usual)


def streams_of(p: Tensor, calls: int, paths: int, seed: int) -> Tensor:
    """Streams of p-values `(calls, paths)`, each call one of the measured ones at random."""
    rows = torch.randint(len(p), (calls, paths), generator=generator_of(seed, Stream.TESTING, 4))
    return p[rows]


def ever_alarmed(guard: Monitor, p: Tensor, size: Size, seed: int) -> float:
    """The share of usual streams in which the martingale ever alarms."""
    state = guard.watch(alarm=FOR_EVER, streams=(size.paths,))
    return state.after(streams_of(p, size.calls, size.paths, seed)).alarmed.double().mean().item()


def calls_between(guard: Monitor, p: Tensor, size: Size, seed: int) -> float:
    """The mean number of usual calls between alarms of CUSUM."""
    state = guard.watch("cusum", between=BETWEEN, streams=(size.paths,))
    state = state.after(streams_of(p, size.calls, size.paths, seed))
    return size.paths * size.calls / max(1, int(state.alarms.sum()))


def seen_within(guard: Monitor, p: Tensor, before: Tensor, seed: int, paths: int = 500) -> float:
    """The share of streams that alarm within `CALLS` calls of a shift, of those that had not before.

    Args:
        guard: The monitor.
        p: p-values under the shift.
        before: p-values `(calls, paths)` of the usual calls before it.
        seed: Of the draws.
        paths: How many streams.
    """
    state = guard.watch(alarm=QUICKLY, streams=(paths,)).after(before)
    quiet = ~state.alarmed
    after = state.after(streams_of(p, CALLS, paths, seed + 1))
    return (after.alarmed & quiet).double().sum().item() / max(1, int(quiet.sum()))


def cusum_delay(guard: Monitor, p: Tensor, before: Tensor, seed: int, paths: int = 500) -> float:
    """The mean number of calls from a shift to the first alarm of CUSUM; at most 200 are waited for."""
    state: Any = guard.watch("cusum", between=BETWEEN, streams=(paths,)).after(before)
    delay = torch.full((paths,), 200.0)
    for call, values in enumerate(streams_of(p, 200, paths, seed + 2), 1):
        state = state.update(values)
        delay = torch.where(state.alarmed & (delay > call), float(call), delay)
    return delay.mean().item()
