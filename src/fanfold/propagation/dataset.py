"""Channels on disk: a folder with a manifest and memory-mapped shards of 16-bit pairs `(draws, …, 2)`."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fanfold.propagation.base import Layout, Part

MANIFEST = "channels.json"
VERSION = 1


@dataclass(frozen=True)
class Dataset:
    """A stored set of channels. The last `held_out_share` of the draws, other topologies, is kept for testing.

    Raises:
        ValueError: If there is no dataset, or it is of another version, unfinished or damaged.
    """

    path: str
    held_out_share: float = 0.1

    def __post_init__(self):
        _ = self.manifest, self.shards

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What the folder says of itself."""
        file = Path(self.path) / MANIFEST
        if not file.is_file():
            raise ValueError(f"there is no dataset of channels in {self.path}: no {MANIFEST}; draw one first.")
        manifest = json.loads(file.read_text())
        if manifest.get("version") != VERSION:
            raise ValueError(f"{self.path} is of version {manifest.get('version')}; this fanfold reads {VERSION}.")
        return manifest

    @cached_property
    def layout(self) -> Layout:
        """Shape and numerology of its channels."""
        return Layout(**self.manifest["layout"])

    @cached_property
    def shards(self) -> list[np.ndarray]:
        """Memory-mapped, each `(draws, antennas, symbols, subcarriers, 2)`."""
        files = [Path(self.path) / name for name in self.manifest["shards"]]
        return [np.load(file, mmap_mode="r") for file in files]

    @property
    def count(self) -> int:
        """Draws in all."""
        return sum(len(shard) for shard in self.shards)

    def rows(self, part: Part) -> range:
        """Which draws a part holds."""
        held_out = max(1, round(self.held_out_share * self.count))
        return range(self.count - held_out) if part == "train" else range(self.count - held_out, self.count)

    def draw(self, n: int, generator: torch.Generator, part: Part = "train") -> Tensor:
        """`n` channels of a part; to train on with replacement, to test each at most once."""
        rows = self.rows(part)
        if part == "test":
            pick = torch.randperm(len(rows), generator=generator)[:n]
        else:
            pick = torch.randint(len(rows), (n,), generator=generator)
        return self.read(rows.start + pick)

    def read(self, pick: Tensor) -> Tensor:
        """The channels of these rows `(n,)`."""
        each = len(self.shards[0])
        out = torch.empty(len(pick), *self.layout.shape, 2)
        for shard, rows in enumerate(self.shards):
            mine = (pick // each == shard).nonzero().flatten()
            if len(mine):
                place = (pick[mine] - shard * each).numpy()
                order = np.argsort(place)  # the disk is read forwards
                out[mine[torch.from_numpy(order)]] = torch.from_numpy(rows[place[order]].astype(np.float32))
        return torch.view_as_complex(out) * self.manifest.get("scale", 1.0)


def write_manifest(path: Path, layout: Layout, shards: list[str], **facts: Any) -> None:
    """The manifest of a finished dataset."""
    text = json.dumps({"version": VERSION, "layout": asdict(layout), "shards": shards} | facts, indent=1)
    (path / MANIFEST).write_text(text + "\n")
