"""Releases: a trained run is measured against a profile, certified, bundled, and verified elsewhere."""

from fanfold.deploy.release.bundle import Bundle
from fanfold.deploy.release.cells import CellErrors
from fanfold.deploy.release.certify import Release, certify_release
from fanfold.deploy.release.golden import ReleaseVectors
from fanfold.deploy.release.measures import IntegerBuild
from fanfold.deploy.release.profile import (
    CellLimits,
    CoverageLimits,
    ErrorLimits,
    GuardedLimits,
    IntegerLimits,
    LatencyLimits,
    LifeCycle,
    ReleaseProfile,
    SizeLimits,
    read_profile,
)
from fanfold.deploy.release.results import ReleaseCertificate, ReleaseResult
from fanfold.deploy.release.verify import BundleCheck, Verification, verify_bundle

__all__ = [
    "Bundle",
    "BundleCheck",
    "CellErrors",
    "CellLimits",
    "CoverageLimits",
    "ErrorLimits",
    "GuardedLimits",
    "IntegerBuild",
    "IntegerLimits",
    "LatencyLimits",
    "LifeCycle",
    "Release",
    "ReleaseCertificate",
    "ReleaseProfile",
    "ReleaseResult",
    "ReleaseVectors",
    "SizeLimits",
    "Verification",
    "certify_release",
    "read_profile",
    "verify_bundle",
]


def __dir__() -> list[str]:
    return __all__
