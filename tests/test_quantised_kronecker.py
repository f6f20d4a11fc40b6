"""Complex OAMP in whole numbers: Kronecker products by their factors, and one set of bits everywhere."""

import numpy as np
import onnxruntime
import pytest
import torch

import fanfold as ff
from fanfold.core.streams import generator_of
from fanfold.core.units import nmse_db
from fanfold.deploy.integer import CompiledProgram, IntegerEstimator, TorchProgram, drafted, play
from fanfold.deploy.integer.onnx_form import onnx_model
from fanfold.estimators import quantised
from fanfold.estimators.fixed_point import Calibrating, ComplexOAMPLayers, integer_form
from fanfold.estimators.fixed_point.complex_oamp import Axes, factors_of, packed
from integer_programs import random_inputs

SMALL = ff.problems.RFImaging("gaussian", scene=(6, 6), elements=(4, 5))
LEARN = dict.fromkeys(("p", "noise_scale", "v_linear", "v_denoised"), "per-layer")
WIDTHS = ("w8a8", "w8a12", "w16a16")


def small(layers: int = 2) -> torch.nn.Module:
    return ff.unfold(ff.algorithms.OAMP(ff.priors.BernoulliGaussian(0.2)), SMALL, layers, LEARN)


@pytest.fixture(scope="module")
def observed():
    return SMALL.sample(200, generator_of(1))[1]


@pytest.fixture(scope="module")
def program(observed):
    return drafted(quantised(small(), "w8a8", observed))


@pytest.mark.parametrize("widths", WIDTHS)
def test_the_forward_pass_is_the_program_bit_for_bit(observed, widths):
    _, obs = SMALL.sample(200, generator_of(2))
    loud = ff.Observation(torch.cat([obs.y, 40 * obs.y, 0 * obs.y]), obs.A)  # the second third saturates everywhere
    whole = quantised(small(3), widths, observed)
    said = whole(loud).x
    assert torch.equal(said.detach(), IntegerEstimator(drafted(whole))(loud).x)
    assert torch.view_as_real(said).unique().numel() > 100
    said.abs().square().sum().backward()
    for name, p in whole.named_parameters():
        if "v_denoised" not in name:  # which only picks rows
            assert p.grad is not None, name
            assert torch.isfinite(p.grad).all(), name
            assert (p.grad != 0).any(), name


def test_every_form_of_the_program_gives_the_player_s_bits(program):
    inputs = random_inputs(program, 200, 0)
    wanted = play(program, inputs)["x_hat"]
    assert np.unique(wanted).size > 100
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    assert np.array_equal(TorchProgram(program)(tensors)["x_hat"].numpy(), wanted)
    session = onnxruntime.InferenceSession(onnx_model(program).SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(["x_hat"], inputs)[0], wanted)
    assert np.array_equal(CompiledProgram(program)(program, inputs)["x_hat"], wanted)


@pytest.mark.parametrize(("widths", "limit"), [("w8a8", 0.1), ("w8a12", 0.05), ("w16a16", 0.05)])
def test_little_is_lost_on_a_dense_complex_matrix_at_40_db(widths, limit):
    problem = ff.problems.CompressedSensing(n=120, m=80, snr_db=40.0, dtype="complex64")
    net = ff.unfold(ff.algorithms.OAMP(problem.prior), problem, 8)
    x, obs = problem.sample(600, generator_of(2))
    whole = quantised(net, widths, problem.sample(200, generator_of(1))[1])
    with torch.no_grad():
        floating = nmse_db(net(obs).x, x)
        assert floating < -46
        assert nmse_db(whole(obs).x, x) < floating + limit


def test_a_layer_that_believes_in_nothing_is_outweighed_by_the_residual():
    """With a probability of 1e-20 in the first layer hardly any error is expected, and the residual shows a lot."""
    problem = ff.problems.CompressedSensing(n=120, m=80, snr_db=40.0, dtype="complex64")
    net = ff.unfold(ff.algorithms.OAMP(problem.prior), problem, 8, {"p": "per-layer"})
    with torch.no_grad():
        net.deviations["p"][0] = 3.0
        x, obs = problem.sample(200, generator_of(2))
        assert net.thetas(obs)[0].p < 1e-12
        floating = nmse_db(net(obs).x, x)
        assert floating < -45
        whole = quantised(net, "w16a16", problem.sample(200, generator_of(1))[1])
        assert nmse_db(whole(obs).x, x) < floating + 0.05


def test_little_is_lost_on_a_kronecker_product_at_30_db():
    """Where layers converge: of so small a product a scene in a hundred does not, in numbers of any kind."""
    problem = ff.problems.RFImaging("gaussian", (14, 14), (12, 12), sparsity=0.03)
    net = ff.unfold(ff.algorithms.OAMP(problem.prior), problem, 6, LEARN)
    net = ff.fit(net, problem, steps=60, batch=64, lr=1e-2, seed=0)
    x, obs = problem.sample(600, generator_of(2))
    chosen_on = problem.sample(200, generator_of(1))[1]
    with torch.no_grad():
        floating = (net(obs).x - x).abs().square().sum(1)
        for widths, limit in (("w8a8", 0.5), ("w16a16", 0.05)):
            whole = (quantised(net, widths, chosen_on)(obs).x - x).abs().square().sum(1)
            converged = torch.maximum(floating, whole) < 10 * floating.median()
            assert converged.float().mean() > 0.97
            loss_db = 10 * torch.log10(whole[converged].sum() / floating[converged].sum())
            assert loss_db < limit


@pytest.mark.parametrize(("scene", "elements"), [((7,), (5,)), ((4, 6), (3, 7)), ((3, 4, 5), (2, 4, 3))])
def test_factors_give_the_products_of_the_operator(scene, elements):
    """One, two and three factors, one of them with more rows than columns: forward after left, and back."""
    generator = generator_of(0)
    factors = [torch.randn(m, n, dtype=torch.complex128, generator=generator) for m, n in zip(elements, scene)]
    A = ff.linops.Kronecker(*factors)
    net = ff.unfold(ff.algorithms.OAMP(), ff.observation.Observation(torch.zeros(A.m, dtype=A.dtype), A), 2)
    form = integer_form(net)
    assert isinstance(form, ComplexOAMPLayers)
    x = torch.randn(5, A.n, dtype=torch.complex128, generator=generator)
    reader = Calibrating({"y": torch.view_as_real(A @ x).flatten(1)}, "w16a16")
    z = form._by_factors(reader, form._entered(reader), "left", form.measured, form.seen, 16)
    back = form._by_factors(reader, reader.narrowed(z, 16), "back", form.seen, form.unknown)
    out = torch.view_as_complex(form._in_pairs(reader, back).value.reshape(5, A.n, 2))
    U, _, right = A.svd()
    wanted = right @ (U.H @ (A @ x))
    assert (out - wanted).norm() < 1e-3 * wanted.norm()


def test_axes_turn_with_their_pairs():
    turned, places = Axes((0, 1, 2), (3, 4, 5)).turned((2, 0, 1))
    assert turned.shape == (5, 3, 2, 4)
    assert torch.zeros(3, 4, 2, 5).permute(places).shape == turned.shape


def test_a_packed_matrix_is_the_complex_one():
    matrix, x = (torch.randn(shape, dtype=torch.complex128, generator=generator_of(0)) for shape in ((3, 4), (4,)))
    product = packed(matrix) @ torch.cat([x.real, x.imag])
    torch.testing.assert_close(torch.complex(*product.chunk(2)), matrix @ x)


def test_the_matrix_is_never_formed(program):
    products = [op for op in program.operations if op.kind == "MATMUL"]
    assert max(op.weights.size for op in products) <= 4 * 6 * 6
    assert [tuple(factor.shape) for factor in factors_of(SMALL.A)] == [(4, 6), (5, 6)]


def test_what_is_refused_is_said():
    complex_problem = ff.problems.CompressedSensing(n=20, m=10, dtype="complex64")
    with pytest.raises(ValueError, match="complex"):
        quantised(ff.unfold(ff.algorithms.LISTACP(), complex_problem, 2))
    with pytest.raises(ValueError, match=r"damping = 0\.5"):
        quantised(ff.unfold(ff.algorithms.OAMP(damping=0.5), SMALL, 2))
    _, obs = SMALL.sample(10, generator_of(0))
    with pytest.raises(ValueError, match="needs the noise variance"):
        quantised(small(), "w8a8", ff.Observation(obs.y, obs.A))
