"""The classical peers that every comparison shows, each with its one setting tuned on draws of its own."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch

from fanfold.algorithms import AMP, FISTA, GAMP, OAMP, Algorithm
from fanfold.core.abilities import ability
from fanfold.core.streams import Stream
from fanfold.core.units import nmse_db
from fanfold.estimators import LMMSE, MaximumAPosteriori, MaximumLikelihood
from fanfold.estimators.base import Layered, WithOrigin, known_peers
from fanfold.estimators.sparse import MCP, OMP, DebiasedLasso, Lasso
from fanfold.observation import Estimator
from fanfold.problems import Problem
from fanfold.problems.draws import draw
from fanfold.problems.protocols import (
    KnownModel,
    Searchable,
    likelihood_of,
    noise_var_of,
    posterior_of,
    prior_of,
)
from fanfold.unfolding.unfold import iterate

NETWORK, UNFOLDED = "network", "unfolded"  # an end-to-end one, and one of layers, among their peers


def tuned(
    make: Callable[[float], Algorithm], grid: Sequence[float], problem: Problem, iterations: int, seed: int = 0
) -> Algorithm:
    """The setting of a grid with the least error after so many iterations, on 500 training draws."""
    x, obs = draw(problem, 500, seed, Stream.TUNING, 0)
    return min((make(value) for value in grid), key=lambda a: _finite(nmse_db(iterate(a, iterations)(obs).x, x)))


def lam_grid(problem: Problem, seed: int = 0, points: int = 18) -> list[float]:
    """Weights of an l1 norm from half to a thousandth of the one that makes every estimate zero, `max |Aᴴy|`."""
    _, obs = draw(problem, 100, seed, Stream.TUNING, 1)
    assert obs.A is not None
    top = (obs.A.H @ obs.y).abs().amax(-1).median().item()
    return [top * 0.5 * 500 ** (-i / (points - 1)) for i in range(points)]


ITERATIONS = 50  # of classical algorithms beside a network that has no layers
LIBRARIES = {"sklearn": "scikit-learn", "skglm": "skglm"}  # module: package
SLOW_TO_START = "MCP"  # of skglm, which numba compiles anew in every process
ALPHAS = (0.9, 1.0, 1.1, 1.2, 1.3, 1.5, 1.8)  # thresholds of AMP, in standard deviations of its effective noise


def peers_of(net: Estimator, problem: Problem, *, at_once: bool = False) -> dict[str, Estimator]:
    """A network beside what it was before it learned and the tuned classical peers, at its depth where it has layers.

    Beside an end-to-end network stand the best linear estimator, which it started from, the classical estimators that
    are registered for its kind of problem and, where the problem knows enough, maximum likelihood, maximum a posteriori
    and the exact posterior mean. Where none of these is to be had and there is an operator, LMMSE and the iterative
    algorithms stand there, after 50 iterations.

    Args:
        net: The network.
        problem: What it estimates.
        at_once: Leave out the peer that compiles itself for most of a minute before its first answer, `SLOW_TO_START`.
    """
    origin, network = ability(net, WithOrigin), ability(net, Layered)
    before = {} if origin is None else dict([origin.origin])
    if network is not None:
        return {UNFOLDED: net} | before | classical_peers(problem, network.depth, at_once=at_once)
    peers: dict[str, Estimator] = {NETWORK: net} | before
    if ability(problem, KnownModel) and ability(problem, Searchable):
        peers |= {"maximum likelihood": MaximumLikelihood.of(problem), "most probable": MaximumAPosteriori.of(problem)}
    peers |= known_peers(problem)
    if len(peers) == 1 + len(before) and posterior_of(problem) is None:  # nothing is known of its kind but the operator
        peers |= classical_peers(problem, ITERATIONS, at_once=at_once)
    if (posterior := posterior_of(problem)) is not None:
        peers["exact posterior"] = posterior
    return peers


def classical_peers(problem: Problem, iterations: int, seed: int = 0, *, at_once: bool = False) -> dict[str, Estimator]:
    """FISTA with its best λ and AMP with its best α at this depth, OAMP and LMMSE.

    OAMP is told the true prior, where there is one: what a network that learns has to reach. LMMSE has the covariance
    of training draws. Where measurements come through a likelihood that is not Gaussian, which none of these knows, the
    only peer is GAMP, told the prior and the likelihood. `at_once` is that of `peers_of`.
    """
    peers: dict[str, Estimator] = {}
    if problem.A is None:
        return peers
    prior, noise_var, likelihood = prior_of(problem), noise_var_of(problem), likelihood_of(problem)
    if likelihood is not None and not likelihood.linear:
        return {} if prior is None else {"GAMP, true prior": iterate(GAMP(prior, likelihood), iterations)}
    peers["FISTA, best λ"] = iterate(tuned(FISTA, lam_grid(problem, seed), problem, iterations, seed), iterations)
    peers["AMP, best α"] = iterate(tuned(AMP, ALPHAS, problem, iterations, seed), iterations)
    if prior is not None and noise_var is not None:
        peers["OAMP, true prior"] = iterate(OAMP(prior), iterations)
    if noise_var is not None:
        peers["LMMSE"] = LMMSE.of(problem, seed=seed)
    return peers | library_peers(problem, seed, at_once=at_once)


def library_peers(problem: Problem, seed: int = 0, *, at_once: bool = False) -> dict[str, Estimator]:
    """Lasso, lasso with least squares on its support, MCP and OMP, where scikit-learn and skglm are installed.

    For real signals only. Weights are the best of a grid on 50 draws; OMP needs the noise variance. `at_once` is that
    of `peers_of`.
    """
    if not _takes_library_peers(problem) or not all(map(find_spec, LIBRARIES)):
        return {}
    x, obs = draw(problem, 50, seed, Stream.TUNING, 2)
    grid = lam_grid(problem, seed, points=14)

    def best(make: Callable[[float], Estimator]) -> Estimator:
        return min((make(lam) for lam in grid), key=lambda e: _finite(nmse_db(e(obs).x, x)))

    kinds: dict[str, Callable[[float], Estimator]] = {"Lasso": Lasso, "Lasso, debiased": DebiasedLasso, "MCP": MCP}
    chosen = {name: kind for name, kind in kinds.items() if not (at_once and name == SLOW_TO_START)}
    peers = {f"{name}, best λ": best(kind) for name, kind in chosen.items()}
    return peers | ({"OMP, residual stop": OMP()} if obs.noise_var is not None else {})


def absent_peers(problem: Problem) -> str:
    """Which classical peers a comparison lacks and what they take, in a sentence; empty if none.

    Args:
        problem: What is estimated.
    """
    likelihood = likelihood_of(problem)
    if problem.A is None or (likelihood is not None and not likelihood.linear):
        return ""
    lacks = [package for module, package in LIBRARIES.items() if not find_spec(module)]
    absent = []
    if lacks and _takes_library_peers(problem):
        absent.append(f"lasso and MCP, which take {' and '.join(lacks)} (pip install {' '.join(lacks)})")
    if noise_var_of(problem) is None:
        each = problem.sample(1, torch.Generator().manual_seed(0))[1].noise_var is not None
        absent.append(
            "LMMSE, which takes one noise variance for all samples"
            if each
            else "LMMSE and OMP, which take the noise variance (noise_var of the problem or its pairs)"
        )
    return f"Not compared: {'; '.join(absent)}." if absent else ""


def _takes_library_peers(problem: Problem) -> bool:
    A = problem.A
    return A is not None and not A.varies and not A.dtype.is_complex


def _finite(value: float) -> float:
    return value if value == value else float("inf")
