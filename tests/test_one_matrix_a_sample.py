"""Every algorithm where samples have operators of their own: each is treated as it would be alone, or refused."""

import inspect

import pytest
import torch

import fanfold as ff
from fanfold import algorithms
from fanfold.linops import Batched, Dense

KINDS = [
    kind
    for kind in vars(algorithms).values()
    if inspect.isclass(kind) and issubclass(kind, algorithms.Algorithm) and not inspect.isabstract(kind)
]
every = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def observed():
    generator = torch.Generator().manual_seed(0)
    M = torch.randn(5, 12, 24, generator=generator, dtype=torch.float64) / 12**0.5
    y = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    return M, ff.Observation(y, Batched(M), torch.tensor(0.01, dtype=torch.float64))


@every
def test_each_sample_is_estimated_as_alone_or_refused(kind):
    M, obs = observed()
    if kind.one_matrix:
        with pytest.raises(ValueError, match=f"{kind.__name__} .* one A"):
            ff.iterate(kind(), 3)(obs)
        with pytest.raises(ValueError, match="one A"):
            ff.unfold(kind(), obs, 3, learn={next(iter(kind().nominals)): "per-layer"})
        return
    together = ff.iterate(kind(), 3)(obs).x
    for y, m, x in zip(obs.y, M, together, strict=True):
        alone = ff.iterate(kind(), 3)(ff.Observation(y, Dense(m), obs.noise_var)).x
        torch.testing.assert_close(x, alone, rtol=1e-9, atol=1e-9)  # of three steps in double precision


def test_some_take_one_matrix_a_sample_and_some_do_not():
    assert {kind.one_matrix for kind in KINDS} == {True, False}
