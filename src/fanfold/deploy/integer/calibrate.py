"""From a trained network to an integer program without more training: scales are chosen on observations."""

import torch
from torch import nn

from fanfold.core.settings import checks_arguments
from fanfold.deploy.integer.drafting import drafted
from fanfold.deploy.integer.program import IntegerProgram
from fanfold.estimators.fixed_point import Widths, quantised
from fanfold.observation import Observation


@checks_arguments
@torch.no_grad()
def to_integers(
    net: nn.Module,
    obs: Observation,
    widths: Widths = "w8a8",
    *,
    pairs_fit: bool = False,
    name: str = "estimator",
) -> IntegerProgram:
    """An integer program of a trained network, its scales chosen on observations.

    Each scale is the power of two with the least squared error on what the integer layers before it give and on one
    more entry, larger by a quarter than all of these; beyond it, entries saturate. The ports `y` and `x_hat` have 16
    bits, whatever the activations have. Training in whole numbers, `ff.fit(net, problem, quantise=widths)`, loses less.

    Args:
        net: The network in floating point.
        obs: Observations to choose scales on, a few hundred as they will come.
        widths: The bits of weights and activations.
        pairs_fit: Whether weights of 8 bits lose one more, in rows that need it, so that 8-bit kernels which add two
            products in 16 bits are proved not to saturate: ONNX files then multiply bytes, and faster. The C needs it
            not.
        name: The name of the program.

    Raises:
        ValueError: If the network has no integer form, or observations do not belong to it.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> net = ff.unfold(ff.algorithms.LISTACP(), problem, 3, {"threshold": "per-layer"})
        >>> x, obs = problem.sample(200, torch.Generator().manual_seed(0))
        >>> integer = ff.deploy.integer.IntegerEstimator(ff.deploy.integer.to_integers(net, obs, "w16a16"))
        >>> bool((integer(obs).x - net(obs).x).abs().max() < 1e-2)
        True
    """
    return drafted(quantised(net, widths, obs, pairs_fit=pairs_fit), name)
