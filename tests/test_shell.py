"""The shell's laws: mistakes are one sentence and an exit code, JSON is strict, Ctrl-C and broken pipes end quietly."""

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fanfold.cli import main as cli
from fanfold.cli import studies
from fanfold.cli import trained as trained_verbs
from fanfold.cli.refusals import refusal_of
from fanfold.core.commands import command, printable
from fanfold.core.table import plain
from fanfold.training.simulate import Tally
from fanfold.training.trainer import Trainer

SMALL = ["--n", "40", "--m", "20", "--layers", "3", "--batch", "8", "--validation-samples", "20", "--threads", "1"]
TRAIN = ["train", "compressed-sensing", "ista", *SMALL]
MARKUP = "[red]a b[bold]:bomb:"
PYTHON = re.compile(r"torch\.|\.to\(|np\.|Traceback|<class|NoneType|\[Errno|base 10|self\.|numpy\.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a run whose name is markup, measurements, and a file and a folder to take for each other."""
    path = tmp_path_factory.mktemp("shell")
    assert cli.run([*TRAIN, "--steps", "4", "--validate-every", "2", "--run-dir", str(path / "runs" / MARKUP)]) == 0
    np.save(path / "y.npy", np.zeros((3, 20), np.float32))
    (path / "file").write_text("no folder")
    (path / "folder").mkdir()
    return path


@pytest.fixture
def at(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


RUN = f"runs/{MARKUP}"
MISTAKES = {  # a verb, then what is wrong with which words
    "demo": {
        "flag": ["--layrs"],
        "value": ["--seed", "gausian"],
        "folder": ["--out-dir", "file"],
        "markup": ["--out-dir", f"file/{MARKUP}"],
    },
    "train": {
        "flag": [*TRAIN[1:], "--layrs", "4"],
        "value": [*TRAIN[1:], "--steps", "gausian"],
        "missing": ["pairs", "ista", "--path", "nowhere"],
        "folder": ["--config", "folder"],
        "markup": ["pairs", "ista", "--path", f"{MARKUP}.npz"],
    },
    "simulate": {
        "flag": ["tone", "--count", "3", "--out", "s", "--layrs"],
        "value": ["tone", "--count", "gausian", "--out", "s"],
        "missing": ["rf", "--geometry", "nowhere", "--count", "3", "--out", "s"],
        "folder": ["tone", "--count", "3", "--out", "file"],
        "markup": ["rf", "--geometry", f"{MARKUP}.toml", "--count", "3", "--out", "s"],
    },
    "channels": {
        "flag": ["info", "umi", "--layrs"],
        "value": ["info", "umi", "--samples", "gausian"],
        "missing": ["info", "nowhere"],
        "folder": ["info", "folder"],
        "markup": ["info", f"{MARKUP}.npz"],
    },
    "resume": {"flag": [RUN, "--layrs"], "value": [""], "missing": ["nowhere"], "folder": ["file"], "markup": [MARKUP]},
    "runs": {"flag": ["--layrs"], "value": [""], "missing": ["nowhere"], "folder": ["file"], "markup": [MARKUP]},
    "evaluate": {
        "flag": [RUN, "--layrs"],
        "value": [RUN, "--samples", "3.5"],
        "missing": ["nowhere"],
        "folder": [RUN, "--out", "folder.csv/x.csv"],
        "markup": [RUN, "--out", f"{MARKUP}/x.csv"],
    },
    "apply": {
        "flag": [RUN, "y.npy", "--layrs"],
        "value": [RUN, "y.npy", "--coverage", "nan"],
        "missing": [RUN, "nowhere.npy"],
        "folder": [RUN, "folder"],
        "markup": [RUN, f"{MARKUP}.npy"],
    },
    "adapt": {
        "flag": [RUN, "--out", "new", "--observations", "y.npy", "--layrs"],
        "value": [RUN, "--out", "new"],
        "missing": [RUN, "--out", "new", "--pairs", "nowhere.npz"],
        "few": [RUN, "--out", "new", "--observations", "y.npy"],
        "folder": [RUN, "--out", "folder/new/er", "--observations", "y.npy"],
        "markup": [RUN, "--out", "new", "--pairs", f"{MARKUP}.npz"],
    },
    "reproduce": {
        "flag": ["sparse-limit", "--layrs"],
        "value": ["sparse-limit", "--seed", "1e99"],
        "missing": ["nowhere"],
        "neither": [],
        "both": ["sparse-limit", "--all"],
        "all": ["--all", "--out-dir", "file"],
        "folder": ["sparse-limit", "--out-dir", "file"],
        "markup": ["sparse-limit", "--out-dir", f"file/{MARKUP}"],
    },
    "report": {
        "flag": [RUN, "--layrs"],
        "value": [RUN, "--samples", "gausian"],
        "missing": ["nowhere"],
        "folder": [RUN, "--out", "folder"],
        "markup": [RUN, "--out", f"{MARKUP}/x.html"],
    },
    "diagram": {
        "flag": [RUN, "--layrs"],
        "value": [""],
        "missing": ["nowhere"],
        "folder": [RUN, "--out", "folder"],
        "markup": [RUN, "--out", f"{MARKUP}/x.svg"],
    },
    "quantise": {
        "flag": [RUN, "--layrs"],
        "value": [RUN, "--widths", "w7a7"],
        "missing": ["nowhere", "--widths", "w8a8"],
        "markup": [RUN, "--widths", MARKUP],
    },
    "time": {
        "flag": [RUN, "--layrs"],
        "value": [RUN, "--numerology", "7"],
        "missing": ["nowhere"],
        "markup": [RUN, "--backend", MARKUP],
    },
    "export": {
        "flag": [RUN, "--layrs"],
        "value": [RUN, "--to", "gausian"],
        "missing": ["nowhere"],
        "folder": [RUN, "--out", "file"],
        "markup": [RUN, "--out", f"file/{MARKUP}"],
    },
    "certify": {
        "flag": [RUN, "--profle", "profile.toml"],
        "value": [RUN, "--profile", "file"],
        "missing": ["nowhere", "--profile", "profile.toml"],
        "folder": [RUN, "--profile", "."],
        "markup": [RUN, "--profile", f"{MARKUP}.toml"],
    },
    "verify": {
        "flag": ["release", "--allow-programs"],
        "missing": ["nowhere"],
        "file": ["file"],
        "markup": [MARKUP],
    },
    "figure": {
        "flag": ["--layrs"],
        "value": ["--out", "figure.txt"],
        "folder": ["--out", "folder"],
        "markup": ["--out", f"{MARKUP}/x.html"],
    },
    "docs": {
        "flag": ["--layrs"],
        "value": ["--out", ""],
        "folder": ["--out", "file"],
        "other": ["--out", "."],
        "markup": ["--out", f"file/{MARKUP}"],
    },
    "lab": {
        "flag": ["--layrs"],
        "value": ["--port", "70000"],
        "folder": ["--runs", "file"],
        "markup": ["--runs", f"file/{MARKUP}"],
    },
    "doctor": {"flag": ["--layrs"], "value": ["gausian"]},
}
CASES = [(verb, wrong, words) for verb, mistakes in MISTAKES.items() for wrong, words in mistakes.items()]


def test_the_law_knows_every_verb():
    assert MISTAKES.keys() == cli.VERBS.keys()


@pytest.mark.parametrize(("verb", "wrong", "words"), CASES, ids=[f"{verb}-{wrong}" for verb, wrong, _ in CASES])
def test_a_mistake_is_one_sentence_and_exit_code_2(at, capsys, verb, wrong, words):
    before = sorted(at.rglob("*"))
    for further in ([], ["--json"]):
        capsys.readouterr()
        assert cli.run([verb, *words, *further]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        (line,) = shown.err.splitlines()
        assert line.startswith("fanfold: ")
        assert not PYTHON.search(line), line
        if wrong == "markup":
            assert (MARKUP in line) or ("file is a file" in line)
    assert sorted(at.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*TRAIN, "--layrs", "4"], "no flag --layrs here; --help lists them. Did you mean '--layers'?"),
        ([*TRAIN, "--path", "nowhere"], "no flag --path here; it belongs to pairs, simulations."),
        (
            ["train", "pairs", "--pth", "nowhere", "ista"],
            "no flag --pth here; --help lists them. Did you mean '--path'?",
        ),
        ([*TRAIN, "--steps", "gausian"], "--steps takes INT; 'gausian' is no whole number."),
        ([*TRAIN, "--steps", "1e3"], "--steps takes INT; '1e3' is no whole number: write 1000."),
        ([*TRAIN, "--steps", "9" * 30], "--steps takes INT; '999999999999999999999999999999' is beyond what 64 bits"),
        ([*TRAIN, "--steps", "9" * 5000], "--steps takes INT; '999999999999999999999999999999…' is no whole number."),
        ([*TRAIN, "--lr", "nan"], "--lr takes FLOAT; 'nan' is no number."),
        ([*TRAIN, "--lr"], "--lr needs a value."),
        ([*TRAIN, "--schedule", "layer"], "--schedule takes end-to-end, layer-by-layer, lessons, not 'layer'"),
        ([*TRAIN, "--draw-seed", "-1"], "a seed of draws is -1; pass one from 0 on."),
        (["train", "compressed-sensing"], "the command ends too soon; next comes one of admm, "),
        (["train", "tone", "pairs", "neural"], "'pairs' is one word too many"),
        (["evaluate"], "evaluate needs RUN (its run directory)."),
        (["evaluate", ""], "RUN: an empty path is none; is a variable of the shell unset?"),
        (["evaluate", RUN, "--snr-db", "a"], "--snr-db takes [FLOAT [FLOAT ...]]; not 'a'."),
        (["evaluate", RUN, "--out", "t.txt"], "t.txt ends in .txt; choose a name that ends in .csv or .json."),
        (["evaluate", RUN, "--out", "no/t.csv"], "there is no folder no for t.csv; make it first."),
        (["evaluate", "--layrs", "x"], "no flag --layrs here"),
        (["report", RUN, "--out", "y.npy"], "y.npy exists; choose another name, or replace it with --overwrite."),
        (["apply", RUN, "y.npy", "--out", "y.npy", "--overwrite"], "y.npy is the file that is read"),
        (["apply", RUN, "y.npy", "--out", "x" * 260 + ".npy"], "is too long a name for a file"),
        (["train", "--config"], "--config needs a value"),
        (["train", "--config="], "--config needs a value"),
        (["simulate", "program", "--command", "a 'b", "--count", "3", "--out", "s"], "a quotation mark that is not"),
        (["runs", "--jsn"], "no flag --jsn here; there are --help, --json, --debug. Did you mean '--json'?"),
        (["trian"], "Did you mean 'train'?"),
        ([""], "no command ''; there are demo"),
        (["--layrs"], "no flag --layrs here; there are --help, --json, --debug."),
        (["--tyro-print-completion", "x"], "--tyro-print-completion needs the name of a shell: bash, zsh, tcsh, fish."),
        (["evaluate", RUN, "--json=yes"], "--json takes no value."),
        (["evaluate", RUN, "--layers=maybe"], "'maybe' is one word too many"),
        (
            [*TRAIN, "--loss-layers", "1", "--spars", "1"],
            "no flag --spars here; --help lists them. Did you mean '--spars",
        ),
    ],
)
def test_the_sentence_says_what_was_wrong_and_the_fix(at, capsys, words, said):
    assert cli.run(words) == 2
    assert f"fanfold: {said}" in (line := capsys.readouterr().err) or said in line
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("m is 3"), 2, "m is 3"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), 2, "x: no such file or directory."),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "x: permission denied."),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), 2, "no UTF-8"),
        (ZeroDivisionError("float division by zero"), 2, "too large or too small"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1, "x: no space left on device."),
        (MemoryError(), 1, "not enough memory"),
        (RuntimeError("can't allocate memory: you tried to allocate 2147483648 bytes."), 1, "memory for 2.0 GiB"),
        (KeyError("x"), 1, "a fault of fanfold (KeyError: 'x'); --debug shows where"),
        (KeyboardInterrupt(), 130, "interrupted; begin anew with: fanfold report r"),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_every_error_has_a_code_and_a_sentence(error, code, said):
    refusal = refusal_of(error, "fanfold report r")
    assert refusal.code == code
    assert said in refusal.sentence


def test_debug_shows_the_trace(at, capsys):
    assert cli.run(["evaluate", "nowhere", "--debug"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last)")
    assert err.splitlines()[-1].startswith("fanfold: nowhere is no run directory")


def strict(text: str):
    def refuse(name: str):
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("-inf")])
@pytest.mark.parametrize("verb", cli.VERBS)
def test_json_is_strict_in_every_verb(monkeypatch, capsys, verb, value):
    """Whatever a verb gives, one place makes it JSON that a strict parser reads."""
    result = {"rows": [{"nmse_db": value, "at": (value, 1)}], "to": Path("x")}
    monkeypatch.setattr(cli, "_parsed", lambda words, config: lambda: dict(result))
    assert cli.run([verb, "--json"]) == 0
    assert strict(capsys.readouterr().out) == {"rows": [{"nmse_db": None, "at": [None, 1]}], "to": "x"}


def test_a_run_that_reached_no_number_is_listed(at, tmp_path, capsys):
    metrics = {"event": "validated", "step": 2, "nmse_db": None}
    (tmp_path / "r").mkdir()
    (tmp_path / "r/config.toml").write_bytes((at / RUN / "config.toml").read_bytes())
    (tmp_path / "r/metrics.jsonl").write_text(json.dumps(metrics) + "\n")
    assert cli.run(["runs", str(tmp_path), "--json"]) == 0
    (row,) = strict(capsys.readouterr().out)["runs"]
    assert (row["step"], row["nmse_db"]) == (2, None)


def test_plain_data_is_json_at_any_depth():
    data = {"a": [float("nan"), (1, np.float32("inf"), np.int64(3))], Path("p"): {"t": True, "n": None}, "s": "\udcff"}
    assert strict(json.dumps(plain(data), allow_nan=False)) == {
        "a": [None, [1, None, 3]],
        "p": {"t": True, "n": None},
        "s": "?",
    }


def interrupting(function, after: int = 0):
    """The function, which Ctrl-C stops when it has been called that often."""
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) > after:
            signal.raise_signal(signal.SIGINT)
        return function(*args, **kwargs)

    return interrupted


@pytest.mark.parametrize(
    ("words", "place", "name", "said"),
    [
        ([*TRAIN, "--steps", "9", "--run-dir", "r 1"], Trainer, "_step", "go on with: fanfold resume 'r 1'"),
        (["simulate", "tone", "--count", "99", "--out", "s 1"], Tally, "add",
         "what was simulated is kept; go on with: fanfold simulate tone --count 99 --out 's 1'"),
        (["evaluate", RUN], trained_verbs, "peers_of", f"begin anew with: fanfold evaluate '{RUN}'"),
        (["report", RUN], trained_verbs, "write_run_page", f"begin anew with: fanfold report '{RUN}'"),
        (["apply", RUN, "y.npy"], trained_verbs, "apply_to_file", f"begin anew with: fanfold apply '{RUN}' y.npy"),
        (["demo"], studies, "demo_study", "begin anew with: fanfold demo"),
        (["reproduce", "sparse-limit", "--quick"], studies, "find_experiment",
         "begin anew with: fanfold reproduce sparse-limit --quick"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_ctrl_c_exits_130_and_names_the_command_to_go_on(at, tmp_path, monkeypatch, capsys, words, place, name, said):
    for file in ("y.npy", "runs"):
        (tmp_path / file).symlink_to(at / file)
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests themselves may be deaf to it
    monkeypatch.setattr(place, name, interrupting(vars(place)[name], after=2 if place is Trainer else 0))
    try:
        assert cli.run(words) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err.splitlines()[-1] == f"fanfold: interrupted; {said}"


def test_an_interrupted_resumption_goes_on_from_where_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [*TRAIN, "--steps", "6", "--validate-every", "2"]
    assert cli.run([*words, "--run-dir", "whole"]) == 0
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for command_words, after in (([*words, "--run-dir", "cut"], 3), (["resume", "cut"], 2)):
            with monkeypatch.context() as patch:
                patch.setattr(Trainer, "_step", interrupting(Trainer._step, after))
                assert cli.run(command_words) == 130
            assert "go on with: fanfold resume cut" in capsys.readouterr().err
    finally:
        signal.signal(signal.SIGINT, before)
    assert cli.run(["resume", "cut"]) == 0
    weights = [Path(name, "weights.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("words", [["--help"], ["runs", "runs"]])
def test_a_broken_pipe_is_quiet(at, words):
    reader, writer = os.pipe()
    os.close(reader)  # as head is gone after its line
    with os.fdopen(writer, "w") as stdout:
        args = [sys.executable, "-m", "fanfold", *words]
        done = subprocess.run(args, stdout=stdout, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (141, "")


def test_output_that_is_no_utf8_is_shown_with_escapes(at, tmp_path):
    """A terminal that knows ASCII alone, and a name that no encoding holds."""
    name = os.fsdecode(b"r\xff\n\x1b[2J")
    (tmp_path / name).symlink_to(at / RUN)
    args = [sys.executable, "-m", "fanfold", "runs", str(tmp_path)]
    done = subprocess.run(args, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert rb"r\udcff\n\x1b[2J" in done.stdout
    assert b"\x1b" not in done.stdout


LEAVES = [["channels", "draw", "-h"], ["train", "tone", "ep", "-h"]]
HELP = [["--help"], *([verb, "--help"] for verb in cli.VERBS), *LEAVES]


@pytest.mark.parametrize("words", HELP, ids=" ".join)
def test_help_works_on_a_narrow_terminal_and_has_no_colours(monkeypatch, capsys, words):
    monkeypatch.setenv("COLUMNS", "20")
    assert cli.run(words) == 0
    out = capsys.readouterr().out
    assert "usage: fanfold" in out
    assert "\x1b" not in out


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("no_color", "coloured"), [("1", False), ("", True)])
def test_no_color_is_obeyed(monkeypatch, no_color, coloured):
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    assert cli.run(["--help"]) == 0
    assert ("\x1b[" in terminal.getvalue()) == coloured


def test_proposed_commands_are_read_as_they_are_meant():
    assert command("resume", Path("runs/a b")) == "fanfold resume 'runs/a b'"
    assert command("resume", Path("-x")) == "fanfold resume ./-x"
    assert command("resume", Path("it's")) == """fanfold resume 'it'"'"'s'"""
    strange = Path(os.fsdecode(b"a\nb\xff'"))
    bash = subprocess.run(["bash", "-c", f"printf %s {command(strange).removeprefix('fanfold ')}"], capture_output=True)
    assert bash.stdout == os.fsencode(strange)
    assert printable("a\x1b[2Jb\n") == r"a\x1b[2Jb\n"
