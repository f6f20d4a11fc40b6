"""Sphere decoding: the most likely symbols. Schnorr & Euchner (1994); Agrell, Eriksson, Vardy & Zeger (2002)."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fanfold.linops import refuse_unseen, refuse_zero
from fanfold.measurements import in_working_precision, takes_measurements
from fanfold.observation import Estimate, Observation
from fanfold.priors import Constellation


class SphereSearch(NamedTuple):
    """What a search found in each sample."""

    x: Tensor  # (batch, n) the best point
    finished: Tensor  # (batch,) whether it is known to be the best of all
    nodes: Tensor  # (batch,) how many partial points were looked at


class SphereDecoder:
    """`argmin ‖y - A x‖²` over the points x of a constellation, which is the most likely x in white noise.

    Depth first through the triangle of a sorted QR decomposition (Wübben et al., 2001), the nearest level first, never
    into a branch that is already further away than the best leaf. All samples of a batch search at once, each at its
    own place. Where all points have one power, `c ‖x‖²` is added to the distance: it decides nothing and prunes much
    (Cui & Tellambura, 2005). The work grows exponentially with the unknowns at any fixed SNR, and with falling SNR.

    Args:
        prior: The constellation.
        node_limit: Partial points after which a search is given up.

    Example:
        >>> import torch, fanfold as ff
        >>> problem = ff.problems.MIMODetection()
        >>> x, obs = problem.sample(3, torch.Generator())
        >>> ff.estimators.SphereDecoder(problem.prior)(obs).x.shape == x.shape
        True
    """

    def __init__(self, prior: Constellation, node_limit: int = 100_000):
        self.prior, self.node_limit = prior, node_limit

    @takes_measurements
    @in_working_precision
    def __call__(self, obs: Observation) -> Estimate:
        """The most likely points, `(..., n)`.

        Raises:
            ValueError: If a search is given up; `search` returns what such searches have found so far.
        """
        searched = self.search(obs)
        missing = int((~searched.finished).sum())
        if missing:
            raise ValueError(
                f"gave up {missing} of {searched.finished.numel()} searches after {self.node_limit} nodes each: raise "
                "node_limit, or take search(obs), which says where the result is not known to be the best."
            )
        return Estimate(searched.x)

    def search(self, obs: Observation, guess: Tensor | None = None) -> SphereSearch:
        """The best points found, whether each is known to be the best, and the nodes that it took.

        Args:
            obs: What was observed.
            guess: Points `(..., n)` that are to be beaten: those of a good detector save most of the search.

        Raises:
            ValueError: If the operator is unknown or zero, has fewer measurements than unknowns, or does not see one.
        """
        if obs.A is None or obs.A.m < obs.A.n:
            raise ValueError(
                f"sphere decoding needs an operator with at least as many measurements as unknowns, not {obs.A}."
            )
        refuse_zero(obs.A)
        refuse_unseen(obs.A, "sphere decoding")
        y = obs.y.reshape(-1, obs.A.m)
        H = obs.A.matrix().expand(len(y), obs.A.m, obs.A.n)
        levels = self.prior.levels(y).double().numpy()
        G, q = real_form(H.cpu(), y.cpu())
        if len(levels) == 2 and obs.noise_var is not None:
            c = (obs.noise_var.double() + torch.zeros(len(y), 1).double()).sqrt().cpu().numpy()
            G = np.concatenate([G, c[:, :, None] * np.eye(G.shape[-1])], 1)
            q = np.concatenate([q, np.zeros((len(q), G.shape[-1]))], 1)
        R, z, order = triangle(G, q)
        start = None
        if guess is not None:
            known = guess.reshape(len(y), obs.A.n).cpu()
            known = torch.cat([known.real, known.imag], -1) if known.is_complex() else known
            start = np.take_along_axis(known.double().numpy(), order, -1)
        points, finished, nodes = depth_first(R, z, levels, self.node_limit, start)
        x = np.empty_like(points)
        np.put_along_axis(x, order, points, -1)
        if y.is_complex():
            x = x[:, : obs.A.n] + 1j * x[:, obs.A.n :]
        shape = obs.y.shape[:-1]
        nearest = self.prior.nearest(torch.as_tensor(x, dtype=y.dtype)).reshape(*shape, obs.A.n)
        return SphereSearch(nearest, torch.as_tensor(finished).reshape(shape), torch.as_tensor(nodes).reshape(shape))


def real_form(H: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The real matrix and data with `‖y - H x‖²` the same for real and imaginary part of x one below the other."""
    if not H.is_complex():
        return H.double().numpy(), y.double().numpy()
    top, bottom = torch.cat([H.real, -H.imag], -1), torch.cat([H.imag, H.real], -1)
    return torch.cat([top, bottom], -2).double().numpy(), torch.cat([y.real, y.imag], -1).double().numpy()


def triangle(H: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`R`, `Qᵀy` and the order of columns of a QR decomposition that leaves the strongest columns for the end.

    The first column that the search decides is the last; Gram-Schmidt takes the weakest remaining one at each step.
    """
    batch, _, n = H.shape
    Q, R, order = H.copy(), np.zeros((batch, n, n)), np.tile(np.arange(n), (batch, 1))
    rows = np.arange(batch)
    for i in range(n):
        weakest = i + np.square(Q[:, :, i:]).sum(1).argmin(-1)
        for a in (Q, R):
            a[rows, :, i], a[rows, :, weakest] = a[rows, :, weakest], a[rows, :, i].copy()
        order[rows, i], order[rows, weakest] = order[rows, weakest], order[rows, i].copy()
        R[:, i, i] = np.linalg.norm(Q[:, :, i], axis=-1)
        Q[:, :, i] /= np.maximum(R[:, i, i, None], np.finfo(float).tiny)
        R[:, i, i + 1 :] = np.einsum("bm,bmk->bk", Q[:, :, i], Q[:, :, i + 1 :])
        Q[:, :, i + 1 :] -= Q[:, :, i, None] * R[:, i, None, i + 1 :]
    return R, np.einsum("bmn,bm->bn", Q, y), order


def depth_first(
    R: np.ndarray, z: np.ndarray, levels: np.ndarray, node_limit: int, start: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`argmin ‖z - R x‖²` for each sample, in lockstep: every pass looks at one more node of each open search."""
    batch, n = z.shape
    best_x, best, nodes = np.full((batch, n), levels[0]), np.full(batch, np.inf), np.zeros(batch, dtype=np.int64)
    finished = np.zeros(batch, dtype=bool)
    if start is not None:  # the slack lets a search find its guess again, in spite of rounding
        best_x, best = start.copy(), np.square(z - np.einsum("bij,bj->bi", R, start)).sum(-1) * (1 + 1e-9)
    open_, k, fresh = np.arange(batch), np.full(batch, n - 1), np.ones(batch, dtype=bool)
    x, far = np.zeros((batch, n)), np.zeros((batch, n + 1))  # far[k]: what levels k … n - 1 contribute
    centre, order = np.zeros((batch, n)), np.zeros((batch, n, len(levels)), dtype=np.int64)
    turn = np.zeros((batch, n), dtype=np.int64)
    while len(open_):
        s = open_[fresh[open_]]  # arrived at a level from above: sort its points by distance
        at = k[s]
        centre[s, at] = (z[s, at] - np.where(np.arange(n) > at[:, None], R[s, at] * x[s], 0).sum(-1)) / R[s, at, at]
        order[s, at] = np.abs(levels - centre[s, at][:, None]).argsort(-1)
        turn[s, at] = 0
        at = k[open_]
        point = levels[order[open_, at, np.minimum(turn[open_, at], len(levels) - 1)]]
        distance = far[open_, at + 1] + np.square(R[open_, at, at] * (point - centre[open_, at]))
        inside = (turn[open_, at] < len(levels)) & (distance < best[open_])
        nodes[open_] += 1
        turn[open_, at] += 1
        x[open_, at] = np.where(inside, point, x[open_, at])
        far[open_, at] = distance
        leaf = inside & (at == 0)
        s = open_[leaf]
        best[s], best_x[s] = distance[leaf], x[s]
        fresh[open_] = down = inside & (at > 0)
        up = ~inside | leaf  # the next point of this level is further still
        k[open_] = at - down + up
        ended = k[open_] == n
        finished[open_[ended]] = True
        open_ = open_[~ended & (nodes[open_] < node_limit)]
    return best_x, finished, nodes
