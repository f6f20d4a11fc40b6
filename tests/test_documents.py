"""The documents: built without a warning, readable from disk with the network off, searched there; their code runs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import fanfold as ff
from fanfold.cli import documents
from fanfold.cli import main as cli
from fanfold.estimators import Lasso
from fanfold.evaluation import peers
from fanfold.report.figure.topics import TOPICS
from machines import need_browser

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
# pages whose blocks run below
PAGES = ("start", "how-to", "unfolding", "photographs", "rf-imaging", "limits", "uncertainty", "shifts")
SHORTER = {  # flags for what takes long and shows nothing here, by the first words of a line
    "fanfold train": "--steps 30",
    "fanfold evaluate": "--samples 20",
}
MOST = {"steps": 20, "samples": 20, "calls": 50}  # likewise in Python; decibels are held by the examples
FIGURES = {  # that compute in a page: what is chosen at first, and where their guided path begins
    "unfolding": ("200x100", 1), "lista": ("200x100", 1), "photographs": ("photograph", 1), "rf-imaging": ("rf", 1),
    "channels": ("channel", 1), "limits": ("200x100", 4), "shifts": ("200x100", 5),
    "end-to-end": ("posterior", 1), "uncertainty": ("intervals", 1), "guard": ("guard", 1), "release": ("release", 1),
}  # fmt: skip
needs_sphinx = pytest.mark.skipif(
    any(find_spec(name) is None for name in documents.NEEDED), reason="needs the extra docs"
)


# The code of the pages


def shortened(code: str) -> str:
    return re.sub(r"\b(steps|samples|calls)=(\d+)", lambda said: f"{said[1]}={min(int(said[2]), MOST[said[1]])}", code)


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(peers, "MCP", Lasso)  # which compiles itself for most of a minute; the README's commands run it
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    names: dict = {}
    blocks = re.findall(r"```(python|sh)\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)
    assert blocks
    for language, code in blocks:
        if language == "python":
            exec(shortened(code), names)
            continue
        for line in code.splitlines():
            program, verb, *words = shlex.split(line)
            fewer = SHORTER.get(f"{program} {verb}", "").split()
            assert cli.run([verb, *words, *fewer]) == 0, line
    if page == "start":
        assert names["error"] < 10**-2.3  # the page says -26 dB
        assert {"estimator.c", "estimator.h"} <= {file.name for file in (tmp_path / "receiver").iterdir()}
    if page == "uncertainty":
        assert abs(float(names["held"].float().mean()) - 0.9) < 0.02  # 3 deviations of one entry by 2000 draws
    if page == "limits":
        assert f"{ff.units.db(names['limit']):.1f}" == "-45.6"


def test_every_page_with_code_is_run_by_a_test():
    tests = "".join(file.read_text() for file in (ROOT / "tests").glob("test_*.py"))
    for page in DOCS.glob("*.md"):
        if "```python\n" in page.read_text() and page.stem not in PAGES:
            assert f"docs/{page.name}" in tests, f"no test runs {page.name}"


@pytest.mark.parametrize("script", sorted((ROOT / "examples/gallery").glob("*.py")), ids=lambda script: script.stem)
def test_the_example_reaches_its_decibels(script):
    code = script.read_text()
    assert len(re.findall(r"^assert .*\d", code, re.MULTILINE)) >= 2
    exec(compile(code, script, "exec"), {})
    assert f"../examples/gallery/{script.name}" in (DOCS / "examples.md").read_text()


# The pages as they are built


def test_every_room_of_the_package_has_its_page():
    text = "".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    rooms = set(re.findall(r"^```\{room\} (\S+)$", text, re.MULTILINE))
    modules = {f"fanfold.{name}" for name in ff.__all__ if name not in ("noise", "units") and hasattr(ff, name)}
    modules = {name for name in modules if find_spec(name) is not None}
    assert modules | {"fanfold", "fanfold.core.noise", "fanfold.core.units"} <= rooms
    assert all(import_module(room).__all__ for room in rooms)


def test_documents_are_refused_where_they_would_mix_with_other_things(tmp_path, monkeypatch, capsys):
    (tmp_path / "letter.txt").write_text("mine")
    assert cli.run(["docs", "--out", str(tmp_path)]) == 2
    assert "holds other things than documents" in capsys.readouterr().err
    monkeypatch.setattr(documents, "SOURCE", tmp_path)
    assert cli.run(["docs", "--out", str(tmp_path / "new")]) == 2
    assert "they come with a clone" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


class Asked(HTMLParser):
    """What a browser would load with a page, and where its links lead."""

    def __init__(self, text: str):
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        has = {name: value or "" for name, value in attrs}
        self.ids |= {has["id"]} if "id" in has else set()
        if tag == "a":
            self.links += [has["href"]] if "href" in has else []
        else:
            self.loaded += [has[name] for name in ("src", "href", "data", "poster", "action", "srcset") if name in has]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The documents, built once by the program itself."""
    out = tmp_path_factory.mktemp("documents") / "site"
    words = [sys.executable, "-m", "fanfold", "docs", "--out", str(out), "--no-browser", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    result = json.loads(done.stdout)
    assert Path(result["page"]) == (out / "index.html").resolve()
    assert result["pages"] > 40
    return out


@needs_sphinx
def test_the_built_pages_ask_for_nothing_outside_and_link_to_what_is_there(site):
    pages = {page: Asked(page.read_text()) for page in site.rglob("*.html")}
    for page, asked in pages.items():
        for target in asked.loaded:
            path = re.split(r"[?#]", target)[0]
            assert not re.match(r"[a-z]+:(?!image/|text/)|//", target), (page.name, target)
            assert target.startswith("data:") or not path or (page.parent / path).exists(), (page.name, target)
        for target in asked.links:
            path, _, anchor = target.partition("#")
            if re.match(r"https?:|mailto:", target):
                continue
            goal = (page.parent / path).resolve() if path else page
            assert goal.exists(), (page.name, target)
            if anchor and goal.suffix == ".html":
                assert anchor in pages[site / goal.relative_to(site.resolve())].ids, (page.name, target)
    for style in site.rglob("*.css"):
        assert not re.search(r"@import\s+(url\()?[\"']?(https?:)?//|url\([\"']?(https?:)?//", style.read_text()), style
    built = {page.stem for page in site.glob("*.html")}
    assert {page.stem for page in DOCS.glob("*.md")} <= built


@needs_sphinx
def test_the_reference_has_equations_shapes_errors_and_examples(site):
    text = (site / "api/problems.html").read_text()
    entry = text.split('id="fanfold.problems.CompressedSensing"')[1].split('id="fanfold.problems.')[0]
    assert "noise_var" in entry
    assert "Raises" in entry
    assert "&gt;&gt;&gt;" in entry
    formula = (site / "unfolding.html").read_text()
    assert "<math" in formula
    assert formula.count('id="fanfold-payload"') == 1


@needs_sphinx
def test_pages_search_and_compute_from_disk_with_the_network_off(site):
    need_browser("playwright-core", "axe-core")
    script = ROOT / "tests/documents_in_browser.cjs"
    environment = os.environ | {"CHROMIUM": str(shutil.which("chromium"))}
    done = subprocess.run(["node", script, site], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["asked"] == []
    assert seen["errors"] == []
    assert any("api/guard.html" in link for link in seen["hits"])
    assert seen["curves"] >= 5
    assert seen["violations"] == []
    assert seen["covered"].keys() == FIGURES.keys() - {"unfolding"}
    assert all(figure["seen"] for figure in seen["covered"].values())  # curves stay in sight of the sliders
    layered = {page: figure["below"] for page, figure in seen["covered"].items() if FIGURES[page][0] not in TOPICS}
    assert all(abs(pixels) <= 1 for pixels in layered.values())
    assert all(figure["below"] >= -1 for figure in seen["covered"].values())  # of a topic, where a screen has room
    assert seen["shades"] == ["light", "dark", "light"]  # as the reader chooses
    assert {page: (figure["preset"], figure["step"] + 1) for page, figure in seen["figures"].items()} == FIGURES
    assert seen["wide"] == []  # pages that a phone would have to scroll sideways
