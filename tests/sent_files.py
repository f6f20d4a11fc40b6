"""Files as somebody might send them, and what reading them may end in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def refused_or_read(read: Callable[[], Any]) -> str | None:
    """The sentence with which a file is refused; anything else than such a sentence is an error of this test."""
    try:
        read()
    except (ValueError, ImportError) as refusal:
        said = str(refusal)
        assert said, "a refusal says why"
        return said
    return None


FAR = """
[[axis]]
kind = "linear-array"
elements = 4
spacing = 0.5
field = 0.8
voxels = 6

[[axis]]
kind = "positions"
positions = [0.0, 0.5, 1.2]
field = [-0.5, 0.5]
voxels = 3

[[axis]]
kind = "frequencies"
first_hz = 76e9
bandwidth_hz = 1e8
count = 4
range_m = [1.0, 1.5]
voxels = 4

[[axis]]
kind = "fourier"
rows = [0, 3, 4]
voxels = 5

[[axis]]
kind = "matrix"
file = "azimuth.npy"
"""
NEAR = """
[near-field]
transmitters_m = [[-0.1, 0.0, 0.0], [0.1, 0.0, 0.0]]
receivers_m = "receivers.npy"
frequencies_hz = [9e9, 10e9]
lowest_m = [-0.2, 0.0, 0.4]
highest_m = [0.2, 0.0, 0.8]
voxels = [4, 1, 4]
"""


def pairs(folder: Path, **arrays: np.ndarray) -> str:
    rng = np.random.default_rng(0)
    A, x = rng.standard_normal((4, 6)), rng.standard_normal((50, 6))
    np.savez(folder / "pairs.npz", **({"x": x, "y": x @ A.T, "A": A} | arrays))
    return str(folder / "pairs.npz")


def dataset(folder: Path, **facts: Any) -> Path:
    """A folder of channels with one shard."""
    folder.mkdir(exist_ok=True)
    np.save(folder / "00000.npy", np.ones((6, 2, 1, 3, 2), np.float16))
    layout = {"array": [2], "symbols": 1, "subcarriers": 3, "spacing_hz": 30e3, "carrier_hz": 3.5e9}
    told = {"version": 1, "layout": layout, "shards": ["00000.npy"], "draws": 6, "finished": True}
    recipe = {"recipe": {"model": "x"}, "sha256": ["0"], "raw_power": [1.0], "drawn_by": {}, "hash": "0", "seed": 0}
    (folder / "channels.json").write_text(json.dumps(told | recipe | facts))
    return folder
