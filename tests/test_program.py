"""Programs as simulators: what goes in and out, every way to fail, and a simulation that is killed and resumed."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.cli import main as cli
from fanfold.problems import Box, Independent, Program, Simulations
from fanfold.problems.simulators.base import seeds_of
from fanfold.runs import recipe
from fanfold.runs.directory import Run
from fanfold.training.simulate import simulation_events
from processes import alive

PYTHON = f"{shlex.quote(sys.executable)} -I -S"  # starts in a few milliseconds
UNIT = Box((-1.0, 0.0), (1.0, 1.0))


def script(folder: Path, body: str, python: str = PYTHON) -> str:
    """A command that runs a Python script."""
    path = folder / "solver.py"
    path.write_text("import json, os, sys, time\n" + body)
    return f"{python} {shlex.quote(str(path))}"


def only(program: Program, index: int = 0):
    (outcome,) = program.outcomes(0, [index])
    return outcome


def until(condition) -> None:
    """Wait for a state that another process brings about."""
    while not condition():
        time.sleep(0.02)


# In and out


def test_parameters_reach_the_program_bit_for_bit_and_the_observation_comes_back(tmp_path):
    body = 'd = json.load(sys.stdin); print(json.dumps({"y": d["x"] + [d["index"]]}))'
    x, obs = Program(script(tmp_path, body), UNIT, dtype="float64").draw(5)
    assert torch.equal(obs.y[0, :2], x[0])
    assert obs.y[0, 2] == 5


def test_words_of_the_command_are_filled_in(tmp_path):
    body = "print(*sys.argv[1:])"
    program = Program(script(tmp_path, body) + " {x} {seed} {index}", UNIT, dtype="float64")
    x, obs = program.draw(9)
    assert torch.equal(obs.y[0, :2], x[0])
    assert obs.y[0, 2:].tolist() == [seeds_of(0, 9)[1], 9]


@pytest.mark.parametrize("form", ["json", "text"])
def test_parameters_may_be_a_file_and_the_observation_too(tmp_path, form):
    read = 'json.load(f)["x"]' if form == "json" else "[float(w) for w in f.read().split()]"
    body = f"""
with open(sys.argv[1]) as f: x = {read}
with open(sys.argv[2], "w") as f: print(*x, sep="\\n", file=f)
"""
    program = Program(script(tmp_path, body) + " {input} {output}", UNIT, parameters_as=form, dtype="float64")
    x, obs = program.draw(0)
    assert torch.equal(obs.y, x)


def test_arrays_go_in_and_out_and_may_be_complex(tmp_path):
    body = """
import io, numpy as np
x = np.load(io.BytesIO(sys.stdin.buffer.read()))
said = io.BytesIO()  # numpy asks for a position, which a pipe has not
np.save(said, np.outer(x, [1, 1j]))
sys.stdout.buffer.write(said.getvalue())
"""
    command = script(tmp_path, body, shlex.quote(sys.executable))
    program = Program(command, UNIT, kind="sequence", shape=(2, 2), parameters_as="npy")
    x, obs = program.draw(0)
    assert obs.y.dtype == torch.complex64
    assert torch.equal(obs.y[0], torch.stack([x[0] + 0j, 1j * x[0]], -1))


def test_an_output_file_may_get_an_ending(tmp_path):
    body = "with open(sys.argv[1] + '.txt', 'w') as f: print(3.5, file=f)"
    assert only(Program(script(tmp_path, body) + " {output}", UNIT)).y.tolist() == [3.5]


def test_no_shell_reads_the_command(tmp_path):
    program = Program("echo 1 ; touch " + shlex.quote(str(tmp_path / "touched")), UNIT)
    assert only(program).failure == "unreadable"
    assert not (tmp_path / "touched").exists()


def test_draws_run_side_by_side_and_repeat(tmp_path):
    program = Program(script(tmp_path, "print(*sys.argv[1:])") + " {x} {seed}", UNIT)
    (x, obs), (again, obs_again) = (program.sample(12, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(x, again)
    assert torch.equal(obs.y, obs_again.y)
    assert torch.equal(obs.y[:, :2], x)


# Failures


@pytest.mark.parametrize(
    ("body", "failure", "detail"),
    [
        ("print('warming up', file=sys.stderr); sys.exit('no mesh')", "crash", "exit code 1: no mesh"),
        ("os.kill(os.getpid(), 11)", "crash", "signal 11"),
        ("print(1.0, 'inf')", "non-finite", "inf at index (1,)"),
        ("print('[1.0, NaN]')", "non-finite", "nan at index (1,)"),
        ("print(1.0, 2.0, 3.0)", "wrong shape", "(3,) instead of (2,)"),
        ("pass", "unreadable", "ValueError: the observation is empty"),
        ("print('Segmentation 3')", "unreadable", "could not convert"),
        ("print('[1.0, 2.0')", "unreadable", "JSONDecodeError"),
        ("print('{\"z\": 1}')", "unreadable", "no entry y; it has z"),
        ("sys.stdout.buffer.write(b'\\x93NUMPY\\x01\\x00')", "unreadable", "ValueError"),
        ("time.sleep(3600)", "time-out", "killed after 0.3 s"),
    ],
)
def test_every_way_to_fail_is_told(tmp_path, body, failure, detail):
    program = Program(script(tmp_path, body), UNIT, shape=(2,), timeout=0.3 if failure == "time-out" else 30, retries=0)
    outcome = only(program)
    assert outcome.y is None
    assert outcome.failure == failure
    assert detail in outcome.detail


def test_a_missing_program_and_a_missing_output_are_told():
    assert only(Program("no-such-solver {seed}", UNIT, retries=0)).failure == "crash"
    missing = only(Program("true {output}", UNIT, retries=0))
    assert missing.failure == "unreadable"
    assert "the program wrote no file {output}" in missing.detail


def test_a_run_that_fails_is_tried_again_with_its_seed(tmp_path):
    body = f"""
with open({str(tmp_path / "log")!r}, "a") as f: print(sys.argv[1], file=f)
with open({str(tmp_path / "log")!r}) as f: first = f.read().split().count(sys.argv[1]) < 3
print(sys.argv[1]) if not first else sys.exit(7)
"""
    command = script(tmp_path, body) + " {seed}"
    assert only(Program(command, UNIT, retries=1, shape=(1,))).detail == "exit code 7"
    assert only(Program(command, UNIT, retries=2, shape=(1,)), 1).y is not None
    assert Counter((tmp_path / "log").read_text().split()) == {str(seeds_of(0, i)[1]): i + 2 for i in (0, 1)}


def test_leaving_a_simulation_ends_its_programs(tmp_path):
    body = f"""
if int(sys.argv[1]) == 0: print(1.0)
else:
    open(os.path.join({str(tmp_path)!r}, f"pid-{{os.getpid()}}"), "w").close()
    time.sleep(3600)
"""
    program = Program(script(tmp_path, body) + " {index}", UNIT, timeout=3600.0)
    events = simulation_events(program, 20, tmp_path / "store", workers=3)
    next(events), next(events)
    until(lambda: len([*tmp_path.glob("pid-*")]) >= 3)
    events.close()
    for path in tmp_path.glob("pid-*"):
        assert not alive(int(path.name.removeprefix("pid-")))
    assert b'"indices": [0]' in (tmp_path / "store/runs.bin").read_bytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"command": ""}, "the command is empty"),
        ({"command": "solver {sed}"}, r"the command has \{sed\}; what is filled in is \{input\}"),
        ({"timeout": 0.0}, "timeout is 0.0"),
        ({"retries": -1}, "retries -1"),
    ],
)
def test_what_is_no_program_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Program(**{"command": "true", **settings})


def test_a_program_that_never_works_is_refused(tmp_path):
    program = Program(script(tmp_path, "sys.exit('licence expired')"), UNIT, retries=0)
    with pytest.raises(ValueError, match=r"all of the first 10 runs failed \(10 crash\).*exit code 1: licence expired"):
        ff.simulate(program, 40, tmp_path / "store")


def test_a_run_directory_can_name_a_program():
    program = Program("solver {x}", Independent(ff.priors.Gaussian(2.0), 3), shape=(4,), retries=0)
    assert recipe.build_problem(recipe.describe_problem(program)) == program


def test_longer_time_outs_and_more_retries_go_on_with_the_same_store(tmp_path):
    program = Program(script(tmp_path, "print(*sys.argv[1:])") + " {x}", UNIT)
    ff.simulate(program, 10, tmp_path / "store")
    *_, finished = simulation_events(program.shifted(timeout=90.0, retries=3), 12, tmp_path / "store")
    assert finished.made == 2  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"problem\.command"):
        ff.simulate(program.shifted(command=program.command + " 1"), 12, tmp_path / "store")


def test_training_straight_on_a_program_counts_its_failures(tmp_path):
    body = "sys.exit(3) if float(sys.argv[1]) < -0.8 else print(*sys.argv[1:])"
    program = Program(script(tmp_path, body) + " {x}", UNIT, retries=0, shape=(2,))
    run = tmp_path / "run"
    ff.fit(ff.neural(program, width=8), program, run_dir=run, simulations=60, steps=4, batch=16)
    assert program.failures["crash"] > 0
    assert Run.open(run).metrics()[-1]["failed"] == {"crash": program.failures["crash"]}
    assert cli.run(["report", str(run), "--samples", "10"]) == 0
    assert f"<td>crash</td><td>{program.failures['crash']}</td>" in (run / "report.html").read_text()


# The command line


def test_the_command_line_simulates_goes_on_and_counts(tmp_path, capsys):
    body = "sys.exit(3) if int(sys.argv[1]) % 5 == 2 else print(*sys.argv[1:])"
    args = ["simulate", "program", "--command", script(tmp_path, body) + " {index} {x}", "--retries", "0",
            "--prior.low", "0", "0", "--prior.high", "1", "2", "--out", str(tmp_path / "store")]  # fmt: skip
    assert cli.run([*args, "--count", "20", "--workers", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["runs"]: row["count"] for row in rows} == {"good": 16, "crash": 4}
    assert rows[1]["example"] == "draw 2: exit code 3"
    assert cli.run([*args, "--count", "25", "--json"]) == 0
    printed = capsys.readouterr()
    assert "5 made now" in printed.err
    assert cli.run([*args, "--count", "25", "--timeout", "0"]) == 2
    assert "timeout is 0.0" in capsys.readouterr().err


def test_an_interrupted_simulation_says_how_to_go_on(monkeypatch, tmp_path, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("fanfold.training.simulate.completed", interrupt)
    assert cli.run(["simulate", "modulation", "--count", "9", "--out", str(tmp_path / "store")]) == 130
    said = capsys.readouterr().err
    assert "what was simulated is kept; go on with: fanfold simulate modulation --count 9" in said


# The whole: a program that fails in every way, killed in the middle, resumed, and trained on

FAULTS = {0: "crash", 1: "time-out", 2: "non-finite", 3: "wrong shape"}  # by the seed modulo 80: one call in twenty
RUNS, TIMEOUT = 400, 3.0

FAULTY = """
log, seed, a, b = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
with open(log, "a") as f: f.write(f"{seed}\\n")
fault = seed % 80
if fault == 0: sys.exit("the mesh is torn")
if fault == 1: time.sleep(3600)
if fault == 2: print("nan", a, b)
elif fault == 3: print(a, b)
else:
    noise = [0.1 * ((seed // 80**k) % 80 / 40 - 1) for k in (1, 2, 3)]
    print(a + noise[0], b + noise[1], a * b + noise[2])
"""

PARENT = """
import sys
import fanfold as ff
from fanfold.problems import Box, Program
program = Program(sys.argv[1], Box((-1.0, 0.0), (1.0, 1.0)), timeout=float(sys.argv[3]), retries=0)
ff.simulate(program, int(sys.argv[4]), sys.argv[2], workers=8)
"""


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """A simulation that was killed in the middle and went on: pairs, numbers kept when it died, and the seeds run."""
    folder = tmp_path_factory.mktemp("faulty")
    log, store = folder / "log", folder / "store"
    command = script(folder, FAULTY) + f" {shlex.quote(str(log))} {{seed}} {{x}}"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, command, str(store), str(TIMEOUT), str(RUNS)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    until(lambda: log.exists() and len(log.read_text().split()) > RUNS / 3)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    kept = {*Simulations(str(store)).contents.good}
    program = Program(command, UNIT, timeout=TIMEOUT, retries=0)
    pairs = ff.simulate(program, RUNS, store, workers=8)
    return pairs, kept, Counter(int(word) for word in log.read_text().split())


def injected() -> dict[int, str | None]:
    """What each run is made to do."""
    return {index: FAULTS.get(seeds_of(0, index)[1] % 80) for index in range(RUNS)}


def test_every_failure_is_counted_by_its_kind(resumed):
    pairs, _, _ = resumed
    expected = Counter(kind for kind in injected().values() if kind)
    assert set(expected) == set(FAULTS.values())
    assert abs(expected.total() - 0.05 * RUNS) < 5 * (0.05 * 0.95 * RUNS) ** 0.5  # seeds fall evenly, by chance
    assert dict(pairs.failures) == expected
    assert {f.index: f.kind for f in pairs.contents.failed} == {i: kind for i, kind in injected().items() if kind}


def test_nothing_is_lost_and_no_good_run_is_repeated(resumed):
    pairs, kept, calls = resumed
    assert RUNS / 4 < len(kept) < RUNS * 0.9  # it was killed in the middle
    assert pairs.contents.good == [i for i, kind in injected().items() if kind is None]
    of_run = {seeds_of(0, i)[1]: i for i in range(RUNS)}
    assert len(of_run) == RUNS
    repeated = {of_run[seed] for seed, count in calls.items() if count > 1}
    assert not repeated & kept
    assert len(repeated) <= 16  # those that were running, or done and not yet kept, when it was killed: 2 a worker
    assert set(calls) == set(of_run)


def test_the_pairs_are_what_the_program_says(resumed):
    pairs, _, _ = resumed
    x, obs = pairs.every()
    clean = torch.stack([x[:, 0], x[:, 1], x[:, 0] * x[:, 1]], -1)
    assert (obs.y - clean).abs().max() <= 0.1 + 1e-6  # noise is below 0.1; single precision
    assert np.isfinite(obs.y.numpy()).all()


def test_training_on_them_finishes_and_its_report_counts_each_kind(resumed, tmp_path):
    pairs, _, _ = resumed
    net = ff.neural(pairs, width=16)
    run = tmp_path / "run"
    ff.fit(net, pairs, run_dir=run, steps=60, batch=32, validate_every=30, validation_samples=50)
    assert [m["event"] for m in Run.open(run).metrics()][-1] == "finished"
    x, obs = pairs.held_out().every()
    error = (net(obs).x - x).square().mean().item()
    # linear in the first two measurements, with uniform noise on [-0.1, 0.1]: 0.01 / 3, and five errors of that mean
    assert error < 0.01 / 3 * (1 + 5 * (4 / 5 / x.numel()) ** 0.5)
    assert cli.run(["report", str(run), "--samples", "50"]) == 0
    page = (run / "report.html").read_text()
    for kind, count in pairs.failures.items():
        assert f"<td>{kind}</td><td>{count}</td>" in page
