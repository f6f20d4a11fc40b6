"""Files that were damaged, or made to do harm: each is read, or refused in a sentence, and runs and follows nothing.

The mutants are seeded: configs of several kinds of runs, geometry files, and files of data.
"""

import io
import json
import os
import random
import struct
import tomllib
import tracemalloc
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import tomli_w
import torch
from PIL import Image

import fanfold as ff
from fanfold.cli.main import run as command
from fanfold.core.array_files import array_of, held_arrays
from fanfold.core.data_files import beside, json_object, regular_file, toml_table
from fanfold.problems import Pairs, Photographs
from fanfold.problems.rf.geometry_file import read_geometry
from fanfold.propagation import Dataset, source_of
from fanfold.runs.directory import Run
from fanfold.training.settings import training_for

PER_CONFIG, PER_GEOMETRY, PER_DATA = 100, 150, 40
ODD = (
    -1,
    0,
    1.5,
    True,
    "x",
    "",
    [],
    {},
    [1],
    ["a"],
    {"name": "ista"},
    {"given": "Mine"},
    1e400,
    2**62,
    -(2**62),
    {"a": {"b": 1}},
)
SMALL = [value for value in ODD if value not in (2**62, -(2**62))]  # what sizes could be


def refused_or_read(read: Callable[[], Any]) -> str | None:
    """The sentence with which a file is refused; anything else than such a sentence is an error of this test."""
    try:
        read()
    except (ValueError, ImportError) as refusal:
        said = str(refusal)
        assert said, "a refusal says why"
        return said
    return None


def places(data: Any, path: tuple = ()) -> list[tuple]:
    """Every place in nested tables and lists."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [p for key, value in inner for p in [(*path, key), *places(value, (*path, key))]]


def changed(data: dict, rng: random.Random, values: Sequence[Any] = ODD) -> dict:
    """The same tables with one or two places removed, renamed, or put to something else."""
    data = json.loads(json.dumps(data))
    for _ in range(rng.choice((1, 1, 2))):
        if not (all_places := places(data)):
            break
        *above, key = rng.choice(all_places)
        parent = data
        for step in above:
            parent = parent[step]
        match rng.randrange(4):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, dict):
                parent[f"{key}s"] = parent.pop(key)
            case _:
                parent[key] = json.loads(json.dumps(rng.choice(values)))
    return data


def garbled(content: bytes, rng: random.Random) -> bytes:
    """The same bytes with some changed, or cut short."""
    spoilt = bytearray(content)
    if rng.random() < 0.3:
        return bytes(spoilt[: rng.randrange(len(spoilt))])
    for _ in range(rng.choice((1, 2, 8))):
        spoilt[rng.randrange(len(spoilt))] = rng.choice((0, 0xFF, ord("["), ord('"'), ord("."), rng.randrange(256)))
    return bytes(spoilt)


TRAINING = {"steps": 2, "batch": 4, "lr": 1e-3, "schedule": "end-to-end", "seed": 0}
MIXER = {"name": "beam-mixer"}
NEURAL = {"name": "neural", "loss": "gaussian", "members": 2, "levels": [0.1, 0.9], "width": 8}


def configs(marker: Path) -> dict[str, dict[str, Any]]:
    """Configs of several kinds of runs, one of which would start a program."""
    sparse = {"name": "compressed-sensing", "n": 20, "m": 10, "ensemble": "iid", "snr_db": 30.0}
    oamp = {"name": "oamp", "prior": {"name": "bernoulli-gaussian", "p": 0.1}, "linear": "lmmse"}
    prior = {"name": "box", "low": [0.0], "high": [1.0]}
    rows = {
        "unfolded": (sparse, {"name": "unfolded", "algorithm": oamp, "layers": 3, "learn": {"noise_scale": "tied"}}),
        "neural": ({"name": "linear-gaussian", "n": 2, "m": 3}, NEURAL),
        "tone": ({"name": "tone", "snr_db": [0.0, 20.0], "estimate": ["frequency"]}, NEURAL),
        "channels": (
            {"name": "ofdm-channel", "source": "rayleigh:array=2", "pilots": "comb-2"},
            {"name": "beam-mixer"},
        ),
        "program": ({"name": "program", "command": f"touch {marker}", "prior": prior, "timeout": 5.0}, NEURAL),
    }
    return {
        name: {"schema": 2, "problem": problem, "network": network, "training": TRAINING}
        for name, (problem, network) in rows.items()
    }


def build_all(folder: Path) -> None:
    """What reading a run directory builds of its config, without its weights."""
    run = Run.open(folder)
    training_for({}, run.section("training"))
    run.problem()
    run.settings()


@pytest.mark.parametrize("kind", ["unfolded", "neural", "tone", "channels", "program"])
def test_configs(tmp_path, kind):
    rng, marker = random.Random(kind), tmp_path / "marker"
    config = configs(marker)[kind]
    (tmp_path / "environment.json").write_text(json.dumps({"data": None, "seed": 0}))
    file = tmp_path / "config.toml"
    file.write_text(tomli_w.dumps(config))
    build_all(tmp_path)
    refusals = []
    for _ in range(PER_CONFIG):
        text = tomli_w.dumps(config).encode()
        file.write_bytes(tomli_w.dumps(changed(config, rng)).encode() if rng.random() < 0.7 else garbled(text, rng))
        refusals.append(refused_or_read(lambda: build_all(tmp_path)))
        refusals.append(refused_or_read(lambda: defaults(file)))
    assert sum(said is not None for said in refusals) > PER_CONFIG / 2
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["unfolded", "neural"])
def test_networks_of_changed_configs(tmp_path, kind):
    problem = ff.problems.CompressedSensing(n=12, m=6) if kind == "unfolded" else ff.problems.LinearGaussian(n=2, m=3)
    net = (
        ff.neural(problem, width=8)
        if kind == "neural"
        else ff.unfold(ff.algorithms.ISTA(), problem, 2, {"step": "tied"})
    )
    ff.save(net, tmp_path / "run", problem)
    file, rng = tmp_path / "run" / "config.toml", random.Random(kind)
    config = tomllib.loads(file.read_text())
    for _ in range(PER_DATA // 2):
        file.write_text(tomli_w.dumps(changed(config, rng, SMALL)))
        refused_or_read(lambda: ff.load(tmp_path / "run"))


def defaults(file: Path) -> None:
    from fanfold.cli.training import defaults_of

    defaults_of(file)


def test_a_program_in_a_config_is_not_started_by_listing_runs(tmp_path):
    marker = tmp_path / "marker"
    (tmp_path / "runs" / "sent").mkdir(parents=True)
    (tmp_path / "runs" / "sent" / "config.toml").write_text(tomli_w.dumps(configs(marker)["program"]))
    assert command(["runs", str(tmp_path / "runs")]) == 0
    assert not marker.exists()


@pytest.mark.parametrize(
    ("section", "name", "value", "said"),
    [
        ("training", "step", 3, r"\[training\]: .*no setting 'step'.*Did you mean 'steps'"),
        ("training", "steps", 20.5, r"\[training\]: Training: steps is 20\.5; pass a whole number"),
        ("problem", "m", "ten", r"\[problem\]: CompressedSensing: m is 'ten'; pass a whole number"),
        ("problem", "ensemble", "idd", r"\[problem\]: .*ensemble is 'idd'.*Did you mean 'iid'"),
        ("network", "algorithm", {"name": "oamp", "linear": "lmse"}, r"\[network\]: algorithm: OAMP: linear is 'lmse'"),
        ("network", "layer", 3, r"\[network\]: unfolded has no setting 'layer'; .*Did you mean 'layers'"),
        ("network", "algorithm", 3, r"\[network\]: UnfoldedSettings: algorithm is 3; pass an Algorithm"),
    ],
)
def test_what_is_wrong_in_a_config_is_said_with_its_place(tmp_path, section, name, value, said):
    config = configs(tmp_path / "marker")["unfolded"]
    config[section] = config[section] | {name: value}
    file = tmp_path / "config.toml"
    file.write_text(tomli_w.dumps(config))
    with pytest.raises(ValueError, match=said):
        defaults(file)


def test_a_setting_that_is_missing_is_named(tmp_path):
    config = configs(tmp_path / "marker")["program"]
    del config["problem"]["command"]
    (tmp_path / "config.toml").write_text(tomli_w.dumps(config))
    with pytest.raises(ValueError, match=r"\[problem\]: program lacks command; pass text"):
        defaults(tmp_path / "config.toml")


FAR = """
[[axis]]
kind = "linear-array"
elements = 4
spacing = 0.5
field = 0.8
voxels = 6

[[axis]]
kind = "positions"
positions = [0.0, 0.5, 1.2]
field = [-0.5, 0.5]
voxels = 3

[[axis]]
kind = "frequencies"
first_hz = 76e9
bandwidth_hz = 1e8
count = 4
range_m = [1.0, 1.5]
voxels = 4

[[axis]]
kind = "fourier"
rows = [0, 3, 4]
voxels = 5

[[axis]]
kind = "matrix"
file = "azimuth.npy"
"""
NEAR = """
[near-field]
transmitters_m = [[-0.1, 0.0, 0.0], [0.1, 0.0, 0.0]]
receivers_m = "receivers.npy"
frequencies_hz = [9e9, 10e9]
lowest_m = [-0.2, 0.0, 0.4]
highest_m = [0.2, 0.0, 0.8]
voxels = [4, 1, 4]
"""


@pytest.mark.parametrize("text", [FAR, NEAR], ids=["far", "near"])
def test_geometry_files(tmp_path, text):
    np.save(tmp_path / "azimuth.npy", np.eye(2, 3))
    np.save(tmp_path / "receivers.npy", np.arange(9.0).reshape(3, 3))
    rng, data, file = random.Random(text), tomllib.loads(text), tmp_path / "array.toml"
    file.write_text(text)
    read_geometry(file)
    refusals = []
    for _ in range(PER_GEOMETRY):
        mutant = tomli_w.dumps(changed(data, rng)).encode() if rng.random() < 0.7 else garbled(text.encode(), rng)
        file.write_bytes(mutant)
        refusals.append(refused_or_read(lambda: read_geometry(file)))
    assert sum(said is not None for said in refusals) > PER_GEOMETRY / 2


@pytest.mark.parametrize("name", ["voxels", "elements"])
def test_a_geometry_takes_no_more_memory_than_a_machine_has(tmp_path, name):
    (tmp_path / "array.toml").write_text(FAR.replace(f"{name} = ", f"{name} = 10000000", 1))
    assert peak(lambda: read_geometry(tmp_path / "array.toml")) < 2**24


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside.npy", "link.npy"])
def test_a_geometry_names_files_beside_it_alone(tmp_path, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    np.save(tmp_path / "outside.npy", np.eye(2, 3))
    (folder / "link.npy").symlink_to(tmp_path / "outside.npy")
    (folder / "array.toml").write_text(f'axis = [{{kind = "matrix", file = "{name}"}}]')
    with pytest.raises(ValueError, match="leads out of"):
        read_geometry(folder / "array.toml")


def pairs(folder: Path, **arrays: np.ndarray) -> str:
    rng = np.random.default_rng(0)
    A, x = rng.standard_normal((4, 6)), rng.standard_normal((50, 6))
    np.savez(folder / "pairs.npz", **({"x": x, "y": x @ A.T, "A": A} | arrays))
    return str(folder / "pairs.npz")


def channels(folder: Path) -> np.ndarray:
    rng = np.random.default_rng(0)
    H = (rng.standard_normal((12, 4, 6, 2)) @ np.array([1, 1j])).astype(np.complex64)
    np.save(folder / "H.npy", H)
    np.savez_compressed(folder / "H.npz", H=H)
    scipy.io.savemat(folder / "H.mat", {"H": H})
    with h5py.File(folder / "H.h5", "w") as file:
        file.create_dataset("H", data=H, compression="gzip")
        file["note"] = "measured"
    return H


@pytest.mark.parametrize("suffix", ["npy", "npz", "mat", "h5"])
def test_files_of_channels(tmp_path, suffix):
    H = channels(tmp_path)
    file = tmp_path / f"H.{suffix}"
    assert np.allclose(array_of(file, "" if suffix == "npy" else "H"), H)
    rng, content = random.Random(suffix), file.read_bytes()
    for number in range(PER_DATA):
        mutant = tmp_path / f"{number}.{suffix}"  # each has a name of its own, as sources are kept
        mutant.write_bytes(garbled(content, rng))
        refused_or_read(lambda mutant=mutant: source_of(str(mutant)))


def test_files_of_pairs(tmp_path):
    file = Path(pairs(tmp_path))
    rng, content = random.Random("pairs"), file.read_bytes()
    Pairs(str(file))
    for number in range(PER_DATA):
        mutant = tmp_path / f"{number}.npz"
        mutant.write_bytes(garbled(content, rng))
        refused_or_read(lambda mutant=mutant: Pairs(str(mutant)))


def dataset(folder: Path, **facts: Any) -> Path:
    """A folder of channels with one shard."""
    folder.mkdir(exist_ok=True)
    np.save(folder / "00000.npy", np.ones((6, 2, 1, 3, 2), np.float16))
    layout = {"array": [2], "symbols": 1, "subcarriers": 3, "spacing_hz": 30e3, "carrier_hz": 3.5e9}
    told = {"version": 1, "layout": layout, "shards": ["00000.npy"], "draws": 6, "finished": True}
    recipe = {"recipe": {"model": "x"}, "sha256": ["0"], "raw_power": [1.0], "drawn_by": {}, "hash": "0", "seed": 0}
    (folder / "channels.json").write_text(json.dumps(told | recipe | facts))
    return folder


def test_datasets_of_channels(tmp_path):
    folder = dataset(tmp_path / "set")
    rng, text = random.Random("set"), (folder / "channels.json").read_bytes()

    def read():
        channels_of = Dataset(str(folder))
        channels_of.facts()
        channels_of.draw(2, torch.Generator())

    read()
    for _ in range(2 * PER_DATA):
        mutant = json.dumps(changed(json.loads(text), rng)).encode() if rng.random() < 0.7 else garbled(text, rng)
        (folder / "channels.json").write_bytes(mutant)
        refused_or_read(read)
    (folder / "channels.json").write_bytes(text)
    shard = (folder / "00000.npy").read_bytes()
    for _ in range(PER_DATA):
        (folder / "00000.npy").write_bytes(garbled(shard, rng))
        refused_or_read(read)


@pytest.mark.parametrize("name", ["/etc/passwd", "../00000.npy", "nowhere.npy", ".", ""])
def test_a_dataset_names_shards_in_its_folder_alone(tmp_path, name):
    np.save(tmp_path / "00000.npy", np.ones((6, 2, 1, 3, 2), np.float16))
    with pytest.raises(ValueError, match=r"leads out of|is missing|is a folder"):
        Dataset(str(dataset(tmp_path / "set", shards=[name])))


def test_stores_of_simulations(tmp_path):
    simulator = ff.problems.Simulator(ff.problems.Box((0.0,), (1.0,)), lambda x, generator: 2 * x)
    ff.simulate(simulator, 20, tmp_path / "store")
    rng = random.Random("store")
    for name in ("problem.json", "runs.bin"):
        content = (tmp_path / "store" / name).read_bytes()
        for _ in range(PER_DATA):
            (tmp_path / "store" / name).write_bytes(garbled(content, rng))
            refused_or_read(lambda: ff.problems.Simulations(str(tmp_path / "store")))
        (tmp_path / "store" / name).write_bytes(content)


def test_pictures(tmp_path):
    Image.fromarray(np.arange(64 * 64, dtype=np.uint32).reshape(64, 64).astype(np.uint8)).save(tmp_path / "a.png")
    rng, content = random.Random("picture"), (tmp_path / "a.png").read_bytes()
    for number in range(PER_DATA):
        mutant = tmp_path / f"{number}.png"
        mutant.write_bytes(garbled(content, rng))
        refused_or_read(lambda mutant=mutant: Photographs(pictures=(str(mutant),)))


def peak(read: Callable[[], Any]) -> int:
    """How many bytes were held at once before a file was refused."""
    tracemalloc.start()
    try:
        assert refused_or_read(read) is not None
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def npy_declaring(shape: str, dtype: str = "<f8") -> bytes:
    """An .npy file that declares a shape, and has 80 bytes of data."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(80)


HUGE = "(10000000, 1000, 1000)"  # 73 TiB


def huge_npy(folder: Path) -> Path:
    (folder / "a.npy").write_bytes(npy_declaring(HUGE))
    return folder / "a.npy"


def huge_npz(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.npz", "w") as archive:
        archive.writestr("H.npy", npy_declaring(HUGE))
    return folder / "a.npz"


def lying_npz(folder: Path) -> Path:
    """An archive whose directory says that a small member has 2 GB."""
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("H.npy", npy_declaring("(200000000, 1, 1)"))
    content = bytearray((folder / "a.npz").read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 2_000_000_000)
    (folder / "a.npz").write_bytes(content)
    return folder / "a.npz"


def huge_h5(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("H", shape=(10_000_000, 1000, 1000), dtype="f8", chunks=(1, 10, 10))
    return folder / "a.h5"


def objects(folder: Path) -> Path:
    np.savez(folder / "a.npz", H=np.array([[[{"run": "me"}]]], dtype=object))
    return folder / "a.npz"


@pytest.mark.parametrize("make", [huge_npy, huge_npz, lying_npz, huge_h5, objects])
def test_memory_is_asked_for_as_far_as_a_file_has_numbers(tmp_path, make):
    file = make(tmp_path)
    assert peak(lambda: source_of(str(file))) < 2**23


def external(file: h5py.File, folder: Path) -> None:
    (folder / "secret").write_bytes(bytes(8 * 24))
    file.create_dataset("H", shape=(2, 3, 4), dtype="f8", external=[(str(folder / "secret"), 0, 8 * 24)])


def virtual(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["H"] = np.ones((2, 3, 4))
    layout = h5py.VirtualLayout((2, 3, 4), "f8")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "H", (2, 3, 4))
    file.create_virtual_dataset("H", layout)


def linked(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["H"] = np.ones((2, 3, 4))
    file["H"] = h5py.ExternalLink(str(folder / "other.h5"), "/H")


def softly_linked(file: h5py.File, folder: Path) -> None:
    linked(file, folder)
    file["G"] = h5py.SoftLink("/H")


@pytest.mark.parametrize("make", [external, virtual, linked, softly_linked])
def test_hdf5_leads_to_no_other_file(tmp_path, make):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(file, tmp_path)
    for name in ("H", "G"):
        with pytest.raises(ValueError, match=r"lie in other files|Links to other files are not followed"):
            array_of(tmp_path / "a.h5", name)


@pytest.mark.parametrize("suffix", ["h5", "npz", "mat"])
def test_only_the_named_array_is_read(tmp_path, suffix):
    small, large, file = np.ones((2, 3, 4)), np.zeros(2**22), tmp_path / f"a.{suffix}"
    if suffix == "npz":
        np.savez(file, H=small, large=large)
    elif suffix == "mat":
        scipy.io.savemat(file, {"H": small, "large": large})
    else:
        with h5py.File(file, "w") as out:
            out["H"], out["large"] = small, large
    assert held_arrays(file)["large"].shape[-1] == 2**22
    tracemalloc.start()
    assert np.array_equal(array_of(file, "H"), small)
    assert tracemalloc.get_traced_memory()[1] < large.nbytes / 8
    tracemalloc.stop()


READERS = {
    "pairs": lambda path: Pairs(str(path)),
    "channels": lambda path: source_of(str(path)),
    "geometry": read_geometry,
    "array": array_of,
    "toml": toml_table,
    "json": json_object,
    "pilots": lambda path: ff.propagation.pilot_mask(str(path), 1, 24),
    "picture": lambda path: Photographs(pictures=(str(path),)),
}


@pytest.mark.parametrize("reader", READERS)
def test_pipes_devices_and_folders_are_refused(tmp_path, reader):
    suffix = {"pairs": "npz", "channels": "npz", "geometry": "toml", "picture": "png"}.get(reader, "npy")
    pipe, device, folder = (tmp_path / f"{name}.{suffix}" for name in ("pipe", "device", "folder"))
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    folder.mkdir()
    for path in (pipe, device, folder):
        with pytest.raises(ValueError, match=r"is a (pipe|device|folder): data are|no dataset"):
            READERS[reader](path)


def test_a_file_named_in_a_file_lies_beside_it(tmp_path):
    assert beside(tmp_path, "sub/a.npy") == tmp_path / "sub/a.npy"
    for name in ("/etc/passwd", "../a.npy", "sub/../../a.npy", 3, "a\0b"):
        with pytest.raises(ValueError, match=r"leads out of|is no name"):
            beside(tmp_path, name)
    with pytest.raises(ValueError, match="there is no file"):
        regular_file(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="cannot be read"):
        regular_file(tmp_path / ("a" * 5000))


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a" + ".a" * 3000 + " = 1", "a = 1" + "0" * 5000, "a = \x00"])
def test_deep_or_endless_tables_are_refused(tmp_path, text):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ValueError, match="cannot be read as TOML"):
        toml_table(tmp_path / "a.toml")
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="cannot be read as JSON"):
        json_object(tmp_path / "a.json")


def test_a_picture_beyond_the_limit_is_refused_by_its_size(tmp_path):
    file = io.BytesIO()
    Image.new("1", (9000, 9000)).save(file, format="PNG")
    (tmp_path / "large.png").write_bytes(file.getvalue())
    with pytest.raises(ValueError, match=r"large\.png .*9000 x 9000 pixels.*50 million"):
        Photographs(pictures=(str(tmp_path / "large.png"),))
    header = bytearray(file.getvalue())
    header[16:24] = struct.pack(">II", 60_000, 60_000)
    (tmp_path / "bomb.png").write_bytes(header)
    with pytest.raises(ValueError, match=r"bomb\.png"):
        Photographs(pictures=(str(tmp_path / "bomb.png"),))


def test_a_picture_that_a_program_would_draw_is_none(tmp_path):
    marker = tmp_path / "marker"
    (tmp_path / "a.eps").write_text(
        f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n({marker}) (w) file\n"
    )
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        Photographs(pictures=(str(tmp_path / "a.eps"),))
    assert not marker.exists()


def test_an_operator_that_has_nothing_to_do_with_the_pairs_is_noticed(tmp_path):
    other = np.random.default_rng(1).standard_normal((4, 6))
    with pytest.warns(UserWarning, match=r"‖y - Ax‖² is \d+ % of ‖y‖².*is this the right A"):
        Pairs(pairs(tmp_path, A=other)).A  # noqa: B018
    noise = np.random.default_rng(2).standard_normal((50, 4))
    (tmp_path / "noisy").mkdir()
    (tmp_path / "good").mkdir()
    good = np.load(pairs(tmp_path / "good"))
    Pairs(pairs(tmp_path / "noisy", y=good["y"] + 20 * noise)).A  # noqa: B018 - buried in noise, and rightly no warning
