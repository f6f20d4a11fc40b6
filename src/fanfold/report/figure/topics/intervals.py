"""Intervals that an estimate carries, beside calibrated ones, counted on draws: OAMP that knows the prior."""

from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from fanfold.algorithms import OAMP
from fanfold.deploy.codegen import CFiles, to_c
from fanfold.guard import conformal
from fanfold.observation import Estimate, Estimator, Observation
from fanfold.problems import CompressedSensing
from fanfold.report.figure.topics.controls import decibels, per_cent, slider
from fanfold.unfolding.unfold import iterate

PROBLEM = CompressedSensing(n=60, m=40, sparsity=0.3, snr_db=15)
ITERATIONS = 10
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
SNRS_DB = tuple(range(0, 31, 5))
NOISES = (0.1, 0.2, 0.5, 1, 2, 5, 10)  # times what the estimator is told
DRAWS = 10_000  # that calibrate


def estimator() -> Estimator:
    """OAMP, whose estimate carries its variance."""
    return iterate(OAMP(PROBLEM.prior), ITERATIONS)


def train() -> dict[str, Tensor]:
    """How many deviations reach so far as to hold the truth at each level, as calibrated at home."""
    return {"reach": torch.stack([_reach(level) for level in LEVELS]).flatten()}


def _reach(level: float) -> Tensor:
    return conformal(estimator(), PROBLEM, level, "average", scale="variance", samples=DRAWS).thresholds[0]


def c_of(weights: Mapping[str, Tensor], folder: Path) -> list[CFiles]:
    """The C of every program."""
    A = PROBLEM.A
    x, obs = PROBLEM.sample(3, torch.Generator().manual_seed(0))
    told = Observation(obs.y, obs.A, torch.full((3, 1), PROBLEM.noise_var))
    return [
        to_c(lambda obs: Estimate(A @ obs.y), Observation(x), folder, name="measured"),
        to_c(estimator(), told, folder, name="estimator"),
    ]


def arrays(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """How many deviations claimed and calibrated intervals of each level reach."""
    claimed = [NormalDist().inv_cdf((1 + level) / 2) for level in LEVELS]
    return {"claimed": torch.tensor(claimed), "calibrated": weights["reach"].float()}


def facts(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Words, sliders and curves."""
    return {
        "title": "Intervals, claimed and calibrated, counted as you watch",
        "lead": "OAMP says a variance with each of its estimates. An interval made of it as if errors were normal is "
        "held against a calibrated one: how many true entries lie in each? Every number is computed in this page, by "
        "the C that fanfold exports.",
        "note": "60 unknowns, three in ten not zero, from 40 measurements; ten iterations. Both intervals are x_hat "
        "± k √var. Claimed ones take k of a normal law, calibrated ones k that held the level on 10 000 draws at 15 "
        "dB with the noise as told. Counted on 400 draws of 60 entries, which leaves about 1 % of chance.",
        "controls": [
            slider("level", "Nominal level", LEVELS, 0.9, per_cent),
            slider("snr", "SNR as told", SNRS_DB, 15, decibels),
            slider("noise", "True noise power", NOISES, 1, lambda v: f"{v:g} × what is told"),
        ],
        "levels": LEVELS,
        "titles": ["Share of true entries that intervals hold", "Intervals and truth"],
        "listed": "Held so far",
        "below": "Circles are the true entries, bars the intervals: on the left as claimed, on the right as "
        "calibrated.",
        "prior": {"sparsity": PROBLEM.sparsity},
        "power": PROBLEM.noise_var * 10 ** (PROBLEM.snr_db / 10),
        "sizes": {"n": PROBLEM.n, "m": PROBLEM.m},
        "series": {"claimed": "FISTA", "calibrated": "unfolded ISTA"},
    }
