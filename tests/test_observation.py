"""An observation is checked where it is made: every refusal says what arrived and the fix."""

import dataclasses

import pytest
import torch

from fanfold.linops import DCT, Dense
from fanfold.observation import Estimate, Observation

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
M, N = 4, 6

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def operator(dtype: torch.dtype = torch.float32) -> Dense:
    return Dense(torch.randn(M, N, generator=torch.Generator().manual_seed(0), dtype=dtype))


def test_wrong_shape_is_refused_with_the_fix():
    with pytest.raises(ValueError, match=r"A maps 6 -> 4 but y has 5 entries; pass y of shape \(\.\.\., 4\)\.$"):
        Observation(torch.ones(3, 5), operator())


@pytest.mark.parametrize("shape", [(3, N), (M, 7), (M, 1)])
def test_transposed_measurements_are_recognised(shape):
    with pytest.raises(ValueError, match=r"pass y of shape \(\.\.\., 4\)\.( Is it x\?)? Transposed\?$"):
        Observation(torch.ones(shape), operator())


@each_dtype
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_an_entry_that_is_not_finite_is_refused_with_its_index(dtype, bad):
    y = torch.ones(3, M, dtype=dtype)
    y[1, 2] = bad
    y[2, 0] = bad
    with pytest.raises(ValueError, match=r"^y is not finite: .*(nan|inf).* at index \(1, 2\), 2 such entries; remove"):
        Observation(y, operator(dtype))


@each_dtype
def test_another_precision_is_refused_with_both_fixes(dtype):
    for other in DTYPES:
        if other == dtype:
            assert Observation(torch.ones(3, M, dtype=other), operator(dtype)).y.dtype == dtype
        else:
            with pytest.raises(ValueError, match=rf"y is {other} but A is {dtype}; convert one: y\.to\({dtype}\) or A"):
                Observation(torch.ones(3, M, dtype=other), operator(dtype))


def test_another_device_is_refused_with_both_fixes():
    with pytest.raises(ValueError, match=r"y is on meta but A is on cpu; move one: y\.to\('cpu'\) or A\.to\('meta'\)"):
        Observation(torch.ones(3, M, device="meta"), operator())


@pytest.mark.parametrize("shape", [(0, M), (0,), (3, 0), ()])
def test_an_empty_batch_is_refused(shape):
    with pytest.raises(ValueError, match="nothing to estimate from"):
        Observation(torch.ones(shape))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool], ids=str)
def test_counts_are_refused(dtype):
    with pytest.raises(ValueError, match=rf"y is {dtype}; pass a floating or complex torch tensor"):
        Observation(torch.ones(3, M, dtype=dtype))


def test_what_is_no_tensor_is_refused():
    with pytest.raises(ValueError, match="y is list; pass a floating or complex torch tensor"):
        Observation([1.0, 2.0])


@pytest.mark.parametrize("noise_var", [-0.5, torch.tensor([[1.0], [2.0], [-0.5]])])
def test_negative_variance_is_refused(noise_var):
    with pytest.raises(ValueError, match=r"noise_var is -0\.5; .*not in dB"):
        Observation(torch.ones(3, M), operator(), noise_var)


@pytest.mark.parametrize("noise_var", [1 + 0j, torch.ones(3, 1, dtype=torch.complex64)])
def test_complex_variance_is_refused(noise_var):
    with pytest.raises(ValueError, match=r"variance .* is real"):
        Observation(torch.ones(3, M, dtype=torch.complex64), operator(torch.complex64), noise_var)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_variance_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="noise_var is not finite"):
        Observation(torch.ones(3, M), operator(), bad)


@pytest.mark.parametrize("shape", [(3,), (M,), (3, M), (2, 1), (5, 1), (7, 3, 1), (1, 3, 1)])
def test_variance_of_the_wrong_shape_is_refused_with_the_right_one(shape):
    with pytest.raises(ValueError, match=r"noise_var has shape \(.*pass a number or shape \(3, 1\), one per sample"):
        Observation(torch.ones(3, M), operator(), torch.ones(shape))


@each_dtype
@pytest.mark.parametrize("noise_var", [0.25, 0, 1, torch.tensor(0.25, dtype=torch.float64), torch.ones(3, 1)])
def test_variance_becomes_a_real_tensor_of_the_datas_precision(dtype, noise_var):
    obs = Observation(torch.ones(3, M, dtype=dtype), operator(dtype), noise_var)
    assert isinstance(obs.noise_var, torch.Tensor)
    assert obs.noise_var.dtype == dtype.to_real()
    assert torch.equal(obs.noise_var, torch.as_tensor(noise_var).to(dtype.to_real()))


@each_dtype
def test_operator_and_variance_may_be_unknown(dtype):
    obs = Observation(torch.ones(3, M, dtype=dtype))
    assert obs.A is None
    assert obs.noise_var is None
    assert obs[1:].noise_var is None


@each_dtype
@pytest.mark.parametrize("shape", [(M,), (3, M), (2, 3, M)])
def test_batches_of_any_depth_are_taken(dtype, shape):
    y = torch.ones(shape, dtype=dtype)
    assert Observation(y, operator(dtype), torch.ones(*shape[:-1], 1)).y is y


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (5, 1)])
@pytest.mark.parametrize("rows", [slice(0, 2), slice(2, 4), slice(1, None, 2), slice(-1, None)])
def test_slicing_keeps_each_samples_measurements_and_variance(shape, rows):
    y = torch.arange(5.0 * M).reshape(5, M)
    var = torch.arange(1.0, 1 + torch.Size(shape).numel()).reshape(shape)
    whole = Observation(y, operator(), var)
    part = whole[rows]
    assert torch.equal(part.y, y[rows])
    assert part.A is whole.A
    everyones = var.expand(5, 1)[rows]
    assert torch.equal(part.noise_var.expand(len(part.y), 1), everyones)


@pytest.mark.parametrize("field", ["y", "A", "noise_var"])
def test_an_observation_does_not_change(field):
    obs = Observation(torch.ones(3, M), operator(), 0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(obs, field, None)


def test_an_estimate_does_not_change():
    estimate = Estimate(torch.ones(3))
    assert estimate.var is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        estimate.x = torch.zeros(3)


def test_unchecked_looks_at_nothing():
    y = torch.full((3, M), float("nan"))
    obs = Observation.unchecked(y, operator(), torch.tensor(-1.0))
    assert obs.y is y
    assert obs.noise_var.item() == -1


def test_moving_to_where_it_is_changes_nothing():
    obs = Observation(torch.ones(3, M), operator(), 0.1)
    assert obs.to("cpu") is obs


def test_all_of_it_moves():
    obs = Observation(torch.ones(3, M), DCT((M,)), 0.1).to("meta")
    assert obs.y.device.type == obs.A.device.type == obs.noise_var.device.type == "meta"
