"""The page on channels: its blocks run in order and print what it says, and its commands are some."""

import re
import shlex
from pathlib import Path

import pytest

from fanfold.cli import main as cli

PAGE = (Path(__file__).parent.parent / "docs/channels.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_blocks_run_and_print_what_the_page_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    said = []
    for block in blocks("python"):
        exec(block, names)
        said += re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
    printed = capsys.readouterr().out.splitlines()
    assert len(said) == 5
    # a tuple of what print was given shows commas between
    assert [line.replace(", ", " ") for line in said] == [line.replace(", ", " ") for line in printed]


def test_the_commands_of_the_page_are_some(tmp_path, monkeypatch):
    pytest.importorskip("sionna")
    monkeypatch.chdir(tmp_path)
    short = "--steps 1 --batch 2 --validate-every 1 --validation-samples 2 --threads 1"
    for line in "".join(blocks("sh")).replace("--n 10000", "--n 20").splitlines():
        few = {"train": short, "evaluate": "--samples 20", "report": "--samples 20"}.get(line.split()[1], "")
        words = shlex.split(f"{line} {few} {'--layers 1' if ' oamp ' in line else ''}")
        assert words[0] == "fanfold"
        assert cli.run(words[1:]) == 0
    assert (tmp_path / "umi-64.png").is_file()
