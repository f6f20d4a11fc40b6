"""One network as four programs: in floating point, and in whole numbers of three widths."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fanfold.algorithms import LISTACP
from fanfold.deploy.codegen import CFiles, to_c
from fanfold.deploy.integer import IntegerEstimator, IntegerProgram, to_integers
from fanfold.estimators.fixed_point.arithmetic import Widths
from fanfold.observation import Estimate, Observation
from fanfold.problems import CompressedSensing
from fanfold.report.figure.topics.controls import decibels, slider
from fanfold.training.fit import fit
from fanfold.unfolding.unfold import unfold

PROBLEM = CompressedSensing(n=40, m=30, sparsity=0.1, snr_db=40)
LAYERS = 8
WIDTHS: tuple[Widths, ...] = ("w8a8", "w8a12", "w16a16")
SNRS_DB = tuple(range(0, 51, 5))
LOUD_DB = (-24, -18, -12, -6, 0, 6, 12, 18)  # of signals and noise alike


def untrained() -> nn.Module:
    """The network before its training."""
    return unfold(LISTACP(lam=0.05), PROBLEM, LAYERS, {"W": "per-layer", "threshold": "per-layer"})


def train() -> dict[str, Tensor]:
    """What the network learned."""
    return dict(fit(untrained(), PROBLEM, steps=2500, batch=128, lr=3e-3, seed=0, threads=1).state_dict())


def network(weights: Mapping[str, Tensor]) -> nn.Module:
    """The network in floating point."""
    net = untrained()
    net.load_state_dict(dict(weights))
    return net.requires_grad_(False)


def integers(weights: Mapping[str, Tensor]) -> dict[Widths, IntegerProgram]:
    """The programs in whole numbers, with scales that were chosen on 1000 draws at home."""
    obs = PROBLEM.sample(1000, torch.Generator().manual_seed(2))[1]
    return {widths: to_integers(network(weights), obs, widths, name=widths) for widths in WIDTHS}


def c_of(weights: Mapping[str, Tensor], folder: Path) -> list[CFiles]:
    """The C of every program; those in whole numbers take and give single precision, as the others do."""
    A = PROBLEM.A
    x, obs = PROBLEM.sample(3, torch.Generator().manual_seed(0))
    return [
        to_c(lambda obs: Estimate(A @ obs.y), Observation(x), folder, name="measured"),
        to_c(network(weights), obs, folder, name="float"),
        *(
            to_c(IntegerEstimator(program), Observation(obs.y), folder, name=widths)
            for widths, program in integers(weights).items()
        ),
    ]


def arrays(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Nothing beside the programs."""
    return {}


def facts(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Words, sliders and curves."""
    return {
        "title": "One network in floating point and in whole numbers",
        "lead": "A trained network as four programs: in floating point, and in whole numbers with weights and "
        "activations of 8, 12 and 16 bits. What do they lose, how large are they, and how long do they take here? "
        "Every number is computed and measured in this page, by the C that fanfold exports.",
        "note": "LISTA-CP with a learned matrix in each of its 8 layers, 40 unknowns from 30 measurements, trained "
        "at 40 dB. Scales were chosen on 1000 draws there, without training on. Errors are over 200 draws, drawn up "
        "to the SNR that is chosen. Times are of one call of WebAssembly in this browser, the least of several "
        "rounds; it has no instructions for products of bytes, which is where integers win on other processors.",
        "controls": [
            slider("snr", "SNR", SNRS_DB, 40, decibels),
            slider("loud", "Loudness of y", LOUD_DB, 0, decibels),
        ],
        "titles": ["Error at each SNR", "What whole numbers lose"],
        "listed": "Error at this SNR",
        "below": "The distance to the same network in floating point.",
        "snrs": SNRS_DB,
        "sparsity": PROBLEM.sparsity,
        "power": PROBLEM.noise_var * 10 ** (PROBLEM.snr_db / 10),
        "series": {"float": "limit", "W8A8": "unfolded ISTA", "W8A12": "FISTA", "W16A16": "AMP"},
    }
