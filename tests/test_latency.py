"""Times of backends: what they are held against, and what a row says where there is none."""

import json
import os

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.algorithms import ISTA
from fanfold.cli import main as cli
from fanfold.deploy import backends, compiled, latency, slot_budget_us, time_backends
from fanfold.deploy.codegen.bench import weight_ranges
from fanfold.deploy.latency import Timing, one_core

PROBLEM = ff.problems.CompressedSensing(n=32, m=16)
_, OBS = PROBLEM.sample(3, torch.Generator().manual_seed(0))
NET = ff.iterate(ISTA(), 3)
pytestmark = pytest.mark.filterwarnings("ignore")  # torch's, on tracing


def test_the_budget_is_a_fifth_of_the_slot():
    assert [slot_budget_us(mu) for mu in range(4)] == [200.0, 100.0, 50.0, 25.0]
    with pytest.raises(ValueError, match="choose 0, 1, 2 or 3"):
        slot_budget_us(4)


def test_quantiles_are_those_of_the_calls():
    times = np.random.default_rng(0).permutation(np.arange(1.0, 1001.0))
    assert Timing.of(times) == (1.0, 500.0, 990.0, 999.0, 1000)


def test_each_backend_has_a_row_and_a_missing_one_says_so(monkeypatch):
    missing = {"openvino"}
    find_spec = backends.find_spec
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name in missing else find_spec(name))
    before = os.sched_getaffinity(0), torch.get_num_threads()
    rows = {row.backend: row for row in time_backends(NET, OBS, latency.BACKENDS, numerology=2, calls=30)}
    assert (os.sched_getaffinity(0), torch.get_num_threads()) == before
    assert list(rows) == list(latency.BACKENDS)
    assert rows["openvino"].timing is None
    assert rows["openvino"].within is None
    assert rows["openvino"].note == "not installed: openvino"
    for name in ("eager", "onnx", "c"):
        timing = rows[name].timing
        assert timing is not None, rows[name].note
        assert timing.calls == 30
        assert 0 < timing.minimum <= timing.median <= timing.p99 <= timing.p999
        assert rows[name].within == (timing.p99 <= 50.0)
    in_c = rows["c"]
    assert in_c.multiply_accumulates == (2 * 3 - 1) * 16 * 32  # the first step has no product of zeros
    assert in_c.weight_bytes == 2 * 4 * 16 * 32  # the matrix, and its transpose laid out for the other product
    assert in_c.workspace_bytes > 0
    assert in_c.stack_bytes > 0
    assert in_c.floor_us == max(in_c.memory_floor_us, in_c.arithmetic_floor_us) > 0


def test_an_estimator_without_c_says_which_operation():
    row = time_backends(lambda o: ff.Estimate(torch.linalg.svdvals(o.y.reshape(-1, 4, 4))), OBS, ["c"], calls=3)[0]
    assert row.timing is None
    assert "svd" in row.note


def test_the_floor_reads_what_the_program_reads():
    """The matrix for each product, though it is stored once in each layout; a start and a count each time."""
    ranges = weight_ranges(compiled(ff.iterate(ISTA(), 4), OBS))
    assert ranges[1::2].sum() == 7 * 16 * 32
    assert len({*ranges[::2].tolist()}) == 2


def test_pinning_is_for_a_block():
    before = os.sched_getaffinity(0)
    with one_core():
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("backends", "calls", "sentence"),
    [
        (["tvm"], 10, "no backend 'tvm'; there are eager"),
        ([], 10, "no backend is named"),
        (["c"], 0, "at least one call"),
    ],
)
def test_what_cannot_be_timed_is_refused(backends, calls, sentence):
    with pytest.raises(ValueError, match=sentence):
        time_backends(NET, OBS, backends, calls=calls)


def test_the_verb_times_a_run(tmp_path, capsys):
    run = str(tmp_path / "run")
    words = ["compressed-sensing", "--n", "20", "--m", "12", "ista", "--layers", "2", "--steps", "2", "--batch", "4"]
    assert cli.run(["train", *words, "--threads", "1", "--run-dir", run]) == 0
    capsys.readouterr()
    assert cli.run(["time", run, "--backend", "eager,c", "--numerology", "3", "--calls", "20", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["budget_us"] == 25.0
    assert [row["backend"] for row in said["rows"]] == ["eager", "c"]
    assert all(row["min_us"] > 0 for row in said["rows"])
    assert cli.run(["time", run, "--backend", "eager,tvm"]) == 2
