"""Drawing a dataset of channels: a generator of typed events that the API and the command line consume.

Every shard has a seed of its own, made of the dataset's seed and the shard's number, so that what was drawn with breaks
is, bit for bit, what would have been drawn without.
"""

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fanfold.core.events import DrawingEvent, DrawingFinished, DrawingStarted, DrawsKept, exhaust
from fanfold.core.files import check_same, file_hash, sole_writer, write_whole
from fanfold.core.settings import checks_arguments
from fanfold.propagation.base import Layout
from fanfold.propagation.dataset import MANIFEST, VERSION, Dataset, read_manifest, whole_hash

NORMALISATION = "each draw to unit mean power over antennas, symbols and subcarriers"
SHARD_DRAWS = 1000  # draws in one file, where nobody says otherwise


class Recipe(Protocol):
    """Something that draws channels from a seed, such as `TR38901`.

    Example:
        >>> import fanfold as ff
        >>> recipe: ff.propagation.Recipe = ff.propagation.TR38901("tdl-a", array=(1, 1, 2))
        >>> recipe.describe()["model"], recipe.layout.antennas
        ('tdl-a', 2)
    """

    @property
    def layout(self) -> Layout:
        """The shape and numerology of its channels."""
        ...

    def describe(self) -> dict[str, Any]:
        """Its settings as plain data; the same settings and versions draw the same channels."""
        ...

    def versions(self) -> dict[str, str]:
        """The versions of the packages that draw, by name."""
        ...

    def make(self, n: int, seed: int) -> tuple[Tensor, float]:
        """`n` channels `(n, antennas, symbols, subcarriers)` of unit power each, and their mean power before."""
        ...


@dataclass
class _Shards:
    """The shards of a dataset that is being drawn."""

    folder: Path
    manifest: dict[str, Any]  # as it was read or begun
    whole: dict[str, tuple[str, float]]  # SHA-256 and mean power before normalisation of those that are there, by name

    def write_manifest(self, *, finished: bool) -> None:
        """Write the manifest with the shards that are there, in their order."""
        whole = dict(sorted(self.whole.items()))
        listed = {"shards": list(whole), "finished": finished, "sha256": [sha for sha, _ in whole.values()]}
        manifest = self.manifest | listed | {"raw_power": [round(power, 6) for _, power in whole.values()]}
        text = json.dumps(manifest | {"hash": whole_hash(manifest)}, indent=1)
        write_whole(self.folder / MANIFEST, (text + "\n").encode(), follow=False)

    def draw(self, name: str, recipe: Recipe, draws: int, seed: int) -> None:
        """Draw one shard and write it.

        Raises:
            ValueError: If the recipe draws a channel that is not finite.
        """
        drawn, power = recipe.make(draws, seed)
        if not drawn.isfinite().all():
            raise ValueError(f"{type(recipe).__name__} drew channels that are not finite (seed {seed}).")
        content = io.BytesIO()
        np.save(content, torch.view_as_real(drawn).half().numpy())
        write_whole(self.folder / name, content.getvalue(), follow=False)
        self.whole[name] = file_hash(self.folder / name), power


@checks_arguments
def draw_channels(
    recipe: Recipe,
    draws: int,
    path: str | Path,
    *,
    seed: int = 0,
    shard_draws: int = SHARD_DRAWS,
    on_event: Callable[[DrawingEvent], None] | None = None,
) -> Dataset:
    """Draw channels into a folder, or go on where that was left; with all there, nothing is drawn.

    Args:
        recipe: What to draw, such as `TR38901("umi")`.
        draws: How many channels to draw.
        path: The folder; it is made if there is none.
        seed: The seed of all draws.
        shard_draws: How many draws one file holds; the last file may hold fewer.
        on_event: Called with each event.

    Raises:
        ValueError: If the folder holds something else, or another process draws into it.
        ImportError: If what draws them is not installed.
        OSError: If the disk is full; what was drawn is kept.
    """
    exhaust(drawing_events(recipe, draws, path, seed=seed, shard_draws=shard_draws), on_event)
    return Dataset(str(path))


def cached_channels(
    recipe: Recipe, draws: int, *, seed: int = 0, on_event: Callable[[DrawingEvent], None] | None = None
) -> Dataset:
    """The dataset of a recipe in the user's cache, drawn if it is not there: `$XDG_CACHE_HOME/fanfold/channels`.

    Args:
        recipe: What to draw, such as `TR38901("umi")`.
        draws: How many channels the dataset has.
        seed: The seed of all draws.
        on_event: Called with each event of the drawing, if there is one.

    Raises:
        ImportError: If it is not there, and what draws it is not installed.
    """
    described = recipe.describe() | {"draws": draws, "seed": seed}
    key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fanfold" / "channels"
    path = cache / f"{described.get('model', 'channels')}-{key}"
    try:
        if (path / MANIFEST).is_file():
            return Dataset(str(path))
    except ValueError:  # unfinished or damaged: what is missing is drawn
        pass
    try:
        return draw_channels(recipe, draws, path, seed=seed, on_event=on_event)
    except ValueError as error:
        raise ValueError(f"{error} That folder is a cache: remove it and try again.") from error


def drawing_events(
    recipe: Recipe, draws: int, path: str | Path, *, seed: int = 0, shard_draws: int = SHARD_DRAWS
) -> Generator[DrawingEvent, None, None]:
    """The drawing beneath `draw_channels`; left early, it keeps every shard that was finished.

    Args:
        recipe: What to draw, such as `TR38901("umi")`.
        draws: How many channels to draw.
        path: The folder; it is made if there is none.
        seed: The seed of all draws.
        shard_draws: How many draws one file holds; the last file may hold fewer.
    """
    if draws < 2 or shard_draws < 1 or seed < 0:
        raise ValueError(
            f"{draws} draws in shards of {shard_draws} with seed {seed}; pass at least 2 draws, one to train on and "
            "one to test, a shard of one or more, and a seed from 0 on."
        )
    folder, began, facts = Path(path), time.perf_counter(), _facts(recipe, draws, seed, shard_draws)
    sizes = {
        f"{number:05d}.npy": min(shard_draws, draws - first)
        for number, first in enumerate(range(0, draws, shard_draws))
    }
    with sole_writer(folder):
        for leftover in folder.glob(".*.npy.*"):  # half-written by a process that was killed
            leftover.unlink()
        shards = _begun(folder, facts)
        done = before = sum(size for name, size in sizes.items() if name in shards.whole)
        yield DrawingStarted(str(path), draws, done)
        for number, (name, size) in enumerate(sizes.items()):
            if name in shards.whole:
                continue
            shards.draw(name, recipe, size, shard_seed(seed, number))
            shards.write_manifest(finished=len(shards.whole) == len(sizes))
            done += size
            yield DrawsKept(done)
    yield DrawingFinished(str(path), draws, done - before, time.perf_counter() - began)


def shard_seed(seed: int, number: int) -> int:
    """The seed of one shard: 64 bits of NumPy's `SeedSequence`."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])


def _facts(recipe: Recipe, draws: int, seed: int, shard_draws: int) -> dict[str, Any]:
    """What the manifest says before anything is drawn."""
    facts = {"version": VERSION, "layout": asdict(recipe.layout), "recipe": recipe.describe(), "seed": seed}
    return facts | {
        "draws": draws,
        "shard_draws": shard_draws,
        "normalisation": NORMALISATION,
        "drawn_by": recipe.versions(),
    }


def _begun(folder: Path, facts: dict[str, Any]) -> _Shards:
    """The shards of a folder that are whole; an empty folder gets its manifest.

    Raises:
        ValueError: If the folder holds channels of another recipe, or something else.
    """
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else None
    check_same(folder, None if manifest is None else {name: manifest.get(name) for name in facts}, facts)
    if manifest is None:
        made_with = {name: version(name) for name in ("fanfold", "torch", "numpy")}
        shards = _Shards(folder, facts | {"shards": [], "made_with": made_with}, {})
        shards.write_manifest(finished=False)
        return shards
    listed = zip(manifest["shards"], manifest["sha256"], manifest["raw_power"])
    whole = {name: (sha, power) for name, sha, power in listed if _is_whole(folder / name, sha)}
    return _Shards(folder, manifest, whole)


def _is_whole(file: Path, sha: str) -> bool:
    return file.is_file() and file_hash(file) == sha
