"""An estimator that learns its array's responses together with its other numbers. Deviations: fanfold's own idea."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from fanfold.algorithms import OAMP
from fanfold.core.settings import Checked
from fanfold.estimators.imaging.settings import Imaging
from fanfold.estimators.precision import in_full_precision
from fanfold.linops import Kronecker
from fanfold.observation import Estimate, Observation, takes_measurements
from fanfold.problems.base import Problem
from fanfold.unfolding.unfold import UnfoldedSettings

LEARNED = ("p", "var", "noise_scale", "v_linear", "v_denoised", "spread", "damping")


def unfolded_oamp() -> UnfoldedSettings:
    """OAMP that estimates the noise variance, all its numbers learned."""
    return UnfoldedSettings(OAMP(noise="estimated"), 12, dict.fromkeys(LEARNED, "per-layer"))


@dataclass(frozen=True)
class LearnedResponsesSettings(Checked):
    """A network that learns the responses of its array's elements too: a `LearnedResponses`.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.RFImaging("gaussian", scene=(8, 8), elements=(6, 7))
        >>> ff.estimators.LearnedResponsesSettings().build(problem).elements
        (6, 7)
    """

    within: Imaging = field(default_factory=unfolded_oamp)  # The network for measurements of the nominal array.

    def build(self, problem: Problem) -> "LearnedResponses":
        """The untrained network.

        Raises:
            ValueError: If the operator is no Kronecker product.
        """
        if not isinstance(problem.A, Kronecker):
            raise ValueError(
                f"responses belong to the elements of an array's axes, and {problem.A} has none; take a problem whose "
                "operator is a Kronecker product, such as rf-imaging."
            )
        within = self.within.build(problem)
        net = LearnedResponses(within, tuple(factor.shape[0] for factor in problem.A.factors))
        net.settings = replace(self, within=within.settings or self.within)
        return net


class LearnedResponses(nn.Module):
    """Takes a response `exp(d + i phi)` of each element out of the measurements and hands them to another estimator.

    The true operator is taken to be `diag(g_1) A_1 ⊗ … ⊗ diag(g_K) A_K`. To divide y by the responses leaves
    measurements through the nominal operator, whose noise is white where gains are near one, and needs no gradient of a
    singular value decomposition. Every d and phi is 0 at the start: the estimator within, bit for bit. Only the product
    of the axes' responses shows in data, so a common factor may move from one axis to another. Not scale-equivariant
    unless the estimator within is.

    Args:
        within: A network, such as `unfold` makes, bound to the nominal operator; trained together with the responses.
            `of` makes it from settings, so that the whole can be kept.
        elements: Measurements along each axis, `(m_1, …, m_K)`, in row-major order.

    Raises:
        ValueError: If an axis has no element.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.RFImaging("gaussian", scene=(8, 8), elements=(6, 7))
        >>> [len(response) for response in ff.estimators.LearnedResponses.of(problem).responses()]
        [6, 7]
    """

    scale_equivariant: ClassVar[bool] = False
    settings: LearnedResponsesSettings | None = None  # None where the estimator within is the user's own

    def __init__(self, within: nn.Module, elements: tuple[int, ...]):
        super().__init__()
        if not elements or min(elements) < 1:
            raise ValueError(f"elements are {tuple(elements)}; give each axis a count of at least one.")
        self.within, self.elements = within, tuple(elements)
        self.deviations = nn.ParameterList(torch.zeros(2, m) for m in elements)  # d and phi

    @classmethod
    def of(cls, problem: Problem, within: Imaging | None = None) -> "LearnedResponses":
        """The untrained network for a problem whose operator is a Kronecker product, with a response a row.

        Args:
            problem: Says the operator.
            within: Settings of the network that is trained together with the responses; unfolded OAMP if None.

        Raises:
            ValueError: If the operator is no Kronecker product.
        """
        return LearnedResponsesSettings(within or unfolded_oamp()).build(problem)

    @takes_measurements
    @in_full_precision
    def forward(self, obs: Observation) -> Estimate:
        """The estimate, `(..., n)`.

        Raises:
            ValueError: If the measurements are not complex or not as many as the elements.
        """
        y, grid = obs.y, torch.Size(self.elements)
        if not y.is_complex() or y.shape[-1] != grid.numel():
            raise ValueError(
                f"y is {y.dtype} of shape {tuple(y.shape)}; pass complex measurements of {grid.numel()} elements."
            )
        z = y.reshape(-1, *grid)
        for k, response in enumerate(self.responses(y.dtype)):
            z = z / response.reshape([-1 if axis == k + 1 else 1 for axis in range(z.ndim)])
        z = z.reshape(y.shape)
        if obs.A is None and obs.noise_var is None:  # the network within may know its operator
            return self.within(z)
        return self.within(Observation.unchecked(z, obs.A, obs.noise_var))

    def responses(self, dtype: torch.dtype = torch.complex64) -> list[Tensor]:
        """The response of every element along each axis, `(m_k,)`."""
        parts = (deviation.to(dtype.to_real()) for deviation in self.deviations)
        return [torch.exp(torch.complex(d, phi)) for d, phi in parts]

    def operator(self, A: Kronecker) -> Kronecker:
        """The nominal operator with the learned responses, for other estimators."""
        pairs = zip(self.responses(A.dtype), A.factors, strict=True)
        return Kronecker(*(g.detach()[:, None] * f for g, f in pairs))
