"""The page of the lab: its files by name, and the policy by which a browser loads nothing from elsewhere."""

import base64
import hashlib
import json
from pathlib import Path

FOLDER = Path(__file__).parent
FIGURE = FOLDER.parents[1] / "report" / "figure"  # whose modules and plotting library the page shares
FILES = {file.name: file for folder in (FIGURE, FOLDER) for file in folder.iterdir() if file.suffix in (".js", ".css")}
IMPORTS = {f"fanfold/{file.stem}": f"./static/{file.name}" for file in FIGURE.glob("*.js") if "." not in file.stem}
IMPORT_MAP = json.dumps({"imports": dict(sorted(IMPORTS.items())) | {"fanfold/host": "./figure/host.js"}})
_HASH = base64.b64encode(hashlib.sha256(IMPORT_MAP.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; script-src 'self' 'wasm-unsafe-eval' 'sha256-{_HASH}'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
REPORT_POLICY = (  # of a page that a run directory holds, which may come from elsewhere: it can reach nothing
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' data:; "
    "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page() -> str:
    """The page as HTML.

    Example:
        >>> from fanfold.lab.page import page
        >>> "<fanfold-figure" in page()
        False
    """
    return (FOLDER / "index.html").read_text().replace("IMPORT_MAP", IMPORT_MAP)
