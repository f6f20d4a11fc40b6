"""Decibels, normalised errors and signal-to-noise ratios: the one definition of each."""

import math
from typing import overload

import torch
from torch import Tensor

MOST_DB = 3000.0  # whose ratio, and its inverse, are normal doubles

__all__ = ["binade", "db", "from_db", "nmse", "nmse_db", "ordinary_binade", "power", "psnr_db", "rms"]


@overload
def db(ratio: float) -> float: ...
@overload
def db(ratio: Tensor) -> Tensor: ...
def db(ratio):
    """A power ratio in decibels, `10 log10(ratio)`; zero gives -inf, NaN stays NaN."""
    if isinstance(ratio, Tensor):
        return 10.0 * torch.log10(ratio)
    if ratio == 0:
        return -math.inf
    return 10.0 * math.log10(ratio) if ratio > 0 else math.nan


def from_db(value_db: float) -> float:
    """The power ratio that `value_db` decibels stand for, `10^(value_db / 10)`; infinite ones give infinity or zero.

    Raises:
        ValueError: If they are finite and no double has such a ratio.
    """
    if MOST_DB < abs(value_db) < math.inf:
        raise ValueError(f"{value_db:g} dB are beyond what numbers hold; pass -{MOST_DB:g} to {MOST_DB:g}.")
    return 10.0 ** (value_db / 10.0)


def power(x: Tensor) -> Tensor:
    """The power `|x|²` of each entry, real, for real or complex `x` of any shape."""
    return x.real.square() + x.imag.square() if x.is_complex() else x.square()


def binade(size: Tensor) -> Tensor:
    """The largest power of two that is no larger than each size, real and not negative; one where the size is zero.

    To divide by it and to multiply by it again changes no bit, so that measurements of any scale come to about
    one. It is a normal number of the dtype, of whatever size.
    """
    kind = torch.finfo(size.dtype)
    exponent = torch.floor(torch.log2(size.clamp(kind.tiny, kind.max)))
    return torch.where(size > 0, torch.exp2(exponent), torch.ones_like(size))


def ordinary_binade(size: Tensor) -> Tensor:
    """As `binade`, but one for sizes that are ordinary, between 2^-20 and 2^20, whose squares do no harm."""
    unit = binade(size)
    return torch.where((unit >= 2.0**-20) & (unit <= 2.0**20), torch.ones_like(unit), unit)


def rms(x: Tensor) -> Tensor:
    """The root mean square over the last axis, `sqrt(mean |x|²)`: `(..., n)` -> `(..., 1)`.

    It is never below the root of the smallest normal number, so that the gradient at zero is finite.
    """
    return power(x).mean(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny).sqrt()


def nmse(x_hat: Tensor, x: Tensor) -> Tensor:
    """The normalised mean squared error as a ratio of sums, `Σ|x_hat - x|² / Σ|x|²`, over every axis."""
    return power(x_hat - x).sum() / power(x).sum()


def nmse_db(x_hat: Tensor, x: Tensor) -> float:
    """The normalised mean squared error `nmse` in decibels, as a number."""
    return db(nmse(x_hat, x).item())


def psnr_db(x_hat: Tensor, x: Tensor, peak: float = 1.0) -> float:
    """The peak signal-to-noise ratio `10 log10(peak² / mean|x_hat - x|²)` in decibels."""
    return db(peak**2) - db(power(x_hat - x).mean().item())


def __dir__() -> list[str]:
    return __all__
