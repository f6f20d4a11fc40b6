"""Sparse recovery by well-kept libraries, sample by sample: what a network is held against. Extra `bench`.

Real signals only. The greedy pursuit stops when the residual is as small as the noise; the weights of the others are to
be tuned, as `fanfold.peers` does.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from fanfold.observation import Estimate, Observation


class BySample(ABC):
    """An estimator from another library that takes one sample at a time.

    Attributes:
        at_most: Draws that an evaluation gives it, as it takes milliseconds for each.
    """

    at_most: ClassVar[int] = 200

    def __call__(self, obs: Observation) -> Estimate:
        """The estimate, `(..., n)`.

        Raises:
            ValueError: If there is no operator, or the signal is complex.
        """
        if obs.A is None or obs.y.is_complex():
            raise ValueError(f"{type(self).__name__} takes real measurements and their operator A.")
        A = np.asfortranarray(obs.A.matrix().double().cpu().numpy())
        ys = obs.y.double().reshape(-1, obs.A.m).cpu().numpy()
        noise = torch.zeros(1) if obs.noise_var is None else obs.noise_var
        noise_vars = noise.double().expand(*obs.y.shape[:-1], 1).reshape(-1).tolist()
        solve = self.solver(A)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unfinished convergence, which the error shows
            x = np.stack([solve(y, noise_var) for y, noise_var in zip(ys, noise_vars, strict=True)])
        return Estimate(torch.from_numpy(x).to(obs.y).reshape(*obs.y.shape[:-1], obs.A.n))

    @abstractmethod
    def solver(self, A: np.ndarray) -> Callable[[np.ndarray, float], np.ndarray]:
        """A function from one `y` and its noise variance to one `x`."""


@dataclass(frozen=True)
class OMP(BySample):
    """Orthogonal matching pursuit until `‖y - A x‖² <= m noise_var`. Pati, Rezaiifar & Krishnaprasad (1993)."""

    def solver(self, A):
        from sklearn.linear_model import orthogonal_mp

        norms = np.linalg.norm(A, axis=0)
        return lambda y, noise_var: orthogonal_mp(A / norms, y, tol=max(len(y) * noise_var, 1e-12 * y @ y)) / norms


@dataclass(frozen=True)
class Lasso(BySample):
    """`min ½‖y - A x‖² + lam ‖x‖₁` by coordinate descent. Tibshirani (1996)."""

    lam: float = 0.1

    def solver(self, A):
        from sklearn.linear_model import Lasso as SklearnLasso

        model = SklearnLasso(alpha=self.lam / len(A), fit_intercept=False, max_iter=5000)
        return lambda y, noise_var: model.fit(A, y).coef_


@dataclass(frozen=True)
class DebiasedLasso(Lasso):
    """Least squares on the support that the lasso finds. Belloni & Chernozhukov (2013)."""

    def solver(self, A):
        lasso = super().solver(A)

        def solve(y: np.ndarray, noise_var: float) -> np.ndarray:
            x = lasso(y, noise_var).copy()
            support = np.flatnonzero(x)
            if 0 < len(support) <= len(y):
                x[support] = np.linalg.lstsq(A[:, support], y, rcond=None)[0]
            return x

        return solve


@dataclass(frozen=True)
class MCP(BySample):
    """Least squares with the minimax concave penalty, by skglm. Zhang (2010).

    The weight falls to `lam` in four steps, each started from the minimum before: from zero alone the descent stops in
    poor minima of small weights.
    """

    lam: float = 0.1
    gamma: float = 3.0  # how soon the penalty is flat: at `gamma lam`

    def solver(self, A):
        from skglm import MCPRegression

        scale = len(A) ** 0.5  # skglm's objective is per measurement: this keeps its curvature, and so gamma, near 1
        scaled = scale * A
        model: Any = MCPRegression(gamma=self.gamma, fit_intercept=False, warm_start=True)

        def solve(y: np.ndarray, noise_var: float) -> np.ndarray:
            model.coef_, model.intercept_ = np.zeros(A.shape[1]), 0.0
            for lam in np.geomspace(max(0.5 * np.abs(A.T @ y).max(), self.lam), self.lam, 4):
                model.alpha = lam / scale
                model.fit(scaled, y)
            return model.coef_ * scale

        return solve
