"""Sparse recovery by well-kept libraries, sample by sample: what a network is held against. Extra `bench`.

Real signals, and complex ones by the greedy pursuit, which these libraries lack. It stops when the residual is as small
as the noise; the weights of the others are to be tuned, as `fanfold.evaluation.peers` does.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from fanfold.core.precision import double
from fanfold.core.settings import Checked
from fanfold.linops import refuse_zero
from fanfold.measurements import in_working_precision, takes_measurements
from fanfold.observation import Estimate, Observation


class BySample(Checked, ABC):
    """An estimator from another library that takes one sample at a time.

    Attributes:
        at_most: Draws that an evaluation gives it, as it takes milliseconds for each.
        takes_complex: Whether it knows complex signals.
    """

    at_most: ClassVar[int] = 200
    takes_complex: ClassVar[bool] = False

    @takes_measurements
    @in_working_precision
    def __call__(self, obs: Observation) -> Estimate:
        """The estimate, `(..., n)`.

        Raises:
            ValueError: If there is no operator or it is zero, samples have matrices of their own, or the signal is
                complex.
        """
        if obs.A is None or (obs.y.is_complex() and not self.takes_complex):
            raise ValueError(f"{type(self).__name__} takes real measurements and their operator A.")
        if obs.A.varies:
            raise ValueError(
                f"{type(self).__name__} takes one matrix for all samples; call it once for each of {obs.A}."
            )
        refuse_zero(obs.A)
        wide = double(obs.y.dtype)
        A = np.asfortranarray(obs.A.matrix().to(wide).resolve_conj().cpu().numpy())
        ys = obs.y.to(wide).reshape(-1, obs.A.m).cpu().numpy()
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
    """Orthogonal matching pursuit until `‖y - A x‖² <= m noise_var`. Pati, Rezaiifar & Krishnaprasad (1993).

    Example:
        >>> import torch, fanfold as ff
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> ff.estimators.OMP()(problem.sample(3, torch.Generator())[1]).x.shape
        torch.Size([3, 20])
    """

    takes_complex: ClassVar[bool] = True

    def solver(self, A):
        norms = np.linalg.norm(A, axis=0)
        norms[norms == 0] = 1.0  # of unknowns that nothing sees, which match nothing
        if np.iscomplexobj(A):
            return lambda y, noise_var: _pursue(A, norms, y, max(len(y) * noise_var, 1e-12 * np.vdot(y, y).real))
        from sklearn.linear_model import orthogonal_mp

        def solve(y: np.ndarray, noise_var: float) -> np.ndarray:
            units = 2.0 ** round(np.log2(np.abs(y).max() or 1.0))  # scikit-learn stops at an absolute size
            y = y / units
            tolerance = max(len(y) * noise_var / units**2, 1e-12 * y @ y)
            return orthogonal_mp(A / norms, y, tol=tolerance) / norms * units

        return solve


def _pursue(A: np.ndarray, norms: np.ndarray, y: np.ndarray, tolerance: float) -> np.ndarray:
    """Matching pursuit of a complex signal; the chosen columns are made orthonormal as they come."""
    residual, support = y.copy(), list[int]()
    Q = np.empty((len(y), len(y)), y.dtype, order="F")
    while np.vdot(residual, residual).real > tolerance and len(support) < len(y):
        match = np.abs(A.conj().T @ residual) / norms
        match[support] = -1.0
        support.append(int(match.argmax()))
        known, q = Q[:, : len(support) - 1], A[:, support[-1]]
        for _ in range(2):  # once leaves rounding of the condition number's size
            q = q - known @ (known.conj().T @ q)
        length = np.linalg.norm(q)
        if length <= 1e-12 * norms[support[-1]]:  # the columns that are left add nothing
            support.pop()
            break
        Q[:, len(support) - 1] = q / length
        residual = residual - Q[:, len(support) - 1] * np.vdot(Q[:, len(support) - 1], residual)
    x = np.zeros(A.shape[1], y.dtype)
    if support:
        x[support] = np.linalg.lstsq(A[:, support], y, rcond=None)[0]
    return x


@dataclass(frozen=True)
class Lasso(BySample):
    """`min ½‖y - A x‖² + lam ‖x‖₁` by coordinate descent. Tibshirani (1996).

    Example:
        >>> import torch, fanfold as ff
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> ff.estimators.Lasso(0.05)(problem.sample(3, torch.Generator())[1]).x.shape
        torch.Size([3, 20])
    """

    lam: float = 0.1

    def solver(self, A):
        from sklearn.linear_model import Lasso as SklearnLasso

        model = SklearnLasso(alpha=self.lam / len(A), fit_intercept=False, max_iter=5000)
        return lambda y, noise_var: model.fit(A, y).coef_


@dataclass(frozen=True)
class DebiasedLasso(Lasso):
    """Least squares on the support that the lasso finds. Belloni & Chernozhukov (2013).

    Example:
        >>> import torch, fanfold as ff
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> ff.estimators.DebiasedLasso(0.05)(problem.sample(3, torch.Generator())[1]).x.shape
        torch.Size([3, 20])
    """

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

    Example:
        >>> import fanfold as ff
        >>> ff.estimators.MCP(lam=0.05).gamma
        3.0
    """

    lam: float = 0.1
    gamma: float = 3.0  # how soon the penalty is flat: at `gamma lam`

    def solver(self, A):
        from skglm import MCPRegression

        size = _units(np.linalg.norm(A, axis=0).max())
        scale = len(A) ** 0.5  # skglm's objective is per measurement: this keeps its curvature, and so gamma, near 1
        scaled = scale * (A / size)
        model: Any = MCPRegression(gamma=self.gamma * size**2, fit_intercept=False, warm_start=True)

        def solve(y: np.ndarray, noise_var: float) -> np.ndarray:
            y = y / size
            units = _units(np.abs(y).max())
            y, least = y / units, self.lam / size**2 / units
            model.coef_, model.intercept_ = np.zeros(A.shape[1]), 0.0
            for lam in np.geomspace(max(0.5 * np.abs(A.T @ y).max() / size, least), least, 4):
                model.alpha = lam / scale
                model.fit(scaled, y)
            return model.coef_ * scale * units

        return solve


def _units(size: float) -> float:
    """A power of two near a size that is so large or small that absolute tolerances mean something else; else 1."""
    return 1.0 if size == 0 or 2.0**-6 < size < 2.0**6 else 2.0 ** round(np.log2(size))
