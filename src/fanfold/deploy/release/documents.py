"""What goes with a release to be read by others: a model card in Markdown and a bill of materials in CycloneDX.

The bill follows the JSON schema of CycloneDX 1.6 (ECMA-424), whose components may carry a model card.
"""

import json
import uuid
from collections.abc import Mapping
from typing import Any

from fanfold.deploy.release.results import INTERVALS, ReleaseCertificate, ReleaseResult, digits
from fanfold.runs.environment import packages

ALIGNED = "Words are aligned with 3GPP's life-cycle management of models (TR 38.843)."
TERMS = {
    "functionality": "Functionality",
    "applicable_conditions": "Applicable conditions",
    "model_id": "Vendor-internal model ID",
    "monitoring": "Monitoring",
    "activation": "Activation",
    "fallback": "Fallback",
}


def model_card(certificate: ReleaseCertificate) -> str:
    """The model card: what the model is for, where, how good, and what to do where it is not."""
    lines = [f"# {_cell(certificate.life_cycle['model_id'])}", "", _cell(certificate.verdict), ""]
    lines += [f"- **{title}:** {_cell(certificate.life_cycle[name])}" for name, title in TERMS.items()]
    lines += ["", ALIGNED, "", "## What it is", ""]
    lines += [f"- {name.replace('_', ' ')}: {_cell(value)}" for name, value in certificate.facts.items()]
    lines += ["", "## How good it is", "", INTERVALS, "", "| what | cell | value | interval | limit | verdict |"]
    lines += ["|---|---|---|---|---|---|", *(_row(result) for result in certificate.results), ""]
    lines += ["## What moved since the last release", ""] * bool(certificate.moved)
    lines += [*(f"- {_cell(sentence)}" for sentence in certificate.moved), *[""] * bool(certificate.moved)]
    lines += ["## Hashes", "", "SHA-256 of each part.", ""]
    lines += [f"- {name}: `{value}`" for name, value in certificate.hashes.items() if value is not None]
    return "\n".join([*lines, ""])


def _row(result: ReleaseResult) -> str:
    row = result.as_row()
    interval = "" if result.low is None or result.high is None else f"{result.low:.4g} … {result.high:.4g}"
    value = row["note"] if result.value is None else f"{digits(result.value, 4)} {result.unit}"
    cells = (result.what, result.where, value, interval, row["limit"] or "", row["verdict"])
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(value: Any) -> str:
    """Text on one line of a table."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def bill_of_materials(certificate: ReleaseCertificate, files: Mapping[str, str]) -> bytes:
    """The bill of materials: the model with its card, the libraries that made it, and its files.

    Args:
        certificate: What was measured.
        files: The SHA-256 of each file, by its name in the bundle.

    Returns:
        JSON in UTF-8; the same certificate and files give the same bytes.
    """
    model_id = certificate.life_cycle["model_id"]
    model = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": model_id,
        "version": str(certificate.hashes["weights"])[:12],
        "description": certificate.life_cycle["functionality"],
        "hashes": [_sha256(str(certificate.hashes["weights"]))],
        "modelCard": _card(certificate),
    }
    libraries = [
        {"type": "library", "bom-ref": name, "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}"}
        for name in packages()
        if (version := str(certificate.host.get(name) or "").partition("+")[0])
    ]
    parts = [
        {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": [_sha256(value)]}
        for name, value in sorted(files.items())
    ]
    identity = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([model_id, sorted(files.items())]))
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{identity}",
        "version": 1,
        "metadata": {"timestamp": certificate.facts["certified"], "component": model},
        "components": [*libraries, *parts],
        "dependencies": [
            {"ref": "model", "dependsOn": [part["bom-ref"] for part in (*libraries, *parts)]},
        ],
    }
    return json.dumps(bill, indent=1, ensure_ascii=False).encode()


def _card(certificate: ReleaseCertificate) -> dict[str, Any]:
    facts, words = certificate.facts, certificate.life_cycle
    metrics = [_metric(result) for result in certificate.results if result.value is not None]
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": words["functionality"],
            "architectureFamily": str(facts["network_kind"]),
            "modelArchitecture": str(facts["network"])[:1000],
            "datasets": [{"type": "dataset", "name": str(facts["problem"])[:1000]}],
            "inputs": [{"format": text} for text in facts["inputs"]],
            "outputs": [{"format": text} for text in facts["outputs"]],
        },
        "quantitativeAnalysis": {"performanceMetrics": metrics},
        "considerations": {
            "useCases": [words["functionality"], words["activation"]],
            "technicalLimitations": [words["applicable_conditions"], words["monitoring"], words["fallback"]],
        },
    }


def _metric(result: ReleaseResult) -> dict[str, Any]:
    metric: dict[str, Any] = {"type": f"{result.what}, {result.unit}", "value": repr(result.value)}
    if result.cell:
        metric["slice"] = result.where
    if result.low is not None and result.high is not None:
        metric["confidenceInterval"] = {"lowerBound": repr(result.low), "upperBound": repr(result.high)}
    return metric


def _sha256(value: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": value}
