"""The verb that takes trained runs elsewhere: export."""

import tempfile
from pathlib import Path

from fanfold.cli.apply import intervals_around
from fanfold.cli.console import note, show
from fanfold.cli.flags import Result, RunPath
from fanfold.cli.guarding import guard_of_run
from fanfold.cli.outputs import check_file, check_folder
from fanfold.core.abilities import offers
from fanfold.core.files import file_hash
from fanfold.core.precision import single
from fanfold.core.table import Table
from fanfold.deploy.targets import target_of
from fanfold.deploy.with_intervals import WithIntervals
from fanfold.estimators.base import InWholeNumbers
from fanfold.problems.draws import example_of
from fanfold.runs.directory import Run

SINGLE = ("c", "wasm")  # targets that compute in single precision
DRAWS = 16  # of the run's problem, which the estimator is traced with


def export(
    run: RunPath,
    to: str = "onnx",
    out: Path | None = None,
    coverage: float | None = None,
    joint: bool = False,
    guarded: bool = False,
    baseline: str | None = None,
    overwrite: bool = False,
) -> Result:
    """Write a trained run, with its operator, for where there is no PyTorch: as ONNX, C or WebAssembly.

    Args:
        run: Its run directory.
        to: Where it goes: onnx, a file for any number of samples, whose metadata say its inputs and outputs;
            onnx-single, of a network in whole numbers, the same bits by single precision alone; c, a source and a
            header for one sample, with golden vectors; wasm, a module for browsers, made of that C.
        out: The folder for the files; export in the run directory if not given.
        coverage: The program also says the ends low and high of intervals of this coverage, such as 0.9, as the run
            keeps them or calibrated on its held-out draws; of real unknowns.
        joint: These intervals hold all entries of a sample at once, with that probability.
        guarded: The program falls back to a peer where the network errs more or what is measured is strange, and says a
            p-value of each observation. It remembers: its first inputs are in the files.
        baseline: With --guarded: the peer; the one that errs least if not given.
        overwrite: Replace files of the same names there.
    """
    if baseline is not None and not guarded:
        raise ValueError(f"--baseline {baseline} is the peer that --guarded falls back to; add --guarded.")
    if guarded and coverage is not None:
        raise ValueError("a guarded estimator leaves without intervals: leave out --coverage or --guarded.")
    write, stored = target_of(to), Run.open(run)
    folder = out or stored.path / "export"
    check_folder(folder)
    net = stored.estimator()
    example = example_of(stored.draws(), DRAWS)
    leaving = net
    if guarded:
        leaving = guard_of_run(stored, net, baseline)
    elif coverage is not None:
        leaving = WithIntervals(intervals_around(stored, net, example, coverage, 1.0, joint=joint)[0])
    elif kept := sorted(stored.path.glob("intervals-*-*.json")):
        said = ", ".join(file.stem for file in kept)
        note(f"the run keeps intervals ({said}); --coverage exports their ends too")
    if to in SINGLE and example.y.dtype != single(example.y.dtype) and not offers(net, InWholeNumbers):
        note(f"the run is in {example.y.dtype}; {to} computes in single precision, and so does what is exported")
        example = example.in_precision(single(example.y.dtype))
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point() or tensor.is_complex():
                tensor.data = tensor.data.to(single(tensor.dtype))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as unfinished:
        written = write(leaving, example, Path(unfinished))
        places = [folder / file.relative_to(unfinished) for file in written]
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
            check_file(place, overwrite=overwrite or out is None)
        for file, place in zip(written, places, strict=True):
            file.replace(place)
    rows = [{"file": str(p), "bytes": p.stat().st_size, "sha256": file_hash(p)} for p in places]
    show(Table([row | {"sha256": row["sha256"][:12]} for row in rows]))
    note(f"exported to {to}; the same run gives the same bytes")
    return {"to": to, "files": rows}
