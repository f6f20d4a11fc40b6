"""One truth and several estimates of it in pictures that differ: the truth whole, then a crop and an error map of each.

Whole estimates look alike from a few dB on; what tells them apart is where they err, and how small parts look.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from fanfold.core.units import nmse_db
from fanfold.report.plots import picture_row

LONGEST = 256  # pixels of a picture's longer side, about
CROP = 3  # so many crops would lie along each side
SMALLEST = 12  # pixels a side, of which a crop would show too little
MOST = 4  # estimates that are shown
BRIGHTER = (1, 2, 5, 10, 20, 50, 100)  # times that error maps may be drawn brighter


class Crop(NamedTuple):
    """Where a crop lies: its first row and column, its height and width.

    Example:
        >>> import torch
        >>> from fanfold.report.compared import Crop
        >>> Crop(0, 4, 8, 8).of(torch.zeros(16, 16)).shape
        torch.Size([8, 8])
    """

    row: int
    column: int
    height: int
    width: int

    def of(self, picture: Tensor) -> Tensor:
        """The crop of a picture `(h, w)`."""
        return picture[self.row : self.row + self.height, self.column : self.column + self.width]


def compared(
    truth: Tensor, estimates: Mapping[str, Tensor], captions: Mapping[str, str], errors: Mapping[str, Tensor]
) -> tuple[str, list[str]]:
    """A sentence on what is to be seen, and three rows of pictures: the truth, crops, error maps.

    Args:
        truth: The true picture `(h, w)` in [0, 1].
        estimates: Pictures on the same scale by name, the most important first; the first four are shown.
        captions: A line below each, by name.
        errors: Magnitudes of the errors `(h, w)` by name, on the same scale; those above 1 are drawn white.

    Example:
        >>> import torch
        >>> from fanfold.report.compared import compared
        >>> grey = torch.full((32, 32), 0.5)
        >>> text, rows = compared(grey, {"ISTA": 0.9 * grey}, {}, {"ISTA": 0.1 * grey})
        >>> len(rows)
        3
    """
    shown = list(estimates)[:MOST]
    place = place_of(truth, [errors[name] for name in shown])
    drawn = {name: pooled(errors[name]) for name in shown}
    brighter = brightening(drawn[shown[0]])
    whole = {"truth": enlarged(framed(truth, place))}  # whose frame is a pixel wide, so it is not pooled
    maps = {f"error of {name}": enlarged(brighter * error) for name, error in drawn.items()}
    rows = [picture_row(whole, {"truth": "" if place is None else "the frame is what is shown larger"})]
    if place is not None:
        crops = {"truth, framed part": truth} | {name: estimates[name] for name in shown}
        rows.append(picture_row({name: enlarged(place.of(p)) for name, p in crops.items()}, captions))
    else:
        rows.append(picture_row({name: enlarged(estimates[name]) for name in shown}, captions))
    worst = {f"error of {name}": f"{100 * errors[name].max():.3g} % at its worst" for name in shown}
    rows.append(picture_row(maps, worst))
    times = "as bright as the pictures" if brighter == 1 else f"{brighter} times as bright"
    left = len(estimates) - len(shown)
    more = f" {left} more methods are in the tables alone." if left else ""
    return f"Error maps are magnitudes of the errors, {times}; per cent are of white.{more}", rows


def compared_draw(
    x: Tensor, estimates: Mapping[str, Tensor], look: Callable[[Tensor], Tensor]
) -> tuple[str, list[str]]:
    """`compared` of one draw, with the NMSE of each estimate below it: the network, then the best of the others.

    Args:
        x: The true unknowns `(1, n)`.
        estimates: Estimates of them by name, `(1, n)`, the network's first.
        look: What magnitudes of unknowns look like, `(h, w)`, where 1 is white.
    """
    scores = {name: nmse_db(x_hat, x) for name, x_hat in estimates.items()}
    network, *others = scores
    order = [network, *sorted(others, key=lambda name: scores[name])]
    return compared(
        look(x),
        {name: look(estimates[name]) for name in order},
        {name: f"{score:.1f} dB" for name, score in scores.items()},
        {name: look(estimates[name] - x) for name in order},
    )


def place_of(truth: Tensor, errors: list[Tensor]) -> Crop | None:
    """The crop in which the errors differ most in sum; None where a crop would be too small."""
    height, width = (max(SMALLEST, size // CROP) for size in truth.shape)
    if height >= truth.shape[0] or width >= truth.shape[1]:
        return None
    squares = torch.stack([e.clamp(max=1).square() for e in errors])  # as they are seen: one that diverged is white
    spread = squares.amax(0) - squares.amin(0) if len(squares) > 1 else squares[0]
    columns = avg_pool2d(spread[None, None].double(), (height, 1), stride=1)
    sums = avg_pool2d(columns, (1, width), stride=1)[0, 0]  # one axis after the other: a crop has many pixels
    row, column = divmod(int(sums.argmax()), sums.shape[1])
    return Crop(row, column, height, width)


def brightening(error: Tensor) -> int:
    """How many times brighter error maps are drawn, so that a pixel in a hundred of this one reaches white."""
    level = error.flatten().double().quantile(0.99).item()
    return next((factor for factor in reversed(BRIGHTER) if factor * level <= 1), 1)


def pooled(error: Tensor) -> Tensor:
    """The root mean squares of squares of pixels, as small as a page shows them: noise in a PNG is heavy."""
    side = max(1, max(error.shape) // LONGEST)
    return avg_pool2d(error.square()[None, None], side)[0, 0].sqrt()


def framed(picture: Tensor, place: Crop | None) -> Tensor:
    """The picture with a white frame in a black one around a crop."""
    if place is None:
        return picture
    picture, (row, column, height, width) = picture.clone(), place
    for step, shade in ((0, 0.0), (1, 1.0)):
        top, left, bottom, right = row + step, column + step, row + height - 1 - step, column + width - 1 - step
        picture[[top, bottom], left : right + 1] = shade
        picture[top : bottom + 1, [left, right]] = shade
    return picture


def enlarged(picture: Tensor) -> Tensor:
    """The picture with each pixel as so many that it is large enough to look at."""
    repeats = max(1, LONGEST // max(picture.shape))
    return picture.repeat_interleave(repeats, 0).repeat_interleave(repeats, 1)
