"""Drawing a dataset of channels: a generator of typed events that the API and the command line consume.

Every shard has a seed of its own, told by the dataset's and its number, so that what was drawn with breaks is, bit for
bit, what would have been drawn without.
"""

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fanfold.core.files import write_whole
from fanfold.propagation.base import Layout
from fanfold.propagation.dataset import MANIFEST, VERSION, Dataset, file_hash, read_manifest, whole_hash

NORMALISATION = "each draw to unit mean power over antennas, symbols and subcarriers"


class Recipe(Protocol):
    """What draws channels from a seed."""

    @property
    def layout(self) -> Layout:
        """Of its channels."""
        ...

    def describe(self) -> dict[str, Any]:
        """Its settings as plain data: those of the same settings and versions draw the same."""
        ...

    def versions(self) -> dict[str, str]:
        """Of the packages that draw."""
        ...

    def make(self, n: int, seed: int) -> tuple[Tensor, float]:
        """`n` channels `(n, antennas, symbols, subcarriers)` of unit power each, and their mean power before."""
        ...


@dataclass(frozen=True)
class DrawingStarted:
    """Drawing begins; `there` of the `draws` are there already."""

    path: str
    draws: int
    there: int


@dataclass(frozen=True)
class ShardDrawn:
    """A shard is on the disk; `done` draws are now there."""

    done: int


@dataclass(frozen=True)
class DrawingFinished:
    """All draws are there; `made` of them were made now."""

    path: str
    draws: int
    made: int
    seconds: float


DrawingEvent = DrawingStarted | ShardDrawn | DrawingFinished


def draw_channels(
    recipe: Recipe, draws: int, path: str | Path, *, on_event: Callable[[DrawingEvent], None] | None = None, **settings
) -> Dataset:
    """Draw channels into a folder, or go on where that was left; with all there, nothing is drawn.

    Args:
        recipe: What to draw, such as `TR38901("umi")`.
        draws: How many.
        path: The folder; made if there is none.
        on_event: Called with each event.
        **settings: As of `drawing_events`.

    Raises:
        ValueError: If the folder holds something else.
        ImportError: If what draws them is not installed.
    """
    for event in drawing_events(recipe, draws, path, **settings):
        if on_event:
            on_event(event)
    return Dataset(str(path))


def cached_channels(
    recipe: Recipe, draws: int, *, seed: int = 0, on_event: Callable[[DrawingEvent], None] | None = None
) -> Dataset:
    """The dataset of a recipe in the user's cache, drawn if it is not there: `$XDG_CACHE_HOME/fanfold/channels`.

    Raises:
        ImportError: If it is not there, and what draws it is not installed.
    """
    told = recipe.describe() | {"draws": draws, "seed": seed}
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fanfold" / "channels"
    path = cache / f"{told.get('model', 'channels')}-{key}"
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
    recipe: Recipe, draws: int, path: str | Path, *, seed: int = 0, shard_draws: int = 1000
) -> Iterator[DrawingEvent]:
    """The drawing beneath `draw_channels`; left early, it keeps every shard that was finished.

    Args:
        recipe: What to draw.
        draws: How many.
        path: The folder.
        seed: Of the draws.
        shard_draws: Draws in a shard, the last one may have fewer.
    """
    if draws < 2 or shard_draws < 1 or seed < 0:
        raise ValueError(
            f"{draws} draws in shards of {shard_draws} with seed {seed}; pass at least 2 draws, one to train on and "
            "one to test, a shard of one or more, and a seed from 0 on."
        )
    folder, began, facts = Path(path), time.perf_counter(), _facts(recipe, draws, seed, shard_draws)
    with _alone(folder):
        for left in folder.glob(".*.npy.*"):  # half-written by a process that was killed
            left.unlink()
        manifest = _begun(folder, facts)
        there = manifest["shards"]
        sizes = [min(shard_draws, draws - first) for first in range(0, draws, shard_draws)]
        names = [f"{number:05d}.npy" for number in range(len(sizes))]
        done = before = sum(size for name, size in zip(names, sizes) if name in there)
        yield DrawingStarted(str(path), draws, done)
        for number, (name, size) in enumerate(zip(names, sizes)):
            if name in there:
                continue
            there[name] = _store(folder / name, recipe, size, shard_seed(seed, number))
            manifest["finished"] = len(there) == len(names)
            _write(folder, manifest)
            done += size
            yield ShardDrawn(done)
    yield DrawingFinished(str(path), draws, done - before, time.perf_counter() - began)


def shard_seed(seed: int, number: int) -> int:
    """The seed of one shard: 64 bits of NumPy's `SeedSequence`."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])


def _facts(recipe: Recipe, draws: int, seed: int, shard_draws: int) -> dict[str, Any]:
    """What tells a dataset before it is drawn, as JSON gives it back."""
    told = {"version": VERSION, "layout": asdict(recipe.layout), "recipe": recipe.describe(), "seed": seed}
    told |= {"draws": draws, "shard_draws": shard_draws, "normalisation": NORMALISATION, "drawn_by": recipe.versions()}
    return json.loads(json.dumps(told))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process draws into the folder meanwhile; the system lets go of the lock of one that was killed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # a system without: two writers at once are the user's affair
            pass
        except BlockingIOError as error:
            raise ValueError(f"another process draws into {folder}; wait for it, or pass another folder.") from error
        yield


def _begun(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a folder with the shards that are whole; a new one where there is none.

    Raises:
        ValueError: If the folder holds channels of another recipe.
    """
    if not (folder / MANIFEST).is_file():
        if any(not file.name.startswith(".") for file in folder.iterdir()):  # those are ours, of a first moment
            raise ValueError(f"{folder} is not empty and holds no dataset of channels; pass another folder.")
        manifest = facts | {"shards": {}, "made_with": _versions(), "finished": False}
        _write(folder, manifest)
        return manifest
    manifest = read_manifest(folder)
    for key, value in facts.items():
        if manifest.get(key) != value:
            raise ValueError(
                f"{folder} holds channels of another recipe: {_difference(key, manifest.get(key), value)}; "
                "pass another folder, or the flags that this one was drawn with."
            )
    told = zip(manifest["shards"], manifest["sha256"], manifest["raw_power"])
    whole = {name: (sha, power) for name, sha, power in told if _is_whole(folder / name, sha)}
    return manifest | {"shards": whole, "finished": manifest["finished"] and len(whole) == len(manifest["shards"])}


def _difference(key: str, there: Any, wanted: Any) -> str:
    if isinstance(there, dict) and isinstance(wanted, dict):
        for name in wanted | there:
            if there.get(name) != wanted.get(name):
                return _difference(name, there.get(name), wanted.get(name))
    return f"{key} is {there} there and {wanted} here"


def _is_whole(file: Path, sha: str) -> bool:
    return file.is_file() and file_hash(file) == sha


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("fanfold", "torch", "numpy")}


def _store(file: Path, recipe: Recipe, draws: int, seed: int) -> tuple[str, float]:
    """Draw a shard and write it; its SHA-256 and the mean power before normalisation."""
    drawn, power = recipe.make(draws, seed)
    if not drawn.isfinite().all():
        raise ValueError(f"{type(recipe).__name__} drew channels that are not finite (seed {seed}).")
    content = io.BytesIO()
    np.save(content, torch.view_as_real(drawn).half().numpy())
    write_whole(file, content.getvalue())
    return file_hash(file), power


def _write(folder: Path, manifest: dict[str, Any]) -> None:
    """The manifest with the shards that are there, in their order."""
    shards = dict(sorted(manifest["shards"].items()))
    told = {"shards": list(shards), "sha256": [s[0] for s in shards.values()]}
    whole = manifest | told | {"raw_power": [round(s[1], 6) for s in shards.values()]}
    text = json.dumps(whole | {"hash": whole_hash(whole)}, indent=1)
    write_whole(folder / MANIFEST, (text + "\n").encode())
