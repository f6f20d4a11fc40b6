"""RF imaging of scenes with structure: unfolded EP and OAMP with small CNNs, against the same alone and a large U-Net.

Claim under test: a CNN inside unfolded message passing beats the best classical method and a U-Net on the linear image
in error and in detection, with a twentieth of the parameters. Source: Metzler, Maleki & Baraniuk (2016); Jin, McCann,
Froustey & Unser (2017); Aggarwal, Mani & Jacob (2019). Speckled targets have structure in their powers alone, which
maps of the prior take up inside EP. Photographs with one phase are real once it is known, which every method on them
is told, with mean and covariance; a CNN corrects the posterior mean of unfolded OAMP.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fanfold.core.streams import Stream
from fanfold.core.table import Table
from fanfold.core.units import nmse_db
from fanfold.evaluation.evaluate import Estimator, errors_db
from fanfold.experiments.base import Goal, Study, mean_goal
from fanfold.experiments.rf.scene_data import SETTINGS, FewScenes, Setting, Turned
from fanfold.experiments.rf.scene_methods import HYBRID, L1, MODL, NETWORKS, UNET, classical, trained
from fanfold.experiments.rf.scene_pictures import scene_pictures
from fanfold.experiments.rf.scene_scores import auc, bright, decibel, detected, roc, ssim
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.problems import Problem, RFImaging
from fanfold.problems.draws import draw
from fanfold.report.page import Section
from fanfold.report.plots import Series, line_chart

SEEDS, TEST_SCENES, COUNTS = 5, 50, (10, 100, 1000, 10_000)
FALSE_ALARMS = tuple(10 ** (-4 + i / 5) for i in range(21))
NMSE, MEDIAN, AREA = "NMSE in dB", "median over scenes, dB", "area under the ROC"
DETECTED, SSIM = "found at 1 % false alarms", "SSIM of dB pictures"
PARAMETERS, TRAINING, RUNTIME = "parameters", "training, processor seconds", "ms a sample"
STEPS = {
    "extended": {HYBRID: 600, UNET: 250, MODL: 60},
    "photographs": {HYBRID: 200, UNET: 200, MODL: 100},
}


@dataclass(frozen=True)
class Measured:
    """What every method makes of the test scenes of one operator."""

    setting: Setting
    seed: int
    rows: dict[str, dict[str, Any]]
    rocs: dict[str, list[float]]
    pictures: dict[str, Tensor]


def test_scenes(setting: Setting, seed: int, count: int) -> tuple[Tensor, Any]:
    """Crops of a picture that nothing was trained or tuned on; extended targets are drawn anew."""
    return draw(setting.problem(seed).shifted(pictures=("aero",)), count, seed, Stream.TESTING, 0)


def training_scenes(setting: Setting, seed: int) -> RFImaging | Turned:
    """Photographs are few, so that every network sees them mirrored and transposed too."""
    on = setting.problem(seed)
    return Turned(on) if setting.photographs else on


@torch.no_grad()
def measure(setting: Setting, seed: int, watch: Watcher, *, quick: bool) -> Measured:
    """Tune and train everything on one operator, and test it."""
    x, obs = test_scenes(setting, seed, 16 if quick else TEST_SCENES)
    estimators, cost = classical(setting, seed, quick=quick), {}
    steps = STEPS[setting.changes["targets"]]
    if quick:
        steps = {HYBRID: 140, UNET: 20}
    for name, count in steps.items():
        on: Problem = training_scenes(setting, seed)
        what = f"{name}, {setting.title}, operator {seed}"
        estimators[name], cost[name] = trained(name, setting, on, count, seed, watch, what)
    rows, rocs, pictures = {}, {}, {"scene": x[0]}
    target = bright(x) if setting.photographs else x != 0
    for name, estimator in estimators.items():
        began = time.process_time()
        x_hat = torch.cat([estimator(obs[rows]).x for rows in slices(len(x))])
        milliseconds = 1e3 * (time.process_time() - began) / len(x)
        score = x_hat.abs() / x_hat.abs().amax(-1, keepdim=True) if setting.photographs else x_hat.abs()
        rows[name] = {
            NMSE: nmse_db(x_hat, x),
            MEDIAN: errors_db(x_hat, x)["median_db"],
            AREA: auc(score[target], score[~target]),
            DETECTED: detected(score, target),
            SSIM: ssim(*(decibel(z, setting.problem(seed).scene, x) for z in (x_hat, x))),
            PARAMETERS: parameters(estimator),
            TRAINING: cost.get(name),
            RUNTIME: milliseconds,
        }
        rocs[name], pictures[name] = roc(score, target, FALSE_ALARMS), x_hat[0]
    return Measured(setting, seed, rows, rocs, pictures)


def slices(count: int, size: int = 5) -> list[slice]:
    """Small batches: the memory of larger ones costs EP more than it saves."""
    return [slice(first, first + size) for first in range(0, count, size)]


def parameters(estimator: Estimator) -> int:
    """How many numbers it learned by descent."""
    return sum(p.numel() for p in estimator.parameters()) if isinstance(estimator, nn.Module) else 0


def means(group: Sequence[Measured]) -> dict[str, dict[str, Any]]:
    """Each score's mean over operators, and the standard error of the dB."""
    result = {}
    for name in group[0].rows:
        rows = [m.rows[name] for m in group]
        row = {k: None if v is None else statistics.mean(r[k] for r in rows) for k, v in rows[0].items()}
        if len(rows) > 1:
            row["standard error, dB"] = statistics.stdev(r[NMSE] for r in rows) / len(rows) ** 0.5
        result[name] = row | {PARAMETERS: rows[0][PARAMETERS]}
    return result


def section(group: Sequence[Measured]) -> Section:
    """Pictures and ROC of the first operator, and the table of all."""
    first, rows = group[0], means(group)
    shape = first.setting.problem(0).scene
    captions = {name: f"{row[NMSE]:.1f} dB over all scenes" for name, row in rows.items()}
    kinds = {name: "learned" if name in NETWORKS else "classical" for name in first.rocs}
    chart = line_chart(
        [Series(name, FALSE_ALARMS, curve, kinds[name]) for name, curve in first.rocs.items()],
        "share of false alarms",
        "share of targets found",
        log_x=True,
    )
    ranked = sorted(rows.items(), key=lambda item: item[1][NMSE])
    names = dict.fromkeys([HYBRID, UNET, *dict(ranked)])  # the claim's two, then the best of the others
    estimates = {name: first.pictures[name] for name in names}
    about, pictures = scene_pictures(first.pictures["scene"], estimates, shape, captions)
    targets = "voxels within 10 dB of their scene's peak" if first.setting.photographs else "voxels that are not empty"
    return Section(
        first.setting.title[0].upper() + first.setting.title[1:],
        f"30 dB, (24 x 32)², mean of {len(group)} operators and their training. All is trained on two pictures, or on "
        f"drawn targets, and tested on others. To be detected: {targets}.\n{about}",
        [*pictures, chart],
        table=Table([{"method": name} | row for name, row in ranked]),
    )


def rivals(measured: Measured) -> dict[str, dict[str, dict[str, Any]]]:
    """What the hybrid is held against: rows of the classical methods, and that of the U-Net."""
    peers = {name: row for name, row in measured.rows.items() if name not in NETWORKS}
    strongest = "the best classical" if L1 in peers else "OAMP"  # the quick version leaves FISTA and EP out
    return {strongest: peers, "the U-Net": {UNET: measured.rows[UNET]}}


def goals(group: Sequence[Measured], *, ahead_db: float = 0.0) -> list[Goal]:
    """The hybrid ahead of the best classical method of each operator and of the U-Net, and smaller."""
    title, result = group[0].setting.title, []
    for name in rivals(group[0]):
        others = [rivals(m)[name].values() for m in group]
        gains = [min(r[NMSE] for r in rows) - m.rows[HYBRID][NMSE] for m, rows in zip(group, others, strict=True)]
        result.append(mean_goal(f"{title}: hybrid ahead of {name}", "dB", ">=", ahead_db, gains))
        gains = [
            m.rows[HYBRID][DETECTED] - max(r[DETECTED] for r in rows) for m, rows in zip(group, others, strict=True)
        ]
        what = f"{title}: found at 1 % false alarms, ahead of {name}"
        result.append(mean_goal(what, "share", ">=", 0.0, gains))
    ratio = group[0].rows[UNET][PARAMETERS] / group[0].rows[HYBRID][PARAMETERS]
    return [*result, Goal(f"{title}: parameters of the U-Net, in hybrids", "ratio", ">=", 20, ratio)]


@torch.no_grad()
def curve(setting: Setting, seed: int, watch: Watcher, counts: Sequence[int] = COUNTS) -> dict[int, dict[str, float]]:
    """Error of hybrid, U-Net and MoDL for each number of training scenes."""
    x, obs = test_scenes(setting, seed, TEST_SCENES)
    steps, result = STEPS[setting.changes["targets"]], {}
    for count in counts:
        on = FewScenes(training_scenes(setting, seed), count, seed)
        nets = {
            name: trained(name, setting, on, steps[name], seed, watch, f"{name}, {setting.title}, {count} scenes")[0]
            for name in NETWORKS
        }
        estimates = {k: torch.cat([net(obs[rows]).x for rows in slices(len(x))]) for k, net in nets.items()}
        result[count] = {name: nmse_db(x_hat, x) for name, x_hat in estimates.items()}
    return result


def curve_section(setting: Setting, errors: Mapping[int, Mapping[str, float]]) -> Section:
    """Error against the number of training scenes, and where each wins."""
    series = [Series(name, [*errors], [row[name] for row in errors.values()], "learned") for name in NETWORKS]
    wins = "; ".join(f"{count} scenes: {min(row, key=row.__getitem__)}" for count, row in errors.items())
    return Section(
        f"Few training scenes: {setting.title}",
        f"One operator, tested on other scenes. Best with {wins}.",
        [line_chart(series, "training scenes", "NMSE in dB", log_x=True)],
        Table([{"training scenes": count} | dict(row) for count, row in errors.items()]),
    )


def study(*, quick: bool, seed: int, watch: Watcher) -> Study:
    """The experiment: four kinds of scene and two curves, or one kind with short training if quick."""
    began = time.perf_counter()
    settings, seeds = (SETTINGS[:1], [seed]) if quick else (SETTINGS, range(seed, seed + SEEDS))
    groups = [[measure(setting, s, watch, quick=quick) for s in seeds] for setting in settings]
    curves = {} if quick else {s.title: curve_section(s, curve(s, seed, watch)) for s in SETTINGS[2:]}
    found_goals = [goal for group in groups for goal in goals(group, ahead_db=3.0 if quick else 0.0)]
    if quick:
        found_goals.append(
            mean_goal("the hybrid's error", "dB", "<=", -30.0, [m.rows[HYBRID][NMSE] for m in groups[0]])
        )
    return Study(
        "rf-scenes",
        "A small CNN in unfolded EP or OAMP beats the same alone; a U-Net of many times its size is held against it.",
        verdict(groups),
        time.perf_counter() - began,
        found_goals,
        [*(section(group) for group in groups), *curves.values()],
        {"seeds": [*seeds], "operator": SETTINGS[0].problem(seed).A.fingerprint()[:12]},
    )


def verdict(groups: Sequence[Sequence[Measured]]) -> str:
    """Who won on each kind of scene, and the runner-up."""
    parts = []
    for group in groups:
        rows = means(group)
        first, second = sorted(rows, key=lambda name: rows[name][NMSE])[:2]
        gap = rows[second][NMSE] - rows[first][NMSE]
        parts.append(f"{group[0].setting.title}: {first} with {rows[first][NMSE]:.1f} dB, {gap:.1f} dB before {second}")
    return "; ".join(parts) + ". Do not trust a network on another array or kind of scene without training."
