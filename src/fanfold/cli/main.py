"""The entry of the command line: finds the verb, reads its flags, and turns errors into sentences and exit codes.

Only the verb that runs is imported, so that `fanfold --help` needs no torch.
"""

import functools
import io
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from fanfold.cli.refusals import DONE, FAILED, UNREAD, Refusal, one_line, refusal_of, sentence_of
from fanfold.core.commands import TYPED, command
from fanfold.core.suggest import did_you_mean
from fanfold.core.table import plain

VERBS = {  # verb: the module of fanfold.cli that holds it, and what it does
    "demo": ("studies", "Train in front of your eyes, under a minute, and write a report to open."),
    "train": ("training", "Train an unfolded network, or another estimator, on a problem."),
    "simulate": ("training", "Draw from a problem ahead of training, in parallel; what is there is not drawn again."),
    "channels": ("channels", "Draw channels of a radio link into a dataset, or say what one holds."),
    "resume": ("training", "Go on with a training that stopped, to the same numbers."),
    "quantise": ("training", "Train a trained run on in whole numbers, for an integer program that loses little."),
    "runs": ("trained", "List run directories."),
    "evaluate": ("trained", "Error of a trained run against its peers and limits, over conditions."),
    "apply": ("trained", "Use a trained run on your own measurements."),
    "adapt": ("adapting", "Adapt a trained run to another place, from few pairs or measurements alone."),
    "time": ("timing", "Time one call of a trained run in each backend, against a slot and this machine's floors."),
    "reproduce": ("studies", "Run a published experiment: goals, measured values, PASS or FAIL."),
    "report": ("trained", "Write the page of a run."),
    "diagram": ("drawing", "Draw the architecture of a run or an algorithm: layers, learned quantities, one step."),
    "export": ("exporting", "Write a trained run for where there is no PyTorch: ONNX, C or WebAssembly."),
    "certify": ("releasing", "Hold a trained run against a profile of limits, and bundle it as a release."),
    "verify": ("releasing", "Check a release on this machine: hashes, certificate, golden vectors."),
    "figure": ("figures", "Write the live figure: algorithms, networks and the limit as sliders move, in one page."),
    "docs": ("documents", "Build the documents, which read and search from disk, and open them."),
    "lab": ("lab", "Open a page on this machine: train live, compare runs, on your own pairs too."),
    "doctor": ("installation", "Check the installation and the machine."),
}
LIGHT = ("lab",)  # verbs that import no torch themselves
ABOUT = "Learned estimators from measurement models. Every verb takes --json and, for the trace of an error, --debug."
SHELLS = ("bash", "zsh", "tcsh", "fish")  # that can complete words
HELP = ("-h", "--help", "-H", "--help-verbose")
WIDE = "100000"  # columns, so that a refusal is not broken into lines

Work = Callable[[], dict[str, Any]]


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.stdout, sys.stderr = sys.stdout or io.StringIO(), sys.stderr or io.StringIO()  # None where they are closed
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # terminals that know no Greek, names that are no UTF-8
    code = run(sys.argv[1:])
    if code == UNREAD:  # or Python itself would complain as it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def run(args: list[str]) -> int:
    """Run one command; its exit code. Whatever goes wrong becomes a sentence."""
    typed = command(*args)
    before = TYPED.set(typed)
    args, as_json = _without(args, "--json")
    args, debug = _without(args, "--debug")
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr) if as_json else nullcontext():
            warnings.showwarning = _say_warning
            result = _result(args)
        failed = bool(result.pop("failed", False))
        if as_json and result:
            print(json.dumps(plain(result), indent=1, allow_nan=False))
        sys.stdout.flush()
        return FAILED if failed else DONE
    except BaseException as error:
        if debug:
            traceback.print_exc()
        return _complain(refusal_of(error, typed))
    finally:
        TYPED.reset(before)


def _result(args: list[str]) -> dict[str, Any]:
    """What a command gives; nothing where it only asks for help or the version."""
    verb = args[0] if args else "--help"
    if verb == "--version":
        import fanfold

        print(fanfold.__version__)
        return {}
    if verb not in VERBS and not verb.startswith("-"):
        raise ValueError(f"no command {verb!r}; there are {', '.join(VERBS)}.{did_you_mean(verb, VERBS)}")
    if verb.startswith("--tyro-") and (len(args) < 2 or args[1] not in SHELLS):
        raise ValueError(f"{verb} needs the name of a shell: {', '.join(SHELLS)}.")
    words, config = args, None
    if verb == "train":
        words, config = _value_of(args, "--config")
    work = _parsed(words, config)
    return {} if work is None else work()


def _parsed(args: Sequence[str], config: str | None) -> Work | None:
    """The work that the words of a command line ask for; None where tyro has shown help.

    Raises:
        ValueError: If the words are wrong, in one sentence.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said), _columns(None if {*HELP} & {*args} else WIDE):
            work = _read(args, config)
    except SystemExit as leave:
        if not leave.code:
            return None
        raise ValueError(sentence_of(said.getvalue(), args, lambda: _help_of(args, config))) from None
    if remarks := said.getvalue():
        sys.stderr.write(remarks)
    return work


def _read(args: Sequence[str], config: str | None) -> Work:
    import tyro

    tyro._experimental_options["ansi_codes"] = not os.environ.get("NO_COLOR")
    verb = args[0] if args else "--help"
    verbs: dict[str, Callable[..., Any]] = {name: _placeholder(text) for name, (_, text) in VERBS.items()}
    rules = nullcontext()
    if verb in VERBS:
        from fanfold.cli.rules import registry as rules

        module = import_module(f"fanfold.cli.{VERBS[verb][0]}")
        if verb == "train":
            verbs[verb] = _later(module.train_verb(args, None if config is None else Path(config)))
        else:
            verbs[verb] = _later(vars(module)[verb], light=verb in LIGHT)
    markers: tuple = (tyro.conf.CascadeSubcommandArgs, tyro.conf.FlagCreatePairsOff)
    with rules:
        return tyro.extras.subcommand_cli_from_dict(
            verbs, prog="fanfold", description=ABOUT, args=args or [verb], config=markers
        )


def _later(verb: Callable[..., Any], *, light: bool = False) -> Callable[..., Work]:
    """The verb's flags, as work to be done once they are read, on as many threads of torch as the machine can bear."""

    @functools.wraps(verb)
    def read(*args, **kwargs):
        def work() -> dict[str, Any]:
            if light:
                return verb(*args, **kwargs)
            from fanfold.core.machine import sensible_threads, threads

            with threads(sensible_threads()):
                return verb(*args, **kwargs)

        return work

    return read


def _help_of(args: Sequence[str], config: str | None) -> str:
    """The help of the verb and of what was chosen with it."""
    from fanfold.cli.flags import CHOICES

    chosen = [word for word in args[1:] if word in CHOICES]
    shown = io.StringIO()
    with redirect_stdout(shown), redirect_stderr(io.StringIO()), _columns(WIDE), suppress(SystemExit):
        _read([args[0], *chosen, "--help"], config)
    return shown.getvalue()


@contextmanager
def _columns(count: str | None) -> Iterator[None]:
    """A block in which what is printed is that wide, or as wide as it was."""
    before = os.environ.get("COLUMNS")
    if count is not None:
        os.environ["COLUMNS"] = count
    try:
        yield
    finally:
        if count is not None and before is None:
            del os.environ["COLUMNS"]
        elif before is not None:
            os.environ["COLUMNS"] = before


def _placeholder(text: str) -> Callable[[], dict[str, Any]]:
    def verb() -> dict[str, Any]:
        raise AssertionError("only the verb that was asked for runs")

    verb.__doc__ = text
    return verb


def _without(args: list[str], flag: str) -> tuple[list[str], bool]:
    return [a for a in args if a != flag], flag in args


def _value_of(args: list[str], flag: str) -> tuple[list[str], str | None]:
    for i, arg in enumerate(args):
        value, rest = None, args[i + 1 :]
        if arg == flag:
            value, rest = (rest[0], rest[1:]) if rest else ("", rest)
        elif arg.startswith(flag + "="):
            value = arg.partition("=")[2]
        if value == "":
            raise ValueError(f"{flag} needs a value: a config, such as a run directory's config.toml.")
        if value is not None:
            return args[:i] + rest, value
    return args, None


def _say_warning(message: Warning | str, *where: Any, **more: Any) -> None:
    """A warning as people read it, without the place in the source."""
    print(f"fanfold: {one_line(str(message))}", file=sys.stderr)


def _complain(refusal: Refusal) -> int:
    if refusal.sentence:
        with suppress(BrokenPipeError):
            print(f"fanfold: {one_line(refusal.sentence)}", file=sys.stderr)
    return refusal.code
