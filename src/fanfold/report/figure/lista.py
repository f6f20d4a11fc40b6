"""Unfolded LISTA in the figure: its matrices in bytes, as sixteen pairs of them are megabytes in single precision.

A learned deviation is a whole number of -127 to 127 times one factor for each layer and matrix; kept in `lista.zip`.
"""

import json
import tempfile
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fanfold.algorithms import ISTA, LISTA
from fanfold.core.files import write_whole
from fanfold.core.streams import Stream
from fanfold.core.units import nmse_db
from fanfold.evaluation.peers import lam_grid, tuned
from fanfold.observation import Observation
from fanfold.problems.draws import draw
from fanfold.report.figure.built import BuiltProgram, compiled_program, one_draw, zipped
from fanfold.report.figure.manifest import Blocks, Packed, packed, text_parts
from fanfold.report.figure.programs import programs_of, written
from fanfold.report.figure.trained import LAYERS, PROBLEMS
from fanfold.training.fit import fit
from fanfold.unfolding.unfold import Unfolded, unfold

TEXTS = "200x100"
KEY = "unfolded LISTA"
FILE = Path(__file__).parent / "lista.zip"
MATRICES = ("W1", "W2")
LARGEST = 127  # of a byte with a sign
LEARN = {"W1": "per-layer", "W2": "per-layer", "threshold": "per-layer"}


class LISTAParts(NamedTuple):
    """What was learned, and the programs that take its steps.

    Attributes:
        lam: The weight of the l1 norm that it started from.
        threshold: The deviation of each layer's threshold.
        scales: Of each matrix, the factor of each layer.
        whole: Of each matrix, whole numbers `(layers, rows, columns)`.
        nmse_db: Of the network with these, on 1000 held-out draws.
        programs: `lista_start`, `lista_step`, and `lista_matrices`, which makes the matrices of ISTA.

    Example:
        >>> from fanfold.report.figure.lista import kept_lista
        >>> kept_lista().whole["W2"].shape
        torch.Size([16, 200, 200])
    """

    lam: float
    threshold: list[float]
    scales: Mapping[str, list[float]]
    whole: Mapping[str, Tensor]
    nmse_db: float
    programs: Mapping[str, BuiltProgram]


class ISTAMatrices(nn.Module):
    """The matrices of ISTA, `W1 = Aᵀ / L` and `W2 = I - W1 A`, with `1 / L` as an input.

    Example:
        >>> import torch
        >>> from fanfold.report.figure.lista import ISTAMatrices
        >>> ISTAMatrices()(torch.eye(2), torch.tensor([0.5]))[1].tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """

    def forward(self, matrix: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """The matrices `(n, m)` and `(n, n)` of A `(m, n)`."""
        W1 = matrix.mT * step
        return W1, torch.eye(matrix.shape[1]) - torch.matmul(W1, matrix)


@lru_cache
def kept_lista() -> LISTAParts:
    """What `make_lista` gave."""
    with zipfile.ZipFile(FILE) as archive:
        facts = json.loads(archive.read("facts.json"))
        programs = {k: BuiltProgram(archive.read(f"{k}.wasm"), *ports) for k, ports in facts.pop("programs").items()}
        whole = {
            name: torch.from_numpy(np.frombuffer(archive.read(f"{name}.bytes"), np.int8).copy()).reshape(LAYERS, *shape)
            for name, shape in facts.pop("shapes").items()
        }
    return LISTAParts(whole=whole, programs=programs, **facts)


def network(kept: LISTAParts) -> Unfolded:
    """The network as torch runs it."""
    net = unfold(LISTA(kept.lam), PROBLEMS[TEXTS], LAYERS, LEARN)
    net.deviations["threshold"].data.copy_(torch.tensor(kept.threshold))
    for name in MATRICES:
        net.deviations[name].data.copy_(kept.whole[name].float() * torch.tensor(kept.scales[name])[:, None, None])
    return net.requires_grad_(False)


def make_lista(steps: int = 4500) -> LISTAParts:
    """Train the network, round it and compile its step, in some minutes of one core.

    Args:
        steps: Of training.

    Raises:
        ValueError: If clang with wasm-ld is not there.
    """
    problem = PROBLEMS[TEXTS]
    ista = tuned(ISTA, lam_grid(problem), problem, LAYERS)
    assert isinstance(ista, ISTA)
    net = unfold(LISTA(ista.lam), problem, LAYERS, LEARN)
    fit(net, problem, steps=steps, batch=256, lr=2e-3, seed=0)
    learned = {name: d.detach() for name, d in net.deviations.items()}
    scales = {name: learned[name].abs().amax((1, 2)) / LARGEST for name in MATRICES}
    whole = {
        name: (learned[name] / scales[name].clamp_min(1e-30)[:, None, None]).round().to(torch.int8) for name in MATRICES
    }
    threshold = learned["threshold"].flatten().tolist()
    kept = LISTAParts(ista.lam, threshold, {k: v.tolist() for k, v in scales.items()}, whole, 0.0, _programs(ista.lam))
    x, obs = draw(problem, 1000, 0, Stream.TESTING, 0)
    return kept._replace(nmse_db=round(nmse_db(network(kept)(obs).x, x), 3))


def _programs(lam: float) -> dict[str, BuiltProgram]:
    obs = one_draw(PROBLEMS[TEXTS])
    assert obs.A is not None
    with tempfile.TemporaryDirectory() as folder:
        start, step = programs_of(LISTA(lam), obs, Path(folder), "lista")
        given = {"matrix": obs.A.matrix(), "step": _step(obs)}
        matrices = written(ISTAMatrices(), list(MATRICES), given, Path(folder), "lista_matrices")
        return {files.name: compiled_program(files) for files in (start, step, matrices)}


def _step(obs: Observation) -> Tensor:
    assert obs.A is not None
    return torch.as_tensor(obs.A.norm() ** -2).reshape(1).float()


def write_lista(kept: LISTAParts) -> Path:
    """Keep what `make_lista` gave."""
    facts = kept._asdict() | {
        "programs": {key: one[1:] for key, one in kept.programs.items()},
        "shapes": {name: t.shape[1:] for name, t in kept.whole.items()},
    }
    del facts["whole"]
    files = {"facts.json": json.dumps(facts).encode()}
    files |= {f"{name}.bytes": t.numpy().tobytes() for name, t in kept.whole.items()}
    files |= {f"{key}.wasm": one.wasm for key, one in kept.programs.items()}
    write_whole(FILE, zipped(files))
    kept_lista.cache_clear()
    return FILE


def pack_lista() -> Packed:
    """The manifest and the payload of a page with the text's problem and unfolded LISTA beside the other curves."""
    kept, blocks = kept_lista(), Blocks()
    manifest = text_parts([TEXTS], blocks)
    (preset,) = manifest["presets"]
    preset["programs"] |= blocks.programs(kept.programs)
    obs = one_draw(PROBLEMS[TEXTS])
    learned = {
        name: {"at": blocks.add(t.numpy().tobytes()), "scales": kept.scales[name]} for name, t in kept.whole.items()
    }
    matrices: dict[str, Any] = {"program": "lista_matrices", "inputs": {"step": _step(obs).item()}, "learned": learned}
    threshold = LISTA(kept.lam).nominal_theta(obs).threshold
    preset["estimators"].append({
        "key": KEY, "program": "lista", "learned": True, "values": {"threshold": [float(threshold)]}, "follows": {},
        "deviations": {"threshold": kept.threshold}, "matrices": matrices,
    })  # fmt: skip
    preset["nmse_db"] = {**preset["nmse_db"], KEY: kept.nmse_db}
    return packed(manifest, blocks)._replace(path="paths/lista.js")
