"""The verbs of releases: certify holds a trained run against a profile, verify checks a release on another machine."""

from pathlib import Path
from typing import Annotated

import tyro

from fanfold.cli.console import note, show
from fanfold.cli.flags import Result, RunPath
from fanfold.cli.guarding import guard_of_run
from fanfold.cli.outputs import check_folder
from fanfold.core.abilities import offers
from fanfold.deploy.release import certify_release, read_profile, verify_bundle
from fanfold.deploy.release.guard_kept import can_be_kept
from fanfold.estimators.base import InWholeNumbers
from fanfold.report.page import filled
from fanfold.report.release_page import write_release_page
from fanfold.runs.directory import Run


def certify(
    run: RunPath,
    profile: Path,
    against: Path | None = None,
    sign: Path | None = None,
    guarded: bool = False,
    baseline: str | None = None,
    out: Path | None = None,
    overwrite: bool = False,
) -> Result:
    """Measure a trained run against a profile and write its release, with the certificate; exit code 1 if it fails.

    Args:
        run: Its run directory.
        profile: A TOML file with the declared domain and the limits.
        against: The folder of the release before: what moved is said, and what got worse fails.
        sign: A file with a private key, which signs the release if it passes; needs model-signing.
        guarded: Release a guard beside the network, which falls back to a peer, and measure it: at home, under the
            problem's shifts, its false alarms, times and sizes. A profile with a section [guard] asks for one too.
        baseline: With a guard: the peer; that of [guard], or the one that errs least, if not given.
        out: The folder for the release; release in the run directory if not given.
        overwrite: Replace a release that is in the folder of --out.
    """
    stored = Run.open(run)
    folder = out or stored.path / "release"
    check_folder(folder.parent)
    if out is not None and out.exists() and not overwrite:
        raise ValueError(f"{out} exists; choose another folder, or replace the release in it with --overwrite.")
    wanted = read_profile(profile).guard
    if baseline is not None and not (guarded or wanted is not None):
        raise ValueError(f"--baseline {baseline} is the peer that a guard falls back to; add --guarded.")
    guard = None
    if guarded or wanted is not None:
        named = baseline or (None if wanted is None else wanted.baseline)
        net = stored.estimator()
        if offers(net, InWholeNumbers):
            raise ValueError("the run is quantised; certify its run in floating point with the guard, or leave it out.")
        guard = guard_of_run(stored, net, named, can_be_kept)
    release = certify_release(
        stored, profile, folder, against=against, guard=guard, sign=sign, write_page=write_release_page, say=note
    )
    certificate = release.certificate
    show(filled(certificate.table))
    for sentence in certificate.moved:
        note(f"moved: {sentence}")
    if sign is not None:
        note(f"signed with {sign}" if certificate.passed else "not signed, as it does not pass")
    note(f"{certificate.verdict} Written: {folder}; open {folder / 'certificate.html'}")
    return {
        "folder": str(folder),
        "passed": certificate.passed,
        "verdict": certificate.verdict,
        "results": certificate.table.rows,
        "moved": list(certificate.moved),
        "failed": not certificate.passed,
    }


def verify(
    bundle: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="BUNDLE")],
    key: Path | None = None,
    allow_program: bool = False,
) -> Result:
    """Check a release on this machine: hashes, certificate, and golden vectors in torch, ONNX Runtime and C.

    Args:
        bundle: The folder of the release. Nothing of it is trusted: it is read, and none of its programs is started.
        key: A file with the public key of who has to have signed the release; needs model-signing.
        allow_program: Compile and run the C of the release as it is, where this fanfold would write another.
    """
    verification = verify_bundle(bundle, key=key, allow_program=allow_program)
    show(verification.table)
    note(f"{bundle}: {verification.verdict}")
    return {
        "passed": verification.passed,
        "verdict": verification.verdict,
        "checks": verification.table.rows,
        "failed": not verification.passed,
    }
