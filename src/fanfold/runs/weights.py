"""Weights in safetensors, with metadata and a checksum: never pickled, and refused where they do not belong."""

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from fanfold.core.abilities import ability
from fanfold.core.commands import command
from fanfold.core.files import is_regular, write_whole
from fanfold.estimators.base import Restrainable, fingerprint_of

SLACK = 4  # times as many parameters as there are weights, of modules that are built and not kept


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Tensors in safetensors, with JSON metadata and a checksum, replaced whole.

    Complex ones become real pairs. A matrix whose columns lie together is stored transposed, since products with it are
    rounded otherwise than with its rows together.
    """
    tensors = {name: t.detach().cpu().resolve_conj().resolve_neg() for name, t in tensors.items()}
    turned = [name for name, t in tensors.items() if t.ndim == 2 and not t.is_contiguous() and t.mT.is_contiguous()]
    plain = _apart({name: _real((t.mT if name in turned else t).contiguous()) for name, t in tensors.items()})
    layout = {"complex": [name for name, t in tensors.items() if t.is_complex()], "transposed": turned}
    # one entry: safetensors keeps no order of several
    header = json.dumps({**metadata, **layout, "sha256": _checksum(plain)})
    write_whole(path, save(plain, metadata={"fanfold": header}), follow=False)


def read_tensors(path: Path, remedy: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata that `write_tensors` wrote.

    Raises:
        ValueError: If the file is missing, cut short or changed.
    """
    if not is_regular(path):
        state = "is no plain file, and is not followed" if os.path.lexists(path) else "is not there"
        raise ValueError(f"{path} {state}. {remedy}")
    try:
        tensors = load_file(path)
        with safetensors.safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {})["fanfold"])
        if metadata.pop("sha256") != _checksum(tensors):
            raise ValueError("its checksum does not match")
        for name in metadata.pop("complex"):
            tensors[name] = torch.view_as_complex(tensors[name]).data  # a view of pairs cannot be traced for export
        for name in metadata.pop("transposed"):
            tensors[name] = tensors[name].mT
        return tensors, metadata
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged ({error}); restore it from a copy, or train anew.") from error


def checksum_of(path: Path) -> str:
    """The checksum that a file of tensors says it has.

    Raises:
        ValueError: If the file is missing or damaged.
    """
    if not is_regular(path):
        raise ValueError(f"{path} is not there, or no plain file; train on: {command('resume', path.parent)}")
    try:
        with safetensors.safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {})["fanfold"])["sha256"]
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({error}); train on, or restore it from a copy.") from error


def facts_of(estimator: nn.Module) -> dict[str, Any]:
    """What weights are kept with: the hash of the network's operator, and its strength where it has one."""
    restrained = ability(estimator, Restrainable)
    return {
        "operator": fingerprint_of(estimator),
        "strength": None if restrained is None else restrained.strength,
    }


def check_operator(facts: Mapping[str, Any], fingerprint: str | None, path: Path) -> None:
    """Refuse tensors that were trained for another operator.

    Raises:
        ValueError: If the recorded hash is another one.
    """
    if facts.get("operator") != fingerprint:
        raise ValueError(
            f"the weights in {path} were trained for the operator with hash {str(facts.get('operator'))[:12]} and this "
            f"network has {str(fingerprint)[:12]}: a network loaded against another A is garbage."
        )


def parameters_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return dict(module.state_dict())


@contextmanager
def no_larger_than(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """A block in which a network is built for these weights, and no larger one: what a config asks for may be endless.

    Raises:
        ValueError: If the network grows far beyond them.
    """
    thread = threading.get_ident()
    most, entries = SLACK * len(tensors) + 1000, SLACK * sum(t.numel() for t in tensors.values()) + 2**20
    registered = [0, 0]

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        if threading.get_ident() != thread:
            return
        registered[0] += 1
        registered[1] += parameter.numel()
        if registered[0] > most or registered[1] > entries:
            raise ValueError(f"the weights do not fit the network: it has far more than their {len(tensors)} tensors.")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def load_parameters(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors by name into a module.

    Raises:
        ValueError: If names or shapes differ.
    """
    expected = module.state_dict()
    if set(expected) != set(tensors) or any(_real(expected[k]).shape != _real(t).shape for k, t in tensors.items()):
        raise ValueError("the weights do not fit the network: another algorithm, depth or `learn` wrote them.")
    with torch.no_grad():
        for name, value in expected.items():
            _real(value).copy_(_real(tensors[name]))


def _real(t: Tensor) -> Tensor:
    return torch.view_as_real(t) if t.is_complex() else t


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, none of which shares memory with another: safetensors refuses those."""
    places = [t.untyped_storage().data_ptr() for t in tensors.values()]
    return {name: t.clone() if places.count(t.untyped_storage().data_ptr()) > 1 else t for name, t in tensors.items()}


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return digest.hexdigest()
