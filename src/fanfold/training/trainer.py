"""The state of a training and its steps, in one file, as all of the state is kept and brought back together."""

import math
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fanfold.core.abilities import ability, offers, require
from fanfold.core.data_files import understanding
from fanfold.core.machine import World
from fanfold.core.streams import Stream, chance_of
from fanfold.estimators.base import (
    Concluding,
    Conclusion,
    CrossValidated,
    Grouped,
    Layered,
    LearnsByChance,
    Lessons,
    Preparable,
    SelfTaught,
    fingerprint_of,
)
from fanfold.observation import Observation
from fanfold.problems import Problem
from fanfold.problems.draws import Pool, draw
from fanfold.problems.protocols import KeepsValidation, OfConditions, SaysReading, Stored
from fanfold.runs.weights import facts_of, load_parameters, parameters_of, write_tensors
from fanfold.training import checkpoint
from fanfold.training.best import Best, MeanWeights
from fanfold.training.events import Ending, Event, Finished, Started, Stepped, Validated, advice_on
from fanfold.training.objective import LossTerms, Objective
from fanfold.training.optimisers import Muon
from fanfold.training.schedule import Stage, stages
from fanfold.training.settings import Training

PREPARATION_DRAWS = 4000  # draws that an estimator is standardised with
CONCLUSION_DRAWS = 10_000  # likewise, for what it learns at the end
SKIPS_TO_DIVERGE = 100  # steps in a row whose loss or gradient is not finite


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
        self.objective = Objective(estimator, training, world, ability(problem, OfConditions))
        network = ability(estimator, Layered)
        if training.schedule == "layer-by-layer":
            require(estimator, Layered, "schedule='layer-by-layer'", "Take end-to-end.")
        self.step = self.skipped = self.skips_in_a_row = 0
        self.restored = False
        self.prepared_with: tuple[Tensor, Observation] | None = None  # draws to learn from in closed form
        self.best, self.mean = Best(estimator, self.objective), MeanWeights(estimator, training.averaging)
        learner = ability(estimator, LearnsByChance)
        self.by_chance = learner is not None and learner.by_chance
        self.pool = self._pool()
        self.lessons = self._lessons()
        terms = () if self.lessons is None else self.lessons.terms
        self.stages = stages(training, 1 if network is None else network.layers, terms)
        self.terms: nn.Module = LossTerms(estimator)
        if world.size > 1:
            # a shallow stage leaves parameters out, and buffers are the same everywhere since `prepare`
            self.terms = DistributedDataParallel(self.terms, broadcast_buffers=False, find_unused_parameters=True)
        x, obs = self._held_out()
        self.validation = (x.to(device), obs.to(device))
        self.optimiser = self._new_optimiser()

    def _pool(self) -> Pool | None:
        """Pairs that are drawn once. Of stored ones an end-to-end estimator takes all: it validates on some of them."""
        count = self.training.simulations
        stored = ability(self.problem, Stored)
        if not count and self.objective.self_judged and stored is not None:
            count = len(stored.every()[0])
        crossed = offers(self.estimator, CrossValidated)
        return Pool(self.problem, count, self.training.seed, all_train=crossed) if count else None

    def _lessons(self) -> Lessons | None:
        """The course that the estimator is taught by, where the schedule is that.

        Raises:
            ValueError: If the estimator knows none, or several processes were to share it.
        """
        if self.training.schedule != "lessons":
            return None
        if self.world.size > 1:
            raise ValueError("lessons are taught by one process; start it without torchrun, or take another schedule.")
        instead = "Take end-to-end or layer-by-layer."
        taught = require(self.estimator, SelfTaught, "schedule='lessons'", instead)
        return taught.lessons(self._draw, self.training.steps, self.training.batch, self.training.seed)

    def _held_out(self) -> tuple[Tensor, Observation]:
        if self.pool:
            return self.pool.part(held_out=True)
        keeper = ability(self.problem, KeepsValidation)  # of stored draws some that are not for testing
        kept = self.problem.held_out() if keeper is None else keeper.validation()
        return draw(kept, self.training.validation_samples, self.training.seed, Stream.VALIDATION, 0)

    def events(self) -> Iterator[Event]:
        """Train from the present step to the end."""
        began, reason = time.perf_counter(), self._ending()  # a run that came to its end takes no step more
        parameters = sum(p.numel() for p in self.estimator.parameters())
        reader = ability(self.problem, SaysReading)
        if reader is not None and reader.doubt is not None:
            warnings.warn(reader.doubt, stacklevel=3)
        reading = "" if reader is None else reader.reading or ""
        yield Started(self.step, self.training.steps, parameters, self.training.threads, self.world.size, reading)
        if not self.restored:
            self._prepare()
            self.best.begin()
            self.mean.begin()
            yield self._validate(None)  # so that what comes back is never worse than what came in
            self.prepared_with = None
            self._save_checkpoint()
        for stage in self.stages:
            if self.step == stage.first and reason == "steps":
                self._begin(stage)
            while stage.first <= self.step < stage.last and reason == "steps":
                stepped = self._step(stage)
                yield stepped
                self.skips_in_a_row = self.skips_in_a_row + 1 if stepped.skipped else 0
                ends = self.step == stage.last or self._ending() == "diverged"
                if self.step % self.training.validate_every == 0 or ends:
                    yield self._validate(stage)
                    self._save_checkpoint()
                reason = self._ending()
        best = self.best
        load_parameters(self.estimator, best.weights)
        conclusion = self._conclude()
        self._save_weights()
        loss = best.score if self.objective.scored_by_loss else None
        advice = advice_on(reason, self.step, self.skipped, best.step, judged=math.isfinite(best.score))
        verdict = None if conclusion is None else conclusion.sentence
        seconds = time.perf_counter() - began
        yield Finished(self.step, reason, best.nmse_db, self.skipped, seconds, loss, best.step, advice, verdict)

    def _conclude(self) -> Conclusion | None:
        """Let an estimator that learns something in closed form at the end do so, from the pairs it was trained on."""
        learner = ability(self.estimator, Concluding)
        if learner is None:
            return None
        x, obs = self._all_draws(CONCLUSION_DRAWS, 1)
        conclusion = learner.conclude(x.to(self.device), obs.to(self.device))
        self._agree()
        self.best.nmse_db = conclusion.nmse_db
        return conclusion

    @torch.no_grad()
    def _begin(self, stage: Stage) -> None:
        """Start a stage with a new optimiser; a course of lessons keeps its own through all terms."""
        if not stage.term:
            self.optimiser = self._new_optimiser()
        if self.lessons is not None and stage.term is not None:
            self.lessons.begin(stage.term)

    def _ending(self) -> Ending:
        if self.skips_in_a_row >= SKIPS_TO_DIVERGE:
            return "diverged"
        return "patience" if 0 < self.training.patience <= self.best.stale else "steps"

    def _prepare(self) -> None:
        """Let an estimator that learns something in closed form do so, from the pairs that it may train on."""
        learner = ability(self.estimator, Preparable)
        if learner is None:
            return
        x, obs = self._all_draws(PREPARATION_DRAWS, 0)
        self.prepared_with = x, obs
        with torch.no_grad():
            learner.prepare(x.to(self.device), obs.to(self.device))
        self._agree()

    def _agree(self) -> None:
        """Take what the first process learned in closed form: eigenvectors of another machine may differ in sign."""
        if self.world.size > 1:
            load_parameters(self.estimator, self.world.of_first(parameters_of(self.estimator)))

    def _all_draws(self, count: int, index: int) -> tuple[Tensor, Observation]:
        """All pairs that may be trained on, or so many fresh ones."""
        if self.pool:
            return self.pool.part(held_out=False)
        return draw(self.problem, count, self.training.seed, Stream.PREPARATION, index)

    def _draw(self, count: int, index: int) -> tuple[Tensor, Observation]:
        """So many draws to train on, of all processes together; this process gets its share of them."""
        if self.pool:
            x, obs = self.pool.batch(count, index)
        else:
            x, obs = draw(self.problem, count, self.training.seed, Stream.TRAINING, index)
        rows = self.world.share(len(x))
        return x[rows].to(self.device), obs[rows].to(self.device)

    def _loss(self, stage: Stage) -> Tensor:
        if self.lessons is not None:
            return self.lessons.loss(self.step)
        x, obs = self._draw(self.training.batch * self.world.size, self.step)
        return self.objective.loss(self.terms(obs, stage.depth, self.training.loss_layers, x), x)

    def _step(self, stage: Stage) -> Stepped:
        training, rate = self.training, stage.rate(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        with chance_of(training.seed, Stream.DROPOUT, self.step) if self.by_chance else nullcontext():
            loss = self._loss(stage)
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
                group["lr"] = group["full_lr"] * rate
            frozen = self._frozen(stage)
            self.optimiser.step()
            with torch.no_grad():  # weight decay moves what has no gradient too
                for p, kept in frozen:
                    p[: len(kept)] = kept
            self.mean.add(self.step)
        self.step += 1
        return Stepped(self.step, value, gradient_norm, training.lr * rate, skip)

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
        grouped = ability(estimator, Grouped)
        alike: list[dict[str, Any]] = [{"params": [*estimator.parameters()], "lr": lr}]
        groups = alike if grouped is None else grouped.parameter_groups(lr)
        for group in groups:
            group["full_lr"] = group["lr"]
            scale: float = group.pop("decay_scale", 1.0)
            group["weight_decay"] = self.training.weight_decay * scale
        if self.training.optimiser == "adam":
            return torch.optim.AdamW(groups, weight_decay=self.training.weight_decay)
        if not any(group.get("matrices") for group in groups):
            raise ValueError(
                f"optimiser='muon' moves matrices, and {type(estimator).__name__} offers none; take optimiser='adam'."
            )
        return Muon(groups, weight_decay=self.training.weight_decay)

    @torch.no_grad()
    def _validate(self, stage: Stage | None) -> Validated:
        """Judge the network as it is; what counts is a whole one, untrained or in the last stages of a schedule."""
        x, obs = self.validation
        final = self.stages[-1]
        whole = stage is None or (stage.depth, stage.term) == (final.depth, final.term)
        with self.mean.in_place():
            return self.best.judge(x, obs, self.step, stage.depth if stage else 0, whole=whole)

    def _save_checkpoint(self) -> None:
        if self.path is None or not self.world.leads:
            return
        tensors = {f"model/{k}": t for k, t in parameters_of(self.estimator).items()}
        tensors |= {f"best/{k}": t for k, t in self.best.weights.items()}
        tensors |= {f"mean/{k}": t for k, t in self.mean.weights.items()}
        if self.best.scores is not None:
            tensors["scores/best"] = self.best.scores
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{index}/{k}": t for k, t in state.items()}
        if self.lessons is not None:
            tensors |= {f"lessons/{k}": t for k, t in self.lessons.state().items()}
        facts = {
            "step": self.step,
            "skipped": self.skipped,
            "skips_in_a_row": self.skips_in_a_row,
            "operator": fingerprint_of(self.estimator),
        } | self.best.facts()
        write_tensors(self.path / checkpoint.FILE, tensors, facts)

    def _save_weights(self) -> None:
        if self.path is not None and self.world.leads:
            metadata = facts_of(self.estimator) | {"nmse_db": self.best.nmse_db}
            write_tensors(self.path / "weights.safetensors", parameters_of(self.estimator), metadata)

    def resume(self) -> None:
        """Go back to the state of the checkpoint; where a run stopped before its first one, begin as if anew.

        Raises:
            ValueError: If the checkpoint is damaged or of another network.
        """
        assert self.path is not None
        file = self.path / checkpoint.FILE
        if not os.path.lexists(file):
            return
        saved = checkpoint.read_checkpoint(file, fingerprint_of(self.estimator))
        with understanding(file, "a checkpoint of this training", checkpoint.REMEDY):
            if saved.mean.keys() != self.mean.weights.keys():
                raise ValueError("it has the mean of other weights")
            self.mean.weights = {name: t.to(self.device) for name, t in saved.mean.items()}
            scores = {name: t.to(self.device) for name, t in saved.scores.items()}
            self.best.restore(saved.best, scores.get("best"), saved.facts)
            load_parameters(self.estimator, saved.model)
            self.step, self.skipped = saved.facts["step"], saved.facts["skipped"]
            self.skips_in_a_row = saved.facts["skips_in_a_row"]
            if self.lessons is not None:
                self.lessons.restore(self.step, saved.lessons)
            self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": saved.optimiser})
        self.restored = True
