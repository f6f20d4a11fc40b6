"""RF imaging of scenes with structure: OAMP with a small learned denoiser against OAMP alone and against a large U-Net.

Claim under test: a CNN inside unfolded OAMP beats the best classical method and a U-Net on the linear image in error
and in detection, with a twentieth of the parameters. Source: Metzler, Maleki & Baraniuk (2016); Jin, McCann, Froustey
& Unser (2017). Speckled targets have structure in their powers alone, which maps of the prior take up; photographs with
one phase have it in their values, which a correction of the posterior mean takes up.
"""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fanfold.algorithms import FISTA, OAMP
from fanfold.estimators import BackProjectionUNet, HybridOAMP
from fanfold.estimators.linear_image import back_projection, white_lmmse
from fanfold.evaluate import TEST_STREAM, Estimator
from fanfold.experiments.base import Goal, Study
from fanfold.experiments.scene_scores import auc, decibel, found, ssim
from fanfold.experiments.unfolding_figure import Watcher
from fanfold.fit import fit
from fanfold.observation import Observation
from fanfold.peers import TUNING_STREAM, lam_grid
from fanfold.priors import BernoulliGaussian
from fanfold.problems import Problem, RFImaging
from fanfold.report.page import Section
from fanfold.report.plots import Series, line_chart, picture_row
from fanfold.table import Table
from fanfold.training import draw
from fanfold.unfold import iterate, run, unfold
from fanfold.units import nmse_db, power

LEARNED = ("p", "var", "noise_scale", "v_linear", "v_denoised", "spread", "damping")
LAYERS, LONG = 8, 300
BACK_PROJECTION, LINEAR, CLASSICAL_L1, CLASSICAL, SCALARS, HYBRID, UNET = (
    "back-projection",
    "LMMSE",
    f"FISTA, {LONG} iterations, best λ",
    "OAMP, 30 iterations, best damping",
    f"unfolded OAMP, {LAYERS} layers",
    f"hybrid OAMP, {LAYERS} layers",
    "U-Net on the LMMSE image",
)
DAMPINGS, SPREADS = (1.0, 0.7, 0.5), (1e-6, 0.03, 1.0)


@dataclass(frozen=True)
class Setting:
    """A kind of scene, and what the CNN moves there."""

    title: str
    changes: dict[str, Any]
    correct: Literal["prior", "mean"]
    cnn: dict[str, Any]
    settings: Literal["given", "estimated"]  # of the prior

    def problem(self, seed: int) -> RFImaging:
        """What is trained on."""
        return RFImaging(seed=seed, **self.changes)


EXTENDED = {"targets": "extended"}
PICTURES = {"targets": "photographs", "speckle": False}
MAPS: tuple[Any, ...] = ("prior", {"reach": 2}, "estimated")
MEANS: tuple[Any, ...] = ("mean", {"width": 16, "depth": 4}, "given")
SETTINGS = (
    Setting("extended targets, Kron(Gauss)", EXTENDED | {"sensing": "gaussian"}, *MAPS),
    Setting("photographs, Kron(Gauss)", PICTURES | {"sensing": "gaussian"}, *MEANS),
    Setting("extended targets, Kron(steering)", EXTENDED | {"sensing": "steering"}, *MAPS),
    Setting("photographs, Kron(steering)", PICTURES | {"sensing": "steering"}, *MEANS),
)


@dataclass(frozen=True)
class Stored:
    """So many training scenes and no more, with their measurements; validation draws are fresh."""

    of: RFImaging
    count: int
    seed: int

    @property
    def A(self):  # noqa: N802
        """The operator."""
        return self.of.A

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` of the stored pairs, at random."""
        x, obs = draw(self.of, self.count, self.seed, TUNING_STREAM, 7)
        pick = torch.randint(self.count, (n,), generator=generator)
        return x[pick], Observation.unchecked(obs.y[pick], obs.A, obs.noise_var)

    def shifted(self, **changes: Any) -> "Stored":
        """The same number of other scenes."""
        return Stored(self.of.shifted(**changes), self.count, self.seed)

    def held_out(self) -> Problem:
        """Where validation draws come from."""
        return self.of


@dataclass(frozen=True)
class Measured:
    """What every method makes of test scenes."""

    setting: Setting
    rows: dict[str, dict[str, Any]]
    pictures: dict[str, Tensor]


def signal_power(on: RFImaging, seed: int) -> float:
    """`E|x|²`, from 1000 training draws."""
    return power(draw(on, 1000, seed, TUNING_STREAM, 3)[0]).mean().item()


@torch.no_grad()
def best(candidates: Sequence[Any], iterations: int, on: RFImaging, seed: int, samples: int) -> Any:
    """The candidate with the least error on training draws."""
    x, obs = draw(on, samples, seed, TUNING_STREAM, 0)

    def error(algorithm: Any) -> float:
        value = nmse_db(run(algorithm, obs, iterations).x, x)
        return value if value == value else float("inf")

    return min(candidates, key=error)


def classical(on: RFImaging, seed: int, *, quick: bool) -> dict[str, Estimator]:
    """Linear images, FISTA with its best λ, and OAMP with its best damping, which finds the prior in each sample."""
    signal_var = signal_power(on, seed)
    prior = BernoulliGaussian(0.3, signal_var / 0.3)
    dampings, spreads = (DAMPINGS[:2], SPREADS[1:2]) if quick else (DAMPINGS, SPREADS)
    told = [OAMP(prior, damping=d, spread=s) for d, s in itertools.product(dampings, spreads)]
    grid = told + [replace(oamp, settings="estimated") for oamp in told]
    peers: dict[str, Estimator] = {
        BACK_PROJECTION: back_projection,
        LINEAR: lambda obs: white_lmmse(obs, signal_var),
        CLASSICAL: iterate(best(grid, 30, on, seed, 60), 30),
    }
    if not quick:
        lams = lam_grid(on, seed, points=10)[3:]
        lams += [lams[-1] / 2, lams[-1] / 4]
        peers[CLASSICAL_L1] = iterate(best([FISTA(lam) for lam in lams], LONG, on, seed, 40), LONG)
    return peers


def trained(
    net: nn.Module, on: Problem, steps: int, lr: float, seed: int, watch: Watcher, what: str
) -> tuple[nn.Module, float]:
    """A network after training, and the processor seconds that it took."""
    began = time.process_time()
    layers = 2 if hasattr(net, "trajectory") else 1
    with torch.enable_grad():
        fit(net, on, steps=steps, batch=16, lr=lr, loss_layers=layers, validation_samples=60, seed=seed,
            on_event=watch(what))  # fmt: skip
    return net, time.process_time() - began


def networks(setting: Setting, seed: int) -> dict[str, tuple[nn.Module, float]]:
    """Untrained, each with its learning rate."""
    on = setting.problem(seed)
    signal_var = signal_power(on, seed)
    oamp = OAMP(BernoulliGaussian(0.3, signal_var / 0.3), settings=setting.settings)
    learn = dict.fromkeys(LEARNED, "per-layer")
    hybrid = HybridOAMP(oamp, on, on.scene, LAYERS, learn, correct=setting.correct, seed=seed, **setting.cnn)
    return {
        SCALARS: (unfold(oamp, on, LAYERS, learn), 6e-3),
        HYBRID: (hybrid, 6e-3),
        UNET: (BackProjectionUNet(on.scene, signal_var, seed=seed), 2e-3),
    }


@torch.no_grad()
def measure(
    setting: Setting, seed: int, steps: dict[str, int], samples: int, watch: Watcher, *, quick: bool
) -> Measured:
    """Train and tune on camera and ascent, test on aero; extended targets are drawn anew."""
    on = setting.problem(seed)
    x, obs = draw(on.shifted(pictures=("aero",)), samples, seed, TEST_STREAM, 0)
    estimators, cost = classical(on, seed, quick=quick), {}
    for name, (net, lr) in networks(setting, seed).items():
        if name in steps:
            what = f"{name}, {setting.title}"
            estimators[name], cost[name] = trained(net, on, steps[name], lr, seed, watch, what)
    rows, pictures = {}, {"scene": x[0]}
    for name, estimator in estimators.items():
        began = time.process_time()
        x_hat = estimator(obs).x
        milliseconds = 1e3 * (time.process_time() - began) / samples
        count = sum(p.numel() for p in estimator.parameters()) if isinstance(estimator, nn.Module) else 0
        area = auc(x_hat.abs()[x != 0], x_hat.abs()[x == 0]) if on.targets == "extended" else None
        rows[name] = {
            "NMSE in dB": nmse_db(x_hat, x),
            "area under the ROC": area,
            "found at 1 % false alarms": None if area is None else found(x_hat.abs(), x != 0),
            "SSIM of dB pictures": ssim(*(decibel(z, on.scene, x) for z in (x_hat, x))),
            "parameters": count,
            "training, processor seconds": cost.get(name),
            "ms a sample": milliseconds,
        }
        pictures[name] = x_hat[0]
    return Measured(setting, rows, pictures)


def section(measured: Measured) -> Section:
    """Pictures and the table of one kind of scene."""
    shape = measured.setting.problem(0).scene
    scene = measured.pictures["scene"]
    pictures = {
        name: decibel(x, shape, scene).repeat_interleave(8, 0).repeat_interleave(8, 1)
        for name, x in measured.pictures.items()
    }
    captions = {name: f"{row['NMSE in dB']:.1f} dB over all scenes" for name, row in measured.rows.items()}
    ranked = sorted(measured.rows.items(), key=lambda item: item[1]["NMSE in dB"])
    return Section(
        measured.setting.title[0].upper() + measured.setting.title[1:],
        "30 dB, (24 x 32)². All is trained on two pictures, or on drawn targets, and tested on others.",
        [picture_row(pictures, {"scene": "40 dB from black to white"} | captions)],
        table=Table([{"method": name} | row for name, row in ranked]),
    )


def goals(measured: Measured, *, ahead_db: float = 0.0) -> list[Goal]:
    """The hybrid ahead of the best classical method and of the U-Net, and smaller."""
    rows, title = measured.rows, measured.setting.title
    peers = {k: v for k, v in rows.items() if k not in (HYBRID, SCALARS, UNET)}
    classical_name = "the best classical" if CLASSICAL_L1 in rows else "damped OAMP"  # quick leaves FISTA-300 out
    strongest = {classical_name: peers, "the U-Net": {UNET: rows[UNET]}}
    ours, result = rows[HYBRID], []
    for name, others in strongest.items():
        gain = min(row["NMSE in dB"] for row in others.values()) - ours["NMSE in dB"]
        result.append(Goal(f"{title}: hybrid ahead of {name}", "dB", ">=", ahead_db, gain))
        if ours["area under the ROC"] is not None:
            gain = ours["found at 1 % false alarms"] - max(row["found at 1 % false alarms"] for row in others.values())
            result.append(Goal(f"{title}: found at 1 % false alarms, ahead of {name}", "share", ">=", 0.0, gain))
    ratio = rows[UNET]["parameters"] / ours["parameters"]
    return [*result, Goal(f"{title}: parameters of the U-Net, in hybrids", "ratio", ">=", 20, ratio)]


@torch.no_grad()
def curve(setting: Setting, seed: int, steps: dict[str, int], watch: Watcher) -> Section:
    """Error against the number of training scenes."""
    on, counts = setting.problem(seed), (10, 100, 1000)
    x, obs = draw(on.shifted(pictures=("aero",)), 200, seed, TEST_STREAM, 0)
    rows: list[dict[str, Any]] = []
    for count in counts:
        row: dict[str, Any] = {"training scenes": count}
        for name, (net, lr) in networks(setting, seed).items():
            what = f"{name}, {count} scenes"
            row[name] = nmse_db(trained(net, Stored(on, count, seed), steps[name], lr, seed, watch, what)[0](obs).x, x)
        rows.append(row)
    series = [Series(name, counts, [row[name] for row in rows], "learned") for name in (SCALARS, HYBRID, UNET)]
    chart = line_chart(series, "training scenes", "NMSE in dB", log_x=True)
    return Section(f"Few training scenes: {setting.title}", "Tested on another picture.", [chart], Table(rows))


def study(*, quick: bool, seed: int, watch: Watcher) -> Study:
    """The experiment: four kinds of scene and a curve, or one with short training if quick."""
    began = time.perf_counter()
    steps = {SCALARS: 100, HYBRID: 150, UNET: 300}
    if quick:
        measured = [measure(SETTINGS[0], seed, {HYBRID: 20, UNET: 20}, 50, watch, quick=True)]
    else:
        measured = [measure(setting, seed, steps, 200, watch, quick=False) for setting in SETTINGS]
    sections = [section(m) for m in measured]
    if not quick:
        sections.append(curve(SETTINGS[1], seed, {k: v // 2 for k, v in steps.items()}, watch))
    return Study(
        "rf-scenes",
        "A small learned denoiser inside OAMP beats OAMP alone; a U-Net of many times its size is held against it.",
        verdict(measured),
        time.perf_counter() - began,
        [goal for m in measured for goal in goals(m)],
        sections,
        {"seed": seed, "learned": ", ".join(LEARNED), "operator": SETTINGS[0].problem(seed).A.fingerprint()[:12]},
    )


def verdict(measured: Sequence[Measured]) -> str:
    """Who won on each kind of scene, and the runner-up."""
    parts = []
    for m in measured:
        first, second = sorted(m.rows, key=lambda name: m.rows[name]["NMSE in dB"])[:2]
        gap = m.rows[second]["NMSE in dB"] - m.rows[first]["NMSE in dB"]
        parts.append(
            f"{m.setting.title}: {first} with {m.rows[first]['NMSE in dB']:.1f} dB, {gap:.1f} dB before {second}"
        )
    return "; ".join(parts) + ". Do not trust a network on another array or kind of scene without training."
