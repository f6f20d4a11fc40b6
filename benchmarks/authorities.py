"""Outputs of integer programs in PyTorch, ONNX Runtime, OpenVINO and C that are not the player's, as a table.

python benchmarks/authorities.py --outputs 1000000 [--only "adaptive alista"] [--processors]

With --processors the C also runs on other processors, under qemu, as far as their compilers are installed.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import fanfold as ff
from fanfold.core.streams import generator_of
from fanfold.core.table import Table
from fanfold.deploy.integer import (
    CompiledProgram,
    IntegerProgram,
    TorchProgram,
    play,
    program_to_c,
    program_to_onnx,
    to_integers,
)

LEARN = {
    "adaptive alista": (ff.algorithms.ALISTAAT(), {"alpha": "per-layer", "ridge": "per-layer"}),
    "lista-cp": (ff.algorithms.LISTACP(0.1), {"W": "per-layer", "threshold": "per-layer"}),
    "alista": (ff.algorithms.ALISTA(), {"step": "per-layer", "threshold": "per-layer"}),
}
PROCESSORS = {
    "aarch64": (["aarch64-linux-gnu-gcc", "-O2", "-static"], ["qemu-aarch64"]),
    "armhf": (["arm-linux-gnueabihf-gcc", "-O2", "-static"], ["qemu-arm"]),
    "AVX2 without VNNI": (["gcc", "-O3", "-mavx2", "-static"], ["qemu-x86_64", "-cpu", "Haswell"]),
}
MAIN = """#include <stdio.h>
#include "{name}.h"
int main(void)
{{
    static int16_t y[{m}], x_hat[{n}];
    while (fread(y, sizeof y, 1, stdin) == 1) {{
        {name}_run(y, x_hat);
        fwrite(x_hat, sizeof x_hat, 1, stdout);
    }}
    return 0;
}}
"""
LEVELS = onnxruntime.GraphOptimizationLevel


def in_runtime(path: Path, y: np.ndarray, level: LEVELS) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.graph_optimization_level = 1, level
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"y": y})[0]


def in_openvino(path: Path, y: np.ndarray) -> np.ndarray:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(str(path), "CPU", settings)({"y": y})[0]


def in_torch(program: IntegerProgram, y: np.ndarray) -> np.ndarray:
    return TorchProgram(program)({"y": torch.from_numpy(y)})["x_hat"].numpy()


def elsewhere(program: IntegerProgram, folder: Path, processor: str, y: np.ndarray) -> np.ndarray:
    """The outputs of the C on another processor, for measurements and estimates of 16 bits."""
    compiler, player = PROCESSORS[processor]
    if not (shutil.which(compiler[0]) and shutil.which(player[0])):
        raise ImportError(f"{compiler[0]} and {player[0]} are not installed")
    program_to_c(program).write(folder)
    sizes = {"m": program.inputs[0].size, "n": program.outputs[0].size}
    (folder / "main.c").write_text(MAIN.format(name=program.name, **sizes))
    subprocess.run([*compiler, f"{program.name}.c", "main.c", "-o", "played"], cwd=folder, check=True)
    given = y.astype("<i2").tobytes()
    said = subprocess.run([*player, "./played"], cwd=folder, input=given, capture_output=True, check=True).stdout
    return np.frombuffer(said, "<i2").reshape(len(y), -1)


def row(name: str, program: IntegerProgram, y: np.ndarray, processors: list[str]) -> dict[str, object]:
    """How many outputs of a program differ in each runtime; a blank where it is not installed."""
    wanted = play(program, {"y": y})["x_hat"]
    counts: dict[str, object] = {"program": name, "outputs": wanted.size}
    with tempfile.TemporaryDirectory() as folder:
        path = program_to_onnx(program, Path(folder) / "p.onnx")
        said = {
            "ONNX Runtime": lambda: in_runtime(path, y, LEVELS.ORT_ENABLE_ALL),
            "not optimised": lambda: in_runtime(path, y, LEVELS.ORT_DISABLE_ALL),
            "OpenVINO": lambda: in_openvino(path, y),
            "C": lambda: CompiledProgram(program)(program, {"y": y})["x_hat"],
            "PyTorch": lambda: in_torch(program, y),
        }
        for processor in processors:
            said[processor] = lambda at=processor: elsewhere(program, Path(folder), at, y)
        for runtime, call in said.items():
            try:
                counts[runtime] = int((call() != wanted).sum())
            except ImportError:
                counts[runtime] = None
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outputs", type=int, default=1_000_000, help="how many of each program")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--only", choices=LEARN, help="one network")
    parser.add_argument("--processors", action="store_true", help="the C on other processors too")
    args = parser.parse_args()
    problem = ff.problems.CompressedSensing(n=500, m=250, snr_db=40.0)
    _, seen = problem.sample(300, generator_of(1))
    _, obs = problem.sample(-(-args.outputs // problem.n), generator_of(2))
    rows = []
    for name in LEARN if args.only is None else [args.only]:
        algorithm, learn = LEARN[name]
        net = ff.unfold(algorithm, problem, args.layers, learn)
        with torch.no_grad():
            for p in net.parameters():
                p += 0.002 * torch.randn(p.shape, generator=generator_of(3))
        for fit in (True, False):
            program = to_integers(net, seen, "w8a8", pairs_fit=fit)
            y = program.inputs[0].integers(obs.y.double().numpy())
            processors = [*PROCESSORS] if args.processors else []
            rows.append(row(f"{name}, {'bytes' if fit else 'float products'}", program, y, processors))
            print(Table(rows[-1:]), flush=True)


if __name__ == "__main__":
    main()
