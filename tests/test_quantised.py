"""Networks that train in whole numbers: what they compute is what their integer program plays, bit for bit."""

import copy
import shutil
import warnings

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.cli import main as cli
from fanfold.core.machine import World
from fanfold.core.streams import generator_of
from fanfold.core.units import nmse_db, power
from fanfold.deploy.integer import (
    Draft,
    Drafting,
    IntegerEstimator,
    compiled,
    drafted,
    load_program,
    play,
    program_to_onnx,
)
from fanfold.deploy.release import Bundle, IntegerBuild, certify_release, verify_bundle
from fanfold.deploy.release.against import read_certificate
from fanfold.estimators import quantised
from fanfold.estimators.fixed_point import Calibrating, FakeQuantised, FormPort, SoftStep, SoftSteps, integer_form
from fanfold.estimators.fixed_point.network import HEADROOMS
from fanfold.evaluation import peers
from fanfold.runs.directory import Run
from fanfold.training.trainer import Trainer

PROBLEM = ff.problems.CompressedSensing(n=60, m=30, snr_db=30.0)
CP = ff.algorithms.LISTACP(0.3), {"W": "per-layer", "threshold": "per-layer vector"}
ALISTA = ff.algorithms.ALISTA(), {"step": "per-layer", "threshold": "per-layer"}
VAMP = ff.algorithms.OAMP(ff.priors.BernoulliGaussian(0.2)), dict.fromkeys(("noise_scale", "v_linear", "p"), "tied")
ISTA = ff.algorithms.ISTA(), {"step": "per-layer", "threshold": "per-layer"}
FIRM = ff.algorithms.ALISTAAT(), dict.fromkeys(("step", "alpha", "concavity", "ridge"), "per-layer")
NETWORKS = {"lista-cp": CP, "alista": ALISTA, "alista-at": FIRM, "ista": ISTA, "oamp": VAMP}
WIDTHS = ("w8a8", "w8a12", "w16a16")
PROFILE = """
samples = 100
targets = ["c"]
[life_cycle]
functionality = "sparse recovery"
model_id = "sparse-1"
[domain]
snr_db = [20, 40]
[integers]
loss_db = 0.5
[latency]
limit_us = 1e6
calls = 5
rounds = 1
"""


def trained(name: str, steps: int = 60) -> torch.nn.Module:
    algorithm, learn = NETWORKS[name]
    layers = 3 if name == "oamp" else 5  # whose tables take a compiler seconds
    return ff.fit(ff.unfold(algorithm, PROBLEM, layers, learn), PROBLEM, steps=steps, batch=64, seed=0)


@pytest.fixture(scope="module", params=NETWORKS)
def net(request):
    return trained(request.param)


@pytest.fixture(scope="module")
def observed():
    return PROBLEM.sample(300, generator_of(1))[1]


# The forward pass is the program


@pytest.mark.parametrize("widths", WIDTHS)
def test_the_forward_pass_is_the_program_bit_for_bit(net, observed, widths):
    _, obs = PROBLEM.sample(1000, generator_of(2))
    loud = ff.Observation(torch.cat([obs.y, 40 * obs.y, 0 * obs.y]), obs.A)  # the second third saturates everywhere
    whole = quantised(net, widths, observed)
    program = drafted(whole)
    with torch.no_grad():
        said = whole(loud).x
    assert torch.equal(said, IntegerEstimator(program)(loud).x)
    assert torch.equal(whole(loud).x.detach(), said)  # with gradients too
    assert said.unique().numel() > 100


@pytest.mark.parametrize("widths", WIDTHS)
def test_it_is_the_program_after_training_too(net, widths):
    whole = ff.fit(net, PROBLEM, quantise=widths, steps=3, batch=8, lr=1e-2, validate_every=1)
    _, obs = PROBLEM.sample(500, generator_of(3))
    assert torch.equal(whole(obs).x.detach(), IntegerEstimator(drafted(whole))(obs).x)


def test_c_gives_the_bits_too(net, observed):
    whole = quantised(net, "w8a8", observed)
    assert torch.equal(compiled(drafted(whole))(observed).x, whole(observed).x.detach())


def test_onnx_runtime_gives_the_bits_too(net, observed, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    whole = quantised(net, "w8a8", observed)
    program = drafted(whole)
    path = program_to_onnx(program, tmp_path / "estimator.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (integers,) = session.run(["x_hat"], {"y": program.inputs[0].integers(observed.y.double().numpy())})
    numbers = torch.from_numpy(program.outputs[0].numbers(integers))
    assert torch.equal(numbers, whole(observed).x.detach().double())


def test_time_knows_the_c_of_whole_numbers(observed):
    whole = quantised(trained("lista-cp", 2), "w8a8", observed)
    eager, in_c = ff.deploy.time_backends(whole, observed[:2], ["eager", "c"], calls=20)
    assert eager.timing is not None
    assert in_c.timing is not None
    assert in_c.multiply_accumulates == drafted(whole).multiply_accumulates


def test_time_knows_the_onnx_of_whole_numbers(observed):
    pytest.importorskip("onnxruntime")
    whole = quantised(trained("lista-cp", 2), "w8a8", observed)
    (late,) = ff.deploy.time_backends(whole, observed[:2], ["onnx"], calls=5)
    assert late.timing is not None
    assert late.note == "in whole numbers"
    assert late.weight_bytes == drafted(whole).weight_bytes


def test_a_network_without_scales_says_so_in_its_row(observed):
    rows = ff.deploy.time_backends(quantised(trained("lista-cp", 2), "w8a8"), observed[:2], ["c", "onnx"], calls=2)
    assert [row.timing for row in rows] == [None, None]
    assert all("scales of whole numbers are not chosen" in row.note for row in rows)


def test_two_readers_agree_on_every_operation():
    """Tables, banks, transpositions, Kronecker factors and shifts either way, which soft thresholding does not need."""
    shape, rng = (3, 4), np.random.default_rng(0)
    left = torch.from_numpy(rng.standard_normal((5, 3)))
    right = torch.from_numpy(rng.standard_normal((4, 4)))

    def layers(arithmetic):
        y = arithmetic.narrowed(arithmetic.entered("y"))
        along = arithmetic.product(y, arithmetic.matrix(left), outer=1, inner=4)
        along = arithmetic.narrowed(along)
        turned = arithmetic.moved(along, (5, 4), (1, 0))
        across = arithmetic.narrowed(arithmetic.product(turned, arithmetic.matrix(right), inner=5))
        squares = arithmetic.times(across, across)
        bent = arithmetic.table(across, torch.tanh)
        ones = torch.ones(1, 20, dtype=torch.float64)
        power = arithmetic.product(arithmetic.narrowed(squares), arithmetic.matrix(ones))
        edges = np.array([20, 400, 9000])

        def scaled(at):
            return at * torch.tensor([[0.1], [0.5], [1.0], [2.0]], dtype=torch.float64)

        picked = arithmetic.bank(bent, power, edges, scaled, bits=12)
        biased = arithmetic.plus(picked, arithmetic.number(torch.linspace(-0.1, 0.1, 20)))
        coarse = arithmetic.shifted(biased, biased.fraction - np.arange(20) % 5 + 2)
        rest = arithmetic.minus(coarse, arithmetic.shifted(across, coarse.fraction))
        return {"x_hat": arithmetic.output(rest, "x_hat")}

    numbers = torch.from_numpy(rng.standard_normal((400, 12)))
    for widths in WIDTHS:
        chooser = Calibrating({"y": numbers}, widths)
        layers(chooser)
        reader = FakeQuantised({"y": numbers}, widths, chooser.chosen)
        said = layers(reader)["x_hat"]
        writer = Drafting(Draft("all"), {"y": FormPort("y", shape)}, widths, chooser.chosen)
        written = layers(writer)["x_hat"]
        writer.draft.output(written.value, (20,), int(written.fraction[0]))
        program = writer.draft.finish()
        whole = play(program, {"y": program.inputs[0].integers(numbers.reshape(-1, *shape).numpy())})["x_hat"]
        assert np.array_equal(np.ldexp(said.value.numpy(), int(said.fraction[0])), whole)
        assert np.unique(whole).size > 100
        assert abs(whole).max() <= said.largest


@pytest.mark.parametrize(("widths", "limit"), [("w8a8", 1.5), ("w8a12", 0.1), ("w16a16", 0.05)])
def test_oamp_loses_little_by_calibration_alone(widths, limit):
    """At 40 dB; 8 bits of changes cost more on so small a matrix, whose variances are spread, than on a larger one."""
    problem = ff.problems.CompressedSensing(n=120, m=80, snr_db=40.0)
    net = ff.unfold(ff.algorithms.OAMP(ff.priors.BernoulliGaussian(0.1)), problem, 8)
    x, obs = problem.sample(1000, generator_of(2))
    whole = quantised(net, widths, problem.sample(300, generator_of(1))[1])
    with torch.no_grad():
        floating = nmse_db(net(obs).x, x)
        assert floating < -46
        assert nmse_db(whole(obs).x, x) < floating + limit


def test_the_second_part_of_a_residual_is_worth_eight_bits():
    """A step of ten magnifies what rounding takes from the residual; in two parts it takes far less."""
    net = ff.unfold(ff.algorithms.ALISTA(), PROBLEM, 2, {"step": "per-layer"})
    form = integer_form(net)
    assert isinstance(form, SoftSteps)
    y = PROBLEM.sample(300, generator_of(0))[1].y.double()
    W = net.algorithm.nominals["W"].value(net.algorithm, ff.Observation(y[0].float(), PROBLEM.A))
    layer, errors = SoftStep(W, torch.tensor(0.1), torch.tensor(10.0)), []
    on_grid = FakeQuantised({}, "w8a8").matrix(W, one_scale=True).numbers
    for fine in (False, True):
        reader = Calibrating({"y": y}, "w8a8")
        entered = reader.entered("y")
        driving = form.driving(reader, layer, entered)
        stepped = form.stepped(reader, layer, driving, reader.narrowed(driving), fine=fine).value
        errors.append((stepped - 10 * entered.value @ on_grid.mT).square().mean())
    assert errors[1] < errors[0] / 1e3


def test_a_residual_never_saturates_below_what_a_measurement_can_be():
    """The product with A takes nearly all of 2^24 there, at 156 unknowns and 12 bits."""
    problem = ff.problems.CompressedSensing(n=156, m=78, snr_db=40.0)
    net = ff.unfold(ff.algorithms.LISTACP(0.1), problem, 4, {"threshold": "per-layer"})
    x, obs = problem.sample(200, generator_of(2))
    whole = quantised(net, "w8a12", problem.sample(200, generator_of(1))[1])
    with torch.no_grad():
        assert nmse_db(whole(obs).x, x) < nmse_db(net(obs).x, x) + 0.1


def test_oamp_needs_one_noise_variance():
    problem = ff.problems.CompressedSensing(n=20, m=12)
    net = ff.unfold(ff.algorithms.OAMP(), problem, 2)
    _, obs = problem.sample(10, generator_of(0))
    with pytest.raises(ValueError, match="needs the noise variance"):
        quantised(net, "w8a8", ff.Observation(obs.y, obs.A))
    with pytest.raises(ValueError, match="needs the noise variance"):
        quantised(net, "w8a8", ff.Observation(obs.y, obs.A, torch.rand(10, 1)))
    for algorithm, said in (
        (ff.algorithms.OAMP(damping=0.5), "damping = 0.5"),
        (ff.algorithms.OAMP(noise="estimated"), "noise = estimated"),
        (ff.algorithms.OAMP(ff.priors.Laplace()), "BernoulliGaussian prior"),
    ):
        with pytest.raises(ValueError, match=said):
            quantised(ff.unfold(algorithm, problem, 2))
    with pytest.raises(ValueError, match="learns its damping"):
        quantised(ff.unfold(ff.algorithms.OAMP(), problem, 2, {"damping": "tied"}))


def test_another_noise_variance_than_that_of_the_tables_is_said():
    problem = ff.problems.CompressedSensing(n=20, m=12)
    _, obs = problem.sample(10, generator_of(0))
    whole = quantised(ff.unfold(ff.algorithms.OAMP(), problem, 2), "w8a8", obs)
    louder = ff.Observation(obs.y, obs.A, 2 * obs.noise_var)
    with pytest.warns(UserWarning, match=r"made for noise_var = 1.67e-05, and there are observations with 3.33e-05"):
        whole(louder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole(obs)
        whole(ff.Observation(obs.y, obs.A))  # which says nothing of its noise
        quantised(ff.unfold(ff.algorithms.LISTACP(), problem, 2), "w8a8", obs)(louder)  # whose layers do not take it
    with pytest.raises(ValueError, match="needs the noise variance"):
        whole.calibrate(ff.Observation(obs.y, obs.A))  # not made for the one before


def test_sums_that_would_not_fit_lose_their_last_digits():
    """Values of very different scales, as residuals are that shrink from layer to layer."""
    numbers = torch.rand(50, 4, generator=generator_of(0), dtype=torch.float64)

    def layers(arithmetic):
        total = arithmetic.entered("y")
        for k in range(1, 6):
            finer = arithmetic.number(0.01 ** torch.full((4,), float(k)))
            total = arithmetic.minus(total, arithmetic.times(arithmetic.within(total), finer))
        return arithmetic.output(total, "x_hat")

    chooser = Calibrating({"y": numbers}, "w16a16")
    layers(chooser)
    with torch.no_grad():
        said = layers(FakeQuantised({"y": numbers}, "w16a16", chooser.chosen))
    writer = Drafting(Draft("finer"), {"y": FormPort("y", (4,))}, "w16a16", chooser.chosen)
    writer.draft.output(layers(writer).value, (4,), chooser.chosen[-1])
    program = writer.draft.finish()
    assert max(row.bound for row in program.proof.rows) > 2**40
    whole = play(program, {"y": program.inputs[0].integers(numbers.numpy())})["x_hat"]
    assert np.array_equal(np.ldexp(said.value.numpy(), chooser.chosen[-1]), whole)
    torch.testing.assert_close(said.value, numbers * (1 - 0.01) * (1 - 1e-4), rtol=0, atol=1e-4)


def test_of_several_choices_of_scales_the_nearest_to_floating_point_is_taken(net, observed):
    wanted = net(observed).x
    whole = quantised(net, "w8a8", observed)
    errors = []
    for headroom in HEADROOMS:
        chooser = Calibrating({"y": observed.y.double()}, "w8a8", headroom=headroom, noise_var=whole.known_noise_var)
        with torch.no_grad():
            errors.append((whole.written(chooser)["x_hat"].value - wanted).square().sum().item())
    assert len(set(errors)) > 1
    with torch.no_grad():
        error = (whole(observed).x.double() - wanted).square().sum().item()
    assert error == pytest.approx(min(errors), rel=1e-5)  # estimates are in single precision


def test_scales_need_observations_and_the_cpu():
    net = ff.unfold(ff.algorithms.LISTACP(), PROBLEM, 2, {"threshold": "per-layer"})
    with pytest.raises(ValueError, match="holds no observations"):
        quantised(net, "w8a8", PROBLEM.sample(2, generator_of(0))[1][:0])
    with pytest.raises(ValueError, match=r"on meta; .*net.cpu\(\)"):
        quantised(net.to("meta"))


# Gradients


def test_gradients_are_those_of_the_network_in_floating_point(observed):
    """With 16 bits what is computed is nearly the same, and so is where a loss falls."""
    net = trained("lista-cp")
    whole = quantised(net, "w16a16", observed)
    directions = []
    for model, inner in ((whole, whole.network), (net, net)):
        inner.zero_grad()
        model(observed).x.square().sum().backward()
        directions.append(torch.cat([p.grad.flatten() for p in inner.parameters()]))
    one, other = directions
    assert torch.cosine_similarity(one, other, dim=0) > 0.999
    assert 0.95 < one.norm() / other.norm() < 1.05


def test_a_table_has_the_slope_of_its_function():
    numbers = torch.linspace(-2, 2, 400, dtype=torch.float64)[:, None].requires_grad_()
    scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    reader = FakeQuantised({"y": numbers}, "w8a12", [12, 9])
    bent = reader.table(reader.narrowed(reader.entered("y")), lambda at: torch.tanh(scale * at))
    bent.value.sum().backward()
    assert scale.grad is not None
    assert numbers.grad is not None
    at = numbers.detach()
    torch.testing.assert_close(numbers.grad, 1.5 / torch.cosh(1.5 * at).square(), rtol=0, atol=0.3)  # a step of a table
    exact = (at / torch.cosh(1.5 * at).square()).sum()
    torch.testing.assert_close(scale.grad, exact, rtol=0, atol=0.5)


# Training


@pytest.mark.parametrize(("widths", "limit"), [("w8a8", 0.3), ("w8a12", 0.1), ("w16a16", 0.02)])
def test_training_in_whole_numbers_loses_little(widths, limit):
    """On a small problem, against the network that was trained in floating point as long as pays."""
    net = trained("lista-cp", 400)
    x, obs = PROBLEM.sample(4000, generator_of(2))
    before = {name: p.clone() for name, p in net.named_parameters()}
    whole = ff.fit(net, PROBLEM, quantise=widths, steps=100, validate_every=25)
    with torch.no_grad():
        floating, integer = nmse_db(net(obs).x, x), nmse_db(whole(obs).x, x)
    assert floating < -6.0
    assert integer < floating + limit
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())  # it stays as it is


def test_training_gains_on_calibration_alone():
    net = trained("alista", 100)
    x, obs = PROBLEM.sample(4000, generator_of(2))
    whole = ff.fit(net, PROBLEM, quantise="w8a8", steps=100, lr=3e-3, validate_every=25)
    calibrated = quantised(net, "w8a8", PROBLEM.sample(500, generator_of(1))[1])
    with torch.no_grad():
        assert nmse_db(whole(obs).x, x) < nmse_db(calibrated(obs).x, x) - 0.05


def test_training_never_makes_a_network_worse_than_calibration_leaves_it(net):
    """Beyond chance, on draws that no training saw: with the same scales, and with few draws to judge by at each step.

    The weights of least error on these hundred draws would be worse by .17 dB for OAMP.
    """
    few = {"steps": 24, "batch": 8, "lr": 1e-2, "validate_every": 1, "validation_samples": 100}
    whole = ff.fit(net, PROBLEM, quantise="w8a8", on_event=lambda event: None, **few)
    start = copy.deepcopy(whole)
    start.network.load_state_dict(net.state_dict())
    x, obs = PROBLEM.sample(4000, generator_of(9))
    with torch.no_grad():
        after, before = (power(each(obs).x - x).sum(1) for each in (whole, start))
    worse = after - before
    assert worse.mean() <= 3 * worse.std() / len(worse) ** 0.5


def test_it_leaves_as_no_float_program(observed):
    whole = quantised(trained("lista-cp", 2), "w8a8", observed)
    with pytest.raises(ValueError, match=r"computes in whole numbers: .*net.network"):
        ff.deploy.lowered(whole, observed)
    assert ff.deploy.lowered(whole.network, observed[:4])(observed[:4]).x.shape == (4, 60)


def test_what_has_no_form_is_refused_by_the_names_of_what_has():
    for algorithm, said in (
        (ff.algorithms.FISTA(), r"unfolded FISTA has no integer form yet; .*unfolded LISTACP"),
        (ff.algorithms.ALISTA(p=0.01), "selects"),
    ):
        net = ff.unfold(algorithm, PROBLEM, 2, {"threshold": "per-layer"})
        with pytest.raises(ValueError, match=said):
            ff.fit(net, PROBLEM, steps=1, quantise="w8a8")
    with pytest.raises(ValueError, match=r"Locator has no integer form yet; .*LISTACP"):
        integer_form(ff.estimators.LocatorSettings(width=4).build(ff.problems.Tone(n=9)))
    with pytest.raises(ValueError, match="widths is 'w4a4'; take w8a8, w8a12 or w16a16"):
        ff.fit(ff.unfold(*CP[:1], PROBLEM, 2, CP[1]), PROBLEM, steps=1, quantise="w4a4")
    comp = ff.problems.CompressedSensing(n=20, m=10, dtype="complex64")
    with pytest.raises(ValueError, match="complex"):
        quantised(ff.unfold(ff.algorithms.LISTACP(), comp, 2))
    fresh = quantised(ff.unfold(ff.algorithms.LISTACP(), PROBLEM, 2))
    for use in (lambda: fresh(PROBLEM.sample(2, generator_of(0))[1]), lambda: drafted(fresh)):
        with pytest.raises(ValueError, match="scales of whole numbers are not chosen yet"):
            use()


# Runs


def train_run(path, *more: str) -> None:
    words = ["compressed-sensing", "--n", "20", "--m", "12", "lista-cp", "--layers", "2"]
    few = ["--steps", "20", "--batch", "16", "--threads", "1", "--learn", "W=per-layer", "threshold=per-layer"]
    assert cli.run(["train", *words, *few, "--run-dir", str(path), *more]) == 0


def test_a_quantised_run_resumes_is_kept_and_leaves_as_an_integer_program(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)  # without peers of other libraries, which take a minute
    path = tmp_path / "run"
    train_run(path)
    few = ["--steps", "6", "--batch", "8", "--validate-every", "2", "--validation-samples", "50", "--threads", "1"]
    assert cli.run(["quantise", str(path), "--widths", "w8a12", *few]) == 0
    whole = ff.load(f"{path}-w8a12")
    assert Run.open(f"{path}-w8a12").config["network"]["widths"] == "w8a12"

    def dies(trainer: Trainer) -> None:
        save(trainer)
        if trainer.step == 4:
            raise KeyboardInterrupt

    save = Trainer._save_checkpoint
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_save_checkpoint", dies)
        assert cli.run(["quantise", str(path), "--widths", "w8a12", *few, "--run-dir", str(tmp_path / "two")]) != 0
    assert cli.run(["resume", str(tmp_path / "two")]) == 0
    assert Run.open(tmp_path / "two").weights_hash() == Run.open(f"{path}-w8a12").weights_hash()

    assert cli.run(["evaluate", f"{path}-w8a12", "--samples", "20"]) == 0
    assert "the same weights in floating point" in capsys.readouterr().out
    np.save(tmp_path / "y.npy", np.zeros((3, 12), np.float32))
    assert cli.run(["apply", f"{path}-w8a12", str(tmp_path / "y.npy"), "--out", str(tmp_path / "x.npy")]) == 0
    assert cli.run(["report", f"{path}-w8a12", "--samples", "20"]) == 0
    problem = Run.open(path).problem()
    _, obs = problem.sample(50, generator_of(5))
    assert cli.run(["export", f"{path}-w8a12", "--to", "c", "--out", str(tmp_path / "c")]) == 0
    assert "iq is real part" in (tmp_path / "c/estimator.h").read_text()
    assert "int16_t in_y[12]" in (tmp_path / "c/estimator.h").read_text()
    if shutil.which("clang") and shutil.which("wasm-ld"):
        assert cli.run(["export", f"{path}-w8a12", "--to", "wasm", "--out", str(tmp_path / "wasm")]) == 0
        assert "of: Int16Array" in (tmp_path / "wasm/estimator.mjs").read_text()
    assert cli.run(["export", f"{path}-w8a12", "--to", "onnx-single", "--out", str(tmp_path / "single")]) == 0
    assert cli.run(["export", str(path), "--to", "onnx-single"]) != 0
    assert "one in floating point, or guarded, leaves as onnx" in " ".join(capsys.readouterr().err.split())
    guarded = ["export", f"{path}-w8a12", "--guarded", "--out", str(tmp_path / "guarded")]
    assert cli.run([*guarded, "--to", "c", "--baseline", "untrained LISTACP"]) == 0
    assert "guarded by untrained LISTACP, in whole numbers" in capsys.readouterr().err
    source = (tmp_path / "guarded/estimator.c").read_text()
    assert all(f"static void whole{k}_run(const int16_t in_y[12]" in source for k in (0, 1))
    assert "out p_value: 1" in (tmp_path / "guarded/estimator.h").read_text()
    for wrong, said in (
        ([*guarded, "--baseline", "OMP"], "there is no peer 'OMP'; there are untrained LISTACP, OAMP, true prior"),
        ([*guarded, "--coverage", "0.9"], "leave out --coverage or --guarded"),
        (["export", f"{path}-w8a12", "--baseline", "LMMSE"], "add --guarded"),
    ):
        assert cli.run(wrong) != 0
        assert said in capsys.readouterr().err

    (tmp_path / "profile.toml").write_text(PROFILE)
    words = ["certify", f"{path}-w8a12", "--profile", str(tmp_path / "profile.toml")]
    assert cli.run([*words, "--out", str(tmp_path / "release")]) == 0
    program = load_program(tmp_path / "release/integer/estimator.safetensors")
    assert torch.equal(IntegerEstimator(program)(obs).x, whole(obs).x.detach())
    verification = verify_bundle(tmp_path / "release")
    assert verification.passed
    assert ("integer program", True) in [(check.what, check.passed) for check in verification.checks]
    (late,) = [result for result in read_certificate(Bundle(tmp_path / "release")).results if "latency" in result.what]
    assert "in whole numbers" in late.note
    other = IntegerBuild.of(drafted(quantised(whole, "w8a8", obs)))
    with pytest.raises(ValueError, match="another program than its own"):
        certify_release(Run.open(f"{path}-w8a12"), tmp_path / "profile.toml", tmp_path / "other", integer=other)
    assert not (tmp_path / "other").exists()


def test_training_and_quantising_is_one_command(tmp_path, capsys):
    train_run(tmp_path / "run", "--quantise", "w16a16")
    assert ff.load(tmp_path / "run-w16a16").widths == "w16a16"
    assert ff.load(tmp_path / "run").layers == 2
    words = ["compressed-sensing", "--n", "20", "--m", "12", "fista", "--layers", "2", "--quantise", "w8a8"]
    assert cli.run(["train", *words, "--run-dir", str(tmp_path / "other")]) != 0
    assert "no integer form" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()  # nothing is trained for nothing
    assert cli.run(["train", "--config", str(tmp_path / "run-w16a16/config.toml")]) != 0
    assert "take the config of that" in capsys.readouterr().err


def test_a_training_that_whole_numbers_follow_goes_on_with_both(tmp_path, monkeypatch, capsys):
    def dies(trainer: Trainer) -> None:
        save(trainer)
        raise KeyboardInterrupt

    save, path = Trainer._save_checkpoint, tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_save_checkpoint", dies)
        with pytest.raises(AssertionError):
            train_run(path, "--quantise", "w8a8")
    assert f"go on with: fanfold resume {path} --quantise w8a8" in capsys.readouterr().err
    assert not (path / "weights.safetensors").exists()
    assert cli.run(["resume", str(path), "--quantise", "w8a8"]) == 0
    assert Run.open(path).estimator().layers == 2
    assert ff.load(f"{path}-w8a8").widths == "w8a8"
    assert cli.run(["resume", str(path), "--quantise", "w8a8"]) != 0
    assert f"go on with it: fanfold resume {path}-w8a8" in capsys.readouterr().err


def test_training_of_several_processes_is_not_quantised_in_one_go(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("fanfold.cli.training.join_world", lambda device: World(rank=1, size=2))
    words = ["compressed-sensing", "--n", "20", "--m", "12", "lista-cp", "--layers", "2", "--quantise", "w8a8"]
    assert cli.run(["train", *words, "--run-dir", str(tmp_path / "run")]) != 0
    assert "then fanfold quantise RUN" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_that_stopped_before_its_first_checkpoint_does_not_begin_from_nothing(tmp_path, monkeypatch, capsys):
    train_run(tmp_path / "run")

    def dies(trainer: Trainer) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_save_checkpoint", dies)
        assert cli.run(["quantise", str(tmp_path / "run")]) != 0
    assert cli.run(["resume", str(tmp_path / "run-w8a8")]) != 0
    assert "quantise the network in floating point again" in capsys.readouterr().err
