"""What runs elsewhere gives the same numbers: ONNX Runtime against torch, for every algorithm."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from fanfold import iterate
from fanfold.algorithms import REGISTRY
from fanfold.deploy import to_onnx
from laws import moved, observed, small_problem

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporter's own
DEPTH = 3  # a first layer, one within and a last one; the exporter takes seconds a layer


# a graph is the same in single and in double: two algorithms show that double is kept
EXPORTED = [(name, "float32") for name in REGISTRY] + [("ista", "float64"), ("oamp", "float64")]


@pytest.mark.parametrize(("name", "dtype"), EXPORTED, ids=map("-".join, EXPORTED))
def test_onnx_runtime_gives_the_same_to_rounding(name, dtype, tmp_path):
    algorithm = REGISTRY[name]()
    _, obs = observed(dtype)
    _, more = small_problem(dtype).sample(7, torch.Generator().manual_seed(2))  # another batch size
    for estimator in (iterate(algorithm, 1), moved(algorithm, obs, DEPTH)):  # the latter's steps are the former's
        path = to_onnx(estimator, obs, tmp_path / "network.onnx")
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for batch in (obs, more):
            (x_hat,) = session.run(["x_hat"], {"y": batch.y.numpy()})
            with torch.no_grad():
                expected = estimator(batch).x.numpy()
            assert np.abs(expected).max() > 0
            # sums of n products in another order, a few layers deep
            assert np.abs(x_hat - expected).max() <= 1e3 * np.finfo(expected.dtype).eps * np.abs(expected).max()


def test_files_hold_no_paths_of_the_machine(tmp_path):
    _, obs = observed("float32")
    path = to_onnx(iterate(REGISTRY["ista"](), 2), obs, tmp_path / "network.onnx")
    assert b".py" not in path.read_bytes()
    onnx.checker.check_model(str(path))


def test_complex_estimators_are_refused(tmp_path):
    _, obs = observed("complex64")
    with pytest.raises(ValueError, match="no complex type"):
        to_onnx(iterate(REGISTRY["ista"](), 2), obs, tmp_path / "network.onnx")
