"""The verb of the documents."""

import webbrowser
from importlib.util import find_spec
from pathlib import Path

import fanfold
from fanfold.cli.console import note
from fanfold.cli.flags import Result
from fanfold.cli.outputs import check_folder

SOURCE = Path(fanfold.__file__).parents[2] / "docs"
NEEDED = ("sphinx", "myst_parser", "furo")
MARK = ".buildinfo"  # by which Sphinx knows a folder of pages that it made


def docs(out: Path = Path("fanfold-docs"), browser: bool = True) -> Result:
    """Build the documents, which read and search from disk with the network off, and open them.

    The first time takes about a minute; later on only what changed is built. A warning fails the build.

    Args:
        out: The folder for the pages; it is new, empty, or one that this verb made.
        browser: Open the first page when it is done.
    """
    check_documents(out)
    from sphinx.cmd.build import build_main

    note(f"building the documents of {SOURCE}; about a minute where {out} is new")
    code = build_main(["-b", "html", "-q", "-W", "--keep-going", str(SOURCE), str(out)])
    page = (out / "index.html").resolve()
    pages = sum(1 for _ in out.rglob("*.html"))
    if code:
        note("the documents have warnings, which are printed above: mend them")
        return {"page": str(page), "pages": pages, "failed": True}
    note(f"written: {pages} pages; open {page}")
    if browser and not webbrowser.open(page.as_uri()):
        note("there is no browser to open it with")
    return {"page": str(page), "pages": pages}


def check_documents(out: Path) -> None:
    """Refuse to build where there is nothing to build from, or where other things would be mixed with the pages.

    Raises:
        ImportError: If Sphinx, MyST or the theme is missing.
        ValueError: If the sources are not there, or the folder holds something else.
    """
    check_folder(out)
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
        raise ValueError(f"{out} holds other things than documents; choose a new folder with --out.")
    if not (SOURCE / "conf.py").is_file():
        raise ValueError(
            f"the sources of the documents are not in {SOURCE}: they come with a clone of the repository, and not with "
            "the package; in the clone, pip install -e '.[docs]' and call this again."
        )
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ImportError(f"the documents need {', '.join(missing)}: pip install -e '.[docs]'")
