"""Channels of 3GPP TR 38.901 V19.2, sections 7.2 to 7.7, drawn by Sionna (package sionna-no-rt)."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import reduce
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor

from fanfold.machine import threads
from fanfold.propagation.base import Layout
from fanfold.suggest import did_you_mean

SCENARIOS = ("umi", "uma", "inh")
PROFILES = tuple(f"{kind}-{letter}" for kind in ("cdl", "tdl") for letter in "abcde")
MODELS = (*SCENARIOS, *PROFILES)
NOMINAL_DELAY_SPREAD_NS = 100.0  # table 7.7.3-1

PACKAGE = "sionna-no-rt"
MISSING = "channels of TR 38.901 are drawn by Sionna, which is not installed: pip install 'fanfold[channels]'"

Paths = tuple[Tensor, Tensor]  # gains (draws, antennas, paths, symbols), delays (draws, paths) in seconds


@dataclass(frozen=True)
class TR38901:
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
    """

    model: str = "umi"  # umi, uma, inh, cdl-a to cdl-e or tdl-a to tdl-e
    array: tuple[int, int, int] = (2, 4, 8)  # polarisations (2: crossed at 45 degrees), columns and rows of a panel
    panels: tuple[int, int] = (1, 1)  # columns and rows of panels
    panel_gap: float = (
        0.5  # between the nearest elements of two panels, in wavelengths; inside a panel it is half of one
    )
    symbols: int = 1  # of a slot, the first ones; 14 are all
    subcarriers: int = 48
    spacing_khz: Literal[15, 30, 60, 120] = 30  # numerology 0 to 3
    carrier_ghz: float = 3.5
    speed_mps: float | tuple[float, float] = 0.83  # of the user, or the range of it
    line_of_sight: Literal["random", "force", "forbid"] = "random"  # of UMi, UMa and InH; force keeps users outdoors
    delay_spread_ns: float | None = None  # of CDL and TDL, 100 if not given; the others draw theirs
    correlation: float = 0.0  # of TDL-A to C: of neighbouring antennas, exponential along each axis of the array

    def __post_init__(self):
        for name in ("array", "panels", "speed_mps"):  # lists, where a manifest told them
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
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
        """Least and greatest, in m/s."""
        return self.speed_mps if isinstance(self.speed_mps, tuple) else (self.speed_mps, self.speed_mps)

    def describe(self) -> dict[str, Any]:
        """The settings as plain data."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def versions(self) -> dict[str, str]:
        """Of what draws: the same numbers come from the same version.

        Raises:
            ImportError: If Sionna is not installed.
        """
        try:
            return {PACKAGE: version(PACKAGE)}
        except PackageNotFoundError as error:
            raise ImportError(MISSING) from error

    def make(self, n: int, seed: int) -> tuple[Tensor, float]:
        """`n` channels `(n, antennas, symbols, subcarriers)` of unit power each, and their mean power before.

        The same seed gives the same channels, for which this runs on one thread: on two, sums are taken in another
        order. Random numbers elsewhere, Sionna's own too, are left as they were.

        Raises:
            ImportError: If Sionna is not installed.
        """
        with torch.no_grad(), threads(1), sionna_at(seed) as sionna:
            paths = _scenario(self, sionna) if self.model in SCENARIOS else _profile(self, sionna)
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
    """Draws that Sionna makes at once: its memory goes with antennas times symbols, of hundreds of rays."""
    return max(1, min(100, 128_000 // (layout.antennas * layout.symbols), 10_000_000 // layout.n))


def _check(recipe: TR38901) -> None:
    polarisations, least, greatest = recipe.array[0], *recipe.speeds
    scenario, scattered = recipe.model in SCENARIOS, recipe.model in ("tdl-a", "tdl-b", "tdl-c")
    if polarisations not in (1, 2):
        raise ValueError(f"array is {recipe.array}: (polarisations, columns, rows), with 1 or 2 polarisations.")
    if min(recipe.panels) < 1 or recipe.panel_gap <= 0:
        raise ValueError(f"panels {recipe.panels} with a gap of {recipe.panel_gap}; pass positive ones.")
    if not 1 <= recipe.symbols <= 14:
        raise ValueError(f"symbols is {recipe.symbols}; a slot has 14.")
    if recipe.spacing_khz not in (15, 30, 60, 120):
        raise ValueError(f"spacing_khz is {recipe.spacing_khz}; numerologies 0 to 3 have 15, 30, 60 and 120.")
    if not 0 <= least <= greatest:
        raise ValueError(f"speed_mps is {recipe.speed_mps}; pass one speed or the range from a lower to a higher one.")
    if recipe.delay_spread_ns is not None and (scenario or recipe.delay_spread_ns <= 0):
        why = f"{recipe.model} draws its own" if scenario else "it is positive"
        raise ValueError(f"delay_spread_ns is {recipe.delay_spread_ns}, but {why}.")
    if recipe.line_of_sight not in ("random", "force", "forbid"):
        raise ValueError(f"line_of_sight is {recipe.line_of_sight!r}; pass random, force or forbid.")
    if recipe.line_of_sight != "random" and not scenario:
        raise ValueError(f"line_of_sight is of {', '.join(SCENARIOS)}; profiles D and E have one, A to C have none.")
    if recipe.correlation and not (scattered and 0 < recipe.correlation < 1):
        raise ValueError(
            f"correlation is {recipe.correlation}; it is of tdl-a to tdl-c, from 0 to below 1: the line of sight of "
            "tdl-d and tdl-e is the same at all antennas, and the other models have angles."
        )


@contextmanager
def sionna_at(seed: int) -> Iterator[ModuleType]:
    """Sionna on the CPU in single precision, its random numbers from this seed; all as it was afterwards."""
    gpus = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(gpus):  # the import alone reseeds torch
        try:
            import sionna.phy as sionna
        except ImportError as error:
            raise ImportError(MISSING) from error
        config = sionna.config
        generators = [config.torch_rng(device) for device in config.available_devices]
        before = config.device, config.precision, config.seed, config.py_rng.getstate()
        states = config.np_rng.bit_generator.state, [g.get_state() for g in generators]
        try:
            config.device, config.precision, config.seed = "cpu", "single", seed
            yield sionna
        finally:
            config.device, config.precision, config.seed, python = before
            config.py_rng.setstate(python)
            config.np_rng.bit_generator.state = states[0]
            for device, state in zip(config.available_devices, states[1]):
                config.torch_rng(device).set_state(state)


def _arrays(recipe: TR38901) -> dict[str, Any]:
    from sionna.phy.channel.tr38901 import PanelArray

    polarisations, columns, rows = recipe.array
    base = PanelArray(
        rows, columns, "dual" if polarisations == 2 else "single", "cross" if polarisations == 2 else "V", "38.901",
        carrier_frequency=recipe.layout.carrier_hz, num_cols=recipe.panels[0], num_rows=recipe.panels[1],
        panel_horizontal_spacing=(columns - 1) / 2 + recipe.panel_gap,
        panel_vertical_spacing=(rows - 1) / 2 + recipe.panel_gap,
    )  # fmt: skip
    user = PanelArray(1, 1, "single", "V", "omni", carrier_frequency=recipe.layout.carrier_hz)
    return {"ut_array": user, "bs_array": base, "carrier_frequency": recipe.layout.carrier_hz, "direction": "uplink"}


def _only_link(gains: Tensor, delays: Tensor) -> Paths:
    return gains[:, 0, :, 0, 0], delays[:, 0, 0]


def _profile(recipe: TR38901, sionna: ModuleType) -> Callable[[int], Paths]:
    from sionna.phy.channel.tr38901 import CDL, TDL

    letter, spread = recipe.model[-1].upper(), (recipe.delay_spread_ns or NOMINAL_DELAY_SPREAD_NS) * 1e-9
    speeds: Any = dict(zip(("min_speed", "max_speed"), recipe.speeds))
    if recipe.model.startswith("cdl"):
        model = CDL(letter, spread, **_arrays(recipe), **speeds)
    else:
        given: Any = {"rx_corr_mat": _exponential(recipe)} if recipe.correlation else {}
        antennas, carrier = recipe.layout.antennas, recipe.layout.carrier_hz
        model = TDL(letter, spread, carrier, num_rx_ant=antennas, **speeds, **given)
    return lambda n: _only_link(*model(n, recipe.symbols, 1 / recipe.layout.symbol_seconds))


def _exponential(recipe: TR38901) -> Tensor:
    """Correlation `ρ^|i - j|` along each axis of the array, their Kronecker product over all."""
    steps = [torch.arange(float(size)) for size in recipe.layout.array]
    return reduce(torch.kron, [recipe.correlation ** (s[:, None] - s).abs() for s in steps])


def _scenario(recipe: TR38901, sionna: ModuleType) -> Callable[[int], Paths]:
    from sionna.phy.channel import tr38901

    kind: Any = {"umi": tr38901.UMi, "uma": tr38901.UMa, "inh": tr38901.InH}[recipe.model]
    loss = {} if recipe.model == "inh" else {"o2i_model": "low"}
    model = kind(**_arrays(recipe), **loss, enable_pathloss=False, enable_shadow_fading=False)
    sight = {"random": "random", "force": True, "forbid": False}[recipe.line_of_sight]

    def paths(n: int) -> Paths:
        places = _office(recipe, sionna, n) if recipe.model == "inh" else _sector(recipe, n)
        model.set_topology(*places, los=sight)
        return _only_link(*model(recipe.symbols, 1 / recipe.layout.symbol_seconds))

    return paths


def _sector(recipe: TR38901, n: int) -> tuple[Tensor, ...]:
    from sionna.phy.channel import gen_single_sector_topology

    slow, fast = recipe.speeds
    outdoors: Any = {"indoor_probability": 0.0} if recipe.line_of_sight == "force" else {}
    return gen_single_sector_topology(n, 1, recipe.model, min_ut_velocity=slow, max_ut_velocity=fast, **outdoors)


def _office(recipe: TR38901, sionna: ModuleType, n: int) -> tuple[Tensor, ...]:
    """A user anywhere in the office and the sector that serves it; users do not move there, ours do."""
    from sionna.sys import gen_tr38901_indoor_office_topology

    user, base, user_turn, base_turn, _, indoors, *_ = gen_tr38901_indoor_office_topology(n, 1)
    away = user[:, :1, :2] - base[..., :2]
    turn = torch.atan2(away[..., 1], away[..., 0]) - base_turn[..., 0]
    off = torch.remainder(turn + math.pi, 2 * math.pi) - math.pi
    distance = away.norm(dim=-1)
    near = distance <= distance.amin(1, keepdim=True) + 1e-3  # the sectors of one site
    best = torch.where(near, off.abs(), torch.inf).argmin(1, keepdim=True)[..., None].expand(-1, -1, 3)
    slow, fast = recipe.speeds
    angle, pace = torch.rand(2, n, 1, generator=sionna.config.torch_rng("cpu"))
    angle, pace = 2 * math.pi * angle, slow + (fast - slow) * pace
    speed = torch.stack([pace * angle.cos(), pace * angle.sin(), torch.zeros(n, 1)], -1)
    return user[:, :1], base.gather(1, best), user_turn[:, :1], base_turn.gather(1, best), speed, indoors[:, :1]
