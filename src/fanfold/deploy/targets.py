"""Where an estimator can go: a row for each target of `fanfold export`."""

from collections.abc import Callable
from pathlib import Path

from fanfold.core.abilities import ability
from fanfold.core.suggest import did_you_mean
from fanfold.deploy.codegen import to_c, to_wasm
from fanfold.deploy.export import to_onnx
from fanfold.deploy.integer import drafted, in_single_precision, program_to_c, program_to_onnx, program_to_wasm
from fanfold.estimators.base import InWholeNumbers
from fanfold.observation import Estimator, Observation

Target = Callable[[Estimator, Observation, Path], list[Path]]  # estimator, example, folder -> the files it wrote there


def _onnx(estimator: Estimator, example: Observation, folder: Path) -> list[Path]:
    """An ONNX file with the noise variance as an input wherever the estimator takes one; of whole numbers if it has."""
    if (whole := ability(estimator, InWholeNumbers)) is not None:
        return [program_to_onnx(drafted(whole), folder / "estimator.onnx")]
    return [to_onnx(estimator, example, folder / "estimator.onnx")]


def _onnx_single(estimator: Estimator, example: Observation, folder: Path) -> list[Path]:
    """An ONNX file of whole numbers for runtimes without double precision, with the same bits.

    Raises:
        ValueError: If the estimator does not compute in whole numbers.
    """
    if (whole := ability(estimator, InWholeNumbers)) is None:
        raise ValueError(
            "onnx-single is for a network in whole numbers alone; one in floating point, or guarded, leaves as onnx."
        )
    return [program_to_onnx(in_single_precision(drafted(whole)), folder / "estimator.onnx")]


def _c(estimator: Estimator, example: Observation, folder: Path) -> list[Path]:
    """A pair of C files for one sample, with its weights in the source, and golden vectors; in integers if it has."""
    if (whole := ability(estimator, InWholeNumbers)) is not None:
        return program_to_c(drafted(whole)).write(folder)
    return to_c(estimator, example, folder).paths


def _wasm(estimator: Estimator, example: Observation, folder: Path) -> list[Path]:
    """WebAssembly, a module that loads it, and the C that it is made of; in integers if it has."""
    if (whole := ability(estimator, InWholeNumbers)) is not None:
        return program_to_wasm(drafted(whole), folder)
    return to_wasm(estimator, example, folder)


TARGETS: dict[str, Target] = {"onnx": _onnx, "onnx-single": _onnx_single, "c": _c, "wasm": _wasm}


def target_of(name: str) -> Target:
    """The target of that name.

    Raises:
        ValueError: If there is none; the error lists those there are.

    Example:
        >>> from fanfold.deploy.targets import target_of
        >>> target_of("onx")
        Traceback (most recent call last):
        ValueError: no target 'onx'; there are onnx, onnx-single, c, wasm. Did you mean 'onnx'?
    """
    if name not in TARGETS:
        raise ValueError(f"no target {name!r}; there are {', '.join(TARGETS)}.{did_you_mean(name, TARGETS)}")
    return TARGETS[name]
