"""An integer program means what the player says, everywhere; its range is proved; its file is not believed."""

import json
import pickle

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fanfold as ff
from fanfold.core.streams import generator_of
from fanfold.deploy.integer import (
    Add,
    Bank,
    Clamp,
    Const,
    Draft,
    IntegerEstimator,
    IntegerPort,
    IntegerProgram,
    Lookup,
    MatMul,
    Rescale,
    TorchProgram,
    fingerprint_of_program,
    golden_vectors,
    hex_text,
    hex_vectors,
    load_program,
    play,
    program_to_onnx,
    save_program,
    values_of,
)
from fanfold.deploy.integer.files import program_bytes, program_from
from fanfold.deploy.integer.onnx_form import onnx_model
from fanfold.deploy.integer.operations import KINDS
from integer_programs import everything, integer_programs, random_inputs

LEVELS = [onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL]


def in_runtime(model: bytes, inputs: dict[str, np.ndarray], level) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.intra_op_num_threads = level, 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def same(outputs: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> bool:
    return outputs.keys() == wanted.keys() and all(
        outputs[name].dtype == value.dtype and np.array_equal(outputs[name], value) for name, value in wanted.items()
    )


@given(integer_programs(), st.integers(0, 1000))
def test_torch_and_onnx_give_the_player_s_bits_within_the_proved_ranges(program, seed):
    inputs = random_inputs(program, 8, seed)
    wanted, values = play(program, inputs), values_of(program, inputs)
    for name, proved in program.proof.ranges.items():
        assert (values[name] >= proved.low).all()
        assert (values[name] <= proved.high).all()
    tensors = TorchProgram(program)({name: torch.from_numpy(value) for name, value in inputs.items()})
    assert same({name: value.numpy() for name, value in tensors.items()}, wanted)
    model = onnx_model(program).SerializeToString(deterministic=True)
    for level in LEVELS:
        assert same(in_runtime(model, inputs, level), wanted)


def test_a_program_of_all_operations_is_the_same_in_torch_onnx_and_its_file(tmp_path):
    program = everything()
    inputs = random_inputs(program, 300, 0)
    wanted = play(program, inputs)
    assert {op.kind for op in program.operations} == set(KINDS)  # so that each kind has a rule in every form
    assert {"int32", "int48"} <= set(program.dtypes.values())
    loaded = load_program(save_program(program, tmp_path / "p.safetensors"))
    assert fingerprint_of_program(loaded) == fingerprint_of_program(program)
    assert same(play(loaded, inputs), wanted)
    tensors = TorchProgram(program)({name: torch.from_numpy(value) for name, value in inputs.items()})
    assert same({name: value.numpy() for name, value in tensors.items()}, wanted)
    path = program_to_onnx(program, tmp_path / "p.onnx")
    for level in LEVELS:
        assert same(in_runtime(path.read_bytes(), inputs, level), wanted)
    assert program_to_onnx(loaded, tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_a_rescale_rounds_half_up_for_every_number_and_shift():
    x = np.arange(-128, 128).astype(np.int8)[:, None]
    for shift in range(-3, 12):
        draft = Draft("p")
        draft.output(draft.rescale(draft.input("y", (1,), "int8"), shift, name="x_hat"), (1,))
        given_by_rule = [(int(v) + (1 << (shift - 1))) >> shift if shift > 0 else int(v) << -shift for v in x[:, 0]]
        assert play(draft.finish(), {"y": x})["x_hat"].ravel().tolist() == given_by_rule


def test_a_variance_that_is_computed_picks_the_row_of_a_bank():
    draft = Draft("p")
    y = draft.input("y", (4,), "int8")
    energy = draft.matmul(draft.mul(y, y), np.ones((1, 4), np.int8))
    tables = np.stack([np.arange(-128, 128) // d for d in (1, 2, 4)])
    draft.output(draft.bank(y, energy, [400, 10_000], -128, tables, name="x_hat"), (4,))
    y = np.array([[10, -9, 8, 0], [20, 0, 0, 0], [100, -100, 3, -7]], np.int8)
    wanted = [[10, -9, 8, 0], [10, 0, 0, 0], [25, -25, 0, -2]]  # energies 245, 400 and 20058
    assert play(draft.finish(), {"y": y})["x_hat"].tolist() == wanted


# Ranges

Y8, Y16 = IntegerPort("y", (2,), "int8"), IntegerPort("y", (2,), "int16")
ONE, FOUR = np.array([1]), np.array([4])
MOST = np.full((1, 2), -32768, np.int16)
UNPROVED = {
    "a sum": (
        Y16,
        [MatMul("x_hat", "y", MOST)],
        "x_hat (MATMUL) may reach 2147483648 and is computed within 2147483647",
    ),
    "a result": (
        Y16,
        [Clamp("x_hat", "y", -FOUR * 40, FOUR * 40, "int8")],
        "lies within -160 to 160, which int8",
    ),
    "a type": (Y8, [Rescale("x_hat", "y", -ONE, "int8")], "lies within -256 to 254, which int8 does not hold"),
    "a half": (
        Y16,
        [
            MatMul("sum", "y", np.full((1, 2), -32767, np.int16)),
            Rescale("x_hat", "sum", np.array([31]), "int8"),
        ],
        "x_hat (RESCALE) may reach 3221159936",
    ),
    "a place": (Y8, [Lookup("x_hat", "y", -127, np.arange(255), "int16")], "looks up -128 to 127 in a table for -127"),
    "a chain": (
        Y16,
        [
            MatMul("sum", "y", np.full((1, 2), -32767, np.int16)),
            Add("twice", "sum", "sum", "int32"),
            Rescale("x_hat", "twice", np.array([20]), "int32"),
        ],
        "twice (ADD) may reach",
    ),
}


@pytest.mark.parametrize("name", UNPROVED)
def test_what_may_overflow_is_refused(name):
    port, operations, said = UNPROVED[name]
    with pytest.raises(ValueError) as refusal:
        IntegerProgram("p", (port,), tuple(operations), (IntegerPort("x_hat", (1,), "int16"),))
    assert said in str(refusal.value)


def scaled(factor: int) -> Draft:
    draft = Draft("p")
    y = draft.input("y", (64,), "int16")
    draft.output(draft.rescale(draft.matmul(y, np.full((1, 64), factor, np.int16), name="sum"), 20, name="x_hat"), (1,))
    return draft


def test_a_layer_that_is_scaled_beyond_32_bits_is_widened_or_refused():
    assert scaled(1000).finish().dtypes["sum"] == "int32"
    assert scaled(1024).finish().dtypes["sum"] == "int48"
    most = {"y": np.full((1, 64), -32768, np.int16)}
    assert play(scaled(1024).finish(), most)["x_hat"].item() == -(2**11)
    operations = list(scaled(1024).finish().operations)
    operations[0] = MatMul("sum", "y", np.full((1, 64), 1024, np.int16), dtype="int32")
    with pytest.raises(ValueError, match=r"sum \(MATMUL\) may reach 2147483648"):
        IntegerProgram("p", tuple(scaled(1).inputs), tuple(operations), (IntegerPort("x_hat", (1,), "int32"),))


def test_what_no_type_holds_is_refused_where_it_is_written():
    draft = Draft("p")
    y = draft.input("y", (2,), "int32")
    square = draft.mul(draft.rescale(y, 8), draft.rescale(y, 8))
    with pytest.raises(ValueError, match="may reach"):
        draft.rescale(square, -4)
    with pytest.raises(ValueError, match="beyond 2"):
        draft.mul(square, square)


@pytest.mark.parametrize(("pair", "kernel"), [((64, 64), "MatMulInteger"), ((64, 65), "MatMul")])
def test_bytes_whose_neighbours_might_saturate_are_multiplied_in_float(pair, kernel):
    draft = Draft("p")
    draft.output(draft.matmul(draft.input("y", (2,), "int8"), np.array([pair], np.int8), name="x_hat"), (1,))
    program = draft.finish()
    assert program.proof.rows[0].pairs == 255 * sum(pair)
    kernels = [node.op_type for node in onnx_model(program).graph.node if node.op_type.startswith("MatMul")]
    assert kernels == [kernel]


@pytest.mark.parametrize(("weight", "carrier"), [(256, "float32"), (257, "float64")])
def test_what_float32_cannot_carry_is_carried_by_float64(weight, carrier):
    """257 · 32767 · 2 + 1 needs 25 bits: in float32 the one at its end is lost."""
    draft = Draft("p")
    weights = np.array([[weight, weight]], np.int16)
    draft.output(draft.matmul(draft.input("y", (2,), "int16"), weights, name="x_hat"), (1,))
    program = draft.finish()
    assert program.proof.rows[0].carrier == carrier
    inputs = {"y": np.array([[32767, 32766], [-32768, -32768], [-32767, -32766]], np.int16)}
    wanted = [[weight * (int(a) + int(b))] for a, b in inputs["y"]]
    assert play(program, inputs)["x_hat"].tolist() == wanted
    assert TorchProgram(program)({"y": torch.from_numpy(inputs["y"])})["x_hat"].tolist() == wanted
    model = onnx_model(program).SerializeToString()
    assert in_runtime(model, inputs, LEVELS[1])["x_hat"].tolist() == wanted


# Structure, ports and inputs

BAD = {
    "a missing value": ((Y8,), (Add("x_hat", "y", "z", "int16"),), "takes z, which no port"),
    "a later value": ((Y8,), (Add("x_hat", "y", "x_hat", "int16"),), "takes x_hat"),
    "a name twice": ((Y8,), (Rescale("y", "y", ONE, "int8"),), "y is there twice"),
    "an idle value": (
        (Y8,),
        (Rescale("z", "y", ONE, "int8"), Rescale("x_hat", "y", ONE, "int8")),
        "z reaches no output",
    ),
    "a transposed matrix": ((Y8,), (MatMul("x_hat", "y", np.ones((2, 3), np.int8)),), "Transposed"),
    "a short vector": ((Y8,), (Clamp("x_hat", "y", ONE, np.array([1, 2, 3]), "int8"),), "high has 3 entries"),
    "a missing output": ((Y8,), (Rescale("z", "y", ONE, "int8"),), "output x_hat is made by no operation"),
    "another type": ((Y8,), (Rescale("x_hat", "y", ONE, "int16"),), "output x_hat is int8"),
    "crossed ends": ((Y8,), (Clamp("x_hat", "y", FOUR, ONE, "int8"),), "pass low <= high"),
    "a bank of one": (
        (Y8,),
        (Bank("x_hat", "y", "y", np.zeros(0, int), -128, np.zeros((1, 256), int), "int8"),),
        "nothing is picked",
    ),
    "the function's name": ((Y8,), (Rescale("run", "y", ONE, "int8"),), "a value is called run"),
    "no operations": ((Y8,), (), "output x_hat"),
    "no inputs": ((), (Const("x_hat", np.array([1, 2]), "int8"),), "0 inputs"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_program_that_does_not_fit_is_refused(name):
    inputs, operations, said = BAD[name]
    with pytest.raises(ValueError, match=said):
        IntegerProgram("p", inputs, operations, (IntegerPort("x_hat", (2,), "int8"),))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "X"}, {"name": "a-b"}, {"name": ""}, {"shape": ()}, {"shape": (0,)}, {"shape": (1 << 30,)},
        {"fraction": 99}, {"layout": "iq"}, {"dtype": "int48"}, {"unit": "a */ b"}, {"unit": "two\nlines"},
    ],
)  # fmt: skip
def test_a_port_that_makes_no_sense_is_refused(change):
    with pytest.raises(ValueError):
        IntegerPort(**{"name": "y", "shape": (3,), "dtype": "int8"} | change)


def test_arrays_that_hold_no_whole_numbers_are_refused_and_those_that_do_stay_as_they_were():
    for values in (np.ones((2, 2)), np.ones(2, np.int8), np.ones((2, 2), np.int32), np.array([[None]])):
        with pytest.raises(ValueError, match="pass"):
            MatMul("r", "y", values)
    weights = np.ones((2, 2), np.int8)
    kept = MatMul("r", "y", weights)
    weights[:] = 5
    assert (kept.weights == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        kept.weights[:] = 5


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "pass"),
        ({"y": np.zeros((1, 2))}, "pass int8"),
        ({"y": np.zeros((2,), np.int8)}, "pass int8"),
        ({"y": np.full((1, 2), 128)}, "does not hold"),
        ({"y": np.zeros((1, 2), np.int8), "z": np.zeros((1, 2), np.int8)}, "pass"),
    ],
)
def test_inputs_that_a_program_does_not_take_are_refused(inputs, said):
    program = IntegerProgram("p", (Y8,), (Rescale("x_hat", "y", ONE, "int8"),), (IntegerPort("x_hat", (2,), "int8"),))
    with pytest.raises(ValueError, match=said):
        play(program, inputs)
    assert play(program, {"y": np.zeros((0, 2), np.int8)})["x_hat"].shape == (0, 2)


def test_golden_vectors_are_text_and_back():
    program = everything()
    golden = golden_vectors(program)
    assert same(dict(golden.outputs), play(program, golden.inputs))
    for port in (*program.inputs, *program.outputs):
        vectors = {**golden.inputs, **golden.outputs}[port.name]
        assert np.array_equal(hex_vectors(port, hex_text(port, vectors)), vectors)
    with pytest.raises(ValueError, match="inputs are"):
        golden_vectors(program, {**golden.inputs, "z": golden.inputs["y"]})
    with pytest.raises(ValueError, match="words of 8 bits"):
        hex_vectors(Y8, "00 ff 123")


# Files


def changed(content: bytes, change) -> bytes:
    """A file whose JSON is changed, its checksum and lengths being right."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    facts = json.loads(header["__metadata__"]["fanfold"])
    change(facts)
    header["__metadata__"]["fanfold"] = json.dumps(facts)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def to(field: str, value, where: str = "operations", i: int = 0):
    return lambda facts: facts[where][i].__setitem__(field, value)


LIES = {
    "kind": to("kind", "EXEC"),
    "type": to("dtype", "int8"),
    "flag": to("outer", True),
    "fraction": to("outer", 1.0),
    "huge": to("outer", 10**30),
    "negative": to("inner", -1),
    "array": to("weights", "00099.weights"),
    "array of another": to("weights", "00001.shift"),
    "list": to("weights", ["x"]),
    "source": to("source", "nobody"),
    "more": to("shell", "rm"),
    "shape": to("shape", [1 << 40], "inputs"),
    "nested": to("shape", [[70]], "inputs"),
    "name": to("name", "../../etc", "inputs"),
    "comment": to("unit", "*/ int main", "inputs"),
    "schema": lambda facts: facts.update(schema=2),
    "fields": lambda facts: facts.pop("name"),
    "no list": lambda facts: facts.update(operations={"kind": "ADD"}),
    "no outputs": lambda facts: facts.update(outputs=[]),
    "checksum": lambda facts: facts.update(sha256="0" * 64),
}


@pytest.mark.parametrize("name", LIES)
def test_a_file_that_lies_is_refused(name, tmp_path):
    content = program_bytes(everything())
    assert program_bytes(program_from(changed(content, lambda facts: None))) == content
    (tmp_path / "p.safetensors").write_bytes(changed(content, LIES[name]))
    with pytest.raises(ValueError, match="is no integer program"):
        load_program(tmp_path / "p.safetensors")


def test_a_file_that_is_cut_short_or_flipped_is_refused_or_the_same(tmp_path):
    content, path = program_bytes(everything()), tmp_path / "p.safetensors"
    rng = np.random.default_rng(0)
    for length in (0, 7, 8, 9, 100, *rng.integers(0, len(content), 20)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="is no integer program"):
            load_program(path)
    for place in rng.integers(0, len(content), 150):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        try:
            loaded = load_program(path)
        except ValueError:
            continue
        assert all(row.holds for row in loaded.proof.rows)  # a letter of a unit, say


def test_pickles_links_and_planted_overflows_are_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (tmp_path / "pickle").write_bytes(pickle.dumps(Trap()))
    save_program(everything(), tmp_path / "there")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    for name in ("pickle", "link", "missing", ""):
        with pytest.raises(ValueError):
            load_program(tmp_path / name)
    assert not (tmp_path / "sprung").exists()
    narrowed = changed(program_bytes(scaled(1024).finish()), to("dtype", "int32"))
    with pytest.raises(ValueError, match=r"sum \(MATMUL\) may reach 2147483648"):
        program_from(narrowed)


# Estimators


def test_measurements_are_quantised_by_the_port_and_saturate():
    port = IntegerPort("y", (4,), "int8", fraction=4)
    numbers = np.array([[1 / 32, -1 / 32, 100.0, -100.0], [0.5, 7.9375, 7.97, -8.04]])
    assert port.integers(numbers).tolist() == [[1, 0, 127, -128], [8, 127, 127, -128]]
    assert port.numbers(port.integers(numbers))[0].tolist() == [0.0625, 0.0, 7.9375, -8.0]
    pairs = IntegerPort("y", (2, 2), "int16", fraction=3, layout="iq")
    z = np.array([[1 + 2j, -0.5j]])
    assert pairs.integers(z).tolist() == [[[8, 16], [0, -4]]]
    assert np.array_equal(pairs.numbers(pairs.integers(z)), z)
    for wrong in (np.array([[np.nan] * 4]), np.ones((1, 3)), np.ones((1, 4)) * 1j):
        with pytest.raises(ValueError):
            port.integers(wrong)


def test_an_estimator_takes_observations_of_any_batch_and_evaluate_takes_it():
    problem = ff.problems.CompressedSensing(n=8, m=4, snr_db=20.0)
    draft = Draft("p")
    y = draft.input("y", (4,), "int16", fraction=10)
    weights = np.rint(problem.A.matrix().T.numpy() * 64).astype(np.int8)
    draft.output(draft.rescale(draft.matmul(y, weights), 6, name="x_hat"), (8,), fraction=10)
    estimator = IntegerEstimator(draft.finish())
    _, obs = problem.sample(6, generator_of(0))
    single = torch.stack([estimator(y).x for y in obs.y])
    assert torch.equal(single, estimator(obs).x)
    shaped = ff.Observation(obs.y.reshape(2, 3, 4), obs.A, obs.noise_var)
    assert torch.equal(estimator(shaped).x, estimator(obs).x.reshape(2, 3, 8))
    # a step of the input and of the weights, times the four terms of a sum
    matched = obs.y @ torch.from_numpy(weights).T.to(obs.y) / 64
    assert (estimator(obs).x - matched).abs().max() <= 2**-10 * 4
    table = ff.evaluate(
        {"integer": estimator, "matched": lambda o: ff.Estimate(o.y @ o.A.matrix())}, problem, snr_db=[20]
    )
    nmse = {row["estimator"]: row["nmse_db"] for row in table}
    assert abs(nmse["integer"] - nmse["matched"]) < 0.5
    with pytest.raises(ValueError, match="pass"):
        estimator(obs.y[:, :3])


def test_noise_variances_and_complex_numbers_are_ports():
    draft = Draft("p")
    y = draft.input("y", (3, 2), "int16", fraction=8, layout="iq")
    noise_var = draft.input("noise_var", (1,), "int16", fraction=12)
    draft.output(draft.sub(y, y, name="var"), (6,), fraction=8)
    draft.output(draft.rescale(draft.mul(y, noise_var), 12, name="x_hat"), (3, 2), fraction=8, layout="iq")
    estimator = IntegerEstimator(draft.finish())
    y = torch.tensor([[1 + 2j, -1j, 0.5], [4.0, 4j, -4]])
    estimate = estimator(ff.Observation(y, None, torch.tensor([[0.5], [2.0]])))
    assert torch.equal(estimate.x, y * torch.tensor([[0.5], [2.0]]))
    assert estimate.x.dtype == torch.complex64
    assert estimate.var.dtype == torch.float32
    with pytest.raises(ValueError, match="needs the noise variance"):
        estimator(ff.Observation(y, None))
    with pytest.raises(ValueError, match="an estimator has y"):
        IntegerEstimator(everything())
