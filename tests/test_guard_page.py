"""The page on guards runs, and its numbers are those of the code."""

import re
from pathlib import Path

import fanfold as ff
from fanfold.guard.monitoring import COMBINED, SCORES

PAGE = (Path(__file__).parent.parent / "docs/guard.md").read_text()


def test_the_code_of_the_page_runs_and_says_what_it_says(capsys):
    names: dict = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)), names)
    printed = capsys.readouterr().out
    assert "are unlike the 1499 draws of calibration" in printed
    assert printed.splitlines()[-1] == "True"


def test_the_table_has_every_score():
    assert set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)) == {*SCORES, COMBINED}


def test_the_numbers_of_draws_are_those_that_are_needed():
    said = re.findall(r"([\d ]+) for ([\d.]+) %", PAGE)
    assert len(said) == 3
    assert all(ff.guard.draws_needed(float(rate) / 100) == int(count.replace(" ", "")) for count, rate in said)
