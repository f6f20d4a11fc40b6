"""The pages of studies: claim, source, verdict, figures, goals and how to run each again, and one index over all."""

import html
import inspect
import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fanfold.core.files import write_whole
from fanfold.core.table import plain
from fanfold.experiments.base import Study
from fanfold.report.page import Section, scrolling, write_page
from fanfold.runs.environment import installed

GOALS, REPORT, INDEX = "goals.json", "report.html", "index.html"
WORDS = re.compile(r"(?:Claim|Claim under test|Question): (?P<claim>.*?) Sources?: (?P<source>.*)")


class Background(NamedTuple):
    """What the module of an experiment says of it in its first lines.

    Attributes:
        title: What the study is about, in one sentence.
        claim: What it puts to the test, in full; empty where the module does not say.
        source: Whose claim or setting it is; empty likewise.

    Example:
        >>> from fanfold.experiments import EXPERIMENTS
        >>> from fanfold.experiments.pages import background
        >>> background(EXPERIMENTS["mbdl-lista"]).title
        'Five layers of LISTA against a hundred iterations of ISTA.'
    """

    title: str
    claim: str
    source: str


def background(experiment: Callable[..., Study]) -> Background:
    """Read the docstring of the module that an experiment is in."""
    title, *rest = (inspect.getdoc(inspect.getmodule(experiment)) or "").split("\n\n")
    words = WORDS.search(" ".join(" ".join(rest).split()))
    if words is None:
        return Background(" ".join(title.split()), "", "")
    return Background(" ".join(title.split()), *(text[0].upper() + text[1:] for text in words.group("claim", "source")))


def command_of(name: str, quick: bool, seed: int) -> str:
    """What is typed to run a study again."""
    return f"fanfold reproduce {name}{' --quick' if quick else ''}{f' --seed {seed}' if seed else ''}"


def write_study(study: Study, folder: Path, said: Background, command: str) -> Path:
    """Write the page of a study, its figures as files, and its goals as JSON.

    Args:
        study: What came out.
        folder: Where it goes; made if need be.
        said: What the module of the experiment says of it.
        command: What is typed to run it again.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    claim = "\n".join(text for text in (study.claim, said.claim, said.source and f"Source: {said.source}") if text)
    sections = [
        Section("The claim", claim),
        *study.sections,
        Section("Goals", f"{reached(study.as_json()['rows'])} goals are reached.", table=study.table()),
        Section("Run it again", figures=[f"<pre><code>{html.escape(command)}</code></pre>"]),
    ]
    facts = study.facts | {
        "fanfold": installed("fanfold"),
        "torch": torch.__version__,
        "seconds": round(study.seconds, 1),
        "made": time.strftime("%Y-%m-%d"),
    }
    page = write_page(folder / REPORT, f"fanfold {study.name}", study.verdict, sections, facts)
    drawn = [figure for section in study.sections for figure in section.figures if figure.startswith("<svg")]
    for i, figure in enumerate(drawn):
        write_whole(folder / f"figure-{i + 1}.svg", figure.encode())
    for name, record in study.records.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, json.dumps(plain(record), indent=1).encode())
    kept = study.as_json() | {"verdict": study.verdict, "command": command, "figures": len(drawn)}
    write_whole(folder / GOALS, json.dumps(plain(kept), indent=1).encode())
    return page


def write_index(
    folder: Path, experiments: Mapping[str, Callable[..., Study]], failures: Mapping[str, str] | None = None
) -> Path:
    """Write one page over all studies, from what `write_study` left in the folders of their names.

    Args:
        folder: What holds those folders.
        experiments: The studies by name; those that were not run are listed too.
        failures: Why a study could not be run just now, by name.

    Returns:
        The page.
    """
    kept = {name: outcome for name in experiments if (outcome := _kept(folder / name / GOALS)) is not None}
    won = sum(all(row["pass"] for row in outcome["rows"]) for outcome in kept.values())
    verdict = f"{won} of {len(kept)} studies that were run reach all of their goals"
    missing = len(experiments) - len(kept)
    verdict += f"; {missing} of {len(experiments)} were not run." if missing else "."
    failed = failures or {}
    said = {name: background(experiment) for name, experiment in experiments.items()}
    rows = "".join(_row(name, said[name], kept.get(name), failed.get(name)) for name in experiments)
    words = ("study", "about", "version", "goals", "", "seconds")
    heads = "".join(f'<th scope="col" class="text">{word}</th>' for word in words)
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    sections = [
        Section("All studies", figures=[scrolling(table, "All studies")]),
        *(_about(name, said[name], outcome) for name, outcome in kept.items()),
    ]
    facts = {"fanfold": installed("fanfold"), "torch": torch.__version__, "made": time.strftime("%Y-%m-%d")}
    return write_page(folder / INDEX, "Studies", verdict, sections, facts)


def reached(rows: list[dict[str, Any]]) -> str:
    """How many goals are reached, of how many."""
    return f"{sum(row['pass'] for row in rows)} of {len(rows)}"


def _kept(file: Path) -> dict[str, Any] | None:
    """What a study left behind; None where there is nothing, or nothing of today's kind."""
    try:
        outcome = json.loads(file.read_text())
        return outcome if {"rows", "verdict", "command", "figures", "seconds"} <= outcome.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _row(name: str, said: Background, outcome: dict[str, Any] | None, failure: str | None) -> str:
    link = name if outcome is None else f'<a href="#study-{name}">{name}</a>'
    if failure is not None:
        rest = f'<td class="text fail" colspan="4">could not be run: {html.escape(failure)}</td>'
    elif outcome is None:
        rest = '<td class="text quiet" colspan="4">not run</td>'
    else:
        passed = all(row["pass"] for row in outcome["rows"])
        size = "small" if " --quick" in outcome["command"] else "whole"
        rest = (
            f'<td class="text">{size}</td><td class="text whole">{reached(outcome["rows"])}</td>'
            f'<td class="{"pass" if passed else "fail"}">{"PASS" if passed else "FAIL"}</td>'
            f"<td>{outcome['seconds']:.0f}</td>"
        )
    return f'<tr><td class="text">{link}</td><td class="text wide">{html.escape(said.title)}</td>{rest}</tr>'


def _about(name: str, said: Background, outcome: dict[str, Any]) -> Section:
    """A study in short: what it claims, what came out, a figure, its page and its command."""
    text = f"{said.title}\nClaim: {said.claim}\nSource: {said.source}\nVerdict: {outcome['verdict']}"
    parts = [f'<p id="study-{name}">']
    if outcome["figures"]:
        parts.append(f'<img src="{name}/figure-1.svg" alt="The first figure of {name}" width="100%">')
    parts.append(f'</p><p><a href="{name}/{REPORT}">The page of the study</a>, with all goals and figures.</p>')
    parts.append(f"<pre><code>{html.escape(outcome['command'])}</code></pre>")
    return Section(name, text, parts)
