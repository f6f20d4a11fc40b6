"""The lab: who may come in, what it is asked, runs that are followed, cancelled, exported and resumed."""

import asyncio
import io
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from fanfold.cli import main as cli
from fanfold.cli.flags import NETWORKS
from fanfold.core.files import write_whole
from fanfold.core.table import plain
from fanfold.estimators.ofdm import GridCNN
from fanfold.lab import page as lab_page
from fanfold.lab import uploads
from fanfold.lab.doors import ALWAYS, Doors
from fanfold.lab.follow import EventLog
from fanfold.lab.jobs import Job, Jobs
from fanfold.lab.parts import choices, pairs
from fanfold.lab.serve import listening
from fanfold.lab.service import Lab
from fanfold.lab.words import words_of
from fanfold.lab.workers import Workers
from fanfold.runs.directory import Run
from labs import Following, LabProcess, lab_of, sparse_pairs, stored, wait_for
from processes import alive

SMALL = {"n": 40, "m": 20, "snr_db": 20}
QUICK = {"batch": 8, "validation_samples": 20, "threads": 1}


@pytest.fixture(scope="module")
def offered() -> dict:
    return choices()


# What the page is


def test_the_page_and_its_files_name_nothing_outside():
    sources = {name: file.read_text() for name, file in lab_page.FILES.items() if file.parent == lab_page.FOLDER}
    assert {"lab.js", "form.js", "runs.js", "curves.js", "address.js", "made.js", "lab.css"} == sources.keys()
    text = lab_page.page() + "".join(sources.values())
    assert set(re.findall(r"https?://[\w./-]+", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert re.findall(r"""(?:src|href)=["'](?!static/|data:)[^"']*""", text) == []
    assert "eval(" not in text


def test_every_module_of_the_import_map_is_served():
    imports = json.loads(lab_page.IMPORT_MAP)["imports"]
    static = {path.removeprefix("./static/") for path in imports.values() if "static" in path}
    assert static <= lab_page.FILES.keys()
    needed = {
        name for file in lab_page.FILES.values() for name in re.findall(r"from '(fanfold/\w+)'", file.read_text())
    }
    assert needed <= imports.keys()


def test_the_server_imports_no_torch():
    modules = "fanfold.cli.main, fanfold.cli.rules, fanfold.cli.lab, fanfold.lab.serve"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "fanfold.lab.serve", raising=False)
    assert cli.run(["lab", "--no-browser", "--runs", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "fanfold: the lab needs Starlette and uvicorn: pip install 'fanfold[lab]'\n"


def test_a_port_that_is_taken_or_none_is_refused(capsys, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        for port, said in ((other.getsockname()[1], "cannot be had"), (70_000, "a port is from 1 to 65535")):
            assert cli.run(["lab", "--no-browser", "--runs", str(tmp_path), "--port", str(port)]) == 2
            assert said in capsys.readouterr().err


# Who may come in


@pytest.mark.parametrize(
    ("host", "origin", "site", "path", "why"),
    [
        ("127.0.0.1:80", None, None, "/secret/", ""),
        ("localhost:80", "http://localhost:80", "same-origin", "/secret/runs", ""),
        ("127.0.0.1", None, "none", "/secret/", ""),
        ("evil.example", None, None, "/secret/", "no address"),
        ("127.0.0.1:81", None, None, "/secret/", "no address"),
        (None, None, None, "/secret/", "no address"),
        ("127.0.0.1:80", "http://evil.example", None, "/secret/", "its own page alone"),
        ("127.0.0.1:80", "http://127.0.0.1:81", None, "/secret/", "its own page alone"),
        ("127.0.0.1:80", "null", None, "/secret/", "its own page alone"),
        ("127.0.0.1:80", None, "cross-site", "/secret/", "its own page alone"),
        ("127.0.0.1:80", None, None, "/", "token"),
        ("127.0.0.1:80", None, None, "/secret2/", "token"),
        ("127.0.0.1:80", None, None, "/runs/secret/", "token"),
        ("127.0.0.1:80", None, None, "/sécret/", "token"),
    ],
)
def test_who_may_come_in(host, origin, site, path, why):
    async def nothing(scope, receive, send):
        raise AssertionError

    said = Doors(nothing, "secret", 80).refusal(host, origin, site, path)
    assert why in said
    assert bool(said) == bool(why)


@pytest.mark.parametrize(("path", "status"), [("/secret/", 200), ("/secret", 307), ("/wrong/", 403)])
def test_every_answer_says_what_a_browser_must_not_do_with_it(path, status):
    answers = list[dict]()

    async def send(message):
        answers.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"localhost:8000")]}
    asyncio.run(Doors(PlainTextResponse("in"), "secret", 8000)(scope, None, send))
    assert answers[0]["status"] == status
    headers = Headers(raw=answers[0]["headers"])
    assert {name: headers.get(name) for name in ALWAYS} == ALWAYS


def test_the_server_listens_on_this_machine_alone():
    with listening(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


# What it is asked


def asked(**changes) -> dict:
    return {"problem": "compressed-sensing", "network": "ista"} | changes


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (asked(), "train compressed-sensing ista"),
        (
            asked(of_problem={"n": 600, "snr_db": 20.5}, of_network={"lam": 1e-3, "layers": 3.0}, training={"seed": 2}),
            "train compressed-sensing --n 600 --snr-db 20.5 ista --lam 0.001 --layers 3 --draw-seed 2",
        ),
        (
            asked(network="lista", learn={"W1": "tied", "threshold": "per-layer vector"}),
            "train compressed-sensing lista --learn W1=tied threshold=per-layer vector",
        ),
        (
            asked(problem="few-channels", network="oamp", of_problem={"problem.known_noise": False, "known": False}),
            "train few-channels --problem.no-known-noise --no-known oamp",
        ),
        (
            asked(problem="rf-imaging", network="oamp", of_problem={"scene": [8, 8]}, of_network={"adapt": True}),
            "train rf-imaging --scene 8 8 oamp --adapt",
        ),
        (asked(problem="tone", network="neural", of_network={"width": 4}), "train tone neural --width 4"),
        (
            asked(problem="rf-imaging", network="hybrid-ep", of_network={"algorithm.prior.p": 0.2, "layers": 2}),
            "train rf-imaging hybrid-ep --algorithm.prior.p 0.2 --layers 2",
        ),
        (
            asked(problem="few-channels", network="adapted", of_network={"network.beams": 16, "known_channels": False}),
            "train few-channels adapted --network.beams 16 --no-known-channels",
        ),
        (asked(of_network={"equilibrium": True}), "train compressed-sensing ista --equilibrium"),
        (asked(quantise="w8a8"), "train compressed-sensing ista --quantise w8a8"),
        (
            asked(more="# a remark\n\ndtype = complex64\n--checkpoint = true", quantise=""),
            "train compressed-sensing ista --dtype complex64 --checkpoint",
        ),
        (
            asked(network="back-projection-unet", of_network={"voxels": [10, 50]}),
            "train compressed-sensing back-projection-unet --voxels 10 50",
        ),
    ],
)
def test_what_is_asked_is_a_command_that_the_shell_reads(offered, request_, words, tmp_path):
    given = words_of(request_, offered, tmp_path)
    assert " ".join(given) == words
    assert cli._parsed(given, None) is not None


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ([], "no object"),
        (asked(steps=3), "a request has no 'steps'"),
        (asked(network="istaa"), "Did you mean 'ista'"),
        (asked(problem="program"), "no problem 'program'"),
        (asked(problem=["ista"]), "no problem"),
        (asked(of_problem={"run_dir": "/"}), "no setting 'run_dir'"),
        (asked(of_problem=3), "no object of settings"),
        (asked(of_problem={"n": "--run-dir"}), "it is a number"),
        (asked(of_problem={"n": float("inf")}), "it is a number"),
        (asked(of_problem={"n": 10**400}), "it is a number"),
        (asked(of_problem={"n": True}), "it is a number"),
        (asked(of_problem={"ensemble": "--x"}), "ensemble takes iid"),
        (asked(problem="rf-imaging", of_problem={"scene": []}), "a list of numbers"),
        (asked(problem="rf-imaging", of_problem={"speckle": "yes"}), "true or false"),
        (asked(learn={"W": "tied"}), "no quantity 'W'"),
        (asked(problem="tone"), "needs the operator A, and Tone has none"),
        (asked(problem="tone", network="beam-mixer"), "estimates OFDM channels and Tone draws something else"),
        (asked(network="recalibrated"), "no network 'recalibrated'"),
        (asked(learn={"step": "--x"}), "is learned tied"),
        (asked(quantise="w4a4"), "quantise takes w8a8, w8a12, w16a16, or nothing"),
        (asked(more=["a"]), "it is text"),
        (asked(more="dtype complex64"), "is no setting; write key = value"),
        (asked(more="dtype ="), "is no setting"),
        (asked(more="run_dir = /tmp"), "run_dir is not for the page to set"),
        (asked(more="no-config = 1"), "not for the page to set"),
        (asked(more="dtype = float32 --run-dir /tmp"), "write --run-dir in a line of its own"),
        (asked(more="sparsity = 0.2 -h"), "write -h in a line of its own"),
        (asked(more="dtype = 'float32"), "No closing quotation"),
        (asked(problem="pairs"), "no file"),
        (asked(problem="pairs", data="../pairs.npz"), "no file"),
    ],
)
def test_what_the_page_does_not_offer_is_refused(offered, request_, why, tmp_path):
    with pytest.raises(ValueError, match=re.escape(why)):
        words_of(request_, offered, tmp_path)


def test_every_network_of_the_command_line_is_offered_where_it_fits(offered):
    assert {row["name"] for row in offered["networks"]} == NETWORKS.keys()
    fitting = {
        row["name"]: {problem["name"] for problem in offered["problems"] if problem["name"] not in row["refused"]}
        for row in offered["networks"]
    }
    assert all(problems - {"pairs"} for problems in fitting.values())
    assert fitting["ista"] > {"compressed-sensing", "rf-imaging", "pairs"}
    assert fitting["beam-mixer"] == {"few-channels", "ofdm-channel", "pairs"}  # of pairs a file says what fits
    assert fitting["locator"] == {"time-delay", "tone", "pairs"}
    assert len(fitting["flow-posterior"]) == len(offered["problems"])
    usual = {row["name"]: row["usual"] for row in offered["networks"]}
    assert (usual["grid-cnn"]["steps"], usual["ista"]) == (GridCNN.training_defaults["steps"], {})


def test_choices_start_no_program_and_read_no_file(offered):
    names = {row["name"] for row in offered["problems"]}
    assert names.isdisjoint({"program", "simulations", "rf"})
    assert {"compressed-sensing", "pairs", "tone"} <= names
    rows = [field for part in ("problems", "networks") for row in offered[part] for field in row["fields"]]
    assert {field["kind"] for field in rows + offered["training"]} == {"number", "numbers", "choice", "switch"}


# Files that are dropped


async def blocks(*parts: bytes):
    for part in parts:
        yield part


def test_a_file_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    file = asyncio.run(uploads.taken("../my pairs.NPZ", 0, blocks(b"ab", b"c"), tmp_path))
    assert (file.name[:9], file.suffix, file.read_bytes()) == ("my-pairs-", ".npz", b"abc")
    assert asyncio.run(uploads.taken("my pairs.npz", 3, blocks(b"abc"), tmp_path)) == file
    monkeypatch.setattr(uploads, "MOST_BYTES", 3)
    for name, declared, content, why in (
        ("a.npz", 4, b"", "fanfold train pairs"),
        ("a.npz", 0, b"abcd", "fanfold train pairs"),
        ("a.npz", 0, b"", "is empty"),
        ("a.csv", 0, b"a", "no .npz file"),
    ):
        with pytest.raises(ValueError, match=why):
            asyncio.run(uploads.taken(name, declared, blocks(content), tmp_path))
    assert [*tmp_path.iterdir()] == [file]


def test_pairs_are_read_before_anything_trains_on_them(tmp_path, monkeypatch):
    said = pairs(sparse_pairs(tmp_path / "good.npz"))
    assert "ista" not in said["refused"]
    assert said["refused"]["locator"].startswith("Locator needs `waveform`; Pairs has none.")
    assert said["reading"] == "160 pairs to train, of 200; 40 unknowns x, 20 measurements y, A 20 x 40"
    unrelated = pairs(stored(tmp_path / "bad.npz", x=np.eye(8), y=np.eye(8)[::-1] * 0.5, A=np.eye(8)))
    assert "is this the right A" in unrelated["doubts"][0]
    with pytest.raises(ValueError, match="has no array x"):
        pairs(stored(tmp_path / "none.npz", y=np.eye(3)))
    monkeypatch.setattr("fanfold.lab.parts.MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="more than the lab reads"):
        pairs(tmp_path / "good.npz")


# Logs and processes


def test_a_follower_goes_on_where_it_was_or_begins_anew(tmp_path):
    file, log = tmp_path / "metrics.jsonl", EventLog(tmp_path)
    nothing = log.since("", 0)
    assert (nothing.anew, nothing.events) == (True, [])
    file.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    first = log.since(nothing.mark, 0)
    assert (first.anew, first.events) == (True, ['{"a": 1}', '{"a": 2}'])
    with file.open("a") as stream:
        stream.write(": 3}\n")
    assert log.since(first.mark, 0)[:2] == (False, ['{"a": 3}'])
    assert EventLog(tmp_path).since(first.mark, 0)[:2] == (False, ['{"a": 3}'])  # of a server that forgot it
    assert log.since(first.mark, 1).anew  # it was resumed since
    write_whole(file, b'{"a": 9}\n')  # as resume forgets what came after the checkpoint
    assert log.since(first.mark, 0)[:2] == (True, ['{"a": 9}'])
    for mark in ("x", "-", "0.0-1", f"{first.mark}9", first.mark.replace("-2", "--1")):
        assert log.since(mark, 0).anew
    with file.open("a") as stream:
        stream.write("no JSON\n")
    log.since("", 0)
    assert "line 2 is no JSON" in log.damage


@pytest.mark.parametrize("forks", [True, False])
def test_a_training_that_is_refused_says_why_and_one_that_waits_can_be_cancelled(tmp_path, monkeypatch, forks):
    monkeypatch.setattr("fanfold.lab.workers.WARM", ("json",))

    async def story():
        jobs = Jobs(tmp_path, at_once=1, workers=Workers(forks=forks))
        refused, waiting = jobs.begin("a", ["nonsense"]), jobs.begin("b", ["nonsense"])
        with pytest.raises(ValueError, match="a is waiting already"):
            jobs.begin("a", [])
        await jobs.cancel("b")
        assert refused.task
        await refused.task
        with pytest.raises(ValueError, match="nothing to cancel"):
            await jobs.cancel("a")
        with pytest.raises(ValueError, match="no command 'else'"):
            await jobs.help("fanfold", ["else"])
        await jobs.close()
        with pytest.raises(ValueError, match="the lab is ending"):
            jobs.begin("c", [])
        return jobs, refused, waiting

    jobs, refused, waiting = asyncio.run(story())
    assert (refused.condition, waiting.condition, waiting.attempt) == ("failed", "cancelled", 0)
    assert refused.message.startswith("no command 'nonsense'; there are demo, train")
    assert not jobs.workers.working


def test_a_run_that_is_trained_on_in_whole_numbers_is_cancelled_and_resumed_with_them(tmp_path):
    jobs = Jobs(tmp_path)
    job = jobs.jobs["a"] = Job("a", ["train", "few", "lista-cp", "--quantise", "w8a8", "--run-dir", "a"])
    assert (job.further, job.integers) == (["--quantise", "w8a8"], "a-w8a8")
    job.condition = "training"
    assert jobs.condition("a-w8a8") == "training"
    assert jobs.condition("a-w8a12") == "stopped"
    with pytest.raises(ValueError, match="a-w8a8 is training already"):
        jobs.begin("a-w8a8", ["resume", "a-w8a8"])
    job.condition = "cancelled"
    assert jobs.stopped() == {"a": ["--quantise", "w8a8"]}
    (tmp_path / "a").mkdir()
    (tmp_path / "a/weights.safetensors").touch()
    assert (jobs.condition("a"), jobs.condition("a-w8a8")) == ("finished", "stopped")
    assert jobs.stopped() == {"a-w8a8": []}


WAITS = """
import pathlib, time
try:
    pathlib.Path("begun").touch()
    time.sleep(600)
except KeyboardInterrupt:
    pathlib.Path("kept").touch()
"""
KILLED = """
import asyncio, os, pathlib, signal
from fanfold.lab import workers

async def story():
    workers.WARM = ("json",)
    lab = workers.Workers(forks=FORKS)
    working = asyncio.create_task(lab.done(lab.hire(), "waits", []))
    while not pathlib.Path("begun").exists():
        await asyncio.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(story())
"""


def test_a_nursery_that_cannot_import_is_said_and_another_one_is_tried(tmp_path, monkeypatch):
    async def story():
        jobs = Jobs(tmp_path, workers=Workers(forks=True))
        for warm, condition in (("no_such_module",), "failed"), (("json",), "finished"):
            monkeypatch.setattr("fanfold.lab.workers.WARM", warm)
            job = jobs.begin("a", ["--version"])
            assert job.task
            await job.task
            assert job.condition == condition
            assert ("fanfold doctor" in job.message) == (condition == "failed")
        await jobs.close()

    asyncio.run(story())


@pytest.mark.parametrize("shown", ["snr_db = inf", "when = 2026-01-01"])
def test_a_config_that_json_cannot_say_is_listed_all_the_same(tmp_path, shown):
    for name, config in (("a", f'[problem]\nname = "x"\n{shown}\n'), ("b", "problem = 3\n"), ("c", "[")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text(config)
        (tmp_path / name / "metrics.jsonl").write_text('{"nmse_db": NaN}\n3\n')
    (tmp_path / "d").symlink_to(tmp_path / "a")
    runs = {run["name"]: run for run in plain(Lab(tmp_path).listed())}
    assert runs.keys() == {"a", "b", "c"}
    assert runs["a"]["nmse_db"] is None
    assert json.loads(json.dumps(runs, allow_nan=False)) == runs
    assert all("cannot be read" in runs[name]["damage"] or "no section" in runs[name]["damage"] for name in "bc")


@pytest.mark.parametrize("forks", [True, False])
def test_a_process_ends_as_by_ctrl_c_where_the_lab_is_killed(tmp_path, forks):
    (tmp_path / "waits.py").write_text(WAITS)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    code = KILLED.replace("FORKS", str(forks))
    lab = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert lab.returncode == -signal.SIGKILL, lab.stderr
    wait_for((tmp_path / "kept").exists, "the process keeps what it has")


# A lab of its own process


def check_doors(lab: LabProcess) -> None:
    at = f"127.0.0.1:{lab.parts.port}"
    assert lab.ask("")[0] == 200
    assert lab.ask("", token=lab.parts.path.strip("/"))[0] == 200
    assert lab.ask("runs", token="wrong")[0] == 403
    for headers in ({"Host": "evil.example"}, {"Host": at, "Origin": "http://evil.example"}):
        for body in (None, asked()):
            assert lab.ask("runs", body, headers=headers)[0] == 403
    assert lab.json("runs")["runs"] == []
    for path, body in (
        ("runs/nowhere/events", None),
        ("runs/..%2f/cancel", {}),
        ("data/x.npz", None),
        ("static/x", None),
    ):
        assert lab.ask(path, body)[0] == 404
    assert "no JSON" in lab.json("runs", b"{", wanted=400)["error"]
    assert lab.ask("runs", b" " * 2**17)[0] == 413


def followed(lab: LabProcess, name: str, least: int, mark: str = "") -> tuple[Following, list[dict]]:
    """A stream, and its first events, so many at least."""
    stream, events = Following(lab, name, mark), list[dict]()
    for kind, data in stream:
        events = (events if not data.get("anew") else []) + data["lines"] if kind == "lines" else events
        if len(events) >= least:
            return stream, events
    raise AssertionError(f"the stream ended after {len(events)} events")


def check_pairs(lab: LabProcess, folder: Path) -> Path:
    """Pairs that are handed over are trained on and exported; where the archive is unpacked."""
    file = sparse_pairs(folder / "p.npz", complex)  # for which no peers of other libraries are tuned
    status, said = lab.ask("data?name=my+pairs.npz", file.read_bytes())
    assert status == 201, said.decode()
    taken = json.loads(said)["file"]
    body = asked(problem="pairs", data=taken, of_network={"layers": 3}, training={"steps": 40, "lr": 0.01, **QUICK})
    name = lab.json("runs", body, wanted=201)["name"]
    events = [*Following(lab, name)]
    assert events[-2][1]["condition"] == "finished", events[-2]
    lines = [line for kind, data in events if kind == "lines" for line in data["lines"]]
    levels = [line["nmse_db"] for line in lines if "nmse_db" in line]
    assert levels[-1] < levels[0]
    status, archive = lab.ask(f"runs/{name}/export.zip")
    assert status == 200, archive.decode()
    assert lab.ask(f"runs/{name}/config.toml") == (200, (folder / "runs" / name / "config.toml").read_bytes())
    exported = folder / "exported"
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        assert set(files.namelist()) == {taken, "config.toml", "train.py", "report.html"}
        files.extractall(exported)
    assert b"fanfold run pairs-ista-1" in (exported / "report.html").read_bytes()
    assert len((exported / "train.py").read_text().splitlines()) <= 15
    return exported


def check_flags(lab: LabProcess, runs: Path) -> None:
    """What has no field is judged by the command line before anything begins; a run is trained on in whole numbers."""
    small = {"of_problem": SMALL, "network": "lista-cp", "of_network": {"layers": 2}, "training": {"steps": 3, **QUICK}}
    before = {row["name"] for row in lab.json("runs")["runs"]}
    for more, why in (("laers = 3", "Did you mean '--layers'"), ("sparsity = 2", "between 0 and 1")):
        assert why in lab.json("runs", asked(**small, more=more), wanted=400)["error"]
    assert {row["name"] for row in lab.json("runs")["runs"]} == before
    name = lab.json("runs", asked(**small, more="sparsity = 0.2", quantise="w8a8"), wanted=201)["name"]
    wait_for(lambda: lab.run(name)["condition"] not in ("waiting", "training"), "the run and its integers are trained")
    assert (lab.run(name)["condition"], lab.run(name)["message"]) == ("finished", "")
    assert Run.open(runs / name).config["problem"]["sparsity"] == 0.2
    assert lab.run(f"{name}-w8a8")["condition"] == "finished"


def test_runs_are_followed_cancelled_exported_and_resumed_and_end_with_the_lab(tmp_path, monkeypatch, capsys):
    """Fifty clients follow one training; one that vanishes, one that comes back, pairs, and the end of all."""
    runs = tmp_path / "runs"
    with lab_of(runs) as lab:
        check_doors(lab)
        body = asked(
            of_problem=SMALL, of_network={"layers": 3}, training={"steps": 10**6, "validate_every": 50, **QUICK}
        )
        name = lab.json("runs", body, wanted=201)["name"]
        assert "already" in lab.json(f"runs/{name}/resume", {}, wanted=400)["error"]
        vanishing, _ = followed(lab, name, 10)
        returning, before = followed(lab, name, 60)
        mark = returning.mark
        vanishing.vanish()
        returning.vanish()
        heard: list[list[tuple[str, dict]]] = [[] for _ in range(50)]

        def follow(place: int) -> None:
            heard[place].extend(Following(lab, name))

        clients = [threading.Thread(target=follow, args=(place,)) for place in range(50)]
        for client in clients:
            client.start()
        again, missed = followed(lab, name, 100, mark)
        steps = [event["step"] for event in before + missed if event["event"] == "stepped"]
        assert steps == list(range(1, len(steps) + 1))  # it got all that it missed, once
        again.vanish()
        wait_for(lambda: all(heard), "fifty clients hear")
        assert len(lab.children()) == 1

        assert lab.json(f"runs/{name}/cancel", {})["condition"] == "cancelled"
        for client in clients:
            client.join()
        logged = Run.open(runs / name).metrics()
        for events in heard:
            assert events[-1] == ("end", {})
            assert events[-2][1]["condition"] == "cancelled"
            lines = [line for kind, data in events if kind == "lines" for line in data["lines"]]
            assert [line["step"] for line in lines] == [event["step"] for event in logged]
        assert lab.children() == []
        assert lab.run(name)["resumable"]
        assert "nothing to cancel" in lab.json(f"runs/{name}/cancel", {}, wanted=400)["error"]
        assert "no weights yet" in lab.json(f"runs/{name}/report", wanted=400)["error"]

        exported = check_pairs(lab, tmp_path)
        check_flags(lab, runs)

        lab.json(f"runs/{name}/resume", {}, wanted=202)
        resumed, events = followed(lab, name, len(logged) + 20, mark)
        steps = [event["step"] for event in events if event["event"] == "stepped"]
        assert steps == list(range(1, len(steps) + 1))  # anew, and without those after the checkpoint
        (child,) = lab.children()
        code, said = lab.end()
        assert code == 0
        assert said == f"stopped; go on with: fanfold resume {runs / name}\n"
        assert not alive(child)
        resumed.vanish()
    assert any(event["event"] == "validated" for event in Run.open(runs / name).metrics())
    assert (runs / name / "checkpoint.safetensors").is_file()
    monkeypatch.chdir(exported)
    runpy.run_path("train.py")
    assert "unfolded" in capsys.readouterr().out
    trained = [(folder / "weights.safetensors").read_bytes() for folder in (runs / "pairs-ista-1", exported / "again")]
    assert trained[0] == trained[1]
