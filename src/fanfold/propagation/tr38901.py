"""Channels of 3GPP TR 38.901 V19.2, sections 7.2 to 7.7, drawn by Sionna (package sionna-no-rt)."""

import math
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import torch
from torch import Tensor

from fanfold.adapters.sionna import MISSING, PACKAGE, SCENARIOS, profile_paths, scenario_paths, sionna_at
from fanfold.core.machine import threads
from fanfold.core.settings import Checked
from fanfold.core.suggest import did_you_mean
from fanfold.propagation.base import Layout, Part

PROFILES = tuple(f"{kind}-{letter}" for kind in ("cdl", "tdl") for letter in "abcde")
MODELS = (*SCENARIOS, *PROFILES)


@dataclass(frozen=True)
class TR38901(Checked):
    """One user with one omnidirectional antenna, received by the array of a base station; no path loss, no shadowing.

    Each draw is scaled to unit mean power over its antennas, symbols and subcarriers: what Sionna draws has the gain of
    the antenna elements in it, and in the scenarios that varies by 15 dB and more from user to user.

    UMi, UMa and InH: every draw is a place of its own, with delays and angles of its own. The user of UMi and UMa falls
    into one sector of 120 degrees, 80 % of them indoors with low penetration loss; the user of InH (open office of
    120 m by 50 m, twelve sites at the ceiling) is served by the nearest site's sector that faces it.
    CDL: the standard's own angles and delays, the same for all draws, which differ in phases and in how rays couple;
    the array looks along the x-axis. TDL: no angles; antennas are independent unless `correlation` is given.

    Raises:
        ValueError: If a setting is unknown, or does not go with the model.

    Example:
        >>> import fanfold as ff
        >>> recipe = ff.propagation.TR38901("cdl-c", array=(2, 4, 8), symbols=14, delay_spread_ns=300.0)
        >>> recipe.layout.shape
        (64, 14, 48)
    """

    model: str = "umi"  # umi, uma, inh, cdl-a to cdl-e or tdl-a to tdl-e
    array: tuple[int, int, int] = (2, 4, 8)  # polarisations (2: crossed at 45 degrees), columns and rows of a panel
    panels: tuple[int, int] = (1, 1)  # columns and rows of panels
    panel_gap: float = 0.5  # wavelengths between the nearest elements of two panels; inside a panel it is half of one
    symbols: int = 1  # number of OFDM symbols, the first ones of a slot; 14 are a whole slot
    subcarriers: int = 48  # number of subcarriers
    spacing_khz: Literal[15, 30, 60, 120] = 30  # spacing of the subcarriers; numerology 0 to 3
    carrier_ghz: float = 3.5  # carrier frequency
    speed_mps: float | tuple[float, float] = 0.83  # speed of the user, or its lowest and highest
    line_of_sight: Literal["random", "force", "forbid"] = "random"  # for UMi, UMa and InH; force keeps users outdoors
    delay_spread_ns: float | None = None  # for CDL and TDL, 100 if not given; the other models draw their own
    correlation: float = 0.0  # for TDL-A to C: that of neighbouring antennas, exponential along each axis of the array

    def __post_init__(self):
        if self.model not in MODELS:
            raise ValueError(
                f"unknown model {self.model!r}; there are {', '.join(MODELS)}.{did_you_mean(self.model, MODELS)}"
            )
        _check(self)
        _ = self.layout

    @property
    def layout(self) -> Layout:
        """Antennas as Sionna numbers them: by panel (column, row), polarisation, column, row; the last runs fastest."""
        panels = self.panels if self.panels != (1, 1) else ()
        spacing, carrier = self.spacing_khz * 1e3, self.carrier_ghz * 1e9
        return Layout((*panels, *self.array), self.symbols, self.subcarriers, spacing, carrier)

    @property
    def speeds(self) -> tuple[float, float]:
        """The lowest and the highest speed of the user, in m/s."""
        return self.speed_mps if isinstance(self.speed_mps, tuple) else (self.speed_mps, self.speed_mps)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the array: panels, polarisations, columns and rows."""
        return self.layout.array

    @property
    def carrier_hz(self) -> float:
        """The frequency of the middle subcarrier, in hertz."""
        return self.layout.carrier_hz

    @property
    def symbol_seconds(self) -> float:
        """The time from one OFDM symbol to the next."""
        return self.layout.symbol_seconds

    def describe(self) -> dict[str, Any]:
        """The settings as plain data, as the manifest of a dataset keeps them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def versions(self) -> dict[str, str]:
        """The version of Sionna: the same version draws the same numbers.

        Raises:
            ImportError: If Sionna is not installed.
        """
        try:
            return {PACKAGE: version(PACKAGE)}
        except PackageNotFoundError as error:
            raise ImportError(MISSING) from error

    def draw(self, n: int, generator: torch.Generator, part: Part = "train") -> Tensor:
        """Fresh channels `(n, antennas, symbols, subcarriers)`, complex64; all parts are alike.

        Raises:
            ImportError: If Sionna is not installed.
        """
        return self.make(n, int(torch.randint(2**31, (), generator=generator)))[0]

    def make(self, n: int, seed: int) -> tuple[Tensor, float]:
        """`n` channels `(n, antennas, symbols, subcarriers)` of unit power each, and their mean power before.

        The same seed gives the same channels, for which this runs on one thread: on two, sums are taken in another
        order. Random numbers elsewhere, Sionna's own too, are left as they were.

        Raises:
            ImportError: If Sionna is not installed.
        """
        with torch.no_grad(), threads(1), sionna_at(seed) as sionna:
            paths = scenario_paths(self, sionna) if self.model in SCENARIOS else profile_paths(self, sionna)
            each = _together(self.layout)
            drawn = torch.cat([self.response(*paths(each)) for _ in range(0, n, each)])[:n]
        power = drawn.abs().square().mean((1, 2, 3), keepdim=True)
        return drawn / power.sqrt(), power.mean().item()

    def response(self, gains: Tensor, delays: Tensor) -> Tensor:
        """`H[a, t, f] = Σ_p gains[a, p, t] exp(-j 2π f delays[p])`, the middle subcarrier (of `n // 2`) at f = 0."""
        layout = self.layout
        f = (torch.arange(layout.subcarriers) - layout.subcarriers // 2) * layout.spacing_hz
        waves = torch.polar(torch.ones(()), -2 * math.pi * delays[..., None] * f)  # (draws, paths, subcarriers)
        flat = gains.transpose(2, 3).flatten(1, 2)  # (draws, antennas symbols, paths)
        return (flat @ waves).unflatten(1, (layout.antennas, layout.symbols))


def _together(layout: Layout) -> int:
    """How many draws Sionna makes at once: its memory goes with antennas times symbols, of hundreds of rays."""
    return max(1, min(100, 128_000 // (layout.antennas * layout.symbols), 10_000_000 // layout.n))


def _check(recipe: TR38901) -> None:
    polarisations, lowest, highest = recipe.array[0], *recipe.speeds
    scenario, scattered = recipe.model in SCENARIOS, recipe.model in ("tdl-a", "tdl-b", "tdl-c")
    if polarisations not in (1, 2):
        raise ValueError(f"array is {recipe.array}: (polarisations, columns, rows), with 1 or 2 polarisations.")
    if min(recipe.panels) < 1 or recipe.panel_gap <= 0:
        raise ValueError(f"panels {recipe.panels} with a gap of {recipe.panel_gap}; pass positive ones.")
    if not 1 <= recipe.symbols <= 14:
        raise ValueError(f"symbols is {recipe.symbols}; a slot has 14.")
    if not 0 <= lowest <= highest:
        raise ValueError(f"speed_mps is {recipe.speed_mps}; pass one speed or the range from a lower to a higher one.")
    if recipe.delay_spread_ns is not None and (scenario or recipe.delay_spread_ns <= 0):
        why = f"{recipe.model} draws its own" if scenario else "it is positive"
        raise ValueError(f"delay_spread_ns is {recipe.delay_spread_ns}, but {why}.")
    if recipe.line_of_sight != "random" and not scenario:
        raise ValueError(f"line_of_sight is for {', '.join(SCENARIOS)}; profiles D and E have one, A to C have none.")
    if recipe.correlation and not (scattered and 0 < recipe.correlation < 1):
        raise ValueError(
            f"correlation is {recipe.correlation}; it is for tdl-a to tdl-c, from 0 to below 1: the line of sight of "
            "tdl-d and tdl-e is the same at all antennas, and the other models have angles."
        )
