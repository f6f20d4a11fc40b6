"""What runs elsewhere gives the same numbers: ONNX Runtime against torch, for every algorithm."""

import json
from pathlib import Path

import onnx
import pytest
import torch

from fanfold import iterate
from fanfold.algorithms import REGISTRY
from fanfold.deploy import export, to_onnx
from laws import moved, observed, small_problem
from runtime import check_near, in_runtime, session_of

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporter's own
# the exporter takes seconds a layer: a first layer, one within and a last one in single precision, in others two
DEPTHS = {"float32": 3, "float64": 2, "complex64": 2}


# a graph is the same in single and in double: two algorithms show that double is kept, and three that complex is
EXPORTED = [(name, "float32") for name in REGISTRY] + [("ista", "float64"), ("oamp", "float64")]
EXPORTED += [("lista-cp", "complex64"), ("oamp", "complex64"), ("admm", "complex64")]


@pytest.mark.parametrize(("name", "dtype"), EXPORTED, ids=map("-".join, EXPORTED))
def test_onnx_runtime_gives_the_same_to_rounding(name, dtype, tmp_path):
    algorithm = REGISTRY[name]()
    _, obs = observed(dtype)
    _, more = small_problem(dtype).sample(7, torch.Generator().manual_seed(2))  # another batch size
    estimator = moved(algorithm, obs, DEPTHS[dtype])  # its steps are those of the algorithm as it is
    path = to_onnx(estimator, obs, tmp_path / "network.onnx")
    for batch in (obs, more):
        with torch.no_grad():
            check_near(in_runtime(path, batch)["x_hat"], estimator(batch).x)


def of_one_layer(path: Path) -> Path:
    """Complex OAMP."""
    return to_onnx(iterate(REGISTRY["oamp"](), 1), observed("complex64")[1], path)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return of_one_layer(tmp_path_factory.mktemp("exported") / "network.onnx")


def test_files_are_the_same_bytes_and_hold_no_paths_of_the_machine(file, tmp_path):
    content = file.read_bytes()
    assert content == of_one_layer(tmp_path / "again.onnx").read_bytes()
    assert b".py" not in content
    assert str(file.parent).encode() not in content
    onnx.checker.check_model(str(file))


def test_the_metadata_describe_the_ports(file):
    session = session_of(file)
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
