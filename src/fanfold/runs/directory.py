"""Run directories: everything that a training leaves behind, readable without fanfold and never pickled.

config.toml              problem, network, training: all that is needed to build them again
environment.json         versions, machine, seed, hash of A
metrics.jsonl            one line an event
checkpoint.safetensors   the state of training, replaced whole
weights.safetensors      the trained network
operator.safetensors     the operator, where the problem is of a class of the user's own
intervals-*.json         intervals that were calibrated for the network
"""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
import torch
from torch import nn

from fanfold.core.abilities import ability, offers
from fanfold.core.files import write_whole
from fanfold.core.suggest import did_you_mean
from fanfold.estimators.base import OperatorBuilt, Restrainable, Settings, fingerprint_of
from fanfold.observation import Observation
from fanfold.problems import Problem
from fanfold.runs import recipe
from fanfold.runs.environment import data_hash
from fanfold.runs.operators import FILE, read_operator
from fanfold.runs.weights import (
    check_operator,
    checksum_of,
    load_parameters,
    read_tensors,
)

SCHEMA = 2  # of config.toml; 1 had no number, and sections of other names


class Run:
    """A run directory; `Run.create` starts one and `Run.open` reads one.

    Args:
        path: The directory.
        handed_in: What a user gives for classes of their own, by the setting's name: `problem`, `network`,
            `algorithm`, `loss`.
    """

    def __init__(self, path: Path, handed_in: Mapping[str, Any] | None = None):
        self.path, self.handed_in = path, dict(handed_in or {})

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
        write_whole(path / "config.toml", tomli_w.dumps({"schema": SCHEMA} | dict(config)).encode())
        write_whole(path / "environment.json", json.dumps(dict(environment), indent=2).encode())
        return cls(path)

    @classmethod
    def open(cls, path: str | Path, **handed_in: Any) -> "Run":
        """An existing run directory.

        Args:
            path: The directory.
            **handed_in: The class's `handed_in`, as keywords.

        Raises:
            ValueError: If there is none.
        """
        path = Path(path)
        if not (path / "config.toml").is_file():
            near = [p.parent.name for p in sorted(path.parent.glob("*/config.toml"))] if path.parent.is_dir() else []
            raise ValueError(f"{path} is no run directory.{did_you_mean(path.name, near)} See fanfold runs.")
        return cls(path, {name: value for name, value in handed_in.items() if value is not None})

    @property
    def config(self) -> dict[str, Any]:
        """Problem, network and training as plain data.

        Raises:
            ValueError: If it is damaged, or was written by an older or newer fanfold.
        """
        file = self.path / "config.toml"
        try:
            config = tomllib.loads(file.read_text())
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{file} is not TOML: {error}") from error
        check_schema(config, self.path)
        return config

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, machine, seed and the hash of A."""
        return json.loads((self.path / "environment.json").read_text())

    def metrics(self) -> list[dict[str, Any]]:
        """The logged events, in order; a last line cut short by a crash is left out."""
        file = self.path / "metrics.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    @property
    def advice(self) -> str | None:
        """What training said at its end if it came to little; None if it did not, or has not ended."""
        finished = [m for m in self.metrics() if m["event"] == "finished"]
        return finished[-1].get("advice") if finished else None

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
            ValueError: If what it draws from was stored, and is not there or not what it was; if it is of a class of
                the user's own and not handed in.
        """
        try:
            problem = recipe.build_problem(self.section("problem"), self.handed_in)
        except ValueError as error:
            made_in = self.environment.get("folder")
            if made_in in (None, os.getcwd()) or recipe.GIVEN in self.section("problem"):
                raise
            raise ValueError(f"{error} The run was made in {made_in}: paths that are relative start there.") from error
        recorded, current = self.environment.get("data"), data_hash(problem)
        if recorded is not None and recorded != current:
            raise ValueError(
                f"{self.path} was trained on stored channels with hash {recorded[:12]} and those there now have "
                f"{str(current)[:12]}: some of its test draws may have been trained on. Bring the old back, or train "
                "anew."
            )
        return problem

    def section(self, name: str) -> dict[str, Any]:
        """A section of the config.

        Raises:
            ValueError: If the run has none.
        """
        config = self.config
        if name not in config:
            raise ValueError(f"{self.path / 'config.toml'} has no [{name}]: hand it in, ff.load(path, {name}=...).")
        return config[name]

    def settings(self) -> Settings:
        """What builds the network.

        Raises:
            ValueError: If it is unknown, or of a class of the user's own and not handed in.
        """
        return recipe.build_settings(self.section("network"), self.handed_in)

    def network(self) -> nn.Module:
        """The untrained network of the run, on the operator that it was made for.

        Raises:
            ValueError: If the problem now has another operator, by its hash, or something is not handed in.
        """
        network = self.section("network")
        if recipe.GIVEN in network:
            return recipe.taken(network, "network", self.handed_in)
        settings = self.settings()
        if offers(settings, OperatorBuilt) and self._keeps_operator() and "problem" not in self.handed_in:
            A = read_operator(self.path)
            return settings.build(Observation.unchecked(torch.zeros(A.m, dtype=A.dtype), A))
        problem = self.problem()
        expected, A = self.environment.get("operator"), problem.A
        if A is not None and expected != A.fingerprint():
            raise ValueError(
                f"{self.path} was trained for the operator with hash {str(expected)[:12]} and its problem now has "
                f"{A.fingerprint()[:12]}: a network loaded against another A is garbage. Was the data file changed?"
            )
        return settings.build(problem)

    def estimator(self) -> nn.Module:
        """The trained network.

        Raises:
            ValueError: If there are no weights yet, they are damaged, or belong to another operator.
        """
        net = self.network()
        tensors, facts = read_tensors(self.path / "weights.safetensors", f"Train on with: fanfold resume {self.path}")
        check_operator(facts, fingerprint_of(net), self.path)
        load_parameters(net, tensors)
        restrained, strength = ability(net, Restrainable), facts.get("strength")
        if restrained is not None and strength is not None:
            restrained.strength = strength
        return net

    def weights_hash(self) -> str:
        """The checksum of the trained weights."""
        return checksum_of(self.path / "weights.safetensors")

    def keep(self, name: str, data: Mapping[str, Any]) -> None:
        """Keep plain data about the trained network, such as calibrated intervals."""
        write_whole(self.path / f"{name}.json", json.dumps({"weights": self.weights_hash()} | dict(data)).encode())

    def kept(self, name: str) -> dict[str, Any] | None:
        """What `keep` kept, if there is some and it is about the weights that are there now."""
        file = self.path / f"{name}.json"
        data = json.loads(file.read_text()) if file.is_file() else {}
        return data if data.get("weights") == self.weights_hash() else None

    def _keeps_operator(self) -> bool:
        return (self.path / FILE).is_file()


def check_schema(config: Mapping[str, Any], source: Path) -> None:
    """Refuse a config of another schema.

    Raises:
        ValueError: Says which fanfold wrote it.
    """
    schema = config.get("schema", 1)
    if schema != SCHEMA:
        age = "an older" if schema < SCHEMA else "a newer"
        raise ValueError(
            f"{source} was written by {age} fanfold (schema {schema}; this one reads {SCHEMA}): train anew."
        )
