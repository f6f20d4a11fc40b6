"""An estimator as portable C for one sample: a pair of files that needs nothing but a C99 compiler."""

import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fanfold.core.files import write_whole
from fanfold.deploy.codegen.kernels import Memory
from fanfold.deploy.codegen.program import CProgram, program_of
from fanfold.deploy.codegen.text import Golden, texts
from fanfold.deploy.lowering import Lowered, lowered
from fanfold.observation import Estimator, Observation

SAMPLES = 3  # of golden vectors
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class CFiles(NamedTuple):
    """The files that `to_c` wrote, and what they hold.

    Attributes:
        name: What functions and files are called.
        source, header, golden: The pair of C files, and golden vectors as words in hexadecimal.
        weights: The file of weights to be mapped; None where they are in the source.
        lowered: The program of real tensors that was written.
        program: What it is in C: calls, constants, sizes.
        blob: Where constants begin in the file of weights, in entries.

    Example:
        >>> import fanfold as ff, tempfile, torch
        >>> x, obs = ff.problems.CompressedSensing(n=40, m=20).sample(8, torch.Generator().manual_seed(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = ff.deploy.to_c(ff.iterate(ff.algorithms.ISTA(), 2), obs, folder, name="ista")
        >>> [path.name for path in files.paths]
        ['ista.c', 'ista.h', 'ista_golden.txt']
    """

    name: str
    source: Path
    header: Path
    golden: Path
    weights: Path | None
    lowered: Lowered
    program: CProgram
    blob: dict[Memory, int]

    @property
    def paths(self) -> list[Path]:
        """All files."""
        return [p for p in (self.source, self.header, self.golden, self.weights) if p is not None]


def to_c(
    estimator: Estimator,
    example: Observation,
    folder: str | Path,
    *,
    name: str = "estimator",
    weights: str = "arrays",
    fixed_noise: bool = False,
) -> CFiles:
    """Write an estimator as C99 for one sample, `NAME.c` and `NAME.h`, with golden vectors in `NAME_golden.txt`.

    `NAME_run(y, x_hat, work)` allocates nothing; the caller gives the workspace, whose size the header says, as it says
    shape, unit and layout of each port. It needs <stdint.h>, <string.h> and <math.h>. With `-DNAME_SELF_TEST` the
    source has a `main` that replays the golden vectors and gives 0 where they agree. The same estimator gives
    the same bytes.

    Args:
        estimator: Any estimator in single precision that `lowered` takes; complex numbers are pairs, interleaved.
        example: An observation of at least two samples; the first few are the golden vectors.
        folder: Where the files go; made if it is not there.
        name: What files and functions are called: small letters, digits and underscores.
        weights: `arrays`, constants in the source, or `blob`, a file `NAME.weights` that the caller maps and hands in.
        fixed_noise: Whether a noise variance that is one number for all belongs to the program.

    Raises:
        ValueError: If an operation has no C, which the error names; the estimator is in double precision; or the name
            or the kind of weights is none.

    Example:
        >>> import fanfold as ff, tempfile, torch
        >>> x, obs = ff.problems.CompressedSensing(n=40, m=20).sample(8, torch.Generator().manual_seed(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = ff.deploy.to_c(ff.iterate(ff.algorithms.ISTA(), 10), obs, folder)
        >>> files.header.name, files.program.products
        ('estimator.h', 15200)
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for C functions; use small letters, digits and _, such as lista_cp.")
    if weights not in ("arrays", "blob"):
        raise ValueError(f"weights is {weights!r}; choose arrays, in the source, or blob, in a file of their own.")
    low = lowered(estimator, example, batch=1, fixed_noise=fixed_noise)
    return write_c(low, _golden(low, example), Path(folder), name, blob=weights == "blob")


def write_c(low: Lowered, golden: Golden, folder: Path, name: str, *, blob: bool = False) -> CFiles:
    """Write a program of real tensors for one sample, of whatever inputs and outputs, as C.

    Args:
        low: The program, with its ports; a program of `torch.export` need not come from an estimator.
        golden: Golden vectors by the names of the ports.
        folder: Where the files go; made if it is not there.
        name: What files and functions are called.
        blob: Whether weights go into a file of their own.

    Raises:
        ValueError: If an operation has no C, or a port is not float32.
    """
    program = program_of(low.program, ([port.name for port in low.inputs], [port.name for port in low.outputs]))
    written = texts(program, [*low.inputs, *low.outputs], golden, name, low.start, blob=blob)
    folder.mkdir(parents=True, exist_ok=True)
    files = CFiles(
        name,
        folder / f"{name}.c",
        folder / f"{name}.h",
        folder / f"{name}_golden.txt",
        folder / f"{name}.weights" if written.weights else None,
        low,
        program,
        written.blob,
    )
    contents = [written.source.encode(), written.header.encode(), written.golden.encode(), written.weights]
    for path, content in zip(files.paths, contents):
        write_whole(path, content)
    return files


def _golden(low: Lowered, example: Observation) -> Golden:
    """What torch says of the first samples of the example, one by one."""
    count = min(SAMPLES, len(example.y))
    inputs: dict[str, list[Tensor]] = {port.name: [] for port in low.inputs}
    outputs: dict[str, list[Tensor]] = {port.name: [] for port in low.outputs}
    module = low.program.module()
    with torch.no_grad():
        for s in range(count):
            arguments = low.arguments(example[s : s + 1])
            for port, value in zip(low.inputs, arguments, strict=True):
                inputs[port.name].append(value.reshape(-1))
            for port, value in zip(low.outputs, module(*arguments), strict=True):
                outputs[port.name].append(value.reshape(-1))
    return Golden(
        {name: torch.stack(values) for name, values in inputs.items()},
        {name: torch.stack(values) for name, values in outputs.items()},
    )
