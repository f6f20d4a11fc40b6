"""The entry of the command line: finds the verb, reads its flags, and turns errors into exit codes.

Exit codes: 0 done; 1 the work failed or was interrupted; 2 the command or its input is wrong.
Only the verb that runs is imported, so that `fanfold --help` needs no torch.
"""

import functools
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import tyro

from fanfold.core.suggest import did_you_mean

VERBS = {  # verb: the module of fanfold.cli that holds it, and what it does
    "demo": ("studies", "Train in front of your eyes, under a minute, and write a report to open."),
    "train": ("training", "Train an unfolded network, or another estimator, on a problem."),
    "simulate": ("training", "Draw from a problem ahead of training, in parallel; what is there is not drawn again."),
    "channels": ("channels", "Draw channels of a radio link into a dataset, or say what one holds."),
    "resume": ("training", "Go on with a training that stopped, to the same numbers."),
    "runs": ("trained", "List run directories."),
    "evaluate": ("trained", "Error of a trained run against its peers and limits, over conditions."),
    "apply": ("trained", "Use a trained run on your own measurements."),
    "reproduce": ("studies", "Run a published experiment: goals, measured values, PASS or FAIL."),
    "report": ("trained", "Write the page of a run."),
    "doctor": ("installation", "Check the installation and the machine."),
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
    verbs: dict[str, Callable[..., Any]] = {name: _placeholder(text) for name, (_, text) in VERBS.items()}
    config: tuple = (tyro.conf.CascadeSubcommandArgs, tyro.conf.FlagCreatePairsOff)
    words, rules = args, nullcontext()
    if verb in VERBS:
        from fanfold.cli.flags import registry as rules

        module = import_module(f"fanfold.cli.{VERBS[verb][0]}")
        if verb == "train":
            words, file = _value_of(args, "--config")
            verbs[verb] = _with_sensible_threads(module.train_verb(words, None if file is None else Path(file)))
        else:
            verbs[verb] = _with_sensible_threads(vars(module)[verb])
    with rules:
        return tyro.extras.subcommand_cli_from_dict(
            verbs, prog="fanfold", description="Learned estimators from measurement models.", args=words, config=config
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
    """After a refusal, what a misspelt problem or network may have meant."""
    from fanfold import algorithms, estimators, problems

    known = [*problems.REGISTRY, *algorithms.REGISTRY, *estimators.REGISTRY]
    for word in words:
        hint = did_you_mean(word, known)
        if word not in known and not word.startswith("-") and hint:
            _complain(f"no problem or network {word!r}.{hint}", 2)


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


def _complain(message: str, code: int) -> int:
    print(f"fanfold: {message}", file=sys.stderr)
    return code
