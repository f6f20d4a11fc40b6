"""Whether a release, perhaps from elsewhere, is what its certificate says: on this machine, with no trust in it.

Nothing of the bundle is run but its numbers: the network is built by this fanfold from config and weights, and so is
the C that is compiled. The C source of the bundle is compared, and is compiled itself only where that is allowed.
"""

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from fanfold.core.abilities import ability
from fanfold.core.files import file_hash, write_whole
from fanfold.core.table import Table
from fanfold.deploy.codegen import compiled, to_c
from fanfold.deploy.codegen.build import compile_c, find_compiler
from fanfold.deploy.codegen.compiled import compiled_files
from fanfold.deploy.integer import drafted
from fanfold.deploy.lowering import lowered
from fanfold.deploy.release import bundle as layout
from fanfold.deploy.release.against import read_certificate
from fanfold.deploy.release.bundle import Bundle, check_bundle_folder
from fanfold.deploy.release.certify import where_weights_go
from fanfold.deploy.release.golden import ReleaseVectors, replay_onnx, replay_torch
from fanfold.deploy.release.guard_kept import read_guard
from fanfold.deploy.release.guard_rows import GUARD_ROWS
from fanfold.deploy.release.guard_vectors import GuardVectors, replayed_in_c, replayed_in_onnx, replayed_in_torch
from fanfold.deploy.release.hashes import code_hash
from fanfold.deploy.release.measures import IntegerBuild
from fanfold.deploy.release.results import WORDS, ReleaseCertificate, ReleaseResult
from fanfold.deploy.release.signature import checks_with
from fanfold.estimators.base import InWholeNumbers, fingerprint_of
from fanfold.linops import LinearOperator
from fanfold.observation import Observation
from fanfold.runs.directory import Run
from fanfold.runs.weights import read_tensors

SELF_TEST = ("-O2", "-DESTIMATOR_SELF_TEST")
MOST_OF_A_KIND = 2**16  # layers, say, or units of one
LONGEST_S = 60  # of the self-test of a bundle's own C
REFUSED_BY = (
    ValueError, OSError, RuntimeError, ArithmeticError, LookupError, TypeError, MemoryError,
    subprocess.SubprocessError,  # of a compiler that does not end
)  # fmt: skip


class BundleCheck(NamedTuple):
    """One thing that was checked of a release.

    Example:
        >>> from fanfold.deploy.release import BundleCheck
        >>> BundleCheck("files", True, "12 files are what the manifest says").passed
        True
    """

    what: str
    passed: bool | None  # None where it could not be checked here
    note: str


class Verification(NamedTuple):
    """What came of the checks of a release.

    Example:
        >>> from fanfold.deploy.release import BundleCheck, Verification
        >>> Verification((BundleCheck("files", False, "golden.safetensors was changed"),)).verdict
        'refused: golden.safetensors was changed'
    """

    checks: tuple[BundleCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.passed is not False for check in self.checks)

    @property
    def verdict(self) -> str:
        """How it came out, in a sentence."""
        failed = [check for check in self.checks if check.passed is False]
        if failed:
            return f"refused: {failed[0].note}"
        unchecked = [check.what for check in self.checks if check.passed is None]
        return "verified" + (f"; not checked here: {', '.join(unchecked)}" if unchecked else "")

    @property
    def table(self) -> Table:
        """The checks as rows."""
        return Table([{"what": c.what, "verdict": WORDS[c.passed], "note": c.note} for c in self.checks])


def verify_bundle(path: str | Path, *, key: str | Path | None = None, allow_program: bool = False) -> Verification:
    """Check a release on this machine: its files, its certificate, and its golden vectors through torch, ONNX and C.

    Checks end with the first that makes those after it meaningless. No file outside the folder is read.

    Args:
        path: The folder of the release.
        key: The file of the public key of who has to have signed it; a release by anyone else is refused then.
        allow_program: Whether the C of the bundle may be compiled and run as it is. Else C is made anew from the
            weights, and the bundle's is compared with that.

    Raises:
        ValueError: If there is no folder at all, or the key is none.
        ImportError: If a key is given, and the library that checks signatures is not installed.
        OSError: If the key cannot be read.
    """
    check_bundle_folder(Path(path))
    signed = None if key is None else checks_with(key)
    checks: list[BundleCheck] = []
    try:
        checks.extend(_checks(Path(path), signed, allow_program=allow_program))  # those before an error stay
    except REFUSED_BY as error:
        sentence = str(error).strip().partition("\n")[0] or type(error).__name__
        checks.append(BundleCheck("reading the release", False, sentence[:400]))
    return Verification(tuple(checks))


def _checks(path: Path, signed: Callable[[Bundle], None] | None, *, allow_program: bool) -> Iterator[BundleCheck]:
    bundle = Bundle(path)
    yield BundleCheck("files", True, f"{len(bundle.entries)} files are what the manifest says")
    if signed is not None:
        said = _signature_check(bundle, signed)
        yield said
        if not said.passed:
            return
    elif bundle.signed:
        yield BundleCheck("signature", None, "it is signed; give the public key with --key, to know by whom")
    certificate = read_certificate(bundle)
    yield from _hashes(bundle, certificate)
    yield BundleCheck("certificate", certificate.passed, certificate.verdict)
    run = Run.open(path / layout.RUN)
    check_numbers(run.section("network"), "[network]")
    recorded, certified = run.environment.get("operator"), certificate.hashes.get("operator")
    net, A = run.estimator(), run.outline().A
    actual = fingerprint_of(net) if A is None else A.fingerprint()
    if not recorded == certified == actual:
        hashes = f"{str(certified)[:12]}, and the release holds {str(actual)[:12]}"
        yield BundleCheck("operator", False, f"another operator: the certificate is for {hashes}")
        return
    if (whole := ability(net, InWholeNumbers)) is not None:
        yield _integer_check(bundle, whole)
        net = whole.network
    golden = ReleaseVectors.read(path / layout.GOLDEN)
    said = _of(replay_torch(golden, net, A))
    yield said
    if not said.passed:
        return
    obs = golden.observation(A)
    if layout.ONNX in bundle.entries:
        yield _of(replay_onnx(golden, lowered(net, obs), A, bundle.read(layout.ONNX)))
    if layout.C_SOURCE in bundle.entries:
        yield from _in_c(bundle, net, golden, obs, A, allow_program=allow_program)
    if layout.GUARD in bundle.entries:
        yield from _guarded(bundle, net, A)
    elif any(name.startswith(layout.GUARDED) for name in bundle.entries) or any(
        result.what in GUARD_ROWS for result in certificate.results
    ):
        yield BundleCheck("guard", False, f"the release speaks of a guard, and {layout.GUARD} is not there")


def _signature_check(bundle: Bundle, signed: Callable[[Bundle], None]) -> BundleCheck:
    try:
        signed(bundle)
    except ValueError as error:
        return BundleCheck("signature", False, str(error))
    return BundleCheck("signature", True, "the holder of the key signed the release as it is")


def _integer_check(bundle: Bundle, whole: InWholeNumbers) -> BundleCheck:
    """The integer program of the bundle, against what this fanfold makes of the weights and scales."""
    what = "integer program"
    with tempfile.TemporaryDirectory() as folder:
        files = IntegerBuild.of(drafted(whole)).write(Path(folder))
        fresh = {f"{layout.INTEGER}/{path.name}": file_hash(path) for path in files}
    other = [name for name, content in fresh.items() if bundle.hash_of(name) != content]
    if not other:
        return BundleCheck(what, True, "it is what this fanfold makes of the weights, byte for byte")
    (program, *_) = fresh
    if program in other:
        return BundleCheck(what, False, f"{program} is another program than that of the weights")
    return BundleCheck(what, None, f"this fanfold makes other C of the same program: {', '.join(other)}")


def check_numbers(settings: Any, place: str) -> None:
    """Refuse sizes of a network that none has, before anything is allocated for them; seeds may be any number.

    Raises:
        ValueError: Names the setting.
    """
    parts = settings.items() if isinstance(settings, Mapping) else enumerate(settings)
    for name, value in parts:
        if isinstance(value, Mapping | list):
            check_numbers(value, f"{place} {name}")
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if whole and value > MOST_OF_A_KIND and "seed" not in str(name):
            raise ValueError(f"{place} {name} is {value}, more than any network has ({MOST_OF_A_KIND}).")


def _hashes(bundle: Bundle, certificate: ReleaseCertificate) -> Iterator[BundleCheck]:
    """The hashes that the certificate says, against those of the files; that of the code against this fanfold's."""
    files = {"weights": layout.WEIGHTS, "config": layout.CONFIG, "golden": layout.GOLDEN} | layout.OF_GUARD
    for name, file in files.items():
        if certificate.hashes.get(name) != bundle.hash_of(file):
            state = "another one than that which was certified" if file in bundle.entries else "not there any more"
            yield BundleCheck("hashes", False, f"{file} is {state}")
            return
    guarded = ", and those of the guard" if layout.GUARD in bundle.entries else ""
    yield BundleCheck("hashes", True, f"weights, config and golden vectors{guarded} are those that were certified")
    same = certificate.hashes.get("code") == code_hash()
    note = "the same fanfold" if same else "certified by another fanfold than this one"
    yield BundleCheck("code", True if same else None, note)


def _of(result: ReleaseResult) -> BundleCheck:
    if result.value is None:
        return BundleCheck(result.what, result.passed, result.note)
    words = f"they differ by {result.value:.2g} {result.unit}; {result.limit:.2g} is rounding".replace(" ;", ";")
    return BundleCheck(result.what, result.passed, words)


def _in_c(
    bundle: Bundle,
    net: nn.Module,
    golden: ReleaseVectors,
    obs: Observation,
    A: LinearOperator | None,
    *,
    allow_program: bool,
) -> Iterator[BundleCheck]:
    try:
        compiler = find_compiler()
    except ValueError as error:
        yield BundleCheck("golden vectors in C", None, str(error))
        return
    yield _of(golden.held_against(compiled(net, obs)(obs), "golden vectors in C"))
    with tempfile.TemporaryDirectory() as folder:
        files = to_c(net, obs, folder, weights=where_weights_go(net))
        names = [f"c/{path.name}" for path in files.paths]
        fresh = [file_hash(path) for path in files.paths]
    if fresh == [bundle.hash_of(name) for name in names]:
        yield BundleCheck("C source", True, "it is what this fanfold makes of the weights, byte for byte")
    elif allow_program:
        yield _self_tested(bundle, compiler)
    else:
        note = "this fanfold makes other C of these weights; --allow-program compiles and runs that of the release"
        yield BundleCheck("C source", None, note)


def _guarded(bundle: Bundle, net: nn.Module, A: LinearOperator | None) -> Iterator[BundleCheck]:
    """The guard of a release, built anew from its numbers around the network, and its programs."""
    golden = GuardVectors.read(bundle.path / layout.CALLS)
    check_numbers(read_tensors(bundle.path / layout.GUARD, "")[1], "the guard")
    guard = read_guard(bundle.path / layout.GUARD, bundle.path / layout.MONITOR, net, A)
    if (golden.p_value is None) != (guard.monitor is None):
        yield BundleCheck("golden calls in torch", False, "p-values and monitor are not there together")
        return
    obs, said = golden.observation(A), [_of(result) for result in replayed_in_torch(golden, guard, A)]
    yield from said
    guard.reset()
    if not all(check.passed for check in said):
        return
    if layout.GUARDED_ONNX in bundle.entries:
        content = bundle.read(layout.GUARDED_ONNX)
        yield from map(_of, replayed_in_onnx(golden, guard, lowered(guard, obs), content, A))
    if layout.GUARDED_C not in bundle.entries:
        return
    try:
        find_compiler()
    except ValueError as error:
        yield BundleCheck("golden calls in C", None, str(error))
        return
    with tempfile.TemporaryDirectory() as folder:
        files = to_c(guard, obs, folder, name="guarded", weights=where_weights_go(net))
        same = all(file_hash(path) == bundle.hash_of(f"guarded/{path.name}") for path in files.paths)
        yield _of(replayed_in_c(golden, guard, compiled_files(files, A), A))
    note = "it is what this fanfold makes of the guard, byte for byte"
    yield BundleCheck(
        "guarded C source", True if same else None, note if same else "this fanfold makes other C of this guard"
    )


def _self_tested(bundle: Bundle, compiler: str) -> BundleCheck:
    """The self-test of the bundle's own C, compiled from a copy."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name in (entry for entry in bundle.entries if entry.startswith("c/")):
            write_whole(place / Path(name).name, bundle.read(name))
        compile_c([place / "estimator.c"], place / "self-test", SELF_TEST, compiler)
        weights = [str(file) for file in place.glob("*.weights")]
        words = [str(place / "self-test"), *weights]
        try:
            done = subprocess.run(words, stdout=subprocess.DEVNULL, timeout=LONGEST_S, check=False, cwd=place)
        except subprocess.TimeoutExpired:
            return BundleCheck("C source", False, f"its own self-test did not end within {LONGEST_S} s")
    note = "its own self-test " + ("agrees" if done.returncode == 0 else "fails")
    return BundleCheck("C source", done.returncode == 0, note)
