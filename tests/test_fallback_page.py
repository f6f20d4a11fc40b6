"""The page on falling back: its example runs, and ends at the baseline."""

import re
from pathlib import Path

PAGE = (Path(__file__).parent.parent / "docs/fallback.md").read_text()


def test_the_example_falls_back():
    names: dict = {}
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(code, names)
    x, obs, guard = names["x"], names["obs"], names["guard"]
    lost = (names["x_hat"] - x).square().sum()
    assert lost <= 1.05 * (names["safe"](obs).x - x).square().sum()
    assert lost < (names["net"](obs).x - x).square().sum()
    assert guard.condition == "fallback"
