"""Training says what it read from the user's files, and warns where antennas and subcarriers look swapped."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import fanfold as ff
from fanfold.core.abilities import ability
from fanfold.problems import OFDMChannel, Pairs
from fanfold.problems.protocols import SaysReading
from fanfold.propagation import source_of
from fanfold.propagation.axes import swapped
from fanfold.training.events import Started

UMI = source_of("umi").draw(200, torch.Generator().manual_seed(0))  # (200, 32, 1, 24)
RNG = np.random.default_rng(0)
MODELS = ("umi", "kronecker", "rician", "jakes:array=1x1x8,subcarriers=24", "rayleigh:array=8,subcarriers=24")


@pytest.fixture
def stored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("right.npy", UMI[:, :, 0].numpy())
    np.save("turned.npy", UMI[:, :, 0].mT.contiguous().numpy())


@pytest.mark.parametrize("name", MODELS)
def test_channels_of_models_look_as_they_are(name):
    assert swapped(source_of(name).draw(200, torch.Generator().manual_seed(1))) is None


def test_turned_channels_look_turned():
    reason = swapped(UMI.transpose(1, 3))
    assert reason.startswith("neighbouring antennas are more alike (correlation 0.99")


class Scaled(nn.Module):
    """What can be trained at once."""

    def __init__(self, unknowns):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))
        self.unknowns = unknowns

    def forward(self, obs):
        return ff.Estimate(self.factor * obs.y.mean(-1, keepdim=True).expand(-1, self.unknowns))


def started(problem):
    """What training says first."""
    net, events = Scaled(problem.sample(1, torch.Generator())[0].shape[-1]), []
    ff.fit(net, problem, steps=1, batch=8, validation_samples=8, on_event=events.append)
    return next(event for event in events if isinstance(event, Started))


def test_training_says_how_it_read_channels_and_warns_of_swapped_axes(stored):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        event = started(OFDMChannel("right.npy", "comb-4"))
    assert event.reading.endswith("right.npy: 200 channels of 32 antennas x 24 subcarriers")
    with pytest.warns(UserWarning, match="24 antennas x 32 subcarriers: are the axes swapped.*say axes=dfa"):
        started(OFDMChannel("turned.npy", "comb-4"))


def test_who_names_the_axes_is_believed(stored):
    assert source_of("turned.npy:axes=daf").doubt is None
    right = source_of("turned.npy:axes=dfa")
    assert right.doubt is None
    assert right.layout.shape == (32, 1, 24)


def test_of_several_sources_those_that_are_files_are_named(stored):
    both = OFDMChannel("right.npy:array=2x4x4+umi", "comb-4")
    assert both.reading.endswith("right.npy: 200 channels of 32 antennas (2 x 4 x 4) x 24 subcarriers")
    assert both.doubt is None
    assert OFDMChannel("umi").reading is None


def test_training_says_how_it_read_pairs(tmp_path):
    arrays = {"x": np.ones((50, 3)), "y": np.ones((50, 16)), "A": np.full((16, 3), 1 / 3)}
    np.savez(tmp_path / "pairs.npz", **arrays)
    for problem, name in (
        (Pairs(str(tmp_path / "pairs.npz")), str(tmp_path / "pairs.npz")),
        (Pairs(**arrays), "arrays"),
    ):
        reading = f"{name}: 40 pairs to train, of 50; 3 unknowns x, 16 measurements y, A 16 x 3"
        assert ability(problem, SaysReading).reading == reading
    assert started(Pairs(x=RNG.standard_normal((60, 2)), y=RNG.standard_normal((60, 4)))).reading == (
        "arrays: 48 pairs to train, of 60; 2 unknowns x, 4 measurements y, no A"
    )
