"""A signature says who made a release: of one that was changed by anybody else, nothing is believed."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from fanfold.cli import main as cli
from fanfold.deploy.release import bundle as layout
from fanfold.deploy.release import certify_release, verify_bundle
from fanfold.deploy.release.bundle import write_manifest
from fanfold.runs.directory import Run

PROFILE = """
samples = 50
targets = []
[life_cycle]
functionality = "sparse recovery"
model_id = "sparse-1"
[domain]
snr_db = [20]
[limits]
nmse_db = 10
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    words = ["train", "compressed-sensing", "--n", "20", "--m", "12", "ista", "--layers", "2", "--steps", "30"]
    assert cli.run([*words, "--batch", "16", "--threads", "1", "--run-dir", str(path)]) == 0
    (path.parent / "profile.toml").write_text(PROFILE)
    return path


def certified(run: Path, folder: Path, key: Path | None) -> Path:
    return certify_release(Run(run), run.parent / "profile.toml", folder, sign=key).folder


def test_without_the_library_it_is_named(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    (tmp_path / "key.pem").write_text("")
    words = ["certify", str(run), "--profile", str(run.parent / "profile.toml"), "--out", str(tmp_path / "one")]
    assert cli.run([*words, "--sign", str(tmp_path / "key.pem")]) == 2
    assert "signatures need model-signing: pip install 'fanfold[sign]'" in capsys.readouterr().err
    assert not (tmp_path / "one").exists()
    assert cli.run(["verify", str(run), "--key", str(tmp_path / "key.pem")]) == 2
    assert "pip install 'fanfold[sign]'" in capsys.readouterr().err


def pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Files of a private key and its public one."""
    pytest.importorskip("model_signing", reason="signatures need model-signing: pip install 'fanfold[sign]'")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    public = key.public_key().public_bytes(serialization.Encoding.PEM, info)
    files = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    for file, content in zip(files, (private, public)):
        file.write_bytes(content)
    return files


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> tuple[Path, Path]:
    return pair(tmp_path_factory.mktemp("keys"), "maker")


@pytest.fixture(scope="module")
def release(run, keys, tmp_path_factory) -> Path:
    return certified(run, tmp_path_factory.mktemp("release") / "one", keys[0])


@pytest.fixture
def signed(release, tmp_path) -> Path:
    """A copy to be spoilt."""
    shutil.copytree(release, tmp_path / "signed")
    return tmp_path / "signed"


def refused(bundle: Path, key: Path) -> str:
    verification = verify_bundle(bundle, key=key)
    assert not verification.passed
    return verification.verdict


def test_the_command_signs_and_checks(run, keys, tmp_path, capsys):
    private, public = keys
    words = ["certify", str(run), "--profile", str(run.parent / "profile.toml"), "--out", str(tmp_path / "one")]
    assert cli.run([*words, "--sign", str(private)]) == 0
    assert "signed with" in capsys.readouterr().err
    assert cli.run(["verify", str(tmp_path / "one"), "--key", str(public), "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert {
        "what": "signature",
        "verdict": "PASS",
        "note": "the holder of the key signed the release as it is",
    } in checks
    content = b"".join(path.read_bytes() for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert private.read_bytes().splitlines()[1] not in content
    (tmp_path / "one").rename(tmp_path / "moved")  # a signature holds whatever the folder is called
    assert verify_bundle(tmp_path / "moved", key=public).verdict == "verified"
    assert verify_bundle(tmp_path / "moved").verdict == "verified; not checked here: signature"


def test_the_library_alone_reads_it(signed, keys):
    from model_signing.verifying import Config

    Config().use_elliptic_key_verifier(public_key=keys[1]).verify(signed, signed / layout.SIGNATURE)
    (signed / layout.CARD).write_text("better")
    with pytest.raises(ValueError, match=r"Hash mismatch for .*model-card\.md"):
        Config().use_elliptic_key_verifier(public_key=keys[1]).verify(signed, signed / layout.SIGNATURE)


def change(bundle: Path) -> None:
    (bundle / layout.CARD).write_text("better")


def add(bundle: Path) -> None:
    (bundle / "run/more.json").write_text("{}")


def add_what_git_ignores(bundle: Path) -> None:
    (bundle / ".gitignore").write_text("*")


def lose(bundle: Path) -> None:
    (bundle / layout.CARD).unlink()


@pytest.mark.parametrize("spoil", [change, add, add_what_git_ignores, lose])
def test_what_was_changed_after_signing_is_refused_however_well_it_is_sealed(signed, keys, spoil):
    spoil(signed)
    assert "signature" not in refused(signed, keys[1])  # the manifest itself says so
    write_manifest(signed)
    assert verify_bundle(signed).passed
    said = "refused: the signature does not hold: a file was changed, added or lost after it was made."
    assert refused(signed, keys[1]) == said
    assert [check.what for check in verify_bundle(signed, key=keys[1]).checks] == ["files", "signature"]


def test_another_key_is_refused(run, signed, keys, tmp_path):
    private, public = pair(tmp_path, "other")
    assert "it was made with another key." in refused(signed, public)
    other = certified(run, tmp_path / "two", private)
    assert verify_bundle(other, key=public).passed
    assert "it was made with another key." in refused(other, keys[1])


def test_the_hint_of_a_key_is_no_proof(run, signed, keys, tmp_path, capsys):
    """A forger signs what was changed with another key, and writes the hash of the right one beside it."""
    forged = certified(run, tmp_path / "two", pair(tmp_path, "forger")[0])
    right, wrong = (json.loads((bundle / layout.SIGNATURE).read_text()) for bundle in (signed, forged))
    for hint in (right["verificationMaterial"], {"publicKey": {"hint": ""}, "tlogEntries": []}):
        (forged / layout.SIGNATURE).write_text(json.dumps(wrong | {"verificationMaterial": hint}))
        assert "it was made with another key, or changed" in refused(forged, keys[1])
        assert capsys.readouterr().out == ""  # the library's own words would spoil --json


def test_a_signature_of_another_release_is_refused(run, signed, keys, tmp_path):
    other = certified(run, tmp_path / "two", None)
    (other / layout.CARD).write_text("of a day on which all times were alike, it would be the same")
    write_manifest(other)
    assert f"it has no {layout.SIGNATURE}: nobody signed it" in refused(other, keys[1])
    (other / layout.SIGNATURE).write_bytes((signed / layout.SIGNATURE).read_bytes())
    assert "a file was changed, added or lost" in refused(other, keys[1])


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"a":' * 50_000, '{"mediaType": 3}'], ids=len)
def test_a_damaged_signature_is_a_sentence(signed, keys, content):
    (signed / layout.SIGNATURE).write_text(content)
    assert refused(signed, keys[1]).startswith("refused: ")


def test_what_is_no_key_is_refused_before_anything_is_measured(run, keys, tmp_path, capsys):
    private, public = keys
    text = tmp_path / "text.pem"
    text.write_text("no key")
    words = ["certify", str(run), "--profile", str(run.parent / "profile.toml"), "--out", str(tmp_path / "one")]
    for wrong in (public, text):
        assert cli.run([*words, "--sign", str(wrong)]) == 2
        assert f"{wrong} is no private key of an elliptic curve" in " ".join(capsys.readouterr().err.split())
    assert cli.run([*words, "--sign", str(tmp_path / "none.pem")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert not (tmp_path / "one").exists()
    with pytest.raises(ValueError, match="is no public key of an elliptic curve"):
        verify_bundle(certified(run, tmp_path / "one", None), key=private)


def test_what_does_not_pass_is_not_signed(run, keys, tmp_path, capsys):
    (tmp_path / "strict.toml").write_text(PROFILE.replace("nmse_db = 10", "nmse_db = -100"))
    words = ["certify", str(run), "--profile", str(tmp_path / "strict.toml"), "--out", str(tmp_path / "one")]
    assert cli.run([*words, "--sign", str(keys[0])]) == 1
    assert "not signed, as it does not pass" in capsys.readouterr().err
    assert not (tmp_path / "one" / layout.SIGNATURE).exists()
