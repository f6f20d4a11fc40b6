"""Figures of other worlds: a photograph, an RF scene, a channel, and LISTA; their programs say what torch says."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.cli import main as cli
from fanfold.observation import Observation
from fanfold.report.figure.lista import KEY, kept_lista, network, pack_lista
from fanfold.report.figure.manifest import Packed
from fanfold.report.figure.trained import LAYERS, PROBLEMS
from fanfold.report.figure.world_manifest import pack_world
from fanfold.report.figure.worlds import PICTURED, kept_world
from fanfold.report.figure.worlds.described import WORLDS
from fanfold.report.figure.worlds.kept import write_world
from fanfold.report.figure.worlds.made import c_of, noise_var_of, observed
from fanfold.report.figure.worlds.whole_curve import WholeCurve
from machines import need
from test_figure import bits_that_differ, modules_in

HERE = Path(__file__).parent
EPS = float(np.finfo(np.float32).eps)
MOST_BYTES = dict.fromkeys(PICTURED, 1_000_000) | {"lista": 2_000_000}
DRAWS = 2


def said_in_node(packed: Packed, folder: Path, snr_db: float, **others: float) -> torch.Tensor:
    """What the page's engine says of some draws, `(draws, numbers)`."""
    need("node")
    modules_in(folder)
    (folder / "manifest.json").write_text(packed.manifest_text)
    (folder / "payload.b64").write_text(packed.payload)
    script = str(HERE / "worlds_in_node.mjs")
    subprocess.run(["node", script, str(folder), str(snr_db), str(DRAWS), json.dumps(others)], check=True)
    return torch.from_numpy(np.fromfile(folder / "world.bin", np.float32)).reshape(DRAWS, -1)


@pytest.mark.parametrize("world", MOST_BYTES)
def test_a_page_of_a_world_is_small_and_shows_it(world, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert cli.run(["figure", "--world", world, "--out", str(page)]) == 0
    assert page.stat().st_size <= MOST_BYTES[world]
    assert "<fanfold-figure>" in page.read_text()


def test_worlds_that_there_are_not_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no world 'rff'; choose of text, lista"):
        ff.figure(tmp_path / "page.html", world="rff")
    with pytest.raises(ValueError, match="has no sizes to choose"):
        ff.figure(tmp_path / "page.html", ["100x50"], world="rf")


@torch.no_grad()
@pytest.mark.parametrize("name", PICTURED)
def test_every_layer_of_every_estimator_is_what_torch_says(name, tmp_path):
    world, kept = WORLDS[name], kept_world(name)
    said = said_in_node(pack_world(name), tmp_path, world.snr_db)
    is_complex, signals = kept.facts["parts"] == 2, world.signals()
    A, n = world.problem.A, kept.signals.shape[1]
    assert A is not None

    def joined(flat: torch.Tensor) -> torch.Tensor:
        return torch.view_as_complex(flat.unflatten(-1, (-1, 2)).contiguous()) if is_complex else flat

    noise_var = torch.full((DRAWS, 1), noise_var_of(name, world.snr_db))
    pixels = world.pixels(signals[:DRAWS]).flatten(1)
    sizes = [n, A.m * kept.facts["parts"], pixels.shape[1]]
    x, y, shown, rest = said.split([*sizes, said.shape[1] - sum(sizes)], 1)
    assert torch.equal(joined(x), signals[:DRAWS])
    assert (shown - pixels).abs().max() <= 100 * EPS * pixels.abs().max()
    noise = joined(y) - A @ signals[:DRAWS]
    assert 0.7 < (noise.abs().square().mean() / noise_var[0]).item() < 1.4  # of 64 numbers or more, 1 ± 0.35 at 2 σ
    obs = Observation(joined(y), A, noise_var)
    for estimator, layers in zip(
        world.estimators(kept.weights).values(), rest.reshape(DRAWS, -1, world.layers, n).unbind(1), strict=True
    ):
        wanted = WholeCurve(estimator)(obs).x.unflatten(-1, (-1, signals.shape[1]))
        wanted = wanted[:, [min(t, wanted.shape[1] - 1) for t in range(world.layers)]]
        # sums in another order, up to sixteen layers deep, of operators whose gain is below 3
        assert (joined(layers) - wanted).abs().max() <= 3e3 * EPS * wanted.abs().max()


def test_scenes_may_be_denser_and_seen_by_another_operator_than_is_believed(tmp_path):
    problem, kept = WORLDS["rf"].problem, kept_world("rf").signals[:DRAWS]
    A, n = problem.A, kept.shape[1]
    assert A is not None
    said = said_in_node(pack_world("rf"), tmp_path, 200.0, sparsity=0.3, mismatch=0.2, gain=2.0)

    def joined(flat: torch.Tensor) -> torch.Tensor:
        return torch.view_as_complex(flat.unflatten(-1, (-1, 2)).contiguous())

    x, y = joined(said[:, :n]), joined(said[:, n : n + 2 * A.m])
    before = joined(kept)
    assert torch.equal(x[before != 0], before[before != 0])
    assert (x != 0).float().mean().item() == pytest.approx(0.3, abs=0.04)  # 4 deviations of 2048 entries
    added = x[(x != 0) & (before == 0)]
    assert added.abs().square().mean().item() == pytest.approx(1, abs=0.2)  # 4 deviations of some 400 exponentials
    off = y / 2 - A @ x
    # as large as A x itself but for chance: columns of one norm, in another order
    assert (off.norm() / (A @ x).norm()).item() == pytest.approx(0.2, rel=0.15)


@pytest.mark.parametrize("name", PICTURED)
def test_errors_that_are_kept_are_those_of_torch(name):
    world, kept = WORLDS[name], kept_world(name)
    x = world.signals()
    obs = observed(name, x, world.snr_db)
    with torch.no_grad():
        for row, estimator in zip(kept.facts["estimators"], world.estimators(kept.weights).values(), strict=True):
            assert ff.units.nmse_db(estimator(obs).x, x) == pytest.approx(row["nmse_db"][-1], abs=0.02)
    *rest, learned = (row["nmse_db"][-1] for row in kept.facts["estimators"])
    assert learned < min(rest)


def test_webassembly_and_compiled_c_say_the_same_bits_of_a_world(tmp_path):
    """On a thousand inputs, of complex numbers in pairs."""
    need("clang", "wasm-ld", "node", "gcc")
    name, count = "channel", 1000
    programs = {files.name: files for files in c_of(name, kept_world(name).weights, tmp_path, only=2)}
    files = programs["estimator_1"]
    draws, given = np.random.default_rng(0), {}
    for memory in files.program.inputs:
        of_noise = memory.name == "noise_var"
        given[memory.name] = draws.uniform(0.01, 1, (count, 1)) if of_noise else draws.normal(size=(count, memory.size))
    assert bits_that_differ(files, given, count, tmp_path) == 0


@torch.no_grad()
def test_lista_in_the_page_is_lista_of_torch(tmp_path):
    packed, problem = pack_lista(), PROBLEMS["200x100"]
    keys = [row["key"] for row in packed.manifest["presets"][0]["estimators"]]
    assert keys[-1] == KEY
    said = said_in_node(packed, tmp_path, 20.0)
    y, rest = said[:, problem.n : problem.n + problem.m], said[:, problem.n + problem.m :]
    layers = rest.reshape(DRAWS, len(keys), LAYERS, problem.n)
    obs = Observation(y, problem.A, torch.tensor(problem.noise_var))
    wanted = torch.stack([estimate.x for estimate in network(kept_lista()).trajectory(obs)], 1)
    assert (layers[:, -1] - wanted).abs().max() <= 1e3 * EPS * wanted.abs().max()  # as the other curves of this page
    x, obs = problem.sample(500, torch.Generator().manual_seed(3))
    # errors of 500 draws scatter by 0.2 dB
    assert ff.units.nmse_db(network(kept_lista())(obs).x, x) == pytest.approx(kept_lista().nmse_db, abs=0.8)


def test_a_world_is_kept_and_comes_back(tmp_path, monkeypatch):
    world = kept_world("channel")
    monkeypatch.setattr("fanfold.report.figure.worlds.kept.FOLDER", tmp_path)
    write_world("channel", world, tmp_path)
    try:
        again = kept_world("channel")
    finally:
        kept_world.cache_clear()
    assert again.facts == world.facts
    assert again.programs == world.programs
    assert torch.equal(again.signals, world.signals)
    assert {k: v.tolist() for k, v in again.weights.items()} == {k: v.tolist() for k, v in world.weights.items()}
