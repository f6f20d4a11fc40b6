"""The verbs that use trained runs: runs, evaluate, apply, report."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from fanfold.cli.apply import apply_to_file
from fanfold.cli.console import note, show
from fanfold.cli.flags import Result, RunPath
from fanfold.cli.fresh import fresh_pairs, held_shares, judged_on
from fanfold.cli.outputs import check_file, check_folder
from fanfold.cli.shifting import shifts_of_run
from fanfold.core.abilities import ability
from fanfold.core.files import is_regular
from fanfold.core.table import Table
from fanfold.evaluation.by_unknown import errors_by_unknown, in_digits, remarks_on_unknowns
from fanfold.evaluation.evaluate import evaluate as evaluate_estimators
from fanfold.evaluation.few import remarks_on_few
from fanfold.evaluation.peers import absent_peers, peers_of
from fanfold.problems.protocols import FromStock, Stored
from fanfold.report.run_page import write_run_page
from fanfold.report.shifted import KEPT as SHIFTS
from fanfold.report.simulations import KEPT
from fanfold.runs import recipe
from fanfold.runs.directory import Run
from fanfold.training.learning_curve import BudgetTrained
from fanfold.training.learning_curve import learning_curve as curve_of_trainings
from fanfold.training.settings import TrainingOptions, training_for

DEFAULT = Path("runs")  # where train puts runs
COLUMNS = ("run", "problem", "network", "layers", "step", "of", "nmse_db", "done", "note")


def runs(directory: Annotated[Path, tyro.conf.Positional] = DEFAULT) -> Result:
    """List run directories with what was trained and how far it got.

    Args:
        directory: The folder that holds run directories.
    """
    if directory != DEFAULT and not directory.is_dir():
        what = "no folder" if directory.exists() else "not there"
        raise ValueError(f"{directory} is {what}; give the folder that holds run directories.")
    rows = [_row(Run(file.parent)) for file in sorted(directory.glob("*/config.toml"))]
    if rows:
        show(Table(rows))
    else:
        note(f"no runs in {directory}; fanfold train makes one.")
    return {"runs": rows}


def _row(run: Run) -> dict[str, Any]:
    """What a run trains and how far it got; a run that cannot be read says so."""
    try:
        config, validated = run.config, [m for m in run.metrics() if m["event"] == "validated"]
    except (ValueError, OSError) as error:
        return dict.fromkeys(COLUMNS) | {"run": str(run.path), "done": False, "problem": f"cannot be read: {error}"}
    network, last = config.get("network", {}), validated[-1] if validated else {}
    weights = is_regular(run.path / "weights.safetensors")
    algorithm = network.get("algorithm")
    values = (
        str(run.path),
        config.get("problem", {}).get("name"),
        algorithm.get("name") if isinstance(algorithm, dict) else network.get("name"),
        network.get("layers"),
        last.get("step", 0),
        config.get("training", {}).get("steps"),
        last.get("nmse_db"),
        weights,
        run.advice,
    )
    return dict(zip(COLUMNS, values, strict=True))


def evaluate(
    run: RunPath,
    snr_db: tuple[float, ...] = (),
    pictures: tuple[str, ...] = (),
    samples: int = 1000,
    data: Path | None = None,
    coverage: float | None = None,
    layers: bool = False,
    out: Path | None = None,
    overwrite: bool = False,
    learning_curve: bool = False,
    shifts: bool = False,
    baseline: str | None = None,
    specialist_steps: int = 0,
) -> Result:
    """Error of a trained run on fresh draws, against its untrained self and its peers, with the limits.

    Args:
        run: Its run directory.
        snr_db: SNRs to try, where the problem has one; that of the training if none is given.
        pictures: Other pictures to test on, where the problem has some; those of the training if none is given.
        samples: Draws for each condition.
        data: Judge on all pairs of this file, which nothing has seen yet, instead: .npz, .csv or a folder of .csv, as
            the problem pairs reads them, of the run's shapes.
        coverage: With --data: also count how often the calibrated intervals of this coverage hold these pairs.
        layers: A row for each layer.
        out: A .csv or .json file for the table.
        overwrite: Replace that file if it exists.
        learning_curve: Also train anew on parts of the pairs, and say what more simulations would gain; the run's page
            shows it from then on.
        shifts: Also say what becomes of it in a world that has changed, shift by shift, guarded and not, and what a
            monitor sees of it; the run's page shows it from then on.
        baseline: The peer that it falls back to there, and is compared with; the one that errs least if not given.
        specialist_steps: With --shifts: so many steps a copy of the network goes on training under each shift, to show
            what one that knew of it would reach; takes a training for each.
    """
    if specialist_steps and not shifts:
        raise ValueError(f"--specialist-steps {specialist_steps} is for the cells of --shifts; add --shifts.")
    if baseline is not None and not shifts:
        raise ValueError(f"--baseline {baseline} is the peer that --shifts compares with; add --shifts.")
    if out is not None:
        check_file(out, overwrite=overwrite, suffixes=(".csv", ".json"))
    if coverage is not None and data is None:
        raise ValueError(f"--coverage {coverage:g} counts on pairs that calibration has not seen; add --data FILE.")
    if data is not None and (shifts or pictures):
        flag = "--shifts" if shifts else "--pictures"
        raise ValueError(f"{flag} changes what is drawn, and pairs of a file stay as they are; leave out --data.")
    stored = Run.open(run)
    options = _options_of(stored) if learning_curve else {}
    net, problem = stored.estimator(), stored.draws()
    fresh = None if data is None else fresh_pairs(data, net, stored.outline())
    judging = problem if fresh is None else fresh
    if fresh is not None:
        samples = len(fresh.rows())
        note(f"judged on {samples} pairs of {data}")
    elif (stocked := ability(problem, FromStock)) is not None:
        note(f"judged on {stocked.stock}")
    conditions: dict[str, Any] = {"snr_db": list(snr_db)} if snr_db else {}
    if pictures:
        judging = problem = problem.shifted(pictures=pictures)
    peers = peers_of(net, problem)
    table = evaluate_estimators(peers, judging, samples=samples, layers=layers, **conditions)
    if out is not None:
        (table.to_json if out.suffix.lower() == ".json" else table.to_csv)(out)
        note(f"written: {out}")
    show(table)
    result: dict[str, Any] = {"rows": table.rows}
    held = None if fresh is None or coverage is None else held_shares(stored, net, fresh, coverage)
    if len(apart := errors_by_unknown(peers, judging, samples=samples)):
        if held is not None:
            first = next(iter(peers))  # the network
            of = [held.shares[row["unknown"]] if row["estimator"] == first else None for row in apart]
            apart = Table([row | {"held": share} for row, share in zip(apart, of, strict=True)])
        if snr_db:
            note("each unknown by itself, not sorted by SNR:")
        show(in_digits(apart))
        result["unknowns"] = apart.rows
    remarks = [*remarks_on_few(table), *remarks_on_unknowns(apart)]
    if held is not None:
        remarks.append(held.sentence)
        result["coverage"] = held.overall
    if absent := absent_peers(problem):
        remarks.append(absent)
    if fresh is None and (saw := judged_on(net, problem, max(row["samples"] for row in table), run)):
        remarks.append(saw)
    for remark in remarks:
        note(remark)
    result["remarks"] = remarks
    if shifts:
        survived = shifts_of_run(
            stored, net, problem, peers, samples=samples, named=baseline, specialist_steps=specialist_steps
        )
        stored.keep(SHIFTS, survived.as_dict())
        show(survived.table)
        note(survived.verdict)
        result["shifts"] = survived.as_dict()
    if not learning_curve:
        return result
    curve = curve_of_trainings(stored.settings(), stored.problem(), on_event=_say_trained, **options)
    stored.keep(KEPT, curve.as_dict())
    show(curve.table)
    note(curve.sentence)
    return result | {"learning_curve": curve.as_dict()}


def _options_of(run: Run) -> TrainingOptions:
    """How a run was trained, where that was on so many pairs.

    Raises:
        ValueError: If it was on fresh draws, of which there are as many as anyone wants, or the run was not trained.
    """
    options = training_for({}, recipe.build_training(run.section("training"), run.handed_in))
    if not options.simulations and ability(run.problem(), Stored) is None:
        raise ValueError(
            f"{run.path} was trained on fresh draws, without end; a learning curve is of a number of them: train with "
            "--simulations, such as 10000."
        )
    return TrainingOptions(**{field.name: vars(options)[field.name] for field in dataclasses.fields(options)})


def _say_trained(event: BudgetTrained) -> None:
    note(f"{event.done} of {event.total} trainings, {event.count} simulations: risk {event.risk:.4f}")


def apply(
    run: RunPath,
    y: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="Y")],
    out: Path = Path("x_hat.npy"),
    strength: float = 1.0,
    coverage: float | None = None,
    joint: bool = False,
    noise_var: float | Path | None = None,
    alarm: float = 0.01,
    overwrite: bool = False,
) -> Result:
    """Estimate x from your own measurements with a trained run.

    Args:
        run: Its run directory.
        y: An .npy file of measurements, shape (m,) or (samples, m), of sequences, images and sets as they are drawn; or
            a .csv file with a sample in each row, complex numbers as 1+2j, with a first row of names or without.
        out: Where the estimates go, as .npy or .csv, shape (n,) or (samples, n); what else is written has this name
            with _p_value, _var, _low, _high or _radius.
        strength: How far to trust what was learned: 0 is the classical algorithm, 1 the trained network.
        coverage: Coverage of intervals around each estimate, such as 0.9, calibrated on held-out draws; no intervals if
            not given.
        joint: Intervals hold all entries of a sample at once, with that probability.
        noise_var: Noise variance of your measurements, if it is another than the problem's: a number, or an .npy or
            .csv file with one for each sample; networks of channels can measure it.
        alarm: Rate of false alarms that p-values are calibrated for: the p-value of an observation is the share of
            usual ones, held-out draws, that are as strange; 0 for no p-values.
        overwrite: Replace files that exist.
    """
    remarks: list[str] = []
    files = apply_to_file(
        Run.open(run),
        y,
        out,
        strength,
        coverage,
        joint=joint,
        noise_var=noise_var,
        alarm=alarm,
        overwrite=overwrite,
        on_remark=remarks.append,
        on_note=note,
    )
    for sentence in remarks:
        note(f"warning: {sentence}")
    rows = [{"written": str(p), "shape": str(tuple(v.shape)), "dtype": str(v.dtype)} for p, v in files.items()]
    show(Table(rows))
    return {
        "out": str(out),
        "shape": list(files[out].shape),
        "files": [str(path) for path in files],
        "remarks": remarks,
    }


def report(
    run: RunPath, out: Path | None = None, samples: int = 1000, overwrite: bool = False, pdf: Path | None = None
) -> Result:
    """Write the page of a run: learning curve, error, peers and limits, and checks of a posterior.

    Args:
        run: Its run directory.
        out: The page's file; report.html in the run directory if not given.
        samples: Draws to measure on.
        overwrite: Replace the file of --out if it exists.
        pdf: A folder for the charts as PDF figures for papers, a column wide; older ones there are replaced.
    """
    stored = Run.open(run)
    path = out or stored.path / "report.html"
    check_file(path, overwrite=overwrite or out is None)
    if pdf is not None:
        check_folder(pdf)
    write_run_page(stored, path, samples, note, pdf=pdf)
    note(f"open {path}")
    return {"report": str(path)}
