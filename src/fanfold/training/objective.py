"""What training minimises: an estimator's own losses, or the logarithm of the NMSE of its last layers."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fanfold.core.abilities import ability
from fanfold.core.machine import World
from fanfold.core.units import nmse_db, power
from fanfold.estimators.base import HeldOutJudged, Layered, SelfJudged
from fanfold.observation import Observation
from fanfold.problems.protocols import OfConditions
from fanfold.training.settings import Training


class HeldOut(NamedTuple):
    """How good a network is on held-out draws.

    Attributes:
        nmse_db: The NMSE in dB, over what the training has it.
        loss: The mean of its own losses, or of the user's, where these choose the best weights.
        each: Of each sample the error over the mean power of the signals, and the logarithm of the NMSE,
            `(2, samples)`; None where a loss decides.

    Example:
        >>> import torch
        >>> from fanfold.training.objective import HeldOut
        >>> HeldOut(-20.0, None, torch.zeros(2, 4)).loss is None
        True
    """

    nmse_db: float
    loss: float | None
    each: Tensor | None


class LossTerms(nn.Module):
    """What the loss is made of, in a form that can be distributed.

    The losses of an estimator that judges itself, given x; else the latest estimates of the first `depth` layers.
    """

    def __init__(self, estimator: nn.Module):
        super().__init__()
        self.estimator = estimator
        self._abilities = ability(estimator, SelfJudged), ability(estimator, Layered)  # asked once, not at every step

    def forward(self, obs: Observation, depth: int, latest: int = 1, x: Tensor | None = None) -> tuple[Tensor, ...]:
        judge, network = self._abilities
        if x is not None and judge is not None:
            return (judge.losses(obs, x),)
        if network is not None:
            return tuple(e.x for e in network.trajectory(obs, depth or None, latest))
        return (self.estimator(obs).x,)


class Objective:
    """The loss of a batch, over all processes, and the score of held-out draws."""

    def __init__(self, estimator: nn.Module, training: Training, world: World, conditions: OfConditions | None = None):
        self.estimator, self.training, self.world, self.conditions = estimator, training, world, conditions
        if training.nmse_over == "condition" and (conditions is None or training.simulations):
            raise ValueError(
                "nmse_over='condition' takes a problem of several conditions, such as ff.problems.Broad, and fresh "
                "draws at each step, simulations=0; pass 'sample' or 'batch'."
            )
        self.self_judged = ability(estimator, SelfJudged) is not None
        if training.loss is not None and (self.self_judged or training.schedule == "lessons"):
            raise ValueError(
                f"{type(estimator).__name__} says itself what to minimise, so fit takes no loss; where it has a "
                "setting for one, make it with that: ff.neural(problem, loss=...)."
            )

    @property
    def scored_by_loss(self) -> bool:
        """Whether a loss, and not the NMSE, chooses the best weights."""
        return self.self_judged or self.training.loss is not None

    def loss(self, terms: tuple[Tensor, ...], x: Tensor) -> Tensor:
        """The loss of a batch: the mean of an estimator's own losses, or the sum over layers, of NMSEs in 10 dB."""
        if self.self_judged:
            return self.world.sum(terms[0].sum()) / (len(x) * self.world.size)
        if self.training.loss is not None:
            losses = [self.world.sum(self._given(x_hat, x)) / self.world.size for x_hat in terms]
            return torch.stack(losses).sum()
        return sum((self._log_nmse(x_hat, x) for x_hat in terms), torch.zeros((), device=x.device))

    def _given(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """The mean of the user's loss over a batch.

        Raises:
            ValueError: If it is no number, nor one for each sample.
        """
        assert self.training.loss is not None
        value = self.training.loss(x_hat, x)
        fits = isinstance(value, Tensor) and not value.is_complex() and tuple(value.shape) in ((), (len(x),))
        if not fits:
            got = f"shape {tuple(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"the loss gave {got} for x_hat and x of shape {tuple(x.shape)}; return a tensor of real numbers, one "
                f"for each sample ({len(x)},) or one for all."
            )
        if torch.is_grad_enabled() and not value.requires_grad:
            raise ValueError("the loss has no gradient: compute it of x_hat by functions of torch, without detach.")
        return value.mean()

    def _log_nmse(self, x_hat: Tensor, x: Tensor) -> Tensor:
        if self.training.nmse_over == "batch":
            return torch.log10(self.world.sum(power(x_hat - x).sum()) / self.world.sum(power(x).sum()))
        if self.training.nmse_over == "condition":
            total = len(x) * self.world.size
            return self._over_conditions(x_hat, x, total, self.world.share(total))
        logs = log_ratios(x_hat, x)
        return self.world.sum(logs.sum()) / (len(logs) * self.world.size)

    def _over_conditions(self, x_hat: Tensor, x: Tensor, total: int, rows: slice) -> Tensor:
        """The mean of the logarithms of the NMSEs of conditions, by their importance; of those that have draws."""
        assert self.conditions is not None
        numbers, weights = self.conditions.condition_of(total)[rows].to(x.device), self.conditions.weights.to(x.device)
        zeros = weights.new_zeros(len(weights), dtype=x.real.dtype)
        error, signal = (
            self.world.sum(zeros.index_add(0, numbers, power(a).flatten(1).sum(-1))) for a in (x_hat - x, x)
        )
        drawn = signal > 0
        logs = torch.log10(error[drawn] / signal[drawn] + torch.finfo(x.real.dtype).eps ** 2)
        shares = weights[drawn].to(logs.dtype)
        return (shares * logs).sum() / shares.sum()

    def held_out(self, obs: Observation, x: Tensor, depth: int) -> HeldOut:
        """How good the network, cut to `depth`, is on held-out draws."""
        x_hat = LossTerms(self.estimator)(obs, depth)[-1]
        value = self._value(x_hat, x)
        if self.training.loss is not None:
            return HeldOut(value, self._given(x_hat, x).item(), None)
        if (judge := ability(self.estimator, HeldOutJudged)) is not None:  # what decides, if it is another
            return HeldOut(value, judge.held_out_losses(obs, x).mean().item(), None)
        if (judge := ability(self.estimator, SelfJudged)) is not None:
            return HeldOut(value, judge.losses(obs, x).mean().item(), None)
        error, signal = (power(a).sum(-1).flatten() for a in (x_hat - x, x))
        return HeldOut(value, None, torch.stack([error / signal.mean(), log_ratios(x_hat, x)]))

    def _value(self, x_hat: Tensor, x: Tensor) -> float:
        """The NMSE of held-out draws in dB, over what the training has it."""
        if self.training.nmse_over == "batch":
            return nmse_db(x_hat, x)
        if self.training.nmse_over == "condition":
            return 10 * self._over_conditions(x_hat, x, len(x), slice(None)).item()
        return 10 * log_ratios(x_hat, x).mean().item()


def log_ratios(x_hat: Tensor, x: Tensor) -> Tensor:
    """`log10` of the NMSE of each sample, never below rounding; a sample without a signal is held against the mean."""
    error, signal = power(x_hat - x).sum(-1).flatten(), power(x).sum(-1).flatten()
    rounding = torch.finfo(signal.dtype).eps ** 2
    signal = torch.where(signal > 0, signal, signal.mean())
    return torch.log10(error / signal + rounding)
