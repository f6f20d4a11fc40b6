"""Run directories: everything that a training leaves behind, readable without fanfold and never pickled.

config.toml              problem, its outline, network, training: all that is needed to build them again
environment.json         versions, machine, seed, hash of A
operator.safetensors     the operator A, where the problem has one
draws.safetensors        draws to judge the network with, where the problem needs files, a program or the user's classes
sealed                   the seal of the machine that made the run, where the problem needs files or a program
metrics.jsonl            one line an event
checkpoint.safetensors   the state of training, replaced whole
weights.safetensors      the trained network
usual.json               what measurements and estimates are like, on held-out draws when training ended
learning-curve.json      risks at several numbers of simulations, where `evaluate` was asked for them
shifts.json              what shifts do to the network, where `evaluate` was asked for them
intervals-*.json         intervals that were calibrated for the network, and monitor*.safetensors likewise

To load a run is to read these files and no others: it starts no program, follows no path or link, and needs neither the
problem nor its data.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import tomli_w
from torch import nn

from fanfold.core.abilities import ability
from fanfold.core.commands import command
from fanfold.core.files import is_regular, read_regular, write_whole
from fanfold.core.settings import within
from fanfold.core.strict_json import revived, strict_json
from fanfold.core.suggest import did_you_mean
from fanfold.estimators.base import Restrainable, Settings, fingerprint_of
from fanfold.linops import LinearOperator
from fanfold.problems import Problem
from fanfold.runs import draws, folders, log, origin, recipe
from fanfold.runs.environment import data_hash, read_environment
from fanfold.runs.needs import needs_of, refuse_missing
from fanfold.runs.operators import read_operator, write_operator
from fanfold.runs.outline import Outline
from fanfold.runs.weights import check_operator, checksum_of, load_parameters, no_larger_than, read_tensors


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
    def create(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        environment: Mapping[str, Any],
        operator: LinearOperator | None = None,
    ) -> "Run":
        """A new run directory. Its config is written last, so that what has one is whole.

        Args:
            path: The directory; whoever shares it with other processes holds it by `sole_writer`.
            config: Problem, outline, network and training as plain data.
            environment: What else must be known to repeat the run.
            operator: The operator of the problem, if it has one.

        Raises:
            ValueError: If something is there already.
        """
        path = Path(path)
        folders.check_free(path)
        path.mkdir(parents=True, exist_ok=True)
        for fragment in folders.BEFORE_CONFIG:
            (path / fragment).unlink(missing_ok=True)
        text = tomli_w.dumps({"schema": folders.SCHEMA} | dict(config)).encode()
        write_whole(path / folders.ENVIRONMENT, strict_json(environment, indent=2).encode(), follow=False)
        if operator is not None:
            write_operator(path, operator)
        needs = needs_of(config.get("problem", {}))
        if needs.files or needs.commands:
            origin.seal(path, text)
        write_whole(path / folders.CONFIG, text, follow=False)
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
        if not is_regular(path / folders.CONFIG):
            near = [p.parent.name for p in sorted(path.parent.glob("*/config.toml"))] if path.parent.is_dir() else []
            raise ValueError(f"{path} is no run directory.{did_you_mean(path.name, near)} See fanfold runs.")
        return cls(path, {name: value for name, value in handed_in.items() if value is not None})

    @property
    def config(self) -> dict[str, Any]:
        """Problem, network and training as plain data.

        Raises:
            ValueError: If it is damaged, or was written by an older or newer fanfold.
        """
        file = self.path / folders.CONFIG
        config = folders.read_toml(file)
        folders.check_schema(config, self.path)
        for name, section in config.items():
            if name != "schema" and not isinstance(section, dict):
                raise ValueError(f"{file} is damaged: {name} is {section!r} and no section.")
        return config

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, machine, seed and the hash of A.

        Raises:
            ValueError: If it is damaged.
        """
        return read_environment(self.path / folders.ENVIRONMENT)

    def metrics(self) -> list[dict[str, Any]]:
        """The logged events, in order; a last line cut short by a crash is left out.

        Raises:
            ValueError: If a whole line is damaged.
        """
        return log.read_events(self.path)

    @property
    def advice(self) -> str | None:
        """What training said at its end if it came to little; None if it did not, or has not ended."""
        finished = [m for m in self.metrics() if m["event"] == "finished"]
        return finished[-1].get("advice") if finished else None

    def log(self, event: Mapping[str, Any]) -> None:
        """Append one line to the metrics."""
        log.append_event(self.path, event)

    @property
    def sealed(self) -> bool:
        """Whether the run was made on this machine, by its seal."""
        return origin.made_in(self.path, read_regular(self.path / folders.CONFIG)) is not None

    def problem(self, *, allow_program: bool = False) -> Problem:
        """The problem that the run trains on; its files are read, and what is drawn from it may start its program.

        Args:
            allow_program: Whether a program may be started although the run was not made here, in this folder.

        Raises:
            ValueError: If what it draws from was stored, and is not there or not what it was; if it is of a class of
                the user's own and not handed in; if it starts a program and was not made here.
        """
        described = self.section("problem")
        commands = needs_of(described).commands
        if commands and not allow_program and "problem" not in self.handed_in:
            origin.check_command(self.path, read_regular(self.path / folders.CONFIG), commands[0], self.path)
        try:
            with within(f"{self.path / folders.CONFIG}, [problem]"):
                problem = recipe.build_problem(described, self.handed_in)
        except ValueError as error:
            made_in = self.environment.get("folder")
            if made_in in (None, os.getcwd()) or recipe.GIVEN in described:
                raise
            raise ValueError(f"{error} The run was made in {made_in}: paths that are relative start there.") from error
        self._check_operator(problem.A)
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
            raise ValueError(f"{self.path / folders.CONFIG} has no [{name}]: hand it in, ff.load(path, {name}=...).")
        return dict(config[name])

    def settings(self) -> Settings:
        """What builds the network.

        Raises:
            ValueError: If it is unknown, or of a class of the user's own and not handed in.
        """
        described = self.section("network")
        refuse_missing(described, self.handed_in)
        with within(f"{self.path / folders.CONFIG}, [network]"):
            return recipe.build_settings(described, self.handed_in)

    def outline(self) -> Outline:
        """What the network is built from: the problem's shapes and its operator, without the problem.

        Raises:
            ValueError: If it is damaged, or the operator is not there or not the one that the run was made for.
        """
        A = read_operator(self.path) if self.environment.get("operator") is not None else None
        self._check_operator(A)
        return Outline(self.section("outline"), A)

    def draws(self) -> Problem:
        """What the network is judged on: the problem itself where that takes nothing but the run, else kept draws.

        A problem that reads files is taken where the run was made on this machine and they are there, unchanged. No
        program is started.

        Raises:
            ValueError: If the run keeps no draws, though its problem needs files, a program or the user's classes.
        """
        needs = needs_of(self.section("problem"))
        if needs.nothing or "problem" in self.handed_in:
            return self.problem()
        if needs.files and not (needs.commands or needs.given) and self.sealed:
            if not draws.has_draws(self.path):
                return self.problem()
            with suppress(ValueError, OSError):
                return self.problem()
        if not draws.has_draws(self.path):
            raise ValueError(
                f"{self.path} keeps no draws to judge the network on, and its problem needs "
                f"{', '.join(needs.commands + needs.files + needs.given)}: hand the problem in, in Python."
            )
        return draws.RunDraws(self.path, self.outline())

    def network(self, problem: Problem | None = None) -> nn.Module:
        """The untrained network of the run.

        Args:
            problem: What to build it for; the outline that the run keeps if None.

        Raises:
            ValueError: If the run is damaged, or something is not handed in.
        """
        network = self.section("network")
        if recipe.GIVEN in network:
            return recipe.taken(network, "network", self.handed_in)
        if problem is None and "problem" in self.handed_in:
            problem = self.problem()
        return self.settings().build(self.outline() if problem is None else problem)

    def estimator(self) -> nn.Module:
        """The trained network.

        Raises:
            ValueError: If there are no weights yet, they are damaged, or belong to another operator.
        """
        file = self.path / "weights.safetensors"
        tensors, facts = read_tensors(file, f"Train on with: {command('resume', self.path)}")
        with no_larger_than(tensors):
            net = self.network()
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
        content = strict_json({"weights": self.weights_hash()} | dict(data)).encode()
        write_whole(self.file_of(name), content, follow=False)

    def file_of(self, name: str) -> Path:
        """Where `keep` keeps something."""
        return self.path / f"{name}.json"

    def kept(self, name: str) -> dict[str, Any] | None:
        """What `keep` kept, if there is some and it is about the weights that are there now."""
        file = self.file_of(name)
        data = revived(folders.read_json(file, read_regular(file))) if os.path.lexists(file) else {}
        return data if data.get("weights") == self.weights_hash() else None

    def _check_operator(self, A: LinearOperator | None) -> None:
        if A is not None and (expected := self.environment.get("operator")) != A.fingerprint():
            raise ValueError(
                f"{self.path} was trained for the operator with hash {str(expected)[:12]} and this one has "
                f"{A.fingerprint()[:12]}: a network loaded against another A is garbage. Was the data file changed?"
            )
