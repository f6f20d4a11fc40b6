"""Estimators that are fitted in closed form: the best linear one, and the best polynomial of third or second degree."""

import itertools
import math

import torch
from torch import Tensor, nn

from fanfold.estimators.posterior.features import Features, LinearFit, fit_linear, linear_features, rows_to_fit

MOST_MONOMIALS = 600
MOST_ROWS = 20_000  # that a polynomial is fitted to


class LinearForm(nn.Module):
    """`x = centre + W z`, the best linear estimator from data. Of twofold features it takes the first half.

    Args:
        features: What it sees.
        d: The number of parameters.

    Example:
        >>> import torch, fanfold as ff
        >>> from fanfold.estimators.posterior.closed_forms import LinearForm
        >>> from fanfold.estimators.posterior.features import Features
        >>> LinearForm(Features(ff.Observation(torch.ones(2, 3)), "vector"), d=4)(torch.ones(5, 3)).shape
        torch.Size([5, 4])
    """

    W: Tensor
    centre: Tensor

    def __init__(self, features: Features, d: int):
        super().__init__()
        self.register_buffer("W", torch.zeros(d, linear_features(features)))
        self.register_buffer("centre", torch.zeros(d))

    @property
    def rows(self) -> int:
        """The number of draws that it is fitted to at most."""
        return rows_to_fit(self.W.shape[-1])

    def fit(self, z: Tensor, x: Tensor) -> LinearFit:
        """Fit to features `(samples, ...)` and parameters `(samples, d)`."""
        fit = self.fitted(z, x)
        self.W.copy_(fit.W)
        self.centre.copy_(fit.centre)
        return fit

    def fitted(self, z: Tensor, x: Tensor) -> LinearFit:
        """What `fit` would make of these, without a change."""
        count = self.W.shape[-1]
        return fit_linear(z.flatten(1)[:, :count].double() if count else None, x.double())

    def forward(self, z: Tensor) -> Tensor:
        """`(batch, ...)` -> `(batch, d)`."""
        count = self.W.shape[-1]
        return self.centre + z.flatten(1)[:, :count] @ self.W.mT if count else self.centre.expand(len(z), -1)


def degree_of(features: Features) -> int:
    """The degree of a polynomial of a vector: three, or two where there are many features; 0 where there are too many.

    It is 0 of a set, a sequence or a picture too.
    """
    m = linear_features(features) if features.kind == "vector" else 0
    return next((d for d in (3, 2) if m and math.comb(m + d, d) - 1 <= MOST_MONOMIALS), 0)


class PolynomialForm(nn.Module):
    """A polynomial of the features of a vector, of the degree that `degree_of` says.

    Of twofold features it takes the first half. Beyond the range of the training it goes on as at its edge, where a
    cubic would run away.

    Args:
        features: What it sees.
        d: The number of parameters.

    Raises:
        ValueError: If there are too many features.

    Example:
        >>> import torch, fanfold as ff
        >>> from fanfold.estimators.posterior.closed_forms import PolynomialForm
        >>> from fanfold.estimators.posterior.features import Features
        >>> PolynomialForm(Features(ff.Observation(torch.ones(2, 3)), "vector"), d=4).degree
        3
    """

    W: Tensor
    centre: Tensor
    reach: Tensor
    terms: Tensor

    def __init__(self, features: Features, d: int):
        super().__init__()
        m, self.degree = linear_features(features), degree_of(features)
        if not self.degree:
            raise ValueError(f"a polynomial of {features.shape} features has too many terms; take the linear form.")
        # entry m stands for one, so that lower degrees are products with it
        products = itertools.combinations_with_replacement(range(m + 1), self.degree)
        terms = [product for product in products if product[0] != m]
        self.register_buffer("terms", torch.tensor(terms).mT)
        self.register_buffer("W", torch.zeros(d, len(terms)))
        self.register_buffer("centre", torch.zeros(d))
        self.register_buffer("reach", torch.ones(m))

    def fit(self, z: Tensor, x: Tensor) -> Tensor:
        """Fit to features `(samples, m)` and parameters; returns the errors `(samples, d)` of draws left out."""
        z, x = z[:MOST_ROWS], x[:MOST_ROWS]
        self.reach.copy_(z[:, : len(self.reach)].abs().amax(0))
        fit = fit_linear(self._monomials(z).double(), x.double())
        self.W.copy_(fit.W)
        self.centre.copy_(fit.centre)
        return fit.left_out

    def forward(self, z: Tensor) -> Tensor:
        """`(batch, m)` -> `(batch, d)`."""
        return self.centre + self._monomials(z) @ self.W.mT

    def _monomials(self, z: Tensor) -> Tensor:
        z = torch.cat([z[:, : len(self.reach)].clamp(-self.reach, self.reach), torch.ones_like(z[:, :1])], 1)
        product = z[:, self.terms[0]]
        for factors in self.terms[1:]:
            product = product * z[:, factors]
        return product
