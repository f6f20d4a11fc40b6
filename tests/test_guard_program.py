"""A guarded estimator as one program says what torch says, call by call, whatever happens in between."""

import math
from dataclasses import replace

import pytest
import torch

import fanfold as ff
from fanfold.deploy import compiled, lowered, time_backends
from fanfold.deploy.cost import multiply_accumulates
from fanfold.deploy.export import write_onnx
from fanfold.guard import Hysteresis, guarded
from fanfold.guard.fallback.stepping import LENGTHS
from fanfold.observation import Estimate, Observation

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's, on tracing
EPS = torch.finfo(torch.float32).eps
PROBLEM = ff.problems.CompressedSensing(n=30, m=20, sparsity=0.1, snr_db=30.0)
NET = ff.iterate(ff.algorithms.ISTA(lam=0.02), 2)
SAFE = ff.iterate(ff.algorithms.FISTA(lam=0.2), 1)
CALLS, LOUD = 60, 100.0


class Wrong(torch.nn.Module):
    """A network that is right until measurements are loud."""

    def forward(self, obs):
        loud = (obs.y.abs() > LOUD / 10).any(-1, keepdim=True)
        x = NET(obs).x
        return Estimate(torch.where(loud, -5.0 * x, x))


def sequence(problem) -> Observation:
    """Home, a collapse, and home again, with calls in between that are no measurements."""
    _, obs = problem.sample(CALLS, torch.Generator().manual_seed(3))
    scale = torch.where((torch.arange(CALLS) % 40 >= 20)[:, None], LOUD, 1.0)
    y = obs.y * scale
    y[4, 3], y[5, 2], y[6], y[30] = math.nan, -math.inf, 0.0, 0.0
    y[25] = 1.0  # all at one magnitude
    return Observation.unchecked(y, obs.A, obs.noise_var * scale.square())


def guard_of(problem, **settings):
    guard = guarded(NET, SAFE, problem, **({"reach": 0.99, "samples": 300} | settings))
    guard.estimator = Wrong()
    return guard


def same(one, other):
    """Sums in another order, a few layers deep, of each call's own size."""
    size = other.abs().amax(-1, keepdim=True)
    return ((one - other).abs() <= 1e3 * EPS * size).all()


@pytest.mark.parametrize(
    ("dtype", "settings"),
    [
        ("float32", {"latch": True}),
        ("complex64", {"every": 2, "hysteresis": Hysteresis(stay=7)}),
    ],
    ids=["real, latch", "complex, hysteresis"],
)
def test_a_step_is_the_call_and_its_c_says_what_torch_says(dtype, settings):
    problem = replace(PROBLEM, dtype=dtype)
    guard, obs = guard_of(problem, **settings), sequence(problem)
    step, held, said = guard.step(), guard.remembered, []
    for call in range(CALLS):
        one = obs[call : call + 1]
        held = {name: value.reshape(1, -1) for name, value in held.items()}
        estimate, held = step(one, guard.chance(one, (call,)), held)
        said.append(estimate.x)
    in_c = compiled(guard, obs[:3], flags=("-O1",))
    wanted = guard(obs).x
    assert same(torch.cat(said), wanted)
    for name, value in guard.remembered.items():
        torch.testing.assert_close(held[name][0].double(), value, rtol=1e-4, atol=1e-6)  # rates of 16 on rounded sums
    first = in_c(obs[:33]).x
    assert same(torch.cat([first, in_c(obs[33:]).x]), wanted)  # it goes on where it stopped
    assert [port.axes for port in in_c.files.lowered.outputs[-2:]] == ["1 x 2", "1 x 17"]
    assert guard.calls.unfit == 5
    assert guard.calls.in_fallback > 10
    in_c.reset()
    assert torch.equal(in_c(obs[:33]).x, first)


def test_onnx_has_the_two_weights_and_the_p_value_as_ports_and_says_the_same(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    watching, obs = ff.guard.monitor(Wrong(), PROBLEM, alarm=0.05, draws=600), sequence(PROBLEM)
    guard = guarded(watching.estimator, SAFE, PROBLEM, reach=0.99, samples=300, monitor=watching)
    low = lowered(guard, obs[:3])
    session = onnxruntime.InferenceSession(write_onnx(low, tmp_path / "guard.onnx"))
    names = [port.name for port in low.inputs]
    assert [value.name for value in session.get_inputs()] == ["y", "noise_var", "drawn", "trust", "memory", "watch"]
    held, said, p_values = {}, [], []
    for call in range(CALLS):
        given = {name: t.numpy() for name, t in zip(names, low.arguments(obs[call : call + 1], call))} | held
        x, p, alarm, *after = session.run(["x_hat", "p_value", "alarm", *low.kept.values()], given)
        held = dict(zip(low.kept, after))
        said.append(torch.from_numpy(x))
        p_values.append(p.item())
        assert held["trust"].sum() == pytest.approx(1, abs=1e-6)
    assert same(torch.cat(said), guard(obs).x)
    ranks = torch.tensor(p_values, dtype=torch.float64) - watching.p_values(obs)
    assert ranks.abs().max() <= 1.01 / (watching.draws + 1)  # of rounded scores, which another one may lie between
    assert alarm.item() == guard.raised


def learned():
    """A network for a simulator, whose features and few unknowns the last score reads."""
    problem = ff.problems.LinearGaussian(n=2, m=6)
    net = ff.neural(problem, width=4, members=1)
    net.prepare(*problem.sample(300, torch.Generator().manual_seed(0)))
    return problem, net.requires_grad_(False), lambda obs: Estimate(0.5 * obs.y[..., :2])


def watched(net, safe, problem, score):
    """A guard whose monitor alone decides, with one score, and calls that get loud."""
    watching = ff.guard.monitor(net, problem, alarm=0.05, draws=600, scores=(score,))
    guard = guarded(net, safe, problem, reach=0.99, samples=200, judge=None, monitor=watching)
    _, obs = problem.sample(30, torch.Generator().manual_seed(3))
    return guard, replace(obs, y=obs.y * torch.where(torch.arange(30) < 15, 1.0, 10.0)[:, None])


def test_the_loss_on_what_is_held_out_leaves_as_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    guard, obs = watched(NET, SAFE, PROBLEM, "held-out")
    low = lowered(guard, obs[:3])
    session = onnxruntime.InferenceSession(write_onnx(low, tmp_path / "guard.onnx"))
    wanted, held, p_values = [node.name for node in session.get_inputs()], {}, []
    for call in range(len(obs.y)):
        values = low.arguments(obs[call : call + 1], call)
        given = {port.name: t.numpy() for port, t in zip(low.inputs, values)} | held
        said = dict(zip([port.name for port in low.outputs], session.run(None, {name: given[name] for name in wanted})))
        held = {name: said[after] for name, after in low.kept.items()}
        p_values.append(said["p_value"].item())
    ranks = (torch.tensor(p_values, dtype=torch.float64) - guard.monitor.p_values(obs)) * (guard.monitor.draws + 1)
    assert ranks.abs().max() <= 1.01
    guard(obs)
    assert guard.alarmed
    assert said["alarm"].item() == 1


def test_what_is_unexplained_leaves_as_c():
    """Of a network for a simulator, whose features and few unknowns the score reads."""
    problem, net, safe = learned()
    guard, obs = watched(net, safe, problem, "unexplained")
    in_c = compiled(guard, obs[:3], flags=("-O1",))
    assert same(in_c(obs).x, guard(obs).x)
    assert guard.alarmed
    watch = torch.from_numpy(in_c._held["watch"]).double()
    torch.testing.assert_close(watch, guard.remembered["watch"], rtol=1e-2, atol=1e-6)


def test_streams_side_by_side_do_not_see_each_other():
    guard, obs = guard_of(PROBLEM), sequence(PROBLEM)
    held = {name: value.expand(2, -1) for name, value in guard.remembered.items()}
    step = guard.step()
    for call in (0, 21, 22):
        both = obs[[call, 1]]
        _, held = step(both, guard.chance(both, (call, 1)), held)
    assert held["trust"][0, 0] < 0.5 < held["trust"][1, 0]


def test_which_calls_are_judged_is_remembered_in_single_precision_however_many_there_were():
    guard, obs = guard_of(PROBLEM, every=3), sequence(PROBLEM)
    guard.calls = guard.calls._replace(all=2**24)  # of which the last but one was judged
    held = {name: value.float()[None] for name, value in guard.remembered.items()}
    step, place = guard.step(), [*LENGTHS].index("judged") + LENGTHS["evidence"] - 1
    judged = [held["memory"][0, place].item()]
    for call in range(10, 16):
        one = obs[call : call + 1]
        _, held = step(one, guard.chance(one, (call,)), held)
        judged.append(held["memory"][0, place].item())
    assert judged == [0, 0, 0, 1, 1, 1, 2]


def test_a_call_costs_both_paths_twice():
    guard, obs = guard_of(PROBLEM), PROBLEM.sample(3, torch.Generator().manual_seed(0))[1]
    (row,) = time_backends(guard, obs, ["c"], calls=5)
    assert row.note == ""
    assert row.multiply_accumulates >= 2 * sum(multiply_accumulates(path, obs[:1]) for path in (NET, SAFE))


def test_what_has_no_program_is_refused():
    obs = PROBLEM.sample(3, torch.Generator().manual_seed(0))[1]
    with pytest.raises(ValueError, match="splitting the noise needs its variance"):
        lowered(guard_of(PROBLEM), Observation(obs.y, obs.A))
    double = replace(PROBLEM, dtype="float64")
    with pytest.raises(ValueError, match="in single precision"):
        lowered(guard_of(double), double.sample(3, torch.Generator().manual_seed(0))[1])
