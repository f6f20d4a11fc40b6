"""The figure's programs: made by `make_programs`, which needs clang, and kept in `programs.zip` for pages to take."""

import io
import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fanfold.algorithms import AMP, FISTA, ISTA, OAMP, Algorithm
from fanfold.core.files import write_whole
from fanfold.deploy.codegen import CFiles, compile_wasm
from fanfold.observation import Observation
from fanfold.problems import CompressedSensing
from fanfold.report.figure.programs import (
    VECTORS,
    MeasuredSum,
    RightFactor,
    Swap,
    as_it_is,
    inputs_of,
    prior_of_ports,
    programs_of,
    written,
)
from fanfold.report.figure.trained import GUESS, PROBLEMS

FILE = Path(__file__).parent / "programs.zip"
PORTS = "ports.json"
FACTS = "facts.json"  # of an archive that keeps more than programs
SMALL = (*VECTORS, "-O2", "-Wl,--strip-all")
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # of files in the archive, so that the same programs are the same bytes
ALGORITHMS: dict[str, tuple[Algorithm, Swap]] = {  # by the name of their programs
    "ista": (ISTA(), as_it_is),
    "fista": (FISTA(), as_it_is),
    "amp": (AMP(), as_it_is),
    "oamp": (OAMP(GUESS), prior_of_ports),
    "oamp_estimating": (OAMP(GUESS, noise="estimated"), prior_of_ports),
}


class BuiltProgram(NamedTuple):
    """One program, and its ports by name with their sizes.

    Attributes:
        wasm: Its bytes; it exports `call`, and `at_PORT` for each port.
        inputs: What it looks at.
        outputs: What it gives.

    Example:
        >>> from fanfold.report.figure.built import built
        >>> built()["200x100"]["ista_step"].outputs
        {'new_x': 200}
    """

    wasm: bytes
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


@lru_cache
def built() -> dict[str, dict[str, BuiltProgram]]:
    """The programs that `write_programs` kept, by problem and name."""
    with zipfile.ZipFile(FILE) as archive:
        rows: dict[str, dict[str, Any]] = json.loads(archive.read(PORTS))
        return {
            problem: {
                name: BuiltProgram(archive.read(f"{problem}/{name}.wasm"), *ports) for name, ports in programs.items()
            }
            for problem, programs in rows.items()
        }


def c_of(problem: CompressedSensing, folder: Path) -> Iterator[CFiles]:
    """The C of every program of a problem, each written as it is asked for.

    Args:
        problem: Its sizes, and the norms of the columns of its A, are in the programs.
        folder: Where the C goes.
    """
    obs = one_draw(problem)
    assert obs.A is not None
    matrix, (U, d, _) = obs.A.matrix(), obs.A.svd()
    yield written(
        MeasuredSum(), ["z"], {"y": obs.y, "matrix": matrix, "x": torch.ones(1, problem.n)}, folder, "measured"
    )
    yield written(RightFactor(), ["V"], {"matrix": matrix, "U": U.matrix(), "d": d}, folder, "right_factor")
    for name, (algorithm, swap) in ALGORITHMS.items():
        yield from programs_of(algorithm, obs, folder, name, swap)


def one_draw(problem: CompressedSensing) -> Observation:
    """One observation `(1, m)` with its noise variance `(1, 1)`."""
    obs = problem.sample(1, torch.Generator().manual_seed(0))[1]
    return Observation(obs.y, obs.A, torch.as_tensor(obs.noise_var).reshape(1, 1))


def make_programs(names: Sequence[str] = tuple(PROBLEMS)) -> dict[str, dict[str, BuiltProgram]]:
    """Every program of some problems, in about a minute of one core.

    Raises:
        ValueError: If clang with wasm-ld is not there.
    """
    return {name: _of_problem(PROBLEMS[name]) for name in names}


def _of_problem(problem: CompressedSensing) -> dict[str, BuiltProgram]:
    programs = {}
    with tempfile.TemporaryDirectory() as folder:
        for files in c_of(problem, Path(folder)):
            programs[files.name] = compiled_program(files)
    return programs


def compiled_program(files: CFiles) -> BuiltProgram:
    """A program as WebAssembly, with the inputs that it looks at.

    Raises:
        ValueError: If clang with wasm-ld is not there.
    """
    sizes = {m.name: m.size for m in files.program.inputs}
    inputs, outputs = {n: sizes[n] for n in inputs_of(files)}, {m.name: m.size for m in files.program.outputs}
    return BuiltProgram(compile_wasm(files, SMALL)[-2].read_bytes(), inputs, outputs)


def write_programs(programs: Mapping[str, Mapping[str, BuiltProgram]]) -> Path:
    """Keep what `make_programs` gave."""
    ports = {problem: {name: one[1:] for name, one in rows.items()} for problem, rows in programs.items()}
    files = {f"{problem}/{name}.wasm": one.wasm for problem, rows in programs.items() for name, one in rows.items()}
    write_whole(FILE, zipped({PORTS: json.dumps(ports).encode()} | files))
    built.cache_clear()
    return FILE


def with_programs(facts: Mapping[str, Any], programs: Mapping[str, BuiltProgram]) -> dict[str, bytes]:
    """Files of an archive: programs, and `facts.json` with their ports among the facts."""
    whole = {**facts, "programs": {name: one[1:] for name, one in programs.items()}}
    return {FACTS: json.dumps(whole).encode()} | {f"{name}.wasm": one.wasm for name, one in programs.items()}


def kept_programs(archive: zipfile.ZipFile) -> tuple[dict[str, Any], dict[str, BuiltProgram]]:
    """The facts and the programs that `with_programs` put there."""
    facts = json.loads(archive.read(FACTS))
    rows = facts.pop("programs").items()
    return facts, {name: BuiltProgram(archive.read(f"{name}.wasm"), *ports) for name, ports in rows}


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Files by name as one archive, without dates, so that the same content is the same bytes."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, LONG_AGO)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return whole.getvalue()
