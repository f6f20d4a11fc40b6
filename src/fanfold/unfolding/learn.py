"""What may be learned of an algorithm, in words: which quantity, how shared, how fine; the deviations that follow."""

import torch
from torch import nn

from fanfold.algorithms.base import FREE, Algorithm, Nominal
from fanfold.core.suggest import did_you_mean
from fanfold.observation import Observation

SHARING, GRANULARITY = ("tied", "per-layer"), ("scalar", "vector", "matrix")


def zero_deviation(
    name: str, words: str, nominal: Nominal, algorithm: Algorithm, template: Observation, layers: int
) -> nn.Parameter:
    """The deviation of one quantity, `(layers, ...)`, or `(1, ...)` if tied, all zero.

    Raises:
        ValueError: If the words do not fit the quantity.
    """
    sharing, granularity = _parse(name, words)
    v = nominal.tensor(algorithm, template)
    A = template.A
    assert A is not None
    each_sample = A.varies and v.ndim > 0
    if each_sample:
        if v.shape[-1] != 1:
            raise ValueError(
                f"{name} of {type(algorithm).__name__} is made of A, which differs from sample to sample here; learn "
                "quantities that are numbers."
            )
        v = v[0, 0]
    natural = GRANULARITY[v.ndim]
    granularity = granularity or natural
    splits = natural == "scalar" and nominal.vector
    if granularity != natural and not (granularity == "vector" and splits):
        choice = "scalar or vector" if splits else natural
        raise ValueError(
            f"{name} of {type(algorithm).__name__} is a {natural}; learn it as {choice}, not {granularity}."
        )
    shape = (A.n,) if (granularity, natural) == ("vector", "scalar") else tuple(v.shape)
    shape = (1, *(shape or (1,))) if each_sample else shape  # one deviation for the numbers (..., 1) of all samples
    dtype = v.dtype if nominal.domain is FREE else v.dtype.to_real()
    return nn.Parameter(torch.zeros((layers if sharing == "per-layer" else 1, *shape), dtype=dtype, device=v.device))


def _parse(name: str, words: str) -> tuple[str, str | None]:
    chosen: dict[tuple[str, ...], str] = {}
    for word in words.split():
        axis = next((axis for axis in (SHARING, GRANULARITY) if word in axis), None)
        if axis is None or axis in chosen:
            raise ValueError(
                f"cannot read {words!r}, how {name} is learned: say {' or '.join(SHARING)}, and optionally "
                f"{', '.join(GRANULARITY)}, such as 'per-layer vector'.{did_you_mean(word, SHARING + GRANULARITY)}"
            )
        chosen[axis] = word
    if SHARING not in chosen:
        raise ValueError(f"{words!r} does not say how layers share {name}: {' or '.join(SHARING)}.")
    return chosen[SHARING], chosen.get(GRANULARITY)


def lookup(algorithm: Algorithm, name: str) -> Nominal:
    """The quantity of that name.

    Raises:
        ValueError: If the algorithm has none of that name.
    """
    if name not in algorithm.nominals:
        groups = (nominal.group for nominal in algorithm.nominals.values() if nominal.group is not None)
        known = list(dict.fromkeys([*algorithm.nominals, *groups]))
        raise ValueError(
            f"{type(algorithm).__name__} has no quantity {name!r}; it has {', '.join(known)}."
            f"{did_you_mean(name, known)}"
        )
    return algorithm.nominals[name]
