"""What one observation is: the kinds that a problem can say, and how many axes each has."""

from typing import Literal

Kind = Literal["vector", "sequence", "image", "set"]

AXES: dict[str, int] = {
    "vector": 1,  # (m)
    "sequence": 2,  # (channels, length)
    "image": 3,  # (channels, h, w)
    "set": 2,  # (count, features), in no order
}
