"""A trained run on a file of measurements: estimates, variances, how usual each is and, if asked for, intervals."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor, nn

from fanfold.cli.outputs import check_file
from fanfold.core.abilities import ability
from fanfold.core.array_files import array_of
from fanfold.core.csv_files import read_csv, write_csv
from fanfold.core.data_files import understanding
from fanfold.core.files import whole
from fanfold.core.streams import Stream
from fanfold.estimators.base import Layered, MeasuresNoise, Restrainable
from fanfold.guard import Conformal, Interval, Monitor, UsualRange, conformal, draws_needed, monitor
from fanfold.guard.answers import independent_draws
from fanfold.guard.conformal import MOSTLY_ZERO
from fanfold.guard.monitoring import COMBINED, bearable, check_level, keep_monitor, kept_monitor
from fanfold.guard.monitoring.calibrating import LEAST_LEARNING, MOST_ALARM, learning_share
from fanfold.observation import Observation
from fanfold.problems.draws import draw
from fanfold.problems.protocols import noise_var_of, unknowns_of
from fanfold.runs.directory import Run
from fanfold.runs.outline import Outline
from fanfold.runs.usual import NAME as USUAL
from fanfold.runs.usual import checked_usual

CALIBRATION_DRAWS = 10_000  # of an interval, where draws are to be had
MONITOR_DRAWS = 2000  # of a monitor, which every call has: what a false-alarm rate of 1 % takes


@torch.no_grad()
def apply_to_file(
    run: Run,
    y: Path,
    out: Path,
    strength: float = 1.0,
    coverage: float | None = None,
    *,
    joint: bool = False,
    noise_var: float | Path | None = None,
    alarm: float = 0.01,
    overwrite: bool = False,
    on_remark: Callable[[str], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> dict[Path, Tensor]:
    """Estimate x from measurements in a file.

    Args:
        run: A trained run.
        y: An `.npy` file of measurements as the problem draws them, one or a batch; or a `.csv` file, a sample in each
            row.
        out: Where the estimates go, as `.npy` or `.csv`; `_p_value`, `_var`, `_low` and `_high` of other files' names
            come before its ending.
        strength: How far to trust what was learned, in [0, 1].
        coverage: Coverage of conformal intervals, calibrated on held-out draws of the problem, or those that the run
            keeps; none if None. They are kept in the run, and taken from there the next time.
        joint: Whether intervals hold all entries of a sample at once.
        noise_var: Noise variance of the measurements, or a file with one for each sample; that of the problem if None,
            and where draws differ in it a network of channels measures it.
        alarm: The rate of false alarms that p-values are calibrated for, once for a run: how strange each observation
            is beside held-out draws. A larger rate is taken where the run has few draws; 0 leaves p-values out.
        overwrite: Whether files that exist are replaced.
        on_remark: Called with each sentence about measurements that are unlike those of the training.
        on_note: Called with a sentence before work that takes a while, and is done once for a run.

    Returns:
        What each written file holds; all are written, or none.

    Raises:
        ValueError: If the file cannot be read or does not fit, the problem's observations hold more than y, or a file
            could not be written or exists.
        OSError: If the disk is full; older files are unharmed.
    """
    for what in (
        "",
        "var",
        *(("p_value",) if alarm else ()),
        *(("low", "high", "radius") if coverage is not None else ()),
    ):
        check_file(_beside(out, what), overwrite=overwrite, suffixes=(".npy", ".csv"), source=y)
    net, outline = run.estimator(), run.outline()
    if (network := ability(net, Restrainable)) is not None:
        network.strength = strength
    elif strength != 1:
        raise ValueError("this network has no classical algorithm to go back to: leave --strength at 1.")
    obs = observed(measurements(y), y, net, outline, noise_var)
    estimate = net(obs)
    if on_remark is not None and (usual := run.kept(USUAL)) is not None:
        for sentence in UsualRange(net, checked_usual(usual, run.file_of(USUAL))).remarks(obs, estimate):
            on_remark(sentence)
    files = {out: estimate.x}
    if alarm and (guard := monitor_for(run, net, obs, alarm, strength, on_remark, on_note)) is not None:
        each = guard.all_p_values(obs, estimate)
        p_values = each[COMBINED]
        files[_beside(out, "p_value")] = (
            p_values[:, None] if out.suffix.lower() == ".csv" and p_values.ndim else p_values
        )
        if on_remark is not None:
            for sentence in guard.remarks(obs, estimate, each):
                on_remark(sentence)
    if ability(net, Layered) is None and estimate.var is not None:
        files[_beside(out, "var")] = estimate.var
    if coverage is not None:
        intervals, interval = intervals_around(run, net, obs, coverage, strength, joint=joint)
        if on_remark is not None and intervals.misses_signals:
            on_remark(f"{MOSTLY_ZERO.format(100 * (intervals.not_zero or 0))} Pass --joint for such a one.")
        if interval.low is None or interval.high is None:
            files[_beside(out, "radius")] = interval.radius
        else:
            files |= {_beside(out, "low"): interval.low, _beside(out, "high"): interval.high}
    unknowns = unknowns_of(outline)
    names = {_beside(out, "p_value"): ("p_value",) if unknowns.names else (), _beside(out, "var"): unknowns.squared}
    with ExitStack() as stack:
        for path, values in files.items():
            header = names.get(path, unknowns.titles)
            _write(stack.enter_context(whole(path)), path, values.numpy(), header)
    return files


def monitor_for(
    run: Run,
    net: nn.Module,
    obs: Observation,
    alarm: float,
    strength: float,
    on_remark: Callable[[str], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Monitor | None:
    """The monitor of a run: as the run keeps it, else calibrated on held-out draws and kept; None of too few draws.

    Raises:
        ValueError: If the one that is kept is damaged, or the rate is none.
    """
    check_level("alarm", alarm)
    kept = kept_monitor(run, net, strength)
    if kept is not None and (kept.probe.noise_var is None) != (obs.noise_var is None):
        kept = None
    if kept is not None and kept.alarm <= alarm:
        return replace(kept, alarm=alarm)
    wanted = max(MONITOR_DRAWS, draws_needed(alarm) + LEAST_LEARNING)
    try:
        x, drawn = independent_draws(run.draws(), wanted, run.environment["seed"], 1)
    except (ValueError, OSError) as error:
        if on_remark is not None:
            on_remark(f"there are no p-values, since there are no draws to calibrate on: {error}")
        return None
    borne = bearable(len(x), alarm)
    if borne is None:
        if on_remark is not None:
            on_remark(
                f"there are no p-values, since there are {len(x)} held-out draws and they take at least "
                f"{draws_needed(MOST_ALARM) + LEAST_LEARNING}: how usual the measurements are is not known. Of "
                "stored pairs keep more aside, by a larger held_out_share."
            )
        return None
    if kept is not None and kept.alarm <= borne:  # a run of few draws bears no smaller rate
        return replace(kept, alarm=borne)
    if on_note is not None:
        least = draws_needed(alarm) + LEAST_LEARNING
        rate = f" for a false-alarm rate of {borne:.2g}, as {alarm:g} takes {least}," if borne > alarm else ""
        taught = learning_share(len(x), draws_needed(borne))
        on_note(
            f"calibrating p-values on {len(x)} held-out draws, of which {taught} teach what is usual and "
            f"{len(x) - taught} are compared with,{rate} once for this run; --alarm 0 leaves them out"
        )
    if obs.noise_var is None:
        drawn = Observation.unchecked(drawn.y, drawn.A)
    usual = monitor(net, (x, drawn), borne)
    keep_monitor(run, usual, strength)
    return usual


def intervals_around(
    run: Run, net: nn.Module, obs: Observation, coverage: float, strength: float, *, joint: bool
) -> tuple[Conformal, Interval]:
    """The calibrated intervals of a run, as it keeps them, else calibrated on held-out draws and kept; and those here.

    Raises:
        ValueError: If those that are kept are damaged, or there are too few draws.
    """
    kind = "joint" if joint else "each"
    name = f"intervals-{kind}-{coverage:g}" + ("" if strength == 1 else f"-strength-{strength:g}")
    if obs.noise_var is None and (varies := run.outline().observation.noise_var) is not None and varies.ndim:
        name += "-noise-unknown"  # what is not known of these measurements is not used of those of calibration either
    if (data := run.kept(name)) is not None:
        with understanding(run.file_of(name), "calibrated intervals", "remove it, and they are calibrated anew."):
            intervals = Conformal.from_dict(net, data)
            return intervals, intervals(obs)
    x, drawn = draw(run.draws().held_out(), CALIBRATION_DRAWS, run.environment["seed"], Stream.VALIDATION, 1)
    if name.endswith("-noise-unknown"):
        drawn = Observation.unchecked(drawn.y, drawn.A)
    intervals = conformal(net, (x, drawn), coverage, kind)
    run.keep(name, intervals.as_dict())
    return intervals, intervals(obs)


def observed(values: Tensor, y: Path, net: nn.Module, outline: Outline, noise_var: float | Path | None) -> Observation:
    """Measurements of a file, with the operator and the noise variance of the training problem, in its precision.

    Args:
        values: The measurements.
        y: The file that held them.
        net: The network that is to take them.
        outline: What the network was built from.
        noise_var: Their noise variance, if it is another than the problem's, or a file with that of each.

    Raises:
        ValueError: If they are complex where the problem's are real, or each has an operator or a noise variance of its
            own.
    """
    example = outline.observation
    A = example.A
    if A is not None and A.varies:
        raise ValueError(
            f"each measurement of {outline.name} has an operator of its own, which {y} does not hold: apply "
            "the network in Python, net(Observation(y, Batched(matrices), noise_var))."
        )
    if values.is_complex() and not example.y.is_complex():
        raise ValueError(f"{y} holds {values.dtype} and the problem's measurements are real; pass real ones.")
    if isinstance(noise_var, Path):
        measured = values.to(example.y.dtype)
        return Observation(measured, A, _variances(noise_var, measured))
    measured, var = values.to(example.y.dtype), _noise_var(y, net, outline, noise_var)
    if var is not None and example.noise_var is not None and example.noise_var.ndim:
        var = var.expand(*measured.shape[:-1], 1)  # as it is drawn
    return Observation(measured, A, var)


def _noise_var(y: Path, net: nn.Module, outline: Outline, given: float | None) -> Tensor | None:
    """The noise variance of the measurements; None where the network measures it or does without."""
    example = outline.observation
    if given is not None:
        if not 0 <= given < math.inf:
            raise ValueError(f"the noise variance is {given}; pass a finite one from zero on.")
        return torch.as_tensor(given, dtype=example.y.real.dtype)
    if ability(net, Layered):  # which may well do without
        return noise_var_of(outline)
    if example.noise_var is None or not example.noise_var.ndim:
        return example.noise_var
    meter = ability(net, MeasuresNoise)
    if meter is None or not meter.measures_noise:
        raise ValueError(
            f"each measurement of {outline.name} has a noise variance of its own, which {y} does not hold: "
            "pass --noise-var, store noise_var beside x and y in a file of pairs, or apply the network in Python, "
            "net(Observation(y, None, noise_var))."
        )
    return None


def _variances(path: Path, y: Tensor) -> Tensor:
    """The noise variances of a file, one for each sample of y, `(samples, 1)`, or `(1,)` of a single one."""
    values, count = measurements(path), len(y) if y.ndim > 1 else 1
    if values.numel() != count:
        raise ValueError(
            f"{path} holds {tuple(values.shape)} noise variances and there are {count} samples; give one for each "
            "sample, or a number for all."
        )
    if values.is_complex() or not (values.isfinite() & (values >= 0)).all():
        raise ValueError(
            f"{path} holds noise variances that are negative or no numbers; give finite ones, not negative."
        )
    return values.reshape(-1, 1).to(y.real.dtype) if y.ndim > 1 else values.reshape(1).to(y.real.dtype)


def measurements(y: Path) -> Tensor:
    """The array of an `.npy` or `.csv` file."""
    return torch.as_tensor(read_csv(y).values if y.suffix.lower() == ".csv" else array_of(y))


def _beside(out: Path, what: str) -> Path:
    return out.with_name(f"{out.stem}_{what}{out.suffix}") if what else out


def _write(file: IO[bytes], path: Path, values: np.ndarray, header: Sequence[str]) -> None:
    if path.suffix.lower() != ".csv":
        np.save(file, values)
    elif values.ndim > 2:
        raise ValueError(f"estimates of shape {values.shape} do not fit into {path}; write an .npy file.")
    else:
        write_csv(file, np.atleast_2d(values), header)
