"""The smallest problem of each row of `problems.REGISTRY`, sometimes two, and one of its fields to change.

A row that is added needs a factory in ROWS: laws of problems and walks of the registry fail by name without it.
"""

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.priors import Gaussian
from fanfold.problems import REGISTRY, Box, CompressedSensing, OFDMChannel, Problem

JAKES = "jakes:array=1x1x2,subcarriers=12,frequency=0.99,speed_mps=60"
AXES = 'axis = [{kind = "linear-array", elements = 5, field = 0.8, voxels = 6}]'


@dataclass(frozen=True)
class Row:
    """How to make a problem, what to change of it, and how many draws it can bear."""

    make: Callable[[Path], Problem]
    change: dict[str, Any]
    draws: int = 20_000
    needs: tuple[str, ...] = field(default=())  # packages that are extras

    def problem(self, folder: Path) -> Problem:
        for package in self.needs:
            if find_spec(package) is None:
                pytest.skip(f"needs {package}")
        return self.make(folder)


def of(name: str, change: dict[str, Any], **fields: Any) -> Row:
    """A row whose problem is its fields alone."""
    return Row(lambda _: REGISTRY[name](**fields), change)


def pairs(folder: Path) -> Problem:
    rng = np.random.default_rng(0)
    x, A = rng.standard_normal((40, 6)), rng.standard_normal((4, 6))
    np.savez(folder / "pairs.npz", x=x, y=x @ A.T, A=A, noise_var=np.float64(0.1))
    return REGISTRY["pairs"](str(folder / "pairs.npz"))


def images(folder: Path) -> Problem:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((40, 2)), rng.standard_normal((40, 1, 3, 4))
    np.savez(folder / "images.npz", x=x, y=y)
    return REGISTRY["pairs"](str(folder / "images.npz"), kind="image")


def program(folder: Path) -> Problem:
    body = 'import json, sys\nd = json.load(sys.stdin)\nprint(json.dumps({"y": d["x"] + [d["seed"] / 2**31]}))\n'
    (folder / "solver.py").write_text(body)
    command = f"{shlex.quote(sys.executable)} -I -S {shlex.quote(str(folder / 'solver.py'))}"
    return REGISTRY["program"](command, Box((-1.0, 0.0), (1.0, 1.0)), shape=(3,))


def simulations(folder: Path) -> Problem:
    return ff.simulate(REGISTRY["receiver-chain"](pilots=4), 40, folder / "store")


def geometry(folder: Path) -> str:
    (folder / "array.toml").write_text(AXES)
    return str(folder / "array.toml")


def calibrated(folder: Path) -> Problem:
    array, generator = REGISTRY["rf"](geometry(folder), sparsity=0.8), torch.Generator().manual_seed(0)
    x, obs = array.sample(40, generator)
    np.savez(folder / "measured.npz", x=x.numpy(), y=obs.y.numpy(), noise_var=obs.noise_var.numpy())
    return REGISTRY["rf"](geometry(folder), str(folder / "measured.npz"))


SMALL = CompressedSensing(n=30, m=15, sparsity=0.5, snr_db=20.0)
CHANNELS = OFDMChannel(JAKES, snr_db=5.0)
ROWS: dict[str, dict[str, Row]] = {
    "clustered": {"": of("clustered", {"snr_db": 10.0}, n=30, m=15, sparsity=0.2, fall_db=3.0)},
    "compressed-sensing": {
        "": of("compressed-sensing", {"sparsity": 0.4}, n=30, m=15, sparsity=0.5, snr_db=20.0),
        "conditioned": of("compressed-sensing", {"condition_number": 3.0}, n=30, m=15, ensemble="conditioned"),
    },
    "direction-of-arrival": {
        "": of("direction-of-arrival", {"snr_db": 3.0}, sensors=3, snapshots=1),
        "deterministic": of(
            "direction-of-arrival", {"sector": 50.0}, sensors=3, snapshots=1, signals="deterministic", angles="smooth"
        ),
        "two": of("direction-of-arrival", {"snapshots": 2}, sources=2, sensors=4, snapshots=1, snr_db=(3.0, 0.0)),
    },
    "exactly-sparse": {"": of("exactly-sparse", {"nonzeros": 3}, n=30, m=15)},
    "few-channels": {
        "": of("few-channels", {"known": False}, problem=CHANNELS, count=40),
        "plain": of("few-channels", {"seed": 1}, problem=CHANNELS, count=40, varied=False, known=False),
    },
    "generalized-linear": {"": of("generalized-linear", {"snr_db": 5.0}, n=10, m=40, sparsity=0.5)},
    "heat": {
        "": Row(
            lambda _: REGISTRY["heat"](across=1, cells=4, sensors=2), {"contrast": 0.3}, needs=("skfem",), draws=500
        )
    },
    "linear-gaussian": {
        "": of("linear-gaussian", {"show_operator": True}, n=2, m=1),
        "shown": of("linear-gaussian", {"seed": 1}, n=2, m=2, show_operator=True),
    },
    "mimo-detection": {"": of("mimo-detection", {"correlation": 0.5}, users=3, antennas=4)},
    "mismatched": {"": of("mismatched", {"error": 0.2}, problem=SMALL)},
    "mixture-signal": {"": of("mixture-signal", {"spread": 0.5}, n=2, m=1)},
    "modulation": {"": of("modulation", {"unknown_phase": True}, symbols=4)},
    "ofdm-channel": {
        "": of("ofdm-channel", {"power": 4.0}, source=JAKES, snr_db=5.0),
        "stored": Row(lambda _: REGISTRY["ofdm-channel"](), {"known_noise": False}, draws=200),
    },
    "pairs": {
        "": Row(pairs, {"held_out_share": 0.5}),
        "images": Row(images, {"part": "test"}),
    },
    "photographs": {
        "": of("photographs", {"noise_std": 0.1}, block=4),
        "flipped": of("photographs", {"flips": False}, block=4, flips=True),
    },
    "program": {"": Row(program, {"prior": Box((0.0, 0.0), (1.0, 1.0))}, draws=20)},
    "receiver-chain": {"": of("receiver-chain", {"bits": 6}, pilots=4)},
    "rf": {
        "": Row(lambda folder: REGISTRY["rf"](geometry(folder)), {"sparsity": 0.3}),
        "erring": Row(lambda folder: REGISTRY["rf"](geometry(folder), phase_deg=3.0), {"phase_deg": 0.0}),
        "measured": Row(calibrated, {"held_out_share": 0.5}),
    },
    "rf-imaging": {
        "": of("rf-imaging", {"sensing": "gaussian"}, scene=(5, 4), elements=(4, 3), sparsity=0.3),
        "erring": of("rf-imaging", {"phase_deg": 0.0}, scene=(5, 4), elements=(4, 3), phase_deg=10.0),
        "extended": of("rf-imaging", {"targets": "photographs"}, scene=(6, 6), elements=(4, 4), targets="extended"),
    },
    "denoising": {
        "": of("denoising", {"n": 2}),
        "gaussian": of("denoising", {"snr_db": 3.0}, prior=Gaussian(0.5), n=2, snr_db=0.0),
    },
    "simulations": {"": Row(simulations, {"held_out_share": 0.5})},
    "time-delay": {"": of("time-delay", {"gain": "phase"}, n=6, bandwidth=0.25, first=1.0, last=4.0, snr_db=0.0)},
    "tone": {
        "": of("tone", {"limit": 1.0}, n=3, snr_db=0.0),
        "fading": of("tone", {"density": "uniform"}, n=2, snr_db=0.0, gain="rayleigh", density="raised-cosine"),
        "ranged": of("tone", {"show_noise": False}, n=3, snr_db=(0.0, 10.0)),
    },
    "broad": {"": of("broad", {"importance": (1.0, 2.0)}, problem=SMALL, conditions={"snr_db": (10.0, 30.0)})},
    "varied": {"": of("varied", {"groups": 4}, problem=SMALL, ranges={"snr_db": (10.0, 30.0)})},
}


def row_of(name: str, variant: str = "") -> Row:
    """The factory of a row.

    Raises:
        AssertionError: If there is none.
    """
    assert name in ROWS, f"{name} has no factory: add its smallest problem to ROWS in tests/problem_rows.py"
    return ROWS[name][variant]
