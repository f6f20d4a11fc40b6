"""Programs that answer nonsense, never end or leave families behind cost a draw; a killed simulation leaves none."""

import io
import itertools
import json
import os
import shlex
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.problems import Box, Program, Simulations, Simulator
from fanfold.problems.simulators.answer import understood
from fanfold.problems.simulators.outcome import judge, one_line
from fanfold.problems.simulators.store import HEAD, MAGIC
from fanfold.problems.simulators.supervised import PREFIX, Supervisor, sweep
from fanfold.problems.simulators.supervisor import remove
from processes import alive

PYTHON = f"{shlex.quote(sys.executable)} -I -S"  # starts in a few milliseconds
linux = pytest.mark.skipif(sys.platform != "linux", reason="families are followed on Linux alone")


def script(folder: Path, body: str) -> str:
    """A command that runs a Python script with the folder as its first argument."""
    path = folder / "solver.py"
    path.write_text("import os, signal, sys, time\n" + body)
    return f"{PYTHON} {shlex.quote(str(path))} {shlex.quote(str(folder))}"


def only(command: str, **settings):
    """What becomes of draw 0, tried once."""
    (outcome,) = Program(command, Box(), retries=0, **settings).outcomes(0, [0])
    return outcome


def until(condition: Callable[[], object]) -> None:
    """Wait for a state; the limit of every test ends a wait for nothing."""
    while not condition():
        time.sleep(0.01)


def marked(folder: Path) -> list[int]:
    """The processes that scripts have left word of in a folder."""
    return [int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")]


MARK = 'def mark(): open(f"{sys.argv[1]}/pid-{os.getpid()}", "w").close()\n'
FAMILY = (
    MARK
    + """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:  # an orphan in a session of its own, deaf, with the output in its hand
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(number, signal.SIG_IGN)
        mark()
        time.sleep(3600)
    os._exit(0)
if os.fork() == 0:
    mark()
    time.sleep(3600)
mark()
"""
)


# What a program may answer


def npy(header: str, data: bytes = b"x" * 64, version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data


def array_header(descr: str, shape: str) -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


class Trap:
    """A pickle of it leaves a file where it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


NONSENSE = {
    "deep lists": (b"[" * 1_000_000, "unreadable"),
    "deep lists that close": (b"[" * 90_000 + b"]" * 90_000, "unreadable"),
    "deep objects": (b'{"y":' * 90_000, "unreadable"),
    "more axes than NumPy has": (b"[" * 99 + b"1" + b"]" * 99, "unreadable"),
    "73 TiB": (npy(array_header("'<f8'", "(10000000000000,)")), "unreadable"),
    "a shape beyond 64 bits": (npy(array_header("'<f8'", f"({10**30}, {10**30})")), "unreadable"),
    "nothing of that many": (npy(array_header("'<f8'", "(0, 1000000000000000000000)")), "unreadable"),
    "numbers of no bytes": (npy(array_header("'|V0'", "(10000000000000,)")), "unreadable"),
    "a negative shape": (npy(array_header("'<f8'", "(-8,)")), "unreadable"),
    "a structure": (npy(array_header("[('a', '<f8', (8,))]", "(1,)")), "unreadable"),
    "brackets for a header": (npy("(" * 2000), "unreadable"),
    "a header that computes": (npy(array_header("'<f8'", "(2**40,)")), "unreadable"),
    "no header": (b"\x93NUMPY", "unreadable"),
    "a header of 4 GiB": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "unreadable"),
    "a format to come": (npy(array_header("'<f8'", "(8,)"), version=b"\x09\x00"), "unreadable"),
    "a zip file": (b"PK\x03\x04" + b"\0" * 99, "unreadable"),
    "no UTF-8": (bytes(range(256)), "unreadable"),
    "a JSON of half a string": (b'["\\ud800"]', "unreadable"),
    "nulls": (b"[null]", "unreadable"),
    "strings": (b'["1.0"]', "unreadable"),
    "objects": (b'{"y": {"y": 1}}', "unreadable"),
    "ragged lists": (b"[[1, 2], [3]]", "unreadable"),
    "ragged lines": (b"1 2\n3", "unreadable"),
    "comments": (b"# nothing\n", "unreadable"),
    "no lists at all": (b"[]", "wrong shape"),
    "a matrix": (b"1 2\n3 4", "wrong shape"),
    "NaN": (b"[NaN, 1]", "non-finite"),
    "infinity": (b"1 -inf", "non-finite"),
    "integers of 7000 digits": (b"[1" + b"0" * 7000 + b"]", "non-finite"),
}  # fmt: skip


@pytest.mark.parametrize("content", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_costs_its_draw(tmp_path, content):
    output, failure = content
    (tmp_path / "answer").write_bytes(output)
    body = (
        'if sys.argv[2] == "0": sys.stdout.buffer.write(open(sys.argv[1] + "/answer", "rb").read())\nelse: print(1.0)'
    )
    program = Program(script(tmp_path, body) + " {index}", Box(), retries=0)
    bad, good = program.outcomes(0, [0, 1])
    assert bad.failure == failure
    assert bad.y is None
    assert good.y.tolist() == [1.0]


def test_pickles_are_never_unpickled(tmp_path):
    trap = tmp_path / "trapped"
    np.save(tmp_path / "answer.npy", np.array([Trap(trap)], dtype=object), allow_pickle=True)
    assert only(f"cp {shlex.quote(str(tmp_path / 'answer.npy'))} {{output}}").failure == "unreadable"
    assert not trap.exists()


@pytest.mark.parametrize("form", ["npy", "json", "text"])
def test_mutations_of_an_answer_are_numbers_or_refused(form):
    """600 mutants of each form: bytes changed, cut, doubled and put in."""
    rng = np.random.default_rng(0)
    seeds = {"json": b'{"y": [[1.5, -2e3], [3, 4]], "log": "ok"}', "text": b"1.5 -2e3\n3 4\n", "npy": npy_of(np.eye(3))}
    for _ in range(600):
        content = bytearray(seeds[form])
        for _ in range(rng.integers(1, 4)):
            at, kind = int(rng.integers(len(content) + 1)), rng.integers(4)
            if kind == 0:
                content[at : at + 1] = rng.bytes(1)
            elif kind == 1:
                del content[at:]
            elif kind == 2:
                content[at:at] = content[: rng.integers(40)]
            else:
                content[at:at] = [b"[", b"9" * 30, b"e999", b"(", b"\x93NUMPY", b",", b"nan"][rng.integers(7)]
        outcome = judge(0, np.zeros(1), as_read(bytes(content)), "sequence", None, "float32")
        assert outcome.failure or np.isfinite(outcome.y).all()


def npy_of(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def as_read(content: bytes):
    try:
        return understood(content)
    except ValueError as error:
        return str(error)  # text, which is judged unreadable


def test_what_a_function_returns_costs_no_more_either():
    class Odd:
        def __array__(self, *args, **kwargs):
            raise RuntimeError("not today")

    def answers(x, generator):
        return [Odd(), sys.exit, torch.ones(2, dtype=torch.complex64).conj(), torch.ones(2, dtype=torch.bfloat16)][
            int(4 * x[0])
        ]

    def leaves(x, generator):
        sys.exit("licence expired")

    outcomes = Simulator(Box(), answers).outcomes(0, range(40))
    for o in outcomes:
        assert (o.failure == "unreadable") == (o.x[0] < 0.5)
    assert any(np.iscomplexobj(o.y) for o in outcomes if o.y is not None)
    for simulator in (Simulator(Box(), leaves), ff.problems.BatchSimulator(Box(), leaves)):
        assert simulator.outcomes(0, [0])[0].detail == "SystemExit: licence expired"


def test_complaints_hold_nothing_that_a_terminal_obeys(tmp_path):
    outcome = only(script(tmp_path, r'sys.exit("\x1b[2Jno\x00 \x9b31mlicence")'))
    assert outcome.detail == "exit code 1: \ufffd[2Jno\ufffd \ufffd31mlicence"
    assert one_line("x\ty") == "x\ufffdy"


# How much a program may answer


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        ('while True: sys.stdout.write("1 " * 4096)', "too large"),
        ('with open(sys.argv[2], "w") as f:\n  while True: f.write("1 " * 4096)', "too large"),
        ('os.truncate(os.open(sys.argv[2] + ".npy", os.O_CREAT | os.O_RDWR), 1 << 30)', "too large"),
        ('os.symlink("/dev/zero", sys.argv[2])', "unreadable"),
        ("os.mkfifo(sys.argv[2])", "unreadable"),
        ("os.mkdir(sys.argv[2])", "unreadable"),
        ('os.symlink("nowhere", sys.argv[2])', "unreadable"),
    ],
)
def test_output_is_capped(tmp_path, body, failure):
    command = script(tmp_path, body) + (" {output}" if "argv[2]" in body else "")
    outcome = only(command, output_limit=0.5)
    assert outcome.failure == failure
    assert failure == "unreadable" or outcome.detail == "killed at more than 0.5 MiB of output"


def test_output_up_to_the_cap_is_read_and_complaints_have_none(tmp_path):
    body = 'for _ in range(4096): sys.stderr.write("e" * 1024)\nsys.stderr.write("\\nlast words")\n'
    megabyte = script(tmp_path, body + 'print("1.5 " * 2**18)')
    assert only(megabyte, output_limit=1.001).y.shape == (2**18,)
    assert only(megabyte, output_limit=0.999).failure == "too large"
    assert only(script(tmp_path, body + "sys.exit(3)")).detail == "exit code 3: last words"
    with pytest.raises(ValueError, match="output_limit is 0"):
        Program("true", output_limit=0)
    assert Program("true").output_limit == 64


def test_output_that_nobody_reads_does_not_hold_a_program(tmp_path):
    body = 'sys.stdout.write("x" * 2**21)\nwith open(sys.argv[2], "w") as f: f.write("2.5")'
    assert only(script(tmp_path, body) + " {output}", output_limit=0.5).y.tolist() == [2.5]


def test_parameters_that_nobody_reads_do_not_hold_a_program():
    long = Box((0.0,) * 40_000, (1.0,) * 40_000)  # more than a pipe holds
    (outcome,) = Program("echo 1.5", long, retries=0).outcomes(0, [0])
    assert outcome.y.tolist() == [1.5]


# How long a program may take, and what stays of it


@linux
@pytest.mark.parametrize("end", ["time.sleep(3600)", "os.mkfifo(sys.argv[1] + '/fifo'); open(sys.argv[1] + '/fifo')"])
def test_a_time_out_ends_families_in_sessions_of_their_own(tmp_path, end):
    for timeout in patience():
        assert only(script(tmp_path, FAMILY + end), timeout=timeout).failure == "time-out"
        assert not any(map(alive, marked(tmp_path)))
        if len(marked(tmp_path)) >= 3:
            return


@linux
def test_what_holds_the_output_after_the_end_takes_too_long(tmp_path):
    for timeout in patience():
        outcome = only(script(tmp_path, FAMILY), timeout=timeout)
        assert outcome.failure == "time-out"
        assert not any(map(alive, marked(tmp_path)))
        if "the program had ended, but what it started held its output" in outcome.detail:
            return


def patience() -> Iterator[float]:
    """Time-outs for what must happen first, each longer than the one before."""
    return (0.4 * 2**tries for tries in itertools.count())


@linux
@pytest.mark.parametrize("file", [False, True])
def test_what_a_good_run_leaves_behind_is_ended(tmp_path, file):
    """Servers whose output goes elsewhere, and any whose run writes a file, cost no time."""
    quiet = "answer = os.dup(1)\nfor fd in (1, 2): os.dup2(os.open(os.devnull, os.O_WRONLY), fd)\n"
    server = MARK + "if os.fork() == 0:\n    os.setsid(); {}\n    mark(); time.sleep(3600)\n"
    wait = "while not [name for name in os.listdir(sys.argv[1]) if 'pid' in name]: time.sleep(0.01)\n"
    if file:
        body = server.replace("; {}", "") + wait + 'with open(sys.argv[2], "w") as f: f.write("1.5")'
    else:
        body = quiet + server.replace("; {}", "; os.close(answer)") + wait + 'os.write(answer, b"1.5")'
    outcome = only(script(tmp_path, body) + (" {output}" if file else ""), timeout=3600.0)
    assert outcome.y.tolist() == [1.5]
    assert len(marked(tmp_path)) == 1
    assert not any(map(alive, marked(tmp_path)))


@linux
@pytest.mark.parametrize("away", ["", "; os.setsid()"])
def test_what_forks_from_process_to_process_is_caught(tmp_path, away):
    body = MARK + f"while True:\n    if os.fork(): os._exit(0)\n    0{away}"
    assert only(script(tmp_path, body), timeout=0.3).failure == "time-out"
    command = (tmp_path / "solver.py").as_posix().encode()
    assert not [pid for pid in processes() if command in command_line(pid)]


def processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@linux
def test_a_program_that_kills_its_supervisor_dies_with_it(tmp_path):
    body = MARK + 'mark()\nos.kill(os.getppid(), 9) if sys.argv[2] == "0" else print(1.5)\ntime.sleep(0.3)'
    program = Program(script(tmp_path, body) + " {index}", Box(), retries=0)
    killed, good = program.outcomes(0, [0, 1])
    assert (killed.failure, killed.detail) == ("crash", "the process that watched over the program was killed")
    assert good.y.tolist() == [1.5]
    until(lambda: not any(map(alive, marked(tmp_path))))


def test_a_thread_that_waits_for_a_program_hears_of_its_end():
    for _ in range(10):
        supervisor, raised = Supervisor(), []

        def wait(supervisor=supervisor, raised=raised):
            with pytest.raises(RuntimeError, match="the simulation has ended"):
                supervisor.run(["sleep", "3600"], b"", timeout=3600, limit=99)
            raised.append(True)

        thread = threading.Thread(target=wait)
        thread.start()
        supervisor.end()
        thread.join()
        assert raised


# Folders


@pytest.fixture
def temporary(monkeypatch) -> Iterator[Path]:
    """The folder for temporary files, of this test alone; in memory if there is such a place, which is quick."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        yield Path(folder)


def test_folders_go_however_deep_and_locked(temporary, tmp_path):
    body = """
os.chdir(os.path.dirname(sys.argv[2]))
os.mkdir("locked"); open("locked/file", "w").close(); os.chmod("locked", 0)
for _ in range(1500): os.mkdir("deep"); os.chdir("deep")  # deeper than Python calls functions
print(1.5)
"""
    assert only(script(tmp_path, body) + " {input}").y.tolist() == [1.5]
    assert list(temporary.iterdir()) == []


def test_links_are_removed_and_not_followed(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/link").symlink_to(tmp_path / "precious")
    remove(str(tmp_path / "folder"))
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert (tmp_path / "precious/file").exists()


@linux
def test_folders_of_the_killed_go_at_the_next_start_and_those_of_the_living_stay(temporary):
    killed, living = Supervisor(), Supervisor()
    pid = int(killed.run(["sh", "-c", "echo $PPID"], b"", timeout=60, limit=99).output)
    living.run(["true"], b"", timeout=60, limit=99)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid))
    (temporary / f"{PREFIX}half-made").mkdir()  # nobody has locked it yet
    (temporary / f"{PREFIX}file").touch()
    assert killed.folder.exists()
    sweep()
    assert {*temporary.iterdir()} == {living.folder, temporary / f"{PREFIX}half-made", temporary / f"{PREFIX}file"}
    os.utime(temporary / f"{PREFIX}half-made", (0, 0))
    sweep()
    assert {*temporary.iterdir()} == {living.folder, temporary / f"{PREFIX}file"}
    killed.end()
    living.end()
    assert [path.name for path in temporary.iterdir()] == [f"{PREFIX}file"]


# Whatever ends a simulation ends its programs

NURSERY = """
import json, os, signal, sys, tempfile, traceback
import torch
import fanfold as ff
from fanfold.cli import main as cli
from fanfold.cli import training
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests themselves may be deaf to these
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
for line in sys.stdin:
    case = json.loads(line)
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        continue
    os.environ["TMPDIR"], tempfile.tempdir = case["temporary"], None
    sys.stdin.close()
    try:
        exec(case["code"], {"ff": ff, "cli": cli, **case})
    finally:
        os._exit(0)
"""
COMMAND_LINE = "cli.run([*words, '--command', command, '--timeout', '3600', '--retries', '0'"
CASES = {
    "fanfold simulate": COMMAND_LINE + ", '--count', '20', '--workers', '3', '--out', out])",
    "fanfold train": COMMAND_LINE + ", '--steps', '5', '--run-dir', out])",
    "ff.simulate": "ff.simulate(ff.problems.Program(command, timeout=3600.0), 20, out, workers=3)",
    "ff.simulate again": """
program = ff.problems.Program(command, timeout=3600.0, retries=0)
ff.simulate(program, 20, out)
open(ready, "w").close()
ff.simulate(program, 20, out, workers=3, retry_failed=True)
""",
    "simulator.draw": "ff.problems.Program(command, timeout=3600.0).draw(1)",
}
WORDS = {"fanfold simulate": ["simulate", "program"], "fanfold train": ["train", "program", "neural"]}


@pytest.fixture(scope="module")
def nursery() -> Iterator[Callable[[dict[str, object]], int]]:
    """A process that has imported all, and forks one for each case: a function from the case to the fork's number."""
    process = subprocess.Popen(
        [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def born(case: dict[str, object]) -> int:
        process.stdin.write(json.dumps(case).encode() + b"\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    yield born
    process.stdin.close()
    process.wait()
    process.stdout.close()


@linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("name", CASES)
def test_nothing_outlives_a_simulation(nursery, tmp_path, name, number):
    """Programs with families, several at once: whatever ends the simulation, no process and no folder stays."""
    temporary, ready = tmp_path / "temporary", tmp_path / "ready"
    temporary.mkdir()
    again = name.endswith("again")
    quick = f"""
if {again} and not os.path.exists({str(ready)!r}):
    print(1.5) if int(sys.argv[2]) % 3 else sys.exit(1)
    sys.exit(0)
"""
    command = script(tmp_path, quick + FAMILY + "time.sleep(3600)") + " {index}"
    paths = {"temporary": str(temporary), "out": str(tmp_path / "out"), "ready": str(ready)}
    parent = nursery({"code": CASES[name], "words": WORDS.get(name), "command": command, **paths})
    side_by_side = 3 if "simulate" in name else 1
    until(lambda: len(marked(tmp_path)) >= 3 * side_by_side or not alive(parent))
    family = [pid for pid in processes() if str(tmp_path).encode() in command_line(pid)]  # supervisors name the folder
    assert len(family) >= 4 * side_by_side
    assert list(temporary.glob(f"{PREFIX}*"))
    os.kill(parent, number)
    until(lambda: not any(map(alive, [parent, *family, *marked(tmp_path)])))
    assert [pid for pid in processes() if str(tmp_path).encode() in command_line(pid)] == []
    assert list(temporary.iterdir()) == []


@linux
def test_worker_processes_end_with_a_killed_simulation(nursery, tmp_path):
    (tmp_path / "sleepy.py").write_text(f"""
import os, time
def sleepy(x, generator):
    open(f"{tmp_path}/pid-{{os.getpid()}}", "w").close()
    time.sleep(3600)
""")
    code = """
import sys
sys.path.insert(0, temporary)
from sleepy import sleepy
ff.simulate(ff.problems.Simulator(ff.problems.Box(), sleepy), 20, temporary + "/store", workers=2)
"""
    parent = nursery({"code": code, "temporary": str(tmp_path)})
    until(lambda: len(marked(tmp_path)) == 2)
    os.kill(parent, signal.SIGKILL)
    until(lambda: not any(map(alive, [parent, *marked(tmp_path)])))


# Stores


@pytest.mark.parametrize(
    "facts",
    [
        b"[" * 100_000,
        b"null",
        b'{"indices": [0], "failed": [], "x": ["<f8", [10000000000000]], "y": ["<f8", [1]]}',
        b'{"indices": [0], "failed": [], "x": ["O", [1]], "y": ["<f8", [1]]}',
        b'{"indices": [0], "failed": [1], "x": ["<f8", [1, 1]], "y": ["<f8", [1, 1]]}',
        b'{"indices": ["0"], "failed": [], "x": ["<f8", [1, 1]], "y": ["<f8", [1, 1]]}',
        b'{"indices": [0], "failed": [], "x": ["<f8", [-1]], "y": ["<f8", [1, 1]]}',
    ],
)
def test_a_record_that_lies_about_itself_is_left_out(tmp_path, facts):
    store = tmp_path / "store"
    whole = ff.simulate(Simulator(Box(), lambda x, g: x), 20, store).every()[0]
    arrays = bytes(16)
    lie = HEAD.pack(MAGIC, len(facts), len(arrays), zlib.crc32(facts + arrays)) + facts + arrays
    with (store / "runs.bin").open("ab") as file:
        file.write(lie)
    assert torch.equal(Simulations(str(store)).every()[0], whole)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{", '{"problem": []}', '{"problem": {"kind": ["vector"]}}', ""])
def test_a_store_that_does_not_say_what_it_holds_is_refused(tmp_path, text):
    store = tmp_path / "store"
    ff.simulate(Simulator(Box(), lambda x, g: x), 20, store)
    (store / "problem.json").write_text(text)
    with pytest.raises(ValueError, match=r"problem\.json( cannot be read as JSON|: kind is| is .* no table)"):
        Simulations(str(store.rename(tmp_path / "elsewhere")))  # what was read before is kept


@pytest.mark.parametrize(("name", "said"), [("problem.json", "is a pipe"), ("runs.bin", "holds no simulations")])
def test_a_store_with_pipes_for_files_is_refused(tmp_path, name, said):
    store = tmp_path / "store"
    ff.simulate(Simulator(Box(), lambda x, g: x), 20, store)
    (store / name).unlink()
    os.mkfifo(store / name)
    with pytest.raises(ValueError, match=said):
        Simulations(str(store.rename(tmp_path / "elsewhere")))
