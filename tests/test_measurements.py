"""Every estimator takes y by itself, as a tensor or an array, and names what it cannot take with the remedy."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

import fanfold as ff
from fanfold import estimators, guard, unfolding
from fanfold.observation import Observation, takes_measurements
from fanfold.problems import CompressedSensing

PROBLEM = CompressedSensing(n=20, m=10)
X, OBS = PROBLEM.sample(4, torch.Generator().manual_seed(0))
Y = OBS.y
NET = ff.unfold(ff.algorithms.ISTA(0.05), PROBLEM, 3, {"step": "per-layer"})
REFUSED = {
    "list": (Y.tolist(), r"y is a list; pass a numpy array or a torch tensor, np.asarray\(y\)"),
    "pair": ((X, OBS), r"as sample returns it; take it apart: x, obs = problem.sample"),
    "table": (pd.DataFrame(Y.numpy()), r"y is a DataFrame; pass its numbers, y.to_numpy\(\)"),
    "scipy": (scipy.sparse.csr_array(Y.numpy()), r"y is a sparse csr_array; pass a dense array, y.toarray\(\)"),
    "sparse": (Y.to_sparse(), r"y is a sparse tensor; pass a dense one, y.to_dense\(\)"),
    "masked": (np.ma.masked_less(Y.numpy(), 0), r"y is a MaskedArray, whose mask would be lost"),
    "objects": (Y.numpy().astype(object), "y holds object"),
    "integers": (Y.long(), "y is torch.int64; pass a floating or complex torch tensor"),
    "estimate": (NET(OBS), "y is an Estimate; pass what was measured"),
    "problem": (PROBLEM, "y is a CompressedSensing; pass a numpy array or a torch tensor"),
    "nothing": (None, "y is a NoneType"),
    "not finite": (np.full((2, 10), np.nan), r"y is not finite: nan at index \(0, 0\)"),
    "x": (X, r"A maps 20 -> 10 but y has 20 entries; pass y of shape \(..., 10\). Is it x\? Transposed\?"),
    "length": (Y[:, :7], r"A maps 20 -> 10 but y has 7 entries; pass y of shape \(..., 10\).$"),
}
NEED_A = {
    "iterate": ff.iterate(ff.algorithms.ISTA(), 3),
    "LMMSE": ff.LMMSE(None, torch.eye(20)),
    "OMP": estimators.OMP(),
    "zero forcing": estimators.ZeroForcing(),
    "back projection": estimators.WhiteLMMSE(1.0),
    "sphere": estimators.SphereDecoder(ff.problems.MIMODetection().prior),
}


@pytest.mark.parametrize(("y", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_array_of_measurements_is_named_with_the_remedy(y, sentence):
    with pytest.raises(ValueError, match=sentence):
        NET(y)


@pytest.mark.parametrize("kind", [k for k in REFUSED if k not in ("x", "length", "not finite")])
def test_the_refusal_is_the_same_for_a_network_without_an_operator_and_for_a_classical_method(kind):
    y, sentence = REFUSED[kind]
    for estimator in (ff.neural(PROBLEM), *NEED_A.values()):
        with pytest.raises(ValueError, match=sentence):
            estimator(y)


@pytest.mark.parametrize("name", NEED_A)
def test_a_classical_method_asks_for_its_operator(name):
    with pytest.raises(ValueError, match="operator"):
        NEED_A[name](Y)


def test_arrays_come_in_any_precision_and_order_of_bytes_and_tensors_come_out():
    expected = NET(OBS).x
    numbers = Y.numpy()
    for y in (numbers, numbers.astype(">f4"), np.asfortranarray(numbers), np.flip(numbers, 0)[::-1], Y):
        assert torch.equal(NET(y).x, expected)
    doubled = NET(numbers.astype(np.float64)).x
    assert doubled.dtype is torch.float32
    torch.testing.assert_close(doubled, expected)
    frozen = numbers.copy()
    frozen.flags.writeable = False
    assert torch.equal(NET(frozen).x, expected)
    assert torch.equal(NET(numbers[0]).x, NET(Y[0]).x)  # one sample


def test_of_an_array_no_gradients_are_kept_and_of_a_tensor_they_are():
    assert NET(Y.numpy()).x.numpy().shape == (4, 20)
    assert NET(Y).x.requires_grad
    with torch.no_grad():
        assert not NET(Y).x.requires_grad


def test_intervals_and_calibrated_variances_take_y_too():
    intervals = guard.conformal(NET, PROBLEM.sample(200, torch.Generator().manual_seed(1)), coverage=0.8)
    assert torch.equal(intervals(Y.numpy()).radius, intervals(Observation(Y, PROBLEM.A)).radius)
    sure = ff.unfold(ff.algorithms.OAMP(), PROBLEM, 2, {"damping": "tied"})
    calibrated = guard.CalibratedVariance(sure, torch.ones(1), torch.ones(1))
    assert torch.equal(calibrated(Y.numpy()).x, sure(Observation(Y, PROBLEM.A)).x)


def test_a_loaded_run_takes_y(tmp_path):
    ff.save(NET, tmp_path / "net", PROBLEM)
    assert torch.equal(ff.load(tmp_path / "net")(Y.numpy()).x, NET(OBS).x)


def estimating(package: object) -> list[Callable]:
    """The methods that map an observation alone to an answer, of all classes beneath a package."""
    modules = [importlib.import_module(m.name) for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    kinds = {v for m in modules for v in vars(m).values() if inspect.isclass(v) and v.__module__ == m.__name__}
    methods = [vars(kind)[name] for kind in kinds for name in ("forward", "__call__") if name in vars(kind)]
    protocols = ("fanfold.estimators.base", "fanfold.estimators.posterior.features")  # no estimators, but parts
    return [
        method
        for method in methods
        if list(inspect.signature(method).parameters)[1:] == ["obs"] and method.__module__ not in protocols
    ]


@pytest.mark.parametrize("package", [estimators, unfolding, guard], ids=lambda p: p.__name__)
def test_every_estimator_of_the_package_takes_measurements(package):
    """The decorator is the outermost one, as others see observations alone."""
    methods, outermost = estimating(package), takes_measurements(lambda _, obs: obs).__code__
    assert methods
    assert [method.__qualname__ for method in methods if method.__code__ is not outermost] == []
