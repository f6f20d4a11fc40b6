"""The loops over the steps of an algorithm: all states, the last one, or few at a time to save memory."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from fanfold.algorithms.base import Algorithm, State, Theta
from fanfold.observation import Estimate, Observation


def iterates(algorithm: Algorithm, obs: Observation, thetas: Iterable[Theta]) -> Iterator[State]:
    """The state after each step. Every run, classical or learned, goes through this loop."""
    s = algorithm.start(obs)
    for theta in thetas:
        s = algorithm.step(s, obs, theta)
        yield s


def last(states: Iterator[State]) -> State:
    """The last of these states, of which there is at least one."""
    state = next(states)
    for state in states:  # noqa: B007 - only the last is wanted
        pass
    return state


def checkpointed(algorithm: Algorithm, obs: Observation, thetas: Sequence[Theta], skip: int) -> list[Estimate]:
    """The estimates after the first `skip` steps, with a backward pass that takes the steps again.

    All that is kept is the state before each stretch of `T^(2/3)` steps; going back through one keeps the state before
    each of its stretches of `T^(1/3)` steps, and going back through one of these keeps these few steps. Two more
    forward passes buy the memory of about `T^(1/3)` steps and twice as many states.
    Chen, Xu, Zhang & Guestrin (2016), sections 4.2 and 4.4.
    """
    few = max(2, round(len(thetas) ** (1 / 3)))
    start = algorithm.start(obs)
    unread = unread_fields(algorithm, start, obs, thetas[0])

    def stretch(first: int, last: int, length: int, *fields: Any) -> tuple[State, list[Estimate]]:
        s, estimates = type(start)(*fields), []
        for t in range(first, last, length):
            if length > 1:  # fields by themselves: checkpointing lets go of tensors that it is given, and of no tuples
                inner = (t, min(t + length, last), length // few, *s)
                s, more = recompute(stretch, *inner, use_reentrant=False, preserve_rng_state=False)
                estimates += more
            else:
                s = algorithm.step(s, obs, thetas[t])
                estimates += [algorithm.read(s)] if t >= skip else []
                s = s._replace(**{name: s._asdict()[name].detach() for name in unread})
        return s, estimates

    return stretch(0, len(thetas), few**2, *start)[1]


def unread_fields(algorithm: Algorithm, s: State, obs: Observation, theta: Theta) -> list[str]:
    """The fields of a state that only `read` looks at: the backward pass never reaches them to release their past."""
    tensors = {
        k: v for k, v in s._asdict().items() if isinstance(v, Tensor) and (v.is_floating_point() or v.is_complex())
    }
    inputs = {k: v.detach().requires_grad_() for k, v in tensors.items()}
    fixed = Theta(**{k: v.detach() for k, v in vars(theta).items()})
    after = [v for v in algorithm.step(s._replace(**inputs), obs, fixed) if isinstance(v, Tensor) and v.requires_grad]
    slopes = torch.autograd.grad(after, [*inputs.values()], [torch.ones_like(v) for v in after], allow_unused=True)
    return [name for name, slope in zip(inputs, slopes) if slope is None]
