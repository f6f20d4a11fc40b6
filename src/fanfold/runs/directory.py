"""Run directories: everything that a training leaves behind, readable without fanfold and never pickled.

config.toml              problem, network, training: all that is needed to build them again
environment.json         versions, machine, seed, hash of A
metrics.jsonl            one line an event
checkpoint.safetensors   the state of training, replaced whole
weights.safetensors      the trained network
"""

import hashlib
import json
import os
import platform
import tomllib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import safetensors
import tomli_w
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from fanfold.runs import recipe
from fanfold.core.files import write_whole
from fanfold.problems import Problem
from fanfold.core.suggest import did_you_mean


class Run:
    """A run directory; `Run.create` starts one and `Run.open` reads one."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any], environment: Mapping[str, Any]) -> "Run":
        """A new run directory.

        Raises:
            ValueError: If something is there already.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(f"{path} exists; choose another run directory, or go on with it: fanfold resume {path}")
        path.mkdir(parents=True, exist_ok=True)
        write_whole(path / "config.toml", tomli_w.dumps(dict(config)).encode())
        write_whole(path / "environment.json", json.dumps(dict(environment), indent=2).encode())
        return cls(path)

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """An existing run directory.

        Raises:
            ValueError: If there is none.
        """
        path = Path(path)
        if not (path / "config.toml").is_file():
            near = [p.parent.name for p in sorted(path.parent.glob("*/config.toml"))] if path.parent.is_dir() else []
            raise ValueError(f"{path} is no run directory.{did_you_mean(path.name, near)} See fanfold runs.")
        return cls(path)

    @property
    def config(self) -> dict[str, Any]:
        """Problem, network and training as plain data."""
        try:
            return tomllib.loads((self.path / "config.toml").read_text())
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{self.path / 'config.toml'} is not TOML: {error}") from error

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, machine, seed and the hash of A."""
        return json.loads((self.path / "environment.json").read_text())

    def metrics(self) -> list[dict[str, Any]]:
        """The logged events, in order; a last line cut short by a crash is left out."""
        file = self.path / "metrics.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def log(self, event: Mapping[str, Any]) -> None:
        """Append one line to the metrics."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(dict(event)) + "\n")

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps that a resumed run takes again."""
        kept = [json.dumps(line) + "\n" for line in self.metrics() if line["step"] <= step]
        write_whole(self.path / "metrics.jsonl", "".join(kept).encode())

    def problem(self) -> Problem:
        """The problem that the run trains on.

        Raises:
            ValueError: If what it draws from was stored, and is not there or not what it was.
        """
        try:
            problem = recipe.build_problem(self._section("problem"))
        except ValueError as error:
            made_in = self.environment.get("folder")
            if made_in in (None, os.getcwd()):
                raise
            raise ValueError(f"{error} The run was made in {made_in}: paths that are relative start there.") from error
        told, now = self.environment.get("data"), getattr(problem, "fingerprint", None)
        if told is not None and told != now:
            raise ValueError(
                f"{self.path} was trained on stored channels with hash {told[:12]} and those there now have "
                f"{str(now)[:12]}: some of its test draws may have been trained on. Bring the old back, or train anew."
            )
        return problem

    def network(self) -> nn.Module:
        """The untrained network of the run, on the operator that it was made for.

        Raises:
            ValueError: If the problem now has another operator, by its hash.
        """
        problem = self.problem()
        expected, A = self.environment.get("operator"), problem.A
        if A is not None and expected != A.fingerprint():
            raise ValueError(
                f"{self.path} was trained for the operator with hash {str(expected)[:12]} and its problem now has "
                f"{A.fingerprint()[:12]}: a network loaded against another A is garbage. Was the data file changed?"
            )
        return recipe.build_network(self._section("network"), problem)

    def estimator(self) -> nn.Module:
        """The trained network.

        Raises:
            ValueError: If there are no weights yet, they are damaged, or belong to another operator.
        """
        net = self.network()
        tensors, facts = read_tensors(self.path / "weights.safetensors", f"Train on with: fanfold resume {self.path}")
        check_operator(facts, getattr(net, "fingerprint", None), self.path)
        load_parameters(net, tensors)
        return net

    def _section(self, name: str) -> dict[str, Any]:
        config = self.config
        if name not in config:
            raise ValueError(
                f"{self.path / 'config.toml'} has no [{name}]: the run was made from Python with its own classes."
            )
        return config[name]


def load(path: str | Path) -> nn.Module:
    """The trained network of a run directory."""
    return Run.open(path).estimator()


def environment(seed: int, problem: Problem, device: torch.device, threads: int, processes: int = 1) -> dict[str, Any]:
    """What must be known to repeat a run, beyond its config."""
    return {
        "operator": None if problem.A is None else problem.A.fingerprint(),
        "data": getattr(problem, "fingerprint", None),
        "folder": os.getcwd(),
        "seed": seed,
        "device": str(device),
        "threads": threads,
        "processes": processes,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in ("fanfold", "torch", "numpy", "scipy", "safetensors")},
    }


def installed(package: str) -> str | None:
    """Version of an installed package, None if it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Tensors in safetensors, with JSON metadata and a checksum, replaced whole."""
    plain = {name: _real(t.detach()).cpu().contiguous() for name, t in tensors.items()}
    header = json.dumps({**metadata, "sha256": _checksum(plain)})  # one entry: safetensors keeps no order of several
    write_whole(path, save(plain, metadata={"fanfold": header}))


def read_tensors(path: Path, remedy: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata that `write_tensors` wrote.

    Raises:
        ValueError: If the file is missing, cut short or changed.
    """
    if not path.is_file():
        raise ValueError(f"there is no {path}. {remedy}")
    try:
        tensors = load_file(path)
        with safetensors.safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {})["fanfold"])
        if metadata.pop("sha256") != _checksum(tensors):
            raise ValueError("its checksum does not match")
        return tensors, metadata
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}); restore it from a copy, or train anew.") from error


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


def load_parameters(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors by name into a module, complex ones from real pairs.

    Raises:
        ValueError: If names or shapes differ.
    """
    own = module.state_dict()
    if set(own) != set(tensors) or any(_real(own[k]).shape != _real(t).shape for k, t in tensors.items()):
        raise ValueError("the weights do not fit the network: another algorithm, depth or `learn` wrote them.")
    with torch.no_grad():
        for name, value in own.items():
            _real(value).copy_(_real(tensors[name]))


def _real(t: Tensor) -> Tensor:
    return torch.view_as_real(t) if t.is_complex() else t


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return digest.hexdigest()
