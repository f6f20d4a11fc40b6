"""One RF scene and its estimates in pictures: what is there in decibels, and where each method errs."""

from collections.abc import Mapping

from torch import Tensor

from fanfold.experiments.rf.scene_scores import decibel
from fanfold.report.compared import compared


def scene_pictures(
    x: Tensor, estimates: Mapping[str, Tensor], shape: tuple[int, ...], captions: Mapping[str, str]
) -> tuple[str, list[str]]:
    """A sentence and rows of pictures; see `compared`.

    Args:
        x: The voxels of the scene, `(n,)`.
        estimates: Estimates of them by name, `(n,)`, the most important first.
        shape: Rows and columns of the scene.
        captions: A line below each, by name.
    """
    brightest = x.abs().max()
    about, rows = compared(
        decibel(x, shape, x),
        {name: decibel(x_hat, shape, x) for name, x_hat in estimates.items()},
        captions,
        {name: ((x_hat - x).abs() / brightest).reshape(shape) for name, x_hat in estimates.items()},
    )
    return f"Scenes are shown with 40 dB from black to white, errors not in dB. {about}", rows
