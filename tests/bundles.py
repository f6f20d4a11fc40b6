"""What tests of releases do to a bundle, and what is said of it then."""

import json
from pathlib import Path

from fanfold.core.files import file_hash
from fanfold.deploy.release import bundle as layout
from fanfold.deploy.release import verify_bundle
from fanfold.deploy.release.bundle import write_manifest

HASHED = {"weights": layout.WEIGHTS, "config": layout.CONFIG, "golden": layout.GOLDEN} | layout.OF_GUARD


def seal(bundle: Path, **changes: object) -> None:
    """Make certificate and manifest agree with the files, as a forger would."""
    file = bundle / layout.CERTIFICATE
    data = json.loads(file.read_text())
    there = {name: bundle / path for name, path in HASHED.items() if (bundle / path).exists()}
    data["hashes"] |= {name: file_hash(path) for name, path in there.items()} | changes
    file.write_text(json.dumps(data))
    write_manifest(bundle)


def refused(bundle: Path) -> str:
    """Why a bundle is not verified."""
    verification = verify_bundle(bundle)
    assert not verification.passed
    return verification.verdict
