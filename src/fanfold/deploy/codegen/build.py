"""Compiling C: a compiler of this machine, and shared libraries kept by the hash of what they are made of."""

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fanfold.core.files import write_whole
from fanfold.core.machine import processor_lines

COMPILERS = ("gcc", "clang", "cc")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror")
# Sums keep their order; a product and a sum are one rounding. No number depends on the last two, but roots and choices
# become vectors with them.
FAST = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
LONGEST_S = 600  # of one compilation


def find_compiler(name: str | None = None) -> str:
    """The path of a C compiler: the named one, else that of the variable CC, else gcc, clang or cc.

    Raises:
        ValueError: If there is none.
    """
    named = name or os.environ.get("CC")
    wanted = [named] if named else COMPILERS
    for candidate in wanted:
        if path := shutil.which(candidate):
            return path
    raise ValueError(f"no C compiler: looked for {', '.join(wanted)}; install gcc or clang, or set CC to one.")


def compile_shared(
    sources: Sequence[str | Path],
    flags: Sequence[str] = FAST,
    *,
    compiler: str | None = None,
    cache: Path | None = None,
) -> Path:
    """Compile C99 sources into a shared library, or find the one that was made of the same text before.

    Args:
        sources: The .c files; headers of theirs lie beside them.
        flags: Further flags of the compiler.
        compiler: Its name, such as clang; the first that is there if None.
        cache: The folder that keeps libraries; `fanfold/c` in the user's cache if None.

    Raises:
        ValueError: If there is no compiler, or it refuses the source; with its first complaint.
    """
    program = find_compiler(compiler)
    paths = [Path(source) for source in sources]
    texts = [path.read_bytes() for source in paths for path in (source, source.with_suffix(".h")) if path.exists()]
    key = hashlib.sha256("\0".join([program, _version(program), _machine(), *flags]).encode())
    for text in texts:
        key.update(hashlib.sha256(text).digest())
    folder = cache or _user_cache()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    library = folder / f"{key.hexdigest()[:32]}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory() as place:
            made = [Path(place) / f"{path.stem}.o" for path in paths]
            says_stack = ["-fstack-usage"] if Path(program).name.startswith(("gcc", "clang")) else []
            for path, part in zip(paths, made):
                compile_c([path], part, [*flags, *says_stack, "-c", "-fPIC"], program)
            compile_c(made, Path(place) / library.name, ["-shared"], program)
            usage = "".join(su.read_text() for su in sorted(Path(place).glob("*.su")))
            write_whole(library.with_suffix(".su"), usage.encode())
            write_whole(library, (Path(place) / library.name).read_bytes())
    return library


def stack_of(library: Path, entry: str) -> int | None:
    """The bytes that a function puts on the stack with the largest that it calls; None where the compiler said nothing.

    Args:
        library: What `compile_shared` gave.
        entry: The function. It calls functions k0, k1 and so on of the same file, and these the others there.
    """
    usage = library.with_suffix(".su")
    lines = usage.read_text().splitlines() if usage.exists() else []
    sizes = {words[0].rpartition(":")[2]: int(words[1]) for line in lines if len(words := line.split("\t")) > 1}
    if entry not in sizes:
        return None
    called = {name: size for name, size in sizes.items() if name != entry}
    of_calls = max((size for name, size in called.items() if name.startswith("k")), default=0)
    return sizes[entry] + of_calls + max((size for name, size in called.items() if not name.startswith("k")), default=0)


def compile_c(sources: Sequence[Path], out: Path, flags: Sequence[str], compiler: str) -> None:
    """Run a compiler on C99 sources, with all warnings as errors.

    Raises:
        ValueError: If it refuses them; with its first complaint.
    """
    linked = [] if "-c" in flags else ["-lm"]  # which clang refuses where nothing is linked
    command = [compiler, *STRICT, *flags, *map(str, sources), "-o", str(out), *linked]
    run_compiler(command, f"{Path(compiler).name} does not compile {sources[0].name}")


def run_compiler(command: Sequence[str], refusal: str) -> None:
    """Run a command that compiles.

    Raises:
        ValueError: If it fails: the refusal and its first complaint.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    if done.returncode:
        complaint = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:300])
        raise ValueError(f"{refusal}: {complaint.strip()}")


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fanfold" / "c"


@functools.cache
def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout


@functools.cache
def _machine() -> str:
    """What the instructions that a compiler may use depend on."""
    words = [line for line in processor_lines() if line.startswith(("flags", "Features", "model name"))]
    return "\n".join([platform.machine(), *sorted(set(words))])
