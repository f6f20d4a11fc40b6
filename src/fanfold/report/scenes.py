"""One scene in pictures: the true one beside what each method makes of it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fanfold.core.abilities import offers
from fanfold.core.streams import Stream
from fanfold.core.units import nmse_db
from fanfold.estimators.base import device_of
from fanfold.observation import Estimator
from fanfold.problems import Problem
from fanfold.problems.draws import draw
from fanfold.problems.protocols import WithScene
from fanfold.report.page import Section
from fanfold.report.plots import picture_row

LONGEST = 256  # pixels of a picture's longer side, about


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
    pictures = {"scene": _picture(x / brightest, extent)}
    pictures |= {name: _picture(x_hat / brightest, extent) for name, x_hat in estimates.items()}
    captions = {name: f"{nmse_db(x_hat, x):.1f} dB" for name, x_hat in estimates.items()}
    text = "The magnitude of one scene that was not trained on, and of its estimates, all on the scale of the scene."
    return [Section("One scene", text, [picture_row(pictures, captions)])]


def _picture(x: Tensor, extent: list[int]) -> Tensor:
    repeats = max(1, LONGEST // max(extent))
    return x.abs().reshape(extent).clamp(0, 1).repeat_interleave(repeats, 0).repeat_interleave(repeats, 1)
