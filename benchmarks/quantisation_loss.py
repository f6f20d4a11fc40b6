"""What networks in whole numbers lose to floating point, after calibration and after training, and their time in C.

500 unknowns, one in ten of them not zero, from 250 projections at 40 dB. Each network is first trained in floating
point. Losses are in dB of NMSE on draws that no training saw. For each width the table gives:

calibrated_db   the loss of scales that are chosen on 500 observations
trained_db      the loss after `ff.fit(net, problem, quantise=widths)`, against the network in floating point before
same_db         that against the trained weights themselves in floating point
cpu_s           CPU seconds of this training
median_us       of a call of the integer C for one sample, one core, with p99; float_us is the float C beside it

    python benchmarks/quantisation_loss.py [lista-cp] [alista] [alista-at] [oamp] [--quick]
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

import fanfold as ff
from fanfold.core.streams import generator_of
from fanfold.core.table import Table
from fanfold.core.units import nmse_db
from fanfold.deploy import Timing, compiled, integer
from fanfold.deploy.cost import timed_us
from fanfold.deploy.latency import one_core, time_c

WIDTHS = ("w8a8", "w8a12", "w16a16")
SAMPLES, CALLS = 4000, 2000


class Row(NamedTuple):
    """A network: its algorithm, what it learns, how it is trained in floating point, and then in whole numbers."""

    algorithm: Any
    learn: tuple[str, ...]
    layers: int
    stages: tuple[dict[str, Any], ...]
    whole: dict[str, Any]


ROWS = {
    "lista-cp": Row(
        ff.algorithms.LISTACP(0.3),
        ("W", "threshold"),
        16,
        ({"steps": 1800, "batch": 512, "lr": 2e-3},),
        {"steps": 150, "batch": 128, "lr": 1e-4},
    ),
    "alista": Row(
        ff.algorithms.ALISTA(lam=0.3),
        ("step", "threshold"),
        16,
        ({"steps": 400, "lr": 6e-3, "loss_layers": 16}, {"steps": 1200, "batch": 128, "lr": 1e-3}),
        {"steps": 150, "batch": 128, "lr": 3e-4},
    ),
    "alista-at": Row(
        ff.algorithms.ALISTAAT(),
        ("alpha", "ridge"),
        16,
        ({"steps": 400, "lr": 6e-3, "loss_layers": 16},),
        {"steps": 60, "batch": 64, "lr": 3e-4},
    ),
    "oamp": Row(
        ff.algorithms.OAMP(ff.priors.BernoulliGaussian(0.3)),
        ("noise_scale", "v_linear", "v_denoised", "p", "var"),
        10,
        ({"steps": 200, "lr": 3e-3},),
        {"steps": 60, "batch": 64, "lr": 1e-4},
    ),
}


def shorter(how: dict[str, Any], *, quick: bool) -> dict[str, Any]:
    """The settings of a training, a tenth as long if quick."""
    return how | {"steps": max(1, how["steps"] // (10 if quick else 1)), "threads": 1}


def cpu_seconds(work: Callable[[], Any]) -> tuple[Any, float]:
    """What work gives, and the CPU seconds that it took."""
    began = time.process_time()
    result = work()
    return result, time.process_time() - began


def times_in_c(program: integer.IntegerProgram, y: np.ndarray) -> Timing:
    """The times of a call of the C of a program, for one sample."""
    given = {"y": program.inputs[0].integers(y[:1].astype(np.float64))}
    return Timing.of(timed_us(integer.CompiledProgram(program).prepared(given), CALLS))


def losses(name: str, problem: Any, *, quick: bool) -> list[dict[str, Any]]:
    """The rows of one network."""
    row = ROWS[name]
    x, obs = problem.sample(SAMPLES, generator_of(77))
    cal = problem.sample(500, generator_of(78))[1]
    net = ff.unfold(row.algorithm, problem, row.layers, dict.fromkeys(row.learn, "per-layer"))

    def train() -> None:
        for how in row.stages:
            ff.fit(net, problem, validate_every=100, on_event=lambda event: None, **shorter(how, quick=quick))

    _, seconds = cpu_seconds(train)
    with torch.no_grad(), one_core():
        floating = nmse_db(net(obs).x, x)
        in_c = compiled(net, obs[:4])
        late = time_c(in_c, obs[:1], 100.0, CALLS).timing
        assert late is not None
        float_us = late.median
    print(
        f"{name}: {floating:.2f} dB in floating point after {seconds:.0f} CPU s; float C {float_us:.0f} µs", flush=True
    )
    rows = []
    for widths in WIDTHS:
        with torch.no_grad():
            calibrated = nmse_db(ff.estimators.quantised(net, widths, cal)(obs).x, x)
        how = shorter(row.whole, quick=quick) | {"validate_every": 30, "on_event": lambda event: None}
        whole, spent = cpu_seconds(lambda how=how, widths=widths: ff.fit(net, problem, quantise=widths, **how))
        program = integer.drafted(whole)
        with torch.no_grad(), one_core():
            said = whole(obs).x
            mismatches = int((integer.IntegerEstimator(program)(obs[:200]).x != said[:200]).sum())
            late = times_in_c(program, obs.y.numpy())
            rows.append({
                "network": name,
                "widths": widths,
                "float_db": floating,
                "calibrated_db": calibrated - floating,
                "trained_db": nmse_db(said, x) - floating,
                "same_db": nmse_db(said, x) - nmse_db(whole.network(obs).x, x),
                "cpu_s": spent,
                "median_us": late.median,
                "p99_us": late.p99,
                "over_float": late.median / float_us,
                "mismatches": mismatches,
            })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("networks", nargs="*", help=f"some of {', '.join(ROWS)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="a tenth of the training")
    given = parser.parse_args()
    if unknown := [name for name in given.networks if name not in ROWS]:
        parser.error(f"no network {unknown[0]!r}; there are {', '.join(ROWS)}")
    torch.set_num_threads(1)
    problem = ff.problems.CompressedSensing(n=500, m=250)
    rows = [row for name in given.networks or ROWS for row in losses(name, problem, quick=given.quick)]
    print(Table(rows))
    print(f"1 thread, {torch.__version__}, {CALLS} calls, {SAMPLES} draws")


if __name__ == "__main__":
    main()
