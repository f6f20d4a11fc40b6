"""Sums in ONNX files: what is left out, what is kept, and that neither costs a bit."""

import numpy as np
import onnxruntime
import pytest

from fanfold.deploy.integer import Draft, IntegerProgram, golden_vectors, play
from fanfold.deploy.integer.onnx_form import onnx_model


def nodes(program: IntegerProgram) -> dict[str, int]:
    """How many nodes of each kind a program has, once ONNX Runtime, not optimised, has given the player's bits."""
    model, options = onnx_model(program), onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = dict(golden_vectors(program, count=300).inputs)
    wanted = play(program, inputs)
    for name, values in zip(wanted, session.run(list(wanted), inputs), strict=True):
        assert np.array_equal(values, wanted[name])
    kinds = [node.op_type for node in model.graph.node]
    return {kind: kinds.count(kind) for kind in kinds}


def narrowed(draft: Draft, value: str, shift: int) -> str:
    return draft.clamp(draft.rescale(value, shift), -128, 127)


def iterated(layers: int, shifts: tuple[int, ...]) -> IntegerProgram:
    """Layers `x ← soft(x + W e)`, `e ← e - A d` as a form of thresholdings writes them."""
    rng, draft, n, m = np.random.default_rng(0), Draft("p"), 12, 8
    W, A = (rng.integers(-60, 60, shape).astype(np.int8) for shape in ((n, m), (m, n)))
    e = draft.input("y", (m,), "int16")
    x = narrowed(draft, draft.matmul(narrowed(draft, e, 9), W), 8)
    for k in range(layers):
        e = draft.sub(e, draft.matmul(x if k == 0 else change, A))
        fine = draft.rescale(x, -shifts[k])
        r = draft.add(draft.matmul(narrowed(draft, e, 9), W), fine)
        shrunk = draft.sub(r, draft.clamp(r, -700, 700))
        change = narrowed(draft, draft.sub(shrunk, fine), shifts[k])
        x = draft.add(draft.rescale(x, shifts[k - 1] - shifts[k]) if k else x, change)
    draft.output(draft.clamp(draft.rescale(x, 1), -30000, 30000, name="x_hat"), (n,))
    return draft.finish()


def test_nodes_grow_with_layers_and_not_with_their_square():
    counts = [sum(nodes(iterated(layers, (6,) * layers)).values()) for layers in (4, 6, 8)]
    assert counts[2] - counts[1] == counts[1] - counts[0]


def test_what_is_added_and_taken_away_again_costs_no_node():
    """A layer: two products, four sums, two roundings to bytes, and one clip of the threshold."""
    more = {layers: nodes(iterated(layers, (6,) * layers)) for layers in (3, 4)}
    layer = {kind: more[4][kind] - more[3][kind] for kind in more[4]}
    assert layer["MatMulInteger"] == 2
    assert (layer["Add"], layer["Sub"]) == (2, 2)
    assert (layer["QuantizeLinear"], layer["Clip"], layer["Mul"], layer["Floor"]) == (2, 1, 0, 0)
    assert sum(layer.values()) == 12  # and numbers of three of these values


def test_scales_that_change_from_layer_to_layer_keep_the_bits():
    count = nodes(iterated(5, (6, 7, 7, 9, 10)))
    assert count["QuantizeLinear"] == count["MatMulInteger"] == 11


@pytest.mark.parametrize("shift", [1, 2, 7, 8, 15])
@pytest.mark.parametrize("factor", [1, 3, 40, -5])
def test_bytes_are_rounded_half_up(shift, factor):
    """Every whole number of 16 bits, also those half way between two bytes, which `QuantizeLinear` takes to even."""
    draft = Draft("p")
    y = draft.input("y", (256,), "int16")
    scaled = y if factor == 1 else draft.mul(y, draft.const(factor))
    rounded = narrowed(draft, scaled, shift)
    draft.output(draft.matmul(rounded, np.eye(256, dtype=np.int8), name="x_hat"), (256,))
    program, y = draft.finish(), np.arange(-(1 << 15), 1 << 15, dtype=np.int16).reshape(256, 256)
    model = onnx_model(program)
    assert "QuantizeLinear" in [node.op_type for node in model.graph.node]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = play(program, {"y": y})["x_hat"]
    assert np.array_equal(wanted, np.clip((y * np.int64(factor) + (1 << (shift - 1))) >> shift, -128, 127))
    assert np.array_equal(session.run(None, {"y": y})[0], wanted)


def test_a_product_in_floating_point_leaves_the_rounding_to_others():
    """Pairs of weights that some kernels would saturate; OpenVINO rounds otherwise beside `QuantizeLinear` then."""
    for weight, kind in ((60, "QuantizeLinear"), (120, "Floor")):
        draft = Draft("p")
        rounded = narrowed(draft, draft.input("y", (4,), "int16"), 6)
        draft.output(draft.matmul(rounded, np.full((3, 4), weight, np.int8), name="x_hat"), (3,))
        assert kind in nodes(draft.finish())


@pytest.mark.parametrize("factors", [(5, 3), (3, -7, 4), (8, 2, 1)], ids=str)
def test_factors_between_uses_that_are_no_powers_of_two_round_nothing(factors):
    """A sum that others go on from, times 5 and then times 3: 3/5 is no number of a computer."""
    draft = Draft("p")
    both = draft.add(draft.input("y", (3,), "int16"), draft.const([70, -1, 5]))
    outs = [draft.rescale(draft.mul(both, draft.const([f])), 4) for f in factors]
    for k, out in enumerate(outs):
        draft.output(draft.clamp(out, -3000, 3000, name=f"x{k}"), (3,))
    nodes(draft.finish())


def test_a_factor_that_is_zero_for_some_entries_is_no_scale_for_others():
    draft = Draft("p")
    both = draft.add(draft.input("y", (2,), "int16"), draft.const([1, -1]))
    masked = draft.rescale(draft.mul(both, draft.const([0, 3])), 2)
    draft.output(draft.clamp(masked, -3000, 3000, name="masked"), (2,))
    draft.output(draft.clamp(draft.rescale(both, 3), -3000, 3000, name="both"), (2,))
    nodes(draft.finish())


def test_what_cancels_leaves_batch_and_size():
    draft = Draft("p")
    y, one = draft.input("y", (4,), "int8"), draft.input("one", (1,), "int8")
    draft.output(draft.sub(y, y, name="nothing"), (4,))
    draft.output(draft.clamp(draft.rescale(draft.add(draft.sub(y, y), one), 1), -9, 9, name="spread"), (4,))
    nodes(draft.finish())


def test_a_constant_that_spreads_one_number_leaves_the_size():
    for constant in ([0, 0, 0], [4, 4, 4], [1, 0, -1]):
        draft = Draft("p")
        spread = draft.add(draft.const(constant), draft.input("one", (1,), "int8"))
        draft.output(draft.clamp(draft.rescale(spread, 1), -9, 9, name="spread"), (3,))
        nodes(draft.finish())


def test_rows_that_are_picked_are_those_of_the_player():
    """Numbers that rise and fall, of one row for all entries: a product with steps, or a gathering."""
    rng = np.random.default_rng(1)
    for most in (100, 1 << 22):  # whose rises in single precision stay within 2^24, and do not
        draft = Draft("p")
        v, at = draft.input("v", (1,), "int16"), draft.const(np.arange(-2, 3))
        rows = rng.integers(-most, most, (40, 5))
        picked = draft.bank(at, v, np.arange(39) * 800 - 15000, -2, rows)
        draft.output(draft.rescale(picked, 8, name="x_hat"), (5,))
        assert ("GatherElements" in nodes(draft.finish())) == (most > 100)
