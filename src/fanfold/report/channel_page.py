"""The page of a run that estimates OFDM channels: errors against SNR, one channel in pictures, variances, costs."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fanfold.core.streams import Stream
from fanfold.core.table import Table
from fanfold.deploy.cost import call_costs
from fanfold.evaluation.evaluate import evaluate
from fanfold.evaluation.peers import NETWORK, peers_of
from fanfold.evaluation.scores import mean_normalised_square
from fanfold.observation import Estimate, Estimator, Observation
from fanfold.problems import OFDMChannel
from fanfold.problems.draws import draw
from fanfold.report.compared import compared_draw
from fanfold.report.neural_page import learning_sections, sections_of
from fanfold.report.page import Section
from fanfold.report.plots import Series, line_chart
from fanfold.report.run_facts import NMSE_IN_WORDS

PICTURE_DB = 10.0  # SNR of the channel that is shown
SHOWN_AS = "antennas down, subcarriers of the first symbol across; white is three times the mean power"
AROUND = (-10.0, -5.0, 0.0, 5.0, 10.0)  # dB, of SNRs about the one that was trained for


@sections_of.register
def channel_sections(
    problem: OFDMChannel, net: nn.Module, metrics: Sequence[dict[str, Any]], samples: int
) -> tuple[str, list[Section]]:
    """The verdict and the sections of the page."""
    peers = peers_of(net, problem, at_once=True)
    snrs = snrs_of(problem)
    table = evaluate(peers, problem, samples=samples, snr_db=snrs)
    curves = {name: [row["nmse_db"] for row in table.where(estimator=name)] for name in peers}
    series = [Series(k, snrs, curve, "learned" if k == NETWORK else "classical") for k, curve in curves.items()]
    about = (
        f"Up to {samples} draws of places that were not trained on. The SNR is the channel's power over the noise's. "
        f"{NMSE_IN_WORDS}"
    )
    return _verdict(curves, snrs), [
        Section("Error against SNR", about, [line_chart(series, "SNR in dB", "NMSE in dB")], details=table),
        _one_channel(peers, problem),
        _variances(net, problem, snrs, samples),
        *learning_sections(
            metrics, "Loss in units of the error that LMMSE expects, and the likelihood of its variance."
        ),
        _costs(peers, problem),
    ]


def snrs_of(problem: OFDMChannel) -> list[float]:
    """Five SNRs in dB over the range that was trained for, or about the one."""
    if isinstance(problem.snr_db, tuple):
        low, high = problem.snr_db
        return torch.linspace(low, high, 5).tolist()
    return [problem.snr_db + step for step in AROUND]


@torch.no_grad()
def answer(estimator: Estimator, obs: Observation, batch: int = 250) -> Estimate:
    """Estimates of many observations, some at a time."""
    parts = [estimator(obs[k : k + batch]) for k in range(0, len(obs.y), batch)]
    var = None if parts[0].var is None else torch.cat([e.var.expand(e.x.shape) for e in parts if e.var is not None])
    return Estimate(torch.cat([e.x for e in parts]), var)


def first_symbol(h: Tensor, problem: OFDMChannel) -> Tensor:
    """One channel in its first symbol, `(antennas, subcarriers)`, over the amplitude at three times its mean power."""
    return h.reshape(problem.layout.shape)[:, 0] / (3 * problem.power) ** 0.5


def _one_channel(peers: Mapping[str, Estimator], problem: OFDMChannel) -> Section:
    x, obs = draw(problem.shifted(snr_db=PICTURE_DB).held_out(), 1, 0, Stream.TESTING, 0)
    estimates = {name: answer(estimator, obs).x for name, estimator in peers.items()}
    about, rows = compared_draw(x, estimates, lambda h: first_symbol(h, problem).abs())
    text = f"|h| of one draw at {PICTURE_DB:g} dB SNR: {SHOWN_AS}. {about}"
    return Section("One channel", text, rows)


def _variances(net: nn.Module, problem: OFDMChannel, snrs: Sequence[float], samples: int) -> Section:
    rows = []
    for snr_db in snrs:
        x, obs = draw(problem.shifted(snr_db=snr_db).held_out(), samples, 0, Stream.TESTING, 0)
        mean, error = mean_normalised_square(answer(net, obs), x)
        rows.append({"SNR in dB": snr_db, "mean of error² / variance": mean, "its standard error": error})
    return Section("Predicted variances", "Do they hold? Then the mean is 1.", table=Table(rows))


def _costs(peers: Mapping[str, Estimator], problem: OFDMChannel) -> Section:
    _, obs = draw(problem.held_out(), 1, 0, Stream.TESTING, 0)
    text = "One observation on one thread. Multiply-accumulates are those of matrix products; a complex one is four."
    rows = [{"estimator": name} | call_costs(estimator, obs) for name, estimator in peers.items()]
    return Section("What a call costs", text, table=Table(rows))


def _verdict(curves: Mapping[str, Sequence[float]], snrs: Sequence[float]) -> str:
    middle = len(snrs) // 2
    network_db = curves[NETWORK][middle]
    best = min((name for name in curves if name != NETWORK), key=lambda name: curves[name][middle])
    gap = curves[best][middle] - network_db
    ahead = f"{abs(gap):.1f} dB {'ahead of' if gap > 0 else 'behind'} {best}"
    return (
        f"At {snrs[middle]:g} dB SNR the network has {network_db:.1f} dB, {ahead}; do not trust it on channels of "
        "another kind of place, or far from the SNRs that it was trained for."
    )
