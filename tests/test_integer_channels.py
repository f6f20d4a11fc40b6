"""The channel networks in whole numbers: little is lost, and every machine gives the same bits."""

import copy
import warnings

import numpy as np
import onnxruntime
import pytest
import torch

import fanfold as ff
from fanfold.core.streams import generator_of
from fanfold.core.units import nmse_db
from fanfold.deploy.integer import (
    CompiledProgram,
    IntegerEstimator,
    TorchProgram,
    drafted,
    golden_vectors,
    load_program,
    play,
    program_to_c,
    save_program,
    to_integers,
)
from fanfold.deploy.integer.onnx_form import onnx_model
from fanfold.estimators import quantised
from fanfold.estimators.ofdm import (
    BeamMixer,
    CNNSettings,
    FilterSettings,
    GridCNN,
    KroneckerGMM,
    LearnedFilters,
    MixerSettings,
    Mixture,
)
from integer_programs import random_inputs
from machines import MACHINES, need
from test_integer_c import STRICT, run

CHANNELS = ff.problems.OFDMChannel(pilots="comb-4", snr_db=(0, 20))
MAKE = {
    "beam-mixer": lambda **known: BeamMixer.of(CHANNELS, MixerSettings(48, 6, 2, 6, 24, 16, **known)),
    "grid-cnn": lambda **known: GridCNN.of(CHANNELS, CNNSettings(width=16, depth=3, **known)),
    "filters": lambda **known: LearnedFilters.of(CHANNELS, FilterSettings(2, 4, 4, 1, 2, 8, 2, **known)),
}
LIMITS = {"w16a16": 0.02, "w8a12": 0.1, "w8a8": 0.3}  # dB


def shaken(kind: str, **known: bool):
    """A network whose weights have moved, all of them, and which still estimates."""
    net, generator = MAKE[kind](**known), torch.Generator().manual_seed(1)
    net.prepare(*CHANNELS.sample(400, generator_of(0)))
    for name, p in net.named_parameters():
        size = 0.002 if name.startswith("bank") else 0.02  # bases are to stay bases
        p.data += size * torch.randn(p.shape, generator=generator)
    return net


@pytest.fixture(scope="module", params=MAKE)
def net(request):
    return shaken(request.param)


@pytest.fixture(scope="module")
def observed():
    return CHANNELS.sample(200, generator_of(1))[1]


@pytest.fixture(scope="module")
def program(net, observed):
    return to_integers(net, observed, "w8a8", name="p")


@pytest.mark.parametrize("widths", LIMITS)
def test_little_is_lost_at_every_snr(net, observed, widths):
    whole = quantised(net, widths, observed)
    for snr_db in (0, 10, 20):
        x, obs = CHANNELS.held_out().shifted(snr_db=float(snr_db)).sample(150, generator_of(2))
        with torch.no_grad():
            floating = nmse_db(net(obs).x, x)
            assert floating < -8  # it estimates something
            assert nmse_db(whole(obs).x, x) < floating + LIMITS[widths]


def test_what_is_trained_is_the_program_bit_for_bit(net, observed):
    _, obs = CHANNELS.held_out().sample(20, generator_of(3))
    for widths in LIMITS:
        whole = quantised(net, widths, observed)
        assert torch.equal(IntegerEstimator(drafted(whole))(obs).x, whole(obs).x.detach())


def test_a_kept_network_is_read_with_all_its_bits(net, observed, tmp_path):
    """It is built without weights, all of them zero where they are learned in closed form."""
    whole = quantised(net, "w8a8", observed)
    ff.save(whole, tmp_path / "net", CHANNELS)
    assert torch.equal(ff.load(tmp_path / "net")(observed[:4]).x, whole(observed[:4]).x)


def test_every_form_of_the_program_gives_the_player_s_bits(program, tmp_path):
    inputs = random_inputs(program, 12, 0)
    wanted = play(program, inputs)["x_hat"]
    assert np.array_equal(play(load_program(save_program(program, tmp_path / "p")), inputs)["x_hat"], wanted)
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    assert np.array_equal(TorchProgram(program)(tensors)["x_hat"].numpy(), wanted)
    model = onnx_model(program).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(["x_hat"], inputs)[0], wanted)
    assert np.array_equal(CompiledProgram(program)(program, inputs)["x_hat"], wanted)


@pytest.mark.parametrize("name", ["aarch64", "arm"])
def test_other_machines_give_the_player_s_bits(program, tmp_path, name):
    compiler, flags, player = MACHINES[name]
    need(compiler, *player)
    program_to_c(program, golden_vectors(program, random_inputs(program, 6, 0))).write(tmp_path)
    assert run(compiler, *flags, *STRICT, "p.c", "-o", "p", folder=tmp_path) == 0
    assert run(*player, "./p", folder=tmp_path) == 0


def test_matrices_multiply_words_and_their_sums_stay_within_32_bits(program):
    products = [op for op in program.operations if op.kind == "MATMUL"]
    for op in products[1:]:  # the first one adds up the power of the pilots
        assert program.dtypes[op.name] == "int32"
    of_bytes = [op for op in products if op.weights.dtype == np.int8 and program.dtypes[op.source] == "int8"]
    spent = sum(op.weights.size * op.outer * op.inner for op in of_bytes)
    assert spent > 0.4 * program.multiply_accumulates  # of small networks; the filter keeps its digits


def test_a_channel_of_another_power_is_estimated_as_well(net, observed):
    whole = quantised(net, "w16a16", observed)
    x, obs = CHANNELS.held_out().shifted(snr_db=10.0).sample(150, generator_of(4))
    weaker = ff.Observation(obs.y / 8, obs.A, obs.noise_var / 64)
    with torch.no_grad():
        assert nmse_db(whole(weaker).x, x / 8) < nmse_db(whole(obs).x, x) + 0.1


def test_a_known_power_is_not_measured(observed):
    net = shaken("beam-mixer", known_power=True)
    x, obs = CHANNELS.held_out().shifted(snr_db=10.0).sample(150, generator_of(5))
    with torch.no_grad():
        assert nmse_db(quantised(net, "w16a16", observed)(obs).x, x) < nmse_db(net(obs).x, x) + 0.02


def test_training_in_whole_numbers_moves_every_weight_that_makes_the_estimate(net, observed):
    whole = quantised(copy.deepcopy(net), "w8a8", observed)
    x, obs = CHANNELS.sample(16, generator_of(6))
    (whole(obs).x - x).abs().square().mean().backward()
    for name, p in whole.network.named_parameters():
        if not name.startswith(("hidden", "spread")):  # which say the error variance
            assert p.grad is not None, name
            assert torch.isfinite(p.grad).all(), name
            assert (p.grad != 0).any(), name


def test_every_sample_counts_alike_in_training_for_all_noise_variances(net):
    """Else the noisiest ones decide; a network for one noise variance has the NMSE of the batch."""
    assert quantised(net, "w8a8").training_defaults["nmse_over"] == "sample"
    problem = ff.problems.CompressedSensing(n=20, m=10)
    sparse = ff.unfold(ff.algorithms.LISTACP(), problem, 1, {"threshold": "tied"})
    assert quantised(sparse).training_defaults["nmse_over"] == "batch"


def test_pilots_are_timed_whole_and_none_at_all_are_estimated(observed):
    whole = quantised(shaken("grid-cnn"), "w8a8", observed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of imaginary parts that are left out
        (in_c,) = ff.deploy.time_backends(whole, observed[:2], ["c"], calls=2)
    assert in_c.timing is not None
    assert whole(observed[:0]).x.shape == (0, 768)
    assert IntegerEstimator(drafted(whole))(observed[:0]).x.shape == (0, 768)


def test_the_noise_has_to_be_known(net, observed):
    with pytest.raises(ValueError, match="pass noise_var"):
        to_integers(net, ff.Observation(observed.y, observed.A))


def test_a_mixture_has_its_bits_too_and_loses_little(observed):
    mixture = Mixture.of(CHANNELS, components=3, samples=300, rounds=3, modes=5)
    gmm = KroneckerGMM.of(CHANNELS, mixture)
    whole = quantised(gmm, "w8a8", observed)
    assert torch.equal(IntegerEstimator(drafted(whole))(observed).x, whole(observed).x.detach())
    for snr_db in (0, 20):
        x, obs = CHANNELS.held_out().shifted(snr_db=float(snr_db)).sample(150, generator_of(7))
        assert nmse_db(whole(obs).x, x) < nmse_db(gmm(obs).x, x) + 0.1


def test_a_component_that_no_draw_for_the_scales_came_from_is_estimated_as_well():
    """Scales are chosen on one half of a world; the other half comes from another component."""
    rng = np.random.default_rng(0)
    bases = [torch.from_numpy(np.linalg.qr(rng.standard_normal((32, 32)) + 0j)[0]) for _ in range(2)]
    powers = torch.logspace(1.2, -3, 32, dtype=torch.float64)
    space = torch.stack([(U * (powers * 32 / powers.sum())) @ U.mH for U in bases])
    basis = Mixture.of(CHANNELS, components=1, samples=100, rounds=1, modes=5)
    mixture = Mixture(torch.tensor([0.5, 0.5]).double(), space, basis.modes.expand(2, -1, -1).clone(), basis.basis)
    gmm = KroneckerGMM.of(CHANNELS, mixture)

    def drawn(component: int, seed: int):
        generator = generator_of(seed)
        root = torch.linalg.cholesky(space[component] + 1e-9 * torch.eye(32))
        over = torch.linalg.cholesky(basis.modes[0] + 1e-9 * torch.eye(5))
        g = torch.randn(200, 32, 5, dtype=torch.complex128, generator=generator)
        h = (root @ g @ over.mT @ basis.basis.mT).flatten(1).to(torch.complex64)
        w = torch.randn(200, 192, dtype=torch.complex64, generator=generator)
        return h, ff.Observation(CHANNELS.A @ h + 0.1 * w, CHANNELS.A, torch.tensor(0.01))

    whole = quantised(gmm, "w16a16", drawn(0, 8)[1])
    x, obs = drawn(1, 9)
    assert nmse_db(whole(obs).x, x) < nmse_db(gmm(obs).x, x) + 0.1
