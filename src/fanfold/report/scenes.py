"""One scene in pictures: the true one, a part of it as each method sees it, and where each method errs."""

from collections.abc import Mapping

import torch

from fanfold.core.abilities import offers
from fanfold.core.streams import Stream
from fanfold.estimators.base import device_of
from fanfold.observation import Estimator
from fanfold.problems import Problem
from fanfold.problems.draws import draw
from fanfold.problems.protocols import WithScene
from fanfold.report.compared import compared_draw
from fanfold.report.page import Section


@torch.no_grad()
def scene_sections(peers: Mapping[str, Estimator], problem: Problem) -> list[Section]:
    """Magnitudes of one test scene and of its estimates, on one scale; nothing where there is no scene of two axes."""
    scene = problem.scene if offers(problem, WithScene) else None
    extent = [size for size in scene or () if size > 1]
    if len(extent) != 2:
        return []
    x, obs = draw(problem.held_out(), 1, 0, Stream.TESTING, 0)
    estimates = {name: estimator(obs.to(device_of(estimator))).x.cpu() for name, estimator in peers.items()}
    brightest = x.abs().max().clamp_min(torch.finfo(x.real.dtype).tiny)
    about, rows = compared_draw(x, estimates, lambda part: (part.abs() / brightest).reshape(extent))
    text = f"The magnitude of one scene that was not trained on, its brightest voxel being white. {about}"
    return [Section("One scene", text, rows)]
