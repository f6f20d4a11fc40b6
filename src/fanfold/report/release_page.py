"""The page of a release: its verdict, life cycle, results with their limits, what moved, and its hashes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fanfold.core.table import Table
from fanfold.deploy.release.against import WORSE
from fanfold.deploy.release.documents import ALIGNED, TERMS
from fanfold.deploy.release.results import INTERVALS, ReleaseCertificate
from fanfold.report.page import VERDICT, Section, filled, write_page
from fanfold.report.run_facts import in_words

ORDER = ("what", "cell", "unit", "value", "low", "high", "limit")


def write_release_page(certificate: ReleaseCertificate, path: Path) -> Path:
    """Write the certificate of a release as a page that opens offline.

    Args:
        certificate: What was measured.
        path: The page's file.
    """
    rows = []
    for result in certificate.results:
        row = result.as_row()
        rows.append({name: row[name] for name in ORDER} | {VERDICT: result.passed, "note": row["note"]})
    words = {title: certificate.life_cycle[name] for name, title in TERMS.items()}
    text = f"{INTERVALS} What has no limit is not judged."
    followed = any(result.what == WORSE for result in certificate.results)
    still = "Nothing." if followed else "This release was not held against an earlier one."
    sections = [
        Section("What it is for", ALIGNED, table=_named(words)),
        Section("Results", text, table=filled(Table(rows))),
        Section("What moved since the last release", "\n".join(certificate.moved) or still),
        Section("What it is", table=_named(certificate.facts)),
        Section("Where it was measured", table=_named(certificate.host)),
        Section("SHA-256", table=_named({k: v for k, v in certificate.hashes.items() if v is not None})),
    ]
    title = f"Release certificate of {certificate.life_cycle['model_id']}"
    return write_page(path, title, certificate.verdict, sections, {"certified": certificate.facts["certified"]})


def _named(facts: Mapping[str, Any]) -> Table:
    return Table([{"": name.replace("_", " "), "is": _words(value)} for name, value in facts.items()])


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return in_words(value)
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)
