"""Pairs in a file as a trained run takes them, and what a run is judged on, in words."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from fanfold.cli.apply import intervals_around, observed
from fanfold.core.abilities import offers
from fanfold.core.data_files import regular_file
from fanfold.estimators.base import SelfJudged
from fanfold.evaluation.scores import coverage
from fanfold.guard.answers import Pairs
from fanfold.guard.quantiles import chance
from fanfold.observation import Observation
from fanfold.problems import Problem
from fanfold.problems.fresh_pairs import FreshPairs
from fanfold.problems.pairs import load_arrays
from fanfold.problems.protocols import KeepsValidation, Stored, unknowns_of
from fanfold.problems.unknowns import Unknowns, checked_unknowns, unknowns_in
from fanfold.runs.directory import Run
from fanfold.runs.outline import Outline


def pairs_of(path: Path, net: nn.Module, outline: Outline, noise_var: float | None = None) -> Pairs:
    """The pairs of a file, as the problem of the run draws them.

    Args:
        path: An `.npz` or `.csv` file, or a folder, with x and y and, where it is known, noise_var.
        net: The network that is to take them.
        outline: What it was built from.
        noise_var: Their noise variance, if it is another than the problem's and the file's.

    Raises:
        ValueError: If the file cannot be read, or its pairs are no draws of that problem.
    """
    if not path.is_dir():
        regular_file(path, f"there is no file {path}; pass an .npz or .csv file with arrays x and y.")
    arrays = load_arrays(path)
    x, var = arrays["x"], arrays.get("noise_var")
    example, _ = outline.sample(1, torch.Generator())
    if x.shape[1:] != example.shape[1:] or (x.is_complex() and not example.is_complex()):
        raise ValueError(
            f"{path} holds x {tuple(x.shape)}, {x.dtype}, and the problem's is {('samples', *example.shape[1:])}, "
            f"{example.dtype}; pass pairs of this problem."
        )
    _check_order(path, checked_unknowns(unknowns_in(path), x, str(path)), unknowns_of(outline))
    given = noise_var if noise_var is not None or var is None else 0.0  # that of the file takes its place
    obs = observed(arrays["y"], path, net, outline, given)
    if var is not None and noise_var is None:
        var = var.to(obs.y.real.dtype)
        obs = Observation(obs.y, obs.A, var.reshape(()) if var.numel() == 1 else var)
    if "A" in arrays and (obs.A is None or not torch.equal(obs.A.matrix(), arrays["A"].to(obs.y.dtype))):
        raise ValueError(f"{path} holds another A than the run's: a network belongs to its A; train one for the other.")
    return x.to(example.dtype), obs


def _check_order(path: Path, said: Unknowns, kept: Unknowns) -> None:
    """Refuse unknowns that are called, or measured, otherwise than those of the run, where both say it."""
    both_named, both_measured = said.names and kept.names, said.units and kept.units
    if (both_named and said.names != kept.names) or (both_measured and said.units != kept.units):
        raise ValueError(
            f"{path} holds {', '.join(said.titles)} and the run estimates {', '.join(kept.titles)}; store the columns "
            "of x in this order and these units, by these names."
        )


def fresh_pairs(path: Path, net: nn.Module, outline: Outline) -> FreshPairs:
    """The pairs of a file as a problem to judge a network on, with the names that the run has of the unknowns.

    Raises:
        ValueError: As `pairs_of` does, and if there are fewer than two.
    """
    x, obs = pairs_of(path, net, outline)
    if len(x) < 2:
        raise ValueError(f"{path} holds {len(x)} pairs; an error with its interval takes two at least.")
    said = unknowns_of(outline)
    return FreshPairs(
        part="test",
        kind=outline.kind,
        x=x,
        y=obs.y,
        A=obs.A,
        noise_var=obs.noise_var,
        names=said.names or None,
        units=said.units or None,
    )


def judged_on(net: nn.Module, problem: Problem, count: int, run: Path) -> str:
    """What stored pairs a network is judged on and what else they served for, in a sentence; empty of fresh draws.

    Args:
        net: The network.
        problem: What the run draws from.
        count: How many pairs.
        run: The run directory, to be named in a command.
    """
    if not offers(problem, Stored) or offers(problem, KeepsValidation):
        return ""
    pairs = f"judged on the {count} pairs that were kept aside"
    again = f"fanfold evaluate {run} --data fresh.npz judges on pairs that nothing has seen."
    if offers(net, SelfJudged):  # which holds some of its training pairs out by itself
        return f"{pairs}: training saw none of them, but intervals and p-values are calibrated on them. {again}"
    return (
        f"{pairs}: they also chose the best weights, so that the error is a little too good, and intervals and "
        f"p-values are calibrated on them. {again}"
    )


class HeldShares(NamedTuple):
    """How often calibrated intervals hold pairs that calibration has not seen.

    Attributes:
        overall: The share of all unknowns of all pairs.
        shares: The share of pairs by the name of the unknown.
        sentence: The same in words.

    Example:
        >>> from fanfold.cli.fresh import HeldShares
        >>> HeldShares(0.91, {"delay": 0.91}, "held").overall
        0.91
    """

    overall: float
    shares: dict[str, float]
    sentence: str


def held_shares(run: Run, net: nn.Module, fresh: FreshPairs, wanted: float) -> HeldShares:
    """Count how often the intervals of a run, calibrated on its held-out draws, hold pairs of a file.

    Args:
        run: The run.
        net: Its network.
        fresh: The pairs.
        wanted: The coverage that the intervals promise.
    """
    x, obs = fresh.every()
    intervals, interval = intervals_around(run, net, obs, wanted, 1.0, joint=False)
    measured = coverage(interval, x)
    names = fresh.unknowns.called(x.shape[-1])
    inside = interval.entries_cover(x).double().mean(0).tolist()
    sentence = (
        f"Intervals of {100 * wanted:g} % hold {100 * measured.value:.1f} % of what is unknown in these pairs "
        f"(± {196 * measured.standard_error:.1f}); they were calibrated on {intervals.draws} draws, whose chance moves "
        f"that by {100 * chance(intervals.draws, wanted):.1f}."
    )
    return HeldShares(measured.value, dict(zip(names, inside, strict=True)), sentence)
