"""What the studies of channel estimation measure: errors against SNR and pilots, calibration, costs, one picture."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fanfold.deploy.cost import latency_us, multiply_accumulates, stored_numbers
from fanfold.deploy.export import FromPairs, has_pairs, to_onnx
from fanfold.evaluate import TEST_STREAM, Estimator, errors_db
from fanfold.guard.measures import mean_normalised_square, normalised_square
from fanfold.observation import Estimate, Observation
from fanfold.problems import OFDMChannel
from fanfold.training import draw

Build = Callable[[OFDMChannel], Mapping[str, Estimator]]
MEAN_RATIO = "mean of error² / variance"
PICTURE_DB = 10.0  # SNR of the channel that is shown


@dataclass
class Measured:
    """Of every estimator at every pilot pattern and SNR."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    costs: list[dict[str, Any]] = field(default_factory=list)
    pictures: dict[str, dict[str, Tensor]] = field(default_factory=dict)  # |h| of one test draw, by pilots

    def nmse(self, estimator: str, pilots: str, snr_db: float) -> float:
        """NMSE in dB, a ratio of sums."""
        return self.of(estimator, pilots, snr_db)["nmse_db"]

    def of(self, estimator: str, pilots: str, snr_db: float) -> dict[str, Any]:
        """The row of an estimator there."""
        key = estimator, pilots, snr_db
        return next(row for row in self.rows if (row["estimator"], row["pilots"], row["snr_db"]) == key)

    def names(self) -> list[str]:
        """Estimators, in the order in which they were measured."""
        return list(dict.fromkeys(row["estimator"] for row in self.rows))

    def best(self, names: Sequence[str], pilots: str, snr_db: float) -> str:
        """Which of these errs least there."""
        there = {row["estimator"] for row in self.rows if row["pilots"] == pilots}
        return min((name for name in names if name in there), key=lambda name: self.nmse(name, pilots, snr_db))


def measure(
    problem: OFDMChannel, pilots: Sequence[str], snrs_db: Sequence[float], build: Build, tests: int, seed: int
) -> Measured:
    """Build estimators for each pilot pattern and hold them against test draws."""
    measured = Measured()
    for pattern in pilots:
        here = problem.shifted(pilots=pattern)
        estimators = build(here)
        for snr_db in snrs_db:
            x, obs = draw(here.shifted(snr_db=snr_db).held_out(), tests, seed, TEST_STREAM, 0)
            for name, estimator in estimators.items():
                measured.rows.append({"estimator": name, "pilots": pattern, **score(estimator, x, obs, snr_db)})
        x, obs = draw(here.shifted(snr_db=PICTURE_DB).held_out(), 8, seed, TEST_STREAM, 0)
        measured.costs += [{"estimator": k, "pilots": pattern} | cost(e, obs[:1]) for k, e in estimators.items()]
        shown = {"channel": x[0]} | {name: answer(e, obs[:1]).x[0] for name, e in estimators.items()}
        measured.pictures[pattern] = {name: picture(h, here) for name, h in shown.items()}
    return measured


@torch.no_grad()
def answer(estimator: Estimator, obs: Observation, batch: int = 250) -> Estimate:
    """Estimates of many observations, some at a time."""
    parts = [estimator(obs[k : k + batch]) for k in range(0, len(obs.y), batch)]
    var = None if parts[0].var is None else torch.cat([e.var.expand(e.x.shape) for e in parts if e.var is not None])
    return Estimate(torch.cat([e.x for e in parts]), var)


def score(estimator: Estimator, x: Tensor, obs: Observation, snr_db: float) -> dict[str, Any]:
    """Errors in dB with their interval, and two ratios of error and variance that are 1 where the variance is right."""
    estimate = answer(estimator, obs)
    mean = spread = of_sums = None
    if estimate.var is not None:
        (mean, spread), (of_sums, _) = mean_normalised_square(estimate, x), normalised_square(estimate, x)
    ratios = {MEAN_RATIO: mean, "its standard error": spread, "Σ error² / Σ variance": of_sums}
    return {"snr_db": snr_db} | errors_db(estimate.x, x) | ratios


def cost(estimator: Estimator, obs: Observation) -> dict[str, Any]:
    """Of one call: trained numbers, numbers stored, multiply-accumulates, microseconds on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        latency = latency_us(lambda: estimator(obs), 30)
    finally:
        torch.set_num_threads(before)
    parameters = sum(p.numel() * (2 if p.is_complex() else 1) for p in _module(estimator).parameters())
    return {
        "parameters": parameters,
        "stored kB, float32": 4e-3 * stored_numbers(estimator),
        "thousand multiply-accumulates": 1e-3 * multiply_accumulates(estimator, obs),
        "µs a call, PyTorch": latency.median,
        "µs a call, ONNX Runtime": runtime_latency_us(estimator, obs),
    }


def runtime_latency_us(estimator: Estimator, obs: Observation) -> float | None:
    """Median microseconds of a call in ONNX Runtime on one thread; None of what has no form in pairs of reals."""
    if not has_pairs(estimator):
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        two = Observation(obs.y.expand(2, -1), obs.A, obs.noise_var)
        path = to_onnx(estimator, two, Path(folder) / "estimator.onnx")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {node.name: t.numpy() for node, t in zip(session.get_inputs(), FromPairs(estimator, obs).arguments(obs))}
    return latency_us(lambda: session.run(None, inputs)).median


def _module(estimator: Estimator) -> nn.Module:
    return estimator if isinstance(estimator, nn.Module) else nn.Module()


def picture(h: Tensor, problem: OFDMChannel) -> Tensor:
    """`|h|` of the first symbol, antennas down and subcarriers across, from 0 to 1 at three times its mean power."""
    size = h.reshape(problem.layout.shape)[:, 0].abs() / (3 * problem.power) ** 0.5
    scale = max(1, 256 // max(size.shape))
    return size.clamp(0, 1).repeat_interleave(scale, 0).repeat_interleave(scale, 1)
