"""A program of real tensors with its ports, called like the estimator that it was made of."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from fanfold.deploy.lowering.ports import Port
from fanfold.deploy.lowering.tracing import each_variance, in_pairs
from fanfold.observation import Estimate, Estimator, Observation


class Lowered:
    """A program of real tensors, and its ports; made by `lowered`.

    Attributes:
        program: Takes the inputs in the order of `inputs`, and gives a tuple in the order of `outputs`.
        inputs: `y` and, where the estimator takes one, `noise_var`.
        outputs: `x_hat`, then `var` and `quantiles` where the estimator says these.
        estimator: What it was made of; networks in whole numbers are called within it, and live as long.
        start: What the first call remembers, by port, `(k,)` each; nothing where nothing is remembered.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=40, m=20).sample(8, torch.Generator().manual_seed(0))
        >>> low = ff.deploy.lowered(ff.iterate(ff.algorithms.ISTA(), 2), obs)
        >>> low(obs).x.shape, [port.name for port in low.inputs]
        (torch.Size([8, 40]), ['y'])
    """

    def __init__(
        self,
        program: ExportedProgram,
        inputs: tuple[Port, ...],
        outputs: tuple[Port, ...],
        *,
        estimator: Estimator | None = None,
    ):
        self.program, self.inputs, self.outputs, self.estimator = program, inputs, outputs, estimator
        self.start: dict[str, Tensor] = {}
        self._module: nn.Module | None = None

    @property
    def kept(self) -> dict[str, str]:
        """The outputs that are inputs of the next call, input -> output; none where nothing is remembered."""
        return {name: f"{name}_next" for name in self.start}

    def arguments(self, obs: Observation, first: int = 0) -> tuple[Tensor, ...]:
        """The inputs for an observation, `(batch, m)` and its noise variances; of calls with numbers from the first on.

        Raises:
            ValueError: If the program takes a noise variance and the observation has none.
        """
        arguments = [in_pairs(obs.y)]
        if any(port.name == "noise_var" for port in self.inputs):
            if obs.noise_var is None:
                raise ValueError("the program takes a noise variance for each sample; pass an observation with one.")
            arguments.append(each_variance(obs))
        return tuple(arguments)

    def estimate(self, outputs: Any) -> Estimate:
        """The outputs of the program, or of what was made of it, as an estimate."""
        said = {port.name: torch.as_tensor(value) for port, value in zip(self.outputs, outputs, strict=True)}
        x = said["x_hat"]
        return Estimate(torch.view_as_complex(x.contiguous()) if self.outputs[0].pairs else x, said.get("var"))

    def __call__(self, obs: Observation) -> Estimate:
        """What the program says, computed by torch."""
        if self._module is None:
            self._module = self.program.module()
        with torch.no_grad():
            return self.estimate(self._module(*self.arguments(obs)))
