"""A release is what its certificate says: what was changed, swapped, cut, slowed or made hostile is refused by name."""

import html
import importlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

import fanfold as ff
from bundles import refused, seal
from fanfold.cli import main as cli
from fanfold.core.files import file_hash
from fanfold.deploy.integer import Draft, RangeRow
from fanfold.deploy.release import (
    CellErrors,
    IntegerBuild,
    IntegerLimits,
    ReleaseCertificate,
    ReleaseResult,
    ReleaseVectors,
    certify_release,
    read_profile,
    verify,
    verify_bundle,
)
from fanfold.deploy.release import bundle as layout
from fanfold.deploy.release.against import WORSE, difference, read_cells, write_cells
from fanfold.deploy.release.bundle import write_manifest
from fanfold.deploy.release.documents import ALIGNED, TERMS
from fanfold.deploy.release.golden import check_model
from fanfold.deploy.release.hashes import code_hash
from fanfold.deploy.release.measures import integer_results
from fanfold.report.release_page import write_release_page
from fanfold.runs.directory import Run
from fanfold.runs.operators import read_operator, write_operator
from fanfold.runs.weights import read_tensors, write_tensors

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's, on tracing

HEAD = """
samples = 100
targets = {targets}
[life_cycle]
functionality = "sparse recovery"
model_id = "sparse-1"
[domain]
snr_db = [20, 40]
"""
LIMITS = """
[limits]
nmse_db = -1.0
gap_db = 60
[[exceptions]]
at = { snr_db = 20 }
nmse_db = -0.5
[coverage]
promised = 0.9
at_least = 0.8
draws = 200
[sizes]
weights = 10_000
"""
WHOLE = HEAD.format(targets='["onnx", "c"]') + LIMITS
BARE = HEAD.format(targets="[]")
TIMED = BARE + '[latency]\nbackend = "eager"\nquantile = "median"\nlimit_us = 1e9\ncalls = 10\nrounds = 2\nslower = 2\n'


def train(path: Path, seed: int = 0) -> Path:
    words = ["compressed-sensing", "--n", "20", "--m", "12", "--seed", str(seed), "ista", "--layers", "2"]
    few = ["--steps", "30", "--batch", "16", "--lr", "1e-2", "--threads", "1"]
    assert cli.run(["train", *words, *few, "--run-dir", str(path)]) == 0
    return path


def written(folder: Path, text: str) -> Path:
    path = folder / "profile.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def release(run, tmp_path_factory) -> Path:
    """A whole release that passes."""
    folder = tmp_path_factory.mktemp("release")
    profile = written(folder, WHOLE)
    assert cli.run(["certify", str(run), "--profile", str(profile), "--out", str(folder / "one")]) == 0
    return folder / "one"


@pytest.fixture
def copy(release, tmp_path) -> Path:
    """A copy to be spoilt, without the programs, which take seconds to be replayed."""
    shutil.copytree(release, tmp_path / "copy")
    for name in ("onnx", "c"):
        shutil.rmtree(tmp_path / "copy" / name)
    write_manifest(tmp_path / "copy")
    return tmp_path / "copy"


def nudge(file: Path, by: float) -> None:
    """Change all tensors of a file, which stays a good one."""
    tensors, facts = read_tensors(file, "")
    write_tensors(file, {name: t + by for name, t in tensors.items()}, facts)


# What a release is


def test_a_release_has_all_its_parts_and_is_verified(release, capsys):
    data = json.loads((release / layout.CERTIFICATE).read_text())
    assert data["passed"] is True
    assert {row["what"] for row in data["results"]} >= {
        "NMSE", "gap to the limit", "coverage", "golden vectors in torch", "golden vectors in ONNX Runtime",
        "golden vectors in C", "size of weights",
    }  # fmt: skip
    for row in data["results"]:
        if row["what"] == "NMSE":
            assert row["low"] < row["value"] < row["high"] <= row["limit"]
            assert row["limit"] == (-0.5 if row["cell"] == {"snr_db": 20} else -1.0)
    assert data["hashes"]["code"] == code_hash()
    assert data["hashes"]["operator"] == json.loads((release / layout.ENVIRONMENT).read_text())["operator"]
    for page in (layout.CARD, layout.PAGE):
        text = (release / page).read_text()
        assert all(words in html.unescape(text) for words in (*TERMS.values(), ALIGNED))
        assert "compliant" not in text
    capsys.readouterr()
    assert cli.run(["verify", str(release), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["verdict"] == "verified"
    assert {check["verdict"] for check in said["checks"]} == {"PASS"}
    assert [check["what"] for check in said["checks"]][-2:] == ["golden vectors in C", "C source"]


def test_a_release_holds_no_path_of_the_machine_that_made_it(release, run):
    for file in (path for path in release.rglob("*") if path.is_file()):
        assert str(run.parent).encode() not in file.read_bytes(), file
        assert os.getcwd().encode() not in file.read_bytes(), file


def test_the_bill_of_materials_follows_its_schema(release):
    validation = pytest.importorskip("cyclonedx.validation.json")
    from cyclonedx.schema import SchemaVersion

    text = (release / layout.BILL).read_text()
    validator = validation.JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"supervised"', '"guessed"')) is not None


def test_the_bill_of_materials_lists_every_file_and_the_model(release):
    bill = json.loads((release / layout.BILL).read_text())
    files = {c["name"]: c["hashes"][0]["content"] for c in bill["components"] if c["type"] == "file"}
    made_after = {layout.BILL, layout.MANIFEST}
    listed = {path.relative_to(release).as_posix() for path in release.rglob("*") if path.is_file()} - made_after
    assert files == {name: file_hash(release / name) for name in listed}
    metrics = bill["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {"type", "value", "slice", "confidenceInterval"} <= set(metrics[0])


def test_a_missed_limit_is_exit_code_1_and_the_release_says_so(run, tmp_path, capsys):
    profile = written(tmp_path, BARE + "[limits]\nnmse_db = -60\n[sizes]\nonnx = 10\n")
    words = ["certify", str(run), "--profile", str(profile), "--out", str(tmp_path / "one")]
    assert cli.run(words) == 1
    assert "misses 3 of its 4 limits, the first of them NMSE at snr_db 20" in capsys.readouterr().err
    assert cli.run(["verify", str(tmp_path / "one")]) == 1
    assert "refused: FAIL" in capsys.readouterr().err
    assert cli.run(words) == 2  # it is there
    assert cli.run([*words, "--overwrite"]) == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").write_text("mine")
    assert cli.run([*words[:-1], str(tmp_path / "other"), "--overwrite"]) == 2
    assert (tmp_path / "other/mine.txt").read_text() == "mine"
    assert not list(tmp_path.glob(".unfinished-*"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BARE + "[limit]\nnmse_db = 1", "has an entry 'limit'; .*Did you mean 'limits'"),
        (BARE + "[limits]\nnmse = 1", r"\[limits\]: limits has no setting 'nmse'; .*Did you mean 'nmse_db'"),
        (BARE + "[limits]\nnmse_db = 'low'", r"\[limits\]: ErrorLimits: nmse_db is 'low'; pass a number"),
        (BARE + "[latency]\nlimit_us = 1\nbackend = 'onx'", "no backend 'onx'; .*Did you mean 'onnx'"),
        (BARE + "[latency]\ncalls = 1", "latency lacks limit_us"),
        (BARE + "[latency]\nlimit_us = 0", "a time above 0"),
        (BARE + "[coverage]\npromised = 0.5", "at_least <= promised"),
        (BARE + "[[exceptions]]\nat = {snr = 20}", "at 'snr', and the domain has snr_db.*Did you mean"),
        (BARE + "[[exceptions]]\nat = {snr_db = 30}", "which no cell of the domain has"),
        (BARE.replace("[20, 40]", "20"), "list the values"),
        (BARE.replace("[20, 40]", "[]"), "name a setting of the problem, and values"),
        (BARE.replace('"sparse-1"', "1"), "model_id is 1; pass text"),
        (BARE.replace("samples = 100", "samples = 1"), "at least 2"),
        (BARE.replace("samples = 100", 'targets = ["d"]\nsamples = 100').replace("targets = []", ""), "targets is"),
        ("samples = 3", "the profile lacks life_cycle"),
        ("samples = [", "cannot be read as TOML"),
    ],
)
def test_a_wrong_profile_is_a_sentence(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_profile(written(tmp_path, text))


def test_what_the_problem_cannot_vary_is_exit_code_2(run, tmp_path, capsys):
    profile = written(tmp_path, BARE.replace("snr_db =", "snr ="))
    assert cli.run(["certify", str(run), "--profile", str(profile), "--out", str(tmp_path / "one")]) == 2
    assert "no 'snr' to change" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"profile.toml"}
    assert cli.run(["verify", str(tmp_path / "one")]) == 2
    assert cli.run(["verify", str(profile)]) == 2
    assert "archives are not unpacked" in capsys.readouterr().err


# What verify refuses


def test_changed_weights_are_refused_however_well_they_are_sealed(copy):
    nudge(copy / layout.WEIGHTS, 0.01)
    assert "weights.safetensors was changed: its SHA-256" in refused(copy)
    write_manifest(copy)
    assert "weights.safetensors is another one than that which was certified" in refused(copy)
    seal(copy)
    assert "they differ by" in refused(copy)


def test_another_operator_is_refused(copy, tmp_path):
    other = train(tmp_path / "other", seed=1)
    shutil.copy(other / "operator.safetensors", copy / layout.OPERATOR)
    seal(copy)
    assert "was trained for the operator with hash" in refused(copy)
    shutil.copytree(other, copy / "run", dirs_exist_ok=True, ignore=lambda _, names: {*names} - {
        "operator.safetensors", "weights.safetensors", "config.toml", "environment.json",
    })  # fmt: skip
    seal(copy)
    assert "another operator: the certificate is for" in refused(copy)
    seal(copy, operator=json.loads((copy / layout.ENVIRONMENT).read_text())["operator"])
    assert "they differ by" in refused(copy)


def test_swapped_golden_vectors_are_refused(copy):
    golden = ReleaseVectors.read(copy / layout.GOLDEN)
    golden._replace(x_hat=golden.x_hat.flip(0)).write(copy / layout.GOLDEN)
    assert "golden.safetensors was changed" in refused(copy)
    seal(copy)
    assert "they differ by" in refused(copy)
    golden._replace(x_hat=golden.x_hat[:, :-1]).write(copy / layout.GOLDEN)
    seal(copy)
    assert "it says" in refused(copy)


def test_a_verdict_that_was_written_over_is_refused(copy):
    file = copy / layout.CERTIFICATE
    data = json.loads(file.read_text())
    data["results"][0]["value"] = data["results"][0]["high"] = 3.0
    file.write_text(json.dumps(data))
    write_manifest(copy)
    assert "do not follow from its values" in refused(copy)
    file.write_text(json.dumps(data | {"results": [3]}))
    write_manifest(copy)
    assert "no list of results" in refused(copy)


def cut(bundle: Path) -> None:
    os.truncate(bundle / layout.GOLDEN, 100)


def lose(bundle: Path) -> None:
    (bundle / layout.WEIGHTS).unlink()


def lose_the_manifest(bundle: Path) -> None:
    (bundle / layout.MANIFEST).unlink()


def rewrite(bundle: Path, **entries: object) -> None:
    data = json.loads((bundle / layout.MANIFEST).read_text())
    data["files"] |= entries
    (bundle / layout.MANIFEST).write_text(json.dumps(data))


def climb(bundle: Path) -> None:
    (bundle.parent / "outside.json").write_text("{}")
    rewrite(bundle, **{"../outside.json": {"sha256": file_hash(bundle.parent / "outside.json"), "bytes": 2}})


def go_to_the_root(bundle: Path) -> None:
    rewrite(bundle, **{"/etc/hostname": {"sha256": "0" * 64, "bytes": 1}})


def link_a_file(bundle: Path) -> None:
    (bundle / layout.GOLDEN).rename(bundle.parent / "golden.safetensors")
    (bundle / layout.GOLDEN).symlink_to(bundle.parent / "golden.safetensors")


def link_a_folder(bundle: Path) -> None:
    (bundle / "run").rename(bundle.parent / "run")
    (bundle / "run").symlink_to(bundle.parent / "run")


def add_a_pickle(bundle: Path) -> None:
    (bundle / "run/weights.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")


def lie_about_a_header(bundle: Path) -> None:
    file = bundle / layout.WEIGHTS
    file.write_bytes((2**40).to_bytes(8, "little") + file.read_bytes()[8:])
    seal(bundle)


def ask_for_memory(bundle: Path) -> None:
    """A header of tensors far larger than the file."""
    header = b'{"w":{"dtype":"F32","shape":[1000000000,1000],"data_offsets":[0,4000000000000]}}'
    (bundle / layout.WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)
    seal(bundle)


def swell(bundle: Path) -> None:
    """A file of three gigabytes, none of which are on the disk."""
    os.truncate(bundle / layout.GOLDEN, 3 * 2**30)


def nest(bundle: Path) -> None:
    (bundle / layout.CERTIFICATE).write_text('{"a":' * 50_000 + "1" + "}" * 50_000)
    write_manifest(bundle)


def deepen(bundle: Path) -> None:
    (bundle / "a/b/c/d/e/f").mkdir(parents=True)


def pipe(bundle: Path) -> None:
    os.mkfifo(bundle / "pipe")


def ask_for_a_huge_network(bundle: Path) -> None:
    file = bundle / layout.CONFIG
    file.write_text(file.read_text().replace("layers = 2", "layers = 2000000000"))
    seal(bundle)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (cut, "golden.safetensors is cut short: it has 100 bytes"),
        (lose, "lacks run/weights.safetensors"),
        (lose_the_manifest, "has no manifest.json"),
        (climb, "names '../outside.json', which is no file within the release"),
        (go_to_the_root, "names '/etc/hostname', which is no file within"),
        (link_a_file, "golden.safetensors is a link"),
        (link_a_folder, "run is a link"),
        (add_a_pickle, "holds run/weights.pkl, which its manifest does not list"),
        (lie_about_a_header, "says that its header has 1099511627776 bytes"),
        (ask_for_memory, "weights.safetensors is damaged"),
        (swell, "more than 100 files or 2147483648 bytes"),
        (nest, "certificate.json is no JSON|lie in each other"),
        (deepen, "deeper than any release"),
        (pipe, "pipe is no plain file"),
        (ask_for_a_huge_network, r"layers is 2000000000, more than any network has"),
    ],
)
def test_a_truncated_or_hostile_bundle_is_refused(copy, spoil: Callable[[Path], None], sentence):
    spoil(copy)
    assert re.search(sentence, refused(copy))


def test_an_onnx_file_that_reads_others_or_never_ends_is_refused(release, copy):
    onnx = pytest.importorskip("onnx")
    content = (release / layout.ONNX).read_bytes()
    check_model(content)
    model = onnx.load_model_from_string(content)
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    (copy / "onnx").mkdir()
    (copy / layout.ONNX).write_bytes(model.SerializeToString())
    write_manifest(copy)
    assert "in another file" in refused(copy)
    model = onnx.load_model_from_string(content)
    model.graph.node[0].op_type = "Loop"
    with pytest.raises(ValueError, match="an operation Loop"):
        check_model(model.SerializeToString())
    with pytest.raises(ValueError, match="cannot be read"):
        check_model(content[:-7])


def test_an_onnx_file_of_another_network_is_refused(release, copy):
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model_from_string((release / layout.ONNX).read_bytes())
    largest = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    largest.raw_data = (torch.frombuffer(bytearray(largest.raw_data), dtype=torch.float32) * 1.01).numpy().tobytes()
    (copy / "onnx").mkdir()
    (copy / layout.ONNX).write_bytes(model.SerializeToString())
    write_manifest(copy)
    assert "they differ by" in refused(copy)


def test_c_of_a_bundle_is_compiled_only_where_that_is_allowed(release, copy, monkeypatch):
    shutil.copytree(release / "c", copy / "c")
    source = copy / layout.C_SOURCE
    source.write_text(source.read_text() + "/* written elsewhere */\n")
    write_manifest(copy)
    careful = verify_bundle(copy)
    assert careful.passed
    assert careful.verdict == "verified; not checked here: C source"
    assert verify_bundle(copy, allow_program=True).verdict == "verified"
    source.write_text(source.read_text().replace("return wrong;", "return wrong + 1;"))
    write_manifest(copy)
    assert "its own self-test fails" in verify_bundle(copy, allow_program=True).verdict
    monkeypatch.setattr(verify, "LONGEST_S", 0.1)
    source.write_text(source.read_text().replace("return wrong + 1;", "for (;;) {}"))
    write_manifest(copy)
    assert "did not end within 0.1 s" in verify_bundle(copy, allow_program=True).verdict


def test_a_complex_operator_that_was_read_is_exported(tmp_path):
    problem = ff.problems.CompressedSensing(n=8, m=6, dtype="complex64")
    _, obs = problem.sample(2, torch.Generator().manual_seed(0))
    write_operator(tmp_path, problem.A)
    kept = ff.Observation(obs.y, read_operator(tmp_path), obs.noise_var)
    ista = ff.iterate(ff.algorithms.ISTA(), 1)
    assert torch.allclose(ff.deploy.lowered(ista, kept)(kept).x, ista(obs).x, atol=1e-5)


# Against the last release


@pytest.fixture(scope="module")
def last(run, tmp_path_factory) -> Path:
    """A small release, to be followed by others."""
    folder = tmp_path_factory.mktemp("last")
    return certify_release(Run(run), written(folder, TIMED), folder / "one").folder


def failures(certificate: ReleaseCertificate) -> list[str]:
    return [f"{r.what} {r.where}".strip() for r in certificate.results if r.passed is False]


def test_a_cell_without_noise_is_known_again(run, tmp_path):
    profile = written(tmp_path, BARE.replace("[20, 40]", "[inf]"))
    first = certify_release(Run(run), profile, tmp_path / "one").folder
    second = certify_release(Run(run), profile, tmp_path / "two", against=first).certificate
    assert second.passed
    assert second.moved == ()


def test_the_same_run_gets_no_worse_and_nothing_moves(run, last, tmp_path):
    same = certify_release(Run(run), written(tmp_path, BARE), tmp_path / "two", against=last).certificate
    assert same.passed
    rows = [r for r in same.results if r.what == "NMSE against the last release"]
    assert [(r.value, r.low, r.high) for r in rows] == [(0.0, 0.0, 0.0)] * 2
    assert same.moved == ()


def test_a_cell_that_got_worse_fails_and_what_moved_is_said(run, last, tmp_path):
    """By a twentieth of a dB or so, far within the intervals of each by itself."""
    worse = tmp_path / "worse"
    shutil.copytree(run, worse)
    nudge(worse / "weights.safetensors", -0.05)
    profile = written(tmp_path, BARE.replace("[20, 40]", "[20]"))
    words = ["certify", str(worse), "--profile", str(profile), "--against", str(last), "--out", str(tmp_path / "two")]
    assert cli.run(words) == 1
    certificate = ReleaseCertificate.from_dict(json.loads((tmp_path / "two" / layout.CERTIFICATE).read_text()))
    assert failures(certificate) == [
        "NMSE against the last release snr_db 20", "NMSE against the last release snr_db 40",
    ]  # fmt: skip
    worse_now, lost = (r for r in certificate.results if r.passed is False)
    alone = next(r for r in certificate.results if r.what == "NMSE")
    assert 0 < worse_now.low < worse_now.value < alone.high - alone.low
    assert lost.note == "the cell is declared no more"
    assert any(sentence.startswith("weights: the hash was") for sentence in certificate.moved)
    assert any(sentence.startswith("domain: was") for sentence in certificate.moved)


def test_a_slower_build_fails_on_the_same_host_alone(run, last, tmp_path):
    fast = tmp_path / "fast"
    shutil.copytree(last, fast)
    file = fast / layout.CERTIFICATE
    data = json.loads(file.read_text())
    row = next(row for row in data["results"] if row["what"].startswith("latency"))
    row |= {name: row[name] / 100 for name in ("value", "low", "high")}
    file.write_text(json.dumps(data))
    write_manifest(fast)
    profile = written(tmp_path, TIMED)
    slower = certify_release(Run(run), profile, tmp_path / "two", against=fast).certificate
    assert failures(slower) == ["latency against the last release"]
    file.write_text(json.dumps(data | {"host": data["host"] | {"processor": "abacus"}}))
    write_manifest(fast)
    elsewhere = certify_release(Run(run), profile, tmp_path / "two", against=fast).certificate
    assert elsewhere.passed
    assert elsewhere.results[-1].note == "the last release was timed on another host"


def test_pairs_see_what_two_samples_do_not(tmp_path):
    generator = torch.Generator().manual_seed(0)
    signal = torch.rand(200, generator=generator, dtype=torch.float64) + 1
    error = torch.rand(200, generator=generator, dtype=torch.float64).exp() * signal
    old, worse = CellErrors({"snr_db": 20}, error, signal), CellErrors({"snr_db": 20}, 1.01 * error, signal)
    assert difference(old, worse).passed is False
    assert difference(worse, old).passed is True
    other_draws = CellErrors({"snr_db": 20}, 1.01 * error, signal.roll(1))
    assert difference(old, other_draws).passed is True
    assert difference(old, CellErrors({}, error * torch.inf, signal)).passed is False
    write_cells(tmp_path / "cells.safetensors", [old])
    (back,) = read_cells(tmp_path / "cells.safetensors")
    assert torch.equal(back.error, old.error)


def test_a_damaged_last_release_is_no_ground_to_compare_on(run, last, tmp_path):
    spoilt = tmp_path / "spoilt"
    shutil.copytree(last, spoilt)
    cut(spoilt)
    with pytest.raises(ValueError, match="cut short"):
        certify_release(Run(run), written(tmp_path, BARE), tmp_path / "two", against=spoilt)


# Results


def test_the_worse_end_of_an_interval_has_to_meet_the_limit():
    result = ReleaseResult("NMSE", {}, "dB", -10.0, -11.0, -9.0, -9.5)
    assert result.passed is False
    assert result._replace(limit=-9.0).passed is True
    assert result._replace(sense="at least", limit=-10.5).passed is False
    assert result._replace(sense="not clearly above", limit=-10.5).passed is True
    assert result._replace(value=None, low=None, high=None).passed is False
    assert result._replace(limit=None).passed is None


def test_an_integer_program_is_held_against_loss_and_proof(run, tmp_path):
    def write(folder: Path) -> list[Path]:
        (folder / "program.bin").write_bytes(save({"w": torch.zeros(1)}))
        return [folder / "program.bin"]

    net = Run(run).estimator()

    def coarse(obs: ff.Observation) -> ff.Estimate:
        return ff.Estimate((net(obs).x * 2).round() / 2)

    fits = RangeRow("product 1", "matmul", "int32", 0, 1, bound=2**20, limit=2**24, carrier="float32")
    bounds = [fits, fits._replace(operation="product 2", bound=2**25)]
    profile = written(tmp_path, BARE + "[integers]\nloss_db = 0.001\n")
    build = IntegerBuild(coarse, bounds, write)
    release = certify_release(Run(run), profile, tmp_path / "one", integer=build)
    assert failures(release.certificate) == [
        "loss by quantisation snr_db 20", "loss by quantisation snr_db 40", "range of product 2",
    ]  # fmt: skip
    assert (release.folder / "integer/program.bin").is_file()
    draft = Draft("half")
    y = draft.input("y", (2,), "int16", fraction=8)
    draft.output(draft.rescale(y, 1, name="x_hat"), (2,), fraction=8)
    files = IntegerBuild.of(draft.finish()).write(tmp_path)
    assert [file.name for file in files][:3] == ["half.safetensors", "half.h", "half.c"]
    (missing,) = integer_results(None, IntegerLimits(), (), ())
    assert missing.passed is False


def test_the_hash_of_the_code_knows_names_and_contents(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    first = code_hash(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    second = code_hash(tmp_path)
    (tmp_path / "b.py").write_text("x = 2\n")
    assert len({first, second, code_hash(tmp_path)}) == 3


def test_the_two_certificates_are_two_words():
    """That of a release and that of convergence share no name and no module."""
    names = {*importlib.import_module("fanfold.deploy.release").__all__}
    assert not names & {*ff.bounds.__all__}


def test_a_page_says_whether_it_was_held_against_an_earlier_release(tmp_path):
    facts, words = {"certified": "today", "domain": {"snr_db": [20, 30]}}, dict.fromkeys(TERMS, "x")
    alone = ReleaseCertificate(words, facts, {}, {}, (ReleaseResult("size of C", {}, "bytes", 53284, limit=1_000_000),))
    page = write_release_page(alone, tmp_path / "page.html").read_text()
    assert "not held against an earlier one" in page
    assert "53284" in page
    assert "at most 1000000" in page
    assert "snr_db 20 30" in page
    same = alone._replace(results=(ReleaseResult(WORSE, {}, "dB", 0.0, 0.0, 0.0, 0.0, "not clearly above"),))
    assert "<p>Nothing.</p>" in write_release_page(same, tmp_path / "page.html").read_text()
