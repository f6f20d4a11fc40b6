"""The verb that takes trained runs to another place: adapt."""

from pathlib import Path

import torch
from torch import nn

from fanfold.cli.apply import measurements, observed
from fanfold.cli.console import note, show
from fanfold.cli.flags import Result, RunPath
from fanfold.core.commands import command
from fanfold.core.data_files import regular_file
from fanfold.guard import adapt as adapt_network
from fanfold.guard.answers import Pairs
from fanfold.observation import Observation
from fanfold.problems.pairs import load_arrays
from fanfold.runs import folders
from fanfold.runs.directory import Run
from fanfold.runs.keep import save
from fanfold.runs.outline import Outline

KEPT = "adaptation"  # the file in the new run that says what changed


def adapt(
    run: RunPath,
    out: Path,
    pairs: Path | None = None,
    observations: Path | None = None,
    noise_var: float | None = None,
    seed: int = 0,
) -> Result:
    """Adapt a trained run to another place, into a run of its own; the old one stays as it is.

    Args:
        run: Its run directory.
        out: The new run directory. It holds the network as it was where nothing made it surely better.
        pairs: An .npz file with arrays x (samples, n) and y (samples, m) from there and, if known, noise_var; or a .csv
            file or folder as the problem pairs reads them. 100 pairs are many.
        observations: An .npy or .csv file of measurements from there, (samples, m), instead of pairs; they choose the
            strength alone.
        noise_var: Noise variance of the measurements, if it is another than the problem's.
        seed: Seed of what is drawn as the network adapts.
    """
    stored = Run.open(run)
    folders.check_free(out)
    if not out.parent.is_dir():
        raise ValueError(f"there is no folder {out.parent} for {out.name}; make it first.")
    net, outline = stored.estimator(), stored.outline()
    draws: Pairs | Observation
    if pairs is not None and observations is None:
        draws = _pairs(pairs, net, outline, noise_var)
    elif observations is not None and pairs is None:
        draws = observed(measurements(observations), observations, net, outline, noise_var)
    else:
        raise ValueError("give --pairs, a file of x and y, or --observations, a file of y; one of both.")
    adapted = adapt_network(net, draws, seed=seed)
    save(adapted.network, out, stored.problem())
    result = {
        "verdict": adapted.verdict,
        "level": adapted.level,
        "gain": adapted.gain,
        "unit": adapted.unit,
        "tried": adapted.tried.rows,
    }
    Run.open(out).keep(KEPT, {"of": stored.weights_hash(), **result})
    show(adapted.tried)
    note(adapted.verdict)
    note(f"use it with: {command('apply', out)} y.npy")
    return {"run": str(out), **result}


def _pairs(path: Path, net: nn.Module, outline: Outline, noise_var: float | None) -> Pairs:
    """The pairs of a file, as the problem of the run draws them."""
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
    given = noise_var if noise_var is not None or var is None else 0.0  # that of the file takes its place
    obs = observed(arrays["y"], path, net, outline, given)
    if var is not None and noise_var is None:
        var = var.to(obs.y.real.dtype)
        obs = Observation(obs.y, obs.A, var.reshape(()) if var.numel() == 1 else var)
    if "A" in arrays and (obs.A is None or not torch.equal(obs.A.matrix(), arrays["A"].to(obs.y.dtype))):
        raise ValueError(f"{path} holds another A than the run's: a network belongs to its A; train one for the other.")
    return x.to(example.dtype), obs
