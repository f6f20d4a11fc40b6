"""What runs elsewhere gives the same numbers: ONNX Runtime against torch, for every algorithm."""

import json

import onnx
import pytest
import torch

from fanfold import iterate
from fanfold.algorithms import REGISTRY
from fanfold.deploy import export, to_onnx
from laws import moved, observed, small_problem
from runtime import check_near, in_runtime, session_of

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporter's own
DEPTH = 3  # a first layer, one within and a last one; the exporter takes seconds a layer


# a graph is the same in single and in double: two algorithms show that double is kept, and three that complex is
EXPORTED = [(name, "float32") for name in REGISTRY] + [("ista", "float64"), ("oamp", "float64")]
EXPORTED += [("lista-cp", "complex64"), ("oamp", "complex64"), ("admm", "complex64")]


@pytest.mark.parametrize(("name", "dtype"), EXPORTED, ids=map("-".join, EXPORTED))
def test_onnx_runtime_gives_the_same_to_rounding(name, dtype, tmp_path):
    algorithm = REGISTRY[name]()
    _, obs = observed(dtype)
    _, more = small_problem(dtype).sample(7, torch.Generator().manual_seed(2))  # another batch size
    estimator = moved(algorithm, obs, DEPTH)  # its steps are those of the algorithm as it is
    path = to_onnx(estimator, obs, tmp_path / "network.onnx")
    for batch in (obs, more):
        with torch.no_grad():
            check_near(in_runtime(path, batch)["x_hat"], estimator(batch).x)


def test_files_are_the_same_bytes_and_hold_no_paths_of_the_machine(tmp_path):
    _, obs = observed("complex64")
    one, two = (to_onnx(iterate(REGISTRY["oamp"](), 1), obs, tmp_path / name) for name in ("1.onnx", "2.onnx"))
    content = one.read_bytes()
    assert content == two.read_bytes()
    assert b".py" not in content
    assert str(tmp_path).encode() not in content
    onnx.checker.check_model(str(one))


def test_the_metadata_describe_the_ports(tmp_path):
    _, obs = observed("complex64")
    path = to_onnx(iterate(REGISTRY["oamp"](), 1), obs, tmp_path / "network.onnx")
    session = session_of(path)
    described = session.get_modelmeta().custom_metadata_map
    ports = {port["name"]: port for port in json.loads(described["fanfold.ports"])}
    nodes = [*session.get_inputs(), *session.get_outputs()]
    assert [node.name for node in nodes] == ["y", "noise_var", "x_hat", "var"]
    for node in nodes:
        assert node.shape == ports[node.name]["shape"]
        assert described[node.name].startswith("float32 (batch x ")
    assert [name for name, port in ports.items() if port["pairs"]] == ["y", "x_hat"]
    assert "square of x_hat's" in ports["var"]["unit"]


def test_without_onnx_the_sentence_names_the_extra(tmp_path, monkeypatch):
    _, obs = observed("float32")
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'fanfold\[export\]'"):
        to_onnx(iterate(REGISTRY["ista"](), 1), obs, tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())
