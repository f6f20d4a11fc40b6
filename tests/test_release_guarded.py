"""A guarded release is verified from its numbers: a changed baseline, monitor or rule is refused, sealed or not."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import fanfold as ff
from bundles import refused, seal
from fanfold.cli import main as cli
from fanfold.deploy import lowered
from fanfold.deploy.export import write_onnx
from fanfold.deploy.release import GuardedLimits, LifeCycle, certify_release, read_profile, verify_bundle
from fanfold.deploy.release import bundle as layout
from fanfold.deploy.release.bundle import write_manifest
from fanfold.deploy.release.guard_kept import can_be_kept, keep_guard, read_guard
from fanfold.deploy.release.guard_rows import AT_HOME, FALSE_ALARMS, SHIFTED, declared_shifts
from fanfold.deploy.release.guard_vectors import GuardVectors, replayed_in_onnx, replayed_in_torch
from fanfold.runs.directory import Run
from fanfold.runs.weights import read_tensors, write_tensors

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's, on tracing
PROBLEM = ff.problems.CompressedSensing(n=20, m=12, snr_db=30.0)
PROFILE = """
samples = 50
targets = ["c"]
[life_cycle]
functionality = "sparse recovery"
model_id = "guarded-1"
[guard]
baseline = "LMMSE"
at_home = 1.1
shifted = 1.1
shifts = ["gain"]
calls = 200
[latency]
limit_us = 1e9
calls = 5
rounds = 1
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    words = ["compressed-sensing", "--n", "20", "--m", "12", "--snr-db", "30", "ista", "--layers", "2"]
    few = ["--steps", "30", "--batch", "16", "--lr", "1e-2", "--threads", "1"]
    assert cli.run(["train", *words, *few, "--run-dir", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def release(run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    (folder / "profile.toml").write_text(PROFILE)
    assert cli.run(["certify", str(run), "--profile", str(folder / "profile.toml"), "--out", str(folder / "one")]) == 0
    return folder / "one"


@pytest.fixture
def copy(release, tmp_path) -> Path:
    """A copy to be spoilt, without programs, which take seconds to be replayed."""
    shutil.copytree(release, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy/c")
    for file in (tmp_path / "copy/guarded").glob("guarded*"):
        file.unlink()
    write_manifest(tmp_path / "copy")
    return tmp_path / "copy"


def test_the_certificate_has_rows_for_the_guard_and_verify_replays_it(release, capsys):
    certificate, rows = json.loads((release / layout.CERTIFICATE).read_text()), {}
    assert "guard's baseline" in certificate["life_cycle"]["fallback"]
    assert LifeCycle("f", "m", fallback="ours").guarded().fallback == "ours"
    for row in certificate["results"]:
        rows.setdefault(row["what"], []).append(row)
    (home,), shifted, (alarms,) = rows[AT_HOME], rows[SHIFTED], rows[FALSE_ALARMS]
    assert home["low"] < home["value"] < home["high"] <= home["limit"] == 1.1
    assert [row["cell"]["shift"].partition(",")[0] for row in shifted] == ["gain"] * 3
    assert all(row["passed"] for row in (*shifted, alarms))
    assert alarms["limit"] == 0.01
    (guarded,), (baseline,) = rows["guarded, latency, p99, c"], rows["baseline, latency, p99, c"]
    assert min(baseline["value"], guarded["value"]) > 0
    assert {"size of guarded C", "size of the guard's numbers", "golden calls in C"} <= set(rows)
    capsys.readouterr()
    assert cli.run(["verify", str(release), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["verdict"] == "verified"
    checked = [check["what"] for check in said["checks"]]
    assert checked[-4:-1] == [
        "weights of golden calls in torch",
        "p-values of golden calls in torch",
        "golden calls in C",
    ]
    assert checked[-1] == "guarded C source"
    assert {check["verdict"] for check in said["checks"]} == {"PASS"}


def spoil(file: Path, change) -> None:
    tensors, facts = read_tensors(file, "")
    change(tensors, facts)
    write_tensors(file, tensors, facts)


def heavier(tensors, facts):
    tensors["covariance"] = 1.1 * tensors["covariance"]


def stranger(tensors, facts):
    tensors["learned/energy/centre"] = tensors["learned/energy/centre"] + 0.1


def slower(tensors, facts):
    facts["rule"]["rate"] /= 2


CHANGES = {
    "baseline": (layout.GUARD, heavier, "golden calls in torch"),
    "monitor": (layout.MONITOR, stranger, "p-values of golden calls in torch"),
    "rule": (layout.GUARD, slower, "weights of golden calls in torch"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_changed_of_a_guard_is_refused_however_it_is_sealed(copy, what):
    file, change, check = CHANGES[what]
    spoil(copy / file, change)
    assert "was changed: its SHA-256" in refused(copy)
    write_manifest(copy)
    assert f"{file} is another one than that which was certified" in refused(copy)
    seal(copy)
    said = {c.what: c.passed for c in verify_bundle(copy).checks}
    assert said["hashes"]
    assert said[check] is False


def test_a_guard_that_was_taken_out_is_missed(copy):
    shutil.rmtree(copy / "guarded")
    write_manifest(copy)
    assert f"{layout.GUARD} is not there any more" in refused(copy)


def test_a_program_without_its_guard_is_refused(copy):
    for file in (layout.GUARD, layout.MONITOR, layout.CALLS):
        (copy / file).unlink()
    (copy / layout.GUARDED_C).write_text("int guarded(void) { return 0; }")
    file = copy / layout.CERTIFICATE
    data = json.loads(file.read_text())
    data["hashes"] = {name: said for name, said in data["hashes"].items() if name not in layout.OF_GUARD}
    file.write_text(json.dumps(data))
    write_manifest(copy)
    assert f"{layout.GUARD} is not there" in refused(copy)
    (copy / layout.GUARDED_C).unlink()
    write_manifest(copy)
    assert f"{layout.GUARD} is not there" in refused(copy)  # the certificate still speaks of it


def fewer(tensors, facts):
    tensors |= {name: tensors[name][:1].clone() for name in ("y", "x_hat", "trust", "p_value")}


def unranked(tensors, facts):
    del tensors["p_value"]


def halves(tensors, facts):
    tensors["x_hat"] = tensors["x_hat"].half()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [(fewer, "other shapes or types"), (halves, "other shapes or types"), (unranked, "p-values and monitor")],
)
def test_golden_calls_that_show_less_are_refused(copy, change, sentence):
    spoil(copy / layout.CALLS, change)
    seal(copy)
    assert sentence in refused(copy)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t, f: f.update(scale=10**400), "scale is"),
        (lambda t, f: f.update(scale="large"), "scale is 'large', which is a number"),
        (lambda t, f: f["limits"].update(every=0), "damaged: limits are"),
        (lambda t, f: f["limits"].update(radius=float("inf")), "damaged: limits are"),
        (lambda t, f: f["limits"].update(further=float("inf")), "infinite"),
        (lambda t, f: f["levels"].update(hidden=float("inf")), "numbers that are none"),
        (lambda t, f: f["rule"].update(rate=-1), "rate is -1"),
        (lambda t, f: f["levels"].update(noise=[]), "curves of"),
        (
            lambda t, f: f.update(baseline={"algorithm": {"name": "nonsense"}, "iterations": 3}),
            "unknown name 'nonsense'",
        ),
        (lambda t, f: f.update(baseline={"algorithm": {"name": "ista"}, "iterations": 2**40}), "more than any network"),
        (lambda t, f: f.update(baseline={"algorithm": {"name": "ista"}, "iterations": 1e9}), "more than any network"),
        (lambda t, f: f.update(baseline={"algorithm": {"name": "ista"}, "iterations": 60000}), "more than any guard"),
        (lambda t, f: f.update(baseline={}), "holds no baseline"),
        (lambda t, f: f.update(schema=9), "schema 9"),
    ],
)
def test_a_damaged_guard_is_a_sentence(copy, change, sentence):
    spoil(copy / layout.GUARD, change)
    seal(copy)
    assert sentence in refused(copy)


def made(safe, **settings):
    net = ff.iterate(ff.algorithms.ISTA(lam=0.05), 2)
    return net, ff.guard.guarded(net, safe, PROBLEM, reach=0.99, samples=200, **settings)


@pytest.mark.parametrize(
    "safe", [ff.iterate(ff.algorithms.FISTA(lam=0.1), 3), ff.LMMSE.of(PROBLEM)], ids=["iteration", "linear"]
)
def test_a_guard_is_built_again_from_its_numbers(tmp_path, safe):
    net, guard = made(safe, hysteresis=ff.guard.Hysteresis(stay=3))
    keep_guard(guard, tmp_path / "guard.safetensors", tmp_path / "monitor.safetensors")
    again = read_guard(tmp_path / "guard.safetensors", tmp_path / "monitor.safetensors", net, PROBLEM.A)
    _, obs = PROBLEM.sample(40, torch.Generator().manual_seed(2))
    obs = replace(obs, y=obs.y * torch.linspace(0.2, 9, 40)[:, None])
    assert torch.equal(again(obs).x, guard(obs).x)
    assert (again.trust, again.limits, again.levels, again.at_home) == (
        guard.trust,
        guard.limits,
        guard.levels,
        guard.at_home,
    )


def test_golden_calls_in_onnx_runtime_are_those_of_torch(tmp_path):
    pytest.importorskip("onnxruntime")
    _, guard = made(ff.iterate(ff.algorithms.FISTA(lam=0.1), 1), judge=ff.guard.NoiseSplit(noise="claimed"))
    golden = GuardVectors.of(PROBLEM, guard)
    assert golden.trust[:, 0].min() < 0.6 < 0.99 < golden.trust[:, 0].max()  # they move the weights
    guard.reset()
    low = lowered(guard, golden.observation(PROBLEM.A))
    content = write_onnx(low, tmp_path / "guarded.onnx").read_bytes()
    assert all(row.passed for row in replayed_in_onnx(golden, guard, low, content, PROBLEM.A))
    guard.baseline = ff.iterate(ff.algorithms.FISTA(lam=0.2), 1)
    assert not replayed_in_torch(golden, guard, PROBLEM.A)[0].passed


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_what_cannot_be_released_with_a_guard_is_said(run, tmp_path, capsys):
    profile = tmp_path / "profile.toml"
    profile.write_text(PROFILE.replace('targets = ["c"]', "targets = []"))
    with pytest.raises(ValueError, match=r"section \[guard\] and there is no guard"):
        certify_release(Run.open(run), profile, tmp_path / "one")
    other = lambda obs: ff.Estimate(obs.A.H @ obs.y)  # noqa: E731
    assert not can_be_kept(other)
    with pytest.raises(ValueError, match="a release cannot keep the baseline function"):
        keep_guard(made(other)[1], tmp_path / "guard", tmp_path / "monitor")
    with pytest.raises(ValueError, match=r"declares shifts of 'gian'; the problem has .*Did you mean 'gain'"):
        declared_shifts(PROBLEM, GuardedLimits(shifts=("gian",)))
    with pytest.raises(ValueError, match="timed as"):
        read_profile(_written(tmp_path / "untimed.toml", PROFILE.partition("[latency]")[0] + "limit_us = 100\n"))
    plain = tmp_path / "plain.toml"
    plain.write_text(PROFILE.partition("[guard]")[0])
    words = ["certify", str(run), "--profile", str(plain), "--out", str(tmp_path / "one"), "--baseline", "LMMSE"]
    assert cli.run(words) == 2
    assert "add --guarded" in capsys.readouterr().err
    assert cli.run([*words[:-1], "LMSE", "--guarded"]) == 2
    assert "Did you mean 'LMMSE'" in capsys.readouterr().err
    assert not (tmp_path / "one").exists()
