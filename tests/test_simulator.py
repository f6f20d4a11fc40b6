"""Simulators in Python and their stores: each draw repeats alone, failures are counted, nothing is made twice."""

import json
import math
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fanfold as ff
from fanfold.core.events import DrawingFinished, DrawingStarted
from fanfold.problems import BatchSimulator, Box, Independent, Modulation, Pairs, Problem, Simulations, Simulator
from fanfold.problems.protocols import Counted
from fanfold.problems.simulators.base import seeds_of
from fanfold.problems.simulators.outcome import Outcome, judge
from fanfold.problems.simulators.store import reading, writing
from fanfold.runs import recipe
from fanfold.training.simulate import simulation_events

UNIT = Box((0.0, 0.0), (1.0, 2.0))


def noisy(x, generator):
    """Of one draw or a batch: both parameters and their sum, in noise."""
    clean = torch.cat([x, x.sum(-1, keepdim=True)], -1)
    return clean + 0.1 * torch.randn(clean.shape, generator=generator)


def faulty(x, generator):
    """One draw in ten of each kind of failure, told by the first parameter."""
    tenth = int(10 * x[0])
    if tenth == 0:
        raise RuntimeError("the solver\ndiverged")
    if tenth == 1:
        return torch.tensor([1.0, float("inf"), 3.0])
    if tenth == 2:
        return torch.ones(4)
    if tenth == 3:
        return ["no", "numbers"]
    return noisy(x, generator)


def sometimes_nan(x, generator):
    """Of a batch: not finite where the first parameter is below a fifth."""
    return torch.where(x[:, :1] < 0.2, torch.nan, noisy(x, generator))


ONE, BATCH = Simulator(UNIT, noisy), BatchSimulator(UNIT, noisy, chunk=16)
each = pytest.mark.parametrize("simulator", [ONE, BATCH], ids=["one", "batch"])


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stored(pairs: Simulations) -> tuple[torch.Tensor, torch.Tensor]:
    """All pairs of a store, in the order of their numbers."""
    (x, obs), (x_test, obs_test) = pairs.every(), pairs.held_out().every()
    return torch.cat([x, x_test]), torch.cat([obs.y, obs_test.y])


# Draws


@each
@given(some=st.lists(st.integers(0, 10**6), min_size=1, max_size=8, unique=True))
def test_a_draw_alone_is_the_draw_among_others(simulator, some):
    together = simulator.outcomes(simulator.seed, some)
    for index, outcome in zip(some, together, strict=True):
        x, obs = simulator.draw(index)
        assert outcome.index == index
        assert np.array_equal(x[0].numpy(), outcome.x)
        assert np.array_equal(obs.y[0].numpy(), outcome.y)


@each
def test_draws_of_other_numbers_and_seeds_are_others(simulator):
    first, second = (simulator.draw(i)[1].y for i in (0, 1))
    assert not torch.equal(first, second)
    assert not torch.equal(first, simulator.shifted(seed=1).draw(0)[1].y)


@each
def test_a_simulator_is_a_problem(simulator):
    assert isinstance(simulator, Problem)
    assert simulator.held_out() is simulator
    assert simulator.shifted(seed=3).seed == 3


def test_code_without_a_source_is_told_by_what_it_does():
    def compiled(text):
        names: dict = {}
        exec(text, names)
        return Simulator(UNIT, names["simulate"]).identity()["simulator"]

    assert compiled("def simulate(x, g): return 2 * x") == compiled("def simulate(x, g): return 2 * x")
    assert compiled("def simulate(x, g): return 2 * x") != compiled("def simulate(x, g): return 3 * x")


def test_parameters_and_run_have_seeds_of_their_own():
    for_x, for_y = zip(*(seeds_of(0, i) for i in range(1000)))
    assert len({*for_x, *for_y}) == 2000  # of 63 and 31 bits: by chance with probability below 1e-3, and this is fixed
    assert max(for_y) < 2**31


@each
def test_samples_repeat_with_their_generator_and_have_their_distribution(simulator):
    x, obs = simulator.sample(2000, rng(3))
    again, obs_again = simulator.sample(2000, rng(3))
    assert torch.equal(x, again)
    assert torch.equal(obs.y, obs_again.y)
    assert obs.A is None
    assert x.dtype == obs.y.dtype == torch.float32
    # uniform on [0, 1] and [0, 2]: mean 1/2 and 1 with deviations 1/sqrt(12), twice that; 5 standard errors
    assert ((x.mean(0) - torch.tensor([0.5, 1.0])).abs() < 5 * torch.tensor([1.0, 2.0]) / (12 * 2000) ** 0.5).all()
    noise = (obs.y - torch.cat([x, x.sum(-1, keepdim=True)], -1)) / 0.1
    assert abs(noise.var().item() - 1) < 5 * (2 / noise.numel()) ** 0.5  # variance of a variance of Gaussians


@each
def test_double_precision_and_kinds_are_kept(simulator):
    assert simulator.shifted(dtype="float64").sample(2, rng(0))[1].y.dtype == torch.float64
    sequence = Simulator(UNIT, lambda x, g: torch.complex(x, x)[None], kind="sequence", dtype="float64")
    x, obs = sequence.sample(3, rng(0))
    assert x.dtype == torch.float64
    assert obs.y.dtype == torch.complex128
    assert obs.y.shape == (3, 1, 2)


def test_independent_entries_are_those_of_their_prior():
    x = Independent(ff.priors.Gaussian(4.0), 3)(4000, rng(0))
    assert x.shape == (4000, 3)
    assert x.dtype == torch.float64
    assert abs(x.var().item() / 4 - 1) < 5 * (2 / x.numel()) ** 0.5  # variance of a variance of Gaussians


def test_parameters_may_come_from_a_function():
    simulator = Simulator(lambda n, g: torch.randint(2, (n, 3), generator=g), lambda x, g: 2 * x)
    x, obs = simulator.sample(50, rng(0))
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(obs.y, 2 * x)


# Failures


def test_failures_are_counted_by_kind_and_left_out():
    simulator = Simulator(UNIT, faulty)
    x, obs = simulator.sample(300, rng(0))
    assert len(x) == len(obs.y) == 300
    assert (x[:, 0] >= 0.4).all()
    assert isinstance(simulator, Counted)
    assert set(simulator.failures) == {"crash", "non-finite", "wrong shape", "unreadable"}
    # of all that was tried: n · 0.1 for each kind, by 5 deviations of a binomial
    tried = 300 + sum(simulator.failures.values())
    assert all(abs(count - 0.1 * tried) < 5 * (0.09 * tried) ** 0.5 for count in simulator.failures.values())


def test_each_failure_says_what_went_wrong():
    found = {o.failure: o.detail for o in Simulator(UNIT, faulty, shape=(3,)).outcomes(0, range(100))}
    assert found["crash"] == "RuntimeError: diverged"
    assert found["non-finite"] == "inf at index (1,)"
    assert found["wrong shape"] == "(4,) instead of (3,)"
    assert "not numbers" in found["unreadable"]


def test_a_failed_draw_that_is_repeated_says_so():
    simulator = Simulator(UNIT, faulty, shape=(3,))
    bad = next(o.index for o in simulator.outcomes(0, range(100)) if o.failure == "crash")
    with pytest.raises(ValueError, match=f"draw {bad} of seed 0 fails, crash: RuntimeError: diverged"):
        simulator.draw(bad)


def test_bad_rows_of_a_batch_are_left_out():
    simulator = BatchSimulator(UNIT, sometimes_nan)
    x, obs = simulator.sample(500, rng(0))
    assert len(x) == len(obs.y) == 500
    assert (x[:, 0] >= 0.2).all()
    assert set(simulator.failures) == {"non-finite"}
    numbered = simulator.outcomes(0, range(200))
    assert all((o.failure == "non-finite") == (o.x[0] < 0.2) for o in numbered)


def broken(x, generator):
    raise KeyError("mesh")


@pytest.mark.parametrize("kind", [Simulator, BatchSimulator])
def test_a_simulator_that_always_fails_is_refused(kind, tmp_path):
    with pytest.raises(ValueError, match=r"all of the first 10 runs failed \(10 crash\); .*KeyError: 'mesh'"):
        kind(UNIT, broken).sample(4, rng(0))
    with pytest.raises(ValueError, match=r"all of the first \d+ runs failed"):
        ff.simulate(kind(UNIT, broken), 50, tmp_path / "store")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Simulator(UNIT, noisy, kind="film"), "kind is 'film'; take vector"),  # type: ignore[arg-type]
        (lambda: Simulator(UNIT, noisy, shape=(2, 3)), "shape is .2, 3. and the kind 'vector', which has 1 axes"),
        (lambda: BatchSimulator(UNIT, noisy, chunk=0), "chunk is 0"),
        (lambda: Box((0.0, 0.0), (1.0,)), "2 lower and 1 upper bounds"),
        (lambda: Box((0.0, 1.0), (1.0, 1.0)), "parameter 1 is to lie between 1.0 and 1.0"),
        (lambda: Independent(count=0), "count is 0"),
        (
            lambda: Simulator(lambda n, g: torch.zeros(n), noisy).draw(0),
            r"gave torch.float32 of shape \(1,\)",
        ),
        (lambda: Simulator(ff.priors.Gaussian(), noisy).draw(0), r"pass Box\(low, high\), Independent"),  # type: ignore
    ],
)
def test_what_is_no_simulator_is_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@given(value=st.sampled_from([float("nan"), float("inf"), 1e39]), at=st.integers(0, 2))
def test_numbers_that_single_precision_has_not_are_not_finite(value, at):
    y = np.ones(3)
    y[at] = value
    assert judge(0, np.zeros(1), y, "vector", None, "float32").failure == "non-finite"


# Stores


@each
def test_a_store_holds_the_draws(simulator, tmp_path):
    x, y = stored(ff.simulate(simulator, 40, tmp_path / "store"))
    assert len(x) == 40
    for index in (0, 17, 39):
        x_alone, obs = simulator.draw(index)
        assert torch.equal(x[index], x_alone[0])
        assert torch.equal(y[index], obs.y[0])


@each
def test_more_draws_are_added_and_none_is_made_twice(simulator, tmp_path):
    began = list(simulation_events(simulator, 30, tmp_path / "store"))
    more = list(simulation_events(simulator, 50, tmp_path / "store"))
    again = list(simulation_events(simulator, 50, tmp_path / "store"))
    assert [events[-1].made for events in (began, more, again)] == [30, 20, 0]  # type: ignore[union-attr]
    assert isinstance(more[0], DrawingStarted)
    assert more[0].done == 30
    x, y = stored(Simulations(str(tmp_path / "store")))
    whole = stored(ff.simulate(simulator, 50, tmp_path / "at once"))
    assert torch.equal(x, whole[0])
    assert torch.equal(y, whole[1])


def test_failures_are_stored_and_not_tried_again_unless_asked(tmp_path):
    simulator, store = Simulator(UNIT, faulty), tmp_path / "store"
    expected = [o.failure for o in simulator.shifted(shape=(3,)).outcomes(0, range(100))]
    counts = {kind: expected.count(kind) for kind in set(expected) - {None}}
    first = ff.simulate(simulator, 100, store)
    assert dict(first.failures) == counts
    assert stored(first)[0].shape == (expected.count(None), 2)
    *_, again = simulation_events(simulator, 100, store)
    *_, retried = simulation_events(simulator, 100, store, retry_failed=True)
    assert isinstance(again, DrawingFinished)
    assert isinstance(retried, DrawingFinished)
    assert (again.made, retried.made) == (0, sum(counts.values()))
    assert again.failures == retried.failures == counts
    assert {row["runs"]: row["count"] for row in first.table()} == {"good": expected.count(None)} | counts


def test_a_simulator_that_was_mended_fills_the_gaps(tmp_path):
    works = {"now": False}

    def flaky(x, generator):
        if x[0] < 0.3 and not works["now"]:
            raise OSError("no licence")
        return noisy(x, generator)

    simulator = Simulator(UNIT, flaky)
    assert ff.simulate(simulator, 60, tmp_path / "store").failures["crash"] > 0
    works["now"] = True
    mended = ff.simulate(simulator, 60, tmp_path / "store", retry_failed=True)
    assert not mended.failures
    x, y = stored(mended)
    whole = stored(ff.simulate(ONE, 60, tmp_path / "whole"))
    assert torch.equal(x, whole[0])
    assert torch.equal(y, whole[1])


def mostly_broken(x, generator):
    if x[0] < 0.5:
        raise RuntimeError("the mesh is torn")
    return noisy(x, generator)


def test_runs_that_fail_once_more_do_not_condemn_a_simulator(tmp_path):
    simulator = Simulator(UNIT, mostly_broken)
    failures = ff.simulate(simulator, 60, tmp_path / "store").failures
    assert failures["crash"] > 10
    assert ff.simulate(simulator, 60, tmp_path / "store", retry_failed=True).failures == failures


@pytest.mark.parametrize("lost", [1, 9, 30, 200])
def test_a_record_cut_short_is_dropped_and_made_again(tmp_path, lost):
    store = tmp_path / "store"
    whole = stored(ff.simulate(ONE, 20, store))
    content = (store / "runs.bin").read_bytes()
    (store / "runs.bin").write_bytes(content[:-lost])
    *_, finished = simulation_events(ONE, 20, store)
    assert isinstance(finished, DrawingFinished)
    assert 1 <= finished.made <= 2  # a record of one draw is longer than 100 bytes
    x, y = stored(Simulations(str(store)))
    assert torch.equal(x, whole[0])
    assert torch.equal(y, whole[1])


@given(place=st.floats(0, 1, exclude_max=True))
def test_a_changed_byte_costs_one_record(tmp_path_factory, place):
    store = tmp_path_factory.mktemp("changed")
    whole = stored(ff.simulate(ONE, 12, store))
    content = bytearray((store / "runs.bin").read_bytes())
    content[int(place * len(content))] ^= 0x55
    (store / "runs.bin").write_bytes(content)
    assert len(Simulations(str(store)).contents.good) == 11
    x, y = stored(ff.simulate(ONE, 12, store))
    assert torch.equal(x, whole[0])
    assert torch.equal(y, whole[1])


def test_a_simulation_that_is_left_early_keeps_what_was_made(tmp_path):
    events = simulation_events(ONE, 1000, tmp_path / "store")
    for _, event in zip(range(26), events):
        assert not isinstance(event, DrawingFinished)
    events.close()
    assert len(Simulations(str(tmp_path / "store")).contents.good) == 25


def test_a_listener_that_raises_lets_go_of_the_store(tmp_path):
    def listen(event):
        raise RuntimeError("the terminal is gone")

    with pytest.raises(RuntimeError, match="the terminal is gone") as caught:
        ff.simulate(ONE, 20, tmp_path / "store", on_event=listen)
    assert len(stored(ff.simulate(ONE, 20, tmp_path / "store"))[0]) == 20
    assert caught.traceback  # which holds every frame until here


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior": Box((0.0, 0.0), (1.0, 3.0))}, "problem.prior is "),
        ({"simulate": faulty}, "problem.simulator is "),
        ({"dtype": "float64"}, "problem.dtype is 'float32' there and 'float64' here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
    ],
)
def test_draws_of_something_else_are_refused_by_name(tmp_path, change, message):
    ff.simulate(ONE, 10, tmp_path / "store")
    with pytest.raises(ValueError, match=message):
        ff.simulate(ONE.shifted(**change), 10, tmp_path / "store")


def test_a_store_of_what_has_no_end_is_strict_json_and_older_ones_go_on(tmp_path):
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not in JSON")

    identity = {"problem": {"kind": "vector", "high": (math.inf, 1.0), "low": -math.inf, "missing": math.nan}}
    for folder, text in (("new", None), ("older", json.dumps(identity))):
        if text is not None:  # as it was written before: with words that JSON lacks
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "problem.json").write_text(text)
        for index in range(2):
            with writing(tmp_path / folder, identity) as store:
                store.append([Outcome(index, np.array([np.inf, index]), failure="crash", detail="NaN")])
        kept, contents = reading(tmp_path / folder)
        assert (kept["problem"]["high"], kept["problem"]["low"]) == ([math.inf, 1.0], -math.inf)
        assert [(one.x, one.detail) for one in contents.failed] == [([math.inf, i], "NaN") for i in range(2)]
    json.loads((tmp_path / "new/problem.json").read_text(), parse_constant=refuse)
    with (
        pytest.raises(ValueError, match=r"problem\.low is '-Infinity' there and 0.0 here"),
        writing(tmp_path / "new", {"problem": identity["problem"] | {"low": 0.0}}),
    ):
        pass


def test_two_writers_of_one_store_are_refused(tmp_path):
    ff.simulate(ONE, 10, tmp_path / "store")
    identity = json.loads((tmp_path / "store/problem.json").read_text())
    with (
        writing(tmp_path / "store", identity),
        pytest.raises(ValueError, match="another process writes to"),
    ):
        ff.simulate(ONE, 20, tmp_path / "store")


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("chapter one")
    with pytest.raises(ValueError, match=r"holds other things \(thesis.tex\); choose a folder of its own"):
        ff.simulate(ONE, 10, tmp_path)
    with pytest.raises(ValueError, match="holds no simulations"):
        Simulations(str(tmp_path))


@pytest.mark.parametrize("settings", [{"count": 0}, {"workers": -1}])
def test_numbers_out_of_range_are_refused(tmp_path, settings):
    with pytest.raises(ValueError, match=r"(count|workers) is (0|-1)"):
        ff.simulate(ONE, settings.pop("count", 10), tmp_path / "store", **settings)


# Where runs are made


def test_any_executor_gives_the_same_pairs(tmp_path):
    with ThreadPoolExecutor(3) as pool:
        x, y = stored(ff.simulate(ONE, 50, tmp_path / "threads", executor=pool, workers=3))
    here = stored(ff.simulate(ONE, 50, tmp_path / "here"))
    assert torch.equal(x, here[0])
    assert torch.equal(y, here[1])


def test_worker_processes_give_the_same_pairs(tmp_path):
    x, y = stored(ff.simulate(Modulation(), 200, tmp_path / "two", workers=2))
    here = stored(ff.simulate(Modulation(), 200, tmp_path / "here"))
    assert torch.equal(x, here[0])
    assert torch.equal(y, here[1])


def test_workers_that_cannot_import_the_simulator_are_refused(tmp_path):
    simulator = Simulator(UNIT, lambda x, g: x)
    with pytest.raises(ValueError, match="worker processes cannot import the simulator"):
        ff.simulate(simulator, 10, tmp_path / "store", workers=2)


def test_a_worker_that_dies_says_what_to_do(tmp_path):
    class Dying(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            future: Future = Future()
            future.set_exception(BrokenProcessPool("gone"))
            return future

    with pytest.raises(OSError, match=r"a worker process died.*ff\.problems\.Program"):
        ff.simulate(ONE, 10, tmp_path / "store", executor=Dying(1))


# Any problem, and stored pairs


def test_any_problem_without_an_operator_can_be_stored(tmp_path):
    pairs = ff.simulate(Modulation(symbols=8), 100, tmp_path / "store")
    x, y = stored(pairs)
    assert pairs.kind == "set"
    assert x.shape == (100, 4)
    assert y.shape == (100, 8, 2)
    assert (x.sum(-1) == 1).all()
    with pytest.raises(ValueError, match=r"problem.symbols is 8 there and 9 here"):
        ff.simulate(Modulation(symbols=9), 100, tmp_path / "store")


def test_a_problem_with_an_operator_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has an operator A, which a store of simulations does not keep"):
        ff.simulate(ff.problems.CompressedSensing(n=20, m=10), 10, tmp_path / "store")


def test_a_run_directory_can_name_stored_simulations(tmp_path):
    pairs = ff.simulate(ONE, 40, tmp_path / "store")
    assert recipe.build_problem(recipe.describe_problem(pairs)) == pairs
    assert len(pairs.every()[0]) == 32
    assert len(pairs.held_out().every()[0]) == 8


@pytest.mark.parametrize(
    ("kind", "shape"), [("vector", (5,)), ("sequence", (2, 5)), ("image", (1, 4, 5)), ("set", (5, 2))]
)
def test_stored_pairs_of_every_kind_train_a_network(tmp_path, kind, shape):
    x = torch.randn(60, 2, generator=rng(0))
    y = x.repeat(1, 20)[:, : int(np.prod(shape))].reshape(60, *shape)
    np.savez(tmp_path / "pairs.npz", x=x.numpy(), y=torch.complex(y, -y).numpy())
    pairs = Pairs(str(tmp_path / "pairs.npz"), kind=kind)
    net = ff.neural(pairs, width=8)
    ff.fit(net, pairs, steps=2, batch=8, validation_samples=4)
    assert net(pairs.held_out().every()[1]).x.shape == (12, 2)


def test_pairs_of_another_kind_are_refused_with_the_kinds_that_fit(tmp_path):
    np.savez(tmp_path / "pairs.npz", x=np.ones((9, 2)), y=np.ones((9, 3, 4)))
    with pytest.raises(ValueError, match=r"and \(samples, m\)\. Or say .* kind='sequence' or 'set'"):
        Pairs(str(tmp_path / "pairs.npz"))
    with pytest.raises(ValueError, match=r"and \(samples, channels, h, w\)"):
        Pairs(str(tmp_path / "pairs.npz"), kind="image")


def test_a_budget_of_stored_pairs_takes_none_twice(tmp_path):
    from fanfold.problems.draws import Pool

    pairs = ff.simulate(ONE, 100, tmp_path / "store")
    pool = Pool(pairs, 80, 0)
    assert len(pool.x.unique(dim=0)) == 80
    assert {tuple(row) for row in pool.x.tolist()} == {tuple(row) for row in pairs.every()[0].tolist()}
    with pytest.raises(ValueError, match="simulations is 81 and only 80 pairs are stored"):
        Pool(pairs, 81, 0)


def test_noise_variances_of_their_own_are_not_stored_in_silence(tmp_path):
    problem = ff.problems.Tone(snr_db=(-10.0, 30.0))
    with pytest.raises(ValueError, match="each draw of Tone has a noise variance of its own"):
        ff.simulate(problem, 10, tmp_path / "store")
