"""The whole diagram: layers folded as a fan, what each learned below its panel, and one panel opened."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fanfold.report.diagram import svg
from fanfold.report.diagram.layout import HALF, SMALL, FlowPlan, planned, width_of
from fanfold.report.diagram.parts import Flow, Part
from fanfold.report.diagram.quantities import NominalQuantity
from fanfold.report.diagram.symbols import marked, names_in, number_text, plain_text

MARGIN, LEAST, RIGHT = 28, 860, 84  # of the page: border, width, room for numbers on the right
FOLD, GLYPH, ROW = 14, 30, 64  # height of a fold's slant, of a symbol in a panel, of a chart
MOST_PANELS, GLYPHS, FULL = 64, 6, 1000  # panels that are drawn, symbols in each, width in which all show theirs
LINE = 20
MARKS = "x⁺ is what the next step finds as x, x′ another value under the same name"


@dataclass
class Subject:
    """What is drawn: words, the flow of one step, the quantities, and how many layers there are, None if any number."""

    title: str
    subtitle: str
    flow: Flow
    quantities: Mapping[str, NominalQuantity]
    layers: int | None
    networks: Sequence[str] = ()  # learned parts that are no quantities

    @property
    def learned(self) -> list[str]:
        """The names of all that was learned."""
        return [name for name, q in self.quantities.items() if q.learned] + list(self.networks)

    def style_of(self, name: str) -> str:
        """How a quantity is drawn: learned, free to be learned, or fixed."""
        return "learned" if name in self.learned else "may" if self.layers is None else "fixed"

    def about(self, name: str) -> str:
        """What a reader sees on resting the pointer on a quantity."""
        q = self.quantities.get(name)
        if q is None:
            return f"{name}: a network, learned" if name in self.networks else ""
        if not q.learned:
            use = f"may be learned: {q.choice}, tied or per layer" if self.layers is None else "fixed by the algorithm"
            return f"{name}: {q.nominal}; {use}"
        shown = range(1 if q.tied else len(q.learned))
        return "\n".join(("all layers" if q.tied else f"layer {t + 1}") + f" · {q.hover(t)}" for t in shown)


def drawn(subject: Subject, *, dark: bool) -> str:
    """The diagram as SVG."""
    plan = planned(subject.flow)
    names = [q.name for q in subject.quantities.values() if q.learned]
    left = MARGIN + max([90.0, *(width_of(name) + 14 for name in names), *(
        width_of(_nominal_line(subject.quantities[name]), SMALL) + 14 for name in names)])  # fmt: skip
    width = max(LEAST, plan.width + 2 * MARGIN + 24, width_of(subject.subtitle, SMALL) + 2 * MARGIN,
                *(sum(row) for row in _formula_columns(subject, 1)))  # fmt: skip
    panels = (subject.layers or 0) * _room(_glyphs(subject))
    width = max(width, left + panels + RIGHT + MARGIN if panels <= FULL else 0)
    body = [svg.text(MARGIN, 42, subject.title, "head"), svg.text(MARGIN, 64, subject.subtitle, "small quiet")]
    y = 92.0
    fan, y = _fan(subject, left, width - MARGIN - RIGHT, y)
    charts, y = _charts(subject, names, left, width - MARGIN - RIGHT, y)
    pills, y = _others(subject, width, y)
    legend, y = _legend(subject, width, y)
    step, y = _step(subject, plan, width, y)
    formulas, y = _formulas(subject, width, y)
    title = f"{subject.title}: architecture"
    return svg.document(
        "".join([*body, *fan, *charts, *pills, *legend, *step, *formulas]), width, y + 12, title, _description(subject),
        dark=dark,
    )  # fmt: skip


def _description(subject: Subject) -> str:
    steps = ", ".join(p.label for p in subject.flow.parts if p.shape != "port")
    count = "any number of" if subject.layers is None else str(subject.layers)
    learned = ", ".join(subject.learned) or "nothing"
    return f"{count} layers, each one step: {steps}. Learned: {learned}. {subject.subtitle}"


def _fan(subject: Subject, left: float, right: float, y: float) -> tuple[list[str], float]:
    count = subject.layers or 6
    shown = min(count, MOST_PANELS)
    glyphs, pieces = _glyphs(subject), []
    height = FOLD + 34 + GLYPH * max(2, len(glyphs))
    wide, bottom, middle = (right - left) / shown, y + height, y + height / 2
    pieces += [svg.text(left - 40, middle - 6, "y, A", "mid"), svg.wire([(left - 62, middle), (left - 6, middle)])]
    numbers, inside = [], wide >= 30
    for k in range(shown):
        x, first, last = left + k * wide, _layer(k, shown, count), _layer(k + 1, shown, count)
        up, down = (0, FOLD) if k % 2 == 0 else (FOLD, 0)
        corners = [(x, y + up), (x + wide, y + down), (x + wide, bottom + down), (x, bottom + up)]
        layers = f"layer {first + 1} of {count}" if last == first + 1 else f"layers {first + 1} to {last} of {count}"
        about = [layers if subject.layers else "a layer; as many as you like"]
        about += [q.hover(first) for q in subject.quantities.values() if q.learned]
        panel = svg.polygon(corners, "leaf" if k % 2 == 0 else "shade")
        pieces.append(f"<g>{svg.hover(chr(10).join(about))}{panel}{_inside(subject, glyphs, x, wide, y)}</g>")
        if k % max(1, -(-30 // int(max(wide, 1)))) == 0:
            words = str(first + 1) if subject.layers or k < 3 else "T" if k == shown - 1 else "…"
            place = bottom + FOLD / 2 - 8 if inside else bottom + FOLD + 15
            numbers.append(svg.text(x + wide / 2, place, words, "small mid quiet"))
    pieces += [
        svg.wire([(right + 6, middle), (right + 46, middle)]),
        svg.text(right + 58, middle + 5, "x\u0302", "mid"),
    ]
    return pieces + numbers, bottom + FOLD + (16 if inside else 24)


def _layer(k: int, shown: int, count: int) -> int:
    """The first layer that a panel stands for, counted from 0."""
    return k * count // shown


def _glyphs(subject: Subject) -> list[Part]:
    """The operations that a panel shows: what is more than arithmetic, and what a quantity sets."""
    telling = [p for p in subject.flow.parts if p.telling or _names(p)]
    if len(telling) > GLYPHS:
        telling = [p for p in telling if p.telling or {*_names(p)} & {*subject.learned}]
    return telling[:GLYPHS]


def _room(glyphs: list[Part]) -> float:
    """The width of a panel in which all symbols find room."""
    return max((width_of(p.label, SMALL) for p in glyphs), default=0) + 16


def _names(part: Part) -> list[str]:
    return [name for p in part.pills for name in names_in(p.text)] + [part.nominal] * bool(part.nominal)


def _style(subject: Subject, names: Iterable[str]) -> str:
    """How something that rests on these quantities is drawn: as the most that is learned of them."""
    styles = {subject.style_of(name) for name in names}
    return next((style for style in ("learned", "may") if style in styles), "fixed")


def _inside(subject: Subject, glyphs: list[Part], x: float, wide: float, y: float) -> str:
    need = _room(glyphs) - 6
    if need > wide - 4:
        return ""
    top, pieces = y + FOLD + 8, []
    for k, part in enumerate(glyphs):
        box = svg.rect(x + (wide - need) / 2, top + k * GLYPH, need, GLYPH - 6, _style(subject, _names(part)), 4)
        pieces.append(box + svg.text(x + wide / 2, top + k * GLYPH + 17, part.label, "small mid"))
    return "".join(pieces)


def _nominal_line(q: NominalQuantity) -> str:
    return q.shown or f"nominal {q.nominal}"


def _charts(subject: Subject, names: Sequence[str], left: float, right: float, y: float) -> tuple[list[str], float]:
    pieces: list[str] = []
    for name in names:
        pieces.append(_chart(subject.quantities[name], left, right, y))
        y += ROW
    return pieces, y + (6 if names else 0)


def _chart(q: NominalQuantity, left: float, right: float, y: float) -> str:
    assert q.level is not None
    top, bottom = y + 10, y + ROW - 18
    values = [v for triple in q.learned for v in triple] + [q.level]
    low, high = min(values), max(values)
    span = high - low or abs(high) or 1.0
    wide = (right - left) / len(q.learned)

    def place(value: float) -> float:
        return bottom - (value - low) / span * (bottom - top) if high > low else (top + bottom) / 2

    xs = [left + (t + 0.5) * wide for t in range(len(q.learned))]
    pieces = [
        svg.formula(MARGIN, y + 26, marked(q.name), [q.name], ""),
        svg.text(MARGIN, y + 43, _nominal_line(q), "small quiet"),
        svg.line(left, bottom + 11, right, bottom + 11, "rule"),
        svg.line(left, place(q.level), right, place(q.level), "was"),
    ]
    lows, highs = [(x, place(t[0])) for x, t in zip(xs, q.learned)], [(x, place(t[2])) for x, t in zip(xs, q.learned)]
    if lows != highs:
        pieces.append(svg.polygon([*lows, *reversed(highs)], "band"))
    middle = [(x, place(t[1])) for x, t in zip(xs, q.learned)]
    if q.tied:
        middle = [(left, middle[0][1]), *middle, (right, middle[0][1])]
    pieces.append(f'<path d="M{"L".join(f"{svg.n(a)} {svg.n(b)}" for a, b in middle)}" class="curve"/>')
    for t, x in enumerate(xs):
        about = ("all layers" if q.tied else f"layer {t + 1}") + f" · {q.hover(t)}"
        dot = (
            f'<circle cx="{svg.n(x)}" cy="{svg.n(place(q.learned[t][1]))}" r="{3.5 if wide > 9 else 1.5}" class="dot"/>'
        )
        area = svg.rect(x - wide / 2, y, wide, ROW - 6, "clear", 0)
        pieces.append(f"<g>{svg.hover(about)}{area}{dot}</g>")
    if high > low:
        pieces += [svg.text(right + 8, place(v) + 4, number_text(v), "small quiet") for v in (low, high)]
    else:
        pieces.append(svg.text(right + 8, place(low) + 4, number_text(low), "small quiet"))
    return "".join(pieces)


def _others(subject: Subject, width: float, y: float) -> tuple[list[str], float]:
    """The quantities that no chart shows, each with its value."""
    names = [name for name in subject.quantities if name not in subject.learned]
    if not names:
        return [], y
    words = "may be learned" if subject.layers is None else "fixed"
    pieces, x = [svg.text(MARGIN, y + 15, words, "small quiet")], MARGIN + width_of(words, SMALL) + 12
    for name in names:
        label = f"{marked(name)} = {subject.quantities[name].nominal}"
        wide = width_of(label, SMALL) + 14
        if x + wide > width - MARGIN:
            x, y = float(MARGIN), y + 26
        pieces.append(svg.pill(x, y, label, subject.style_of(name), [], subject.about(name)))
        x += wide + 8
    return pieces, y + 34


def _legend(subject: Subject, width: float, y: float) -> tuple[list[str], float]:
    kinds = [("fixed", "fixed")]
    kinds += [("may", "may be learned")] if subject.layers is None else []
    kinds += [("learned", "learned")] if subject.learned else []
    kinds += [("was", "nominal")] if any(q.learned for q in subject.quantities.values()) else []
    pills = [p for part in subject.flow.parts for p in part.pills]
    kinds += [("formula", "computed in the step")] if any(p.kind == "formula" for p in pills) else []
    moved = any(p.kind == "formula" and p.rests & {*subject.learned} for p in pills)
    kinds += [("formula rests", "… from what is learned")] if moved else []
    kinds += [("data", "the same in every step")] if any(p.kind == "data" for p in pills) else []
    pieces, x = [svg.text(MARGIN, y + 32, "One layer, opened", "part")], MARGIN + 172.0
    for kind, words in kinds:
        sample = svg.line(x, y + 28, x + 26, y + 28, kind) if kind == "was" else svg.rect(x, y + 20, 26, 16, kind, 4)
        pieces += [sample, svg.text(x + 33, y + 33, words, "small quiet")]
        x += 33 + width_of(words, SMALL) + 16
    return pieces, y + 50


def _step(subject: Subject, plan: FlowPlan, width: float, y: float) -> tuple[list[str], float]:
    height = plan.height + 24
    dx, dy = MARGIN + 12 + max(0.0, (width - 2 * MARGIN - 24 - plan.width) / 2), y + 14
    pieces = [
        svg.rect(MARGIN, y, width - 2 * MARGIN, height, "leaf", 8),
        f'<g transform="translate({svg.n(dx)} {svg.n(dy)})">',
    ]
    ends = [(route.wire.target, route.points[-1][1]) for route in plan.routes]
    for route in plan.routes:
        pieces.append(svg.wire(route.points))
        if route.wire.sign < 0:
            x, end = route.points[-1]
            beneath = any(target is route.wire.target and y < end for target, y in ends)
            pieces.append(svg.text(x - 14, end + (13 if beneath else -5), "−", "small"))
    for place in plan.places:
        part, left = place.part, place.x - place.width / 2
        kind = _style(subject, [part.nominal] if part.nominal else [])
        about = part.formula + (f"\n{subject.about(part.nominal)}" if part.nominal else "")
        if part.shape == "port":
            shape = svg.text(place.x, place.y + 5, part.label, "part mid")
        elif part.shape == "round":
            shape = svg.rect(left, place.y - HALF + 2, place.width, 2 * HALF - 4, kind, HALF)
            shape += svg.text(place.x, place.y + 5, part.label, "part mid")
        else:
            shape = svg.rect(left, place.y - HALF, place.width, 2 * HALF, kind)
            shape += svg.text(place.x, place.y + 5, part.label, "mid")
        pieces.append(f"<g>{svg.hover(about)}{shape}</g>")
        if part.output:
            x = place.x + place.width / 2 + 5
            pieces.append(svg.text(x, place.y - 6, part.output, "small quiet"))
        for words, (x, top, _, _) in zip(part.pills, place.pills):
            name = plain_text(words.text).removeprefix("−")
            style = subject.style_of(name) if words.kind == "nominal" else words.kind
            style += " rests" if words.kind == "formula" and words.rests & {*subject.learned} else ""
            moving = subject.learned if words.kind == "formula" else []
            pieces.append(svg.pill(x, top, words.text, style, moving, subject.about(name)))
    return [*pieces, "</g>"], y + height + 8


def _formula_columns(subject: Subject, columns: int) -> list[list[float]]:
    """The widths of formulas when they stand in so many columns."""
    widths = [width_of(f"{name} = {made}", SMALL) + 40 for name, made in subject.flow.formulas]
    rows = -(-len(widths) // columns)
    return [[widths[r + c * rows] for c in range(columns) if r + c * rows < len(widths)] for r in range(rows)]


def _formulas(subject: Subject, width: float, y: float) -> tuple[list[str], float]:
    formulas = subject.flow.formulas
    if not formulas:
        return [], y
    room = width - 2 * MARGIN
    columns = next(
        c for c in (3, 2, 1) if c == 1 or max(w for row in _formula_columns(subject, c) for w in row) <= room / c
    )
    rows = -(-len(formulas) // columns)
    pieces = [svg.text(MARGIN, y + 18, "where", "part"), svg.text(MARGIN + 60, y + 18, MARKS, "small quiet")]
    for k, (name, made) in enumerate(formulas):
        x, line = MARGIN + room / columns * (k // rows), y + 18 + LINE * (1 + k % rows)
        pieces.append(svg.formula(x, line, f"{name} = {made}", subject.learned))
    return pieces, y + 24 + LINE * (rows + 0.5)
