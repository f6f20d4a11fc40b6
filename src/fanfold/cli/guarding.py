"""The guard that a trained run leaves with: `export --guarded`."""

from collections.abc import Callable

import torch
from torch import nn

from fanfold.cli.apply import monitor_for
from fanfold.cli.console import note
from fanfold.cli.shifting import ALARM, REACHED, guard_around
from fanfold.core.abilities import ability, offers
from fanfold.core.precision import single
from fanfold.core.streams import Stream
from fanfold.core.suggest import did_you_mean
from fanfold.estimators import quantised
from fanfold.estimators.base import Costly, InWholeNumbers
from fanfold.estimators.fixed_point import as_network
from fanfold.evaluation.peers import peers_of
from fanfold.guard import Guarded
from fanfold.guard.shifts import best_peer
from fanfold.observation import Estimator, Observation
from fanfold.problems import Problem
from fanfold.problems.draws import draw, example_of
from fanfold.runs.directory import Run

FEW = 200  # draws that a baseline is chosen on


@torch.no_grad()
def guard_of_run(
    run: Run, net: nn.Module, named: str | None = None, can_leave: Callable[[Estimator], bool] = lambda peer: True
) -> Guarded:
    """The network of a run beside one of its peers, with the run's monitor where it has one.

    Beside a network in whole numbers the baseline computes in such too, where one of the peers has an integer form.

    Args:
        run: The run, which keeps the monitor.
        net: Its network.
        named: The peer that is the baseline; the one that errs least on fresh draws if None.
        can_leave: Which peers may be it.

    Raises:
        ValueError: If there is no peer, or none of that name; the run is in double precision; or neither losses can be
            compared nor is there a monitor.
    """
    problem = run.draws()
    example = example_of(problem, 2)
    if example.y.dtype != single(example.y.dtype):
        raise ValueError(f"the run is in {example.y.dtype}, and a guard leaves in single precision: train one in it.")
    every = _peers(net, problem)
    peers = {name: peer for name, peer in every.items() if can_leave(peer)}
    if every and (not peers or named in every.keys() - peers.keys()):
        raise ValueError(
            f"a release keeps iterations of registered algorithms and LMMSE as baselines; of the peers "
            f"{', '.join(every)} these are: {', '.join(peers) or 'none'}. fanfold export --guarded takes any of them."
        )
    if named is not None and named not in peers:
        raise ValueError(f"there is no peer {named!r}; there are {', '.join(peers)}.{did_you_mean(named, peers)}")
    name = named or best_peer({n: peer for n, peer in peers.items() if _for_all_noise(peer)} or peers, problem, FEW)
    base = peers[name]
    whole = "" if ability(base, InWholeNumbers) is None else ", in whole numbers"
    note(f"guarded by {name}{whole}" + ("" if named else "; --baseline names another peer"))
    guard = guard_around(net, base, problem, monitor_for(run, net, example, ALARM, 1.0, note), both=True)
    if guard is None:
        raise ValueError("nothing judges the network: its losses need a noise variance, and there is no monitor.")
    return guard


def _for_all_noise(peer: Estimator) -> bool:
    """Whether it has no tables for one noise variance: losses are compared in more than there is."""
    whole = ability(peer, InWholeNumbers)
    return whole is None or not whole.form.for_one_noise_var


def _peers(net: nn.Module, problem: Problem) -> dict[str, Estimator]:
    """The peers that can leave, all of them in whole numbers where the network is and one of them can be."""
    whole = ability(net, InWholeNumbers)
    inner = net if whole is None else whole.network
    peers = peers_of(inner, problem, at_once=True)
    peers = {name: peer for name, peer in peers.items() if peer is not inner and not offers(peer, Costly)}
    if whole is None:
        return peers
    _, obs = draw(problem.held_out(), REACHED, 0, Stream.CALIBRATION, 2)
    in_whole = {name: _quantised(peer, problem, whole, obs) for name, peer in peers.items()}
    return {name: peer for name, peer in in_whole.items() if peer is not None} or peers


def _quantised(peer: Estimator, problem: Problem, like: InWholeNumbers, obs: Observation) -> Estimator | None:
    """A peer in whole numbers of the same widths; None where it has no integer form."""
    if (network := as_network(peer, problem)) is None:
        return None
    try:
        return quantised(network, like.widths, obs, pairs_fit=like.pairs_fit)
    except ValueError:
        return None
