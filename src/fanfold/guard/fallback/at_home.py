"""What a guard costs where its network is at home: calibration draws, whose truth is known, as streams of calls.

Differences of losses have tails that no quantile of theirs shows: one call in a thousand may speak seventy times louder
against the network than the median call speaks for it. What such a call costs depends on how soon the weight comes
back, so it is played.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from fanfold.core.streams import Stream, generator_of
from fanfold.guard.fallback.limits import GuardLimits
from fanfold.guard.fallback.noise_levels import NoiseLevels
from fanfold.guard.fallback.stepping import counted, fallen, moved, rescaled
from fanfold.guard.fallback.trust import Trusting

CALLS, STREAMS = 1000, 32  # calls of a stream, which begins with the first weights; orders of the draws
START, STARTS = 50, 1024  # calls that the first weights may tell on, and how often they are played: few are dear
COST = 0.01  # by which a guarded network may err more than the network, in such streams
MOST = 0.95  # of the streams, in which their first calls may cost no more than that
USUAL = 0.99  # share of the draws that count: on the others the network errs most, and a few would hide the cost of all
STEP = 2**0.5  # from rate to rate
SLOWEST = 1.0  # rate that is tried; at lower ones a collapse costs more than half a decibel of a thousand calls
TINY = torch.finfo(torch.float64).tiny
FIRSTS = (0.5, 0.9, 0.99)  # weights of the network at the first call, in the order of preference


class Home(NamedTuple):
    """What both paths did on draws whose truth is known, `(draws,)` each, in double precision.

    Example:
        >>> import torch
        >>> from fanfold.guard.fallback.at_home import Home
        >>> one = torch.ones(2)
        >>> home = Home(network=one, baseline=4 * one, apart=one, keep=one, differences=-one, claimed=one)
        >>> home.errors(torch.tensor([1.0, 0.5])).tolist()
        [1.0, 2.25]
    """

    network: Tensor  # squared errors
    baseline: Tensor
    apart: Tensor  # squared distance of the two
    keep: Tensor  # share of that distance which the cap leaves
    differences: Tensor  # of the compared losses
    claimed: Tensor  # noise variance
    left: Tensor | None = None  # `(draws, 2)`, what network and baseline leave of y, as `NoiseLevels.ratios` has it
    heard: Tensor | None = None  # mean square of y

    @property
    def better(self) -> bool:
        """Whether the network is the better path, so that there is something to lose."""
        return bool(self.network.sum() < self.baseline.sum())

    def at(self, index: Tensor) -> "Home":
        """The same of some draws, in any shape of their numbers."""
        left, heard = (None if value is None else value[index] for value in (self.left, self.heard))
        return Home(
            self.network[index],
            self.baseline[index],
            self.apart[index],
            self.keep[index],
            self.differences[index],
            self.claimed[index],
            left,
            heard,
        )

    def errors(self, weight: Tensor) -> Tensor:
        """The squared errors of what lies between both paths, at these weights of the network."""
        w = weight * self.keep
        return (1 - w) * self.baseline + w * self.network - w * (1 - w) * self.apart


def suited(
    rule: Trusting,
    home: Home,
    scale: float,
    limits: GuardLimits,
    levels: NoiseLevels | None,
    memory: float,
    seed: int,
) -> tuple[Trusting, float]:
    """The rule at the rate that suits a network at home, and what a guard with it costs there.

    The draws are played in several orders, a thousand calls each. In each, one call more speaks against the network as
    much as a call can, at one of the draws where going over to the baseline costs most: what a thousand calls may hold
    and these draws do not. Of the given rate, lower ones down to `SLOWEST`, and then higher ones up to the default, the
    first is taken at which the guarded network errs at most `1 + COST` times as much as the network, or as the least of
    them where none does: even weights at the start are tried before others. Errors are those of all draws but the
    hundredth on which the network errs most: there a guard is often the better one, which pays for nothing elsewhere.
    Where the network is not the better path there is nothing to protect, and the rule stays.

    Args:
        rule: The rule by the differences alone.
        home: The draws.
        scale: The mean size of a difference.
        limits: What the guard holds to.
        levels: What both paths do in more noise; None where the claim is believed.
        memory: Of what both leave of the measurements, that is kept from call to call.
        seed: That of the orders.

    Returns:
        The rule, and the squared error of the guarded network over that of the network in the same streams, without
        the call more.
    """
    index, loud = _streams(home, limits.every, seed)
    first = _orders(len(home.network), STARTS, START, seed, 2).to(index.device)
    tried = _candidates(rule) if home.better else [rule]
    usual = home.network <= home.network.quantile(USUAL)
    mean = home.network[usual].sum().clamp_min(TINY) / len(usual)

    def excess(index: Tensor, u: Tensor) -> Tensor:
        """By how much guarded errs more, in mean errors of the network: `(tried, streams, calls)`."""
        errors = home.at(index).errors(_weights(tried, u, limits)) - home.network[index]
        return errors * usual[index] / mean

    def played(index: Tensor) -> Tensor:
        return _counted(rule, home.at(index), scale, limits.every, levels, memory)

    start = excess(first, played(first)).sum(-1) / CALLS  # (tried, starts)
    u = played(index)
    later = excess(index.repeat(2, 1), torch.cat([u, torch.where(loud, 1.0, u)]))[..., START:].sum(-1) / CALLS
    plain, with_loud = (part.mean(-1) + start.mean(-1) for part in later.split(STREAMS, -1))
    if not home.better:
        return rule, 1 + plain.item()
    cost = torch.maximum(with_loud, start.quantile(MOST, -1, interpolation="higher"))  # not between infinities
    most = max(0.0, cost.amin().item()) + COST
    best = next(number for number, value in enumerate(cost.tolist()) if value <= most)
    return tried[best], 1 + plain[best].item()


def truthful(levels: NoiseLevels, home: Home, seen: Tensor) -> NoiseLevels:
    """The levels with what A hides at home: losses that in the mean say which path errs less, and by how much.

    A network may err half as much as its baseline, and more at the measurements. Its mean difference of losses is
    moved to `(risk - 1)` times the baseline's error at the measurements, with the risk of the usual draws.

    Args:
        levels: Those without.
        home: The draws.
        seen: The squared errors of the baseline at the measurements, from the noisier copy, `(draws,)`.
    """
    usual = home.network <= home.network.quantile(USUAL)
    risk = (home.network[usual].sum() / home.baseline[usual].sum().clamp_min(TINY)).clamp_min(TINY).item()
    truth, said = (risk - 1) * seen[usual].mean().item(), home.differences[usual].mean().item()
    if risk >= 1 or truth >= said or home.heard is None:
        return levels
    heard = (home.heard - home.claimed).mean().item()
    return levels._replace(hidden=truth - said, heard=heard, risk=(math.log(risk), *levels.risk[1:]))


def _candidates(rule: Trusting) -> list[Trusting]:
    """The rules to try, the preferred first."""
    rates = [rule.rate]
    while rates[-1] / STEP >= SLOWEST:
        rates.append(rates[-1] / STEP)
    quick = rule.rate
    while quick < Trusting.rate:
        rates.append(quick := min(STEP * quick, Trusting.rate))
    return [replace(rule, rate=rate, first=first) for first in FIRSTS for rate in rates]


def _streams(home: Home, every: int, seed: int) -> tuple[Tensor, Tensor]:
    """The numbers of the draws `(streams, calls)`, and where a call more speaks against the network.

    Of calls that are compared one in a thousand does: it stands in one stream of `every`.
    """
    draws = len(home.network)
    index = torch.cat([_orders(draws, 1, CALLS, seed, 1, stream) for stream in range(STREAMS)])
    loud = torch.zeros(index.shape, dtype=torch.bool)
    for stream in range(0, STREAMS, every):
        place = START + (2 * stream + 1) * (CALLS - START) // (2 * STREAMS)
        loud[stream, -(-place // every) * every] = True
    costly = (home.baseline - home.network).topk(min(STREAMS, draws)).indices.cpu()
    where = loud.any(-1).nonzero()[:, 0]
    index[loud] = costly[where % len(costly)]
    device = home.network.device
    return index.to(device), loud.to(device)


def _orders(draws: int, streams: int, calls: int, seed: int, *number: int) -> Tensor:
    """The numbers of draws in streams of calls, `(streams, calls)`: all of them by chance, one time after the other."""
    g = generator_of(seed, Stream.CALIBRATION, *number)
    times = -(-streams * calls // draws)
    return torch.cat([torch.randperm(draws, generator=g) for _ in range(times)])[: streams * calls].view(streams, calls)


def _counted(
    rule: Trusting, played: Home, scale: float, every: int, levels: NoiseLevels | None, memory: float
) -> Tensor:
    """The differences of streams of calls as they count, within ±1: `(streams, calls)`; 0 where none is compared."""
    differences = played.differences
    streams, calls = differences.shape
    judged = torch.arange(calls) % every == 0
    if levels is not None and played.left is not None:
        now = played.left
        if played.heard is not None:
            now = torch.cat([now, levels.loudness(played.heard, played.claimed)[..., None]], -1)
        usual = (*levels.usual, 1.0)[: now.shape[-1]]
        mean = torch.tensor(usual, dtype=torch.float64, device=differences.device)
        means = []
        for values, compared in zip(now.unbind(1), judged.tolist()):
            mean = memory * mean + (1 - memory) * values if compared else mean
            means.append(mean.expand(streams, len(usual)))
        flat = torch.stack(means, 1).flatten(0, 1)
        loudness = None if played.heard is None else flat[:, 2]
        differences = levels.corrected(differences.flatten(), played.claimed.flatten(), flat[:, :2], loudness).view_as(
            differences
        )
    size, u = differences.new_full((len(differences),), scale), torch.zeros_like(differences)
    for call in judged.nonzero()[:, 0].tolist():
        u[:, call] = counted(rule, size, differences[:, call])
        size = rescaled(rule, size, differences[:, call])
    return u


def _weights(rules: list[Trusting], u: Tensor, limits: GuardLimits) -> Tensor:
    """The network's weights in streams of calls, by each of these rules: `(rules, streams, calls)`."""
    rates = u.new_tensor([[rule.rate] for rule in rules])
    share = u.new_tensor([[rule.first] for rule in rules]).expand(-1, len(u))
    down, remaining = torch.zeros_like(share), torch.zeros_like(share)
    weights = []
    for call, now in enumerate(u.unbind(1)):
        if call % limits.every == 0:
            share = moved(rules[0], share, now, rates)
        weight = share
        if limits.hysteresis is not None:
            down, remaining = fallen(limits.hysteresis, share, down, remaining)
            weight = 1 - down
        weights.append(weight)
    return torch.stack(weights, -1)
