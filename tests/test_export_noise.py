"""What differs from sample to sample is an input of an exported estimator, or it is refused: nothing is frozen."""

import pytest
import torch

import fanfold as ff
from fanfold.algorithms import ISTA, OAMP
from fanfold.core.streams import generator_of
from fanfold.deploy import FromMeasurements, lowered, to_onnx
from fanfold.linops import Batched
from fanfold.observation import Observation
from runtime import check_near, in_runtime, session_of

SPARSE = ff.problems.CompressedSensing(n=20, m=12, snr_db=20.0)


def varied(count: int, loudest_db: float) -> Observation:
    """Observations whose noise variances span 40 dB."""
    obs = SPARSE.sample(count, generator_of(count))[1]
    return Observation(obs.y, obs.A, 10 ** (loudest_db / 10 - torch.linspace(0, 4, count))[:, None])


def neural(problem):
    net = ff.neural(problem, width=8)
    net.prepare(problem.sample(200, generator_of(200))[0], varied(200, 0.0))
    return net


MADE = {
    "oamp": lambda p: ff.iterate(OAMP(), 2),
    "unfolded": lambda p: ff.unfold(OAMP(), p, 1, {"damping": "tied"}),
    "neural": neural,
}


@pytest.mark.parametrize("name", MADE)
def test_the_noise_variance_of_each_sample_is_an_input(name, tmp_path):
    estimator, example, other = MADE[name](SPARSE), varied(3, 0.0), varied(5, -10.0)
    path = to_onnx(estimator, example, tmp_path / "net.onnx")
    assert [node.name for node in session_of(path).get_inputs()] == ["y", "noise_var"]
    for obs in (example, other, Observation(other.y, other.A, other.noise_var.flip(0))):
        with torch.no_grad():
            check_near(in_runtime(path, obs)["x_hat"], estimator(obs).x)


def test_a_file_for_a_varied_problem_froze_neither_batch_nor_noise_of_its_example(tmp_path):
    problem = ff.problems.Varied(SPARSE, {"snr_db": (0.0, 40.0)})
    _, example = problem.sample(4, generator_of(0))
    estimator = ff.unfold(OAMP(), problem, 1, {"damping": "tied"})
    path = to_onnx(estimator, example, tmp_path / "net.onnx")
    _, other = problem.sample(9, generator_of(1))
    with torch.no_grad():
        said, wanted = in_runtime(path, other), estimator(other)
        check_near(said["x_hat"], wanted.x)
        check_near(said["var"], wanted.var)
        frozen = estimator(Observation(other.y, other.A, example.noise_var[:1].expand(9, 1))).x
    assert (said["x_hat"] - frozen).abs().max() > 0.01 * wanted.x.abs().max()


def test_a_noise_variance_that_is_one_for_all_is_an_input_unless_it_is_fixed(tmp_path):
    """A receiver's noise changes, whatever it was in training."""
    _, obs = SPARSE.sample(4, generator_of(0))
    estimator = ff.iterate(OAMP(), 1)
    louder = Observation(obs.y, obs.A, 100 * obs.noise_var)
    path = to_onnx(estimator, obs, tmp_path / "net.onnx")
    for now in (obs, louder):
        check_near(in_runtime(path, now)["x_hat"], estimator(now).x)
    fixed = to_onnx(estimator, obs, tmp_path / "fixed.onnx", fixed_noise=True)
    assert [node.name for node in session_of(fixed).get_inputs()] == ["y"]
    check_near(in_runtime(fixed, louder)["x_hat"], estimator(obs).x)


def test_what_takes_no_noise_variance_has_no_such_input():
    _, obs = SPARSE.sample(4, generator_of(0))
    assert [port.name for port in lowered(ff.iterate(ISTA(), 1), obs).inputs] == ["y"]


def test_a_noise_variance_that_is_one_for_all_belongs_to_the_module():
    _, obs = SPARSE.sample(4, generator_of(0))
    module = FromMeasurements(ff.iterate(OAMP(), 2), obs)
    assert torch.equal(module(obs.y), ff.iterate(OAMP(), 2)(obs).x)
    with pytest.raises(ValueError, match="has one; pass y alone"):
        module(obs.y, torch.ones(4, 1))
    each = Observation(obs.y, obs.A, torch.full((4, 1), 0.1))
    with pytest.raises(ValueError, match=r"a noise variance for each sample; pass \(y, noise_var\)"):
        FromMeasurements(ff.iterate(OAMP(), 2), each)(obs.y)


def test_matrices_of_samples_and_single_samples_are_refused(tmp_path):
    _, obs = SPARSE.sample(4, generator_of(0))
    each = Observation(obs.y, Batched(obs.A.matrix().expand(4, -1, -1).contiguous()), obs.noise_var)
    with pytest.raises(ValueError, match="a matrix for each sample"):
        to_onnx(ff.iterate(ISTA(), 2), each, tmp_path / "net.onnx")
    for y in (obs.y[:1], obs.y[0]):
        with pytest.raises(ValueError, match="a batch of at least two samples"):
            to_onnx(ff.iterate(ISTA(), 2), Observation(y, obs.A, obs.noise_var), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
