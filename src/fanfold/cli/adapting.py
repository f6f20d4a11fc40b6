"""The verb that takes trained runs to another place: adapt."""

from pathlib import Path

from fanfold.cli.apply import measurements, observed
from fanfold.cli.console import note, show
from fanfold.cli.flags import Result, RunPath
from fanfold.cli.fresh import pairs_of
from fanfold.core.commands import command
from fanfold.guard import adapt as adapt_network
from fanfold.guard.answers import Pairs
from fanfold.observation import Observation
from fanfold.runs import folders
from fanfold.runs.directory import Run
from fanfold.runs.keep import save

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
        draws = pairs_of(pairs, net, outline, noise_var)
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
