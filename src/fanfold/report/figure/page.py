"""The page of the live figure: one file that opens from disk with the network off, and the parts for other pages."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from fanfold.core.files import write_whole
from fanfold.core.suggest import did_you_mean
from fanfold.deploy.codegen import host_functions
from fanfold.report.figure.lista import pack_lista
from fanfold.report.figure.manifest import Packed, pack
from fanfold.report.figure.topics import TOPICS, kept_topic
from fanfold.report.figure.topics.manifest import pack_topic
from fanfold.report.figure.trained import PROBLEMS
from fanfold.report.figure.world_manifest import pack_world
from fanfold.report.figure.worlds import PICTURED, kept_world

FOLDER = Path(__file__).parent
SHARED = ("draws", "engine", "plot", "words", "guided")  # by figures of layers and of topics
MODULES = (*SHARED, "spikes", "pictures", "template", "element")
TOPIC_MODULES = (*SHARED, "topics/chart", "topics/topic")
POLICY = (  # what a browser may load: nothing but what is in the page
    "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' data:; style-src 'unsafe-inline'; img-src data:"
)
STYLE = """
:root { color-scheme: light dark; }
body { margin: 0 auto; max-width: 1180px; padding: 16px; font: 16px/1.55 system-ui, sans-serif; background: #fff;
  color: #1c2733; }
h1 { font-size: 1.45rem; line-height: 1.25; margin: .2rem 0 .4rem; }
footer { color: #566270; font-size: .85rem; margin-top: 1rem; }
@media (prefers-color-scheme: dark) { body { background: #0e1216; color: #e5e9ee; } footer { color: #a8b3bf; } }
"""
TITLE = "Unfolded network against model-based iterations"
LEAD = (
    "Sparse signals from half as many noisy measurements: iterative algorithms, two networks that start as one of "
    "them, and the limit. Every error is computed in this page, by the C that fanfold exports."
)
LISTA_LEAD = (
    "The same problem with unfolded LISTA beside it: two learned matrices a layer, 960 000 numbers in bytes, where the "
    "other networks have some dozens. Every error is computed in this page, by the C that fanfold exports."
)
WORLDS = ("text", "lista", *PICTURED, *TOPICS)


def figure(path: str | Path = "figure.html", names: Sequence[str] | None = None, *, world: str = "text") -> Path:
    """Write the live figure as one page, whole or not at all.

    Args:
        path: The page's file.
        names: The problems that the reader may choose, of `200x100`, `100x50` and `100x34`; the first is shown first.
            All of them if None. Of the world `text` alone.
        world: `text`, sparse signals at these sizes; `lista`, the first of them with unfolded LISTA, a page of a
            megabyte or two; a world whose estimates are pictures, `photograph`, `rf` and `channel`; or a topic:
            `posterior`, networks beside a posterior mean that is known; `intervals`, claimed and calibrated; `guard`, a
            stream whose world changes; `release`, a network in floating point and in whole numbers.

    Raises:
        ValueError: If there is no such problem or world.

    Example:
        >>> import fanfold as ff, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = ff.figure(f"{folder}/figure.html")
        ...     page.stat().st_size < 400_000
        True
    """
    packed = packed_world(world, names)
    title, lead = (html.escape(words) for words in _words_of(world))
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{STYLE}</style>{figure_head(packed)}</head><body><main><h1>{title}</h1><p>{lead}</p>"
        "<fanfold-figure></fanfold-figure></main><noscript><p>The figure computes in this page and needs JavaScript."
        "</p></noscript></body></html>"
    )
    write_whole(Path(path), text.encode())
    return Path(path)


def packed_world(world: str, names: Sequence[str] | None = None) -> Packed:
    """What a page embeds of a world, for `figure_head`.

    Args:
        world: As for `figure`.
        names: Likewise.

    Raises:
        ValueError: If there is no such problem or world.
    """
    if world not in WORLDS:
        raise ValueError(
            f"the figure has no world {world!r}; choose of {', '.join(WORLDS)}.{did_you_mean(world, WORLDS)}"
        )
    if names is not None and world != "text":
        raise ValueError(f"the world {world} has no sizes to choose; leave names out.")
    if world == "text":
        return pack(tuple(PROBLEMS) if names is None else names)
    if world in TOPICS:
        return pack_topic(world)
    return pack_lista() if world == "lista" else pack_world(world)


def _words_of(world: str) -> tuple[str, str]:
    """The title of a world's page and its first sentences."""
    if world in (*PICTURED, *TOPICS):
        facts = kept_world(world).facts if world in PICTURED else kept_topic(world).facts
        return facts["title"], facts["lead"]
    return TITLE, LISTA_LEAD if world == "lista" else LEAD


def figure_head(packed: Packed) -> str:
    """What a page needs in its head so that `<fanfold-figure></fanfold-figure>` works in its body.

    Modules are data in an import map, since a page from disk may fetch no file. A page has one such head and any number
    of figures; `step="3"` begins the guided path there, `mode="free"` leaves it out at first, and `look="light"` or
    `look="dark"` suits a page that is always so.

    Args:
        packed: What `pack`, `pack_lista`, `pack_world` or `pack_topic` gave.
    """
    modules = MODULES if packed.world is None else TOPIC_MODULES
    files = [FOLDER / f"{name}.js" for name in modules]
    sources = {file.stem: file.read_text() for file in files}
    if packed.world is not None:
        sources["world"] = (FOLDER / packed.world).read_text()
    sources["path"] = (FOLDER / packed.path).read_text()
    sources["host"] = f"{host_functions()}\nexport {{env}};\n"
    entries = ",".join(f'"fanfold/{name}":"{_uri(source)}"' for name, source in sources.items())
    style = (FOLDER / "uPlot.min.css").read_text() + (FOLDER / "figure.css").read_text()
    return (
        f'<script type="importmap">{{"imports":{{{entries}}}}}</script>'
        f'<script type="text/plain" id="fanfold-style">{style}</script>'
        f'<script type="application/json" id="fanfold-manifest">{packed.manifest_text}</script>'
        f'<script type="text/plain" id="fanfold-payload">{packed.payload}</script>'
        f"<script>/*\n{(FOLDER / 'uPlot.LICENSE').read_text()}*/{(FOLDER / 'uPlot.iife.min.js').read_text()}</script>"
        f'<script type="module">import "fanfold/{files[-1].stem}";</script>'
    )


def _uri(source: str) -> str:
    """The module as data, without indentation and without lines that are comments, which a page has no use for."""
    lines = (line.strip() for line in source.splitlines())
    source = "\n".join(line for line in lines if not line.startswith("//"))
    return "data:text/javascript;base64," + base64.b64encode(source.encode()).decode()
