"""Plain data as strict JSON, with infinity and NaN, for which it has no words, as text."""

import json
import math
from collections.abc import Mapping
from typing import Any

UNBOUNDED = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}  # as they are spelled


def strict_json(data: Mapping[str, Any], indent: int | None = None) -> str:
    """Plain data as strict JSON: infinity and NaN, which it lacks, are text, which `revived` makes numbers again.

    Example:
        >>> from fanfold.core.strict_json import strict_json
        >>> strict_json({"half_width": float("inf")})
        '{"half_width": "Infinity"}'
    """
    return json.dumps(spelled(data), indent=indent, allow_nan=False)


def spelled(value: Any) -> Any:
    """Plain data with infinity and NaN as text, as `strict_json` has them; of files that were written before too."""
    match value:
        case float() if not math.isfinite(value):
            return next(word for word, number in UNBOUNDED.items() if repr(number) == repr(float(value)))
        case Mapping():
            return {key: spelled(part) for key, part in value.items()}
        case list() | tuple():
            return [spelled(part) for part in value]
        case _:
            return value


def revived(value: Any) -> Any:
    """What `strict_json` was given, of what a reader of JSON makes of it."""
    match value:
        case str():
            return UNBOUNDED.get(value, value)
        case Mapping():
            return {key: revived(part) for key, part in value.items()}
        case list():
            return [revived(part) for part in value]
        case _:
            return value
