"""Where the parts of a flow stand: columns in the order of computation, lanes for what runs beside the main signal.

The longest way through a step is its spine and lies straight. Other parts lie in lanes above and below; a wire between
lanes turns in the gaps between columns alone, so that it crosses no part and no text.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from fanfold.report.diagram.parts import Flow, Part, Wire
from fanfold.report.diagram.symbols import plain_text

TEXT, SMALL = 14, 12.5  # sizes of letters
NARROW, WIDE = frozenset("ijl.,'|′ ()·:;"), frozenset("mwMW—→∞ABVUXE")
HALF, PILL, GAP, TRACK, LANE = 16, 22, 26, 7, 14  # heights and widths of parts, pills, gaps, wires, lanes
OFFSET = 8  # between the ends of wires at a part


def width_of(text: str, size: float = TEXT) -> float:
    """How wide a text is at most, in the fonts that browsers take."""
    marks = sum(c == "\u0304" for c in text)
    shares = (0.36 if c in NARROW else 0.84 if c in WIDE else 0.62 for c in plain_text(text))
    return size * (sum(shares) - 0.62 * marks)


Turn = tuple[int, Part | Wire]  # the column left of a gap, and what turns there: all that leaves a part, or one wire


@dataclass
class Place:
    """Where a part stands: the middle of its shape, the width of the shape, the boxes of its pills."""

    part: Part
    column: int
    lane: float
    width: float
    x: float = 0.0
    y: float = 0.0
    pills: list[tuple[float, float, float, float]] = field(default_factory=list)  # left, top, width, height


@dataclass
class Route:
    """The way of a wire as corners, and the sign that stands at its end."""

    wire: Wire
    points: list[tuple[float, float]]


@dataclass
class FlowPlan:
    """A flow with all its places, in a box of this size from (0, 0)."""

    places: list[Place]
    routes: list[Route]
    width: float
    height: float


def planned(flow: Flow) -> FlowPlan:
    """The plan of a flow."""
    return _Planner(flow).plan()


class _Planner:
    def __init__(self, flow: Flow):
        self.flow = flow
        self.into: dict[int, list[Wire]] = {id(p): [] for p in flow.parts}
        self.out: dict[int, list[Wire]] = {id(p): [] for p in flow.parts}
        for wire in flow.wires:
            self.into[id(wire.target)].append(wire)
            self.out[id(wire.source)].append(wire)
        self.columns = self._columns()
        self.lanes: dict[int, float] = {}
        self.labels: dict[int, float] = {}  # the space that names of signals take beside a column
        self.taken: dict[tuple[float, int], int] = {}  # (lane, column): what stands or passes there
        self._place_chains()
        self.passes = {wire: self._lane_of(wire) for wire in sorted(flow.wires, key=self._span)}
        self.from_lane = {w: lane if self._span(w) > 1 else self.lanes[id(w.source)] for w, lane in self.passes.items()}

    def _columns(self) -> dict[int, int]:
        """Each part one column right of all it takes; what only feeds later parts stands next to them."""
        columns: dict[int, int] = {}
        for part in self.flow.parts:
            sources = [columns[id(w.source)] for w in self.into[id(part)]]
            columns[id(part)] = 1 + max(sources, default=-1 if part.shape == "port" else 0)
        last = max(columns.values(), default=0)
        for part in self.flow.parts:
            if part.shape == "port" and self.into[id(part)]:
                columns[id(part)] = last
        for part in reversed(self.flow.parts):
            readers = [columns[id(w.target)] for w in self.out[id(part)]]
            if part.shape != "port" and readers:
                columns[id(part)] = min(readers) - 1 if len(self.into[id(part)]) < 2 else columns[id(part)]
        return columns

    def _place_chains(self) -> None:
        rest = list(self.flow.parts)
        while rest:
            chain = self._longest(rest)
            columns = range(self.columns[id(chain[0])], self.columns[id(chain[-1])] + 1)
            lane = next(k for k in _outwards() if all((k, c) not in self.taken for c in columns))
            for part in chain:
                self.lanes[id(part)] = lane
            for c in columns:
                self.taken[lane, c] = -1
            for a, b in itertools.pairwise(chain):
                for c in range(self.columns[id(a)] + 1, self.columns[id(b)]):
                    self.taken[lane, c] = id(a)
            rest = [p for p in rest if id(p) not in self.lanes]

    def _longest(self, rest: list[Part]) -> list[Part]:
        """The longest chain of wires among parts that have no lane yet."""
        best: dict[int, list[Part]] = {}
        for part in rest:
            before = [best[id(w.source)] for w in self.into[id(part)] if id(w.source) in best]
            best[id(part)] = [*max(before, key=len, default=[]), part]
        return max(best.values(), key=len)

    def _span(self, wire: Wire) -> int:
        return self.columns[id(wire.target)] - self.columns[id(wire.source)]

    def _lane_of(self, wire: Wire) -> float:
        """The lane in which a wire passes the columns between its ends."""
        first, last = self.lanes[id(wire.source)], self.lanes[id(wire.target)]
        columns = range(self.columns[id(wire.source)] + 1, self.columns[id(wire.target)])
        free = (
            k
            for k in sorted(_wire_lanes(), key=lambda k: (abs(k - first) + abs(k - last), k > 0, abs(k)))
            if all(self.taken.get((k, c), id(wire.source)) == id(wire.source) for c in columns)
        )
        lane = next(free) if columns else last
        self.taken |= {(lane, c): id(wire.source) for c in columns if (lane, c) not in self.taken}
        return lane

    def plan(self) -> FlowPlan:
        places = {id(p): Place(p, self.columns[id(p)], self.lanes[id(p)], _width(p)) for p in self.flow.parts}
        heights = self._lane_heights(places.values())
        tracks = self._tracks()
        lefts, right = self._across(places.values(), tracks)
        for place in places.values():
            left, width = lefts[place.column]
            place.x, place.y = left + width / 2, heights[place.lane]
            top = place.y + HALF + 4
            for pill in place.part.pills:
                w = width_of(pill.text, SMALL) + 14
                place.pills.append((place.x - w / 2, top, w, PILL - 3))
                top += PILL
        routes = [self._route(wire, places, heights, tracks, lefts) for wire in self.flow.wires]
        bottom = max((p.y + HALF + 4 + PILL * len(p.pills) for p in places.values()), default=0)
        return FlowPlan([*places.values()], routes, right, max([bottom, *heights.values()]) + 8)

    def _lane_heights(self, places: Iterable[Place]) -> dict[float, float]:
        """The height of the middle of each lane that is used."""
        above, below = {}, {}
        for wire in self.flow.wires:
            above.setdefault(self.passes[wire], LANE / 2)
            below.setdefault(self.passes[wire], LANE / 2)
        for place in places:
            above[place.lane] = HALF + 12
            below[place.lane] = max(below.get(place.lane, 0), HALF + 6 + PILL * len(place.part.pills))
        heights, top = {}, 0.0
        for lane in sorted(above):
            heights[lane] = top + above[lane]
            top = heights[lane] + below[lane]
        return heights

    def _tracks(self) -> dict[Turn, int]:
        """For each gap, numbered by the column on its left, and each turn in it: the place of the turn."""
        tracks: dict[Turn, int] = {}
        counts: dict[int, int] = {}
        for wire in self.flow.wires:
            for gap, key in self._turns(wire):
                if (gap, key) not in tracks:
                    tracks[gap, key] = counts.get(gap, 0)
                    counts[gap] = tracks[gap, key] + 1
        return tracks

    def _turns(self, wire: Wire) -> list[Turn]:
        first, last = self.columns[id(wire.source)], self.columns[id(wire.target)]
        lane = self.passes[wire]
        leaves: list[Turn] = [(first, wire.source)] if lane != self.lanes[id(wire.source)] else []
        straight = lane == self.lanes[id(wire.target)] and self._offset(wire) == 0
        enters: list[Turn] = [] if straight or (leaves and last == first + 1) else [(last - 1, wire)]
        return leaves + enters

    def _offset(self, wire: Wire) -> float:
        """How far beside the middle of its target a wire ends."""
        lane = self.lanes[id(wire.target)]
        wires = sorted(
            self.into[id(wire.target)],
            key=lambda w: (self.from_lane[w] != lane, self.from_lane[w] > lane, abs(self.from_lane[w] - lane)),
        )
        if len(wires) == 1:
            return 0
        if self.from_lane[wire] == lane:
            return 0 if wires[0] is wire else OFFSET
        below = self.from_lane[wire] > lane
        side = [w for w in wires if self.from_lane[w] != lane and (self.from_lane[w] > lane) == below]
        pitch = min(OFFSET, (HALF - 3) / len(side))
        return (1 + side.index(wire)) * (pitch if below else -pitch)

    def _across(self, places: Iterable[Place], tracks) -> tuple[list[tuple[float, float]], float]:
        """Left edge and width of every column, and the right edge of the last."""
        places, widths = list(places), dict[int, float]()
        for place in places:
            need = max([place.width, *(width_of(p.text, SMALL) + 14 for p in place.part.pills)])
            widths[place.column] = max(widths.get(place.column, 0.0), need)
        for place in places:
            label = width_of(place.part.output, SMALL) + 8 if place.part.output else 0.0
            free = (widths[place.column] - place.width) / 2
            self.labels[place.column] = max(self.labels.get(place.column, 0.0), label - free)
        lefts, x = [], 0.0
        for c in range(max(widths, default=-1) + 1):
            lefts.append((x, widths.get(c, 0.0)))
            count = sum(gap == c for gap, _ in tracks)
            x += widths.get(c, 0.0) + max(GAP, self.labels.get(c, 0.0) + 20 + TRACK * count)
        return lefts, lefts[-1][0] + lefts[-1][1] if lefts else 0.0

    def _route(self, wire: Wire, places, heights, tracks, lefts) -> Route:
        source, target = places[id(wire.source)], places[id(wire.target)]
        x, y = source.x + source.width / 2, source.y
        end = target.x - target.width / 2, target.y + self._offset(wire)
        points = [(x, y)]
        for gap, key in self._turns(wire):
            left, width = lefts[gap]
            turn = left + width + self.labels.get(gap, 0.0) + 6 + TRACK * tracks[gap, key]
            last = gap == target.column - 1
            y_next = end[1] if last else heights[self.passes[wire]]
            points += [(turn, points[-1][1]), (turn, y_next)]
        return Route(wire, [*points, end])


def _width(part: Part) -> float:
    return 2.0 * HALF - 4 if part.shape == "round" and len(part.label) < 3 else max(30.0, width_of(part.label) + 16)


def _outwards() -> Iterable[float]:
    """The lane of the spine, then those above and below it in turn."""
    yield 0.0
    for k in itertools.count(1):
        yield float(-k)
        yield float(k)


def _wire_lanes() -> list[float]:
    return [k / 8 for k in range(-96, 97)]
