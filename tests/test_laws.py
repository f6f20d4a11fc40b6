"""Every algorithm of the registry, in every dtype, through every law."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch

from fanfold.algorithms import FISTA, ISTA, LISTA, LISTACP, POSITIVE, REGISTRY, UNIT, Algorithm, Nominal
from fanfold.observation import Estimate, Observation
from fanfold.shrinkage import soft
from fanfold.unfolding.unfold import iterate
from laws import DTYPES, LAWS, LAWS_IN_DTYPES

CASES = [(name, law, dtype) for name in REGISTRY for law, dtype in LAWS_IN_DTYPES]


@pytest.mark.parametrize(("name", "law", "dtype"), CASES, ids=map("-".join, CASES))
def test_law(name, law, dtype):
    check = LAWS[law]
    check(REGISTRY[name](), dtype)


class RelaxedState(NamedTuple):
    x: torch.Tensor


@dataclass(frozen=True)
class RelaxedISTA(Algorithm):
    """A toy from outside the package: ISTA that goes only part of the way."""

    lam: float = 0.1
    relaxation: float = 0.9

    nominals = {
        "threshold": Nominal(lambda toy, obs: toy.lam * obs.A.norm() ** -2, POSITIVE),
        "relaxation": Nominal(lambda toy, obs: toy.relaxation, UNIT),
    }

    def start(self, obs):
        return RelaxedState(obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n)))

    def step(self, s, obs, theta):
        r = s.x + obs.A.H @ (obs.y - obs.A @ s.x) * obs.A.norm() ** -2
        return RelaxedState(s.x + theta.relaxation * (soft(r, theta.threshold) - s.x))

    def read(self, s):
        return Estimate(s.x)


@pytest.mark.parametrize(("law", "dtype"), LAWS_IN_DTYPES)
def test_law_for_an_algorithm_from_outside(law, dtype):
    check = LAWS[law]
    check(RelaxedISTA(), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [LISTA, LISTACP])
def test_untrained_lista_is_ista_to_rounding(kind, dtype):
    from laws import assert_close, observed

    _, obs = observed(dtype)
    assert_close(iterate(kind(0.1), 12)(obs).x, iterate(ISTA(0.1), 12)(obs).x)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("kind", [ISTA, FISTA, LISTA, LISTACP])
def test_fixed_point_is_the_lasso(kind, dtype):
    """At the minimum of ½‖y - Ax‖² + lam‖x‖₁: Aᴴ(y - Ax) is lam x/|x| where x is not zero, and within lam elsewhere."""
    from laws import observed

    _, obs = observed(dtype)
    x = iterate(kind(0.1), 10_000 if kind is not FISTA else 4000)(obs).x
    slope = obs.A.H @ (obs.y - obs.A @ x)
    active = x != 0
    assert active.any()
    assert (slope - 0.1 * torch.sgn(x))[active].abs().max() < 1e-8
    assert slope[~active].abs().max() <= 0.1 + 1e-8


def test_amp_is_scale_equivariant():
    from fanfold.algorithms import AMP
    from laws import observed

    _, obs = observed("float64")
    tiny = Observation(obs.y * 1e-6, obs.A, obs.noise_var)
    torch.testing.assert_close(iterate(AMP(), 8)(tiny).x * 1e6, iterate(AMP(), 8)(obs).x, rtol=1e-9, atol=1e-12)


def test_soft_threshold_of_a_vector_is_finite_where_it_kills_everything():
    r = torch.zeros(3, dtype=torch.complex64, requires_grad=True)
    x = soft(r, torch.tensor(1.0))
    x.abs().square().sum().backward()
    assert r.grad is not None
    assert torch.isfinite(torch.view_as_real(r.grad)).all()
