"""The verb `channels` of the command line: draw a dataset of channels, or say what one holds."""

from dataclasses import asdict, dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from PIL import Image
from rich.text import Text
from torch import Tensor

from fanfold.cli.console import note, out, proposed, resumable, show, watching
from fanfold.cli.outputs import check_file, check_folder
from fanfold.core.abilities import offers
from fanfold.core.commands import command
from fanfold.core.files import write_whole
from fanfold.core.settings import Checked
from fanfold.core.table import Table
from fanfold.propagation import TR38901, Layout, Source, Statistics, draw_channels, source_of
from fanfold.propagation.base import SelfDescribedSource, VerifiableSource
from fanfold.propagation.drawing import SHARD_DRAWS

Result = dict[str, Any]
RANGE_DB = 30.0  # from black to white
SHADES = " ░▒▓█"


@dataclass(frozen=True, kw_only=True)
class Draw(TR38901):
    """Draw channels of TR 38.901 into a folder: fanfold channels draw MODEL --n N --out DIR [flags].

    Each draw is scaled to unit mean power. With the same flags again it goes on and draws only what is missing.
    """

    model: Annotated[str, tyro.conf.Positional] = "umi"  # umi, uma, inh, cdl-a to cdl-e or tdl-a to tdl-e
    n: int  # number of draws; the last tenth is kept for testing
    out: Path  # folder for the draws; the same flags again go on there
    seed: int = 0  # seed of all draws
    shard_draws: int = SHARD_DRAWS  # number of draws in one file

    def __call__(self) -> Result:
        """Draw, with progress."""
        settings = asdict(self)
        recipe = TR38901(**{f.name: settings[f.name] for f in fields(TR38901)})
        check_folder(self.out)
        kept = "what was drawn is kept; go on with:"
        with resumable(lambda: kept), watching(str(self.out)) as watch:
            dataset = draw_channels(
                recipe, self.n, self.out, seed=self.seed, shard_draws=self.shard_draws, on_event=watch
            )
        folder = str(self.out) if self.out.is_absolute() else f"./{self.out}"  # by itself `umi` is what is shipped
        proposed(
            command("channels", "info", folder),
            command("train", "ofdm-channel", "beam-mixer", "--source", folder),
        )
        return {"out": str(self.out), "draws": dataset.count, "hash": dataset.fingerprint, "recipe": recipe.describe()}


@dataclass(frozen=True)
class Info(Checked):
    """Say what a source of channels holds: fanfold channels info SOURCE, a folder or the name of another source."""

    source: Annotated[str, tyro.conf.Positional]  # a dataset, umi, rician:k_db=3, measured.mat:array=2x4x8, …
    samples: int = 1000  # number of draws for the statistics
    draw: int = 0  # number of the draw whose picture is shown
    picture: Path | None = None  # .png file for that draw: antennas down, subcarriers across, 30 dB from black to white
    overwrite: bool = False  # replace that file if it exists

    def __call__(self) -> Result:
        """Verify, measure and show."""
        if self.samples < 1:
            raise ValueError(f"--samples is {self.samples}; pass one or more.")
        if self.picture is not None:
            check_file(self.picture, overwrite=self.overwrite, suffixes=(".png",))
        source = source_of(self.source)
        if offers(source, VerifiableSource):
            source.verify()
        generator = torch.Generator().manual_seed(self.draw)
        measured = Statistics.of(source, self.samples, torch.Generator().manual_seed(0))
        facts = facts_of(source)
        shown = facts | _measures(measured, source.layout)
        show(Table([{"what": name, "value": _plain(value)} for name, value in shown.items()]))
        show(Table(_profile(measured)))
        one = source.draw(1, generator)[0, :, 0]
        out.print(shaded(one))
        if self.picture is not None:
            write_whole(self.picture, png(one))
            note(f"written: {self.picture}")
        return {"source": self.source, "facts": facts, "statistics": asdict(measured)}


sub = tyro.conf.subcommand
Action = Annotated[Draw, sub("draw", prefix_name=False)] | Annotated[Info, sub("info", prefix_name=False)]


def channels(action: Annotated[Action, tyro.conf.arg(name="")]) -> Result:
    """Draw channels of a radio link into a dataset, or say what one holds.

    Args:
        action: What to do.
    """
    return action()


def facts_of(source: Source) -> Result:
    """What a source says of itself, as plain data: its layout, and what else it knows."""
    layout: Layout = source.layout
    facts: Result = {
        "array": list(layout.array),
        "antennas": layout.antennas,
        "symbols": layout.symbols,
        "subcarriers": layout.subcarriers,
        "spacing_khz": layout.spacing_hz / 1e3,
        "carrier_ghz": layout.carrier_hz / 1e9,
    }
    further = source.facts() if offers(source, SelfDescribedSource) else {}
    return facts | {name: value for name, value in further.items() if name not in facts}


def _measures(measured: Statistics, layout: Layout) -> Result:
    ranks = {f"{name} rank (99 %)": f"{rank} of {measured.sizes[name]}" for name, rank in measured.ranks.items()}
    if layout.symbols == 1:
        del ranks["time rank (99 %)"]
    return {
        "power": f"{measured.power:.3f}, of a draw {measured.weakest_db:.1f} to {measured.strongest_db:.1f} dB",
        "delay spread": f"{measured.delay_spread_ns:.0f} ns",
    } | ranks


def _profile(measured: Statistics) -> list[Result]:
    """The share of the power in the strongest eigenvectors, a row for each number of them."""
    deepest = max(len(shares) for shares in measured.shares.values())
    names = [name for name, shares in measured.shares.items() if len(shares) > 1]
    return [
        {"eigenvectors": 2**k} | {f"{name} %": _percent(measured.shares[name], k) for name in names}
        for k in range(deepest)
    ]


def _percent(shares: list[float], k: int) -> float | None:
    return 100 * shares[k] if k < len(shares) else None


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " × ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else value


def levels(h: Tensor) -> Tensor:
    """Magnitudes `(antennas, subcarriers)` from 0, 30 dB below the strongest, to 1."""
    strength = 20 * (h.abs() / h.abs().max().clamp_min(torch.finfo(h.real.dtype).tiny)).log10()
    return (1 + strength / RANGE_DB).clamp(0, 1)


def shaded(h: Tensor) -> Text:
    """A picture of one channel in characters, a line for each antenna; on a terminal, for two."""
    grey = levels(h)
    if not out.is_terminal:
        return Text("\n".join("".join(SHADES[round(v * 4)] for v in row) for row in grey.tolist()))
    text, shades = Text(), (grey * 255).round().int().tolist()
    for upper, lower in zip(shades[::2], [*shades[1::2], [0] * grey.shape[1]]):
        for top, bottom in zip(upper, lower):
            text.append("▀", style=f"rgb({top},{top},{top}) on rgb({bottom},{bottom},{bottom})")
        text.append("\n")
    return text


def png(h: Tensor, size: int = 8) -> bytes:
    """The same picture as a PNG, `size` pixels for each entry."""
    pixels = (levels(h) * 255).round().byte()
    stream = BytesIO()
    Image.fromarray(pixels.numpy(), "L").resize((size * h.shape[1], size * h.shape[0]), 0).save(stream, format="PNG")
    return stream.getvalue()
