"""Sources of channels: models have the covariance they say, stores keep what was drawn, files of any scale are read."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from scipy.special import j0

from fanfold.core.events import DrawingStarted, DrawsKept
from fanfold.core.files import file_hash
from fanfold.problems import OFDMChannel
from fanfold.propagation import Dataset, Layout, Source, Statistics, source_of
from fanfold.propagation.base import rows_of
from fanfold.propagation.dataset import MANIFEST
from fanfold.propagation.drawing import cached_channels, draw_channels, drawing_events, shard_seed
from fanfold.propagation.models import LIGHT, MODELS
from fanfold.propagation.sources import SHIPPED
from fanfold.propagation.user_files import UserFile

EPS = torch.finfo(torch.float32).eps
HALF = 2.0**-11  # relative rounding error of float16


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Models

SMALL = "array=2x2x3,subcarriers=3"
EXAMPLES = [
    f"rayleigh:{SMALL},symbols=2",
    f"kronecker:{SMALL}",
    f"kronecker:{SMALL},space=0.1x0.9x0.5,delay_spread_ns=1000",
    f"kronecker:{SMALL},angle_spread_deg=20,frequency=0.5",
    f"rician:{SMALL},symbols=2",
    "rician:array=6,subcarriers=4,k_db=0,frequency=0.8,azimuth_deg=90",
    "jakes:array=2,subcarriers=3,symbols=5,speed_mps=300",
]


@pytest.mark.parametrize("name", EXAMPLES)
def test_models_have_the_covariance_that_they_say(name):
    source, draws = source_of(name), 20_000
    R = source.covariance()
    h = source.draw(draws, rng(0)).flatten(1).to(torch.complex128)
    sample = h.mT @ h.conj() / draws
    # |h_i|² |h_j|² has a mean of at most E|h|⁴ <= 2, so that an entry deviates by sqrt(2 / draws); 6 of them for all
    assert (sample - R).abs().max() < 6 * (2 / draws) ** 0.5
    # and a covariance proper: of unit power, Hermitian, no eigenvalue below rounding
    assert torch.allclose(R.diagonal(), torch.ones_like(R.diagonal()))
    assert torch.equal(R, R.mH)
    assert torch.linalg.eigvalsh(R).min() > -len(R) * torch.finfo(torch.float64).eps * len(R)


@pytest.mark.parametrize("name", MODELS)
def test_models_are_sources_of_single_precision_told_by_their_generator(name):
    source = source_of(f"{name}:array=2x2,subcarriers=4,symbols=3")
    assert isinstance(source, Source)
    h = source.draw(5, rng(1))
    assert h.dtype == torch.complex64
    assert h.shape == (5, *source.layout.shape) == (5, 4, 3, 4)
    assert torch.equal(h, source.draw(5, rng(1), "test"))
    assert not torch.equal(h, source.draw(5, rng(2)))


def test_time_correlation_is_that_of_clarke():
    source = source_of("jakes:array=1,subcarriers=1,symbols=14,speed_mps=100,carrier_hz=6e9,spacing_hz=60e3")
    lags = np.arange(14) * 1e-3 / 4 / 14  # a slot of 250 µs has 14 symbols
    expected = j0(2 * np.pi * 100 * 6e9 / LIGHT * lags)
    assert np.allclose(source.covariance()[0].numpy(), expected, rtol=0, atol=1e-12)


def test_a_line_of_sight_without_scattering_is_a_steering_vector():
    h = source_of("rician:k_db=200,array=2x4x8,subcarriers=3").draw(50, rng(0)).unflatten(1, (2, 4, 8))[..., 0, 0]
    for axis in (2, 3):  # columns and rows: one phase step from each antenna to the next
        steps = h.narrow(axis, 1, h.shape[axis] - 1) * h.narrow(axis, 0, h.shape[axis] - 1).conj()
        assert torch.allclose(steps, steps.narrow(axis, 0, 1).expand_as(steps), atol=100 * EPS)
    assert (h.abs() - 1).abs().max() < 10 * EPS
    row = source_of("rician:k_db=200,array=6,subcarriers=1,azimuth_deg=1").draw(200, rng(0))[:, :, 0, 0]
    assert 0.02 < (row[:, 1:] * row[:, :-1].conj()).angle().abs().max() < np.pi * np.sin(np.pi / 180) + 100 * EPS


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ricean", "Did you mean 'rician'"),
        ("rician:kdb=3", "Did you mean 'k_db'"),
        ("rician:k_db=high", "pass a number"),
        ("rician:k_db", "write k_db=VALUE"),
        ("rician:azimuth_deg=0", "above 0"),
        ("kronecker:space=0.1x0.2", "one number, or one an axis"),
        ("kronecker:frequency=1", "below 1"),
        ("kronecker:delay_spread_ns=0", "positive"),
        ("kronecker:delay_spread_ns=inf", "finite"),
        ("kronecker:space=0.5,angle_spread_deg=10", "one of them"),
        ("rician:frequency=0.5,delay_spread_ns=100", "one of them"),
        ("jakes:speed_mps=-1", "from zero on"),
        ("rayleigh:array=2xa", "joined by x"),
        ("rayleigh:array=0x2", "empty"),
        ("rayleigh:spacing_hz=0", "positive"),
        ("cdl-c", "fanfold channels draw cdl-c"),
        ("nothing.mat", "no file"),
        ("umi+rayleigh", "mix one layout only"),
    ],
)
def test_unknown_names_and_settings_are_refused_and_named(name, said):
    with pytest.raises(ValueError, match=said.replace("+", r"\+")):
        source_of(name)


def test_sources_are_joined_in_equal_parts():
    shipped, other = source_of("umi"), "rayleigh:array=2x4x4,subcarriers=24,spacing_hz=3e+4"
    both = source_of(f"umi+{other}").draw(40, rng(0))
    stored = shipped.read(torch.arange(shipped.count)).flatten(1)
    found = [(stored == h).all(1).any().item() for h in both.flatten(1)]
    assert sum(found) == 20


# The shipped draw


def test_the_shipped_draw_is_small_whole_and_of_unit_power():
    source = source_of("umi")
    source.verify()
    assert sum(file.stat().st_size for file in SHIPPED["umi"].iterdir()) <= 4e6
    assert source.layout == Layout((2, 4, 4), 1, 24, 30e3, 3.5e9)
    assert source.manifest["recipe"]["model"] == "umi"
    power = source.read(torch.arange(source.count)).abs().square().mean((1, 2, 3))
    assert (power - 1).abs().max() < 2 * HALF  # each entry is rounded by that much of itself


def among(drawn: torch.Tensor, stored: torch.Tensor) -> torch.Tensor:
    """Which of these channels are some of those."""
    return torch.stack([(stored.flatten(1) == one).all(1).any() for one in drawn.flatten(1)])


@pytest.mark.parametrize("name", ["umi", "kept.npz:array=2x2", "umi+rayleigh:array=2x4x4,subcarriers=24"])
def test_every_part_draws_its_own_rows(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("kept.npz", H=torch.randn(60, 4, 5, dtype=torch.complex64, generator=rng(0)).numpy())
    source = source_of(name)
    home = getattr(source, "sources", (source,))[0]  # of the mixture, the one that is stored
    stored = home.channels if hasattr(home, "channels") else home.read(torch.arange(home.count))
    parts = {part: stored[list(home.rows(part))] for part in ("train", "validation", "test")}
    for part, own in parts.items():
        drawn = source.draw(40, rng(1), part)
        inside = among(drawn, own)
        assert inside.sum() == len(drawn) / (2 if home is not source else 1)
        for other, rows in parts.items():
            assert other == part or not among(drawn, rows).any()


@pytest.mark.parametrize(("count", "share"), [(2, 0.1), (2, 0.9), (3, 0.9), (10, 0.99), (40, 0.5), (41, 0.1)])
def test_some_are_left_to_train_on_and_some_to_test(count, share):
    train, validation, test = (rows_of(part, count, share) for part in ("train", "validation", "test"))
    assert len(train) >= 1
    assert len(test) >= 1
    assert not set(train) & set(test)
    assert not set(validation) & set(test)


def test_a_mixture_is_in_equal_parts_for_testing_too():
    source = source_of("umi+rayleigh:array=2x4x4,subcarriers=24")
    for part, count in (("test", 128), ("validation", 64)):
        drawn = source.draw(1000, rng(0), part)
        assert len(drawn) == 2 * count
        assert among(drawn, source.sources[0].read(torch.arange(1280))).sum() == count


def test_a_plus_in_a_path_joins_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "d+e"
    folder.mkdir()
    np.savez(folder / "m.npz", H=np.ones((4, 4, 5), complex))
    assert source_of("d+e/m.npz:array=2x2").layout.array == (2, 2)
    mixed = source_of("d+e/m.npz:array=2x2+kronecker:array=2x2,subcarriers=5,delay_spread_ns=1e+2")
    assert [type(s).__name__ for s in mixed.sources] == ["UserFile", "Kronecker"]
    (tmp_path / "jakes").mkdir()
    assert source_of("jakes").layout.symbols == 14  # a folder of that name is ./jakes
    with pytest.raises(ValueError, match=r"no source of channels '\./none'"):
        source_of("umi+./none")
    long = "+".join(f"rician:array=2x4,subcarriers=12,k_db={k},azimuth_deg=60,elevation_deg=30" for k in range(9))
    assert len(source_of(long).sources) == 9
    problem = OFDMChannel("rayleigh:array=2,subcarriers=624", ",".join(map(str, range(0, 624, 6))))
    assert problem.mask.sum() == 104


def test_parts_are_three():
    with pytest.raises(ValueError, match="part is 'Test'"):
        OFDMChannel(part="Test")
    assert (OFDMChannel().validation().part, OFDMChannel().held_out().part) == ("validation", "test")


@pytest.mark.parametrize("snr_db", [np.int64(7), np.float32(7), torch.tensor(7.0)])
def test_an_snr_is_a_number_of_any_library(snr_db):
    assert OFDMChannel(snr_db=snr_db).snr_db == 7.0


def test_the_power_is_that_of_the_channels_and_the_noise_follows_it():
    x, obs = OFDMChannel(power=4.0, snr_db=10).sample(500, rng(0))
    assert (x.abs() ** 2).mean() == pytest.approx(4, rel=1e-3)  # each draw has it, to float16's 2^-11
    assert obs.noise_var.item() == pytest.approx(0.4)
    with pytest.raises(ValueError, match="finite"):
        OFDMChannel(power=float("inf"))


def test_parts_share_no_draw_and_a_test_draws_each_once():
    source = source_of("umi")
    train, validation, test = (source.rows(part) for part in ("train", "validation", "test"))
    assert [*train, *validation, *test] == [*range(source.count)]
    assert len(validation) == len(test) / 2 == source.count / 20
    h = source.draw(10_000, rng(0), "test").flatten(1)
    assert len(h) == len(test) == len(torch.view_as_real(h).unique(dim=0))
    stored = source.read(torch.tensor(list(train))).flatten(1)
    drawn = source.draw(20, rng(1)).flatten(1)
    assert all((stored == one).all(1).any() for one in drawn)


def test_rows_are_read_in_the_order_asked_for():
    source = source_of("umi")
    pick = torch.tensor([1279, 0, 640, 639, 0])  # over both shards
    assert torch.equal(source.read(pick), torch.stack([source.read(p[None])[0] for p in pick]))


# Stores


@dataclass(frozen=True)
class Toy:
    """A recipe that needs no Sionna; it counts what it makes in a file."""

    log: str = os.devnull
    subcarriers: int = 4
    spacing_hz: float = 30e3
    seconds: float = 0.0

    @property
    def layout(self) -> Layout:
        return Layout((2, 3), 2, self.subcarriers, self.spacing_hz)

    def describe(self) -> dict:
        return {"model": "toy", "subcarriers": self.subcarriers}

    def versions(self) -> dict[str, str]:
        return {"toy": "1"}

    def make(self, n: int, seed: int):
        with open(self.log, "a") as log:
            log.write(f"{seed}\n")
        time.sleep(self.seconds)
        h = torch.randn(n, *self.layout.shape, dtype=torch.complex64, generator=rng(seed % 2**63))
        return h / h.abs().square().mean((1, 2, 3), keepdim=True).sqrt(), 1.0


def shards(path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(Path(path).glob("*.npy"))}


@pytest.fixture
def whole(tmp_path) -> Dataset:
    return draw_channels(Toy(), 25, tmp_path / "whole", seed=3, shard_draws=10)


def test_a_store_keeps_what_was_drawn_to_half_precision(whole):
    assert [len(shard) for shard in whole.shards] == [10, 10, 5]
    drawn = torch.cat([Toy().make(n, shard_seed(3, k))[0] for k, n in enumerate((10, 10, 5))])
    kept = whole.read(torch.arange(25))
    parts, kept_parts = torch.view_as_real(drawn), torch.view_as_real(kept)
    assert ((kept_parts - parts).abs() <= HALF * parts.abs() + 2.0**-25).all()  # and of the smallest, of 2^-24 steps
    whole.verify()


def test_left_and_gone_on_is_drawn_without_a_break(whole, tmp_path):
    events = drawing_events(Toy(), 25, tmp_path / "broken", seed=3, shard_draws=10)
    for _ in range(2):  # begins, and draws one shard
        next(events)
    events.close()
    with pytest.raises(ValueError, match="unfinished: 10 of 25"):
        Dataset(str(tmp_path / "broken"))
    log = tmp_path / "log"
    again = draw_channels(Toy(str(log)), 25, tmp_path / "broken", seed=3, shard_draws=10)
    assert shards(again.path) == shards(whole.path)
    assert again.fingerprint == whole.fingerprint != ""
    assert log.read_text().split() == [str(shard_seed(3, k)) for k in (1, 2)]


def test_a_drawing_tells_what_is_there_and_what_it_adds(tmp_path):
    events = list(drawing_events(Toy(), 25, tmp_path / "new", seed=3, shard_draws=10))
    assert events[:-1] == [DrawingStarted(str(tmp_path / "new"), 25, 0), *(DrawsKept(done) for done in (10, 20, 25))]
    (tmp_path / "new" / "00001.npy").unlink()
    started, kept, finished = drawing_events(Toy(), 25, tmp_path / "new", seed=3, shard_draws=10)
    assert (started.done, kept.done, finished.good, finished.made) == (15, 25, 25, 10)


def test_all_there_draws_nothing(whole, tmp_path):
    before = (Path(whole.path) / MANIFEST).stat().st_mtime_ns
    log = tmp_path / "log"
    draw_channels(Toy(str(log)), 25, whole.path, seed=3, shard_draws=10)
    assert not log.exists()
    assert (Path(whole.path) / MANIFEST).stat().st_mtime_ns == before


def test_killed_is_gone_on_bit_for_bit(whole, tmp_path):
    folder = tmp_path / "killed"
    body = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_propagation import Toy, draw_channels\n"
        f"draw_channels(Toy(seconds=0.3), 25, {str(folder)!r}, seed=3, shard_draws=10)"
    )
    process = subprocess.Popen([sys.executable, "-c", body])
    first = folder / "00000.npy"
    while not first.is_file():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.1)  # the manifest is written, the next shard is not
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = first.stat().st_ino
    again = draw_channels(Toy(), 25, folder, seed=3, shard_draws=10)
    assert first.stat().st_ino == kept
    assert shards(again.path) == shards(whole.path)


def test_a_truncated_shard_is_refused_by_name_and_drawn_anew(whole):
    shard = Path(whole.path) / "00001.npy"
    content = shard.read_bytes()
    for length in (len(content) - 7, 40, 0):
        shard.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"00001.npy .* is truncated or damaged: .* draws what is missing anew"):
            Dataset(whole.path)
        draw_channels(Toy(), 25, whole.path, seed=3, shard_draws=10)
        assert shard.read_bytes() == content
    shard.unlink()
    with pytest.raises(ValueError, match=r"00001.npy is missing"):
        Dataset(whole.path)


def test_a_flipped_bit_is_found(whole):
    shard = Path(whole.path) / "00002.npy"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=r"00002.npy is damaged: its SHA-256"):
        Dataset(whole.path).verify()


def test_a_damaged_manifest_and_other_versions_are_refused(whole, tmp_path):
    manifest = Path(whole.path) / MANIFEST
    good = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(good | {"version": 99}))
    with pytest.raises(ValueError, match="version 99; this fanfold reads 1"):
        Dataset(whole.path)
    manifest.write_text(json.dumps(good)[:50])
    with pytest.raises(ValueError, match=r"channels.json is damaged"):
        Dataset(whole.path)
    manifest.write_text("[]")
    with pytest.raises(ValueError, match="is damaged, remove the folder"):
        Dataset(whole.path)
    with pytest.raises(ValueError, match="no dataset of channels"):
        Dataset(str(tmp_path / "nowhere"))


def test_a_shard_with_fewer_draws_is_refused(whole):
    shard = Path(whole.path) / "00001.npy"
    np.save(shard, np.load(shard)[:4])
    with pytest.raises(ValueError, match="holds 19 draws and its manifest says 25"):
        Dataset(whole.path)


@pytest.mark.parametrize(
    ("recipe", "settings", "said"),
    [
        (Toy(spacing_hz=60e3), {}, "spacing_hz is 30000.0 there and 60000.0 here"),
        (Toy(subcarriers=5), {}, "subcarriers is 4 there and 5 here"),
        (Toy(), {"seed": 4}, "seed is 3 there and 4 here"),
        (Toy(), {"shard_draws": 5}, "shard_draws is 10 there"),
    ],
)
def test_one_folder_holds_one_recipe(whole, recipe, settings, said):
    before = shards(whole.path)
    with pytest.raises(ValueError, match=said):
        draw_channels(recipe, 25, whole.path, **{"seed": 3, "shard_draws": 10} | settings)
    assert shards(whole.path) == before


def test_a_shard_of_another_numerology_is_refused(whole, tmp_path):
    other = draw_channels(Toy(subcarriers=5), 10, tmp_path / "other", shard_draws=10)
    (Path(whole.path) / "00000.npy").write_bytes((Path(other.path) / "00000.npy").read_bytes())
    with pytest.raises(ValueError, match="not mixed in one folder"):
        Dataset(whole.path)


def test_one_process_draws_into_a_folder(whole):
    pytest.importorskip("fcntl")
    events = drawing_events(Toy(), 25, whole.path, seed=3, shard_draws=10)
    next(events)
    with pytest.raises(ValueError, match="another process writes to"):
        draw_channels(Toy(), 25, whole.path, seed=3, shard_draws=10)
    events.close()
    assert draw_channels(Toy(), 25, whole.path, seed=3, shard_draws=10).count == 25


def test_a_full_disk_is_an_error_that_keeps_what_was_there(whole, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    (Path(whole.path) / "00001.npy").unlink()
    (Path(whole.path) / ".00001.npy.4711").write_bytes(b"of a process that was killed")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"cannot write .*00001\.npy"):
            draw_channels(Toy(), 25, whole.path, seed=3, shard_draws=10)
    assert draw_channels(Toy(), 25, whole.path, seed=3, shard_draws=10).fingerprint == whole.fingerprint
    assert not list(Path(whole.path).glob(".*.npy.*"))


@pytest.mark.parametrize(("draws", "shard_draws", "seed"), [(1, 10, 0), (10, 0, 0), (10, 10, -1)])
def test_what_cannot_be_drawn_is_refused(draws, shard_draws, seed, tmp_path):
    with pytest.raises(ValueError, match="pass at least 2 draws"):
        draw_channels(Toy(), draws, tmp_path / "new", shard_draws=shard_draws, seed=seed)
    assert not (tmp_path / "new").exists()


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"holds other things \(thesis.tex\); choose a folder of its own"):
        draw_channels(Toy(), 5, tmp_path)


def test_the_cache_draws_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    log = tmp_path / "log"
    first = cached_channels(Toy(str(log)), 20, seed=1)
    assert cached_channels(Toy(str(log)), 20, seed=1).path == first.path
    assert cached_channels(Toy(str(log)), 20, seed=2).path != first.path
    assert len(log.read_text().split()) == 2
    shard = Path(first.path) / "00000.npy"
    shard.write_bytes(shard.read_bytes()[:100])
    assert cached_channels(Toy(str(log)), 20, seed=1).fingerprint == first.fingerprint  # mended


def test_shards_of_other_datasets_have_other_seeds():
    assert len({shard_seed(seed, number) for seed in range(6) for number in range(6)}) == 36


# Files of the user's own

LINKS = np.random.default_rng(0).standard_normal((6, 2, 4, 1, 3, 2, 5, 2)) * 1e-6
FIELD = LINKS[..., 0] + 1j * LINKS[..., 1]  # batch 6, rx 2, rx_ant 4, tx 1, stream 3, symbol 2, subcarrier 5
PLAIN = FIELD[:, 0, :, 0, 0, 0]  # draws, antennas, subcarriers


def saved(path: Path, **arrays) -> str:
    if path.suffix.lower() == ".npz":
        with path.open("wb") as file:
            np.savez(file, **arrays)
    elif path.suffix == ".npy":
        np.save(path, next(iter(arrays.values())))
    elif path.suffix.lower() == ".mat":
        savemat(path, arrays, appendmat=False)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            for name, value in arrays.items():
                file[name] = value
    return str(path)


def unit(H: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(H / np.sqrt((abs(H) ** 2).mean())).to(torch.complex64)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".mat", ".h5", ".NPZ", ".MAT"])
def test_every_format_is_read_and_scaled_to_unit_power(suffix, tmp_path):
    source = source_of(saved(tmp_path / f"measured{suffix}", H=PLAIN) + ":array=2x2,spacing_hz=15e3")
    assert source.layout == Layout((2, 2), 1, 5, 15e3)
    assert torch.allclose(source.channels, unit(PLAIN)[:, :, None], atol=10 * EPS)


def test_matlab_files_of_version_7_3_are_read_in_matlabs_order(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "measured.MAT"
    with h5py.File(path, "w", userblock_size=512) as file:
        record = np.empty(PLAIN.T.shape, dtype=[("real", "f8"), ("imag", "f8")])
        record["real"], record["imag"] = PLAIN.T.real, PLAIN.T.imag
        file["H"] = record
    assert torch.allclose(source_of(str(path)).channels, unit(PLAIN)[:, :, None], atol=10 * EPS)


def test_the_seven_axes_of_the_field_give_a_draw_for_each_link_and_stream(tmp_path):
    source = source_of(saved(tmp_path / "field.npz", H=FIELD))
    assert source.layout.shape == (4, 2, 5)
    expected = unit(FIELD).permute(0, 1, 3, 4, 2, 5, 6).reshape(-1, 4, 2, 5)
    assert torch.allclose(source.channels, expected, atol=10 * EPS)
    assert source.rows("test") == range(30, 36)  # the six links of one entry of the batch stay together


def test_axes_and_names_are_settings(tmp_path):
    pairs = LINKS[:, 0, :, 0, 0].transpose(2, 3, 1, 0, 4)  # symbols, subcarriers, antennas, draws, real and imaginary
    path = saved(tmp_path / "two.npz", delays=np.zeros((2, 3, 4)), channels=pairs.transpose(1, 0, 2, 3, 4))
    source = source_of(f"{path}:name=channels,axes=fsadc")
    assert torch.allclose(source.channels, unit(FIELD[:, 0, :, 0, 0]), atol=10 * EPS)


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_any_scale_is_brought_to_unit_power(scale, tmp_path):
    source = source_of(saved(tmp_path / "loud.npz", H=PLAIN / abs(PLAIN).max() * scale))
    assert torch.allclose(source.channels, unit(PLAIN)[:, :, None], atol=10 * EPS)


def test_draws_may_be_scaled_each_by_itself(tmp_path):
    H = PLAIN * np.logspace(0, 6, 6)[:, None, None]
    source = source_of(saved(tmp_path / "near_and_far.npz", H=H) + ":normalise=draw")
    assert (source.channels.abs().square().mean((1, 2, 3)) - 1).abs().max() < 10 * EPS


def test_a_users_file_is_a_source_of_the_problem(tmp_path):
    problem = OFDMChannel(source=saved(tmp_path / "field.npz", H=FIELD), pilots="comb-2")
    x, obs = problem.sample(7, rng(0))
    assert x.shape == (7, 4 * 2 * 5)
    assert obs.y.shape == (7, 4 * int(problem.mask.sum()))
    assert torch.equal(problem.sample(7, rng(0))[0], x)


BAD = PLAIN.copy()
BAD[2, 1, 3] = np.nan


@pytest.mark.parametrize(
    ("arrays", "settings", "said"),
    [
        ({"H": PLAIN}, "array=3x2", "has 4 antennas, but an array of"),
        ({"H": PLAIN}, "name=G", r"no array 'G'; it has H complex128 \(6, 4, 5\)"),
        ({"H": PLAIN, "G": PLAIN}, "", "2 arrays of three or more dimensions.*name=H"),
        ({"H": PLAIN[0]}, "", "0 arrays of three or more dimensions"),
        ({"H": PLAIN.real}, "", "is float64, channels are complex"),
        ({"H": PLAIN}, "axes=dxf", "one letter for each dimension"),
        ({"H": PLAIN}, "axes=af", "one letter for each dimension"),
        ({"H": PLAIN}, "axes=daf,normalise=never", "pass file or draw"),
        ({"H": LINKS[:, 0, :, 0, 0, 0]}, "axes=dacf", "two entries"),
        ({"H": PLAIN[:1]}, "", "holds 1 draws"),
        ({"H": PLAIN[:0]}, "", r"shape \(0, 4, 5\) is empty"),
        ({"H": BAD}, "", r"not finite, first at \(2, 1, 0, 3\)"),
        ({"H": PLAIN * (np.arange(6) > 0)[:, None, None]}, "normalise=draw", "without power, first draw 0"),
    ],
)
def test_what_cannot_be_channels_is_refused_and_named(arrays, settings, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        source_of(saved(tmp_path / "measured.npz", **arrays) + (f":{settings}" if settings else ""))


def test_a_file_cut_short_is_refused(tmp_path):
    path = Path(saved(tmp_path / "measured.npz", H=PLAIN))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="is it whole"):
        UserFile(str(path))


def test_hdf5_without_h5py_says_what_to_install(tmp_path, monkeypatch):
    path = saved(tmp_path / "measured.h5", H=PLAIN)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install 'fanfold\[channels\]'"):
        UserFile(path)


def test_a_file_that_changed_is_read_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = source_of(saved(Path("measured.npz"), H=PLAIN))
    assert source_of("measured.npz") is first
    saved(Path("measured.npz"), H=PLAIN[:, :2])
    os.utime("measured.npz", ns=(0, 1))  # however coarse the clock
    assert source_of("measured.npz").layout.antennas == 2


# Statistics


def test_statistics_are_those_of_the_model():
    name = "kronecker:array=2x3,subcarriers=16,delay_spread_ns=100,angle_spread_deg=5,symbols=2"
    draws = 4000
    measured = Statistics.of(source_of(name), draws, rng(0))
    # R = 1 / (1 + j 2π τ Δf): 1 - |R| is (2π τ Δf)² / 2 up to its square; an average over draws of its relative
    # deviation, that of a mean of squared exponentials of few modes
    assert measured.delay_spread_ns == pytest.approx(100, rel=6 * 2 / draws**0.5)
    assert measured.power == pytest.approx(1, abs=6 / draws**0.5)
    assert measured.sizes == {"space": 6, "frequency": 16, "time": 2}
    assert measured.ranks["time"] == 1
    for shares in measured.shares.values():
        assert shares == sorted(shares)
    assert measured.shares["frequency"][-1] == pytest.approx(1)


def test_hashes_are_of_the_whole_file(tmp_path):
    import hashlib

    (tmp_path / "file").write_bytes(b"channels")
    assert file_hash(tmp_path / "file") == hashlib.sha256(b"channels").hexdigest()
