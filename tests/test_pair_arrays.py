"""Pairs handed over as arrays: the pairs of a file of the same arrays, bit for bit, and kept runs know them again."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

import fanfold as ff
from fanfold.linops import Dense
from fanfold.problems import Pairs

RNG = np.random.default_rng(0)
A = RNG.standard_normal((4, 6)).astype(np.float32)
X = RNG.standard_normal((40, 6)).astype(np.float32)
Y = X @ A.T + np.float32(0.1) * RNG.standard_normal((40, 4)).astype(np.float32)
GIVEN = {"x": X, "y": Y, "A": A, "noise_var": 0.01}
REFUSED = {
    "no y": ({"x": X}, "Pairs has no y; pass both"),
    "nothing": ({}, "Pairs takes a file of pairs, path, or in Python arrays, x= and y=; there is neither"),
    "both": ({"path": "pairs.npz", "x": X, "y": Y}, "a file or arrays, not both"),
    "list": ({"x": X.tolist(), "y": Y}, "x is a list; pass a numpy array"),
    "table": ({"x": X, "y": pd.DataFrame(Y)}, r"y is a DataFrame; pass its numbers, y.to_numpy\(\)"),
    "count": ({"x": X, "y": Y[:9]}, r"x is \(40, 6\) and y is \(9, 4\)"),
    "precision": ({"x": X, "y": Y.astype(np.float64)}, "x is torch.float32 and y is torch.float64"),
    "not finite": ({"x": X, "y": np.full_like(Y, np.nan)}, r"y is not finite: nan at index \(0, 0\)"),
    "transposed A": ({**GIVEN, "A": A.T.copy()}, "A maps 4 -> 6 but x has 6 entries; .*|Transposed"),
    "variance": ({**GIVEN, "noise_var": -1.0}, "a variance is not negative"),
    "too few": ({"x": X[:1], "y": Y[:1]}, "the pair of arrays holds 1 pairs: too few"),
    "kind": ({"x": X, "y": Y, "kind": "image"}, r"pass \(samples, n\) and \(samples, channels, h, w\)"),
}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.fixture
def file(tmp_path) -> Pairs:
    np.savez(tmp_path / "pairs.npz", **GIVEN)
    return Pairs(str(tmp_path / "pairs.npz"))


@pytest.mark.parametrize("made", [lambda a: a, torch.from_numpy], ids=["numpy", "torch"])
def test_they_are_the_pairs_of_a_file_bit_for_bit(file, made):
    given = Pairs(**{name: value if name == "noise_var" else made(value) for name, value in GIVEN.items()})
    assert given.rows() == file.rows()
    for one, other in ((given, file), (given.held_out(), file.held_out())):
        (x, obs), (x_file, obs_file) = one.sample(7, generator()), other.sample(7, generator())
        assert torch.equal(x, x_file)
        assert torch.equal(obs.y, obs_file.y)
        assert obs.A.fingerprint() == obs_file.A.fingerprint()
        assert obs.noise_var.item() == pytest.approx(obs_file.noise_var.item())
    assert len(given.held_out().every()[0]) == 8


def test_what_is_learned_of_them_is_what_is_learned_of_the_file(file):
    for make in (lambda p: ff.neural(p, width=8), lambda p: ff.unfold(ff.algorithms.ISTA(), p, 2, {"step": "tied"})):
        nets = [ff.fit(make(problem), problem, steps=3, batch=8) for problem in (file, Pairs(**GIVEN))]
        first, second = ([*net.parameters()] for net in nets)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("given", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        Pairs(**given)


def test_A_may_be_any_operator():
    sparse = scipy.sparse.csr_array(A)
    for operator in (A, torch.from_numpy(A), Dense(torch.from_numpy(A)), sparse, ff.linops.from_scipy(sparse)):
        problem = Pairs(x=X, y=Y, A=operator)
        torch.testing.assert_close(problem.A.matrix(), torch.from_numpy(A))


def test_copies_share_the_arrays_and_other_arrays_are_other_pairs():
    problem = Pairs(**GIVEN)
    assert problem.shifted(part="test").arrays is problem.arrays
    assert problem == problem.shifted(part="train") != Pairs(**GIVEN)
    assert problem.fingerprint == Pairs(**GIVEN).fingerprint
    for name in GIVEN:
        assert problem.fingerprint != Pairs(**{**GIVEN, name: 2 * GIVEN[name]}).fingerprint
    with pytest.raises(ValueError, match="samples, count, features"):
        problem.shifted(kind="set")


def test_a_run_of_arrays_is_loaded_without_them_and_knows_them_again(tmp_path):
    problem = Pairs(**GIVEN)
    net = ff.unfold(ff.algorithms.ISTA(), problem, 2, {"step": "tied"})
    ff.fit(net, problem, steps=4, batch=8, validate_every=2, run_dir=tmp_path / "run")
    assert torch.equal(ff.load(tmp_path / "run")(Y).x, net(Y).x)
    again = ff.resume(tmp_path / "run", problem=Pairs(**GIVEN))
    assert torch.equal(again(Y).x, net(Y).x)
    with pytest.raises(ValueError, match="hand it in"):
        ff.resume(tmp_path / "run")
    with pytest.raises(ValueError, match="hash"):
        ff.resume(tmp_path / "run", problem=Pairs(x=X + np.float32(1e-3), y=Y, A=A, noise_var=0.01))
    with pytest.raises(ValueError, match=r"held_out_share=0\.2"):
        ff.resume(tmp_path / "run", problem=Pairs(**GIVEN, held_out_share=0.5))


def test_an_end_to_end_run_of_arrays_is_kept(tmp_path):
    problem = Pairs(x=X, y=Y)
    net = ff.fit(ff.neural(problem, width=8), problem, steps=2, batch=8, run_dir=tmp_path / "run")
    assert torch.equal(ff.load(tmp_path / "run", problem=Pairs(x=X, y=Y))(Y).x, net(Y).x)
