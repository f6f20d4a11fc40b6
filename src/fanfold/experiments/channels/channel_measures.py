"""What the studies of channel estimation measure: errors against SNR and pilots, calibration, costs, one picture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fanfold.core.streams import Stream
from fanfold.deploy.cost import call_costs, runtime_call
from fanfold.evaluation.evaluate import errors_db
from fanfold.evaluation.scores import mean_normalised_square, normalised_square
from fanfold.experiments.by_hand import dense_product, in_turn
from fanfold.observation import Estimator, Observation
from fanfold.problems import OFDMChannel
from fanfold.problems.draws import draw
from fanfold.report.channel_page import PICTURE_DB, answer, first_symbol

Build = Callable[[OFDMChannel], Mapping[str, Estimator]]
BY_HAND = "a call in ONNX Runtime, over 182³ multiply-accumulates by hand"
MEAN_RATIO = "mean of error² / variance"


@dataclass
class Measured:
    """What was measured of every estimator at every pilot pattern and SNR."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    costs: list[dict[str, Any]] = field(default_factory=list)
    pictures: dict[str, dict[str, Tensor]] = field(default_factory=dict)  # one test draw and its estimates, by pilots

    def nmse(self, estimator: str, pilots: str, snr_db: float) -> float:
        """NMSE in dB, a ratio of sums."""
        return self.of(estimator, pilots, snr_db)["nmse_db"]

    def of(self, estimator: str, pilots: str, snr_db: float) -> dict[str, Any]:
        """The row of an estimator at these pilots and this SNR."""
        key = estimator, pilots, snr_db
        return next(row for row in self.rows if (row["estimator"], row["pilots"], row["snr_db"]) == key)

    def names(self) -> list[str]:
        """Estimators, in the order in which they were measured."""
        return list(dict.fromkeys(row["estimator"] for row in self.rows))

    def best(self, names: Sequence[str], pilots: str, snr_db: float) -> str:
        """The estimator of these that errs least at these pilots and this SNR."""
        measured = {row["estimator"] for row in self.rows if row["pilots"] == pilots}
        return min((name for name in names if name in measured), key=lambda name: self.nmse(name, pilots, snr_db))


def measure(
    problem: OFDMChannel,
    pilots: Sequence[str],
    snrs_db: Sequence[float],
    build: Build,
    tests: int,
    seed: int,
    *,
    costs: Sequence[str] = (),
) -> Measured:
    """Build estimators for each pilot pattern and hold them against test draws.

    Costs and pictures, for which every estimator is exported and timed, are of the patterns in `costs` alone.
    """
    measured = Measured()
    for pattern in pilots:
        piloted = problem.shifted(pilots=pattern)
        estimators = build(piloted)
        for snr_db in snrs_db:
            x, obs = draw(piloted.shifted(snr_db=snr_db).held_out(), tests, seed, Stream.TESTING, 0)
            for name, estimator in estimators.items():
                measured.rows.append({"estimator": name, "pilots": pattern, **score(estimator, x, obs, snr_db)})
        if pattern not in costs:
            continue
        x, obs = draw(piloted.shifted(snr_db=PICTURE_DB).held_out(), 8, seed, Stream.TESTING, 0)
        for name, estimator in estimators.items():
            ratio = {BY_HAND: over_products_by_hand(estimator, obs[:1])}
            measured.costs.append({"estimator": name, "pilots": pattern} | call_costs(estimator, obs[:1]) | ratio)
        shown = {"channel": x[0]} | {name: answer(e, obs[:1]).x[0] for name, e in estimators.items()}
        measured.pictures[pattern] = {name: first_symbol(h, piloted) for name, h in shown.items()}
    return measured


def over_products_by_hand(estimator: Estimator, obs: Observation) -> float | None:
    """The time of a call in ONNX Runtime over that of six million multiply-accumulates in one product by hand.

    It is None for what does not run there.
    """
    call = runtime_call(estimator, obs)
    return None if call is None else in_turn(call, dense_product(182), 300).ratio


def score(estimator: Estimator, x: Tensor, obs: Observation, snr_db: float) -> dict[str, Any]:
    """Errors in dB with their interval, and two ratios of error and variance that are 1 where the variance is right."""
    estimate = answer(estimator, obs)
    mean = spread = of_sums = None
    if estimate.var is not None:
        (mean, spread), (of_sums, _) = mean_normalised_square(estimate, x), normalised_square(estimate, x)
    ratios = {MEAN_RATIO: mean, "its standard error": spread, "Σ error² / Σ variance": of_sums}
    return {"snr_db": snr_db} | errors_db(estimate.x, x) | ratios
