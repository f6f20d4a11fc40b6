"""A trained network becomes an integer program: it loses little, and less with every bit."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.core.streams import generator_of
from fanfold.core.units import nmse_db
from fanfold.deploy.integer import IntegerEstimator, compiled, to_integers, values_of
from fanfold.deploy.integer.onnx_form import onnx_model
from fanfold.deploy.release import IntegerBuild
from fanfold.estimators import quantised
from fanfold.estimators.fixed_point import FakeQuantised
from fanfold.estimators.fixed_point.values import quantised_rows
from fanfold.linops import Dense

PROBLEM = ff.problems.CompressedSensing(n=60, m=30, snr_db=30.0)
LEARN = {
    "lista-cp": (ff.algorithms.LISTACP(0.3), {"W": "per-layer", "threshold": "per-layer vector"}),
    "alista": (ff.algorithms.ALISTA(), {"step": "per-layer", "threshold": "per-layer"}),
}
# dB; training with quantisation is to lose at most 0.3, 0.1 and 0.02
LIMITS = {"w8a8": 0.5, "w8a12": 0.1, "w16a16": 0.02}


@pytest.fixture(scope="module", params=LEARN)
def net(request):
    algorithm, learn = LEARN[request.param]
    return ff.fit(ff.unfold(algorithm, PROBLEM, 5, learn), PROBLEM, steps=60, batch=64, seed=0)


@pytest.fixture(scope="module")
def observed():
    return PROBLEM.sample(300, generator_of(1))[1]


def test_a_network_loses_little_and_the_less_the_more_bits(net, observed):
    x, obs = PROBLEM.sample(2000, generator_of(2))
    with torch.no_grad():
        floating = nmse_db(net(obs).x, x)
    assert floating < -4  # it has learned something
    distances = []
    for widths, limit in LIMITS.items():
        integer = IntegerEstimator(to_integers(net, observed, widths))
        assert nmse_db(integer(obs).x, x) < floating + limit
        distances.append(nmse_db(integer(observed).x, net(observed).x.detach()))  # where nothing saturates
    assert distances[0] > distances[1]
    assert distances[2] < distances[1] - 24  # four more bits of activations, and eight of weights, at 6 dB a bit


def test_what_matrices_multiply_stays_in_its_bits(net, observed):
    for widths, bits in (("w8a8", 8), ("w8a12", 12), ("w16a16", 16)):
        program = to_integers(net, observed, widths)
        products = [op for op in program.operations if op.kind == "MATMUL"]
        assert {op.weights.dtype.itemsize * 8 for op in products} == {8 if widths.startswith("w8") else 16}
        taken = {op.source for op in products}
        values = values_of(program, {"y": program.inputs[0].integers(observed.y.double().numpy())})
        assert min(values[name].min() for name in taken) >= -(2 ** (bits - 1))
        assert max(values[name].max() for name in taken) < 2 ** (bits - 1)


class Watching(FakeQuantised):
    """Keeps what A multiplies, and what is added on the skip path."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.multiplied, self.skipped, self.products = [], [], []

    def product(self, x, weights, outer=1, inner=1):
        """The product; what A itself multiplies is kept."""
        if weights.numbers.shape == PROBLEM.A.shape and weights.numbers.abs().max() > 0.1:  # not what rounding took
            self.multiplied.append(x.value)
        scaled = super().product(x, weights, outer, inner)
        self.products.append(scaled.value)
        return scaled

    def shifted(self, x, fraction, name=None):
        """The numbers with another fraction; those of a product are one."""
        scaled = super().shifted(x, fraction, name)
        if any(x.value is product for product in self.products):
            self.products.append(scaled.value)
        return scaled

    def plus(self, left, right, name=None):
        """The sum; the second part is x, of a layer or of its change."""
        if not any(right.value is product for product in self.products):  # the second part of a residual
            self.skipped.append(right.value)
        return super().plus(left, right, name)


@pytest.mark.parametrize("widths", ["w8a8", "w8a12", "w16a16"])
def test_the_skip_path_carries_the_sum_of_what_the_matrix_multiplies(net, observed, widths):
    whole = quantised(net, widths, observed)
    reader = Watching({"y": observed.y.double()}, widths, whole.fractions.tolist())
    with torch.no_grad():
        whole.written(reader)
    sums = torch.stack(reader.multiplied).cumsum(0)
    assert len(sums) == net.layers - 1
    assert reader.skipped
    for x in reader.skipped:
        assert any(torch.equal(x, total) for total in sums)
    assert torch.equal(reader.skipped[-1], sums[-1])  # the last layer adds all of it


def test_weights_whose_pairs_fit_are_proved_to_and_cost_little(net, observed):
    x, obs = PROBLEM.sample(2000, generator_of(2))
    free, fitting = (to_integers(net, observed, "w8a8", pairs_fit=fit) for fit in (False, True))
    products = [row for row in fitting.proof.rows if row.kind == "MATMUL"]
    assert all(row.bytes_alone for row in products)
    assert nmse_db(IntegerEstimator(fitting)(obs).x, x) < nmse_db(IntegerEstimator(free)(obs).x, x) + 0.3


FEW = {"lista-cp": 13, "alista": 20, "alista-at": 35}  # nodes a layer: two products, and what a runtime needs besides


@pytest.mark.parametrize("name", FEW)
def test_layers_have_few_nodes_and_measurements_alone_have_grids_of_their_own(observed, name):
    algorithm, learn = (LEARN | {"alista-at": (ff.algorithms.ALISTAAT(), {"alpha": "per-layer"})})[name]
    count = {}
    for layers in (6, 14):
        program = to_integers(ff.unfold(algorithm, PROBLEM, layers, learn), observed, "w8a8", pairs_fit=True)
        count[layers] = Counter(node.op_type for node in onnx_model(program).graph.node)
    assert (count[14].total() - count[6].total()) / 8 <= FEW[name]
    assert count[14]["Gather"] == 0  # which copies entry by entry
    uneven = [op for op in program.operations if op.kind == "RESCALE" and np.unique(op.shift).size > 1]
    if name != "alista-at":
        assert [op.source for op in uneven] == ["y"]


@pytest.mark.parametrize("small", [1e-3, 1e-6])
def test_a_row_of_A_far_below_the_others_costs_nothing(observed, small):
    A, y = PROBLEM.A.matrix().clone(), observed.y.clone()
    A[3] *= small
    y[:, 3] *= small
    obs = ff.Observation(y, Dense(A), observed.noise_var)
    net = ff.unfold(ff.algorithms.LISTACP(0.3), SimpleNamespace(A=obs.A), 4)
    whole = IntegerEstimator(to_integers(net, obs, "w8a8", pairs_fit=True))
    assert nmse_db(whole(obs).x, net(obs).x.detach()) < -30


@pytest.mark.parametrize("one_scale", [False, True])
def test_rows_whose_pairs_do_not_fit_lose_a_bit(one_scale):
    """Neighbours of 115 do not fit, and those of the second row only with the scale of the first."""
    weights = torch.tensor([[0.9, -0.9, 0.0], [0.4, 0.44, 0.3]])
    free, fitting = (quantised_rows(weights, 8, pairs_fit=fit, one_scale=one_scale) for fit in (False, True))
    assert free.fraction.tolist() == ([7, 7] if one_scale else [7, 8])
    assert fitting.fraction.tolist() == ([6, 6] if one_scale else [6, 7])
    for rows, fits in ((free, False), (fitting, True)):
        pairs = np.abs(rows.integers.astype(int)[:, :-1]) + np.abs(rows.integers.astype(int)[:, 1:])
        assert (255 * pairs.max() <= 32767) == fits


def test_compiled_it_is_the_same(net, observed):
    program = to_integers(net, observed, "w8a8", name="net")
    assert torch.equal(compiled(program)(observed).x, IntegerEstimator(program)(observed).x)


def test_what_has_no_integer_form_is_refused():
    _, obs = PROBLEM.sample(10, generator_of(0))
    for algorithm, said in (
        (ff.algorithms.FISTA(), "FISTA has no integer form"),
        (ff.algorithms.ALISTA(p=0.01), "selects"),
    ):
        with pytest.raises(ValueError, match=said):
            to_integers(ff.unfold(algorithm, PROBLEM, 2, {}), obs)


def test_a_layer_that_is_scaled_into_overflow_is_refused_before_there_is_a_release(net, observed):
    """The program of a real network, one matrix of it larger: no program, and so no build that could be certified."""
    program = to_integers(net, observed, "w8a8")
    products = [op for op in program.operations if op.kind == "MATMUL"]  # W, A and W again, whose sums meet no clamp
    scaled = replace(products[2], weights=np.full(products[2].weights.shape, 32767, np.int16))
    operations = tuple(scaled if op is products[2] else op for op in program.operations)
    with pytest.raises(ValueError, match=r"may reach|lies within"):
        IntegerBuild.of(replace(program, operations=operations))
