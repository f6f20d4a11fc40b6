"""Everything that trains leaves PyTorch as real tensors that give the same numbers, or says what it is that cannot."""

import ctypes
import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import fanfold as ff
from fanfold import estimators
from fanfold.algorithms import EP, FISTA, ISTA, OAMP, REGISTRY
from fanfold.cli import main as cli
from fanfold.core.abilities import ability
from fanfold.core.streams import generator_of
from fanfold.deploy import lowered
from fanfold.deploy.codegen.build import compile_shared
from fanfold.deploy.export import write_onnx
from fanfold.deploy.lowering import Lowered
from fanfold.deploy.lowering.real_form import RealForm
from fanfold.estimators import ofdm
from fanfold.estimators.base import Preparable, Quantiled
from fanfold.linops import Dense, Kronecker
from fanfold.observation import Estimate, Observation
from fanfold.priors import BernoulliGaussian
from laws import moved
from runtime import check_near, in_runtime

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporter's own

# one layer of each, in single precision: the exporter takes seconds a layer
SPARSE = ff.problems.CompressedSensing(n=12, m=8, dtype="complex64")
IMAGING = ff.problems.RFImaging("gaussian", (6, 6), (5, 6))
CHANNELS = ff.problems.OFDMChannel("kronecker:array=2x2x2,subcarriers=12,delay_spread_ns=300", "comb-2", snr_db=(0, 20))
LINEAR = ff.problems.LinearGaussian(n=2, m=3)
MAPS = estimators.ThresholdMapFISTASettings(FISTA(0.02), 1, width=4, depth=2)
MIXER = ofdm.MixerSettings(6, 6, 1, 6, 8, 12)
UNFOLDED = estimators.UnfoldedSettings(ISTA(0.05), 2, {"step": "per-layer", "threshold": "tied"})
ROWS = {  # of the registry of what trains
    "unfolded": (SPARSE, UNFOLDED),
    "equilibrium": (SPARSE, estimators.EquilibriumSettings(ISTA(1.0), {"threshold": "tied"}, 1e-3)),
    "hybrid-oamp": (IMAGING, estimators.HybridOAMPSettings(OAMP(), 1, {"damping": "tied"}, width=4)),
    "hybrid-ep": (IMAGING, estimators.HybridEPSettings(EP(BernoulliGaussian()), 1, width=4, reach=1)),
    "threshold-map-fista": (IMAGING, MAPS),
    "modl": (IMAGING, estimators.MoDLSettings(layers=1, width=4, depth=2)),
    "back-projection-unet": (IMAGING, estimators.BackProjectionUNetSettings(width=8, levels=1)),
    "one-phase": (
        dataclasses.replace(IMAGING, targets="photographs", speckle=False),
        estimators.OnePhaseSettings(MAPS),
    ),
    "learned-responses": (IMAGING, estimators.LearnedResponsesSettings(MAPS)),
    "locator": (ff.problems.Tone(n=9), estimators.LocatorSettings(width=4)),
    "neural": (LINEAR, estimators.NeuralSettings("gaussian", 2, width=8)),
    "flow-posterior": (LINEAR, estimators.FlowPosteriorSettings("affine", transforms=1, width=8)),
    "beam-mixer": (CHANNELS, MIXER),
    "grid-cnn": (CHANNELS, ofdm.CNNSettings(width=8, depth=2, modes=6)),
    "beam-delay-admm": (CHANNELS, ofdm.ADMMSettings(1, 8, 3)),
    "beam-delay-oamp": (CHANNELS, ofdm.OAMPSettings(1, 8, 3)),
    "learned-filters": (CHANNELS, ofdm.FilterSettings(2, 2, 6, 1, 4, 8, 2)),
    "adapted": (CHANNELS, ofdm.AdaptedSettings(MIXER)),
    "recalibrated": (SPARSE, estimators.RecalibratedSettings(UNFOLDED, corrects=True, directions=2, scales=True)),
}
OTHERWISE = {"whole-numbers"}  # leaves as an integer program


class MixtureOfTwo:
    """What `KroneckerGMM` has for settings: it learns in closed form alone, so that no row of the registry is its."""

    def build(self, problem) -> ofdm.KroneckerGMM:
        return ofdm.KroneckerGMM.of(problem, ofdm.Mixture.of(problem, 2, 200, rounds=2, modes=6))


OTHERS = {  # other corrections and outputs of the same rows
    "hybrid-oamp, mean": (IMAGING, estimators.HybridOAMPSettings(OAMP(), 1, correct="mean", width=4)),
    "neural, quantiles": (LINEAR, estimators.NeuralSettings("pinball", width=8)),
    "neural, classes": (ff.problems.Modulation(), estimators.NeuralSettings("cross-entropy", width=8)),
    "mixture": (CHANNELS, MixtureOfTwo()),
}
CASES = ROWS | OTHERS


def made(problem, settings) -> nn.Module:
    """A network with weights as if it had learned."""
    net = settings.build(problem).requires_grad_(requires_grad=False)
    if learner := ability(net, Preparable):
        learner.prepare(*problem.sample(300, generator_of(0)))
    for p in net.parameters():
        p += 0.02 * torch.randn(p.shape, generator=generator_of(1), dtype=p.dtype)
    return net.eval()


def test_no_row_is_left_out():
    assert ROWS.keys() == estimators.REGISTRY.keys() - OTHERWISE
    for name, (_, settings) in ROWS.items():
        assert type(settings) is estimators.REGISTRY[name]


@pytest.mark.parametrize("name", CASES)
def test_onnx_runtime_says_all_that_the_network_says(name, tmp_path):
    """For its example, and for another batch of another size."""
    if name == "flow-posterior":
        pytest.importorskip("zuko")
    problem, settings = CASES[name]
    net, (_, obs) = made(problem, settings), problem.sample(4, generator_of(2))
    path = write_onnx(lowered(net, obs), tmp_path / "net.onnx")
    others = [] if name == "equilibrium" else [problem.sample(3, generator_of(3))[1]]  # which goes by its example
    for batch in (obs, *others):
        said, wanted = in_runtime(path, batch), net(batch)
        check_near(said.pop("x_hat"), wanted.x)
        if wanted.var is not None:
            check_near(said.pop("var"), wanted.var)
        if name == "neural, quantiles":
            assert isinstance(net, Quantiled)
            check_near(said.pop("quantiles"), net.quantiles(batch))
        assert not said


def test_classes_are_said_to_be_probabilities():
    problem, settings = OTHERS["neural, classes"]
    low = lowered(made(problem, settings), problem.sample(4, generator_of(2))[1])
    assert low.outputs[0].unit == "probability of each class"


# Operators and algorithms, in complex numbers, as far as the traced program


def complex_signal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator_of(5), dtype=torch.complex64)


OPERATORS = {
    "dense": Dense(complex_signal(6, 8) / 3),
    "kronecker": Kronecker(complex_signal(2, 3) / 2, complex_signal(3, 4) / 2),
    "steering": Dense(ff.linops.steering(ff.linops.uniform_linear(6), ff.linops.field_of_view(8, 0.8))),
    "composed": Dense(complex_signal(6, 8) / 3) @ ff.linops.Diagonal(complex_signal(8)),
}


def of_complex_numbers(operator) -> Observation:
    y = operator @ complex_signal(4, operator.n)
    return Observation(y + 0.1 * complex_signal(*y.shape), operator, torch.tensor(0.02))


def check_program(estimator, obs: Observation) -> Lowered:
    """The program, which holds no complex tensor and gives the estimate, also for fewer samples."""
    low = lowered(estimator, obs)
    values = [node.meta.get("val") for node in low.program.graph.nodes]
    assert not [v for v in values if isinstance(v, torch.Tensor) and v.is_complex()]
    for batch in (obs, obs[:3]):
        with torch.no_grad():
            said, wanted = low(batch), estimator(batch)
        check_near(said.x, wanted.x)
        if wanted.var is not None:
            check_near(said.var, wanted.var)
    return low


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_operators_become_real(operator):
    check_program(ff.iterate(ISTA(0.01), 2), of_complex_numbers(operator))


@pytest.mark.parametrize("name", REGISTRY)
def test_every_algorithm_of_complex_numbers_becomes_real(name):
    obs = of_complex_numbers(OPERATORS["kronecker"])
    check_program(moved(REGISTRY[name](), obs, 1), obs)


def test_classical_estimators_become_real():
    _, obs = CHANNELS.sample(4, generator_of(4))
    check_program(ofdm.Wiener.of(CHANNELS, ofdm.ChannelCovariance.of(CHANNELS, 300)), obs)
    lmmse = ff.LMMSE(None, torch.eye(12, dtype=torch.complex64))
    check_program(lmmse, SPARSE.sample(4, generator_of(4))[1])


def test_lmmse_of_measurements_that_repeat_needs_no_noise():
    A = complex_signal(3, 8)
    obs = of_complex_numbers(Dense(torch.cat([A, A])))
    lmmse = ff.LMMSE(None, torch.eye(8, dtype=torch.complex64))
    low = lowered(lmmse, obs)
    for noise_var in (0.0, 0.02):
        now = Observation(obs.y, obs.A, torch.tensor(noise_var))
        check_near(low(now).x, lmmse(now).x)
        check_near(low(now).var, lmmse(now).var)


@pytest.mark.parametrize("shape", [(4, 2, 1), (1, 2, 1), (2, 1), ()])
def test_noise_variances_of_several_axes(shape):
    """Of samples that have several observations each."""
    y, noise_var = torch.randn(4, 2, 6, generator=generator_of(5)), 0.1 + torch.rand(shape, generator=generator_of(6))
    obs = Observation(y, Dense(complex_signal(6, 8).real), noise_var)
    check_program(ff.iterate(OAMP(), 1), obs)


def test_a_noise_variance_that_the_network_measures_is_no_input():
    problem = dataclasses.replace(CHANNELS, known_noise=False)
    net, (_, obs) = made(problem, MIXER), problem.sample(4, generator_of(4))
    assert obs.noise_var is None
    assert [port.name for port in check_program(net, obs).inputs] == ["y"]


def test_a_program_of_one_sample_has_a_batch_of_one():
    obs = of_complex_numbers(OPERATORS["dense"])
    low = lowered(ff.iterate(ISTA(0.01), 1), obs, batch=1)
    assert low.inputs[0].shape == (1, 6, 2)
    check_near(low(obs[:1]).x, ff.iterate(ISTA(0.01), 1)(obs[:1]).x)


# One operation after the other


SQUARE = complex_signal(6, 6)
OPERATIONS: dict[str, Callable] = {
    "quotients": lambda z: (2 + 1j) / z + z / (z.conj() + 2) - 1 / z + z / 3,
    "real with complex numbers": lambda z: z.real * (2 + 0j) + z.real / (2 + 0j) + (2 + 0j) - z.real**1j,
    "from real": lambda z: torch.rsub(z.real, 2 + 0j) + z,
    "powers": lambda z: z**2 + z**-1 + z.square() + z**3 + z**0.5 + z**1.5,
    "sizes": lambda z: z.abs() + z.angle() + torch.linalg.vector_norm(z, dim=-1, keepdim=True) + z.real * z.imag,
    "functions": lambda z: z.exp() + z.log() + z.sqrt() + z.sgn() + torch.polar(z.abs(), z.real),
    "choices": lambda z: torch.where(z.real > 0, z, 1j) + torch.where((z == z[:1]) | (z != z), z, 0.5),
    "sums": lambda z: z.sum(-1, keepdim=True) - z.mean(-1, keepdim=True) + 2j * z.cumsum(-1) + (1 - z),
    "shapes": lambda z: torch.cat([z, z.flip(-1)], -1).roll(1, -1)[..., 1:7].reshape(-1, 2, 3).mT.flatten(1),
    "picks": lambda z: torch.stack([z[:, [2, 0]], z[:, 1:3]], -1).sum(-1) + torch.nn.functional.pad(z, (0, 2))[:, :2],
    "products": lambda z: (z[:, None, :] @ z[:, :, None].conj())[..., 0] + torch.einsum("bi,bj->bij", z, z).sum(-1),
    "vectors": lambda z: (z @ SQUARE) @ z[0] + z @ SQUARE[0] + (SQUARE @ z[0])[:4],
    "layers": lambda z: (
        nn.functional.linear(z, SQUARE, z[0]) + nn.functional.linear(z, z @ SQUARE, SQUARE[0, :4]).sum()
    ),
    "constants": lambda z: z @ SQUARE + (SQUARE @ z.mT).mT + (z.real + 0j) @ SQUARE + z @ (SQUARE.real + 0j),
    "inverses": lambda z: torch.linalg.inv(torch.diag_embed(z) + 0.1)[:, 0],
    "solutions": lambda z: torch.linalg.solve(torch.diag_embed(z) + 0.1j, z),
    "fourier": lambda z: torch.fft.ifft(torch.fft.fft(z, norm="ortho") * z) + torch.fft.fft2(z[:, None]).sum(1),
    "real fourier": lambda z: torch.fft.irfft(torch.fft.rfft(z.real) * torch.fft.rfft(z.imag), 6),
    "odd fourier": lambda z: torch.fft.irfft(torch.fft.rfft(z.real[:, :5]) * 2j, 5),
}


class Applied(nn.Module):
    def __init__(self, operation):
        super().__init__()
        self.operation = operation

    def forward(self, z):
        return (self.operation(z),)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_an_operation_on_complex_numbers_is_the_same_on_pairs(operation):
    z = torch.randn(4, 6, generator=generator_of(6), dtype=torch.complex128)
    traced = torch.export.export(Applied(lambda z: operation(z.to(torch.complex64))), (z,), strict=False)
    (said,) = RealForm(traced)(torch.view_as_real(z))
    wanted = operation(z.to(torch.complex64))
    check_near(torch.view_as_complex(said) if wanted.is_complex() else said, wanted)


def test_sizes_and_quotients_of_numbers_beyond_the_range_of_squares():
    z = torch.tensor([[3e-30 + 4e-30j, 3e30 + 4e30j, 0]], dtype=torch.complex64)
    traced = torch.export.export(Applied(lambda z: z.abs() + (z[:, :1] / z).real.nan_to_num(0)), (z,), strict=False)
    (said,) = RealForm(traced)(torch.view_as_real(z))
    torch.testing.assert_close(said, torch.tensor([[1.0, 5e30, 0.0]]))


def test_roots_beside_the_negative_axis_keep_their_small_real_part():
    z = torch.tensor([[-1 + 1e-4j, -1 - 1e-6j, -4, 0, 3 - 4j]], dtype=torch.complex64)
    traced = torch.export.export(Applied(torch.sqrt), (z,), strict=False)
    (said,) = RealForm(traced)(torch.view_as_real(z))
    # a handful of roundings, of each part by itself
    torch.testing.assert_close(said, torch.view_as_real(z.sqrt()), rtol=10 * torch.finfo(torch.float32).eps, atol=0)


# Refusals


def by_eigenvalues(obs: Observation) -> Estimate:
    return Estimate(torch.linalg.eigvalsh(obs.y[..., None] * obs.y[..., None, :].conj()))


def by_values(obs: Observation) -> Estimate:
    return Estimate(obs.y if obs.y.real.sum() > 0 else -obs.y)


def by_chance(obs: Observation) -> Estimate:
    return Estimate(obs.y + torch.randn(obs.y.shape))


@pytest.mark.parametrize(
    ("estimator", "sentence"),
    [
        (by_eigenvalues, r"aten\._linalg_eigh.* on complex numbers has no form in real ones"),
        (by_values, "cannot be traced"),
        (by_chance, "draws numbers at random as it runs"),
    ],
)
def test_what_cannot_leave_is_refused_by_name(estimator, sentence):
    _, obs = SPARSE.sample(4, generator_of(0))
    with pytest.raises(ValueError, match=sentence):
        lowered(estimator, obs)


@pytest.mark.parametrize("batch", [0, 5])
def test_a_batch_beyond_the_example_is_refused(batch):
    with pytest.raises(ValueError, match=f"batch is {batch} and the example has 4 samples"):
        lowered(ff.iterate(ISTA(), 1), SPARSE.sample(4, generator_of(0))[1], batch=batch)


@pytest.mark.filterwarnings("ignore:ISTA has not reached")
def test_an_equilibrium_of_very_many_iterations_is_refused():
    problem, _ = ROWS["equilibrium"]
    settings = estimators.EquilibriumSettings(ISTA(0.01), {"threshold": "tied"}, 1e-6, max_iterations=302)
    with pytest.raises(
        ValueError, match=r"took 302 iterations, and a traced program has from 1 to 300; .*raise tolerance"
    ):
        lowered(settings.build(problem), problem.sample(4, generator_of(2))[1])


def test_half_precision_is_refused():
    with pytest.raises(ValueError, match="export in single or double precision"):
        lowered(by_values, Observation(torch.ones(3, 2, dtype=torch.float16)))


# The command line


def test_a_run_in_double_precision_becomes_c_in_single(tmp_path, capsys):
    """The C gives the numbers of the network in single precision with these weights, on measurements of its own."""
    nets = []
    for dtype in ("float64", "float32"):
        problem = ff.problems.CompressedSensing(n=20, m=10, dtype=dtype)
        net = ff.unfold(OAMP(), problem, 2, {"damping": "tied", "v_linear": "per-layer"}).requires_grad_(False)
        for k, p in enumerate(net.parameters()):
            p += 0.3 * torch.randn(p.shape, generator=generator_of(k), dtype=torch.float64)
        nets.append((problem, net))
    (double, net), (problem, in_single) = nets
    ff.save(net, tmp_path / "net", double)
    assert cli.run(["export", str(tmp_path / "net"), "--to", "c"]) == 0
    assert "the run is in torch.float64; c computes in single precision" in " ".join(capsys.readouterr().err.split())
    source = tmp_path / "net/export/estimator.c"
    run = ctypes.CDLL(str(compile_shared([source], ["-O1"], cache=tmp_path / "cache"))).estimator_run
    work = np.zeros(int(source.with_suffix(".h").read_text().partition("double d[")[2].partition("]")[0]))
    _, obs = problem.held_out().sample(5, generator_of(7))
    wanted, was = in_single(obs), net(Observation(obs.y.double(), double.A, obs.noise_var.double()))
    for s in range(5):
        x_hat, var = (np.zeros(20, np.float32) for _ in range(2))
        ports = obs.y[s].numpy(), obs.noise_var.reshape(-1)[:1].numpy(), x_hat, var
        run(*(ctypes.c_void_p(numbers.ctypes.data) for numbers in (*ports, work)))
        check_near(torch.from_numpy(x_hat), wanted.x[s])
        check_near(torch.from_numpy(var), wanted.var[s])
    assert not torch.equal(wanted.x.double(), was.x)  # in double precision they are other numbers


def test_a_run_is_exported_by_the_shell(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    net = ff.unfold(ISTA(0.05), SPARSE, 1, {"step": "tied"})  # the exporter takes thrice as long for OAMP
    ff.save(net, "net", SPARSE)
    assert cli.run(["export", "net", "--to", "onnx", "--json"]) == 0
    (file,) = json.loads(capsys.readouterr().out)["files"]
    _, obs = SPARSE.sample(4, generator_of(0))
    with torch.no_grad():
        check_near(in_runtime(file["file"], obs)["x_hat"], net(obs).x)
    assert cli.run(["export", "net", "--out", "elsewhere", "--json"]) == 0
    (again,) = json.loads(capsys.readouterr().out)["files"]
    assert again["sha256"] == file["sha256"]
    before = sorted(tmp_path.rglob("*"))
    assert cli.run(["export", "net", "--out", "elsewhere"]) == 2
    assert "replace it with --overwrite" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
