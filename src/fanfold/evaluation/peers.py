"""The classical peers that every comparison shows, each with its one setting tuned on draws of its own."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from torch import nn

from fanfold.algorithms import AMP, FISTA, GAMP, OAMP, Algorithm
from fanfold.core.streams import Stream
from fanfold.core.units import nmse_db
from fanfold.estimators import ESPRIT, LMMSE, MUSIC, MaximumAPosteriori, MaximumLikelihood
from fanfold.estimators.ofdm import channel_peers
from fanfold.estimators.posterior.neural import Regression
from fanfold.estimators.sparse import MCP, OMP, DebiasedLasso, Lasso
from fanfold.evaluation.evaluate import Estimator
from fanfold.likelihoods import GaussianNoise
from fanfold.problems import DirectionOfArrival, OFDMChannel, Problem
from fanfold.problems.protocols import KnownModel, KnownPosterior
from fanfold.training.trainer import draw
from fanfold.unfolding.unfold import Unfolded, iterate

NETWORK = "network"  # an end-to-end one, among its peers


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


ALPHAS = (0.9, 1.0, 1.1, 1.2, 1.3, 1.5, 1.8)  # thresholds of AMP, in standard deviations of its effective noise


def peers_of(net: nn.Module, problem: Problem) -> dict[str, Estimator]:
    """A network beside its untrained self and the tuned classical peers at its depth.

    Beside an end-to-end network stand the best linear estimator, which it started from, and, where the problem knows
    enough, maximum likelihood, maximum a posteriori, the subspace methods of an array, and the exact posterior mean. Of
    OFDM channels there are least squares, and LMMSE with the covariance of training draws.
    """
    if isinstance(net, Unfolded):
        named = {"unfolded": net, f"untrained {type(net.algorithm).__name__}": iterate(net.algorithm, net.depth)}
        return named | classical_peers(problem, net.depth)
    peers: dict[str, Estimator] = {NETWORK: net}
    if isinstance(net, Regression):
        peers["best linear estimator"] = net.linear_part
    if isinstance(problem, KnownModel) and hasattr(problem, "grid"):
        peers |= {"maximum likelihood": MaximumLikelihood(problem), "most probable": MaximumAPosteriori(problem)}
    if isinstance(problem, OFDMChannel):
        peers |= channel_peers(problem)
    if isinstance(problem, DirectionOfArrival):
        peers |= {"MUSIC": MUSIC(problem.sensors, problem.sources), "ESPRIT": ESPRIT(problem.sensors, problem.sources)}
    if isinstance(problem, KnownPosterior) and getattr(problem, "sources", 1) == 1:  # several have no quadrature
        peers["exact posterior"] = problem.posterior
    return peers


def classical_peers(problem: Problem, iterations: int, seed: int = 0) -> dict[str, Estimator]:
    """FISTA with its best λ and AMP with its best α at this depth, OAMP and LMMSE.

    OAMP is told the true prior, where there is one: what a network that learns has to reach. LMMSE has the covariance
    of training draws. Where measurements come through a likelihood that is not Gaussian, which none of these knows, the
    only peer is GAMP, told the prior and the likelihood.
    """
    peers: dict[str, Estimator] = {}
    if problem.A is None:
        return peers
    prior, noise_var = getattr(problem, "prior", None), getattr(problem, "noise_var", None)
    likelihood = getattr(problem, "likelihood", None)
    if likelihood is not None and not isinstance(likelihood, GaussianNoise):
        return {} if prior is None else {"GAMP, true prior": iterate(GAMP(prior, likelihood), iterations)}
    peers["FISTA, best λ"] = iterate(tuned(FISTA, lam_grid(problem, seed), problem, iterations, seed), iterations)
    peers["AMP, best α"] = iterate(tuned(AMP, ALPHAS, problem, iterations, seed), iterations)
    if prior is not None and noise_var is not None:
        peers["OAMP, true prior"] = iterate(OAMP(prior), iterations)
    if noise_var is not None:
        peers["LMMSE"] = LMMSE.of(problem, seed=seed)
    return peers | library_peers(problem, seed)


def library_peers(problem: Problem, seed: int = 0) -> dict[str, Estimator]:
    """Lasso, lasso with least squares on its support, MCP and OMP, where scikit-learn and skglm are installed.

    For real signals only. Weights are the best of a grid on 50 draws; OMP needs the noise variance.
    """
    A = problem.A
    if A is None or A.varies or A.dtype.is_complex or not (find_spec("sklearn") and find_spec("skglm")):
        return {}
    x, obs = draw(problem, 50, seed, Stream.TUNING, 2)
    grid = lam_grid(problem, seed, points=14)

    def best(make: Callable[[float], Estimator]) -> Estimator:
        return min((make(lam) for lam in grid), key=lambda e: _finite(nmse_db(e(obs).x, x)))

    kinds: dict[str, Callable[[float], Estimator]] = {"Lasso": Lasso, "Lasso, debiased": DebiasedLasso, "MCP": MCP}
    peers = {f"{name}, best λ": best(kind) for name, kind in kinds.items()}
    return peers | ({"OMP, residual stop": OMP()} if obs.noise_var is not None else {})


def _finite(value: float) -> float:
    return value if value == value else float("inf")
