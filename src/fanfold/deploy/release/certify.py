"""From a trained run to a release: everything is measured, held against a profile, and written into one folder."""

import json
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fanfold.core.abilities import ability
from fanfold.core.files import file_hash, read_regular, write_whole
from fanfold.core.table import plain
from fanfold.deploy.codegen import CompiledC, compiled, to_c
from fanfold.deploy.cost import stored_numbers
from fanfold.deploy.export import write_onnx
from fanfold.deploy.lowering import Lowered, lowered
from fanfold.deploy.release import bundle as layout
from fanfold.deploy.release.against import compared, write_cells
from fanfold.deploy.release.bundle import Bundle, write_manifest
from fanfold.deploy.release.cells import measure_cells
from fanfold.deploy.release.documents import bill_of_materials, model_card
from fanfold.deploy.release.golden import ReleaseVectors, replay_onnx, replay_torch
from fanfold.deploy.release.guard_released import check_guard, released_guard
from fanfold.deploy.release.hashes import code_hash, host
from fanfold.deploy.release.measures import IntegerBuild, integer_results, latency_result, size_results
from fanfold.deploy.release.profile import ReleaseProfile, read_profile
from fanfold.deploy.release.results import ReleaseCertificate, ReleaseResult
from fanfold.deploy.release.signature import signs_with
from fanfold.estimators.base import InWholeNumbers, fingerprint_of
from fanfold.guard import Guarded
from fanfold.observation import Estimator, Observation
from fanfold.runs.directory import Run
from fanfold.runs.environment import data_hash

KEPT = ("config.toml", "operator.safetensors", "weights.safetensors")  # of the run
KEPT_FACTS = ("operator", "data", "seed", "packages")  # of its environment: no path, no command
IN_SOURCE = 2**20  # numbers that a C compiler reads as text without trouble; more go into a file to be mapped
Say = Callable[[str], object]
WritePage = Callable[[ReleaseCertificate, Path], object]


class Release(NamedTuple):
    """A release that was written: where, and its certificate.

    Example:
        >>> from pathlib import Path
        >>> from fanfold.deploy.release import Release, ReleaseCertificate
        >>> Release(Path("release"), ReleaseCertificate({}, {}, {}, {}, ())).certificate.passed
        True
    """

    folder: Path
    certificate: ReleaseCertificate


def certify_release(
    run: Run,
    profile: str | Path,
    folder: Path,
    *,
    against: str | Path | None = None,
    integer: IntegerBuild | None = None,
    guard: Guarded | None = None,
    sign: str | Path | None = None,
    write_page: WritePage | None = None,
    say: Say = lambda line: None,
) -> Release:
    """Measure a trained run against a profile, and write its release, whole or not at all, whether it passes or not.

    Args:
        run: The run; whatever its network is made of must be kept in it.
        profile: The file of the profile.
        folder: Where the release goes; one that is there is replaced.
        against: The folder of the release before, which gates this one.
        integer: An integer program to be released beside the float network; that of a quantised run, which releases no
            other, if not given.
        guard: The guard that is released beside the network, made for it as the run gives it; see `keep_guard` for the
            baselines that it may have. The profile's name of a baseline is for who makes the guard: it is not held
            against this one.
        sign: The file of a private key, which signs the release if it passes.
        write_page: Writes the certificate as a page.
        say: Called with a line before what takes seconds.

    Raises:
        ValueError: If the profile, the run or the older release is not as it should be, a quantised run comes with an
            integer program that is not its own, or with a guard; the profile asks for a guard and there is none; a
            baseline cannot be kept; a condition is none of the problem's; the network cannot be exported as the profile
            asks; or the key is none.
        ImportError: If it is to be signed, and the library that does is not installed.
    """
    declared = read_profile(profile)
    signs = None if sign is None else signs_with(sign)
    before = None if against is None else Bundle(against)
    _check_place(folder)
    net, problem = run.estimator(), run.draws()
    released = net
    if (whole := ability(net, InWholeNumbers)) is not None:
        integer, net = _of_the_run(integer, IntegerBuild.of_network(whole)), whole.network
    check_guard(guard, declared, whole, problem)
    golden = ReleaseVectors.of(problem, net)
    example = golden.observation(problem.A)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unfinished-") as unfinished:
        place = Path(unfinished) / "release"
        _keep(run, Path(profile), golden, place)
        say("exporting")
        low = _lowered(net, example)
        results, in_c = _exported(net, example, golden, low, declared, place)
        say(f"measuring {sum(1 for _ in declared.cells())} cells of {declared.samples} draws")
        measured = measure_cells(net, problem, declared)
        write_cells(place / layout.CELLS, measured.cells)
        results = [*measured.results, *results]
        quantised = ()
        if integer is not None and integer.estimator is not None:
            quantised = measure_cells(integer.estimator, problem, declared).cells
            (place / layout.INTEGER).mkdir()
            integer.write(place / layout.INTEGER)
        results += integer_results(integer, declared.integers, measured.cells, quantised)
        if declared.latency is not None:
            say(f"timing {declared.latency.rounds} rounds of {declared.latency.calls} calls")
            if whole is None or integer is None or integer.estimator is None:
                results.append(latency_result(net, example, declared.latency, in_c))
            else:
                results.append(latency_result(released, example, declared.latency))
        results += size_results(place, declared.sizes)
        if guard is not None:
            results += released_guard(guard, net, problem, declared, place, where_weights_go(net), say)
        facts, hashes = _facts(run, declared, low), _hashes(run, net, problem, place)
        words = declared.life_cycle if guard is None else declared.life_cycle.guarded()
        certificate = ReleaseCertificate(vars(words), facts, hashes, host(), tuple(results))
        if before is not None:
            slower = None if declared.latency is None else declared.latency.slower
            certificate = compared(before, certificate, measured.cells, slower)
        _write_documents(certificate, place, write_page)
        if signs is not None and certificate.passed:
            signs(place)
        _replace(folder, place)
    return Release(folder, certificate)


def _of_the_run(given: IntegerBuild | None, of_run: IntegerBuild) -> IntegerBuild:
    """The integer program of a quantised run, which is no other than the one that is given."""
    if given is not None and given.fingerprint != of_run.fingerprint:
        raise ValueError(
            "the run is quantised, and integer is another program than its own, which is what a receiver would verify; "
            "leave integer out, or certify the run in floating point with it."
        )
    return of_run


def _check_place(folder: Path) -> None:
    """Refuse to replace what is no release.

    Raises:
        ValueError: If there is something else.
    """
    if folder.is_symlink() or (folder.exists() and not (folder / layout.MANIFEST).is_file() and any(folder.iterdir())):
        raise ValueError(f"{folder} holds something else than a release; choose another folder with --out.")


def _keep(run: Run, profile: Path, golden: ReleaseVectors, place: Path) -> None:
    """The parts of a release that are there before anything is measured."""
    (place / layout.RUN).mkdir(parents=True)
    for name in KEPT:
        if (run.path / name).exists():
            write_whole(place / layout.RUN / name, read_regular(run.path / name))
    environment = {name: value for name, value in run.environment.items() if name in KEPT_FACTS}
    write_whole(place / layout.ENVIRONMENT, json.dumps(environment, indent=1).encode())
    write_whole(place / layout.PROFILE, profile.read_bytes())
    golden.write(place / layout.GOLDEN)


def _lowered(net: Estimator, example: Observation) -> Lowered:
    with torch.no_grad():
        return lowered(net, example)


def _exported(
    net: Estimator, example: Observation, golden: ReleaseVectors, low: Lowered, declared: ReleaseProfile, place: Path
) -> tuple[list[ReleaseResult], CompiledC | None]:
    """The programs of a release, each held against the golden vectors; and the one in C as an estimator.

    Raises:
        ValueError: If a program cannot be made of the network.
    """
    results, in_c = [replay_torch(golden, net, example.A)], None
    try:
        if "onnx" in declared.targets:
            (place / layout.ONNX).parent.mkdir()
            content = write_onnx(low, place / layout.ONNX).read_bytes()
            results.append(replay_onnx(golden, low, example.A, content))
        if "c" in declared.targets:
            to_c(net, example, (place / layout.C_SOURCE).parent, weights=where_weights_go(net))
            in_c = compiled(net, example)
            results.append(golden.held_against(in_c(example), "golden vectors in C"))
    except (ValueError, ImportError) as error:
        why = str(error).rstrip(".")
        raise ValueError(f"{why}. Leave that out of the profile's targets, to release without it.") from error
    return results, in_c


def where_weights_go(net: Estimator) -> str:
    """Whether the weights of a network are in the C source, or in a file of their own: see `to_c`."""
    return "arrays" if stored_numbers(net) <= IN_SOURCE else "blob"


def _facts(run: Run, declared: ReleaseProfile, low: Lowered) -> dict[str, Any]:
    network, problem = run.section("network"), run.section("problem")
    algorithm = network.get("algorithm")
    kind = f"{network.get('name')} {algorithm['name']}" if isinstance(algorithm, dict) else str(network.get("name"))
    return plain({
        "certified": datetime.now(UTC).isoformat(timespec="seconds"),
        "problem": json.dumps(problem),
        "network_kind": kind,
        "network": json.dumps(network),
        "domain": {name: list(values) for name, values in declared.domain.items()},
        "draws": f"{declared.samples} in each cell, seed {declared.seed}",
        "inputs": [f"{port.name}: {port.described()}" for port in low.inputs],
        "outputs": [f"{port.name}: {port.described()}" for port in low.outputs],
    })  # fmt: skip


def _hashes(run: Run, net: Estimator, problem: object, place: Path) -> dict[str, str | None]:
    return {
        "weights": file_hash(place / layout.WEIGHTS),
        "code": code_hash(),
        "operator": run.environment.get("operator") or fingerprint_of(net),
        "data": run.environment.get("data") or data_hash(problem),
        "config": file_hash(place / layout.CONFIG),
        "golden": file_hash(place / layout.GOLDEN),
    } | {name: file_hash(place / file) for name, file in layout.OF_GUARD.items() if (place / file).exists()}


def _write_documents(certificate: ReleaseCertificate, place: Path, write_page: WritePage | None) -> None:
    write_whole(place / layout.CERTIFICATE, certificate.as_json())
    write_whole(place / layout.CARD, model_card(certificate).encode())
    if write_page is not None:
        write_page(certificate, place / layout.PAGE)
    files = {path.relative_to(place).as_posix(): file_hash(path) for path in place.rglob("*") if path.is_file()}
    write_whole(place / layout.BILL, bill_of_materials(certificate, files))
    write_manifest(place)


def _replace(folder: Path, place: Path) -> None:
    """Put a release where it belongs; an older one stays until the new one is whole."""
    older = place.parent / "older"
    if folder.exists():
        folder.rename(older)
    try:
        place.rename(folder)
    except OSError:
        if older.exists():
            older.rename(folder)
        raise
    shutil.rmtree(older, ignore_errors=True)
