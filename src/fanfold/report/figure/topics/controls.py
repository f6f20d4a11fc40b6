"""Sliders of a topic, as the page's manifest has them: values, and each of them in words."""

from collections.abc import Callable, Sequence
from typing import Any

Control = dict[str, Any]


def slider(name: str, label: str, values: Sequence[float], home: float, say: Callable[[float], str]) -> Control:
    """A slider over some values, whose words for each are in the page.

    Args:
        name: What the topic's module calls it.
        label: What the reader sees.
        values: Where it may stand, in order.
        home: Where it stands at first, one of the values.
        say: A value in words, with its unit.

    Raises:
        ValueError: If it stands at first where it may not stand.

    Example:
        >>> from fanfold.report.figure.topics.controls import slider
        >>> slider("gain", "Gain", [1, 2], 1, "{:.1f} times".format)["said"]
        ['1.0 times', '2.0 times']
    """
    if home not in values:
        raise ValueError(f"{name} stands at {home} at first, and may stand at {list(values)}; choose one of these.")
    said = [say(value).replace("-", "−") for value in values]
    return {"name": name, "label": label, "values": list(values), "said": said, "home": home}


def decibels(value: float) -> str:
    """A level in words."""
    return f"{value:g} dB"


def per_cent(value: float) -> str:
    """A share in words."""
    return f"{100 * value:.3g} %"
