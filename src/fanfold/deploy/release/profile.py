"""The profile of a release: what a trained run is for, where it may be used, and the limits that it has to meet there.

The words are aligned with those of 3GPP's life-cycle management of models (TR 38.843): functionality, applicable
conditions, vendor-internal model ID, monitoring, activation, fallback.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fanfold.core.data_files import toml_table
from fanfold.core.settings import Checked, check_known, check_table, kinds_of, made, within
from fanfold.deploy.latency import BACKENDS
from fanfold.evaluation.evaluate import COLUMNS

MOST_CELLS = 1000
Cell = Mapping[str, Any]


GUARDED_WORDS = {
    "monitoring": "the guard compares losses and ranks measurements at every call",
    "fallback": "the guard's baseline, to which its weight goes over call by call",
}


@dataclass(frozen=True)
class LifeCycle(Checked):
    """What operators of a network ask of a model, each in a sentence.

    Example:
        >>> from fanfold.deploy.release import LifeCycle
        >>> LifeCycle(functionality="sparse recovery", model_id="sparse-1").fallback
        'the classical algorithm that the network started from: strength 0'
    """

    functionality: str  # what it is for
    model_id: str  # vendor-internal
    applicable_conditions: str = "the cells of the declared domain, with the operator of this release"
    monitoring: str = "measurements unlike those of the training are counted and said"
    activation: str = "after `fanfold verify` passes on the machine that is to run it"
    fallback: str = "the classical algorithm that the network started from: strength 0"

    def guarded(self) -> "LifeCycle":
        """The same of a network that is released with a guard, but for what the profile says in words of its own."""
        said = {name: value for name, value in vars(self).items() if value != getattr(LifeCycle, name, None)}
        return LifeCycle(**GUARDED_WORDS | said)


@dataclass(frozen=True)
class ErrorLimits(Checked):
    """Limits of the error, for all cells that nothing else is said of; an interval's worse end must meet them.

    Example:
        >>> from fanfold.deploy.release import ErrorLimits
        >>> ErrorLimits(nmse_db=-20, gap_db=None).nmse_db
        -20.0
    """

    nmse_db: float | None = None  # at most
    gap_db: float | None = None  # to the Bayes limit, at most, where that is known


@dataclass(frozen=True)
class CellLimits(Checked):
    """Limits of the error in those cells that have these settings.

    Example:
        >>> from fanfold.deploy.release import CellLimits
        >>> CellLimits(at={"snr_db": 20.0}, nmse_db=-15.0).holds_for({"snr_db": 20.0, "sparsity": 0.1})
        True
    """

    at: Mapping[str, Any]  # settings and their values
    nmse_db: float | None = None
    gap_db: float | None = None

    def holds_for(self, cell: Cell) -> bool:
        """Whether a cell has these settings."""
        return all(name in cell and cell[name] == value for name, value in self.at.items())


@dataclass(frozen=True)
class CoverageLimits(Checked):
    """How often conformal intervals, calibrated on held-out draws of the training problem, must hold the truth.

    Example:
        >>> from fanfold.deploy.release import CoverageLimits
        >>> CoverageLimits(promised=0.9, at_least=0.85).draws
        1000
    """

    promised: float = 0.9
    at_least: float = 0.88  # in every cell
    draws: int = 1000  # to calibrate on

    def __post_init__(self):
        if not 0 < self.at_least <= self.promised < 1:
            raise ValueError(
                f"at_least is {self.at_least} and promised {self.promised}; choose 0 < at_least <= promised < 1."
            )


@dataclass(frozen=True)
class LatencyLimits(Checked):
    """What a call for one sample may take.

    Example:
        >>> from fanfold.deploy.release import LatencyLimits
        >>> LatencyLimits(limit_us=100.0).backend
        'c'
    """

    limit_us: float
    backend: str = "c"
    quantile: Literal["median", "p99"] = "p99"
    calls: int = 1000  # in each round
    rounds: int = 3  # the middle one counts, and the others are its interval
    slower: float = 1.25  # times as long as the last release may take, on the same host

    def __post_init__(self):
        check_known([self.backend], BACKENDS, "no backend {!r}; there are {}.")
        if min(self.calls, self.rounds) < 1 or not 0 < self.limit_us < math.inf or self.slower < 1:
            raise ValueError(
                f"calls is {self.calls}, rounds {self.rounds}, limit_us {self.limit_us} and slower {self.slower}; "
                "choose calls and rounds of at least 1, a time above 0, and a ratio of at least 1."
            )


@dataclass(frozen=True)
class SizeLimits(Checked):
    """How many bytes a file of the release may have; no limit where nothing is said.

    Example:
        >>> from fanfold.deploy.release import SizeLimits
        >>> SizeLimits(weights=50_000_000).onnx is None
        True
    """

    weights: int | None = None  # in safetensors
    onnx: int | None = None
    c: int | None = None  # source, header and weights together


@dataclass(frozen=True)
class IntegerLimits(Checked):
    """What an integer program may cost; it asks for one.

    Example:
        >>> from fanfold.deploy.release import IntegerLimits
        >>> IntegerLimits().loss_db
        0.3
    """

    loss_db: float = 0.3  # of NMSE against the float network on the same draws


@dataclass(frozen=True)
class GuardedLimits(Checked):
    """What a guard has to hold beside the network; it asks for one.

    Example:
        >>> from fanfold.deploy.release import GuardedLimits
        >>> GuardedLimits(at_home=1.02, shifted=1.05, shifts=("gain",)).calls
        1000
    """

    baseline: str | None = None  # the peer that it falls back to; the one that errs least of those that can be kept
    at_home: float | None = None  # squared error over the network's, at most
    shifted: float | None = None  # squared error over the baseline's under every declared shift, at most
    shifts: tuple[str, ...] | None = None  # families of shifts that are declared; all of the problem's if none is named
    calls: int = 1000  # of each of these streams
    limit_us: float | None = None  # of a guarded call, in the backend and quantile of [latency]

    def __post_init__(self):
        if self.calls < 2:
            raise ValueError(f"calls is {self.calls}; an error with an interval takes at least 2.")


@dataclass(frozen=True)
class ReleaseProfile(Checked):
    """What a release is held against; `read_profile` reads one from TOML.

    Example:
        >>> from fanfold.deploy.release import LifeCycle, ReleaseProfile
        >>> profile = ReleaseProfile(LifeCycle("sparse recovery", "sparse-1"), domain={"snr_db": (20.0, 30.0)})
        >>> list(profile.cells())
        [{'snr_db': 20.0}, {'snr_db': 30.0}]
    """

    life_cycle: LifeCycle
    domain: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # settings of the problem: every combination
    samples: int = 1000  # draws in each cell
    seed: int = 0  # of the draws
    targets: tuple[Literal["onnx", "c"], ...] = ("onnx", "c")
    limits: ErrorLimits = field(default_factory=ErrorLimits)
    exceptions: tuple[CellLimits, ...] = ()  # the last that holds for a cell counts
    coverage: CoverageLimits | None = None
    latency: LatencyLimits | None = None
    sizes: SizeLimits = field(default_factory=SizeLimits)
    integers: IntegerLimits | None = None
    guard: GuardedLimits | None = None

    def __post_init__(self):
        if self.samples < 2:
            raise ValueError(f"samples is {self.samples}; an error with an interval takes at least 2.")
        if self.guard is not None and self.guard.limit_us is not None and self.latency is None:
            raise ValueError("limit_us of [guard] is timed as [latency] says; add that section, or leave limit_us out.")
        for name, values in self.domain.items():
            if not values or name in COLUMNS:
                raise ValueError(f"domain: {name} is {values!r}; name a setting of the problem, and values to try.")
        if (count := math.prod(map(len, self.domain.values()))) > MOST_CELLS:
            raise ValueError(f"the domain has {count} cells; declare at most {MOST_CELLS}.")
        for exception in self.exceptions:
            check_known(exception.at, list(self.domain), "a cell's limits are at {!r}, and the domain has {}.")
            if not any(exception.holds_for(cell) for cell in self.cells()):
                raise ValueError(f"limits are said of {dict(exception.at)}, which no cell of the domain has.")

    def cells(self) -> Iterator[dict[str, Any]]:
        """The cells of the domain: each combination of its settings; one without any where it has none."""
        for values in itertools.product(*self.domain.values()):
            yield dict(zip(self.domain, values, strict=True))

    def limits_of(self, cell: Cell) -> ErrorLimits:
        """The limits of the error in a cell."""
        limits = self.limits
        for exception in self.exceptions:
            if exception.holds_for(cell):
                limits = ErrorLimits(
                    limits.nmse_db if exception.nmse_db is None else exception.nmse_db,
                    limits.gap_db if exception.gap_db is None else exception.gap_db,
                )
        return limits


SECTIONS: dict[str, type] = {
    "life_cycle": LifeCycle,
    "limits": ErrorLimits,
    "coverage": CoverageLimits,
    "latency": LatencyLimits,
    "sizes": SizeLimits,
    "integers": IntegerLimits,
    "guard": GuardedLimits,
}


def read_profile(path: str | Path) -> ReleaseProfile:
    """A profile from a TOML file.

    Raises:
        ValueError: If it is no TOML file, or a setting is unknown, missing or wrong; says in which section.
    """
    data = toml_table(path, f"there is no profile {path}; docs/release.md shows how to write one.")
    check_known(data, list(kinds_of(ReleaseProfile)), f"{path} has an entry {{!r}}; a profile has {{}}.")
    settings: dict[str, Any] = {}
    for name, value in data.items():
        with within(f"{path}, [{name}]" if name in SECTIONS else str(path)):
            settings[name] = _entry(name, value)
    with within(str(path)):
        return made(ReleaseProfile, settings, "the profile")


def _entry(name: str, value: Any) -> Any:
    if name in SECTIONS:
        return made(SECTIONS[name], value, name)
    if name == "domain":
        return {setting: _values(setting, values) for setting, values in check_table(value, "domain").items()}
    if name == "exceptions" and isinstance(value, Sequence):
        return tuple(made(CellLimits, limits, "an exception") for limits in value)
    return value


def _values(name: str, values: Any) -> tuple[Any, ...]:
    if not isinstance(values, list):
        raise ValueError(f"domain: {name} is {values!r}; list the values that are declared, such as [{values!r}].")
    return tuple(tuple(value) if isinstance(value, list) else value for value in values)
