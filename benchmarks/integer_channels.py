"""The channel networks in whole numbers: mismatches between the forms of their programs, losses in dB, time in C.

    python benchmarks/integer_channels.py mixer SOURCE [--run RUN] [--widths w8a8]

and likewise grid-cnn, filters and mixture. SOURCE is that of the channels, RUN the directory of a trained network.
Without one the network has the default size, has learned what it learns in closed form, and its other weights are
drawn; a mixture has none. Drawn inputs have any size, from nothing to the ends of the ports. Other processors, under
qemu, play fewer of them. One thread.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

import fanfold as ff
from fanfold.core.streams import generator_of
from fanfold.core.units import nmse_db
from fanfold.deploy import Timing
from fanfold.deploy.cost import timed_us
from fanfold.deploy.integer import (
    CompiledProgram,
    IntegerProgram,
    TorchProgram,
    drafted,
    golden_vectors,
    play,
    program_to_c,
)
from fanfold.deploy.integer.onnx_form import onnx_model
from fanfold.deploy.latency import one_core
from fanfold.estimators import quantised
from fanfold.estimators.ofdm import CNNSettings, FilterSettings, KroneckerGMM, MixerSettings, Mixture

SETTINGS = {"mixer": MixerSettings(), "grid-cnn": CNNSettings(), "filters": FilterSettings()}
OUTPUTS, CALLS, PART = 1_000_000, 300, 50
WIDTHS = ("w8a8", "w8a12", "w16a16")
OTHER_PROCESSORS = {
    "aarch64": ("aarch64-linux-gnu-gcc", "qemu-aarch64"),
    "armhf": ("arm-linux-gnueabihf-gcc", "qemu-arm"),
}


def network(kind: str, run: Path | None, problem: Any) -> torch.nn.Module:
    """The network in floating point."""
    if kind == "mixture":
        return KroneckerGMM.of(problem, Mixture.of(problem, 8, 2000, rounds=5, modes=12))
    if run is not None:
        return ff.load(run)
    net = SETTINGS[kind].build(problem)
    net.prepare(*problem.sample(500, generator_of(2)))
    for name, p in net.named_parameters():
        p += (1e-4 if name.startswith("bank") else 0.02) * torch.randn(p.shape, generator=generator_of(3))
    return net


def mismatches(program: IntegerProgram, outputs: int) -> dict[str, int]:
    """How many of so many outputs differ from the player's."""
    count = -(-outputs // program.outputs[0].size)
    inputs = dict(golden_vectors(program, count=count).inputs)
    session = onnxruntime.InferenceSession(onnx_model(program).SerializeToString(), providers=["CPUExecutionProvider"])
    in_torch, in_c = TorchProgram(program), CompiledProgram(program)
    totals = {"outputs": 0, "torch": 0, "onnxruntime": 0, "c": 0}
    for start in range(0, count, PART):  # so many at a time, for the memory's sake
        part = {name: value[start : start + PART] for name, value in inputs.items()}
        wanted = play(program, part)["x_hat"]
        said = {
            "torch": in_torch({name: torch.from_numpy(value) for name, value in part.items()})["x_hat"].numpy(),
            "onnxruntime": session.run(["x_hat"], part)[0],
            "c": in_c(program, part)["x_hat"],
        }
        totals["outputs"] += wanted.size
        for name, value in said.items():
            totals[name] += int((value != wanted).sum())
    return totals


def elsewhere(program: IntegerProgram, count: int) -> dict[str, str]:
    """Whether other processors give the player's outputs, all of so many vectors; those that can be played here."""
    golden, said = golden_vectors(program, count=count), {}
    with tempfile.TemporaryDirectory() as folder:
        program_to_c(program, golden).write(folder)
        for name, (compiler, player) in OTHER_PROCESSORS.items():
            if shutil.which(compiler) and shutil.which(player):
                flags = ["-std=c99", "-O2", "-static", f"-D{program.name.upper()}_SELF_TEST"]
                subprocess.run([compiler, *flags, f"{program.name}.c", "-o", name], cwd=folder, check=True)
                first = subprocess.run([player, f"./{name}"], cwd=folder, check=False).returncode
                outputs = count * program.outputs[0].size
                said[name] = f"none in {outputs}" if first == 0 else f"vector {first} differs"
    return said


def times_in_c(program: IntegerProgram) -> Timing:
    """The times of a call of the C for one sample, on one core."""
    inputs = {name: value[-1:] for name, value in golden_vectors(program).inputs.items()}
    with one_core():
        return Timing.of(timed_us(CompiledProgram(program).prepared(inputs), CALLS))


def losses(net: torch.nn.Module, whole: torch.nn.Module, problem: Any, samples: int) -> dict[int, float]:
    """What whole numbers lose in dB, for each SNR in dB."""
    lost = {}
    for snr_db in (0, 10, 20):
        x, seen = problem.held_out().shifted(snr_db=float(snr_db)).sample(samples, generator_of(1))
        said = [torch.cat([part(seen[k : k + PART]).x for k in range(0, samples, PART)]) for part in (whole, net)]
        lost[snr_db] = round(float(np.subtract(*(nmse_db(x_hat, x) for x_hat in said))), 3)
    return lost


@torch.no_grad()
def main() -> None:
    """Print a line for each width."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kind", choices=(*SETTINGS, "mixture"))
    parser.add_argument("source", help="of the channels")
    parser.add_argument("--run", type=Path, help="directory of the trained network")
    parser.add_argument("--pilots", default="comb-4")
    parser.add_argument("--widths", nargs="+", default=WIDTHS, choices=WIDTHS)
    parser.add_argument("--outputs", type=int, default=OUTPUTS, help="compared in each form")
    parser.add_argument("--vectors", type=int, default=20, help="replayed on other processors; 0 leaves them out")
    parser.add_argument("--samples", type=int, default=400, help="that losses are measured on; 0 leaves them out")
    given = parser.parse_args()
    torch.set_num_threads(1)
    problem = ff.problems.OFDMChannel(given.source, given.pilots, snr_db=(0.0, 20.0))
    net = network(given.kind, given.run, problem)
    _, obs = problem.sample(500, generator_of(0))
    for widths in given.widths:
        whole = quantised(net, widths, obs)
        program = drafted(whole, given.kind.replace("-", "_"))
        lost = losses(net, whole, problem, given.samples) if given.samples else {}
        print(f"{given.kind} {widths}: loss in dB {lost}", flush=True)
        taken = times_in_c(program)
        print(f"  C: least {taken.minimum:.0f} µs, median {taken.median:.0f}, p99 {taken.p99:.0f}", flush=True)
        print(f"  mismatches: {mismatches(program, given.outputs)}", flush=True)
        if given.vectors:
            print(f"  mismatches elsewhere: {elsewhere(program, given.vectors)}", flush=True)


if __name__ == "__main__":
    main()
