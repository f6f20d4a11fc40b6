"""Generated C says what torch says, on every machine with a compiler; one file, as all replay the same few programs."""

import ctypes
import json
import os
import subprocess
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fanfold as ff
from fanfold import estimators
from fanfold.algorithms import REGISTRY
from fanfold.core.abilities import ability
from fanfold.deploy import compiled, to_c, to_wasm
from fanfold.deploy.codegen.build import FAST, STRICT, compile_shared
from fanfold.deploy.codegen.program import program_of
from fanfold.deploy.codegen.text import Golden, texts
from fanfold.deploy.lowering import Port
from fanfold.estimators.base import Preparable
from fanfold.observation import Estimate, Observation
from laws import moved, observed
from machines import MACHINES, need
from test_estimator_laws import CASES

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's, on tracing
EPS = float(np.finfo(np.float32).eps)
QUICK = ("-O1",)
REFUSED = {"whole-numbers": "computes in whole numbers"}  # row of the registry: what the error says
ONE_LAYER, ONE_ITERATION = {"layers": 1}, {"iterations": 1}
SHALLOW = {  # a trace takes a second a layer
    "hybrid-oamp": ONE_LAYER,
    "hybrid-ep": ONE_LAYER,
    "modl": ONE_LAYER,
    "beam-delay-admm": ONE_ITERATION,
    "beam-delay-oamp": ONE_ITERATION,
}
SINGLE = {"float64": "float32", "complex128": "complex64"}


def in_single(name: str) -> tuple[nn.Module, Observation]:
    """A small network of a row, with weights as if it had learned, and observations, in single precision."""
    case = CASES[name]
    problem = case.problem
    if "dtype" in {field.name for field in fields(problem)}:
        problem = replace(problem, dtype=SINGLE.get(problem.dtype, problem.dtype))
    net = replace(case.settings, **SHALLOW.get(name, {})).build(problem).requires_grad_(requires_grad=False)
    if learner := ability(net, Preparable):
        learner.prepare(*problem.sample(100, torch.Generator().manual_seed(0)))
    generator = torch.Generator().manual_seed(1)
    for p in net.parameters():
        p += 0.02 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return net, problem.held_out().sample(3, torch.Generator().manual_seed(2))[1]


def agrees(estimator, obs: Observation) -> None:
    with torch.no_grad():
        wanted = estimator(obs)
    said = compiled(estimator, obs, flags=QUICK)(obs)
    # sums of n products in another order, a few layers deep
    for one, other in ((said.x, wanted.x), (said.var, wanted.var)):
        if other is not None:
            assert other.abs().max() > 0
            assert (one - other).abs().max() <= 1e3 * EPS * other.abs().max()


@pytest.mark.parametrize("name", estimators.REGISTRY)
def test_every_row_says_the_same_in_c(name):
    if name == "flow-posterior":
        pytest.importorskip("zuko")
    net, obs = in_single(name)
    if name in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name]):
            compiled(net, obs)
        return
    agrees(net, obs)


def test_a_mixture_says_the_same_in_c():
    """It has no row: it learns in closed form alone."""
    problem = CASES["learned-filters"].problem
    mixture = ff.estimators.ofdm.Mixture.of(problem, 2, 200, rounds=2)
    estimator = ff.estimators.ofdm.KroneckerGMM.of(problem, mixture)
    agrees(estimator, problem.held_out().sample(3, torch.Generator().manual_seed(2))[1])


@pytest.mark.parametrize("name", ["hyperlista", "gamp"])
def test_algorithms_say_the_same_in_c(name):
    _, obs = observed("float32")
    agrees(moved(REGISTRY[name](), obs, 2), obs)


# Operations, all in one program


class Operations(nn.Module):
    """Whatever an estimator might do that no small one does."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.conv = nn.Conv2d(2, 9, 3, padding=1, stride=2)
        self.grouped = nn.Conv1d(4, 6, 3, padding=2, dilation=2, groups=2)
        self.wide = nn.Linear(6, 300)
        self.register_buffer("spd", torch.eye(5) * 3 + 0.1)
        self.register_buffer("batch", torch.randn(4, 6, 7, generator=generator))
        for p in self.parameters():
            p.requires_grad_(requires_grad=False).copy_(torch.randn(p.shape, generator=generator) / 3)

    def forward(self, y: Tensor) -> tuple[Tensor, ...]:
        a, b = y[:, :24].reshape(1, 4, 6), y[:, 24:48].reshape(1, 4, 6)
        image = y.reshape(1, 2, 6, 4)
        matrix = self.spd + 0.1 * y[0, :5, None] * y[0, None, :5]
        square = a @ b.mT
        lines = [torch.exp(a), torch.log1p(a.abs()), torch.atan2(a, b), torch.tanh(a) + torch.erf(b), a.abs().rsqrt()]
        lines += [torch.where(a > b, a, b.sinh()), a.clamp(-0.5, 0.5), torch.round(4 * a), torch.remainder(a, 0.3)]
        lines += [torch.nn.functional.gelu(a), torch.pow(a.abs(), 1.7), torch.sign(a), ((a > 0) & (b < 1)).float()]
        moves = [torch.flip(a, (1, 2)), a.roll(2, -1), a.repeat(1, 2, 1), torch.cumsum(a, 1), a.mT.reshape(1, -1)]
        moves += [nn.functional.pad(a, (1, -2, 0, 3), value=0.5), a[:, [2, 0, 1, 1]], a[:, :, 1::2], a.tril()]
        moves += [torch.sort(y, descending=True)[0], torch.topk(a, 3)[1].float(), a.gather(2, b.argsort(2))]
        moves += [
            a.index_copy(2, torch.tensor([4, 0]), b[:, :, 1:3]),
            a.index_put((torch.tensor(0), torch.tensor(2)), b[0, 0]),
        ]
        sums = [a.sum((0, 2)), y.sum(-1), a.amax(1), a.argmin(2).float(), a.var(2), a.std(1), torch.logsumexp(a, 2)]
        sums += [torch.linalg.vector_norm(b, dim=2), (a > 3).any(2).float(), a.softmax(1), a.max(1)[0], y.mean()[None]]
        nets = [self.conv(image), self.grouped(a), self.wide(a), a.mT.reshape(6, 1, 4) @ a.reshape(1, 4, 6)[:, :, :2]]
        nets += [nn.functional.avg_pool2d(image, 2), nn.functional.interpolate(image, scale_factor=2.0), square @ a]
        nets += [
            nn.functional.layer_norm(a, (6,)),
            nn.functional.group_norm(image, 2),
            self.batch.mT @ a[0, :, :, None],
        ]
        solves = [torch.linalg.inv(matrix), torch.linalg.solve(matrix, y[0, :5]), torch.linalg.cholesky(matrix)]
        lower = torch.linalg.cholesky(matrix)
        solves += [torch.linalg.solve_triangular(lower, y[0, :10].reshape(5, 2), upper=False)]
        return tuple(t.reshape(1, -1) for t in (*lines, *moves, *sums, *nets, *solves))


def written(module: nn.Module, samples: Tensor, folder: Path) -> Path:
    """The source of a module of one sample, with what torch says of some."""
    program = torch.export.export(module, (samples[:1],), strict=False)
    with torch.no_grad():
        said = [module(y[None]) for y in samples]
    names = [f"out{i}" for i in range(len(said[0]))]
    golden = Golden({"y": samples}, {n: torch.cat([s[i] for s in said]) for i, n in enumerate(names)})
    shapes = zip(["y", *names], [samples, *golden.outputs.values()], strict=True)
    ports = [Port(name, ("batch", t.shape[1]), "float32", "none", pairs=False) for name, t in shapes]
    made = texts(program_of(program, (["y"], names)), ports, golden, "operations", {}, blob=False)
    (folder / "operations.h").write_text(made.header)
    (folder / "operations.c").write_text(made.source)
    return folder / "operations.c"


def replayed(source: Path, compiler: str, *flags: str, player: tuple[str, ...] = ()) -> None:
    """Compile with the self-test and run it."""
    program = source.with_suffix(".out")
    command = [compiler, *STRICT, f"-D{source.stem.upper()}_SELF_TEST", *flags, str(source), "-o", str(program), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([*player, str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def operations(tmp_path_factory) -> Path:
    samples = torch.randn(3, 48, generator=torch.Generator().manual_seed(4))
    return written(Operations(), samples, tmp_path_factory.mktemp("operations"))


@pytest.mark.parametrize("name", MACHINES)
def test_every_machine_says_what_torch_says(operations, name):
    compiler, flags, player = MACHINES[name]
    need(compiler, *player[:1])
    replayed(operations, compiler, *flags, player=player)


def test_the_self_test_sees_a_wrong_number(operations, tmp_path):
    """A golden word with another exponent is found; so the tests above can fail."""
    text = operations.read_text()
    start = text.index("golden_out0")
    at = text.index("0x", start)
    (tmp_path / "operations.h").write_text(operations.with_suffix(".h").read_text())
    source = tmp_path / "operations.c"
    source.write_text(text[:at] + "0x7f" + text[at + 4 :])
    with pytest.raises(AssertionError):
        replayed(source, "gcc", "-O1")


class Kinks(nn.Module):
    def forward(self, y: Tensor) -> tuple[Tensor, ...]:
        low, high = y.clamp(min=-1), torch.minimum(y, y.flip(1))
        return low, high, torch.maximum(y, -y), y.relu(), y.amax(1, keepdim=True), torch.isnan(y).float()


def test_nan_and_infinity_pass_as_in_torch(tmp_path):
    y = torch.tensor([[torch.nan, torch.inf, -torch.inf, 0.0, 2.0]])
    source = written(Kinks(), y.nan_to_num(), tmp_path)
    library = compile_shared([source], QUICK, cache=tmp_path / "cache")
    outputs = [np.zeros(n, np.float32) for n in (5, 5, 5, 5, 1, 5)]
    given, work = y.numpy().copy(), np.zeros(4096, np.uint8)
    ctypes.CDLL(str(library)).operations_run(*(ctypes.c_void_p(a.ctypes.data) for a in (given, *outputs, work)))
    for got, wanted in zip(outputs, Kinks()(y), strict=True):
        assert np.array_equal(got, wanted[0].numpy(), equal_nan=True)


class ErrorFunction(nn.Module):
    def forward(self, y: Tensor) -> tuple[Tensor]:
        return (torch.erf(y),)


def test_the_error_function_is_within_four_units_of_rounding(tmp_path):
    y = torch.linspace(-5, 5, 20001)[None]
    source = written(ErrorFunction(), y, tmp_path)
    said, work = np.zeros(y.numel(), np.float32), np.zeros(4096, np.uint8)
    library = ctypes.CDLL(str(compile_shared([source], QUICK, cache=tmp_path / "cache")))
    library.operations_run(*(ctypes.c_void_p(a.ctypes.data) for a in (y.numpy(), said, work)))
    wanted = torch.erf(y.double())[0].numpy()
    assert np.abs(said - wanted).max() < 4 * EPS
    assert (np.abs(said - wanted) <= 4 * EPS * np.abs(wanted)).all()


class ExpAndLog(nn.Module):
    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return torch.exp(y), torch.log(y)


@pytest.mark.parametrize("flags", [QUICK, FAST])
def test_exp_and_log_are_within_a_unit_of_rounding_over_all_numbers(tmp_path, flags):
    """Words over all of float, with both signs, subnormals, infinities and NaN; and x near 1, where log is small."""
    words = np.arange(0, 2**32, 65521, dtype=np.uint64).astype(np.uint32)
    ends = np.array([0, 1, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000], np.uint32)
    near = np.arange(0x3F7FF000, 0x3F801000, dtype=np.uint32)
    y = np.concatenate([words, ends, ends | np.uint32(1 << 31), near]).view(np.float32)
    source = written(ExpAndLog(), torch.zeros(2, y.size), tmp_path)
    library = ctypes.CDLL(str(compile_shared([source], flags, cache=tmp_path / "cache")))
    said, work = np.zeros((2, y.size), np.float32), np.zeros(64, np.uint8)
    library.operations_run(*(ctypes.c_void_p(a.ctypes.data) for a in (y, *said, work)))
    with np.errstate(all="ignore"):
        for got, wanted in zip(said, (np.exp(y.astype(np.float64)), np.log(y.astype(np.float64))), strict=True):
            rounded = wanted.astype(np.float32)
            plain = np.isfinite(rounded) & np.isfinite(got)
            assert np.array_equal(got[~plain], rounded[~plain], equal_nan=True)
            unit = np.spacing(np.abs(rounded[plain])).astype(np.float64)
            assert (np.abs(got[plain] - wanted[plain]) <= 1.01 * unit).all()  # 1.007 at the worst of all words
            assert plain.sum() > 10_000


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_flags_that_would_make_exp_wrong_are_refused_by_the_source(tmp_path, compiler):
    need(compiler)
    source = written(ExpAndLog(), torch.zeros(2, 4), tmp_path)
    compile_shared([source], FAST, compiler=compiler, cache=tmp_path / "cache")
    with pytest.raises(ValueError, match="sums in another order"):
        compile_shared([source], ["-ffast-math"], compiler=compiler, cache=tmp_path / "cache")


# Files


def test_the_same_estimator_gives_the_same_bytes_and_the_header_says_its_ports(tmp_path):
    problem = ff.problems.CompressedSensing(n=12, m=8, dtype="complex64")
    _, obs = problem.sample(3, torch.Generator().manual_seed(0))
    estimator = ff.iterate(REGISTRY["oamp"](), 1)
    one, two = (to_c(estimator, obs, tmp_path / name, name="oamp") for name in ("one", "two"))
    for a, b in zip(one.paths, two.paths, strict=True):
        assert a.read_bytes() == b.read_bytes()
    header = one.header.read_text()
    assert "in  y: 8 x 2 = 16 numbers; interleaved: re, im" in header
    assert "in  noise_var: 1 = 1 numbers; real" in header
    assert "out x_hat: 12 x 2 = 24 numbers; interleaved: re, im" in header
    assert "#define OAMP_X_HAT_SIZE 24" in header
    words = [line for line in one.golden.read_text().splitlines() if not line.startswith("//")]
    first = np.array([int(w, 16) for w in " ".join(words).split()[:16]], np.uint32).view(np.float32)
    assert np.array_equal(first, torch.view_as_real(obs.y[0]).numpy().reshape(-1))
    plain = one.source.read_text().partition("#ifdef OAMP_SELF_TEST")[0]
    assert not [word for word in ("alloc(", "free(", "static float", "printf") if word in plain]


def test_weights_in_a_file_give_the_same_bits(tmp_path):
    _, obs = observed("float32")
    files = to_c(moved(REGISTRY["lista-cp"](), obs, 2), obs, tmp_path, name="cp", weights="blob")
    assert files.weights is not None
    assert "static const float" not in files.source.read_text().split("#ifdef CP_SELF_TEST")[0]
    program = tmp_path / "cp.out"
    subprocess.run(["gcc", *STRICT, "-O1", "-DCP_SELF_TEST", str(files.source), "-o", str(program), "-lm"], check=True)
    assert subprocess.run([str(program), str(files.weights)]).returncode == 0
    files.weights.write_bytes(b"\x00" * files.weights.stat().st_size)
    assert subprocess.run([str(program), str(files.weights)]).returncode == 1


NODE = """
import {load} from './net.mjs';
import {readFileSync} from 'fs';
const net = await load(readFileSync('net.wasm'));
console.log(JSON.stringify([...net.run(JSON.parse(readFileSync('inputs.json'))).x_hat]));
"""


def test_webassembly_says_what_torch_says(tmp_path):
    need("clang", "wasm-ld", "node")
    net, obs = in_single("neural")
    to_wasm(net, obs, tmp_path, name="net")
    inputs = {"y": obs.y[0].tolist(), "noise_var": obs.noise_var.reshape(-1)[:1].tolist()}
    (tmp_path / "inputs.json").write_text(json.dumps(inputs))
    (tmp_path / "run.mjs").write_text(NODE)
    done = subprocess.run(["node", "run.mjs"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted = net(obs[:1]).x[0]
    got = torch.tensor(json.loads(done.stdout))
    assert (got - wanted).abs().max() <= 1e3 * EPS * wanted.abs().max()


# An estimator like any other


def test_a_compiled_estimator_is_judged_and_guarded_like_any_other():
    problem = ff.problems.CompressedSensing(n=24, m=16)
    _, obs = problem.sample(4, torch.Generator().manual_seed(0))
    ista = ff.iterate(REGISTRY["ista"](), 5)
    in_c = compiled(ista, obs, flags=QUICK)
    rows = ff.evaluate({"torch": ista, "c": in_c}, problem, samples=20).rows
    levels = {row["estimator"]: row["nmse_db"] for row in rows}  # of torch, that after the last iteration
    assert levels["torch"] == pytest.approx(levels["c"], abs=1e-3)
    assert torch.equal(in_c(obs.y.numpy()).x, in_c(obs).x)
    assert torch.equal(in_c(Observation(obs.y[0], obs.A, obs.noise_var)).x, in_c(obs).x[0])
    one, other = (ff.guard.conformal(e, problem, coverage=0.9, samples=200) for e in (ista, in_c))
    widths = one(obs).high - one(obs).low
    assert torch.allclose(other(obs).high - other(obs).low, widths, rtol=1e-4)


def test_what_does_not_fit_is_refused():
    problem = ff.problems.CompressedSensing(n=24, m=16)
    _, obs = problem.sample(4, torch.Generator().manual_seed(0))
    in_c = compiled(ff.iterate(REGISTRY["ista"](), 2), obs, flags=QUICK)
    with pytest.raises(ValueError, match=r"takes torch.float32 of shape \(..., 16\)"):
        in_c(Observation(obs.y[:, :8]))
    _, other = replace(problem, seed=1).sample(4, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="compiled for another operator"):
        in_c(other)


def test_what_has_no_c_is_refused_by_name(tmp_path):
    _, obs = observed("float32")
    with pytest.raises(ValueError, match=r"operation aten\.\w*svd\w*\.default has no C"):
        to_c(lambda o: Estimate(torch.linalg.svdvals(o.y[:, :25].reshape(-1, 5, 5))), obs, tmp_path)
    _, double = observed("float64")
    with pytest.raises(ValueError, match="single precision"):
        to_c(ff.iterate(REGISTRY["ista"](), 2), double, tmp_path)
    for wrong in ({"name": "Großer Name"}, {"weights": "somewhere"}):
        with pytest.raises(ValueError, match="is"):
            to_c(ff.iterate(REGISTRY["ista"](), 2), obs, tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


def test_a_missing_compiler_and_a_refused_source_are_sentences(tmp_path, monkeypatch):
    (tmp_path / "bad.c").write_text("int f(void) { return x; }\n")
    with pytest.raises(ValueError, match=r"does not compile bad.c: .*undeclared"):
        compile_shared([tmp_path / "bad.c"], cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(ValueError, match="no C compiler: looked for gcc, clang, cc; install"):
        compile_shared([tmp_path / "bad.c"])
    monkeypatch.setenv("CC", "nobody-s-compiler")
    with pytest.raises(ValueError, match="no C compiler: looked for nobody-s-compiler; install"):
        compile_shared([tmp_path / "bad.c"])


def test_a_library_is_compiled_once(tmp_path):
    (tmp_path / "p.c").write_text("int p(void); int p(void) { return 5; }")
    first = compile_shared([tmp_path / "p.c"], QUICK, cache=tmp_path / "cache")
    assert ctypes.CDLL(str(first)).p() == 5
    before = os.stat(first).st_mtime_ns
    assert compile_shared([tmp_path / "p.c"], QUICK, cache=tmp_path / "cache") == first
    assert os.stat(first).st_mtime_ns == before
