"""The state of a training and its steps: settings, events, stages and the trainer, long as they change together."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fanfold.core.machine import World
from fanfold.core.streams import Stream
from fanfold.core.units import nmse_db, power
from fanfold.observation import Observation
from fanfold.problems import Problem
from fanfold.problems.draws import Pool, draw
from fanfold.runs.directory import check_operator, load_parameters, parameters_of, read_tensors, write_tensors
from fanfold.unfolding.unfold import Unfolded


@dataclass(frozen=True)
class Training:
    """How to train. Adam; in each stage the learning rate falls along a cosine to zero.

    Raises:
        ValueError: If a number is out of range.
    """

    steps: int = 400  # optimiser steps, in all
    batch: int = 64  # fresh draws a step, for each process
    lr: float = 1e-3  # learning rate, times the lr_scale of each quantity
    schedule: Literal["end-to-end", "layer-by-layer"] = "end-to-end"  # all layers at once, or one more each stage
    refine: float = 0.2  # layer-by-layer: factor on lr when a new layer's predecessors move with it
    nmse_over: Literal["batch", "sample"] = "batch"  # log10 of the batch's NMSE, or the mean of that of each sample
    loss_layers: int = 1  # the loss is summed over that many last layers
    clip: float = 1.0  # largest norm of the gradient
    weight_decay: float = 0.0  # pull of the deviations towards zero, the algorithm
    validate_every: int = 50  # steps between validations, each of which saves a checkpoint
    validation_samples: int = 500  # held-out draws
    simulations: int = 0  # draw so many pairs once, a tenth of them held out; 0 draws fresh ones each step
    patience: int = 0  # validations without a better one before training stops; 0 never stops
    seed: int = 0  # of the draws
    threads: int = 0  # of torch; 0 takes the cores that other programs leave idle

    def __post_init__(self):
        for name in ("steps", "batch", "lr", "refine", "loss_layers", "clip", "validate_every", "validation_samples"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; pass a positive, finite number.")
        if min(self.weight_decay, self.patience, self.threads, self.simulations) < 0:
            raise ValueError("weight_decay, patience, threads and simulations are not negative.")


@dataclass(frozen=True)
class Started:
    """Training begins, at `step` if it is resumed."""

    step: int
    steps: int
    parameters: int
    threads: int
    processes: int


@dataclass(frozen=True)
class Stepped:
    """One optimiser step; `skipped` if the loss or its gradient was not finite."""

    step: int
    loss: float
    gradient_norm: float
    lr: float
    skipped: bool


@dataclass(frozen=True)
class Validated:
    """NMSE on held-out draws, of the network cut to `depth` layers (0: whole); the mean of dBs if that is the loss.

    `loss` is the mean loss there of an estimator with losses of its own, and then decides which one is the best.
    """

    step: int
    depth: int
    nmse_db: float
    best: bool
    loss: float | None = None


@dataclass(frozen=True)
class Finished:
    """Training ends: "steps" were taken, "patience" ran out, or it "diverged" (100 skipped steps in a row)."""

    step: int
    reason: Literal["steps", "patience", "diverged"]
    nmse_db: float
    skipped: int
    seconds: float
    loss: float | None = None


Event = Started | Stepped | Validated | Finished


@dataclass(frozen=True)
class Stage:
    """Steps `first … last - 1`, with the network cut to `depth` layers (0: whole)."""

    first: int
    last: int
    depth: int
    newest_only: bool
    lr_factor: float


def stages(training: Training, layers: int) -> list[Stage]:
    """The stages of a schedule: one, or two for each layer (the new layer alone, then all up to it)."""
    if training.schedule == "end-to-end":
        return [Stage(0, training.steps, 0, newest_only=False, lr_factor=1.0)]
    edges = np.linspace(0, training.steps, 2 * layers + 1).round().astype(int)
    return [
        Stage(int(a), int(b), i // 2 + 1, newest_only=i % 2 == 0, lr_factor=1.0 if i % 2 == 0 else training.refine)
        for i, (a, b) in enumerate(itertools.pairwise(edges))
        if b > a
    ]


PREPARATION = 4000  # draws that an estimator is standardised with


def own_losses(estimator: nn.Module) -> Callable[[Observation, Tensor], Tensor] | None:
    """`losses` of an estimator that says itself what to minimise: one for each sample, `(batch,)`; else None."""
    return getattr(estimator, "losses", None)  # type: ignore[return-value]


class Layers(nn.Module):
    """What the loss sees, in a form that can be distributed.

    The latest estimates of the first `depth` layers or, of an estimator with losses of its own and given x, these.
    """

    def __init__(self, estimator: nn.Module):
        super().__init__()
        self.estimator = estimator

    def forward(self, obs: Observation, depth: int, latest: int = 1, x: Tensor | None = None) -> tuple[Tensor, ...]:
        losses = own_losses(self.estimator)
        if x is not None and losses is not None:
            return (losses(obs, x),)
        if isinstance(self.estimator, Unfolded):
            return tuple(e.x for e in self.estimator.trajectory(obs, depth or None, latest))
        return (self.estimator(obs).x,)


def log_ratios(x_hat: Tensor, x: Tensor) -> Tensor:
    """`log10` of the NMSE of each sample, never below rounding; a sample without a signal is held against the mean."""
    error, signal = power(x_hat - x).sum(-1).flatten(), power(x).sum(-1).flatten()
    rounding = torch.finfo(signal.dtype).eps ** 2
    signal = torch.where(signal > 0, signal, signal.mean())
    return torch.log10(error / signal + rounding)


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they are now."""
    return {name: t.detach().clone() for name, t in tensors.items()}


class Trainer:
    """The state of a training, and its steps."""

    def __init__(
        self,
        estimator: nn.Module,
        problem: Problem,
        training: Training,
        device: torch.device,
        world: World,
        path: Path | None,
    ):
        self.estimator, self.problem, self.training = estimator, problem, training
        self.device, self.world, self.path = device, world, path
        self.stages = stages(training, getattr(estimator, "layers", 1))
        self.step = self.skipped = self.stale = 0
        self.best, self.best_nmse_db, self.best_score = copies(parameters_of(estimator)), math.inf, math.inf
        self.has_losses = own_losses(estimator) is not None
        every = getattr(problem, "every", None)
        # of stored pairs an end-to-end estimator validates on some of those to train on: the others are for tests
        count = training.simulations or (len(every()[0]) if every is not None and self.has_losses else 0)
        self.pool = Pool(problem, count, training.seed) if count else None
        self.layers: nn.Module = Layers(estimator)
        if world.size > 1:
            # a shallow stage leaves parameters out, and buffers are the same everywhere since `prepare`
            self.layers = DistributedDataParallel(self.layers, broadcast_buffers=False, find_unused_parameters=True)
        if self.pool:
            x, obs = self.pool.part(held_out=True)
        else:
            kept = getattr(problem, "validation", problem.held_out)()  # of stored draws some that are not for testing
            x, obs = draw(kept, training.validation_samples, training.seed, Stream.VALIDATION, 0)
        self.validation = (x.to(device), obs.to(device))
        self.optimiser = self._new_optimiser()

    def events(self) -> Iterator[Event]:
        """Train from the present step to the end."""
        began, in_a_row, reason = time.perf_counter(), 0, "steps"
        parameters = sum(p.numel() for p in self.estimator.parameters())
        yield Started(self.step, self.training.steps, parameters, self.training.threads, self.world.size)
        if self.step == 0:
            self._prepare()
            yield self._validate(0)  # so that what comes back is never worse than what came in
            self._save_checkpoint()
        for stage in self.stages:
            if self.step == stage.first:
                self.optimiser = self._new_optimiser()
            while stage.first <= self.step < stage.last:
                stepped = self._step(stage)
                yield stepped
                in_a_row = in_a_row + 1 if stepped.skipped else 0
                if self.step % self.training.validate_every == 0 or self.step == stage.last or in_a_row == 100:
                    yield self._validate(stage.depth)
                    self._save_checkpoint()
                if in_a_row == 100:
                    reason = "diverged"
                elif 0 < self.training.patience <= self.stale:
                    reason = "patience"
                if reason != "steps":
                    break
        load_parameters(self.estimator, self.best)
        self._save_weights()
        loss = self.best_score if self.has_losses else None
        yield Finished(self.step, reason, self.best_nmse_db, self.skipped, time.perf_counter() - began, loss)  # type: ignore[arg-type]

    def _prepare(self) -> None:
        """Let an estimator that learns something in closed form do so, from the pairs that it may train on."""
        prepare = getattr(self.estimator, "prepare", None)
        if prepare is None:
            return
        if self.pool:
            x, obs = self.pool.part(held_out=False)
        else:
            x, obs = draw(self.problem, PREPARATION, self.training.seed, Stream.PREPARATION, 0)
        with torch.no_grad():
            prepare(x.to(self.device), obs.to(self.device))
        if self.world.size > 1:  # eigenvectors of another machine may have another sign
            load_parameters(self.estimator, self.world.of_first(parameters_of(self.estimator)))

    def _draw(self) -> tuple[Tensor, Observation]:
        training, size = self.training, self.training.batch * self.world.size
        if self.pool:
            return self.pool.batch(size, self.step)
        return draw(self.problem, size, training.seed, Stream.TRAINING, self.step)

    def _step(self, stage: Stage) -> Stepped:
        training, world = self.training, self.world
        x, obs = self._draw()
        rows = world.share(len(x))
        x, obs = x[rows].to(self.device), obs[rows].to(self.device)
        lr_factor = stage.lr_factor * self._cosine(stage)
        self.optimiser.zero_grad(set_to_none=True)
        seen = self.layers(obs, stage.depth, training.loss_layers, x)
        if self.has_losses:
            loss = world.sum(seen[0].sum()) / (len(x) * world.size)
        else:
            loss = sum((self._loss(e, x) for e in seen), torch.zeros((), device=self.device))
        loss.backward()
        if stage.newest_only:
            self._freeze_before(stage.depth)
        norm = nn.utils.clip_grad_norm_(self.estimator.parameters(), training.clip)
        value, gradient_norm = loss.item(), norm.item()
        skip = not (math.isfinite(value) and math.isfinite(gradient_norm))
        if skip:
            self.skipped += 1
        else:
            for group in self.optimiser.param_groups:
                group["lr"] = group["full_lr"] * lr_factor
            frozen = self._frozen(stage)
            self.optimiser.step()
            with torch.no_grad():  # weight decay moves what has no gradient too
                for p, kept in frozen:
                    p[: len(kept)] = kept
        self.step += 1
        return Stepped(self.step, value, gradient_norm, training.lr * lr_factor, skip)

    def _loss(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """In units of 10 dB."""
        if self.training.nmse_over == "batch":
            return torch.log10(self.world.sum(power(x_hat - x).sum()) / self.world.sum(power(x).sum()))
        logs = log_ratios(x_hat, x)
        return self.world.sum(logs.sum()) / (len(logs) * self.world.size)

    def _cosine(self, stage: Stage) -> float:
        return 0.5 * (1 + math.cos(math.pi * (self.step - stage.first) / (stage.last - stage.first)))

    def _frozen(self, stage: Stage) -> list[tuple[Tensor, Tensor]]:
        """The layers that a stage must not move, as they are: those before the newest, if it is trained alone."""
        if not stage.newest_only:
            return []
        return [(p, p[: stage.depth - 1].detach().clone()) for p in self.estimator.parameters() if p.shape[0] > 1]

    def _freeze_before(self, depth: int) -> None:
        """No gradient for the layers before the newest; those after it have none. Tied quantities move on."""
        for p in self.estimator.parameters():
            if p.grad is not None and p.shape[0] > 1:
                p.grad[: depth - 1] = 0

    def _new_optimiser(self) -> torch.optim.Optimizer:
        lr, estimator = self.training.lr, self.estimator
        own = getattr(estimator, "parameter_groups", None)  # of an estimator whose quantities learn at their own rates
        groups = own(lr) if own is not None else [{"params": [*estimator.parameters()], "lr": lr}]
        for group in groups:
            group["full_lr"] = group["lr"]
        return torch.optim.AdamW(groups, weight_decay=self.training.weight_decay)

    @torch.no_grad()
    def _validate(self, depth: int) -> Validated:
        x, obs = self.validation
        x_hat = Layers(self.estimator)(obs, depth)[-1]
        value = nmse_db(x_hat, x) if self.training.nmse_over == "batch" else 10 * log_ratios(x_hat, x).mean().item()
        losses = getattr(self.estimator, "held_out_losses", own_losses(self.estimator))  # what decides, if another
        loss = None if losses is None else losses(obs, x).mean().item()
        score = value if loss is None else loss
        whole = depth in (0, self.stages[-1].depth)
        better = whole and score < self.best_score
        if better:
            self.best = copies(parameters_of(self.estimator))
            self.best_nmse_db, self.best_score = value, score
        self.stale = 0 if better or not whole else self.stale + 1
        return Validated(self.step, depth, value, better, loss)

    def _save_checkpoint(self) -> None:
        if self.path is None or not self.world.leads:
            return
        tensors = {f"model/{k}": t for k, t in parameters_of(self.estimator).items()}
        tensors |= {f"best/{k}": t for k, t in self.best.items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{index}/{k}": t for k, t in state.items()}
        keep = ("step", "skipped", "stale", "best_nmse_db", "best_score")
        facts = {k: getattr(self, k) for k in keep} | {"operator": getattr(self.estimator, "fingerprint", None)}
        write_tensors(self.path / "checkpoint.safetensors", tensors, facts)

    def _save_weights(self) -> None:
        if self.path is not None and self.world.leads:
            metadata = {"operator": getattr(self.estimator, "fingerprint", None), "nmse_db": self.best_nmse_db}
            write_tensors(self.path / "weights.safetensors", parameters_of(self.estimator), metadata)

    def restore(self) -> None:
        """Go back to the state of the checkpoint.

        Raises:
            ValueError: If the checkpoint is missing, damaged or of another network.
        """
        assert self.path is not None
        tensors, metadata = read_tensors(
            self.path / "checkpoint.safetensors", "The run stopped before its first one: start it anew."
        )
        check_operator(metadata, getattr(self.estimator, "fingerprint", None), self.path)
        del metadata["operator"]
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimiser": {}}
        for name, t in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = t
        load_parameters(self.estimator, parts["best"])
        self.best = copies(parameters_of(self.estimator))
        load_parameters(self.estimator, parts["model"])
        for name, value in metadata.items():
            setattr(self, name, value)
        state: dict[int, dict[str, Tensor]] = {}
        own = [p for group in self.optimiser.param_groups for p in group["params"]]
        for name, t in parts["optimiser"].items():
            index, key = name.split("/")
            is_pair = own[int(index)].is_complex() and key != "step"
            state.setdefault(int(index), {})[key] = torch.view_as_complex(t) if is_pair else t
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": state})
