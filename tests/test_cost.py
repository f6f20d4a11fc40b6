"""What a call costs."""

import pytest
import torch
from torch import nn

from fanfold.deploy.cost import latency_us, multiply_accumulates, stored_numbers
from fanfold.observation import Estimate, Observation


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


def test_the_median_is_no_longer_than_the_99th_percentile():
    latency = latency_us(lambda: torch.ones(10).sum(), calls=50)
    assert 0 < latency.median <= latency.p99
