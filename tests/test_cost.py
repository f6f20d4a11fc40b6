"""What a call costs."""

import pytest
import torch
from torch import nn

from fanfold.deploy.cost import call_costs, latency_us, multiply_accumulates, stored_numbers
from fanfold.estimators.ofdm import BeamMixer, MixerSettings
from fanfold.observation import Estimate, Observation
from fanfold.problems import OFDMChannel


class Dense(nn.Module):
    def __init__(self, rows: int, columns: int, dtype: torch.dtype):
        super().__init__()
        self.W = nn.Parameter(torch.ones(rows, columns, dtype=dtype))
        self.register_buffer("order", torch.arange(columns))

    def forward(self, obs: Observation) -> Estimate:
        return Estimate(obs.y @ self.W)


@pytest.mark.parametrize(("dtype", "each"), [(torch.float32, 1), (torch.complex64, 4)])
def test_a_matrix_costs_its_entries_for_each_sample(dtype, each):
    obs = Observation(torch.ones(7, 5, dtype=dtype))
    assert multiply_accumulates(Dense(5, 3, dtype), obs) == 15 * each


def test_a_convolution_costs_its_kernel_at_each_place():
    layer = nn.Conv1d(2, 4, 3, padding=1, bias=False)
    obs = Observation(torch.ones(2, 2, 9))
    assert multiply_accumulates(lambda o: Estimate(layer(o.y)), obs) == pytest.approx(4 * 2 * 3 * 9 * 2 / 4)


def test_complex_numbers_are_two_and_indices_none():
    assert stored_numbers(Dense(5, 3, torch.complex64)) == 30
    assert stored_numbers(Dense(5, 3, torch.float32)) == 15
    assert stored_numbers(lambda obs: Estimate(obs.y)) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_a_product_with_a_vector_costs_its_entries(dtype):
    W, each = torch.ones(3, 5, dtype=dtype), 4 if dtype.is_complex else 1
    alone = Observation(torch.ones(5, dtype=dtype))
    assert multiply_accumulates(lambda o: Estimate(W @ o.y), alone) == 15 * each
    assert multiply_accumulates(lambda o: Estimate(torch.addmv(torch.ones(3, dtype=dtype), W, o.y)), alone) == 15 * each
    assert multiply_accumulates(lambda o: Estimate(torch.dot(o.y, o.y)[None]), alone) == 5 * each


@pytest.mark.parametrize("pick", [slice(None), slice(0, 1), 0])
def test_costs_are_of_one_call_whatever_the_batch(pick):
    problem = OFDMChannel("kronecker:array=2x2x2,subcarriers=12", "comb-2", snr_db=(0.0, 20.0))
    net = BeamMixer.of(problem, MixerSettings(6, 6, 1, 6, 8, 12))
    _, obs = problem.sample(4, torch.Generator().manual_seed(0))
    costs = call_costs(net, obs[pick])
    assert costs["parameters"] == sum(p.numel() for p in net.parameters())
    assert costs["stored kB, float32"] == 4e-3 * stored_numbers(net)
    assert costs["thousand multiply-accumulates"] == 1e-3 * multiply_accumulates(net, obs)
    assert costs["µs a call, PyTorch"] > 0
    assert costs["µs a call, ONNX Runtime"] > 0


def test_the_median_is_no_longer_than_the_99th_percentile():
    latency = latency_us(lambda: torch.ones(10).sum(), calls=50)
    assert 0 < latency.median <= latency.p99
