"""The page on simulators: its blocks run in order and print what it says."""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from fanfold.cli import main as cli

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/simulators.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with the examples, where `python` is this one."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_the_blocks_run_and_print_what_the_page_says(folder, capsys):
    names: dict = {}
    for block in blocks("python"):
        exec(block, names)
        said = re.findall(r"^print\((.*)\)  # (.*)$", block, re.MULTILINE)
        for expression, expected in said:
            value = eval(expression, names)
            if "dB" in expected:
                error = value.rows[0]["nmse_db"]
                # rounding elsewhere takes training another way; the interval of the test draws is as wide
                assert error == pytest.approx(float(expected.split(" dB")[0].replace("−", "-")), abs=1.5)
            else:
                assert value == eval(expected)
    assert capsys.readouterr().out.count("network") == 2

    x, obs = names["simulator"].draw(17)
    again, obs_again = names["simulator"].draw(17)
    assert torch.equal(x, again)
    assert torch.equal(obs.y, obs_again.y)


def test_the_command_of_the_page_is_one(folder, capsys):
    command = blocks("sh")[0].split("\nfanfold train")[0].replace("\\\n", " ").replace("--count 200", "--count 15")
    words = shlex.split(command)
    assert words[0] == "fanfold"
    assert cli.run([*words[1:], "--json"]) == 0
    assert '"good"' in capsys.readouterr().out
