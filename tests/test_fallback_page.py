"""The page on falling back: its examples run; one ends at the baseline, one says what is proved, one is a program."""

import re
from pathlib import Path

PAGE = (Path(__file__).parent.parent / "docs/fallback.md").read_text()


CODE, PROVING, PROGRAM, TEACHING = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_falls_back():
    names: dict = {}
    exec(CODE, names)
    x, obs, guard = names["x"], names["obs"], names["guard"]
    lost = (names["x_hat"] - x).square().sum()
    assert lost <= 1.05 * (names["safe"](obs).x - x).square().sum()
    assert lost < (names["net"](obs).x - x).square().sum()
    assert guard.condition == "fallback"


def test_settings_are_proved_and_a_program_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(CODE.replace("steps=100", "steps=20") + PROVING, names)
    tested = names["tested"]
    assert len(tested.cells) == 8
    assert tested.best is not None
    assert tested.best.worst < 0.8
    exec(PROGRAM, names)
    assert (tmp_path / "guarded" / "estimator.c").stat().st_size > 1000


def test_a_hundred_pairs_teach_it_the_new_place():
    names: dict = {}
    exec(CODE + TEACHING, names)
    x, obs = names["x"], names["obs"]
    error, before, safe = ((names[of](obs).x - x).square().sum() for of in ("better", "net", "safe"))
    assert error < 0.8 * before
    assert error <= safe
