"""The page on simulators: its blocks run in order and print what it says."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fanfold as ff
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


def test_a_program_gets_and_may_answer_what_the_page_shows(folder):
    """The JSON of draw 0, to the last letter; and the forms of an answer."""
    (shown,) = blocks("json")
    box = ff.problems.Box(low=(-0.5, 0.2), high=(0.5, 1.0))
    for form, given in (("json", shown), ("text", re.findall(r"it is `(-.*?)`", PAGE)[0] + "\n")):
        heard = ff.problems.Program("sh -c 'cat > heard; echo 1'", box, parameters_as=form)
        heard.draw(0)
        assert Path("heard").read_text() == given.removesuffix("\n") + "\n" * (form == "text")
    command = re.findall(r'Program\(\n\s+"(.*)"', PAGE)[0]
    beam = ff.problems.Program(command, box)
    seed = json.loads(shown)["seed"]
    words = shlex.split(command.replace("{seed}", str(seed)))
    printed = subprocess.run(words, input=shown, capture_output=True, text=True, check=True).stdout
    assert torch.equal(torch.tensor([float(w) for w in printed.split()]), beam.draw(0)[1].y[0])
    answers = blocks("text")
    assert len(answers) == 3
    for answer in answers:
        Path("answer").write_text(answer)
        _, obs = ff.problems.Program("cat answer", box).draw(0)
        assert torch.equal(obs.y[0], torch.tensor([float(w) for w in answers[0].split()]))
        assert (obs.y - beam.draw(0)[1].y[:, :3]).abs().max() < 5e-5  # four digits are shown


def test_the_command_of_the_page_is_one(folder, capsys):
    command = blocks("sh")[0].split("\nfanfold train")[0].replace("\\\n", " ").replace("--count 200", "--count 15")
    words = shlex.split(command)
    assert words[0] == "fanfold"
    assert cli.run([*words[1:], "--json"]) == 0
    assert '"good"' in capsys.readouterr().out
