"""What the figure is made of: programs, matrices and trained numbers as one block of bytes, and what is where in it."""

import base64
import itertools
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from fanfold.algorithms import AMP, FISTA, ISTA, OAMP, Algorithm
from fanfold.core.table import plain
from fanfold.observation import Observation
from fanfold.problems import CompressedSensing
from fanfold.report.figure.built import ALGORITHMS, BuiltProgram, built, one_draw
from fanfold.report.figure.trained import GUESS, LAYERS, PROBLEMS, SNRS_DB, SPARSITIES, TrainedFigure, kept
from fanfold.report.learned import Deviating
from fanfold.unfolding.loops import iterates

LABELS = {
    "200x100": "200 unknowns from 100",
    "100x50": "100 unknowns from 50",
    "100x34": "100 unknowns from 34",
}


class Packed(NamedTuple):
    """What a page embeds.

    Attributes:
        manifest: Problems, estimators, ports, and where each block lies in the payload.
        payload: The blocks, deflated, in base64.
        path: The file of the guided path, in the folder of the figure.
        world: The module of a topic, in the same folder; None where estimates have layers.

    Example:
        >>> from fanfold.report.figure.manifest import pack
        >>> [preset["key"] for preset in pack(["100x50"]).manifest["presets"]]
        ['100x50']
    """

    manifest: dict[str, Any]
    payload: str
    path: str = "path.js"
    world: str | None = None

    @property
    def manifest_text(self) -> str:
        """The manifest as JSON that may stand in a script element."""
        return json.dumps(plain(self.manifest), separators=(",", ":")).replace("<", "\\u003c")


class Blocks:
    """Bytes one after the other, each from a multiple of four on.

    Example:
        >>> from fanfold.report.figure.manifest import Blocks
        >>> blocks = Blocks()
        >>> blocks.add(b"abc"), blocks.add(b"d")
        ([0, 3], [4, 1])
    """

    def __init__(self):
        self.content = bytearray()

    def add(self, block: bytes) -> list[int]:
        """Where the block begins, and its length."""
        self.content += bytes(-len(self.content) % 4)
        self.content += block
        return [len(self.content) - len(block), len(block)]

    def numbers(self, values: Tensor) -> list[int]:
        """Where numbers in single precision lie."""
        return self.add(values.contiguous().numpy().astype("<f4").tobytes())

    def programs(self, programs: Mapping[str, BuiltProgram]) -> dict[str, Any]:
        """Where programs lie, with their ports, by name."""
        return {
            name: {"wasm": self.add(one.wasm), "inputs": one.inputs, "outputs": one.outputs}
            for name, one in programs.items()
        }


def pack(names: Sequence[str] = tuple(PROBLEMS), run: Deviating | None = None) -> Packed:
    """The manifest and the payload of a page.

    Args:
        names: Its problems, of `trained.PROBLEMS`.
        run: A network that is shown too, on the first problem; see `program_of_run`.

    Raises:
        ValueError: If there is no such problem, or no program for the network.
    """
    blocks = Blocks()
    manifest = text_parts(names, blocks)
    if run is not None:
        if (program := program_of_run(run)) is None:
            raise ValueError(f"the figure has no program for {run.algorithm} with these deviations.")
        deviations = {k: d.flatten().tolist() for k, d in run.deviations.items()}
        obs = one_draw(PROBLEMS[names[0]])
        row = _row("this run", program, run.algorithm, obs, {}, {}, deviations)
        manifest["presets"][0]["estimators"].append(row)
    return packed(manifest, blocks)


def text_parts(names: Sequence[str], blocks: Blocks) -> dict[str, Any]:
    """The manifest of the text's problems, whose arrays and programs go into the blocks.

    Raises:
        ValueError: If there is no such problem.
    """
    if not names or (unknown := [name for name in names if name not in PROBLEMS]):
        which = f"no problem {unknown[0]!r}" if names else "no problem at all"
        raise ValueError(f"the figure has {which}; choose of {', '.join(PROBLEMS)}.")
    presets = [_preset(name, kept()[name], built()[name], blocks) for name in names]
    return {"layers": LAYERS, "snrs": SNRS_DB, "sparsities": SPARSITIES, "presets": presets}


def packed(manifest: dict[str, Any], blocks: Blocks) -> Packed:
    """A manifest with the blocks that it speaks of."""
    return Packed(manifest, base64.b64encode(zlib.compress(bytes(blocks.content), 9)).decode())


def _preset(name: str, trained: TrainedFigure, programs: Mapping[str, BuiltProgram], blocks: Blocks) -> dict[str, Any]:
    problem = PROBLEMS[name]
    U, d, _ = problem.A.svd()
    arrays = {"matrix": problem.A.matrix(), "U": U.matrix(), "d": d}
    return {
        "key": name,
        "label": LABELS[name],
        "n": problem.n,
        "m": problem.m,
        "gain": problem.A.gram_diagonal().sum().item() / problem.m,  # power of a measurement over that of an unknown
        "limits": trained.limits_db,
        "nmse_db": trained.nmse_db,
        "arrays": {key: blocks.numbers(t) for key, t in arrays.items()},
        "programs": blocks.programs(programs),
        "estimators": _estimators(problem, trained),
    }


def _estimators(problem: CompressedSensing, trained: TrainedFigure) -> list[dict[str, Any]]:
    """The curves of the figure: which program, the values of its quantities, and what of these a slider moves."""
    obs, learned, lam = one_draw(problem), trained.deviations, {"threshold": "lam"}
    return [
        _row("ISTA", "ista", ISTA(trained.lam), obs, {}, lam, {}),
        _row("FISTA", "fista", FISTA(trained.fista_lam), obs, {}, lam, {}),
        _row("AMP", "amp", AMP(trained.alpha), obs, {}, {}, {}),
        _row("OAMP", "oamp", OAMP(problem.prior), obs, {"p": [1.0]}, {"p": "sparsity"}, {}),
        _row("unfolded ISTA", "ista", ISTA(trained.lam), obs, {}, {}, learned["ista"]),
        _row("unfolded OAMP", "oamp_estimating", OAMP(GUESS, noise="estimated"), obs, {}, {}, learned["oamp"]),
    ]


def _row(
    key: str,
    program: str,
    algorithm: Algorithm,
    obs: Observation,
    values: Mapping[str, Sequence[float]],
    follows: Mapping[str, str],
    deviations: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    """One curve; a quantity that follows a slider is its value times what the slider says."""
    nominal = {k: [float(v)] for k, v in vars(algorithm.nominal_theta(obs)).items()}
    if "momentum" in nominal:
        nominal["momentum"] = momenta(obs)
    row = {"key": key, "program": program, "learned": bool(deviations), "values": nominal | {**values}}
    return row | {"follows": follows, "deviations": deviations}


def momenta(obs: Observation) -> list[float]:
    """FISTA's factor `(t_k - 1) / t_{k+1}` of each layer, which its program takes as an input."""
    fista = FISTA()
    counts = [fista.start(obs).t, *(s.t for s in iterates(fista, obs, [fista.nominal_theta(obs)] * LAYERS))]
    return [(now - 1) / after for now, after in itertools.pairwise(counts)]


def program_of_run(run: Deviating) -> str | None:
    """The program that takes a network's steps; None where there is none, as for deviations that are vectors."""
    if run.layers != LAYERS or any(d.numel() not in (1, LAYERS) for d in run.deviations.values()):
        return None
    return next((name for name, (one, _) in ALGORITHMS.items() if _kind(one) == _kind(run.algorithm)), None)


def _kind(algorithm: Algorithm) -> tuple[Any, ...]:
    """What a program fixes of an algorithm: all but numbers, and of a prior its kind."""
    settings = vars(algorithm).values()
    return (type(algorithm), *(v if isinstance(v, str | bool) else type(v) for v in settings))
