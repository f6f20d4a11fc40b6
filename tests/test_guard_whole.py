"""A guard leaves as one program with its monitor, and with paths in whole numbers that have their programs' bits."""

import copy
import math
import shutil
import subprocess

import onnxruntime
import pytest
import torch

import fanfold as ff
from fanfold.deploy import CompiledC, compile_shared, compiled, lowered, to_c
from fanfold.deploy.export import write_onnx
from fanfold.deploy.integer import IntegerEstimator, drafted, play
from fanfold.estimators import quantised
from fanfold.estimators.ofdm import BeamMixer, MixerSettings
from fanfold.guard import guarded, monitor
from fanfold.guard.monitoring import MonitorStep
from fanfold.guard.monitoring.stepping import BLOCK, remembered_watch
from fanfold.observation import Estimate, Observation

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's, on tracing
EPS = torch.finfo(torch.float32).eps
PROBLEM = ff.problems.CompressedSensing(n=30, m=20, sparsity=0.1, snr_db=30.0)
CALLS = 60
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-DGUARDED_SELF_TEST", "guarded.c", "-o", "guarded", "-lm")
FLAGS = {"gcc": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"), "clang": ("-O1",)}


def whole(algorithm, widths, problem=PROBLEM, **learn):
    _, obs = problem.sample(100, torch.Generator().manual_seed(1))
    return quantised(ff.unfold(algorithm, problem, 2, learn or {"step": "tied"}), widths, obs)


def guard_of(problem, **settings):
    network = whole(ff.algorithms.LISTACP(lam=0.05), "w8a8", threshold="per-layer")
    baseline = whole(ff.algorithms.ISTA(lam=0.1), "w16a16")
    usual = monitor(network, problem, alarm=0.05, draws=600)
    return guarded(network, baseline, problem, reach=0.99, samples=200, monitor=usual, **settings)


def sequence() -> Observation:
    """Home, a gain that nobody told of, and home again, with calls in between that are no measurements."""
    _, obs = PROBLEM.sample(CALLS, torch.Generator().manual_seed(3))
    y = obs.y.clone()
    y[20:40] *= 3
    y[4, 3], y[30, 2], y[6] = math.nan, math.inf, 0.0
    return Observation.unchecked(y, obs.A, obs.noise_var)


def stepped(guard, obs):
    """What each call of the step says beside what it remembers, and the estimates."""
    step, held, said, x = guard.step(), {name: t[None] for name, t in guard.remembered.items()}, [], []
    with torch.no_grad():
        for call in range(len(obs.y)):
            one = obs[call : call + 1]
            estimate, after = step(one, guard.chance(one, (call,)), held)
            held = {name: after.pop(name) for name in held}
            said.append(torch.cat([after["p_value"], after["alarm"]], -1)[0])
            x.append(estimate.x)
    return torch.stack(said), torch.cat(x), held


def test_whole_paths_and_the_monitor_leave_in_one_file_of_c(tmp_path):
    guard, obs = guard_of(PROBLEM), sequence()
    files = to_c(guard, obs[:3], tmp_path, name="guarded")
    for compiler, flags in FLAGS.items():
        if shutil.which(compiler):
            subprocess.run([compiler, *flags, *STRICT], cwd=tmp_path, check=True)
            assert subprocess.run(["./guarded"], cwd=tmp_path, check=False).returncode == 0
    text = files.header.read_text()
    assert "#define GUARDED_TRUST_START {0.5f, 0.5f}" in text
    assert [port.name for port in files.lowered.outputs[:3]] == ["x_hat", "p_value", "alarm"]
    both = [drafted(path) for path in (guard.estimator, guard.baseline)]
    assert files.program.products >= 2 * sum(path.multiply_accumulates for path in both)
    assert files.program.weight_bytes >= sum(path.weight_bytes for path in both)
    said, x, held = stepped(guard, obs)
    assert (said[:, 0] - guard.monitor.p_values(obs)).abs().max() <= 1.01 / (guard.monitor.draws + 1)
    in_c = CompiledC(files, compile_shared([files.source], ("-O1",)), b"", PROBLEM.A)
    wanted = guard(obs)
    size = wanted.x.abs().amax(-1, keepdim=True)
    assert ((in_c(obs).x - wanted.x).abs() <= 1e3 * EPS * size).all()
    assert ((x - wanted.x).abs() <= 1e3 * EPS * size).all()
    for name, value in guard.remembered.items():
        torch.testing.assert_close(torch.from_numpy(in_c._held[name]).double(), value, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(held[name][0].double(), value, rtol=1e-3, atol=1e-6)
    assert guard.alarmed
    assert guard.calls.unfit == 3
    assert said[3, 1] == 0
    assert said[39, 1] == 1
    assert said[[4, 30], 0].tolist() == [pytest.approx(1 / (guard.monitor.draws + 1))] * 2


class Around(torch.nn.Module):
    """Something of floats around a network in whole numbers, which changes nothing."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, obs):
        said = self.inside(obs)
        return Estimate(said.x, said.var)


CHANNELS = ff.problems.OFDMChannel(pilots="comb-4", snr_db=(0, 20))


def mixer():
    net = BeamMixer.of(CHANNELS, MixerSettings(48, 6, 1, 4, 8, 8))
    x, obs = CHANNELS.sample(100, torch.Generator().manual_seed(1))
    net.prepare(x, obs)
    return quantised(net, "w8a8", obs)


INSIDE = {
    "real": (PROBLEM, lambda: whole(ff.algorithms.LISTACP(lam=0.05), "w8a8", threshold="per-layer")),
    "complex, with a noise variance": (CHANNELS, mixer),
    "a program": (PROBLEM, lambda: IntegerEstimator(drafted(whole(ff.algorithms.ISTA(lam=0.1), "w8a8")))),
}


@pytest.mark.parametrize("kind", INSIDE)
def test_a_network_in_whole_numbers_within_a_program_gives_the_player_s_bits(kind, tmp_path):
    problem, make = INSIDE[kind]
    network, (_, obs) = make(), problem.sample(8, torch.Generator().manual_seed(5))
    loud = obs.y * torch.logspace(-3, 4, 8).reshape(-1, *[1] * (obs.y.ndim - 1))  # of which some saturate
    obs = Observation.unchecked(loud, obs.A, obs.noise_var)
    program = network.program if kind == "a program" else drafted(network)
    given = {"y": obs.y.numpy(), "noise_var": obs.noise_var.expand(*obs.y.shape[:-1], 1).numpy()}
    (port,) = [port for port in program.outputs if port.name == "x_hat"]
    played = play(program, {port.name: port.integers(given[port.name]) for port in program.inputs})
    in_c = compiled(Around(network), obs[:2], flags=("-O1",))
    wanted = torch.from_numpy(port.numbers(played["x_hat"]))
    low = lowered(Around(network), obs)
    session = onnxruntime.InferenceSession(write_onnx(low, tmp_path / "around.onnx"))

    def in_onnx(obs):
        given = {port.name: values.numpy() for port, values in zip(low.inputs, low.arguments(obs))}
        return low.estimate([torch.from_numpy(values) for values in session.run(None, given)])

    for form in (in_c, in_onnx):
        said = form(obs).x
        assert torch.equal(said, wanted.to(said.dtype).reshape(said.shape))
    obs.y.view(len(obs.y), -1)[:, 2] = math.nan  # which no port holds
    for form in (in_c, in_onnx, *([] if kind == "a program" else [network])):  # a program by itself refuses it
        assert form(obs).x.isnan().all()


def test_of_copies_of_a_network_each_is_called():
    _, obs = PROBLEM.sample(4, torch.Generator().manual_seed(5))
    one = whole(ff.algorithms.ISTA(lam=0.1), "w16a16")
    other = copy.deepcopy(one)
    other.network.deviations["step"][0].data += 0.3

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = one, other

        def forward(self, obs):
            return Estimate(self.one(obs).x - 2 * self.other(obs).x)

    wanted = one(obs).x - 2 * other(obs).x
    assert not torch.equal(one(obs).x, other(obs).x)
    assert torch.equal(lowered(Both(), obs)(obs).x, wanted)


def test_a_monitor_alone_sends_a_guard_to_its_baseline_in_the_step_too():
    guard, obs = guard_of(PROBLEM, judge=None), sequence()
    said, x, held = stepped(guard, obs)
    wanted = guard(obs)
    assert guard.condition == "fallback"
    assert torch.allclose(x, wanted.x, rtol=0, atol=1e-6)
    torch.testing.assert_close(held["watch"][0].double(), guard.remembered["watch"], rtol=1e-4, atol=0)
    assert said[:, 1].tolist() == sorted(said[:, 1].tolist())  # for good


def test_ties_count_all_so_that_a_p_value_is_never_smaller():
    silent = ff.Observation(torch.zeros(4000, 3))
    usual = monitor(lambda obs: Estimate(obs.y), (silent.y, silent), alarm=0.05)
    one = silent[:5]
    step = MonitorStep(usual)
    bound = step.p_values(step.judged(one)[1])
    assert (bound >= usual.p_values(one)).all()
    assert torch.equal(bound, torch.ones(5, dtype=torch.float64))


def test_the_martingale_of_a_program_is_that_of_a_watch_however_many_calls_there_were():
    usual = guard_of(PROBLEM).monitor
    step, state = MonitorStep(usual), usual.watch()
    ranks = torch.randint(1, usual.draws + 2, (30,), generator=torch.Generator().manual_seed(0)).double()
    ranks[20:] = 1.0
    held = remembered_watch(state)[None]
    for rank in ranks:
        state, held = state.update(rank / (usual.draws + 1)), step.after(held.float().double(), rank[None])
        torch.testing.assert_close(held[0], remembered_watch(state), rtol=1e-5, atol=0)
    assert step.alarmed(held).item() == state.alarmed.item() is True
    late = torch.tensor([[0.0] * 5 + [1.0, BLOCK - 1, 2**10]])
    assert step.after(late, ranks[:1])[0, 6:].tolist() == [0.0, 2**10 + 1]


def test_the_loss_on_what_is_held_out_leaves_with_a_network_in_whole_numbers(tmp_path):
    network, calls = whole(ff.algorithms.ISTA(lam=0.1), "w16a16"), sequence()
    usual = monitor(network, PROBLEM, alarm=0.05, draws=600, scores=("energy", "held-out"))
    guard = guarded(network, network, PROBLEM, reach=0.9, samples=100, judge=None, monitor=usual)
    files = to_c(guard, calls[:3], tmp_path, name="guarded")
    assert files.program.products >= 2 * drafted(network).multiply_accumulates  # it is asked once more
    in_c = CompiledC(files, compile_shared([files.source], ("-O1",)), b"", PROBLEM.A)
    in_c(calls)
    guard(calls)
    assert guard.alarmed
    watch = torch.from_numpy(in_c._held["watch"]).double()
    torch.testing.assert_close(watch, guard.remembered["watch"], rtol=1e-3, atol=1e-6)
