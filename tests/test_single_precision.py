"""Programs in single precision say what those of wider numbers say, bit for bit, and are proved to be carried."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanfold.deploy.integer import (
    Draft,
    IntegerProgram,
    UnprovedError,
    in_single_precision,
    play,
    program_to_onnx,
)
from fanfold.deploy.integer.single_precision import fits_single_precision
from integer_programs import all_shown, integer_programs, looked_at, random_inputs


def differing(program: IntegerProgram, single: IntegerProgram, seed: int) -> int:
    inputs = random_inputs(program, 20, seed)
    pairs = zip(play(program, inputs).values(), play(single, inputs).values(), strict=True)
    return sum(int((one != other).sum()) for one, other in pairs)


@settings(max_examples=60, deadline=None)
@given(integer_programs(), st.integers(0, 1000))
def test_any_program_keeps_its_bits(program, seed):
    program = looked_at(program)
    single = in_single_precision(program)
    assert {row.carrier for row in single.proof.rows} == {"float32"}
    assert [(port.name, port.dtype) for port in single.outputs] == [(p.name, p.dtype) for p in program.outputs]
    assert differing(program, single, seed) == 0


def test_all_operations_and_shapes_keep_their_bits():
    program = all_shown()
    single = in_single_precision(program)
    assert {row.carrier for row in program.proof.rows} == {"float32", "float64"}
    assert {row.carrier for row in single.proof.rows} == {"float32"}
    assert differing(program, single, 0) == 0


def test_its_file_has_no_double_precision_and_gives_the_bits(tmp_path):
    program = all_shown()
    path = program_to_onnx(in_single_precision(program), tmp_path / "p.onnx")
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    wide = {onnx.TensorProto.DOUBLE, onnx.TensorProto.UINT64}
    assert not any(value.type.tensor_type.elem_type in wide for value in model.graph.value_info)
    inputs = random_inputs(program, 20, 1)
    said = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)
    for port, value in zip(program.outputs, said, strict=True):
        assert np.array_equal(value, play(program, inputs)[port.name]), port.name


def scaled_port(shift: int) -> IntegerProgram:
    draft = Draft("p")
    v = draft.input("v", (3,), "int32")
    scaled = draft.rescale(v, shift, name="scaled")
    power = draft.rescale(draft.mul(scaled, scaled), 2 * (31 - shift) - 15)
    for name, value in (("shown", scaled), ("power", power)):
        draft.output(draft.clamp(value, -(2**23), 2**23, name=name), (3,))
    return draft.finish()


@pytest.mark.parametrize("shift", [8, 11, 12, 13, 19])
def test_a_port_of_32_bits_is_split_in_whole_numbers(shift, tmp_path):
    program = scaled_port(shift)
    single = in_single_precision(program)
    v = random_inputs(program, 2000, shift)["v"]
    halves = (np.arange(-300, 300)[:, None] << shift) + (1 << (shift - 1)) + np.array([-1, 0, 1])
    near = 4096 * np.arange(-300, 300)[:, None] * 1000 + np.array([-1, 0, 1])  # where single precision rounds up
    inputs = {"v": np.concatenate([v, halves, near]).astype(np.int32)}
    wanted = play(program, inputs)
    assert np.array_equal(play(single, inputs)["power"], wanted["power"])
    path = program_to_onnx(single, tmp_path / "p.onnx")
    assert onnx.TensorProto.DOUBLE not in {number.data_type for number in onnx.load(path).graph.initializer}
    said = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)
    for value, port in zip(said, program.outputs, strict=True):
        assert np.array_equal(value, wanted[port.name])


def test_a_program_that_fits_is_itself():
    draft = Draft("half")
    draft.output(draft.rescale(draft.input("y", (4,), "int16"), 1), (4,))
    program = draft.finish()
    assert in_single_precision(program) is program


def written(shown: str) -> IntegerProgram:
    """A program that shows an expression of y, of its square `p` and of a port of 32 bits, w."""
    draft = Draft("p")
    y, w = draft.input("y", (2,), "int16"), draft.input("w", (2,), "int32")
    names = {"np": np, "d": draft, "y": y, "w": w, "p": draft.mul(y, y)}
    for text in (shown, "d.rescale(p, 16)", "d.rescale(d.rescale(w, 9), 8)"):
        draft.output(draft.clamp(eval(text, names), -(2**23), 2**23), (2,))
    return draft.finish()


@pytest.mark.parametrize(
    "shown",
    [
        *(
            f"d.rescale({value}, {shift})"
            for value in ("y", "p", "d.add(p, p)")
            for shift in (23, 24, 25, 30, 36, 44, 47)
        ),
        *(f"d.rescale(p, [{one}, {other}])" for one, other in ((8, 30), (0, 24), (30, 31), (-4, 20))),
        "d.clamp(d.clamp(p, 3_000_000, 2**30), -5, 9)",  # the ends lie outside of all that comes in
        "d.clamp(d.sub(d.const([-(2**25)] * 2), p), -9, 5)",
        "d.clamp(p, 2**24 - 3, 2**24 - 1)",
        "d.clamp(d.add(p, d.const(2**40)), 2**41, 2**42)",
        "d.rescale(d.clamp(d.add(p, d.const(2**40)), -(2**31), 2**30 + 5), 9)",  # it is cut wherever it is
        "d.rescale(w, [9, 9])",
    ],
)
def test_shifts_and_ends_of_any_size_keep_their_bits(shown):
    program = written(shown)
    single = in_single_precision(program)
    assert fits_single_precision(single)
    assert len(single.operations) < 60 * len(program.operations)
    assert differing(program, single, 0) == 0


def test_a_product_of_more_columns_than_one_sum_carries_is_taken_in_parts():
    draft = Draft("p")
    y = draft.input("y", (70_000,), "int8")
    draft.output(draft.rescale(draft.matmul(y, np.full((1, 70_000), 127, np.int8)), 8), (1,))
    program = draft.finish()
    assert differing(program, in_single_precision(program), 0) == 0


def test_a_product_of_numbers_of_the_program_runs(tmp_path):
    program = written("d.matmul(d.clamp(d.const([2**40, 2**40]), -9, 9), np.eye(2, dtype=np.int8))")
    path = program_to_onnx(in_single_precision(program), tmp_path / "p.onnx")
    inputs = random_inputs(program, 4, 0)
    said = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)
    for value, wanted in zip(said, play(program, inputs).values(), strict=True):
        assert np.array_equal(value, wanted)


@pytest.mark.parametrize("most", [2**24 - 8193, 2**24 - 8191, 2**24 - 5, 2**24])
def test_values_up_to_the_limit_are_one_and_are_taken_apart(most, tmp_path):
    draft = Draft("p")
    y = draft.input("y", (200,), "int16")
    near = draft.clamp(draft.mul(y, draft.const(512)), -most, most, name="near")
    draft.output(near, (200,))
    draft.output(draft.rescale(draft.mul(near, y), 17), (200,))
    program = draft.finish()
    single = in_single_precision(program)
    assert fits_single_precision(single)
    assert differing(program, single, 0) == 0


def test_what_cannot_be_carried_is_refused():
    draft = Draft("p")
    y = draft.input("y", (1,), "int16")
    draft.output(draft.mul(y, y, name="power"), (1,))
    with pytest.raises(
        UnprovedError, match="power may reach 1073741824, more than 16769024 in single precision; rescale it"
    ):
        in_single_precision(draft.finish())
    draft = Draft("p")
    v = draft.input("v", (1,), "int32")
    draft.output(draft.clamp(v, -5, 5, name="cut"), (1,))
    with pytest.raises(
        ValueError, match=r"cut takes v, a port of 32 bits, .* let a rescale by one shift of 8 bits or more take it"
    ):
        in_single_precision(draft.finish())
