"""Figures for papers and pictures that are compared: a column wide, fonts inside, told apart without colour."""

import re

import pytest
import torch

from fanfold.report.compared import brightening, compared, compared_draw, framed, place_of
from fanfold.report.page import Section
from fanfold.report.paper import COLOURS, COLUMN, DASHES, MARKS, paper_figure, write_paper_figures
from fanfold.report.plots import Series, line_chart

LAYERS = range(1, 9)
SERIES = [
    Series("unfolded", LAYERS, [-2.0 * k for k in LAYERS], "learned"),
    Series("FISTA, best λ", LAYERS, [-1.0 * k for k in LAYERS]),
    Series("Bayes limit", LAYERS, [-20.0] * 8, "limit"),
]


def test_a_chart_becomes_a_pdf_of_a_columns_width_with_its_fonts_in_it():
    chart = line_chart(SERIES, "layers", "NMSE in dB")
    pdf = paper_figure(chart)
    assert pdf.startswith(b"%PDF")
    width = float(re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ", pdf)[0])
    assert width == pytest.approx(72 * COLUMN, abs=0.5)
    kinds = re.findall(rb"/Subtype /(Type0|CIDFontType2|TrueType|Type1|Type3)\b", pdf)
    assert kinds
    assert b"Type3" not in kinds
    assert pdf.count(b"/FontFile2") >= 1
    assert not re.search(rb"/Subtype /Image\b", pdf)  # lines, no pixels
    assert pdf == paper_figure(chart)


def test_every_chart_of_a_page_has_a_file_and_pictures_have_none(tmp_path):
    chart = line_chart(SERIES, "step", "loss", log_x=True)
    sections = [
        Section("Error of every layer", "", [chart]),
        Section("One scene", "", ["<div></div>"]),
        Section("Learning curve", "", [chart, chart]),
        Section("Learning curve", "", [chart]),
    ]
    names = [path.name for path in write_paper_figures(sections, tmp_path / "figures")]
    assert names == [
        "error-of-every-layer.pdf", "learning-curve-1.pdf", "learning-curve-2.pdf", "learning-curve.pdf"
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(names)


def test_curves_differ_in_more_than_colour():
    """In grey: no two of the first twenty have dashes and marks in common."""
    looks = {(str(DASHES[i % len(DASHES)]), MARKS[i % len(MARKS)]) for i in range(20)}
    assert len(looks) == 20
    assert len(set(COLOURS)) == len(COLOURS)


def test_the_crop_lies_where_the_methods_differ_and_the_frame_around_it():
    truth, one, two = torch.zeros(3, 60, 48)
    one[40:50, 20:30] = 0.3
    place = place_of(truth, [one, two])
    assert place is not None
    assert place.of(one).sum() == one.sum()
    assert (place.height, place.width) == (20, 16)
    frame = framed(truth, place)
    assert frame.count_nonzero() == 2 * (18 + 14) - 4
    assert place_of(torch.zeros(10, 10), [one[:10, :10]]) is None


def test_error_maps_are_drawn_on_one_scale_and_say_which():
    truth = torch.full((32, 32), 0.5)
    errors = {name: torch.full((32, 32), level) for name, level in (("network", 0.04), ("FISTA", 0.3))}
    assert brightening(errors["network"]) == 20
    text, rows = compared(truth, {name: truth - e for name, e in errors.items()}, {"network": "-22 dB"}, errors)
    assert "20 times as bright" in text
    assert [row.count("<img") for row in rows] == [1, 3, 2]
    assert "-22 dB" in rows[1]
    assert "4 % at its worst" in rows[2]
    beyond = compared(truth, {"ISTA": truth + 3}, {}, {"ISTA": torch.full((32, 32), 3.0)})[1]
    assert "300 % at its worst" in beyond[2]
    many = {f"method {k}": truth for k in range(7)}
    assert "3 more methods" in compared(truth, many, {}, dict.fromkeys(many, truth))[0]


def test_of_one_draw_the_network_is_shown_first_and_then_the_best():
    x = torch.full((1, 1024), 0.5 + 0.5j)
    estimates = {"network": 0.9 * x, "FISTA": 0.8 * x, "OAMP": 0.95 * x}
    _, (_, crops, maps) = compared_draw(x, estimates, lambda part: part.abs().reshape(32, 32))
    names = re.findall(r'alt="([^"]*)"', crops)
    assert names == ["truth, framed part", "network", "OAMP", "FISTA"]
    assert re.findall(r"-[\d.]+ dB", crops) == ["-20.0 dB", "-26.0 dB", "-14.0 dB"]  # (1 - factor)², in dB
    assert re.findall(r"<br>([\d.]+) %", maps) == ["7.07", "3.54", "14.1"]  # of |x| = 0.707
