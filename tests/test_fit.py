"""Training: what it promises about numbers, resumption, failure and many processes."""

import dataclasses
import functools
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import fanfold as ff
from fanfold.core.machine import World, sensible_threads
from fanfold.observation import Estimate, Observation
from fanfold.runs.directory import Run
from fanfold.runs.keep import load
from fanfold.runs.log import append_event, read_events
from fanfold.training.events import Finished, Started, Stepped, Validated
from fanfold.training.fit import fit_events
from fanfold.training.schedule import stages
from fanfold.training.settings import Training, TrainingOptions

SCALARS = {"step": "per-layer", "threshold": "per-layer"}
SHORT = {"steps": 30, "batch": 16, "validate_every": 10, "validation_samples": 50, "threads": 1, "lr": 4e-3}


def problem(**changes):
    return ff.problems.CompressedSensing(n=40, m=20, snr_db=30, **changes)


def network(learn=SCALARS, algorithm=None, **changes):
    return ff.unfold(algorithm or ff.algorithms.ISTA(), problem(**changes), layers=4, learn=learn)


def metrics(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def same_parameters(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_training_lowers_the_error_and_returns_the_best():
    net, seen = network(), []
    ff.fit(net, problem(), on_event=seen.append, **SHORT | {"steps": 100})
    validated = [e.nmse_db for e in seen if isinstance(e, Validated)]
    finished = seen[-1]
    assert isinstance(seen[0], Started)
    assert isinstance(finished, Finished)
    assert finished.nmse_db == min(validated) < validated[0] - 1
    assert sum(isinstance(e, Stepped) for e in seen) == 100


def test_a_network_is_never_worse_than_the_algorithm_on_held_out_draws():
    """A learning rate that destroys the network gives the untrained one back."""
    net = network()
    ff.fit(net, problem(), **SHORT | {"lr": 10.0})
    x, obs = problem().sample(200, torch.Generator().manual_seed(9))
    untrained = ff.iterate(ff.algorithms.ISTA(), 4)(obs).x
    assert ff.units.nmse_db(net(obs).x, x) <= ff.units.nmse_db(untrained, x) + 0.2  # 200 draws instead of 50


def test_same_seed_same_network():
    a, b, c = network(), network(), network()
    for net, seed in ((a, 3), (b, 3), (c, 4)):
        ff.fit(net, problem(), **SHORT, seed=seed)
    assert same_parameters(a, b)
    assert not same_parameters(a, c)


@pytest.mark.parametrize("schedule", ["end-to-end", "layer-by-layer"])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_resume_is_the_bit_identical_continuation(tmp_path, schedule, dtype):
    settings = SHORT | {"schedule": schedule}
    learn = {"W1": "tied", "threshold": "per-layer"}
    lista = ff.algorithms.LISTA()
    whole = ff.fit(network(learn, lista, dtype=dtype), problem(dtype=dtype), run_dir=tmp_path / "whole", **settings)
    events = fit_events(
        network(learn, lista, dtype=dtype), problem(dtype=dtype), Training(**settings), tmp_path / "cut"
    )
    for event in events:
        if isinstance(event, Stepped) and event.step == 23:  # after the checkpoint at 20
            break
    events.close()
    resumed = ff.resume(tmp_path / "cut")
    assert same_parameters(whole, resumed)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "cut")
    assert (tmp_path / "whole/weights.safetensors").read_bytes() == (tmp_path / "cut/weights.safetensors").read_bytes()


def test_a_run_can_be_loaded_and_gives_the_same_estimates(tmp_path):
    net = ff.fit(network(), problem(), run_dir=tmp_path / "run", **SHORT)
    _, obs = problem().sample(5, torch.Generator().manual_seed(0))
    assert torch.equal(load(tmp_path / "run")(obs).x, net(obs).x)
    facts = Run.open(tmp_path / "run").environment
    assert facts["operator"] == problem().A.fingerprint()
    assert facts["packages"]["torch"] == torch.__version__


def test_metrics_are_strict_json_also_without_a_number(tmp_path):
    append_event(tmp_path, {"event": "validated", "step": 0, "nmse_db": math.nan, "loss": None})
    append_event(
        tmp_path, {"event": "stepped", "step": 1, "loss": math.inf, "gradient_norm": 1.0, "lr": 0.1, "skipped": True}
    )

    def refuse(word: str):
        raise AssertionError(word)

    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    validated, stepped = read_events(tmp_path)
    assert math.isnan(validated["nmse_db"])
    assert validated["loss"] is None
    assert math.isnan(stepped["loss"])
    assert stepped["skipped"] is True


def test_nothing_in_a_run_directory_is_pickled(tmp_path):
    ff.fit(network(), problem(), run_dir=tmp_path / "run", **SHORT)
    names = sorted(p.name for p in (tmp_path / "run").iterdir())
    assert names == [
        ".lock",
        "checkpoint.safetensors",
        "config.toml",
        "environment.json",
        "metrics.jsonl",
        "operator.safetensors",
        "usual.json",
        "weights.safetensors",
    ]
    for path in (tmp_path / "run").iterdir():
        content = path.read_bytes()
        if path.suffix == ".safetensors":  # the length of a header of JSON, which may be any number, and the header
            content = content[8:]
            assert content.startswith(b"{")
        assert not content.startswith((b"PK", b"\x80"))  # zip archives of torch.save, pickle protocols 2 and up


def test_layer_by_layer_trains_the_new_layer_alone_then_all_up_to_it():
    plan = stages(Training(steps=80, schedule="layer-by-layer"), layers=4)
    assert [s.depth for s in plan] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert [s.newest_only for s in plan] == [True, False] * 4
    assert (plan[0].first, plan[-1].last) == (0, 80)
    net = network()
    for event in fit_events(net, problem(), Training(**SHORT | {"steps": 80, "schedule": "layer-by-layer"})):
        if isinstance(event, Stepped) and event.step == 30:  # the third layer alone, from step 40 on
            before = net.deviations["step"].detach().clone()
            assert before[0] != 0
            assert (before[2:] == 0).all()
        if isinstance(event, Stepped) and event.step == 40:
            second = net.deviations["step"].detach().clone()
        if isinstance(event, Stepped) and event.step == 50:
            now = net.deviations["step"].detach()
            assert torch.equal(now[:2], second[:2])
            assert now[2] != 0
            assert now[3] == 0


def test_patience_stops_early():
    seen = []
    ff.fit(network(), problem(), on_event=seen.append, **SHORT | {"steps": 2000, "lr": 1e-9, "patience": 3})
    assert seen[-1].reason == "patience"
    assert seen[-1].step < 2000


class Explosive(nn.Module):
    """An estimator whose output is not finite for some draws: what a badly scaled simulator does."""

    def __init__(self, n: int, m: int, share: float):
        super().__init__()
        self.linear, self.share, self.calls = nn.Linear(m, n), share, 0

    def forward(self, obs: Observation) -> Estimate:
        self.calls += self.training
        x = self.linear(obs.y)
        return Estimate(x * float("nan") if self.calls % round(1 / self.share) == 0 else x)


def test_non_finite_steps_are_skipped_and_counted():
    torch.manual_seed(0)
    net, seen = Explosive(40, 20, 0.25), []
    ff.fit(net, problem(), on_event=seen.append, **SHORT)
    skipped = [e.step for e in seen if isinstance(e, Stepped) and e.skipped]
    assert seen[-1].skipped == len(skipped) > 0
    assert all(torch.isfinite(p).all() for p in net.parameters())


def test_a_training_of_nothing_but_non_finite_steps_ends():
    net, seen = Explosive(40, 20, 1.0), []
    ff.fit(net, problem(), on_event=seen.append, **SHORT | {"steps": 5000})
    assert seen[-1].reason == "diverged"
    assert seen[-1].step == 100


def test_weight_decay_pulls_towards_the_algorithm():
    free = ff.fit(network(), problem(), **SHORT)
    tame = ff.fit(network(), problem(), **SHORT | {"weight_decay": 10.0})
    size = [sum(p.detach().abs().sum() for p in net.parameters()) for net in (free, tame)]
    assert size[1] < 0.9 * size[0]


def test_scalars_learn_faster_than_matrices_by_their_lr_scale():
    net = network({"W1": "tied", "threshold": "tied"}, ff.algorithms.LISTA())
    assert [group["lr"] for group in net.parameter_groups(1e-3)] == [1e-3, 1e-2]


# Bad input and bad luck


def test_nothing_to_learn_is_refused():
    with pytest.raises(ValueError, match="nothing to learn"):
        ff.fit(network({}), problem(), **SHORT)


@pytest.mark.parametrize("setting", ["steps", "batch", "lr", "clip", "validate_every"])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=setting):
        Training(**{setting: -1})


def test_keywords_of_fit_are_the_fields_of_training():
    """Written out twice, for what checks types; names, types and their order are the same."""
    fields = [(field.name, field.type) for field in dataclasses.fields(Training)]
    assert list(TrainingOptions.__annotations__.items()) == fields


def test_a_run_directory_that_exists_is_refused_and_kept(tmp_path):
    ff.fit(network(), problem(), run_dir=tmp_path / "run", **SHORT)
    before = (tmp_path / "run/weights.safetensors").read_bytes()
    with pytest.raises(ValueError, match="fanfold resume"):
        ff.fit(network(), problem(), run_dir=tmp_path / "run", **SHORT)
    assert (tmp_path / "run/weights.safetensors").read_bytes() == before


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
@pytest.mark.parametrize("file", ["weights", "checkpoint"])
def test_damaged_weights_are_refused(tmp_path, damage, file):
    ff.fit(network(), problem(), run_dir=tmp_path / "run", **SHORT)
    path = tmp_path / f"run/{file}.safetensors"
    content = path.read_bytes()
    flipped = content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
    path.write_bytes({"truncated": content[:-10], "flipped": flipped, "empty": b""}[damage])
    with pytest.raises(ValueError, match="damaged"):
        load(tmp_path / "run") if file == "weights" else ff.resume(tmp_path / "run")


def test_a_network_refuses_another_operator(tmp_path):
    net = ff.fit(network(), problem(), run_dir=tmp_path / "run", **SHORT)
    _, other = problem(seed=1).sample(2, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="another operator"):
        net(other)
    config = tmp_path / "run/config.toml"
    config.write_text(config.read_text().replace("seed = 0\ndtype", "seed = 1\ndtype"))
    with pytest.raises(ValueError, match="garbage"):
        ff.resume(tmp_path / "run")
    ff.fit(network(seed=1), problem(seed=1), run_dir=tmp_path / "other", **SHORT)
    (tmp_path / "other/operator.safetensors").replace(tmp_path / "run/operator.safetensors")
    with pytest.raises(ValueError, match="garbage"):
        load(tmp_path / "run")


def test_weights_of_another_network_are_refused(tmp_path):
    ff.fit(network(), problem(), run_dir=tmp_path / "run", **SHORT)
    config = tmp_path / "run/config.toml"
    config.write_text(config.read_text().replace("layers = 4", "layers = 5"))
    with pytest.raises(ValueError, match="do not fit"):
        load(tmp_path / "run")


def script(tmp_path: Path, body: str) -> Path:
    path = tmp_path / "script.py"
    path.write_text("import fanfold as ff\n" + textwrap.dedent(body))
    return path


TRAIN = """
    problem = ff.problems.CompressedSensing(n=40, m=20, snr_db=30)
    net = ff.unfold(ff.algorithms.LISTA(), problem, 4, {"W1": "per-layer", "W2": "per-layer"})
    ff.fit(net, problem, run_dir="run", steps=%d, batch=16, validate_every=10, validation_samples=50, threads=1)
"""


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    """The limit on file size stands in for the disk: the same failed write, in the same place."""
    body = textwrap.dedent(TRAIN) % 40
    limited = script(
        tmp_path,
        "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        + textwrap.dedent("""
        from fanfold import fit
        import fanfold.runs.directory
        first = ff.problems.CompressedSensing(n=40, m=20, snr_db=30)
        def limit(event):
            if type(event).__name__ == "Stepped" and event.step == 15:
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    """)
        + body.replace("threads=1)", "threads=1, on_event=limit)"),
    )
    done = subprocess.run([sys.executable, limited], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "cannot write" in done.stderr
    assert "unharmed" in done.stderr
    resumed = ff.resume(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    exec(body.replace('"run"', '"whole"'), {"ff": ff})
    assert same_parameters(resumed, load(tmp_path / "whole"))
    hidden = [file.name for file in (tmp_path / "run").glob(".*")]
    assert hidden == [".lock"]  # no half-written file is left


def test_ctrl_c_leaves_a_run_that_resumes_to_the_same_numbers(tmp_path):
    body = textwrap.dedent(TRAIN) % 400
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # the tests themselves may be deaf to it
    training = subprocess.Popen(
        [sys.executable, script(tmp_path, body)], cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    )
    while not (tmp_path / "run/checkpoint.safetensors").is_file():
        assert training.poll() is None
        time.sleep(0.02)
    training.send_signal(signal.SIGINT)
    training.communicate()
    assert training.returncode != 0
    assert not (tmp_path / "run/weights.safetensors").exists()
    resumed = ff.resume(tmp_path / "run")
    whole = ff.fit(ff.unfold(ff.algorithms.LISTA(), problem(), 4, {"W1": "per-layer", "W2": "per-layer"}), problem(),
                   steps=400, batch=16, validate_every=10, validation_samples=50, threads=1)  # fmt: skip
    assert same_parameters(resumed, whole)


def test_two_processes_give_the_loss_curve_of_one_with_twice_the_batch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    body = """
        problem = ff.problems.CompressedSensing(n=40, m=20, snr_db=30, dtype="float64")
        net = ff.unfold(ff.algorithms.LISTA(), problem, 4, {"W1": "per-layer", "threshold": "per-layer"})
        ff.fit(net, problem, run_dir="%s", steps=25, batch=%d, validate_every=10, validation_samples=50)
    """
    exec(textwrap.dedent(body) % ("one", 16), {"ff": ff})
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1",
                f"--master-port={29500 + os.getpid() % 2000}"]  # fmt: skip
    two = subprocess.run(
        [*torchrun, script(tmp_path, body % ("two", 8))], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert two.returncode == 0, two.stderr[-2000:]
    one, both = ([m["loss"] for m in metrics(tmp_path / name) if m["event"] == "stepped"] for name in ("one", "two"))
    # the same sums in another order, double precision, 25 steps of Adam
    assert both == pytest.approx(one, abs=1e-9)
    assert len(both) == 25


def test_a_sum_over_one_process_is_itself():
    value = torch.tensor(2.0, requires_grad=True)
    assert World().sum(value) is value


def test_threads_fit_the_machine():
    assert 1 <= sensible_threads() <= (os.cpu_count() or 1)


def test_fit_leaves_the_thread_count_as_it_was():
    before = torch.get_num_threads()
    ff.fit(network(), problem(), **SHORT | {"steps": 1, "threads": before + 1})
    assert torch.get_num_threads() == before


def test_trainer_takes_any_module_that_maps_observations_to_estimates():
    torch.manual_seed(0)
    net, seen = Explosive(40, 20, 1e-9), []
    ff.fit(net, problem(), on_event=seen.append, **SHORT | {"steps": 200})
    first = next(e for e in seen if isinstance(e, Validated))
    assert seen[-1].nmse_db < first.nmse_db


def test_weights_of_another_operator_are_refused(tmp_path):
    for seed in (0, 1):
        ff.fit(network(seed=seed), problem(seed=seed), run_dir=tmp_path / str(seed), **SHORT)
    for name in ("weights", "checkpoint"):
        (tmp_path / f"0/{name}.safetensors").write_bytes((tmp_path / f"1/{name}.safetensors").read_bytes())
    with pytest.raises(ValueError, match="garbage"):
        load(tmp_path / "0")
    with pytest.raises(ValueError, match="garbage"):
        ff.resume(tmp_path / "0")


def test_a_run_of_two_processes_is_not_resumed_by_one(tmp_path):
    ff.fit(network(), problem(), run_dir=tmp_path / "run", **SHORT)
    facts = tmp_path / "run/environment.json"
    facts.write_text(facts.read_text().replace('"processes": 1', '"processes": 2'))
    with pytest.raises(ValueError, match="torchrun --nproc-per-node 2"):
        ff.resume(tmp_path / "run")


def test_layers_that_a_stage_freezes_do_not_decay():
    net = network()
    settings = SHORT | {"steps": 80, "schedule": "layer-by-layer", "weight_decay": 5.0}
    for event in fit_events(net, problem(), Training(**settings)):
        if isinstance(event, Stepped) and event.step == 20:
            first = net.deviations["step"].detach()[0].clone()
        if isinstance(event, Stepped) and event.step == 30:  # the second layer alone, from step 20 on
            assert net.deviations["step"].detach()[0] == first
            break
    assert first != 0


def test_an_error_that_is_not_a_number_is_never_the_best():
    assert ff.units.db(float("nan")) != ff.units.db(0.0) == float("-inf")
    with pytest.raises(ValueError, match="lr"):
        Training(lr=float("inf"))
