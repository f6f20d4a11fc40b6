"""Draws that a training leaves in its run, for whoever judges the network where its problem cannot draw."""

from fanfold.core.abilities import offers
from fanfold.core.streams import Stream
from fanfold.estimators.base import CrossValidated
from fanfold.problems.draws import draw
from fanfold.problems.protocols import Stored
from fanfold.runs.directory import Run
from fanfold.runs.draws import drawn, has_draws, most_kept, write_draws
from fanfold.runs.needs import needs_of
from fanfold.runs.outline import Outline
from fanfold.training.trainer import Trainer

KEPT_SHARE, LEAST_KEPT = 5, 20  # a fifth as many draws are kept as were learned of, and no fewer than this


def keep_draws(run: Run, trainer: Trainer) -> None:
    """Keep draws to judge the network on, where the run alone does not suffice to make some.

    Of what is costly to draw, programs and simulators of the user's own, the draws of the training itself are kept,
    those that it holds out. Where it learns of all, since members leave out some each, as many as a fifth of them are
    drawn anew: what was learned of would make intervals too narrow.
    """
    needs, problem = needs_of(run.section("problem")), trainer.problem
    if needs.nothing or has_draws(run.path):
        return
    if (needs.commands or needs.given) and not offers(problem, Stored):
        x, obs = trainer.validation
        test = x.cpu(), obs.to("cpu")
        if trainer.pool is not None and offers(trainer.estimator, CrossValidated):
            count = min(most_kept(x, obs), max(LEAST_KEPT, len(x) // KEPT_SHARE))
            test = draw(problem.held_out(), count, trainer.training.seed, Stream.TESTING, 0)
        train = test if trainer.prepared_with is None else trainer.prepared_with
    else:
        train, test = drawn(problem, Outline(run.section("outline"), problem.A))
    write_draws(run.path, train, test, problem.A)
