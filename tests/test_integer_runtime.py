"""Products of bytes in ONNX Runtime on a processor without VNNI, which adds neighbours in 16 bits: proved, and not."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from fanfold.deploy.integer import Draft, IntegerProgram, play, program_to_onnx

HASWELL = ["qemu-x86_64", "-cpu", "Haswell"]  # AVX2, without VNNI
SCRIPT = """
import json, sys
import numpy as np, onnxruntime
counts = {}
for name in sys.argv[1:]:
    held = np.load(f"{name}.npz")
    session = onnxruntime.InferenceSession(f"{name}.onnx", providers=["CPUExecutionProvider"])
    counts[name] = int((session.run(None, {"y": held["y"]})[0] != held["wanted"]).sum())
print(json.dumps(counts))
"""


def product(weights: np.ndarray) -> IntegerProgram:
    draft = Draft("p")
    draft.output(draft.matmul(draft.input("y", (weights.shape[1],), "int8"), weights, name="x_hat"), (len(weights),))
    return draft.finish()


def unproved_file(weights: np.ndarray, path: Path) -> None:
    """A file that multiplies bytes whatever their neighbours."""
    y = helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, ["batch", weights.shape[1]])
    x_hat = helper.make_tensor_value_info("x_hat", onnx.TensorProto.INT32, ["batch", len(weights)])
    numbers = {"weights": np.ascontiguousarray(weights.T), "zero": np.array(128, np.uint8)}
    node = helper.make_node("MatMulInteger", ["y", *numbers], ["x_hat"])
    initial = [numpy_helper.from_array(value, name) for name, value in numbers.items()]
    graph = helper.make_graph([node], "unproved", [y], [x_hat], initial)
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


@pytest.mark.skipif(platform.machine() != "x86_64" or shutil.which(HASWELL[0]) is None, reason="needs qemu-x86_64")
def test_pairs_that_are_proved_do_not_saturate_and_others_do(tmp_path):
    rng = np.random.default_rng(0)
    for name, most in (("proved", 64), ("in_float", 127)):
        weights = rng.choice([-most, most], (16, 64)).astype(np.int8)
        y = np.concatenate([rng.integers(-128, 128, (8, 64)), 127 * np.sign(weights.astype(int))]).astype(np.int8)
        program = product(weights)
        assert program.proof.rows[0].bytes_alone == (name == "proved")
        program_to_onnx(program, tmp_path / f"{name}.onnx")
        wanted = play(program, {"y": y})["x_hat"]
        np.savez(tmp_path / f"{name}.npz", y=y, wanted=wanted)
    unproved_file(weights, tmp_path / "unproved.onnx")
    np.savez(tmp_path / "unproved.npz", y=(y.astype(int) + 128).astype(np.uint8), wanted=wanted)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
    command = [*HASWELL, os.path.realpath(sys.executable), "-c", SCRIPT, "proved", "in_float", "unproved"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    counts = json.loads(done.stdout)
    assert (counts["proved"], counts["in_float"]) == (0, 0)
    assert counts["unproved"] > 0  # so this processor's kernels are those that saturate
