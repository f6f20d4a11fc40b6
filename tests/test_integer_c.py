"""The C of an integer program gives the player's bits: with every compiler, on every machine, and in wasm."""

import json
import math
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings

import fanfold as ff
from fanfold.core.streams import generator_of
from fanfold.deploy.integer import (
    CompiledProgram,
    Draft,
    IntegerEstimator,
    IntegerProgram,
    compiled,
    golden_vectors,
    hex_vectors,
    load_program,
    play,
    program_to_c,
    program_to_wasm,
    save_program,
)
from integer_programs import everything, integer_programs, random_inputs
from machines import MACHINES, SANITIZED, need

STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-DP_SELF_TEST"]


def run(*command: str | Path, folder: Path) -> int:
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("qemu-x86_64: warning")]
    assert not complaints, done.stderr[:2000]
    return done.returncode


def written(program: IntegerProgram, folder: Path, count: int = 24) -> Path:
    """The C of a program with vectors that hold the ends of its ports."""
    program_to_c(program, golden_vectors(program, random_inputs(program, count, 0))).write(folder)
    return folder


@settings(max_examples=12)
@given(program=integer_programs())
def test_any_program_in_c_is_the_player_and_clean_under_sanitizers(tmp_path_factory, program):
    folder = written(program, tmp_path_factory.mktemp("c"))
    assert run("gcc", *STRICT, *SANITIZED, "p.c", "-o", "p", folder=folder) == 0
    assert run("./p", folder=folder) == 0


@pytest.mark.parametrize("name", MACHINES)
def test_a_program_of_all_operations_gives_its_vectors_on_every_machine(tmp_path, name):
    compiler, flags, player = MACHINES[name]
    need(compiler, *player[:1])
    written(everything(), tmp_path)
    assert run(compiler, *flags, *STRICT, "p.c", "-o", "p", folder=tmp_path) == 0
    assert run(*player, "./p", folder=tmp_path) == 0


def logarithms() -> IntegerProgram:
    """Sums over octaves as networks have them, from the first octave on and from a later one; one of them is shown."""
    draft = Draft("p")
    y = draft.input("y", (24,), "int16")
    square = draft.mul(y, y)
    for name, x, first, digits in (("early", square, 0, 4), ("late", square, 3, 5), ("signed", y, 0, 3)):
        parts = [
            draft.clamp(draft.rescale(x, k) if k else x, 1 << digits, 2 << digits) for k in range(first, first + 9)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = draft.add(total, part)
        draft.output(draft.sub(total, draft.const(9 << digits), name=name), (24,))
    draft.output(parts[3], (24,))
    return draft.finish()


@pytest.mark.parametrize("builtin", [True, False])
def test_a_logarithm_by_its_leading_digit_is_that_of_all_octaves(tmp_path, builtin):
    """Of every size, with both signs; what is shown of an octave on the way keeps its sum as it is."""
    program = logarithms()
    places = np.arange(24)
    y = np.stack([(1 << places % 15) + k for k in range(-2, 3)] + [-(1 << places % 15), places - 12, 0 * places])
    program_to_c(program, golden_vectors(program, {"y": y.astype(np.int16)})).write(tmp_path)
    source = (tmp_path / "p.c").read_text()
    assert source.count("= octaves(") == 2
    if not builtin:
        (tmp_path / "p.c").write_text(source.replace("#if defined(__GNUC__) &&", "#if 0 &&"))
    assert run("gcc", *STRICT, *SANITIZED, "p.c", "-o", "p", folder=tmp_path) == 0
    assert run("./p", folder=tmp_path) == 0


def test_wasm_needs_nothing_and_gives_the_vectors(tmp_path):
    need("clang", "wasm-ld", "node")
    written(everything(), tmp_path)
    linked = ["-nostdlib", "-ffreestanding", "-Wl,--no-entry", "-Wl,--export=main"]
    assert run("clang", "--target=wasm32", "-O2", *linked, *STRICT, "p.c", "-o", "p.wasm", folder=tmp_path) == 0
    script = (
        "const module = new WebAssembly.Module(require('fs').readFileSync('p.wasm'));"
        "if (WebAssembly.Module.imports(module).length) process.exit(99);"
        "process.exit(new WebAssembly.Instance(module).exports.main(0, 0));"
    )
    assert run("node", "-e", script, folder=tmp_path) == 0


PLAYED = """
import {load} from './p.mjs';
import {readFileSync, writeFileSync} from 'fs';
const net = await load(readFileSync('p.wasm')), given = JSON.parse(readFileSync('given.json'));
writeFileSync('said.json', JSON.stringify(given.map(inputs => {
    const outputs = net.run(inputs);
    return Object.fromEntries(Object.entries(outputs).map(([name, values]) => [name, [...values]]));
})));
"""


def test_a_module_of_a_program_says_what_the_player_says(tmp_path):
    need("clang", "wasm-ld", "node")
    program = everything()
    names = [path.name for path in program_to_wasm(program, tmp_path)]
    assert names[:2] == ["p.h", "p.c"]
    assert names[-2:] == ["p.wasm", "p.mjs"]
    inputs = random_inputs(program, 20, 3)
    given = [{name: values[k].ravel().tolist() for name, values in inputs.items()} for k in range(20)]
    (tmp_path / "given.json").write_text(json.dumps(given))
    (tmp_path / "run.mjs").write_text(PLAYED)
    assert run("node", "run.mjs", folder=tmp_path) == 0
    said = json.loads((tmp_path / "said.json").read_text())
    for name, wanted in play(program, inputs).items():
        assert np.array_equal([one[name] for one in said], wanted.reshape(20, -1)), name


REFUSED = """
import {load} from './at_y.mjs';
import {readFileSync} from 'fs';
const net = await load(readFileSync('at_y.wasm'));
const said = [[0.5, 1], [200, 1], [NaN, 1], [1], [1, 2, 3], undefined].map(y_run => {
    try { net.run({y_run}); return 'taken'; } catch (error) { return error.message; }
});
console.log(JSON.stringify([...said, [...net.run({y_run: Int8Array.of(-128, 127)}).work]]));
"""


def test_a_module_refuses_what_its_ports_do_not_hold_and_takes_any_name(tmp_path):
    need("clang", "wasm-ld", "node")
    draft = Draft("at_y")
    draft.output(draft.rescale(draft.input("y_run", (2,), "int8"), -1, name="work"), (2,))
    program_to_wasm(draft.finish(), tmp_path)
    (tmp_path / "run.mjs").write_text(REFUSED)
    done = subprocess.run(["node", "run.mjs"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outside = "y_run takes whole numbers from -128 to 127."
    counted = [f"y_run has {count} numbers; pass 2." for count in (1, 3, "no")]
    assert json.loads(done.stdout) == [outside, outside, outside, *counted, [-256, 254]]


@pytest.mark.parametrize("name", ["string", "math", "stdint"])
def test_a_program_called_like_a_header_compiles(name, tmp_path):
    need("clang", "wasm-ld")
    draft = Draft(name)
    draft.output(draft.rescale(draft.input("y", (2,), "int8"), 1), (2,))
    assert program_to_wasm(draft.finish(), tmp_path)[-2].stat().st_size > 0


def test_the_self_test_names_the_vector_that_does_not_come_out(tmp_path):
    program = everything()
    golden = golden_vectors(program, random_inputs(program, 8, 0))
    golden.outputs["picked"][5, 3] ^= 1
    program_to_c(program, golden).write(tmp_path)
    assert run("gcc", *STRICT, "p.c", "-o", "p", folder=tmp_path) == 0
    assert run("./p", folder=tmp_path) == 6


def test_the_same_program_gives_the_same_bytes_and_its_header_says_what_its_ports_are(tmp_path):
    draft = Draft("front_end")
    y = draft.input("y", (16, 2), "int16", fraction=12, layout="iq", unit="V")
    draft.output(draft.rescale(y, 4, name="x_hat"), (16, 2), fraction=8, layout="iq", unit="V")
    program = draft.finish()
    files = program_to_c(program).files
    again = load_program(save_program(program, tmp_path / "p"))
    assert program_to_c(again).files == files
    assert "in_y: 16 x 2, int16, Q3.12, iq, unit V" in files["front_end.h"]
    assert "out_x_hat: 16 x 2, int16, Q7.8, iq, unit V" in files["front_end.h"]
    assert [line for line in files["front_end.c"].splitlines() if line.startswith("#include")] == [
        '#include "front_end.h"'
    ]
    vectors = {
        port.name: hex_vectors(port, files[f"front_end_{port.name}.hex"]) for port in (*again.inputs, *again.outputs)
    }
    assert np.array_equal(play(again, {"y": vectors["y"]})["x_hat"], vectors["x_hat"])


def test_matrices_that_several_layers_share_are_written_once():
    weights = np.eye(64, dtype=np.int8)
    draft = Draft("p")
    x = draft.input("y", (64,), "int8")
    for layer in range(3):
        x = draft.clamp(draft.matmul(x, weights), -127, 127, name=f"x{layer}")
    draft.output(x, (64,))
    program = draft.finish()
    assert program_to_c(program).files["p.c"].count("int8_t w_") == 1
    assert program.weight_bytes == weights.nbytes + 2  # and the ends of the clamp, one byte each


def test_tables_count_in_the_narrowest_type_that_holds_them():
    for most, bytes_each in ((127, 1), (128, 2), (2**15, 4)):
        draft = Draft("p")
        draft.output(draft.lookup(draft.input("y", (4,), "int8"), -128, np.full(256, most)), (4,))
        assert draft.finish().weight_bytes == 256 * bytes_each


def test_the_header_says_the_bytes_of_all_constant_arrays():
    files = program_to_c(everything()).files
    source = files["p.c"].partition("#ifdef P_SELF_TEST")[0]
    source = re.sub(r"#if LANES\n.*?#(else|endif)", "", source, flags=re.DOTALL)  # of a build without lanes
    arrays = re.findall(r"static const int(\d+)_t \w+((?:\[\d+\])+) =", source)
    total = sum(int(bits) // 8 * math.prod(map(int, re.findall(r"\d+", axes))) for bits, axes in arrays)
    assert total > 0
    assert f"#define P_CONSTANT_BYTES {total}\n" in files["p.h"]


def test_a_compiled_program_is_an_estimator_as_the_played_one():
    problem = ff.problems.CompressedSensing(n=40, m=20, snr_db=20.0)
    draft = Draft("p")
    y = draft.input("y", (20,), "int16", fraction=10)
    r = draft.matmul(y, np.rint(problem.A.matrix().T.numpy() * 64).astype(np.int8))
    draft.output(draft.rescale(draft.sub(r, draft.clamp(r, -5000, 5000)), 6, name="x_hat"), (40,), fraction=10)
    program = draft.finish()
    _, obs = problem.sample(500, generator_of(0))
    fast, played = compiled(program), IntegerEstimator(program)
    assert torch.equal(fast(obs).x, played(obs).x)
    assert (fast(obs).x != 0).any()
    assert torch.equal(fast(obs.y[0]).x, played(obs.y[0]).x)
    assert len(ff.evaluate({"integer": fast}, problem, snr_db=[20])) == 1
    with pytest.raises(ValueError, match="another program"):
        CompiledProgram(program)(draft.finish(), {})


def products_of_all_shapes() -> IntegerProgram:
    """Bytes and words, rows and columns that fill no vector, few places and many, windows of pictures, wide types."""
    rng, draft = np.random.default_rng(0), Draft("p")
    for dtype, most in (("int8", 127), ("int16", 900)):
        for rows, columns, outer in ((8, 3, 4), (17, 4, 5), (48, 7, 6), (40, 9, 14), (80, 12, 7), (128, 5, 12)):
            size = f"{dtype}_{rows}"
            x = draft.clamp(draft.input(f"x_{size}", (outer, columns), dtype), -most, most)
            x = draft.rescale(x, 0) if dtype == "int8" else x
            weights = rng.integers(-128, 128, (rows, columns)).astype(dtype)
            draft.output(draft.matmul(x, weights, outer, name=f"r_{size}"), (outer, rows))
        for channels, kernel, rows in ((1, (3, 3), 8), (3, (1, 3), 20), (4, (5, 3), 33), (5, (3, 5), 16)):
            shape, size = (3, 4, channels), f"{dtype}_of_{channels}"
            x = draft.clamp(draft.input(f"x_{size}", shape, dtype), -most, most)
            weights = rng.integers(-128, 128, (rows, kernel[0] * kernel[1] * channels)).astype(dtype)
            draft.output(draft.matmul(draft.windows(x, shape, kernel), weights, 12, name=f"r_{size}"), (12, rows))
    dot = draft.windows(draft.input("dot", (1, 1, 3), "int8"), (1, 1, 3), (3, 3))  # a picture of one place
    draft.output(draft.matmul(dot, np.ones((2, 27), np.int8), name="of_dot"), (2,))
    y = draft.input("y", (70,), "int8")
    draft.output(draft.lookup(y, -128, rng.integers(-128, 128, 256), name="looked_up"), (70,))
    longer = np.where(np.abs(np.arange(-300, 300)) > 128, 1000, rng.integers(-128, 128, 600))  # than there are bytes
    draft.output(draft.lookup(y, -300, longer, name="looked_up_in_more"), (70,))
    weights = rng.integers(-128, 128, (16, 45)).astype(np.int8)  # the same, of places and of windows
    x = draft.input("x", (12, 45), "int8")
    draft.output(draft.matmul(x, weights, 12, name="of_places"), (12, 16))
    picture = draft.windows(draft.input("picture", (3, 4, 5), "int8"), (3, 4, 5), (3, 3))
    draft.output(draft.matmul(picture, weights, 12, name="of_windows"), (12, 16))
    draft.output(draft.rescale(draft.matmul(x, weights, 12, name="wide"), 4, name="of_wide"), (12, 16))
    numbers = draft.const(rng.integers(-100, 100, 12 * 6), name="numbers")
    draft.output(draft.matmul(numbers, weights[:, :6], 12, name="of_numbers"), (12, 16))
    program = draft.finish()
    wider = {"wide": "int48", "numbers": "int16"}  # than they need
    operations = [replace(op, dtype=wider[op.name]) if op.name in wider else op for op in program.operations]
    return IntegerProgram("p", program.inputs, tuple(operations), program.outputs)


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [("gcc", ["-march=native", *SANITIZED]), ("gcc", SANITIZED), ("clang", ["-march=native"])],
    ids=["native", "portable", "clang"],
)
def test_products_of_all_shapes_are_the_player_s_in_lanes_and_without(tmp_path, compiler, flags):
    need(compiler)
    written(products_of_all_shapes(), tmp_path, count=8)
    assert run(compiler, "-O1", *flags, *STRICT, "p.c", "-o", "p", folder=tmp_path) == 0
    assert run("./p", folder=tmp_path) == 0


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_program_of_tables_alone_holds_nothing_that_it_does_not_use(tmp_path, compiler):
    need(compiler)
    draft = Draft("p")
    y = draft.input("y", (70,), "int8")
    draft.output(draft.lookup(y, -128, np.arange(-128, 128)[::-1], name="turned"), (70,))
    written(draft.finish(), tmp_path, count=8)
    assert run(compiler, "-O1", "-march=native", *STRICT, "p.c", "-o", "p", folder=tmp_path) == 0
    assert run("./p", folder=tmp_path) == 0


def test_a_hundred_thousand_outputs_of_vector_code_are_the_player_s():
    program = everything()
    inputs = random_inputs(program, 700, 1)
    wanted, outputs = play(program, inputs), CompiledProgram(program)(program, inputs)
    assert sum(value.size for value in wanted.values()) > 100_000
    assert all(np.array_equal(outputs[name], value) for name, value in wanted.items())
