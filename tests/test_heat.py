"""The heated plate obeys the laws of conduction, and its solver those of finite elements."""

import sys

import numpy as np
import pytest
import torch

from fanfold.problems import Heat, Problem
from fanfold.problems.simulators.heat import assembled

# solving loses the condition number of the stiffness matrix, about cells², in digits; ten times that for safety
TOLERANCE = 10 * 16**2 * np.finfo(float).eps


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_cells(cells: int, seed: int = 0) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).standard_normal(cells**2))


@pytest.mark.parametrize("conductivity", [0.25, 1.0, 7.0])
def test_a_uniform_plate_has_the_straight_line_of_one_dimension(conductivity):
    plate = assembled(16)
    u = plate.temperatures(np.full((1, 256), conductivity))[0]
    exact = (1 - plate.nodes[0, : plate.free]) / conductivity  # flux 1 = -κ u', u(1) = 0; linear elements have it
    assert np.abs(u - exact).max() < TOLERANCE * exact.max()


def test_layers_in_series_add_their_resistances():
    plate, cells = assembled(16), 16
    layers = random_cells(4)
    u = plate.temperatures(layers[(plate.centres[0] * cells).astype(int)][None])[0]
    to_the_right = np.append(np.cumsum((1 / layers / cells)[::-1])[::-1], 0)  # ∫ 1/κ from each column of nodes
    column = np.round(plate.nodes[0, : plate.free] * cells).astype(int)
    assert np.abs(u - to_the_right[column]).max() < TOLERANCE * to_the_right.max()


def test_the_banded_solution_is_that_of_scikit_fem():
    skfem = pytest.importorskip("skfem")
    cells, k = 8, random_cells(8)
    edge = np.linspace(0, 1, cells + 1)
    basis = skfem.Basis(skfem.MeshQuad.init_tensor(edge, edge), skfem.ElementQuad1())
    conductivity = basis.with_element(skfem.ElementQuad0()).interpolate(k)
    K = skfem.BilinearForm(lambda u, v, w: w.k * (u.grad * v.grad).sum(0)).assemble(basis, k=conductivity)
    left = basis.boundary(lambda x: x[0] == 0)
    load = skfem.LinearForm(lambda v, w: v).assemble(left)
    u = skfem.solve(*skfem.condense(K, load, D=basis.get_dofs(lambda x: x[0] == 1)))
    own = assembled(cells)
    assert np.abs(own.temperatures(k[None])[0] - u[: own.free]).max() < 10 * cells**2 * np.finfo(float).eps * u.max()


def test_twice_the_conductivity_is_half_the_temperature():
    plate, k = assembled(16), random_cells(16)
    once, twice = plate.temperatures(np.stack([k, 2 * k]))
    assert np.abs(once / 2 - twice).max() < TOLERANCE * once.max()


def test_no_cell_that_conducts_better_makes_the_heated_edge_warmer():
    """Rayleigh's law: the mean temperature where the flux enters falls with every conductivity."""
    plate, k = assembled(8), random_cells(8)
    better = np.repeat(k[None], 65, 0)
    better[np.arange(1, 65), np.arange(64)] *= 3
    u = plate.temperatures(better)
    weights = np.array([0.5, *[1] * 7, 0.5]) / 8
    edge = u[:, :9] @ weights
    assert (edge[1:] < edge[0]).all()


def test_a_plate_turned_upside_down_has_its_temperatures_turned():
    plate, k = assembled(8), random_cells(8)
    column, row = (plate.centres * 8).astype(int)
    by_place = np.empty((8, 8))
    by_place[column, row] = k
    u, turned = plate.temperatures(np.stack([k, by_place[:, ::-1][column, row]])).reshape(2, 8, 9)
    assert np.abs(u[:, ::-1] - turned).max() < TOLERANCE * u.max()


def test_inclusions_are_a_quarter_of_the_plate_and_each_has_its_parameter():
    heat, plate = Heat(cells=16, across=2), assembled(16)
    log_k = heat.conductivities(np.array([[1.0, 2.0, 3.0, 4.0]]), plate)[0]
    assert sorted(log_k.astype(int).tolist()) == [0] * 192 + [1] * 16 + [2] * 16 + [3] * 16 + [4] * 16
    middle = {value: plate.centres[:, log_k == value].mean(1).round(9).tolist() for value in (1, 2, 3, 4)}
    assert middle == {1: [0.25, 0.25], 2: [0.75, 0.25], 3: [0.25, 0.75], 4: [0.75, 0.75]}


def test_sensors_sit_on_three_edges_and_away_from_the_corners():
    heat, plate = Heat(cells=16, sensors=5), assembled(16)
    places = plate.nodes[:, heat.places(plate)]
    left, lower, upper = np.split(places, 3, axis=1)
    assert (left[0] == 0).all()
    assert (lower[1] == 0).all()
    assert (upper[1] == 1).all()
    for along in (left[1], lower[0], upper[0]):
        assert (np.diff(along) > 0).all()
        assert along.min() > 0
        assert along.max() < 1


def test_the_plate_without_grain_and_noise_is_told_by_its_inclusions():
    heat, plate = Heat(grain=0.0, noise_var=0.0, dtype="float64"), assembled(16)
    x, obs = heat.sample(5, rng(0))
    u = plate.temperatures(np.exp(heat.conductivities(x.numpy(), plate)))[:, heat.places(plate)]
    assert np.array_equal(obs.y.numpy(), u)


def test_draws_have_the_moments_that_they_say():
    heat = Heat(contrast=0.5, grain=0.0, noise_var=0.01, dtype="float64")
    x, obs = heat.sample(2000, rng(1))
    assert (x.var(0) / 0.25 - 1).abs().max() < 5 * (2 / 2000) ** 0.5  # variance of a variance of Gaussians
    plate = assembled(16)
    u = plate.temperatures(np.exp(heat.conductivities(x.numpy(), plate)))[:, heat.places(plate)]
    noise = obs.y - torch.from_numpy(u)
    assert abs(noise.var().item() / 0.01 - 1) < 5 * (2 / noise.numel()) ** 0.5


def test_grain_reaches_the_sensors():
    quiet = {"noise_var": 0.0, "contrast": 0.0, "dtype": "float64"}
    assert Heat(grain=0.0, **quiet).sample(20, rng(0))[1].y.var(0).max() < TOLERANCE**2
    assert Heat(grain=0.2, **quiet).sample(20, rng(0))[1].y.var(0).min() > 1e-6


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_draws_repeat_with_their_generator_in_the_precision_asked_for(dtype):
    heat = Heat(dtype=dtype)
    (x, obs), (again, obs_again) = heat.sample(3, rng(2)), heat.sample(3, rng(2))
    assert torch.equal(x, again)
    assert torch.equal(obs.y, obs_again.y)
    assert x.dtype == obs.y.dtype == getattr(torch, dtype)
    assert x.shape == (3, 4)
    assert obs.y.shape == (3, 15)
    assert isinstance(heat, Problem)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cells": 12}, "12 cells for 2 inclusions each way; pass a multiple of 4 . across, such as 8"),
        ({"sensors": 17}, "sensors is 17; pass 1 to 16"),
        ({"grain": -0.1}, "contrast, grain and noise_var are not negative"),
    ],
)
def test_what_is_no_plate_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Heat(**fields)


def test_without_scikit_fem_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "skfem", None)
    assembled.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'fanfold\[fem\]'"):
        Heat().sample(1, rng(0))
