"""Exported files in ONNX Runtime, fed with observations."""

import json
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from fanfold.observation import Observation


def session_of(path: Path | str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def in_runtime(path: Path | str, obs: Observation) -> dict[str, Tensor]:
    """What a file says of an observation, by the names of its outputs; pairs are complex numbers again."""
    session = session_of(path)
    given = {"y": torch.view_as_real(obs.y.resolve_conj()) if obs.y.is_complex() else obs.y}
    if obs.noise_var is not None:
        given["noise_var"] = obs.noise_var.expand(len(obs.y), *(1,) * (obs.y.ndim - 1))
    names = [node.name for node in session.get_inputs()]
    outputs = session.run(None, {name: given[name].contiguous().numpy() for name in names})
    pairs = {
        port["name"]: port["pairs"] for port in json.loads(session.get_modelmeta().custom_metadata_map["fanfold.ports"])
    }
    said = {node.name: torch.from_numpy(value) for node, value in zip(session.get_outputs(), outputs, strict=True)}
    return {name: torch.view_as_complex(value) if pairs[name] else value for name, value in said.items()}


def check_near(said: Tensor, wanted: Tensor) -> None:
    """Equal to a thousand roundings of the largest entry: sums of n products in another order, a few layers deep."""
    assert said.shape == wanted.shape
    assert wanted.abs().max() > 0
    assert (said - wanted).abs().max() <= 1e3 * torch.finfo(wanted.dtype).eps * wanted.abs().max()
