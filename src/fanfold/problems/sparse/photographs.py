"""Block compressive sensing of photographs. Gan (2007).

The pictures are those that PyWavelets ships, or the user's own files.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from warnings import catch_warnings

import numpy as np
import pywt.data
import torch
from PIL import Image
from torch import Tensor

from fanfold.core.data_files import regular_file, understanding
from fanfold.core.noise import circular
from fanfold.linops import DCT, Dense, LinearOperator, Wavelet
from fanfold.observation import Observation
from fanfold.problems.base import Described

SHIPPED: dict[str, Callable[[], np.ndarray]] = {
    "aero": pywt.data.aero,
    "ascent": pywt.data.ascent,
    "camera": pywt.data.camera,
}


FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM")  # none of which starts a program, as EPS does
MOST_PIXELS = 50_000_000  # of a picture


@dataclass(frozen=True)
class Photographs(Described):
    """Grey pictures in blocks: `y = Φ p + w` for the pixels p of a block, in [0, 1], and x its coefficients.

    Φ is Gaussian with variance `1 / m` an entry, `m = ratio · block²`. The unknowns are the coefficients of the
    block in an orthonormal basis, `A = Φ Ψᴴ`, so that errors of coefficients are errors of pixels. A draw takes blocks
    at random places of the pictures; `blocks` takes a whole picture in a grid of blocks.

    Raises:
        ValueError: If a number is out of range, or a picture is missing, unreadable or smaller than a block.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.Photographs(pictures=("camera",), block=8)
        >>> x, obs = problem.sample(3, torch.Generator().manual_seed(0))
        >>> x.shape, obs.y.shape
        (torch.Size([3, 64]), torch.Size([3, 16]))
    """

    pictures: tuple[str, ...] = ("camera", "ascent")  # shipped ones (aero, ascent, camera) or image files
    block: int = 16  # pixels a side
    ratio: float = 0.25  # measurements per pixel
    basis: Literal["dct", "haar", "db4", "sym4"] = "dct"  # in which blocks are sparse
    noise_std: float = 0.01  # standard deviation of the noise of a measurement, pixels being in [0, 1]
    flips: bool = False  # draw blocks mirrored and turned too, all eight ways
    seed: int = 0  # seed of the matrix Φ

    def __post_init__(self):
        if not self.pictures:
            raise ValueError(f"no pictures; name some of {', '.join(SHIPPED)} or image files.")
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio is {self.ratio}; it is the number of measurements per pixel, in (0, 1].")
        if self.noise_std < 0:
            raise ValueError(f"noise_std is {self.noise_std}; it is a standard deviation: not negative.")
        for picture in self.pictures:
            height, width = load_picture(picture).shape
            if min(height, width) < self.block:
                raise ValueError(f"{picture} is {height}x{width} pixels: smaller than a block of {self.block}.")

    @staticmethod
    def files_of(settings: Mapping[str, Any]) -> Sequence[str]:
        """The pictures that are files."""
        return picture_files(settings)

    @property
    def A(self) -> LinearOperator:  # noqa: N802
        """From the coefficients of a block to its measurements."""
        return _operator(self.block, self.ratio, self.basis, self.seed)

    @property
    def noise_var(self) -> float:
        """`E|w|²`."""
        return self.noise_std**2

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The coefficients of `n` blocks at random places, `(n, block²)`, and their observation."""
        which = torch.randint(len(self.pictures), (n,), generator=generator)
        place = torch.rand(2, n, generator=generator)
        turn = torch.randint(8 if self.flips else 1, (n, 1, 1), generator=generator)
        pixels = torch.empty(n, self.block, self.block)
        for index, name in enumerate(self.pictures):
            of_this_one = which == index
            windows = load_picture(name).unfold(0, self.block, 1).unfold(1, self.block, 1)
            row, column = (
                (place[axis, of_this_one] * windows.shape[axis]).long().clamp_max(windows.shape[axis] - 1)
                for axis in (0, 1)
            )
            pixels[of_this_one] = windows[row, column]
        pixels = torch.where(turn & 1 != 0, pixels.flip(-1), pixels)
        pixels = torch.where(turn & 2 != 0, pixels.flip(-2), pixels)
        pixels = torch.where(turn & 4 != 0, pixels.mT, pixels)
        x = _basis(self.block, self.basis) @ pixels.flatten(1)
        return x, self.observe(x, generator)

    def observe(self, x: Tensor, generator: torch.Generator) -> Observation:
        """Noisy measurements of coefficients `(..., block²)`."""
        y = self.A @ x + circular((*x.shape[:-1], self.A.m), generator, x.dtype, self.noise_var)
        return Observation(y, self.A, torch.tensor(self.noise_var))

    def blocks(self, picture: Tensor) -> Tensor:
        """The coefficients of a picture `(h, w)`, cut to whole blocks: `(blocks, block²)`, row by row."""
        b = self.block
        h, w = (size // b * b for size in picture.shape)
        grid = picture[:h, :w].unflatten(0, (-1, b)).unflatten(2, (-1, b)).transpose(1, 2)
        return _basis(b, self.basis) @ grid.flatten(0, 1).flatten(1)

    def assemble(self, x: Tensor, height: int, width: int) -> Tensor:
        """The picture that coefficients `(blocks, block²)` stand for, cut to whole blocks."""
        b = self.block
        grid = (_basis(b, self.basis).H @ x).reshape(height // b, width // b, b, b)
        return grid.transpose(1, 2).reshape(height // b * b, width // b * b)


def picture_files(settings: Mapping[str, Any]) -> list[str]:
    """The pictures of a problem's settings that are files."""
    return [name for name in settings.get("pictures", ()) if name not in SHIPPED]


def load_picture(name: str) -> Tensor:
    """A grey picture `(h, w)` with pixels in [0, 1]: a shipped one by name, or an image file.

    Raises:
        ValueError: If there is no such picture, or the file is no image.
    """
    if name in SHIPPED:
        return _shipped_picture(name)
    shipped = ", ".join(SHIPPED)
    file = regular_file(name, f"there is no picture {name!r}; take one of {shipped} or the path of an image file.")
    return _picture_file(name, file.stat().st_mtime_ns)


@lru_cache(maxsize=3)
def _shipped_picture(name: str) -> Tensor:
    return torch.from_numpy(np.asarray(SHIPPED[name](), dtype=np.float32) / 255)


@lru_cache(maxsize=16)
def _picture_file(name: str, modified_ns: int) -> Tensor:
    advice = f"take a whole picture of up to {MOST_PIXELS // 10**6} million pixels, {', '.join(FORMATS)}"
    ignored = catch_warnings(action="ignore", category=Image.DecompressionBombWarning)  # as the limit is lower
    with understanding(Path(name), "a picture", advice), ignored, Image.open(name, formats=FORMATS) as image:
        if math.prod(image.size) > MOST_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels")
        if image.mode.startswith("I;16"):  # which Pillow would clip at 255
            return torch.from_numpy(np.asarray(image, dtype=np.float32) / 65535)
        if image.mode in ("I", "F"):
            raise ValueError("it has 32-bit pixels of unknown range; save it with 8 or 16 bits a pixel")
        return torch.from_numpy(np.asarray(image.convert("L"), dtype=np.float32) / 255)


@lru_cache(maxsize=16)
def _basis(block: int, name: str) -> LinearOperator:
    return DCT((block, block)) if name == "dct" else Wavelet((block, block), name)


@lru_cache(maxsize=16)
def _operator(block: int, ratio: float, basis: str, seed: int) -> LinearOperator:
    n = block**2
    m = max(1, round(ratio * n))
    generator = torch.Generator().manual_seed(seed)
    sensing = torch.randn(m, n, generator=generator, dtype=torch.float64) / m**0.5
    return Dense((Dense(sensing.float()) @ _basis(block, basis).H).matrix())
