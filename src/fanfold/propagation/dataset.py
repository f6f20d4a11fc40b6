"""Channels on disk: a folder with a manifest and memory-mapped shards of 16-bit floating-point pairs.

channels.json   layout, recipe, seed, versions, names of the shards and their SHA-256
00000.npy …     float16, (draws, antennas, symbols, subcarriers, 2)

Draws have unit mean power, so that float16 rounds each entry by 73 dB below itself and needs no scale: a common scale
of 16-bit integers would serve strong entries better by a few dB and faded ones worse.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fanfold.core.data_files import beside, json_object, regular_file, understanding
from fanfold.core.files import file_hash
from fanfold.core.settings import Checked, kinds_of, made, within
from fanfold.propagation.base import Layout, Part, picked, rows_of

MANIFEST = "channels.json"
VERSION = 1
DRAW_AGAIN = "the same `fanfold channels draw` draws what is missing anew"


@dataclass(frozen=True)
class Manifest(Checked):
    """What the manifest of a dataset says, of which more may stand there.

    Example:
        >>> from fanfold.propagation.dataset import Manifest
        >>> Manifest(version=1, layout={}, shards=("00000.npy",), draws=5).finished
        True
    """

    version: int
    layout: Mapping[str, Any]
    shards: tuple[str, ...]  # names of files in the folder
    draws: int
    finished: bool = True
    hash: str = ""
    sha256: tuple[str, ...] = ()  # of each shard
    raw_power: tuple[float, ...] = ()  # mean power of each shard before scaling
    recipe: Mapping[str, Any] = field(default_factory=dict)
    drawn_by: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset(Checked):
    """Channels that `draw_channels` drew, in their folder. The last `held_out_share` of the draws is kept for testing.

    Attributes:
        path: The folder.
        held_out_share: The share of the draws that is for testing; half as many before them are for validation.

    Raises:
        ValueError: If there is no dataset, or it is of another version, unfinished or damaged.

    Example:
        >>> import fanfold as ff
        >>> shipped = ff.propagation.source_of("umi")
        >>> shipped.count, shipped.layout.shape, len(shipped.rows("test"))
        (1280, (32, 1, 24), 128)
    """

    path: str
    held_out_share: float = 0.1

    def __post_init__(self):
        if not 0 < self.held_out_share < 1:
            raise ValueError(f"held_out_share is {self.held_out_share}; it is between 0 and 1.")
        if not self.manifest.get("finished", True):
            wanted = self.manifest["draws"]
            raise ValueError(f"{self.path} is unfinished: {self.count} of {wanted} draws are there; {DRAW_AGAIN}.")
        if self.count != self.manifest["draws"]:
            wanted = self.manifest["draws"]
            raise ValueError(f"{self.path} holds {self.count} draws and its manifest says {wanted}; {DRAW_AGAIN}.")
        if self.count < 2:
            raise ValueError(f"{self.path} holds {self.count} draws; one to train on and one to test are the least.")

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What the folder says of itself, read once."""
        return read_manifest(Path(self.path))

    @cached_property
    def layout(self) -> Layout:
        """The shape and numerology of its channels."""
        return made(Layout, self.manifest["layout"], f"the layout in {Path(self.path) / MANIFEST}")

    @cached_property
    def shards(self) -> list[np.ndarray]:
        """The files, memory-mapped, each `(draws, antennas, symbols, subcarriers, 2)` of float16."""
        return [opened(beside(Path(self.path), name), self.layout) for name in self.manifest["shards"]]

    @property
    def count(self) -> int:
        """How many draws it holds in all."""
        return sum(len(shard) for shard in self.shards)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of layout, recipe, seed and all draws."""
        return self.manifest.get("hash", "")

    def verify(self) -> None:
        """Read every shard and hold it against its SHA-256.

        Raises:
            ValueError: If one is not what was written.
        """
        for name, sha in zip(self.manifest["shards"], self.manifest.get("sha256", [])):
            if file_hash(file := beside(Path(self.path), name)) != sha:
                raise ValueError(f"{file} is damaged: its SHA-256 is not the manifest's; {DRAW_AGAIN}.")

    def facts(self) -> dict[str, Any]:
        """What the manifest says of the draws: recipe, seed, versions, hash, and the power before scaling."""
        manifest = self.manifest
        facts: dict[str, Any] = {"draws": self.count, "test_draws": len(self.rows("test"))}
        facts |= {name: value for name, value in manifest.get("recipe", {}).items() if value is not None}
        facts |= {name: manifest[name] for name in ("seed", "normalisation") if name in manifest}
        facts |= manifest.get("drawn_by", {}) | ({"hash": self.fingerprint} if self.fingerprint else {})
        if powers := manifest.get("raw_power"):
            shares = [len(shard) / self.count for shard in self.shards]
            facts["power_before"] = round(sum(p * share for p, share in zip(powers, shares, strict=True)), 3)
        return facts

    def rows(self, part: Part) -> range:
        """The draws that a part holds."""
        return rows_of(part, self.count, self.held_out_share)

    def draw(self, n: int, generator: torch.Generator, part: Part = "train") -> Tensor:
        """`n` channels of a part; to train on with replacement, else each at most once."""
        return self.read(picked(self.rows(part), n, generator, part))

    def read(self, pick: Tensor) -> Tensor:
        """The channels of these rows `(n,)`: `(n, antennas, symbols, subcarriers)`, complex64."""
        starts = np.cumsum([0, *(len(shard) for shard in self.shards)])
        rows = pick.numpy()
        shard_of = np.searchsorted(starts, rows, side="right") - 1
        out = torch.empty(len(pick), *self.layout.shape, 2)
        for number, shard in enumerate(self.shards):
            places = np.flatnonzero(shard_of == number)
            if len(places):
                places = places[np.argsort(rows[places])]  # the disk is read forwards
                out[torch.from_numpy(places)] = torch.from_numpy(shard[rows[places] - starts[number]]).float()
        return torch.view_as_complex(out)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
        ValueError: If there is none, or none that this version reads.
    """
    file = path / MANIFEST
    missing = f"there is no dataset of channels in {path}: no {MANIFEST}; draw one: fanfold channels draw."
    regular_file(file, missing)
    with within(f"{file} is damaged, remove the folder and draw it anew"):
        manifest = json_object(file)
        made(Manifest, {name: manifest[name] for name in kinds_of(Manifest) if name in manifest}, "the manifest")
    if manifest["version"] != VERSION:
        raise ValueError(f"{path} is of version {manifest['version']}; this fanfold reads {VERSION}.")
    return manifest


def opened(file: Path, layout: Layout) -> np.ndarray:
    """A memory-mapped shard.

    Raises:
        ValueError: If it is missing, cut short or of another layout.
    """
    regular_file(file, f"{file} is missing; {DRAW_AGAIN}.")
    with understanding(file, "a shard of channels", f"it is truncated or damaged: {DRAW_AGAIN}"):
        shard = np.lib.format.open_memmap(file, mode="r")
    if shard.dtype != np.float16 or shard.shape[1:] != (*layout.shape, 2):
        expected = (*layout.shape, 2)
        raise ValueError(
            f"{file} holds {shard.dtype} draws of shape {shard.shape[1:]}, but the manifest says float16 {expected}; "
            "it is of another dataset: numerologies and arrays are not mixed in one folder."
        )
    return shard


def whole_hash(manifest: dict[str, Any]) -> str:
    """The SHA-256 of what makes a dataset itself: layout, recipe, seed and the hashes of its shards."""
    hashed = {key: manifest.get(key) for key in ("layout", "recipe", "seed", "sha256")}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()
