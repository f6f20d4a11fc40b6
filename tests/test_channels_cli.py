"""The verb channels: draws datasets and goes on, says what a source holds, and trains on it."""

import json

import pytest
import torch
from PIL import Image

from fanfold.cli import main as cli
from fanfold.cli.channels import levels, png
from fanfold.propagation import TR38901, Dataset
from fanfold.propagation.sources import SHIPPED


def printed(capsys, args: list[str]) -> dict:
    """The object that a command prints with --json, alone on stdout."""
    capsys.readouterr()
    assert cli.run([*args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def drawn(folder, *flags: str) -> list[str]:
    small = ["--array", "1", "2", "2", "--subcarriers", "6", "--n", "30", "--shard-draws", "20"]
    return ["channels", "draw", "tdl-a", *small, "--out", str(folder), *flags]


def test_draws_a_dataset_and_goes_on(tmp_path, capsys):
    pytest.importorskip("sionna")
    result = printed(capsys, drawn(tmp_path / "a", "--seed", "3", "--speed-mps", "1", "2"))
    dataset = Dataset(str(tmp_path / "a"))
    assert result["draws"] == dataset.count == 30
    assert result["hash"] == dataset.fingerprint
    assert result["recipe"]["speed_mps"] == [1.0, 2.0]
    (tmp_path / "a" / "00001.npy").unlink()
    assert printed(capsys, drawn(tmp_path / "a", "--seed", "3", "--speed-mps", "1", "2"))["hash"] == result["hash"]
    assert cli.run(drawn(tmp_path / "a")) == 2
    assert "speed_mps is [1.0, 2.0] there and 0.83 here" in capsys.readouterr().err


def test_says_what_a_dataset_holds(tmp_path, capsys):
    picture = tmp_path / "h.png"
    told = printed(capsys, ["channels", "info", "umi", "--samples", "300", "--picture", str(picture)])
    assert told["facts"]["model"] == "umi"
    assert told["facts"]["antennas"] == 32
    assert told["facts"]["normalisation"].startswith("each draw to unit mean power")
    assert told["statistics"]["power"] == pytest.approx(1, abs=1e-3)  # float16 keeps it to 2^-11
    assert 1 <= told["statistics"]["ranks"]["frequency"] < 24
    with Image.open(picture) as shown_picture:
        assert shown_picture.size == (24 * 8, 32 * 8)
    assert cli.run(["channels", "info", "umi", "--samples", "50"]) == 0
    shown = capsys.readouterr().out
    assert "space rank (99 %)" in shown
    assert sum(set(line) <= set(" ░▒▓█") and len(line) == 24 for line in shown.splitlines()) == 32


def test_a_draw_named_like_what_is_shipped_is_found_by_the_command_that_is_proposed(tmp_path, capsys, monkeypatch):
    pytest.importorskip("sionna")
    monkeypatch.chdir(tmp_path)
    assert cli.run(drawn("umi")) == 0
    lines = " ".join(capsys.readouterr().err.split())
    assert "umi: 0 of 30 draws are there umi: 20 of 30 umi: 30 of 30 umi: 30 good draws; 30 made now" in lines
    assert "channels info ./umi" in lines
    assert printed(capsys, ["channels", "info", "./umi", "--samples", "10"])["facts"]["model"] == "tdl-a"


def test_what_cannot_be_shown_is_refused_or_black(tmp_path, capsys):
    assert cli.run(["channels", "info", "umi", "--samples", "0"]) == 2
    assert "samples is 0" in capsys.readouterr().err
    assert not levels(torch.zeros(2, 3, dtype=torch.complex64)).any()


def test_says_what_a_model_is(capsys):
    told = printed(capsys, ["channels", "info", "jakes:array=2x2,subcarriers=4", "--samples", "100"])
    assert told["facts"]["symbols"] == 14
    assert told["statistics"]["sizes"] == {"space": 4, "frequency": 4, "time": 14}


def test_pictures_are_30_db_from_black_to_white():
    h = torch.tensor([[1, 10**-0.75, 10**-1.5], [1j, 0, 1e-9]], dtype=torch.complex64)
    assert torch.allclose(levels(h), torch.tensor([[1, 0.5, 0], [1, 0, 0]]), atol=1e-6)
    assert png(h).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["channels", "draw", "umj", "--n", "3", "--out", "x"], "Did you mean"),
        (["channels", "draw", "cdl-a", "--line-of-sight", "force", "--n", "3", "--out", "x"], "profiles D and E"),
        (["channels", "draw", "umi", "--out", "x"], "--n"),
        (["channels", "info", "nowhere"], "no source of channels"),
        (["channels", "info", "umu"], "Did you mean 'umi'"),
        (["channel", "info"], "Did you mean 'channels'"),
    ],
)
def test_mistakes_are_named(args, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(args) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_an_interrupted_drawing_says_how_it_goes_on(tmp_path, monkeypatch, capsys):
    def stop(self, n, seed):
        raise KeyboardInterrupt

    pytest.importorskip("sionna")
    monkeypatch.setattr(TR38901, "make", stop)
    assert cli.run(drawn(tmp_path / "a")) == 130
    err = capsys.readouterr().err
    assert "what was drawn is kept; go on with: fanfold channels draw" in err
    assert str(tmp_path / "a") in err


def test_a_damaged_dataset_is_told_by_info(tmp_path, capsys):
    for file in SHIPPED["umi"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    shard = tmp_path / "00001.npy"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x55")
    assert cli.run(["channels", "info", str(tmp_path)]) == 2
    assert "00001.npy is damaged" in capsys.readouterr().err


def test_trains_on_channels(tmp_path, capsys):
    source = "kronecker:array=2x2,subcarriers=8"
    short = ["--steps", "2", "--batch", "4", "--validate-every", "2", "--validation-samples", "10", "--threads", "1"]
    args = ["train", "ofdm-channel", "oamp", "--source", source, "--pilots", "comb-2", "--layers", "2", *short]
    assert cli.run([*args, "--run-dir", str(tmp_path / "run")]) == 0
    assert cli.run(["evaluate", str(tmp_path / "run"), "--samples", "20"]) == 0
