"""Stored pairs by their measured SNR: no setting changes it, so a sweep over SNRs sorts them."""

import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fanfold.core.units import power
from fanfold.observation import Observation

REACH_DB = 5.0  # beyond the least and the largest SNR that are asked for


class SNRGroup(NamedTuple):
    """The pairs whose measured SNR is nearest to one of the SNRs that were asked for.

    Example:
        >>> import torch
        >>> from fanfold.evaluation.by_snr import SNRGroup
        >>> SNRGroup(snr_db=20.0, measured_snr_db=19.2, rows=torch.tensor([0, 3])).snr_db
        20.0
    """

    snr_db: float
    measured_snr_db: float  # of the whole group, a ratio of sums
    rows: Tensor


def powers_of(x: Tensor, obs: Observation) -> tuple[Tensor, Tensor]:
    """The mean power of the signal and of the noise in each of some pairs, `(samples,)` both.

    They are those of `A x` and the noise variance, or of `y - A x` where that is unknown. Without A the power of the
    signal is that of y less the noise variance, none where that is larger.

    Raises:
        ValueError: If neither A nor the noise variance is known.
    """
    received = power(obs.y).double().flatten(1).mean(-1)
    noise = None if obs.noise_var is None else obs.noise_var.double().expand(*obs.y.shape[:-1], 1).flatten(1).mean(-1)
    if obs.A is not None:
        clean = obs.A @ x
        signal = power(clean).double().mean(-1)
        return signal, power(obs.y - clean).double().mean(-1) if noise is None else noise
    if noise is not None:
        return (received - noise).clamp_min(0), noise
    raise ValueError(
        "pairs without A and without noise_var do not tell their SNR; store one of them, or leave snr_db out."
    )


def snr_groups(x: Tensor, obs: Observation, snrs_db: Sequence[float]) -> Iterator[SNRGroup]:
    """Sort pairs by the nearest of some SNRs; groups of less than two, and pairs far outside, are left out and said.

    Raises:
        ValueError: If no group is left, or the SNR is not to be had.
    """
    signal, noise = powers_of(x, obs)
    ratio = torch.where(signal > 0, signal / noise, 0.0)  # also where there is neither
    measured = 10 * torch.log10(ratio)
    wanted = torch.tensor([float(snr) for snr in snrs_db], dtype=measured.dtype)
    far = (measured < wanted.min() - REACH_DB) | (measured > wanted.max() + REACH_DB)
    nearest = (measured.clamp(wanted.min(), wanted.max())[:, None] - wanted).abs().argmin(-1)
    spread = f"{len(x)} pairs have measured SNRs from {measured.min():.1f} to {measured.max():.1f} dB"
    groups = [(snr, ((nearest == k) & ~far).nonzero()[:, 0]) for k, snr in enumerate(wanted.tolist())]
    empty = [f"{snr:g} dB" for snr, rows in groups if len(rows) < 2]
    if len(empty) == len(groups):
        raise ValueError(f"{spread}: no two of them are within {REACH_DB:g} dB of one that is asked for.")
    if empty:
        warnings.warn(f"{spread}: fewer than two are nearest to {', '.join(empty)}, left out.", stacklevel=3)
    if far.any():
        outside = f"{int(far.sum())} of them are more than {REACH_DB:g} dB outside those that are asked for, left out."
        warnings.warn(f"{spread}: {outside}", stacklevel=3)
    for snr, rows in groups:
        if len(rows) >= 2:
            of_group = signal[rows].sum() / noise[rows].sum()
            yield SNRGroup(snr, 10 * torch.log10(of_group).item(), rows)
