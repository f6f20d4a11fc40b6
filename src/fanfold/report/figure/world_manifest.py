"""What a page of a world embeds: its programs, its unknowns, and the words around them."""

from typing import Any

from fanfold.report.figure.manifest import Blocks, Packed, packed
from fanfold.report.figure.worlds import kept_world


def pack_world(name: str) -> Packed:
    """The manifest and the payload of a page of a world.

    Args:
        name: The world, of `worlds.PICTURED`.

    Raises:
        ValueError: If there is no such world.

    Example:
        >>> from fanfold.report.figure.world_manifest import pack_world
        >>> [row["key"] for row in pack_world("rf").manifest["presets"][0]["estimators"]]
        ['FISTA', 'OAMP', 'unfolded OAMP']
    """
    facts, programs, signals, _ = kept_world(name)
    blocks, (count, n) = Blocks(), signals.shape
    rows: list[dict[str, Any]] = [
        {"key": row["key"], "program": row["program"], "layers": row["layers"], "whole": True, "learned": False}
        | {"values": {}, "follows": {}, "deviations": {}}
        for row in facts["estimators"]
    ]
    density, sparsities = facts["density"], facts["sparsities"]
    preset = {
        "key": name,
        "label": facts["title"],
        "n": n,
        "m": programs["measured"].outputs["x_hat"],
        "parts": facts["parts"],
        "count": count,
        "received_power": facts["received_power"],
        "density": density,
        "limits": facts["limits"] or [[None] * len(facts["snrs_db"])] * len(sparsities),
        "arrays": {},
        "signals": blocks.numbers(signals),
        "programs": blocks.programs(programs),
        "estimators": rows,
    }
    manifest = {
        "layers": facts["layers"],
        "snrs": facts["snrs_db"],
        "sparsities": sparsities,
        "sliders": ["snr", "mismatch", "gain", "layer", *(["sparsity"] if density else [])],
        "home": {"snr": facts["snr_db"], "sparsity": density or 1, "layer": facts["layers"]},
        "note": facts["note"],
        "view": facts["view"],
        "count": count,
        "presets": [preset],
    }
    return packed(manifest, blocks)._replace(path=f"paths/{name}.js")
