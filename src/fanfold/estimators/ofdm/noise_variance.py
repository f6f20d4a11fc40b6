"""The noise variance of pilots by maximum likelihood. Fisher scoring: Dempster, Laird & Rubin (1977), section 4."""

import math

import torch
from torch import Tensor, nn

from fanfold.estimators.ofdm.covariance import by_antenna

SCORING_ROUNDS = 8
LARGEST_POWER = 3.0  # over its mean, that counts: a channel stronger than its covariance says somewhere is no noise
WHITENESS = 0.05  # 1 - r² of signal and noise as regressors: 0 for white pilots, 0.4 and more where delays can be told
NOISE_OF_WHITE_PILOTS = 0.03  # variance over the mean power of white pilots, of which nothing is known


class NoiseVariance(nn.Module):
    """The variance v and the signal's power s of `y ~ CN(0, s C_space ⊗ C_pilots + v I)`, of each observation.

    In the eigenbasis of the Kronecker product the powers of y are exponential with means `s d + v`, and each round of
    Fisher scoring is a weighted least-squares fit of two numbers; powers far above their means are cut, as in
    M-estimates (Huber, 1981). Scale-equivariant: `v(c y) = |c|² v(y)`.

    Where the pilots are white, signal and noise cannot be told apart. There v is taken to be 3 % of the mean power, by
    which filters keep to the pilots: little can be gained over these but at low SNR. Fanfold's own rule.

    Args:
        space: Covariance between antennas `(antennas, antennas)`, mean diagonal one.
        pilots: Covariance between the pilots of one antenna `(pilots, pilots)`.

    Raises:
        ValueError: If the covariances are not square.

    Example:
        >>> import fanfold as ff, torch
        >>> pilots = torch.tensor([[1.0, 0.99], [0.99, 1.0]])
        >>> measure = ff.estimators.ofdm.NoiseVariance(torch.eye(64), pilots)
        >>> float(measure(torch.ones(64 * 2, dtype=torch.complex64))) < 0.01  # alike at both pilots: little noise
        True
    """

    def __init__(self, space: Tensor, pilots: Tensor):
        super().__init__()
        for name, C in (("space", space), ("pilots", pilots)):
            if C.ndim != 2 or C.shape[0] != C.shape[1]:
                raise ValueError(f"the covariance over {name} is {tuple(C.shape)}; pass a square matrix.")
        (of_space, U), (of_pilots, V) = (torch.linalg.eigh(C.to(torch.complex128)) for C in (space, pilots))
        d = (of_space.clamp_min(0)[:, None] * of_pilots.clamp_min(0)).float()
        self.register_buffer("U", torch.view_as_real(U.mH.resolve_conj().to(torch.complex64)).clone())
        self.register_buffer("V", torch.view_as_real(V.conj().resolve_conj().to(torch.complex64)).clone())
        self.register_buffer("d", d.flatten())

    def forward(self, y: Tensor) -> Tensor:
        """The noise variance `(..., 1)` from pilots `(..., antennas · pilots)`, complex.

        Raises:
            ValueError: If they are of another layout.
        """
        flat = by_antenna(y, self.U.shape[0], self.V.shape[0]).flatten(1)
        return self.from_pairs(torch.view_as_real(flat.resolve_conj())).reshape(*y.shape[:-1], 1)

    def from_pairs(self, y: Tensor) -> Tensor:
        """The noise variance from real pairs `(batch, antennas · pilots, 2)`, for runtimes without complex numbers."""
        grid = y.unflatten(1, (self.U.shape[0], self.V.shape[0])).to(self.d.dtype)
        re, im = _times(self.U, grid[..., 0], grid[..., 1], left=True)
        re, im = _times(self.V, re, im, left=False)
        p = (re.square() + im.square()).flatten(1)
        mean = p.mean(-1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
        return (self._scored(p / mean) * mean).to(y.dtype)

    def _scored(self, power: Tensor) -> Tensor:
        """The variance `(batch, 1)` of powers `(batch, antennas · pilots)` whose mean is one."""
        d = self.d / self.d.mean()
        s = v = apart = torch.full_like(power[:, :1], 0.5)
        for _ in range(SCORING_ROUNDS):
            expected = s * d + v
            w = expected.square().reciprocal()
            p = torch.minimum(power, LARGEST_POWER * expected) / (
                1 - math.exp(-LARGEST_POWER)
            )  # unbiased for exponential powers
            a, b, c = (w * d * d).sum(-1, keepdim=True), (w * d).sum(-1, keepdim=True), w.sum(-1, keepdim=True)
            e, f = (w * d * p).sum(-1, keepdim=True), (w * p).sum(-1, keepdim=True)
            determinant = (a * c - b * b).clamp_min(1e-12 * a * c)
            s = ((c * e - b * f) / determinant).clamp(1e-4, 10.0)
            v = ((a * f - b * e) / determinant).clamp(1e-5, 10.0)
            apart = determinant / (a * c)
        sure = apart**4 / (apart**4 + WHITENESS**4)
        return sure * v + (1 - sure) * NOISE_OF_WHITE_PILOTS


def _times(M: Tensor, re: Tensor, im: Tensor, *, left: bool) -> tuple[Tensor, Tensor]:
    """A complex matrix times a complex batch of matrices, all as pairs of real ones."""
    a, b = M[..., 0], M[..., 1]
    if left:
        return a @ re - b @ im, b @ re + a @ im
    return re @ a - im @ b, re @ b + im @ a
