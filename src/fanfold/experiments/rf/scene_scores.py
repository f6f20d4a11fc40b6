"""How well a scene is found: detection of its targets, and the likeness of pictures in decibels."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fanfold.core.units import power


def auc(hits: Tensor, misses: Tensor) -> float:
    """Area under the ROC: how often a score of a target is above one of the ground. Mann & Whitney (1947)."""
    below = torch.searchsorted(misses.sort().values, hits, right=False).double()
    equal = torch.searchsorted(misses.sort().values, hits, right=True).double() - below
    return ((below + equal / 2).mean() / len(misses)).item()


def detected(score: Tensor, target: Tensor, false_alarms: float = 0.01) -> float:
    """Share of the targets above the threshold that so many of the ground's scores pass."""
    return roc(score, target, (false_alarms,))[0]


def roc(score: Tensor, target: Tensor, false_alarms: Sequence[float]) -> list[float]:
    """`detected` at each share of false alarms: the receiver operating characteristic."""
    ground, hits = score[~target].sort().values, score[target]
    thresholds = (ground[int((1 - share) * (len(ground) - 1))] for share in false_alarms)
    return [(hits > threshold).double().mean().item() for threshold in thresholds]


def bright(x: Tensor, below_peak_db: float = 10.0) -> Tensor:
    """Voxels that are targets: not empty, and no further below the brightest of their scene."""
    return power(x) > power(x).amax(-1, keepdim=True) * 10 ** (-below_peak_db / 10)


def decibel(x: Tensor, shape: tuple[int, ...], reference: Tensor, floor_db: float = -40.0) -> Tensor:
    """`|x|²` against the brightest voxel of each reference scene, from `floor_db` (0) to 0 dB (1): `(..., h, w)`."""
    level = 10 * torch.log10(power(x) / power(reference).amax(-1, keepdim=True) + 1e-12) / -floor_db + 1
    return level.clamp(0, 1).reshape(*x.shape[:-1], *shape)


def ssim(a: Tensor, b: Tensor) -> float:
    """Structural similarity of pictures in [0, 1], `(n, h, w)`. Wang, Bovik, Sheikh & Simoncelli (2004), eq. 13."""

    def mean(z: Tensor) -> Tensor:
        return functional.avg_pool2d(z[:, None], 7, stride=1)[:, 0]

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean().item()
