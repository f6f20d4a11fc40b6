"""Files that were damaged, or made to do harm: each is read, or refused in a sentence, and runs and follows nothing.

The mutants are seeded: configs of several kinds of runs, geometry files, and files of data.
"""

import json
import random
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import tomli_w
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import fanfold as ff
from fanfold.cli.main import run as command
from fanfold.core.array_files import array_of
from fanfold.problems import Pairs, Photographs
from fanfold.problems.rf.geometry_file import read_geometry
from fanfold.propagation import Dataset, source_of
from fanfold.runs.directory import Run
from fanfold.runs.folders import SCHEMA
from fanfold.runs.recipe import build_problem
from fanfold.training.settings import training_for
from sent_files import FAR, NEAR, dataset, pairs, refused_or_read

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
        name: {"schema": SCHEMA, "problem": problem, "network": network, "training": TRAINING}
        for name, (problem, network) in rows.items()
    }


def build_all(folder: Path) -> None:
    """What reading a run directory builds of its config, without its weights."""
    run = Run.open(folder)
    training_for({}, run.section("training"))
    build_problem(run.section("problem"))
    run.settings()


def use_all(folder: Path) -> None:
    """What reading a run directory builds of its config, then all that its verbs ask of it."""
    build_all(folder)
    refused_or_read(Run.open(folder).problem)
    ff.load(folder)


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
        refusals.append(refused_or_read(lambda: use_all(tmp_path)))
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
    for _ in range(PER_DATA // 4):
        file.write_text(tomli_w.dumps(changed(config, rng, SMALL)))
        refused_or_read(lambda: ff.load(tmp_path / "run"))


def with_facts(file: Path, change) -> None:
    """Let the facts beside the tensors of a file be others, with a checksum that holds."""
    tensors = load_file(file)
    with safe_open(file, "pt") as opened:
        facts = json.loads(opened.metadata()["fanfold"])
    save_file(tensors, file, {"fanfold": json.dumps(change(facts) | {"sha256": facts["sha256"]})})


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run with all files that a run can have, and measurements beside it."""
    folder = tmp_path_factory.mktemp("trained")
    problem = ff.problems.LinearGaussian(n=2, m=3)
    ff.fit(ff.neural(problem, width=4), problem, run_dir=folder / "run", steps=2, batch=4, threads=1)
    np.save(folder / "y.npy", np.ones((2, 3), np.float32))
    assert command(applied(folder)) == 0
    return folder


def applied(folder: Path) -> list[str]:
    words = ["apply", str(folder / "run"), str(folder / "y.npy"), "--out", str(folder / "x.npy"), "--overwrite"]
    return [*words, "--coverage", "0.5"]


@pytest.mark.parametrize(
    "name", ["environment.json", "usual.json", "intervals-each-0.5.json", "metrics.jsonl", "checkpoint.safetensors"]
)
def test_what_a_run_keeps_beside_its_config(trained, name, capsys):
    folder, file, rng = trained, trained / "run" / name, random.Random(name)
    content = file.read_bytes()
    verbs = [["runs", str(folder)], applied(folder), ["resume", str(folder / "run")]]
    for _ in range(PER_DATA // 4):
        if name.endswith("safetensors"):
            with_facts(file, lambda facts: changed(facts, rng, SMALL))
        else:
            lines = [json.loads(line) for line in content.splitlines() if name.endswith("jsonl")]
            lines = lines or [json.loads(content)]
            k = rng.randrange(len(lines))
            lines[k] = changed(lines[k], rng) | {key: lines[k][key] for key in ("weights",) if key in lines[k]}
            file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        for words in verbs if name != "intervals-each-0.5.json" else verbs[1:2]:
            code, said = command(words), capsys.readouterr().err
            assert code in (0, 2), said
            assert "fault of fanfold" not in said
        file.write_bytes(content)


@pytest.mark.parametrize("sizes", [{"members": 2**40}, {"width": 2**20}, {"members": 3000}])
def test_a_network_is_built_no_larger_than_its_weights(trained, sizes):
    file = trained / "run" / "config.toml"
    content = file.read_bytes()
    config = tomllib.loads(content.decode())
    file.write_text(tomli_w.dumps(config | {"network": config["network"] | sizes}))
    try:
        with pytest.raises(ValueError, match="do not fit the network: it has far more than their"):
            ff.load(trained / "run")
    finally:
        file.write_bytes(content)


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
    config = configs(tmp_path / "marker")["unfolded"]
    config["problem"] = {"name": "program"}
    (tmp_path / "config.toml").write_text(tomli_w.dumps(config))
    with pytest.raises(ValueError, match=r"\[problem\]: program lacks command; pass text"):
        defaults(tmp_path / "config.toml")


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
