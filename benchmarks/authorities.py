"""Outputs of integer programs in ONNX Runtime, OpenVINO and C that are not the player's, as a table.

python benchmarks/authorities.py --outputs 1000000
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import fanfold as ff
from fanfold.core.streams import generator_of
from fanfold.core.table import Table
from fanfold.deploy.integer import CompiledProgram, IntegerProgram, play, program_to_onnx, to_integers

LEARN = {
    "adaptive alista": (ff.algorithms.ALISTAAT(), {"alpha": "per-layer", "ridge": "per-layer"}),
    "lista-cp": (ff.algorithms.LISTACP(0.1), {"W": "per-layer", "threshold": "per-layer"}),
    "alista": (ff.algorithms.ALISTA(), {"step": "per-layer", "threshold": "per-layer"}),
}
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


def row(name: str, program: IntegerProgram, y: np.ndarray) -> dict[str, object]:
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
        }
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
    args = parser.parse_args()
    problem = ff.problems.CompressedSensing(n=500, m=250, snr_db=40.0)
    _, seen = problem.sample(300, generator_of(1))
    _, obs = problem.sample(-(-args.outputs // problem.n), generator_of(2))
    rows = []
    for name, (algorithm, learn) in LEARN.items():
        net = ff.unfold(algorithm, problem, args.layers, learn)
        with torch.no_grad():
            for p in net.parameters():
                p += 0.002 * torch.randn(p.shape, generator=generator_of(3))
        for fit in (True, False):
            program = to_integers(net, seen, "w8a8", pairs_fit=fit)
            y = program.inputs[0].integers(obs.y.double().numpy())
            rows.append(row(f"{name}, {'bytes' if fit else 'float products'}", program, y))
            print(Table(rows[-1:]), flush=True)


if __name__ == "__main__":
    main()
