"""The entry of the command line: finds the verb, reads its flags, and turns errors into exit codes.

Exit codes: 0 done; 1 the work failed or was interrupted; 2 the command or its input is wrong.
Only the verb that runs is imported, so that `fanfold --help` needs no torch.
"""

import functools
import json
import sys
import tomllib
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import tyro

from fanfold.core.suggest import did_you_mean

VERBS = {
    "demo": "Train in front of your eyes, under a minute, and write a report to open.",
    "train": "Train an unfolded network on a problem.",
    "simulate": "Draw from a problem ahead of training, in parallel; what is there is not drawn again.",
    "channels": "Draw channels of a radio link into a dataset, or say what one holds.",
    "resume": "Go on with a training that stopped, to the same numbers.",
    "runs": "List run directories.",
    "evaluate": "Error of a trained run against its peers and limits, over conditions.",
    "apply": "Use a trained run on your own measurements.",
    "reproduce": "Run a published experiment: goals, measured values, PASS or FAIL.",
    "report": "Write the page of a run.",
    "doctor": "Check the installation and the machine.",
}


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """Run one command; its exit code."""
    args, as_json = _without(args, "--json")
    verb = args[0] if args else "--help"
    if verb == "--version":
        import fanfold

        print(fanfold.__version__)
        return 0
    if verb not in VERBS and not verb.startswith("-"):
        return _complain(f"no command {verb!r}; there are {', '.join(VERBS)}.{did_you_mean(verb, VERBS)}", 2)
    try:
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            result = _dispatch(verb, args)
    except SystemExit as leave:  # tyro has printed help or what was wrong
        if leave.code and verb == "train":
            _suggest_choices(args[1:])
        return leave.code if isinstance(leave.code, int) else 2
    except KeyboardInterrupt:
        if verb in (made := {"simulate": "simulated", "channels": "drawn"}):
            return _complain(f"interrupted; what was {made[verb]} is kept: the same command goes on", 1)
        return _complain("interrupted; a run directory keeps its last checkpoint: fanfold resume RUN", 1)
    except (ValueError, ImportError) as error:
        return _complain(str(error), 2)
    except OSError as error:
        return _complain(str(error), 1)
    failed = bool(result.pop("failed", False))
    if as_json:
        print(json.dumps(result, indent=1))
    return int(failed)


def _dispatch(verb: str, args: list[str]) -> dict[str, Any]:
    verbs: dict[str, Callable[..., Any]] = {name: _placeholder(text) for name, text in VERBS.items()}
    config: tuple = (tyro.conf.CascadeSubcommandArgs, tyro.conf.FlagCreatePairsOff)
    if verb in VERBS:
        from fanfold.cli import commands

        verbs[verb] = _with_sensible_threads(getattr(commands, verb))
        if verb == "train":
            args, path = _value_of(args, "--config")
            if path is not None:
                verbs[verb] = _with_sensible_threads(commands.train_from(_read_toml(Path(path))))
    return tyro.extras.subcommand_cli_from_dict(
        verbs, prog="fanfold", description="Learned estimators from measurement models.", args=args, config=config
    )


def _with_sensible_threads(verb: Callable[..., Any]) -> Callable[..., Any]:
    """The verb on as many threads as the machine can bear, in all that it does."""
    from fanfold.core.machine import sensible_threads, threads

    @functools.wraps(verb)
    def capped(*args, **kwargs):
        with threads(sensible_threads()):
            return verb(*args, **kwargs)

    return capped


def _suggest_choices(words: list[str]) -> None:
    """After a refusal, what a misspelt problem or algorithm may have meant."""
    from fanfold import algorithms, problems

    known = [*problems.REGISTRY, *algorithms.REGISTRY]
    for word in words:
        hint = did_you_mean(word, known)
        if word not in known and not word.startswith("-") and hint:
            _complain(f"no problem or algorithm {word!r}.{hint}", 2)


def _placeholder(text: str) -> Callable[[], dict[str, Any]]:
    def verb() -> dict[str, Any]:
        raise AssertionError("only the verb that was asked for runs")

    verb.__doc__ = text
    return verb


def _without(args: list[str], flag: str) -> tuple[list[str], bool]:
    return [a for a in args if a != flag], flag in args


def _value_of(args: list[str], flag: str) -> tuple[list[str], str | None]:
    for i, arg in enumerate(args):
        if arg == flag and i + 1 < len(args):
            return args[:i] + args[i + 2 :], args[i + 1]
        if arg.startswith(flag + "="):
            return args[:i] + args[i + 1 :], arg.partition("=")[2]
    return args, None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise ValueError(f"there is no config {path}; a run directory's config.toml is one.") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}") from error


def _complain(message: str, code: int) -> int:
    print(f"fanfold: {message}", file=sys.stderr)
    return code
