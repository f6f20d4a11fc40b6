"""The page of the lab in a browser: live training in two tabs, cancelled runs, the address, pairs, and who reads it."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fanfold.estimators import Locator
from labs import lab_of, sparse_pairs
from machines import need_browser

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> dict:
    """What Chromium says of the lab, in two tabs."""
    need_browser("playwright-core", "axe-core")
    folder = tmp_path_factory.mktemp("lab")
    with lab_of(folder / "runs") as lab:
        words = [
            "node",
            str(HERE / "lab_in_browser.cjs"),
            lab.address,
            str(sparse_pairs(folder / "p.npz")),
            str(folder),
        ]
        environment = os.environ | {"CHROMIUM": str(shutil.which("chromium"))}
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    said["updates"] = said["live"]["first"]["updates"] + said["live"]["second"]["updates"]
    times = f"answered in {said['answered_ms']} ms, trained in {said['seconds']:.1f} s, {said['updates']} updates"
    print(f"{times}; pictures: {folder}")
    return said | {"address": lab.address, "folder": folder}


def test_the_text_s_figure_trains_live_in_both_tabs(seen):
    for tab in ("first", "second"):
        live = seen["live"][tab]
        assert live["steps"] == list(range(1, 301))
        assert live["validated"] == list(range(0, 301, 10))
        assert live["last"] < -14
        assert live["ended"]


def test_a_training_has_many_updates(seen):
    """Of the two tabs, of which one is not seen for a while and the other comes later."""
    assert seen["updates"] >= 25


def test_a_tab_that_is_not_seen_follows_nothing_and_misses_nothing(seen):
    before, after = seen["unseen"]
    assert before == after < 300
    assert seen["live"]["first"]["connections"] == 2


def test_runs_are_compared_and_cancelled_from_the_page(seen):
    name = seen["cancelled"]["name"]
    assert seen["cancelled"]["conditions"] == {seen["live"]["name"]: "finished", name: "cancelled"}
    assert seen["series"] == [seen["live"]["name"]] * 2 + [name] * 2


def test_the_address_says_all_and_brings_it_back(seen):
    names = [seen["live"]["name"], seen["cancelled"]["name"]]
    assert seen["restored"] == {"same": True, "n": "60", "steps": "100000", "lam": "0.05", "shown": names}
    assert seen["wrong"] == "n takes a number, not “many”."
    assert seen["focused"] == "of_problem-n"
    assert seen["view"]


def test_another_problem_takes_no_settings_of_what_was_chosen_before(seen):
    nothing = {"of_problem": {}, "of_network": {}, "learn": {}, "training": {}}
    assert seen["other"] == {"problem": "tone", "network": "locator"} | nothing


def test_networks_that_do_not_fit_a_problem_are_named_with_the_reason(seen):
    assert re.fullmatch(r"\d+ do not fit this problem", seen["unfit"]["count"])
    reasons = dict(line.split(": ", 1) for line in seen["unfit"]["reasons"])
    (algorithms,) = (names for names in reasons if "ista" in names.split(", "))
    assert reasons[algorithms] == "an iterative algorithm needs the operator A, and Tone has none."
    assert "estimates OFDM channels" in reasons["grid-cnn"]


def test_a_network_is_trained_as_it_usually_is(seen):
    assert seen["usual"] == str(Locator.training_defaults["steps"])


def test_a_network_of_scenes_asks_for_one_and_says_how_to_give_it(seen):
    assert "set voxels to height and width, such as 20 25 of 500." in seen["asks"]["said"]
    assert seen["asks"]["first"] == "of_network-voxels"


def test_flags_without_a_field_are_judged_in_the_words_of_the_command_line(seen):
    assert re.search(r"dtype.*flat32|flat32.*dtype", seen["flagged"]["said"])
    assert "float32" in seen["flagged"]["said"]
    assert "quantise=w8a12" in seen["flagged"]["url"]
    assert "more=dtype+%3D+flat32" in seen["flagged"]["url"]
    assert seen["flagged"]["runs"] == 2  # nothing began


def test_pairs_are_dropped_onto_the_page(seen):
    assert seen["before_pairs"]
    assert seen["pairs"]["ready"]
    assert "160 pairs to train" in seen["pairs"]["reading"]
    assert "data=p-" in seen["pairs"]["url"]
    assert "no .npz file" in seen["refused"]


def test_nothing_outside_is_asked_and_nothing_goes_wrong(seen):
    assert seen["silent"] == []
    assert all(url.startswith(seen["address"]) for url in seen["requests"])
    assert seen["figure"] == ""


def test_the_page_is_for_all_who_read_it(seen):
    assert seen["axe"] == {"light": [], "dark": [], "phone": [], "flagged": []}
    assert seen["widths"] == {"light": 1200, "dark": 1200, "phone": 390}
