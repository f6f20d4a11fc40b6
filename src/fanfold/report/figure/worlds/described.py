"""The worlds of the figure: what is estimated, by whom, and how an estimate is looked at."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from fanfold.algorithms import FISTA, LISTACP, OAMP
from fanfold.core.streams import Stream
from fanfold.estimators import LMMSE
from fanfold.estimators.ofdm import OAMPSettings, UnfoldedOAMP
from fanfold.estimators.ofdm.beam_delay import BeamDelayNetwork
from fanfold.estimators.ofdm.peers import channel_peers
from fanfold.evaluation.peers import lam_grid, tuned
from fanfold.linops import DCT
from fanfold.observation import Estimator
from fanfold.priors import BernoulliGaussian
from fanfold.problems import OFDMChannel, Photographs, Problem, RFImaging
from fanfold.problems.draws import draw
from fanfold.problems.sparse.photographs import load_picture
from fanfold.report.figure.worlds.whole_curve import ByDepth
from fanfold.training.fit import fit
from fanfold.unfolding.unfold import iterate, unfold

Net = TypeVar("Net", bound=nn.Module)
Weights = Mapping[str, Tensor]  # by name, what was trained and tuned, as it is kept
PREFIX = "net."  # of the names of a network's weights among them
CROP = (slice(112, 240), slice(184, 312))  # of the picture `aero`, which no estimator has seen: trees between fields
PHOTOGRAPH, SCENES = Photographs(block=8, ratio=0.5), RFImaging("gaussian")
CHANNEL = OFDMChannel("umi", "comb-4", snr_db=(0.0, 20.0))
OAMP_LEARN = ("p", "var", "noise_scale", "v_linear", "v_denoised", "spread", "damping")


class FigureWorld(NamedTuple):
    """One world of the figure.

    Attributes:
        title: Of its page.
        lead: What is estimated, in a sentence or two.
        note: Who was trained on what, and is told what.
        problem: What estimators were trained on.
        layers: Of the curves.
        snr_db: Where the slider stands at first.
        snrs_db: Where the slider may stand.
        view: How an estimate becomes pictures; see `pictures.js`.
        signals: The unknowns that the page measures anew at each SNR, `(count, n)`.
        train: Tunes and trains; gives what is kept.
        estimators: Every estimator by name, of what was kept.
        pixels: The picture of unknowns `(batch, n)`, real.
        density: The share of unknowns that are not zero, where the page may draw more or fewer; None where it may not.
        sparsities: The shares that it may draw.

    Example:
        >>> from fanfold.report.figure.worlds.described import WORLDS
        >>> [*WORLDS]
        ['photograph', 'rf', 'channel']
    """

    title: str
    lead: str
    note: str
    problem: Problem
    layers: int
    snr_db: int
    snrs_db: tuple[int, ...]
    view: Mapping[str, object]
    signals: Callable[[], Tensor]
    train: Callable[..., dict[str, Tensor]]
    estimators: Callable[[Weights], dict[str, Estimator]]
    pixels: Callable[[Tensor], Tensor]
    density: float | None = None
    sparsities: tuple[float, ...] = (1.0,)


def _state(net: nn.Module) -> dict[str, Tensor]:
    """Weights in half precision, which is what the programs hold, widened."""
    return {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}


def _named(state: Weights) -> dict[str, Tensor]:
    return {f"{PREFIX}{k}": v for k, v in state.items()}


def _filled(net: Net, weights: Weights) -> Net:
    net.load_state_dict({k.removeprefix(PREFIX): v.float() for k, v in weights.items() if k.startswith(PREFIX)})
    return net.requires_grad_(False)


# A photograph, in blocks


def _photograph_net() -> nn.Module:
    learn = {"W": "per-layer", "threshold": "per-layer vector"}
    return unfold(LISTACP(lam=0.02), PHOTOGRAPH, 16, learn)


def _train_photograph(steps: int = 2500) -> dict[str, Tensor]:
    problem, net = PHOTOGRAPH, _photograph_net()
    fit(net, problem, steps=steps, batch=256, lr=2e-3, seed=0)
    best = tuned(FISTA, lam_grid(problem, points=10), problem, 16)
    return _named(_state(net)) | {"FISTA": torch.tensor(vars(best)["lam"])}


def _photograph_estimators(weights: Weights) -> dict[str, Estimator]:
    return {
        "FISTA": iterate(FISTA(weights["FISTA"].item()), 16),
        "LMMSE": LMMSE.of(PHOTOGRAPH, samples=30_000),
        "unfolded LISTA-CP": _filled(_photograph_net(), weights),
    }


# Points before an array


def _rf_net() -> nn.Module:
    guess = OAMP(BernoulliGaussian(0.3), noise="estimated")
    return unfold(guess, SCENES, 12, dict.fromkeys(OAMP_LEARN, "per-layer"))


def _train_rf(steps: int = 120) -> dict[str, Tensor]:
    problem, net = SCENES, _rf_net()
    fit(net, problem, steps=steps, batch=32, lr=1e-2, loss_layers=2, validation_samples=100, seed=0)
    best = tuned(FISTA, lam_grid(problem, points=10), problem, 12)
    return _named(_state(net)) | {"FISTA": torch.tensor(vars(best)["lam"])}


def _rf_estimators(weights: Weights) -> dict[str, Estimator]:
    return {
        "FISTA": iterate(FISTA(weights["FISTA"].item()), 12),
        "OAMP": iterate(OAMP(BernoulliGaussian(0.1)), 12),
        "unfolded OAMP": _filled(_rf_net(), weights),
    }


# A channel between a base station and a user


def _channel_net() -> BeamDelayNetwork:
    return UnfoldedOAMP.of(CHANNEL, OAMPSettings(iterations=5, beams=64, modes=6))


def _train_channel(steps: int = 800) -> dict[str, Tensor]:
    net = _channel_net()
    fit(net, CHANNEL, steps=steps, batch=64, lr=5e-3, seed=0)
    return _named({k: v.float() if v.is_floating_point() else v for k, v in net.state_dict().items()})


def _channel_estimators(weights: Weights) -> dict[str, Estimator]:
    return {**channel_peers(CHANNEL), "unfolded OAMP": ByDepth(_filled(_channel_net(), weights))}


def _drawn(problem: Problem, count: int) -> Callable[[], Tensor]:
    return lambda: draw(problem, count, 0, Stream.TESTING, 0)[0]


WORLDS: dict[str, FigureWorld] = {
    "photograph": FigureWorld(
        "A photograph from half as many measurements as pixels",
        "Each block of 8 × 8 pixels is measured by 32 random projections. An algorithm, "
        "a linear filter and an unfolded network estimate it from these; every number is computed in this page, by "
        "the C that fanfold exports.",
        "The network and LMMSE have seen two other photographs, at noise that is 1 % of white: about 35 dB here. λ of "
        "FISTA is the one that is best there. No limit is known. Curves are of the 256 blocks that are shown.",
        PHOTOGRAPH, 16, 34, tuple(range(10, 51, 2)),
        {"rows": 16, "columns": 16, "height": 8, "width": 8, "shades": "grey", "what": "photograph"},
        lambda: PHOTOGRAPH.blocks(load_picture("aero")[CROP]),
        _train_photograph, _photograph_estimators, lambda x: DCT((8, 8)).H @ x,
    ),
    "rf": FigureWorld(
        "An RF scene behind two apertures of random codes",
        "A scene of 32 × 32 voxels, one in ten of them a reflector of random strength and phase, is seen by 24 × 24 "
        "complex measurements through a Kronecker product. Every number is computed in this page, by the C that "
        "fanfold exports.",
        "The unfolded network was trained at 30 dB, from a prior that is wrong by a factor of three and noise that it "
        "reads off each sample; OAMP is told both. λ of FISTA is the one that is best there. The limit is that of "
        "state evolution, of operators without structure and as it is believed. Curves are means over the 12 scenes.",
        SCENES, 12, 30, tuple(range(10, 41, 2)),
        {"rows": 1, "columns": 1, "height": 32, "width": 32, "shades": "heat", "what": "scene"},
        _drawn(SCENES, 12), _train_rf, _rf_estimators, lambda x: x.abs(), 0.1, (0.02, 0.05, 0.1, 0.15, 0.2, 0.3),
    ),
    "channel": FigureWorld(
        "A radio channel from one pilot in four",
        "The channel between a user and the 32 antennas of a base station on 24 subcarriers, in a street of 3GPP's "
        "urban microcell. Pilots are on every fourth subcarrier. Every number is computed in this page, by the C that "
        "fanfold exports.",
        "The network and the covariances of both LMMSE filters were learned at other places of the same kind, from 0 "
        "to 20 dB. Least squares and the filters have no layers. Curves are means over the 24 channels; no limit is "
        "known.",
        CHANNEL, 5, 10, tuple(range(-4, 25, 2)),
        {"rows": 1, "columns": 1, "height": 32, "width": 24, "shades": "heat", "what": "channel"},
        _drawn(CHANNEL.held_out(), 24), _train_channel, _channel_estimators, lambda x: x.abs(),
    ),
}  # fmt: skip
