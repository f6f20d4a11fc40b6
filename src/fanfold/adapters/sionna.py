"""Paths of 3GPP TR 38.901 from Sionna (package sionna-no-rt), which is imported when they are first drawn."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor

SCENARIOS = ("umi", "uma", "inh")
NOMINAL_DELAY_SPREAD_NS = 100.0  # table 7.7.3-1
PACKAGE = "sionna-no-rt"
MISSING = "channels of TR 38.901 are drawn by Sionna, which is not installed: pip install 'fanfold[channels]'"

Paths = tuple[Tensor, Tensor]  # gains (draws, antennas, paths, symbols), delays (draws, paths) in seconds


class Link(Protocol):
    """What Sionna must know of a link between one user and a base station; `propagation.TR38901` is one."""

    @property
    def model(self) -> str: ...
    @property
    def array(self) -> tuple[int, int, int]: ...
    @property
    def panels(self) -> tuple[int, int]: ...
    @property
    def panel_gap(self) -> float: ...
    @property
    def symbols(self) -> int: ...
    @property
    def line_of_sight(self) -> str: ...
    @property
    def delay_spread_ns(self) -> float | None: ...
    @property
    def correlation(self) -> float: ...
    @property
    def speeds(self) -> tuple[float, float]: ...
    @property
    def sizes(self) -> tuple[int, ...]: ...
    @property
    def carrier_hz(self) -> float: ...
    @property
    def symbol_seconds(self) -> float: ...


@contextmanager
def sionna_at(seed: int) -> Iterator[ModuleType]:
    """Sionna on the CPU in single precision, with random numbers from this seed; afterwards all is as it was.

    Args:
        seed: The seed of all random numbers that Sionna draws in the block.

    Raises:
        ImportError: If Sionna is not installed.
    """
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


def _arrays(link: Link) -> dict[str, Any]:
    from sionna.phy.channel.tr38901 import PanelArray

    polarisations, columns, rows = link.array
    base = PanelArray(
        rows, columns, "dual" if polarisations == 2 else "single", "cross" if polarisations == 2 else "V", "38.901",
        carrier_frequency=link.carrier_hz, num_cols=link.panels[0], num_rows=link.panels[1],
        panel_horizontal_spacing=(columns - 1) / 2 + link.panel_gap,
        panel_vertical_spacing=(rows - 1) / 2 + link.panel_gap,
    )  # fmt: skip
    user = PanelArray(1, 1, "single", "V", "omni", carrier_frequency=link.carrier_hz)
    return {"ut_array": user, "bs_array": base, "carrier_frequency": link.carrier_hz, "direction": "uplink"}


def _only_link(gains: Tensor, delays: Tensor) -> Paths:
    return gains[:, 0, :, 0, 0], delays[:, 0, 0]


def profile_paths(link: Link, sionna: ModuleType) -> Callable[[int], Paths]:
    """A function that draws paths of a CDL or TDL profile, as many as it is asked for."""
    from sionna.phy.channel.tr38901 import CDL, TDL

    letter, spread = link.model[-1].upper(), (link.delay_spread_ns or NOMINAL_DELAY_SPREAD_NS) * 1e-9
    speeds: Any = dict(zip(("min_speed", "max_speed"), link.speeds))
    if link.model.startswith("cdl"):
        model = CDL(letter, spread, **_arrays(link), **speeds)
    else:
        given: Any = {"rx_corr_mat": _exponential(link)} if link.correlation else {}
        antennas, carrier = math.prod(link.sizes), link.carrier_hz
        model = TDL(letter, spread, carrier, num_rx_ant=antennas, **speeds, **given)
    return lambda n: _only_link(*model(n, link.symbols, 1 / link.symbol_seconds))


def _exponential(link: Link) -> Tensor:
    """The Kronecker product over the axes of the array of correlations `ρ^|i - j|`, `(antennas, antennas)`."""
    steps = [torch.arange(float(size)) for size in link.sizes]
    return reduce(torch.kron, [link.correlation ** (s[:, None] - s).abs() for s in steps])


def scenario_paths(link: Link, sionna: ModuleType) -> Callable[[int], Paths]:
    """A function that draws paths of UMi, UMa or InH, each in a place of its own, as many as it is asked for."""
    from sionna.phy.channel import tr38901

    kind: Any = {"umi": tr38901.UMi, "uma": tr38901.UMa, "inh": tr38901.InH}[link.model]
    loss = {} if link.model == "inh" else {"o2i_model": "low"}
    model = kind(**_arrays(link), **loss, enable_pathloss=False, enable_shadow_fading=False)
    sight = {"random": "random", "force": True, "forbid": False}[link.line_of_sight]

    def paths(n: int) -> Paths:
        places = _office(link, sionna, n) if link.model == "inh" else _sector(link, n)
        model.set_topology(*places, los=sight)
        return _only_link(*model(link.symbols, 1 / link.symbol_seconds))

    return paths


def _sector(link: Link, n: int) -> tuple[Tensor, ...]:
    from sionna.phy.channel import gen_single_sector_topology

    slow, fast = link.speeds
    outdoors: Any = {"indoor_probability": 0.0} if link.line_of_sight == "force" else {}
    return gen_single_sector_topology(n, 1, link.model, min_ut_velocity=slow, max_ut_velocity=fast, **outdoors)


def _office(link: Link, sionna: ModuleType, n: int) -> tuple[Tensor, ...]:
    """A user anywhere in the office and the sector that serves it; unlike Sionna's, our users move."""
    from sionna.sys import gen_tr38901_indoor_office_topology

    user, base, user_turn, base_turn, _, indoors, *_ = gen_tr38901_indoor_office_topology(n, 1)
    away = user[:, :1, :2] - base[..., :2]
    turn = torch.atan2(away[..., 1], away[..., 0]) - base_turn[..., 0]
    off = torch.remainder(turn + math.pi, 2 * math.pi) - math.pi
    distance = away.norm(dim=-1)
    near = distance <= distance.amin(1, keepdim=True) + 1e-3  # the sectors of one site
    best = torch.where(near, off.abs(), torch.inf).argmin(1, keepdim=True)[..., None].expand(-1, -1, 3)
    slow, fast = link.speeds
    angle, pace = torch.rand(2, n, 1, generator=sionna.config.torch_rng("cpu"))
    angle, pace = 2 * math.pi * angle, slow + (fast - slow) * pace
    speed = torch.stack([pace * angle.cos(), pace * angle.sin(), torch.zeros(n, 1)], -1)
    return user[:, :1], base.gather(1, best), user_turn[:, :1], base_turn.gather(1, best), speed, indoors[:, :1]
