"""Pictures of scenes by four methods, in decibels: `python examples/rf/gallery.py` writes docs/gallery.md, in minutes.

Three arrays, each with 576 measurements of 32 x 32 voxels at 30 dB, and three kinds of scene. The settings of each
method are the best on draws of their own; photographs are tuned on two pictures and shown on a third. Nothing is
trained. The picture is that of the first test scene.
"""

import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fanfold.algorithms import EP, FISTA, OAMP, Algorithm
from fanfold.core.streams import Stream
from fanfold.core.units import nmse_db, power
from fanfold.estimators.linear.image import back_projection
from fanfold.evaluation.evaluate import Estimator, errors_db
from fanfold.evaluation.peers import lam_grid
from fanfold.observation import Observation
from fanfold.priors import BernoulliGaussian
from fanfold.problems import Problem, RFGeometry, RFImaging
from fanfold.problems.draws import draw
from fanfold.report.plots import require_matplotlib
from fanfold.unfolding.unfold import iterate

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs"
ARRAYS: dict[str, tuple[str, Callable[..., Problem]]] = {
    "gaussian": ("Kronecker product of Gaussian matrices", lambda **kw: RFImaging(sensing="gaussian", **kw)),
    "steering": ("Kronecker product of steering matrices", lambda **kw: RFImaging(sensing="steering", **kw)),
    "near-field": (
        "Near field, multistatic: Born operator",
        lambda **kw: RFGeometry(str(HERE / "near_field_large.toml"), **kw),
    ),
}
SCENES = {
    "points": {"targets": "points"},
    "extended": {"targets": "extended"},
    "photographs": {"targets": "photographs", "speckle": False},
}
METHODS = ("back-projection", "FISTA, 300 iterations", "OAMP, 30 iterations", "EP, 12 iterations")
RANGE_DB, TESTS = 40.0, 8


def problem_of(array: str, scene: str) -> Problem:
    """What is tuned on."""
    return ARRAYS[array][1](**SCENES[scene])


def candidates(problem: Problem) -> dict[str, tuple[list[Algorithm], int]]:
    """The settings that are tried of each method, and its iterations."""
    lams = lam_grid(problem, points=10)[2:]
    lams += [lams[-1] / 3, lams[-1] / 9]
    told = getattr(problem, "prior", None)
    energy = power(draw(problem, 200, 0, Stream.TUNING, 3)[0]).mean().item()
    priors = [told] if told is not None else [BernoulliGaussian(p, energy / p) for p in (0.05, 0.1, 0.3, 0.7)]
    grid = itertools.product(priors, (1.0, 0.7, 0.5, 0.3), (1e-6, 0.03, 1.0))
    oamp: list[Algorithm] = [OAMP(prior, damping=damping, spread=spread) for prior, damping, spread in grid]
    ep: list[Algorithm] = [EP(prior, damping=0.9, improper="forget") for prior in priors]
    return dict(zip(METHODS[1:], (([FISTA(lam) for lam in lams], 300), (oamp, 30), (ep, 12)), strict=True))


@torch.no_grad()
def estimators(problem: Problem) -> Iterator[tuple[str, Estimator]]:
    """Each method with the settings that are best on tuning draws."""
    yield METHODS[0], back_projection
    for name, (algorithms, iterations) in candidates(problem).items():
        x, obs = draw(problem, 6, 0, Stream.TUNING, 4)

        def error(a: Algorithm, iterations: int = iterations, x: Tensor = x, obs=obs) -> float:
            value = nmse_db(iterate(a, iterations)(obs).x, x)
            return value if math.isfinite(value) else math.inf

        best = algorithms[0] if len(algorithms) == 1 else min(algorithms, key=error)
        yield name, iterate(best, iterations)


def dynamic_range_db(x_hat: Tensor, x: Tensor) -> float:
    """The brightest voxel of a scene over the mean squared error of a voxel: how deep a picture can be trusted."""
    return 10 * math.log10(power(x).max().item() / max(power(x_hat - x).mean().item(), 1e-300))


def tests_of(array: str, scene: str) -> tuple[Tensor, Observation]:
    """The scenes that are shown and measured."""
    return draw(problem_of(array, scene).shifted(pictures=("aero",)), TESTS, 0, Stream.TESTING, 0)


@torch.no_grad()
def measure(array: str, scene: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Test scenes and what each method makes of them, `(tests, 1024)`."""
    x, obs = tests_of(array, scene)
    return x, {name: estimator(obs).x for name, estimator in estimators(problem_of(array, scene))}


def note(x_hat: Tensor, x: Tensor) -> str:
    """What stands above a picture."""
    return f"NMSE {nmse_db(x_hat, x):.1f} dB, range {dynamic_range_db(x_hat, x):.0f} dB".replace("-", "−")


def figure(rows: Sequence[tuple[str, Tensor, dict[str, Tensor]]], path: Path) -> None:
    """An SVG with a row for each kind of scene: the scene, and the picture by each method."""
    figure_class, rc_context = require_matplotlib()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "fanfold", "font.size": 8}):
        canvas = figure_class(figsize=(9.2, 2.15 * len(rows)), layout="constrained")
        grid = canvas.subplots(len(rows), len(METHODS) + 1)
        for line, (scene, x, found) in zip(grid, rows, strict=True):
            pictures = {scene: x[0]} | {name: z[0] for name, z in found.items()}
            for axes, (name, z) in zip(line, pictures.items(), strict=True):
                level = 10 * torch.log10(power(z) / power(x[0]).max() + 1e-12).reshape(32, 32).clamp(-RANGE_DB, 0)
                image = axes.imshow(level, cmap="inferno", vmin=-RANGE_DB, vmax=0, interpolation="none")
                axes.set_xticks([])
                axes.set_yticks([])
                axes.set_title(f"{name}\n{'the scene' if name == scene else note(z, x[0])}", fontsize=7.5)
        bar = canvas.colorbar(image, ax=grid, shrink=0.6, pad=0.01)
        bar.set_label("dB below the brightest voxel of the scene")
        path.parent.mkdir(exist_ok=True)
        canvas.savefig(path, format="svg", metadata={"Date": None})


INTRODUCTION = f"""# Gallery: one scene, four methods

Made by `python examples/rf/gallery.py`. 576 measurements of 32 × 32 complex voxels at 30 dB. Points are one voxel in
ten; extended targets have speckle; photographs have one phase each, are tuned on two pictures and shown on a third.
Nothing is trained: each method has its best settings on draws of their own; OAMP and EP know the noise variance and,
of points, the prior.

Pictures are the first test scene; black is {RANGE_DB:.0f} dB below its brightest voxel. *Range* is the brightest voxel
over the mean squared error of a voxel: how deep a picture can be trusted. Tables are the NMSE in dB over {TESTS} test
scenes, with the median scene in brackets: where EP fails on a scene, it fails widely.

EP wins on points and extended targets by 5 dB or more in NMSE; on points of the Gaussian array the median scene of OAMP
is as good, and others fail. On photographs, which no sparse prior describes, EP and OAMP tie within 0.1 dB, FISTA is
0.1 to 0.2 dB ahead or 3 dB behind, and from the Gaussian array no method gets a picture.
"""


def page(tables: dict[str, list[str]]) -> str:
    """The page around the figures."""
    parts = [INTRODUCTION]
    for array, table in tables.items():
        parts.append(f"## {ARRAYS[array][0]}\n\n![Scenes by each method](gallery/{array}.svg)\n")
        parts.append(f"| scene | {' | '.join(METHODS)} |\n|---|{'---|' * len(METHODS)}")
        parts.append("\n".join(table) + "\n")
    return "\n".join(parts)


def main() -> None:
    """Measure all, write the figures and the page."""
    tables: dict[str, list[str]] = {}
    for array in ARRAYS:
        rows = []
        for scene in SCENES:
            x, found = measure(array, scene)
            rows.append((scene, x, found))
            errors = {name: errors_db(z, x) for name, z in found.items()}
            cells = (f"{e['nmse_db']:.1f} ({e['median_db']:.1f})".replace("-", "−") for e in errors.values())
            tables.setdefault(array, []).append(f"| {scene} | {' | '.join(cells)} |")
            print(array, tables[array][-1], file=sys.stderr)
        figure(rows, DOCS / "gallery" / f"{array}.svg")
    (DOCS / "gallery.md").write_text(page(tables))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
