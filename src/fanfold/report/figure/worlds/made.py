"""Making a world again: train its estimators, write each as C, compile that to WebAssembly, measure it with torch."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fanfold.bounds.convergence import certify, has_evolution
from fanfold.core.complex_pairs import as_pairs
from fanfold.core.noise import circular
from fanfold.core.units import nmse_db, power
from fanfold.deploy.codegen import CFiles, to_c
from fanfold.observation import Estimate, Observation
from fanfold.problems import Problem
from fanfold.report.figure.built import compiled_program
from fanfold.report.figure.worlds.described import WORLDS, Weights
from fanfold.report.figure.worlds.kept import WorldParts
from fanfold.report.figure.worlds.whole_curve import WholeCurve

PRECISE = 3  # places of what is measured in dB
SEED = 7  # of the noise that errors are measured with


def make_world(name: str, **fewer: int) -> WorldParts:
    """Train, compile and measure one world, in some minutes of one core.

    Args:
        name: The world.
        **fewer: `steps` of its training.

    Raises:
        ValueError: If clang with wasm-ld is not there.
    """
    world = WORLDS[name]
    weights = world.train(**fewer)
    with tempfile.TemporaryDirectory() as folder:
        programs = {files.name: compiled_program(files) for files in c_of(name, weights, Path(folder))}
    return WorldParts(facts_of(name, weights), programs, _real(world.signals()), weights)


def c_of(name: str, weights: Weights, folder: Path, only: int | None = None) -> Iterator[CFiles]:
    """The C of every program of a world: `measured` and `pixels`, then one for each estimator, in their order.

    Args:
        name: The world.
        weights: What was trained and tuned.
        folder: Where the C goes.
        only: How many estimators, of the first; all if None.
    """
    world = WORLDS[name]
    A, x = world.problem.A, world.signals()
    assert A is not None
    yield to_c(lambda obs: Estimate(A @ obs.y), Observation(x), folder, name="measured")
    yield to_c(lambda obs: Estimate(world.pixels(obs.y)), Observation(x), folder, name="pixels")
    obs = observed(name, x[:3], world.snr_db)
    for number, estimator in enumerate([*world.estimators(weights).values()][:only]):
        yield to_c(WholeCurve(estimator), obs, folder, name=f"estimator_{number}")


@torch.no_grad()
def observed(name: str, x: Tensor, snr_db: float, seed: int = SEED) -> Observation:
    """The unknowns `(count, n)` measured at an SNR as the page understands it: power of A x over that of the noise."""
    A = WORLDS[name].problem.A
    assert A is not None
    clean, noise_var = A @ x, torch.full((len(x), 1), noise_var_of(name, snr_db))
    noise = circular(tuple(clean.shape), torch.Generator().manual_seed(seed), clean.dtype, noise_var)
    return Observation(clean + noise, A, noise_var)


def noise_var_of(name: str, snr_db: float) -> float:
    """The noise variance `E|w|²` at an SNR in dB."""
    return received_power(name) * 10 ** (-snr_db / 10)


def received_power(name: str) -> float:
    """The mean power of a measurement of the unknowns that the page shows, without noise."""
    A = WORLDS[name].problem.A
    assert A is not None
    return power(A @ WORLDS[name].signals()).mean().item()


@torch.no_grad()
def facts_of(name: str, weights: Weights) -> dict[str, Any]:
    """Words and sizes for the manifest, with the errors in dB of every layer where the slider stands at first."""
    world = WORLDS[name]
    x = world.signals()
    obs = observed(name, x, world.snr_db)
    evolves = has_evolution(world.problem)
    rows = []
    for number, (key, estimator) in enumerate(world.estimators(weights).items()):
        layers = WholeCurve(estimator)(obs).x.unflatten(-1, (-1, x.shape[-1])).unbind(1)
        errors = [round(nmse_db(x_hat, x), PRECISE) for x_hat in layers]
        rows.append({"key": key, "program": f"estimator_{number}", "layers": len(layers), "nmse_db": errors})
    limits = None
    if evolves:
        others = [{} if world.density is None else {"sparsity": share} for share in world.sparsities]
        limits = [
            [_limit_db(world.problem.shifted(snr_db=float(snr), **other), x) for snr in world.snrs_db]
            for other in others
        ]
    measured = {
        "limits": limits,
        "estimators": rows,
        "received_power": received_power(name),
        "parts": 2 if x.is_complex() else 1,
    }
    shown = world._asdict()
    words = {
        key: shown[key]
        for key in ("title", "lead", "note", "layers", "snr_db", "snrs_db", "view", "density", "sparsities")
    }
    return words | measured


def _limit_db(problem: Problem, x: Tensor) -> float:
    """Where state evolution settles, NMSE in dB."""
    return round(certify([Estimate(x)], x, problem).limit_db, PRECISE)


def _real(x: Tensor) -> Tensor:
    return (as_pairs(x).flatten(1) if x.is_complex() else x).contiguous()
