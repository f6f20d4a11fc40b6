"""The gallery of RF scenes: its numbers are those that its script measures, its pictures are there and small."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from fanfold.core.units import nmse_db
from fanfold.estimators.linear.image import back_projection
from fanfold.unfolding.unfold import iterate

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/gallery.md"


@pytest.fixture(scope="module")
def gallery():
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "examples/rf/gallery.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def printed(array: str, scene: str) -> list[float]:
    """The row of a scene in the table of an array, in dB."""
    section = PAGE.read_text().split(f"gallery/{array}.svg")[1]
    (row,) = re.findall(rf"^\| {scene} \| (.*) \|$", section.split("##")[0], re.MULTILINE)
    return [float(cell.split("(")[0].replace("−", "-")) for cell in row.split("|")]


def test_every_array_and_scene_has_its_row_and_every_picture_its_numbers(gallery):
    for array in gallery.ARRAYS:
        for scene in gallery.SCENES:
            assert len(printed(array, scene)) == len(gallery.METHODS)
        picture = (ROOT / f"docs/gallery/{array}.svg").read_text()
        shown = re.findall(r"NMSE .(\d+\.\d) dB, range .?(\d+) dB", picture)
        assert len(shown) == len(gallery.SCENES) * len(gallery.METHODS)
        assert "url(http" not in picture


def test_the_pictures_are_small():
    assert sum(path.stat().st_size for path in (ROOT / "docs/gallery").iterdir()) < 300_000


@pytest.mark.parametrize("array", ["gaussian", "steering", "near-field"])
def test_back_projection_has_the_error_that_the_page_prints(gallery, array):
    for scene in gallery.SCENES:
        x, obs = gallery.tests_of(array, scene)
        # printed to 0.1 dB; one product with A, whose rounding does not show
        assert nmse_db(back_projection(obs).x, x) == pytest.approx(printed(array, scene)[0], abs=0.06)


@pytest.mark.parametrize("array", ["gaussian", "steering"])
def test_ep_has_the_error_that_the_page_prints(gallery, array):
    x, obs = gallery.tests_of(array, "points")
    ((algorithm,), iterations) = gallery.candidates(gallery.problem_of(array, "points"))["EP, 12 iterations"]
    # as printed; the order of sums on another machine moves single voxels between zero and not, at the noise, by less
    assert nmse_db(iterate(algorithm, iterations)(obs).x, x) == pytest.approx(printed(array, "points")[3], abs=0.3)


def test_the_dynamic_range_is_the_peak_over_the_mean_squared_error(gallery):
    x = torch.zeros(100, dtype=torch.complex64)
    x[3] = 10j
    assert gallery.dynamic_range_db(x + 0.1, x) == pytest.approx(40.0, abs=1e-4)
    assert gallery.dynamic_range_db(1e-6 * (x + 0.1), 1e-6 * x) == pytest.approx(40.0, abs=1e-4)
