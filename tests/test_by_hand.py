"""Yardsticks of costs: they do the work that they stand for, and are timed in turn with what they measure."""

import pytest
import torch

from fanfold.algorithms import ISTA
from fanfold.experiments import by_hand
from fanfold.experiments.by_hand import Cost, UnfoldedISTA, around, in_turn, kronecker_products
from fanfold.linops import Kronecker
from fanfold.problems import CompressedSensing
from fanfold.unfolding.unfold import iterate


def test_products_with_the_factors_are_those_of_the_operator(generator):
    factors = [torch.randn(m, n, dtype=torch.complex64, generator=generator) for m, n in ((2, 3), (4, 5), (3, 2))]
    A, x = Kronecker(*factors), torch.randn(6, 30, dtype=torch.complex64, generator=generator)
    torch.testing.assert_close(kronecker_products(factors, x), A.H @ (A @ x))


def test_unfolded_ista_by_hand_is_ista():
    problem = CompressedSensing(n=40, m=20, seed=0)
    _, obs = problem.sample(5, torch.Generator().manual_seed(0))
    net, step = UnfoldedISTA(problem.A.matrix(), 7), problem.A.norm() ** -2
    with torch.no_grad():
        net.step.fill_(step)
        net.threshold.fill_(0.1 * step)
        torch.testing.assert_close(net(obs.y), iterate(ISTA(0.1), 7)(obs).x)


def test_both_are_timed_in_turn_and_a_training_between_two_shares_of_the_other():
    calls: list[object] = []
    in_turn(lambda: calls.append("ours"), lambda: calls.append("hand"), 4)
    assert calls == ["ours", "hand"] * 7  # three to warm up
    calls.clear()
    around(lambda: calls.append("ours"), calls.append, 150)
    assert calls == [2, 15, "ours", 15]


def test_a_machine_half_as_fast_gives_the_same_ratio(monkeypatch):
    """On a clock that counts work: what each call adds is its cost, times how slow the machine is."""
    clock = [0.0]
    monkeypatch.setattr(by_hand.time, "process_time", lambda: clock[0])
    for slowness in (1.0, 2.2):

        def work(amount: float, slowness: float = slowness) -> None:
            clock[0] += amount * slowness

        assert in_turn(lambda: work(6.0), lambda: work(2.0), 5).ratio == pytest.approx(3.0)
        assert around(lambda: work(300.0), work, 150).ratio == pytest.approx(2.0)


@pytest.mark.parametrize("train", [by_hand.ista_training(torch.eye(4), 2, 3), by_hand.perceptron_training(4, 3)])
def test_trainings_by_hand_run(train):
    cost = around(lambda: train(1), train, 2)
    assert isinstance(cost, Cost)
