"""Published experiments, one file each, run by name: `fanfold reproduce NAME`."""

from collections.abc import Callable

from fanfold.core.suggest import did_you_mean
from fanfold.experiments.base import Goal, Study
from fanfold.experiments.channels import channel_drift, channel_estimation, link_level, pilot_overhead
from fanfold.experiments.comparison import comparison_table
from fanfold.experiments.guard import broad_training, detection
from fanfold.experiments.limits import crlb_still_holds, single_tone, uncertainty
from fanfold.experiments.rf import rf_calibration, rf_imaging, rf_scenes
from fanfold.experiments.simulators import posterior_mean
from fanfold.experiments.sparse import (
    dense_weights,
    lista_family,
    mbdl_lista,
    mimo_detection,
    photographs,
    shift_survival,
    sparse_limit,
    unfolding_figure,
)

EXPERIMENTS: dict[str, Callable[..., Study]] = {
    "broad-training": broad_training.study,
    "channel-drift": channel_drift.study,
    "channel-estimation": channel_estimation.study,
    "comparison-table": comparison_table.study,
    "crlb-still-holds": crlb_still_holds.study,
    "detection": detection.study,
    "dense-weights": dense_weights.study,
    "link-level": link_level.study,
    "lista-family": lista_family.study,
    "mbdl-lista": mbdl_lista.study,
    "mimo-detection": mimo_detection.study,
    "photographs": photographs.study,
    "pilot-overhead": pilot_overhead.study,
    "posterior-mean": posterior_mean.study,
    "rf-calibration": rf_calibration.study,
    "rf-imaging": rf_imaging.study,
    "rf-scenes": rf_scenes.study,
    "shifts": shift_survival.study,
    "single-tone": single_tone.study,
    "sparse-limit": sparse_limit.study,
    "uncertainty": uncertainty.study,
    "unfolding-figure": unfolding_figure.study,
}


def find_experiment(name: str) -> Callable[..., Study]:
    """The experiment of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in EXPERIMENTS:
        raise ValueError(
            f"no experiment {name!r}; there are {', '.join(EXPERIMENTS)}.{did_you_mean(name, EXPERIMENTS)}"
        )
    return EXPERIMENTS[name]


__all__ = ["EXPERIMENTS", "Goal", "Study", "find_experiment"]
