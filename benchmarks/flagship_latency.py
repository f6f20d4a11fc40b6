"""The time of one call of every flagship in ONNX Runtime, OpenVINO, float C and integer C, against a fifth of a slot.

Times do not depend on what a network has learned, so that weights are those before training; the scales of whole
numbers are chosen on a few draws. One sample, one core, one thread. The budget is 100 µs of a slot of 500 µs, and for
the channel networks the 200 µs that are asked of them. Floors are those of this machine, measured beside the programs:
reading the weights, and as many products; for whole numbers, products of bytes at the rate of one matrix that stays in
the first cache, and no reading, as most of their bytes are rows of tables that a call does not touch. A backend that is
not installed is left out.

    python benchmarks/flagship_latency.py [sparse rf channels] [--quick] [--widths w8a8]
"""

import argparse
import platform
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

import fanfold as ff
from fanfold.core.machine import processor_lines
from fanfold.core.streams import generator_of
from fanfold.core.table import Table
from fanfold.deploy import BackendLatency, Timing, time_backends
from fanfold.deploy.backends import missing
from fanfold.deploy.cost import timed_us
from fanfold.deploy.integer import CompiledProgram, Draft, golden_vectors
from fanfold.deploy.latency import one_core
from fanfold.estimators import quantised
from fanfold.estimators.ofdm import (
    ADMMSettings,
    CNNSettings,
    FilterSettings,
    KroneckerGMM,
    MixerSettings,
    Mixture,
    OAMPSettings,
)

ASKED_US = {"sparse": 100.0, "rf": 100.0, "channels": 200.0}
SCALARS = ("noise_scale", "v_linear", "v_denoised", "p", "var")
SIDE, PLACES, COLUMNS = 64, 64, 256  # of the matrix of bytes whose rate is the floor


class Flagship(NamedTuple):
    """An estimator with observations of its problem."""

    group: str
    name: str
    make: Callable[[], tuple[Any, Any]]


@torch.no_grad()
def shaken(net: torch.nn.Module) -> torch.nn.Module:
    """A network whose layers differ a little, as trained ones do: no two of them share their weights."""
    generator = torch.Generator().manual_seed(0)
    for p in net.parameters():
        p += 1e-3 * torch.randn(p.shape, generator=generator)
    return net


def sparse(algorithm: Any, layers: int, learn: tuple[str, ...]) -> Callable[[], tuple[Any, Any]]:
    """An unfolded algorithm at 250×500."""

    def make() -> tuple[Any, Any]:
        problem = ff.problems.CompressedSensing(n=500, m=250)
        net = shaken(ff.unfold(algorithm, problem, layers, dict.fromkeys(learn, "per-layer")))
        return net, problem.sample(100, generator_of(0))[1]

    return make


def imaging() -> tuple[Any, Any]:
    """Unfolded OAMP over 32×32 pixels from 24×24 elements, a Kronecker product of complex factors."""
    problem = ff.problems.RFImaging("gaussian", (32, 32), (24, 24), snr_db=30.0)
    net = shaken(ff.unfold(ff.algorithms.OAMP(problem.prior), problem, 8, dict.fromkeys(SCALARS, "per-layer")))
    return net, problem.sample(100, generator_of(0))[1]


def channel(build: Callable[[Any], Any]) -> Callable[[], tuple[Any, Any]]:
    """A channel network for 64 antennas and 48 subcarriers, pilots on every second one."""

    def make() -> tuple[Any, Any]:
        problem = ff.problems.OFDMChannel("kronecker:array=8x8,subcarriers=48", "comb-2", snr_db=(0.0, 20.0))
        net = build(problem)
        if not isinstance(net, KroneckerGMM):
            net.prepare(*problem.sample(300, generator_of(1)))
        return net, problem.sample(100, generator_of(0))[1]

    return make


FLAGSHIPS = (
    Flagship("sparse", "LISTA-CP, T 16", sparse(ff.algorithms.LISTACP(0.3), 16, ("W", "threshold"))),
    Flagship("sparse", "ALISTA, T 16", sparse(ff.algorithms.ALISTA(lam=0.3), 16, ("step", "threshold"))),
    Flagship("sparse", "adaptive ALISTA, T 16", sparse(ff.algorithms.ALISTAAT(), 16, ("alpha",))),
    Flagship("sparse", "unfolded ISTA, T 16", sparse(ff.algorithms.ISTA(0.1), 16, ("step", "threshold"))),
    Flagship(
        "sparse", "unfolded OAMP, T 10", sparse(ff.algorithms.OAMP(ff.priors.BernoulliGaussian(0.1)), 10, SCALARS)
    ),
    Flagship("rf", "Kronecker OAMP, T 8", imaging),
    Flagship("channels", "learned filters", channel(lambda problem: FilterSettings(rounds=2).build(problem))),
    Flagship(
        "channels",
        "mixture",
        channel(lambda problem: KroneckerGMM.of(problem, Mixture.of(problem, 8, 300, rounds=2, modes=12))),
    ),
    Flagship("channels", "grid CNN", channel(lambda problem: CNNSettings().build(problem))),
    Flagship("channels", "beam mixer", channel(lambda problem: MixerSettings().build(problem))),
    Flagship("channels", "unfolded ADMM", channel(lambda problem: ADMMSettings().build(problem))),
    Flagship("channels", "unfolded OAMP", channel(lambda problem: OAMPSettings().build(problem))),
)


def bytes_a_us(calls: int) -> float:
    """Products of bytes a microsecond, of a matrix in the first cache."""
    draft = Draft("bytes")
    weights = np.random.default_rng(0).integers(-100, 100, (SIDE, COLUMNS)).astype(np.int8)
    y = draft.input("y", (PLACES, COLUMNS), "int8")
    draft.output(draft.matmul(y, weights, PLACES, name="sums"), (PLACES, SIDE))
    program = draft.finish()
    call = CompiledProgram(program).prepared(golden_vectors(program).inputs)
    return program.multiply_accumulates / Timing.of(timed_us(call, calls)).minimum


def in_whole_numbers(net: Any, obs: Any, widths: str, calls: int, rate: float) -> BackendLatency:
    """The times of the integer C with its arithmetic floor."""
    try:
        (late,) = time_backends(quantised(net, widths, obs), obs[:2], ["c"], calls=calls)
    except ValueError as error:
        return BackendLatency("c", None, 0.0, note=str(error).partition(";")[0])
    if (products := late.multiply_accumulates) is None:  # it did not run, and says why
        return late
    return late._replace(arithmetic_floor_us=products / rate)


def rows_of(flagship: Flagship, backends: list[str], widths: str, calls: int, rate: float) -> Iterator[dict[str, Any]]:
    """The rows of one flagship."""
    net, obs = flagship.make()
    budget = ASKED_US[flagship.group]
    lates = {late.backend: late for late in time_backends(net, obs[:2], backends, calls=calls)}
    lates[f"c {widths}"] = in_whole_numbers(net, obs, widths, calls, rate)
    for backend, late in lates.items():
        row = late.as_row()
        kept = ("min_us", "median_us", "p99_us", "p99.9_us", "memory_floor_us", "arithmetic_floor_us")
        median = row["median_us"]
        yield {
            "network": flagship.name,
            "backend": {"c": "float C"}.get(backend, backend.replace("c w", "integer C, w")),
            **{name: row[name] for name in kept},
            "MACs": late.multiply_accumulates,
            "bytes": late.weight_bytes,
            "budget_us": budget,
            "over budget by": None if median is None else f"{median - budget:.0f} µs" if median > budget else "within",
            "note": "" if late.note == "in whole numbers" else late.note[:60],
        }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("groups", nargs="*", help=f"some of {', '.join(ASKED_US)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls")
    parser.add_argument(
        "--widths",
        default="w8a8",
        choices=("w8a8", "w8a12", "w16a16"),
        help="bits of weights and activations of the integer C",
    )
    given = parser.parse_args()
    if unknown := [name for name in given.groups if name not in ASKED_US]:
        parser.error(f"no group {unknown[0]!r}; there are {', '.join(ASKED_US)}")
    calls = 100 if given.quick else 1000
    backends = [name for name in ("onnx", "openvino", "c") if not missing(name)]
    torch.set_num_threads(1)
    with one_core():
        rate = bytes_a_us(calls)
    rows = []
    for flagship in FLAGSHIPS:
        if not given.groups or flagship.group in given.groups:
            rows += rows_of(flagship, backends, given.widths, calls, rate)
            print(f"{flagship.name}: done", flush=True)
    print(Table(rows))
    model = next((line.partition(":")[2].strip() for line in processor_lines() if "model name" in line), "")
    print(
        f"{model or platform.processor()}, 1 thread, {calls} calls, {rate / 1e3:.0f} billion products of bytes a second"
    )


if __name__ == "__main__":
    main()
