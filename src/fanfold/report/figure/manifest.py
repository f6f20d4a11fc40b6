"""What the figure is made of: programs, matrices and trained numbers as one block of bytes, and what is where in it."""

import base64
import itertools
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fanfold.algorithms import AMP, FISTA, ISTA, OAMP, Algorithm
from fanfold.core.table import plain
from fanfold.observation import Observation
from fanfold.problems import CompressedSensing
from fanfold.report.figure.built import BuiltProgram, built, one_draw
from fanfold.report.figure.trained import GUESS, LAYERS, PROBLEMS, SNRS_DB, SPARSITIES, TrainedFigure, kept
from fanfold.unfolding.loops import iterates

LABELS = {
    "200x100": "200 unknowns from 100 (text's)",
    "100x50": "100 unknowns from 50",
    "100x34": "100 unknowns from 34",
}


class Packed(NamedTuple):
    """What a page embeds.

    Attributes:
        manifest: Problems, estimators, ports, and where each block lies in the payload.
        payload: The blocks, deflated, in base64.

    Example:
        >>> from fanfold.report.figure.manifest import pack
        >>> [preset["key"] for preset in pack(["100x50"]).manifest["presets"]]
        ['100x50']
    """

    manifest: dict[str, Any]
    payload: str

    @property
    def manifest_text(self) -> str:
        """The manifest as JSON that may stand in a script element."""
        return json.dumps(plain(self.manifest), separators=(",", ":")).replace("<", "\\u003c")


class _Blocks:
    """Bytes one after the other, each from a multiple of four on."""

    def __init__(self):
        self.content = bytearray()

    def add(self, block: bytes) -> list[int]:
        """Where the block begins, and its length."""
        self.content += bytes(-len(self.content) % 4)
        self.content += block
        return [len(self.content) - len(block), len(block)]


def pack(
    names: Sequence[str] = tuple(PROBLEMS), programs: Mapping[str, Mapping[str, BuiltProgram]] | None = None
) -> Packed:
    """The manifest and the payload of a page.

    Args:
        names: Its problems, of `trained.PROBLEMS`.
        programs: Their programs by problem and name; those that are kept if None.

    Raises:
        ValueError: If there is no such problem.
    """
    if unknown := [name for name in names if name not in PROBLEMS]:
        raise ValueError(f"the figure has no problem {unknown[0]!r}; choose of {', '.join(PROBLEMS)}.")
    blocks = _Blocks()
    programs = built() if programs is None else programs
    presets = [_preset(name, kept()[name], programs[name], blocks) for name in names]
    manifest = {"layers": LAYERS, "snrs": SNRS_DB, "sparsities": SPARSITIES, "presets": presets}
    return Packed(manifest, base64.b64encode(zlib.compress(bytes(blocks.content), 9)).decode())


def _preset(name: str, trained: TrainedFigure, programs: Mapping[str, BuiltProgram], blocks: _Blocks) -> dict[str, Any]:
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
        "arrays": {key: blocks.add(t.contiguous().numpy().astype("<f4").tobytes()) for key, t in arrays.items()},
        "programs": {
            key: {"wasm": blocks.add(one.wasm), "inputs": one.inputs, "outputs": one.outputs}
            for key, one in programs.items()
        },
        "estimators": _estimators(problem, trained),
    }


def _estimators(problem: CompressedSensing, trained: TrainedFigure) -> list[dict[str, Any]]:
    """The curves of the figure: which program, the values of its quantities, and what of these a slider moves."""
    obs, learned = one_draw(problem), trained.deviations
    fista = FISTA(trained.fista_lam)
    momentum = {"momentum": momenta(fista, obs)}
    lam = {"threshold": "lam"}
    rows: list[tuple[str, str, Algorithm, Mapping[str, Any], Mapping[str, str], Mapping[str, Any]]] = [
        ("ISTA", "ista", ISTA(trained.lam), {}, lam, {}),
        ("FISTA", "fista", fista, momentum, lam, {}),
        ("AMP", "amp", AMP(trained.alpha), {}, {}, {}),
        ("OAMP", "oamp", OAMP(problem.prior), {"p": [1.0]}, {"p": "sparsity"}, {}),
        ("unfolded ISTA", "ista", ISTA(trained.lam), {}, {}, learned["ista"]),
        ("unfolded OAMP", "oamp_estimating", OAMP(GUESS, noise="estimated"), {}, {}, learned["oamp"]),
    ]
    return [
        {
            "key": key,
            "program": program,
            "learned": bool(deviations),
            "values": {k: [float(v)] for k, v in vars(algorithm.nominal_theta(obs)).items()} | {**values},
            "follows": follows,
            "deviations": deviations,
        }
        for key, program, algorithm, values, follows, deviations in rows
    ]


def momenta(fista: FISTA, obs: Observation) -> list[float]:
    """The paper's factor `(t_k - 1) / t_{k+1}` of each layer, which its program takes as an input."""
    counts = [fista.start(obs).t, *(s.t for s in iterates(fista, obs, [fista.nominal_theta(obs)] * LAYERS))]
    return [(now - 1) / after for now, after in itertools.pairwise(counts)]
