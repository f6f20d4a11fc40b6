"""Estimators that compute complex numbers in pairs of reals become ONNX files; those that do not are refused."""

import numpy as np
import pytest
import torch

from fanfold.core.streams import generator_of
from fanfold.deploy import FromPairs, to_onnx
from fanfold.estimators.ofdm import ADMMSettings, BeamMixer, Interpolation, MixerSettings, UnfoldedADMM
from fanfold.observation import Observation
from fanfold.problems import OFDMChannel

PLACE = "kronecker:array=2x2x2,subcarriers=12,delay_spread_ns=300"


@pytest.mark.parametrize("known", [True, False])
def test_the_file_says_what_the_network_says_for_any_batch(tmp_path, known):
    onnxruntime = pytest.importorskip("onnxruntime")
    problem = OFDMChannel(PLACE, "comb-2", known_noise=known)
    x, obs = problem.sample(5, generator_of(0))
    net = BeamMixer.of(problem, MixerSettings(6, 6, 1, 6, 16, 24))
    net.prepare(x, obs)
    path = to_onnx(net, obs[:2], tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    arguments = FromPairs(net, obs).arguments(obs)
    inputs = {node.name: t.numpy() for node, t in zip(session.get_inputs(), arguments, strict=True)}
    x_hat, var = session.run(None, inputs)
    with torch.no_grad():
        estimate = net(obs)
    scale = estimate.x.abs().max().item()
    assert np.abs(x_hat - torch.view_as_real(estimate.x).numpy()).max() < 1e3 * np.finfo(np.float32).eps * scale
    assert np.abs(var / estimate.var.numpy() - 1).max() < 1e3 * np.finfo(np.float32).eps


def test_what_computes_with_complex_numbers_is_refused(tmp_path):
    problem = OFDMChannel(PLACE, "comb-2")
    _, obs = problem.sample(2, generator_of(0))
    for estimator in (
        Interpolation.of(problem),
        UnfoldedADMM.of(problem, ADMMSettings(iterations=1, beams=8, modes=3)),
    ):
        with pytest.raises(ValueError, match="no complex type"):
            to_onnx(estimator, Observation(obs.y, obs.A, obs.noise_var), tmp_path / "net.onnx")
