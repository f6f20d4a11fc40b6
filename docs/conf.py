"""How the documents are built: Sphinx with MyST; whatever a page needs is in its folder, so that it reads from disk."""

import dataclasses
import functools
import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.docutils import SphinxDirective

import fanfold as ff
from fanfold.report.figure.page import figure_head, packed_world

HERE = Path(__file__).parent
LIVE = re.compile(r"<fanfold-figure\b(?:[^>]*\bworld=\"(\w+)\")?")

project = "fanfold"
author = "the fanfold authors"
release = version = ff.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
suppress_warnings = [
    "misc.highlighting_failure",  # JSON with an ellipsis, for example, is shown without colours
]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 100
add_module_names = False

html_theme = "furo"
html_title = "fanfold"
html_static_path = ["_static"]
html_css_files = ["fanfold.css"]
html_js_files = [("fanfold.js", {"defer": "defer"})]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_search_summary = False  # it would fetch pages, which a page from disk may not
html_theme_options = {"footer_icons": []}
pygments_style = "default"
pygments_dark_style = "github-dark"


# Mathematics, as the MathML that browsers draw by themselves


def inline_math(writer: Any, node: nodes.math) -> None:
    """A formula in a line."""
    writer.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def block_math(writer: Any, node: nodes.math_block) -> None:
    """A formula in a line of its own."""
    writer.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


# Docstrings, which are written to be read in a terminal


@functools.cache
def homes() -> dict[int, str]:
    """Where the reference tells in full of what a room exports, by its identity: in the innermost room that has it."""
    text = "".join(page.read_text() for page in sorted((HERE / "api").glob("*.md")))
    paths = re.findall(r"^```\{room\} (\S+)$", text, re.MULTILINE)
    return {id(thing): f"{path}.{name}" for path in sorted(paths, key=depth) for name, thing in exported(path)}


def depth(path: str) -> int:
    """How deep in the package a module is."""
    return path.count(".")


def exported(path: str) -> list[tuple[str, Any]]:
    """The classes and functions in a module's `__all__` that say what they are."""
    module = import_module(path)
    things = [(name, getattr(module, name)) for name in module.__all__]
    return [(name, thing) for name, thing in things if callable(thing) and inspect.getdoc(thing)]


@functools.cache
def public_names() -> dict[str, str]:
    """Where the reference has a class or function, by its bare name, unless two have that name."""
    places: dict[str, set[str]] = {}
    for path in homes().values():
        places.setdefault(path.rpartition(".")[2], set()).add(path)
    return {name: path for name, (path, *others) in places.items() if not others}


class Room(SphinxDirective):
    """`{room} fanfold.priors`: what a module exports, first in a list with one sentence each, then in full."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The nodes of the room."""
        (path,) = self.arguments
        rows, entries = [], []
        for name, thing in exported(path):
            home = homes()[id(thing)]
            if depth(path) and depth(home) > depth(path) + 1:  # told under a heading further down the page
                continue
            first = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
            rows += [f"   * - :py:obj:`{name} <{home}>`", f"     - {marked_up(first)}"]
            if home == f"{path}.{name}":
                entries += [
                    f".. autoclass:: {home}\n   :members:" if inspect.isclass(thing) else f".. autofunction:: {home}"
                ]
        table = ".. list-table::\n   :widths: 1 3\n\n" + "\n".join(rows)
        return self.parse_text_to_nodes("\n\n".join(["```{eval-rst}", table, *entries, "```"]))


def code(match: re.Match) -> str:
    """A name in backticks as a link where the reference has it, anything else as it stands."""
    text = re.sub(r"\s+", " ", match[1])
    path = public_names().get(text)
    return f":py:obj:`{text} <{path}>`" if path else f"``{text}``"


def marked_up(text: str) -> str:
    """Prose of a docstring in reStructuredText: what is special there and not meant so is escaped."""
    pieces = re.split(r"(`[^`]+`)", text)
    for i, piece in enumerate(pieces):
        if i % 2:  # a word may follow at once, as in `x`s
            joined = "\\ " if pieces[i + 1][:1].isalnum() else ""
            pieces[i] = re.sub(r"`([^`]+)`", code, piece) + joined
        else:
            pieces[i] = re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", piece)
    return "".join(pieces)


def field_comments(kind: type) -> list[str]:
    """The fields of a dataclass with the comments that stand behind them, as lines of an `Args:` section."""
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):
        return []
    fields = {field.name for field in dataclasses.fields(kind) if field.init}
    found = re.findall(r"^    (\w+): [^\n#]*#\s*(.+)$", source, re.MULTILINE)
    lines = [f"    {name}: {comment[0].upper()}{comment[1:]}." for name, comment in found if name in fields]
    return ["", "Args:", *lines, ""] if lines else []


def docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Make a docstring ready for napoleon: mark up its prose, leave its examples, say what its fields are."""
    if what == "class" and dataclasses.is_dataclass(thing):
        if thing.__doc__ and thing.__doc__.startswith(f"{thing.__name__}("):  # what dataclass writes of itself
            lines.clear()
        if not any(re.match(r"(Args|Attributes):", line) for line in lines):
            at = beginning(lines, "Raises|Example|Returns")
            lines[at:at] = field_comments(thing)
    if what in ("class", "function") and (source := cited(thing)) and source not in " ".join(lines):
        at = beginning(lines, "Args|Attributes|Raises|Example|Returns")
        lines[at:at] = ["", f"Source: {source}", ""]
    blocks: list[list[str]] = []
    for line in lines:  # an example runs to the next empty line
        if not blocks or not line.strip() or (is_example([line]) and not is_example(blocks[-1])):
            blocks.append([])
        blocks[-1].append(line)
    done = (block if is_example(block) else marked_up("\n".join(block)).split("\n") for block in blocks)
    lines[:] = [line for block in done for line in block]


def beginning(lines: list[str], sections: str) -> int:
    """Where the first of these sections of a docstring begins; its end if it has none."""
    return next((i for i, line in enumerate(lines) if re.match(rf"({sections}):", line)), len(lines))


def cited(thing: Any) -> str:
    """The paper that the first lines of a module cite, with a year in brackets; empty where they cite none."""
    first = (inspect.getdoc(inspect.getmodule(thing)) or "").split("\n\n")[0]
    return " ".join(first.split()) if re.search(r"\(\d{4}[a-z]?\)", first) else ""


def is_example(lines: list[str]) -> bool:
    """Whether lines are typed at Python's prompt, or what it answers."""
    return lines[0].lstrip().startswith(">>>")


# Pages and their contents


def list_the_rest(app: Any, page: str, content: list[str]) -> None:
    """Put pages that the first page has in no contents under one of their own, so that a new file needs no other."""
    if page != "index":
        return
    rest = sorted({file.stem for file in HERE.glob("*.md")} - {page, *content[0].splitlines()})
    if rest:
        content[0] += "\n```{toctree}\n:caption: More\n:hidden:\n" + "\n".join(rest) + "\n```\n"


def first_page_anew(*about: Any) -> list[str]:
    """The first page is read in each build, as it depends on which files there are."""
    return ["index"]


# The live figure


def add_figure(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Give a page that holds the live figure what the figure needs, of the one world that it shows."""
    worlds = {live[1] or "text" for live in LIVE.finditer(context.get("body", ""))}
    if len(worlds) > 1:
        raise ValueError(f"{page} has figures of {' and '.join(sorted(worlds))}; show one world in a page.")
    for world in worlds:
        context["metatags"] += figure_head(packed_world(world))


# Pages as they are written, which say to those who hear them what others see

# patterns, none of which is left when it is replaced, and what stands there then
MENDED: tuple[tuple[str, Any], ...] = (
    (r'<p class="caption" role="heading">', '<p class="caption" role="heading" aria-level="2">'),
    (r'<th class="head[^"]*"><p></p></th>', "<td></td>"),  # the corner of a table heads nothing
    (r'<aside class="sidebar-drawer', '<aside aria-label="All pages" class="sidebar-drawer'),
    (r'<aside class="toc-drawer', '<aside aria-label="This page" class="toc-drawer'),
    (r'(</noscript>\s*)<div id="search-results">', r'\1<h1>Search</h1>\n<div id="search-results">'),
    (
        r'<dl>\n((?:<dd><em class="sig-param">.*</dd>\n)+)</dl>',  # a signature in lines, which defines nothing
        lambda lines: lines[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>"),
    ),
)


def mend_pages(app: Any, failure: Exception | None) -> None:
    """Mend what Sphinx and the theme leave out for screen readers, in the pages that were written."""
    for page in [] if failure else Path(app.outdir).rglob("*.html"):
        text = mended = page.read_text()
        for pattern, replacement in MENDED:
            mended = re.sub(pattern, replacement, mended)
        if mended != text:
            page.write_text(mended)


def setup(app: Any) -> dict[str, Any]:
    """What Sphinx calls."""
    app.add_directive("room", Room)
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    app.connect("autodoc-process-docstring", docstring, priority=400)  # before napoleon
    app.connect("source-read", list_the_rest)
    app.connect("env-get-outdated", first_page_anew)
    app.connect("html-page-context", add_figure)
    app.connect("build-finished", mend_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
