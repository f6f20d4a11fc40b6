"""Outputs of integer programs that are not the player's, as one table; long, as each runtime is called its own way.

    python benchmarks/authorities.py [lista-cp mixer ...] [--outputs 1000000] [--runtimes "ONNX Runtime" wasm32 ...]

Rows are programs in W8A8, columns what runs them: PyTorch, ONNX Runtime optimised and not, and on a processor without
VNNI, OpenVINO, the C for the instructions of this processor, for AVX2 and for SSE2 alone, on aarch64 and 32-bit ARM
(qemu), wasm32 in Node, the C of a second compiler of ONNX (emx), Arm's model of TOSA. Half of the inputs are
measurements, as many as there are, the others have any size up to the ends of the ports. What is slow plays a part of
them: a cell says how many differ, and of how many where it is not all. A cell that cannot be says why.

Cells are kept in a file of JSON lines when they are there, so that a stopped run goes on where it was. TOSA asks for an
older NumPy: `.ci/run` shows how an environment is made that has both; this runs whole in it.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from flagship_networks import SCALARS, Made, channel, imaging, sparse

import fanfold as ff
from fanfold.core.table import Table
from fanfold.deploy.integer import (
    CompiledProgram,
    IntegerProgram,
    TorchProgram,
    drafted,
    golden_vectors,
    in_single_precision,
    play,
    program_to_c,
    program_to_onnx,
    program_to_wasm,
)
from fanfold.deploy.release.hashes import code_hash
from fanfold.estimators import quantised
from fanfold.estimators.ofdm import CNNSettings, FilterSettings, KroneckerGMM, MixerSettings, Mixture

PART = 50  # samples at a time, for the memory's sake
Numbers = Mapping[str, np.ndarray]
TESTS = Path(__file__).parents[1] / "tests"  # where programs are written as TOSA graphs


class Case(NamedTuple):
    """A program with inputs, and what the player makes of them."""

    program: IntegerProgram
    inputs: Numbers
    wanted: Numbers

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(next(iter(self.inputs.values())))

    def first(self, count: int) -> "Case":
        """The first measurements and the first of the others."""
        half, count = self.count // 2, min(count, self.count)
        at = np.r_[: -(-count // 2), half : half + count // 2]
        return Case(self.program, *({name: v[at] for name, v in part.items()} for part in (self.inputs, self.wanted)))

    def parts(self) -> Iterator[dict[str, np.ndarray]]:
        """The inputs, some at a time."""
        for start in range(0, self.count, PART):
            yield {name: values[start : start + PART] for name, values in self.inputs.items()}

    def joined(self, said: list[list[np.ndarray]]) -> dict[str, np.ndarray]:
        """The outputs of all parts, by name."""
        return {port.name: np.concatenate(parts) for port, parts in zip(self.program.outputs, zip(*said))}


# Programs

MEASURED: dict[str, Any] = {"samples": 1000, "seed": 2, "snr_db": 40.0}
PROGRAMS: dict[str, Made] = {
    "lista-cp": sparse(ff.algorithms.LISTACP(0.1), 16, ("W", "threshold"), **MEASURED),
    "alista": sparse(ff.algorithms.ALISTA(), 16, ("step", "threshold"), **MEASURED),
    "adaptive alista": sparse(ff.algorithms.ALISTAAT(), 16, ("alpha", "ridge"), **MEASURED),
    "oamp": sparse(ff.algorithms.OAMP(ff.priors.BernoulliGaussian(0.1)), 10, SCALARS, **MEASURED),
    "kronecker oamp": imaging(250),
    "mixer": channel(lambda problem: MixerSettings().build(problem), "comb-4", moved=True),
    "grid cnn": channel(lambda problem: CNNSettings().build(problem), "comb-4", moved=True),
    "filters": channel(lambda problem: FilterSettings().build(problem), "comb-4", moved=True),
    "mixture": channel(
        lambda problem: KroneckerGMM.of(problem, Mixture.of(problem, 8, 300, rounds=2, modes=12)), "comb-4", moved=True
    ),
}


def case_of(name: str, outputs: int) -> Case:
    """A program in W8A8 whose products of bytes saturate nowhere, with inputs for so many outputs."""
    net, obs = PROGRAMS[name]()
    whole = quantised(net, "w8a8", obs, pairs_fit=True)
    program = drafted(whole, name.replace(" ", "_").replace("-", "_"))
    count = -(-outputs // sum(port.size for port in program.outputs))
    seen = {
        port.name: whole.form.numbers(obs)[port.name][: count // 2].resolve_conj().numpy() for port in program.inputs
    }
    drawn = golden_vectors(program, count=count - len(next(iter(seen.values())))).inputs
    inputs = {port.name: np.concatenate([port.integers(seen[port.name]), drawn[port.name]]) for port in program.inputs}
    case = Case(program, inputs, {})
    return case._replace(wanted=case.joined([list(play(program, part).values()) for part in case.parts()]))


# Runtimes


def in_torch(case: Case, folder: Path) -> Numbers:
    """PyTorch."""
    run, names = TorchProgram(case.program), [port.name for port in case.program.outputs]
    said = [run({name: torch.from_numpy(v) for name, v in part.items()}) for part in case.parts()]
    return case.joined([[part[name].numpy() for name in names] for part in said])


def in_onnxruntime(case: Case, folder: Path, *, optimised: bool = True) -> Numbers:
    """ONNX Runtime on one thread."""
    import onnxruntime

    options, levels = onnxruntime.SessionOptions(), onnxruntime.GraphOptimizationLevel
    options.intra_op_num_threads = 1
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    path = program_to_onnx(case.program, folder / "p.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return case.joined([session.run(None, part) for part in case.parts()])


SESSION = """
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("p.onnx", providers=["CPUExecutionProvider"])
np.savez("said.npz", *session.run(None, dict(np.load("given.npz"))))
"""


def in_onnxruntime_without_vnni(case: Case, folder: Path) -> Numbers:
    """ONNX Runtime on a processor that has AVX2 alone, under qemu."""
    haswell = needed("qemu-x86_64", "-cpu", "Haswell")
    program_to_onnx(case.program, folder / "p.onnx")
    np.savez(folder / "given.npz", **case.inputs)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
    command = [*haswell, os.path.realpath(sys.executable), "-c", SESSION]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    said = np.load(folder / "said.npz")
    return {port.name: said[key] for port, key in zip(case.program.outputs, said.files)}


def in_openvino(case: Case, folder: Path) -> Numbers:
    """OpenVINO on one thread, the program in single precision, as it has no double one."""
    import openvino  # pyrefly: ignore

    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    path = program_to_onnx(in_single_precision(case.program), folder / "p.onnx")
    model = openvino.Core().compile_model(str(path), "CPU", settings)
    return case.joined([[np.array(value) for value in model(part).values()] for part in case.parts()])


def in_c(case: Case, folder: Path) -> Numbers:
    """The C, compiled for this processor."""
    return CompiledProgram(case.program)(case.program, case.inputs)


def in_tosa(case: Case, folder: Path) -> Numbers:
    """Arm's reference model of TOSA."""
    import tosa_reference_model  # noqa: F401  # pyrefly: ignore

    sys.path.insert(0, str(TESTS))
    from tosa_form import TosaGraph  # pyrefly: ignore

    graphs = {size: TosaGraph(case.program, size) for size in {len(next(iter(p.values()))) for p in case.parts()}}
    return case.joined([[*graphs[len(next(iter(p.values())))].run(p).values()] for p in case.parts()])


MAIN = """#include <stdio.h>
#include "{name}.h"
{arrays}
int main(void)
{{
    while ({read}) {{
        {name}_run({pointers});
        {write}
    }}
    return 0;
}}
"""
OTHER_MAIN = MAIN.replace('"{name}.h"', "<stdint.h>\nvoid other();").replace("{name}_run", "other")
NODE = """
import {load} from './%s.mjs';
import {readFileSync, writeFileSync} from 'fs';
const net = await load(readFileSync('%s.wasm')), given = JSON.parse(readFileSync('given.json'));
const ports = Object.keys(given), said = {};
for (let k = 0; k < given[ports[0]].length; k++) {
  const outputs = net.run(Object.fromEntries(ports.map(name => [name, given[name][k]])));
  for (const name in outputs) (said[name] ??= []).push([...outputs[name]]);
}
writeFileSync('said.json', JSON.stringify(said));
"""


def needed(*command: str) -> tuple[str, ...]:
    """A command whose program is there.

    Raises:
        ImportError: If it is not.
    """
    if shutil.which(command[0]) is None:
        raise ImportError(f"needs {command[0]}")
    return command


def written(case: Case, folder: Path, template: str) -> list[int]:
    """Write the C, what calls it, and the inputs of each sample one after the other; the bytes of each port."""
    program_to_c(case.program).write(folder)
    ports = [*case.program.inputs, *case.program.outputs]
    names = [f"v_{port.name}" for port in ports]
    ins, outs = names[: len(case.program.inputs)], names[len(case.program.inputs) :]
    text = template.format(
        name=case.program.name,
        arrays="\n".join(f"static {port.dtype}_t {name}[{port.size}];" for port, name in zip(ports, names)),
        pointers=", ".join(names),
        read=" && ".join(f"fread({name}, sizeof {name}, 1, stdin) == 1" for name in ins),
        write=" ".join(f"fwrite({name}, sizeof {name}, 1, stdout);" for name in outs),
    )
    (folder / "main.c").write_text(text)
    given = [np.ascontiguousarray(case.inputs[p.name]).reshape(case.count, -1).view("u1") for p in case.program.inputs]
    (folder / "given").write_bytes(np.concatenate(given, 1).tobytes())
    return [port.size * np.dtype(port.dtype).itemsize for port in ports]


def read_back(case: Case, said: bytes, sizes: list[int]) -> Numbers:
    """The outputs of samples one after the other."""
    whole, start, outputs = np.frombuffer(said, "u1").reshape(case.count, -1), 0, {}
    for port, size in zip(case.program.outputs, sizes[len(case.program.inputs) :]):
        part = np.ascontiguousarray(whole[:, start : start + size])
        outputs[port.name], start = part.view(port.dtype).reshape(-1, *port.shape), start + size
    return outputs


def on_machine(compiler: tuple[str, ...], player: tuple[str, ...] = ()) -> Callable[[Case, Path], Numbers]:
    """The C, compiled for other instructions and played by what can play them."""

    def run(case: Case, folder: Path) -> Numbers:
        command, player_there = needed(*compiler), needed(*player) if player else ()
        sizes = written(case, folder, MAIN)
        source = f"{case.program.name}.c"
        subprocess.run([*command, "-static", source, "main.c", "-o", "played"], cwd=folder, check=True)
        with (folder / "given").open() as given:
            done = subprocess.run([*player_there, "./played"], cwd=folder, stdin=given, capture_output=True, check=True)
        return read_back(case, done.stdout, sizes)

    return run


def in_wasm(case: Case, folder: Path) -> Numbers:
    """The module of WebAssembly, in Node."""
    node = needed("node")
    program_to_wasm(case.program, folder)
    given = {name: values.reshape(len(values), -1).tolist() for name, values in case.inputs.items()}
    (folder / "given.json").write_text(json.dumps(given))
    (folder / "run.mjs").write_text(NODE % (case.program.name, case.program.name))
    subprocess.run([*node, "run.mjs"], cwd=folder, check=True)
    said = json.loads((folder / "said.json").read_text())
    return {name: np.array(said[name]).reshape(wanted.shape) for name, wanted in case.wanted.items()}


def in_second_compiler(case: Case, folder: Path) -> Numbers:
    """The C of another compiler of ONNX, one sample after the other; its values lie on the stack."""
    import emx_onnx_cgen.cli as compiler  # pyrefly: ignore

    path, options = (
        program_to_onnx(case.program, folder / "p.onnx"),
        ["--model-name", "other", "--input-dim", "batch=1"],
    )
    options += ["--large-weight-threshold", "0", "--large-temp-threshold", "0"]
    compiler.main(["compile", *options, str(path), str(folder / "other.c")])
    sizes = written(case, folder, OTHER_MAIN)
    subprocess.run([*needed("gcc"), "-O2", "other.c", "main.c", "-o", "played", "-lm"], cwd=folder, check=True)
    command = ["bash", "-c", "ulimit -s unlimited; ./played"]
    with (folder / "given").open() as given:
        done = subprocess.run(command, cwd=folder, stdin=given, capture_output=True, check=True)
    return read_back(case, done.stdout, sizes)


class Runtime(NamedTuple):
    """What runs programs, and which part of the inputs it plays."""

    run: Callable[[Case, Path], Numbers]
    part: float = 1.0


RUNTIMES = {
    "PyTorch": Runtime(in_torch),
    "ONNX Runtime": Runtime(in_onnxruntime),
    "not optimised": Runtime(lambda case, folder: in_onnxruntime(case, folder, optimised=False)),
    "without VNNI": Runtime(in_onnxruntime_without_vnni, 0.1),
    "OpenVINO": Runtime(in_openvino),
    "C": Runtime(in_c),
    "C, AVX2": Runtime(on_machine(("gcc", "-O3", "-mavx2"))),
    "C, SSE2": Runtime(on_machine(("gcc", "-O3"))),
    "aarch64": Runtime(on_machine(("aarch64-linux-gnu-gcc", "-O2"), ("qemu-aarch64",))),
    "armhf": Runtime(on_machine(("arm-linux-gnueabihf-gcc", "-O2"), ("qemu-arm",))),
    "wasm32": Runtime(in_wasm),
    "emx C": Runtime(in_second_compiler),
    "TOSA": Runtime(in_tosa),
}


def cell(case: Case, runtime: str) -> dict[str, Any]:
    """How many outputs of a program differ in one runtime, or why it cannot be said."""
    how, began = RUNTIMES[runtime], time.perf_counter()
    part = case if how.part == 1 else case.first(max(4, round(case.count * how.part)))
    said: dict[str, Any] = {"runtime": runtime, "outputs": sum(v.size for v in part.wanted.values())}
    try:
        with tempfile.TemporaryDirectory() as folder:
            outputs = how.run(part, Path(folder))
        said["differ"] = sum(int((outputs[name] != wanted).sum()) for name, wanted in part.wanted.items())
    except (ImportError, ValueError, RuntimeError, OSError, SystemExit, subprocess.CalledProcessError) as error:
        (first, *_) = str(error).strip().splitlines() or [type(error).__name__]
        said["why"] = first[:100]
    return said | {"seconds": round(time.perf_counter() - began, 1)}


def shown(said: dict[str, Any] | None, most: int) -> str:
    """A cell of the table."""
    if said is None:
        return ""
    if "why" in said:
        return said["why"]
    return str(said["differ"]) if said["outputs"] >= most else f"{said['differ']} of {said['outputs']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("programs", nargs="*", help=f"some of {', '.join(PROGRAMS)}; all if none is named")
    parser.add_argument("--outputs", type=int, default=1_000_000, help="how many of each program")
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=RUNTIMES)
    parser.add_argument("--rows", type=Path, default=Path("runs/authorities.jsonl"), help="file that keeps cells")
    given = parser.parse_args()
    if unknown := [name for name in given.programs if name not in PROGRAMS]:
        parser.error(f"no program {unknown[0]!r}; there are {', '.join(PROGRAMS)}")
    torch.set_num_threads(1)
    of = hashlib.sha256(
        (Path(__file__).read_text() + (TESTS / "tosa_form.py").read_text() + code_hash()).encode()
    ).hexdigest()[:16]
    made_by = {"made_by": of, "of": given.outputs}
    given.rows.parent.mkdir(parents=True, exist_ok=True)
    lines = given.rows.read_text().splitlines() if given.rows.exists() else []
    kept = [row for row in map(json.loads, lines) if made_by.items() <= row.items()]
    cells = {(row["program"], row["runtime"]): row for row in kept if "why" not in row}
    table = []
    for name in given.programs or PROGRAMS:
        missed, case = [runtime for runtime in given.runtimes if (name, runtime) not in cells], None
        for runtime in missed:
            case = case or case_of(name, given.outputs)
            cells[name, runtime] = row = {"program": name, **cell(case, runtime), **made_by}
            with given.rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{name}, {runtime}: {shown(row, given.outputs)} ({row['seconds']} s)", flush=True)
        said = {runtime: shown(cells.get((name, runtime)), given.outputs) for runtime in RUNTIMES}
        table.append({"program": name, **said})
    print(Table(table))


if __name__ == "__main__":
    main()
