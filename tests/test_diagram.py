"""The diagram of every algorithm and network: valid, legible, true to the step that ran and to what was learned."""

import itertools
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import matplotlib
import pytest
import torch
from PIL import ImageFont
from torch import Tensor

import fanfold as ff
from fanfold.algorithms import FREE, POSITIVE, REGISTRY, Algorithm, Nominal
from fanfold.cli import main as cli
from fanfold.observation import Estimate
from fanfold.problems.draws import example_of
from fanfold.report.diagram import svg as pieces
from fanfold.report.diagram.flow import flow_of
from fanfold.report.diagram.layout import HALF, SMALL, TEXT, planned, width_of
from fanfold.report.diagram.parts import Flow
from fanfold.report.diagram.recording import recorded
from fanfold.report.diagram.symbols import number_text, plain_text
from fanfold.report.run_page import write_run_page
from fanfold.runs.directory import Run
from fanfold.shrinkage import soft

SVG = "{http://www.w3.org/2000/svg}"
PROBLEM = ff.problems.CompressedSensing(n=40, m=22)
SCENES = ff.problems.RFImaging("gaussian", scene=(8, 8), elements=(6, 6))
LONG = "a_very_long_name_of_the_step_that_its_authors_chose"


class State(NamedTuple):
    x: Tensor


@dataclass(frozen=True)
class Outsider(Algorithm):
    """A step that no file of the package has, with a name as long as any."""

    nominals = {
        LONG: Nominal(lambda _, obs: obs.A.norm() ** -2, POSITIVE),
        "shift_of_every_entry": Nominal(lambda *_: 0.0, FREE),
    }

    def start(self, obs):
        return State(obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n)))

    def step(self, s, obs, theta):
        residual_after_shift = obs.y - obs.A @ (s.x - theta.shift_of_every_entry)
        return State(soft(s.x + vars(theta)[LONG] * (obs.A.H @ residual_after_shift), 0.1 * vars(theta)[LONG]))

    def read(self, s):
        return Estimate(s.x)


ALGORITHMS = {name: kind() for name, kind in REGISTRY.items()} | {"outsider": Outsider()}
every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)


def flow(algorithm: Algorithm, problem=PROBLEM) -> Flow:
    obs = example_of(problem, 2)
    return flow_of(recorded(algorithm, obs, [algorithm.nominal_theta(obs)]))


def titles(svg: str) -> list[str]:
    """What readers see who rest the pointer on the parts."""
    return [e.text or "" for e in ElementTree.fromstring(svg).iter(f"{SVG}title")]


def moved(learn: dict[str, str], algorithm: Algorithm | None = None, layers: int = 3):
    net = ff.unfold(algorithm or ff.algorithms.ISTA(), PROBLEM, layers, learn)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for d in net.deviations.values():
            d += 0.4 * torch.randn(d.shape, generator=generator, dtype=d.dtype)
    return net


@every_algorithm
def test_every_algorithm_is_drawn_as_one_self_contained_picture(name):
    svg = ff.diagram(ALGORITHMS[name])
    root = ElementTree.fromstring(svg)
    assert (root.tag, root.get("role")) == (f"{SVG}svg", "img")
    labelled = [root.find(f".//*[@id='{i}']") for i in (root.get("aria-labelledby") or "").split()]
    assert all(e is not None and e.text for e in labelled)
    assert len(labelled) == 2
    assert not {e.tag for e in root.iter()} & {f"{SVG}script", f"{SVG}image", f"{SVG}foreignObject", f"{SVG}use"}
    assert re.findall(r"https?://[^\"]*", svg) == ["http://www.w3.org/2000/svg"]
    assert re.findall(r"url\(([^)]*)\)", svg) == [f"#{root.get('id')}-hatch"]
    assert "prefers-color-scheme:dark" in svg
    smallest = min(map(float, re.findall(r"(?:font-size:|font:)([\d.]+)px", svg)))
    narrowest = float(re.findall(r'style="min-width:([\d.]+)px"', svg)[0]) / float(root.get("width") or 0)
    assert smallest * narrowest >= 10.99, "11 pixels on the narrowest page; widths are rounded to tenths"
    assert svg == ff.diagram(ALGORITHMS[name])


@every_algorithm
def test_every_quantity_is_named_and_free_to_be_learned(name):
    svg = ff.diagram(ALGORITHMS[name])
    words = "".join(ElementTree.fromstring(svg).itertext())
    assert all(nominal in words for nominal in ALGORITHMS[name].nominals)
    about = [t for t in titles(svg) if "may be learned" in t]
    assert {t.partition(":")[0] for t in about} >= {*ALGORITHMS[name].nominals}
    assert 'class="learned' not in svg
    assert 'class="may' in svg


def boxes_of(plan) -> list[tuple[float, float, float, float]]:
    """All that is drawn of the parts, their pills and the names of signals: left, top, right, bottom."""
    found = []
    for p in plan.places:
        found.append((p.x - p.width / 2, p.y - HALF, p.x + p.width / 2, p.y + HALF))
        found += [(left, top, left + width, top + height) for left, top, width, height in p.pills]
        if p.part.output:
            left = p.x + p.width / 2 + 5
            found.append((left, p.y - 17, left + width_of(p.part.output, SMALL), p.y - 3))
    return found


@every_algorithm
def test_no_two_parts_overlap_and_no_wire_crosses_one(name):
    plan = planned(flow(ALGORITHMS[name]))
    boxes = boxes_of(plan)
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)
    assert min(box[0] for box in boxes) >= 0
    assert max(box[2] for box in boxes) <= plan.width + 1e-9  # sums in another order
    assert max(box[3] for box in boxes) <= plan.height
    inner = [(p.x - p.width / 2 + 1, p.y - HALF + 1, p.x + p.width / 2 - 1, p.y + HALF - 1) for p in plan.places]
    inner += [(x + 1, y + 1, x + w - 1, y + h - 1) for p in plan.places for x, y, w, h in p.pills]
    for route in plan.routes:
        assert 0 <= min(y for _, y in route.points) <= max(y for _, y in route.points) <= plan.height
        for (x1, y1), (x2, y2) in itertools.pairwise(route.points):
            assert x1 == x2 or y1 == y2, "wires run along the axes"
            for left, top, right, bottom in inner:
                beside = max(x1, x2) <= left or right <= min(x1, x2)
                assert beside or max(y1, y2) <= top or bottom <= min(y1, y2), route.wire


@every_algorithm
def test_texts_are_no_wider_than_what_they_stand_in(name):
    """In DejaVu Sans, which is as wide as any font that the style names."""
    path = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    fonts = {size: ImageFont.truetype(str(path), 100 * size) for size in (TEXT, SMALL)}
    plan = planned(flow(ALGORITHMS[name]))
    for place in plan.places:
        if place.part.shape != "port":
            assert fonts[TEXT].getlength(place.part.label) / 100 <= place.width, place.part.label
        for pill, (_, _, width, _) in zip(place.part.pills, place.pills, strict=True):
            assert fonts[SMALL].getlength(plain_text(pill.text)) / 100 <= width, pill.text
        assert fonts[SMALL].getlength(place.part.output) / 100 <= width_of(place.part.output, SMALL) + 3


def test_pills_with_values_stay_on_the_page_and_apart():
    svg = ff.diagram(Outsider(), PROBLEM)
    width = float(ElementTree.fromstring(svg).get("width") or 0)
    found = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="19"', svg.partition("translate")[0])
    spans = [tuple(map(float, numbers)) for numbers in found]
    assert len(spans) == 2
    for x, y, wide in spans:
        assert x + wide <= width
        assert all(other == (x, y, wide) or other[1] != y or other[0] >= x + wide or other[0] < x for other in spans)


# True to the step


def test_ista_is_drawn_as_its_paper_writes_it():
    ista = flow(ff.algorithms.ISTA())
    steps = [p for p in ista.parts if p.shape != "port"]
    assert [p.label for p in steps] == ["A", "+", "Aᴴ", "×", "+", "soft"]
    assert [[plain_text(pill.text) for pill in p.pills] for p in steps] == [[], ["y"], [], ["step"], [], ["threshold"]]
    assert plain_text(steps[4].formula) == "r = x + step · Aᴴ (y − A x)"
    taken = [[(w.source.label, w.sign) for w in ista.wires if w.target is p] for p in steps]
    assert taken == [[("x", 1)], [("A", -1)], [("+", 1)], [("Aᴴ", 1)], [("x", 1), ("×", 1)], [("+", 1)]]


@pytest.mark.parametrize(
    ("name", "formulas"),
    [
        ("amp", {"t": "alpha · rms(v)"}),
        ("gamp", {"noise_var′": "noise_scale · noise_var", "τₚ": "tau_p_scale · energy · τ / m"}),
        ("oamp", {"σ²": "noise_scale · noise_var⁺", "w": "d · v″ / (d² · v″ + σ²)", "damping′": "damping · share"}),
        ("tista", {"τ²": "max(v · (gamma · (gamma − 2) · m / n + 1) + gamma² · lost, least)"}),
        ("alista-at", {"w": "d / (d² + ridge)"}),
    ],
)
def test_numbers_in_between_have_the_formulas_of_the_code(name, formulas):
    found = {plain_text(k): plain_text(v) for k, v in flow(ALGORITHMS[name]).formulas}
    assert formulas.items() <= found.items()


def test_a_counter_is_no_number_of_the_step():
    """FISTA's momentum differs from step to step, and so no step's number may stand for it."""
    fista = flow(ff.algorithms.FISTA())
    assert ["momentum · cₖ"] in [[plain_text(pill.text) for pill in p.pills] for p in fista.parts]


@every_algorithm
def test_recording_changes_nothing(name):
    algorithm, obs = ALGORITHMS[name], example_of(PROBLEM, 2)
    before = ff.iterate(algorithm, 3)(obs).x
    recorded(algorithm, obs, [algorithm.nominal_theta(obs)])
    assert torch.equal(ff.iterate(algorithm, 3)(obs).x, before)


@every_algorithm
def test_every_new_signal_has_a_way_from_the_old_state_or_the_measurements(name):
    drawn = flow(ALGORITHMS[name])
    reached = {id(p) for p in drawn.parts if not any(w.target is p for w in drawn.wires)}
    for part in drawn.parts:
        before = [w.source for w in drawn.wires if w.target is part]
        assert all(id(p) in reached for p in before), "parts stand in the order of computation"
        reached.add(id(part))
    starts = [p for p in drawn.parts if not any(w.target is p for w in drawn.wires)]
    assert all(p.shape == "port" or any(pill.kind == "data" for pill in p.pills) for p in starts)
    assert any(p.shape == "port" and any(w.target is p for w in drawn.wires) for p in drawn.parts)


def test_complex_signals_and_a_matrix_for_each_sample_are_drawn():
    for problem in (ff.problems.CompressedSensing(n=40, m=22, dtype="complex64"), ff.problems.MIMODetection()):
        for kind in (ff.algorithms.ISTA, ff.algorithms.OAMP, ff.algorithms.EP):
            assert "prefers-color-scheme" in ff.diagram(kind(), problem)


# True to what was learned


@pytest.mark.parametrize("words", ["per-layer", "tied", "per-layer vector"])
def test_hovers_hold_the_learned_numbers(words):
    net = moved({"threshold": words, "step": "tied"})
    svg, A = ff.diagram(net), net.operator
    nominal = 0.1 * A.norm() ** -2
    values = nominal * torch.exp(net.deviations["threshold"].detach()).reshape(len(net.deviations["threshold"]), -1)
    panels = [t for t in titles(svg) if re.match(r"layer \d of 3\n", t)]
    assert len(panels) == 3
    for panel, row in zip(panels, values.expand(3, -1), strict=True):
        middle, said = number_text(row.quantile(0.5).item()), panel.split("threshold: ")[1].splitlines()[0]
        assert said.startswith(number_text(float(nominal)))
        assert re.search(rf"(?:→|median) {re.escape(middle)}", said), (said, middle)
        if len(row) > 1:
            low, high = (number_text(row.quantile(q).item()) for q in (0.1, 0.9))
            assert f"({low} to {high})" in said


def test_a_matrix_shows_how_far_it_went():
    net = moved({"W1": "per-layer", "W2": "tied"}, ff.algorithms.LISTA())
    hovers = "\n".join(titles(ff.diagram(net)))
    nominal = net.algorithm.nominals["W1"].value(net.algorithm, example_of(PROBLEM, 2))
    for d in net.deviations["W1"].detach():
        assert f"W1: matrix 40 × 22; ‖change‖ / ‖nominal‖ {number_text((d.norm() / nominal.norm()).item())}" in hovers


def test_learned_differs_from_fixed_in_outline_pattern_and_words():
    svg = ff.diagram(moved({"step": "per-layer"}))
    groups = [g for g in ElementTree.fromstring(svg).iter(f"{SVG}g") if g.find(f"{SVG}title") is not None]
    kinds = {
        "".join(g.find(f"{SVG}text").itertext()): g.find(f"{SVG}rect").get("class")
        for g in groups
        if g.find(f"{SVG}rect") is not None and g.find(f"{SVG}text") is not None
    }
    assert (kinds["step"], kinds["threshold"], kinds["A"]) == ("learned", "fixed", "fixed")
    styles = dict(re.findall(r"#fanfold-\w+ \.(learned|fixed)\{([^}]*)\}", svg))
    assert re.search(r"url\(#fanfold-\w+-hatch\)", styles["learned"])
    assert "stroke-width:2.4" in styles["learned"]
    assert "url" not in styles["fixed"]
    assert "threshold: 0.0" in "\n".join(t for t in titles(svg) if "fixed by the algorithm" in t)


def test_diagrams_in_one_page_share_no_id_and_no_style():
    one, two = ff.diagram(ff.algorithms.ISTA()), ff.diagram(ff.algorithms.ISTA(), dark=False)
    ids = [[e.get("id") for e in ElementTree.fromstring(svg).iter() if e.get("id")] for svg in (one, two)]
    assert len({*ids[0], *ids[1]}) == 8
    for svg, names in zip((one, two), ids, strict=True):
        rules = re.findall(r"(?m)^[^\n{]*(?=\{)", svg[svg.index("<style>") + 7 : svg.index("</style>")].strip())
        assert all(rule.startswith((f"#{names[0]}", "@media")) for rule in rules), rules


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colours", [pieces.LIGHT, pieces.DARK], ids=["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(colours):
    """4.5 to 1, as WCAG 2.1 asks of text of this size (success criterion 1.4.3); 3 to 1 of outlines (1.4.11)."""
    pairs = [("ink", back, 4.5) for back in ("ground", "leaf", "shade", "fixed", "learned", "data")]
    pairs += [("quiet", back, 4.5) for back in ("ground", "leaf", "shade")] + [("edge", "ground", 4.5)]
    pairs += [("line", "ground", 3.0), ("line", "leaf", 3.0), ("edge", "leaf", 3.0)]
    for front, back, least in pairs:
        high, low = sorted((luminance(colours[front]), luminance(colours[back])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= least, (front, back)


def test_what_rests_on_a_learned_number_is_marked_as_well():
    svg = ff.diagram(moved({"noise_scale": "per-layer"}, ff.algorithms.OAMP()))
    assert 'class="formula rests"' in svg.partition("translate(")[2]
    assert 'class="formula rests"' not in ff.diagram(moved({"threshold": "tied"}))


def test_at_strength_zero_the_values_are_the_nominal_ones():
    net = moved({"step": "per-layer"})
    net.strength = 0.0
    svg = ff.diagram(net)
    said = {t.split("step: ")[1].splitlines()[0] for t in titles(svg) if "→" in t}
    ((nominal, value),) = {tuple(words.split(" → ")) for words in said}
    assert nominal == value
    assert "at strength 0" in svg


def test_a_learned_denoiser_is_a_learned_part():
    svg = ff.diagram(ff.estimators.HybridOAMP.of(SCENES, layers=2, width=4), SCENES)
    assert "denoiser: a network, learned" in "\n".join(titles(svg))
    assert svg.count('class="learned"') >= 3


@pytest.mark.parametrize("layers", [1, 2, 16, 200])
def test_any_number_of_layers_fits(layers):
    svg = ff.diagram(moved({"step": "per-layer"}, layers=layers))
    panels = [t for t in titles(svg) if re.match(r"layers? \d+ (of|to)", t)]
    assert panels[0].startswith("layer 1 of" if layers <= 64 else "layers 1 to")
    assert f"of {layers}\n" in panels[-1]
    dots = [t for t in titles(svg) if re.match(r"(layer \d+|all layers) · step", t) and "\n" not in t]
    assert len(dots) == layers + (layers == 1)  # that of one layer is the whole list of the pill
    assert len(svg) < 200_000


def test_a_fixed_point_is_drawn():
    assert "Equilibrium ISTA, 1 layer" in ff.diagram(ff.equilibrium(ff.algorithms.ISTA(), PROBLEM, {"step": "tied"}))


# Refusals, the shell and the page


def test_what_has_no_step_is_refused():
    with pytest.raises(
        ValueError, match=r"a diagram needs `start` and `step`; .* Pass an algorithm, or an unfolded network"
    ):
        ff.diagram(ff.neural(ff.problems.LinearGaussian()))
    with pytest.raises(ValueError, match=r"ISTA is a class. Pass ISTA\(\)"):
        ff.diagram(ff.algorithms.ISTA)
    with pytest.raises(ValueError, match="needs the operator A"):
        ff.diagram(ff.algorithms.ISTA(), ff.problems.Tone())


def test_a_likelihood_that_refuses_gaussian_measurements_asks_for_the_problem():
    likelihood = ff.likelihoods.OneBit()
    problem = ff.problems.GeneralizedLinear(n=40, m=22, likelihood=likelihood)
    net = ff.unfold(ff.algorithms.GAMP(likelihood=likelihood), problem, 2, {"damping": "tied"})
    with pytest.raises(ValueError, match="pass the problem"):
        ff.diagram(net)
    assert "score" in ff.diagram(net, problem)


def test_the_commands_of_the_documents_run(tmp_path, monkeypatch):
    """Shortened."""
    page = (Path(__file__).parent.parent / "docs/diagram.md").read_text()
    (block,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    lines = block.replace("\\\n", " ").splitlines()
    assert [line.split()[1] for line in lines] == ["train", "diagram", "diagram"]
    for line in lines:
        few = "--steps 2 --validate-every 2 --validation-samples 20" if " train " in line else ""
        assert cli.run([*shlex.split(line)[1:], *few.split()]) == 0
    drawn = Path("runs/oamp/diagram.svg").read_text()
    assert titles(drawn)[0] == titles((Path(__file__).parent.parent / "docs/unfolded-oamp.svg").read_text())[0]
    assert Path("ista.svg").is_file()


def test_the_shell_draws_algorithms_and_runs_and_the_page_shows_the_run_s(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["diagram", "fista"]) == 0
    assert Path("fista.svg").read_text() == ff.diagram(ff.algorithms.FISTA())
    assert cli.run(["diagram", "fista"]) == 2
    assert "fista.svg exists" in capsys.readouterr().err
    net = ff.unfold(ff.algorithms.ISTA(), PROBLEM, 2, {"step": "per-layer"})
    trained = ff.fit(net, PROBLEM, steps=4, batch=8, validate_every=2, validation_samples=20, lr=0.1, run_dir="run")
    assert cli.run(["diagram", "run"]) == 0
    drawn = Path("run/diagram.svg").read_text()
    assert drawn == ff.diagram(trained, PROBLEM)
    assert cli.run(["diagram", "run"]) == 0
    assert cli.run(["diagram", "run", "--out", "x.png"]) == 2
    assert "ends in .png" in capsys.readouterr().err
    Path("run").rename("amp")  # the name of an algorithm too
    assert cli.run(["diagram", "amp"]) == 0
    assert Path("amp/diagram.svg").read_text() == drawn
    page = write_run_page(Run.open("amp"), Path("page.html"), 20).read_text()
    assert "<h2>Architecture</h2>" in page
    assert 'class="fanfold-diagram"' in page
    assert "prefers-color-scheme" not in page, "the page is light, whatever its reader prefers"
