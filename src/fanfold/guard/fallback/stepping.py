"""One call of a guarded estimator as tensors alone, with all that it remembers going in and coming out: what exports.

The same rule as `Guarded` and `Trusting`, for as many streams side by side as there are samples; tests compare both.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fanfold.guard.fallback.hysteresis import Hysteresis
from fanfold.guard.fallback.limits import GuardLimits
from fanfold.guard.fallback.noise_levels import NoiseLevels
from fanfold.guard.fallback.noise_split import NoiseSplit
from fanfold.guard.fallback.samples import distance, finite, saturation, trailing, unit
from fanfold.guard.fallback.trust import ENOUGH, STAKES, Trusting
from fanfold.guard.monitoring import MonitorStep
from fanfold.observation import Estimate, Estimator, Observation

LENGTHS = {  # of what is remembered beside the weights, in this order
    "scale": 1,
    "evidence": len(STAKES),
    "highest": 1,
    "judged": 1,
    "favour": len(STAKES),
    "since": 1,
    "left": 2,
    "loudness": 1,
    "fallen": 1,
    "remaining": 1,
    "raised": 1,
    "turn": 1,  # of calls that are fit, since one was judged; no count of all, which single precision cannot hold
}
Parts = dict[str, Tensor]


class GuardStep(nn.Module):
    """One call of a guarded estimator for each sample, every one in a stream of its own: nothing is kept inside.

    Args:
        network, baseline: Both paths.
        judge: How losses are compared, if they are.
        rule: By which trust moves.
        limits: What it holds to.
        levels: What both paths do in more noise than is claimed; None where the claim is believed.
        monitor: What says how strange each observation is, if anything does.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> net, safe = ff.iterate(ff.algorithms.OAMP(), 3), ff.iterate(ff.algorithms.FISTA(lam=0.1), 5)
        >>> guard = ff.guard.guarded(net, safe, problem, reach=0.9, samples=100)
        >>> x, obs = problem.sample(2, torch.Generator().manual_seed(0))
        >>> held = {name: value.expand(2, -1) for name, value in guard.remembered.items()}
        >>> estimate, after = guard.step()(obs, guard.chance(obs, (0, 0)), held)
        >>> estimate.x.shape, after["trust"].shape
        (torch.Size([2, 20]), torch.Size([2, 2]))
    """

    def __init__(
        self,
        network: Estimator,
        baseline: Estimator,
        judge: NoiseSplit | None,
        rule: Trusting,
        limits: GuardLimits,
        levels: NoiseLevels | None = None,
        monitor: MonitorStep | None = None,
    ):
        super().__init__()
        self.network, self.baseline = network, baseline
        self.judge, self.rule, self.limits, self.levels = judge, rule, limits, levels
        self.monitor = monitor

    def forward(
        self, obs: Observation, chance: Mapping[str, Tensor], remembered: Mapping[str, Tensor]
    ) -> tuple[Estimate, dict[str, Tensor]]:
        """The estimates of one call of each stream, and what is then remembered.

        With a monitor there are `p_value` of y, and `alarm`, 1 while it is on, besides: `(streams, 1)` both.

        Args:
            obs: The measurements `(streams, ...)`.
            chance: `drawn`, standard circular noise like y, where losses are compared.
            remembered: `trust`, `(streams, 2)`, of network and baseline, and `memory`, `(streams, 17)`; with a monitor
                also `watch`, `(streams, 8)`.
        """
        weights, parts = remembered["trust"].double(), _parts(remembered["memory"].double())
        measured = finite(obs.y)
        fit = measured & (obs.y != 0).flatten(1).any(-1) & (saturation(obs.y) <= self.limits.saturated)
        rows = Observation.unchecked(torch.where(torch.isfinite(obs.y), obs.y, 0.0), obs.A, obs.noise_var)
        beside = self.baseline(rows)
        network, ranks = self._answered(rows, beside)
        gap = network.x - beside.x
        fit = fit & finite(gap) if network.var is None else fit & finite(gap) & finite(network.var)
        gap = torch.where(trailing(fit, gap), gap, 0.0)
        apart, radius = distance(gap), self.limits.radius * unit(beside)
        judged = fit & (parts["turn"][:, 0] == 0)
        share = weights[:, :1]
        if self.judge is not None:
            before = parts["left"], parts["loudness"]
            left, loudness, difference = self._difference(rows, chance["drawn"], (network, beside), before)
            after_share, after = self._trusted(share, parts, difference)
            after |= {"left": left, "loudness": loudness}
            radius = radius * (
                1 + (self.limits.further - 1) * (judged & (difference[:, 0] <= self.limits.loud)).double()
            )
            moved = judged[:, None]
            share = torch.where(moved, after_share, share)
            parts |= {name: torch.where(moved, value, parts[name]) for name, value in after.items()}
        more, strange = self._watched(remembered, ranks, measured, fit)
        if strange is not None or self.judge is not None:
            parts |= self._alarm(parts, None if strange is None else strange[1] & ~strange[0])
        if strange is not None:
            more["alarm"] = parts["raised"].to(remembered["memory"].dtype)
        parts["turn"] = torch.remainder(parts["turn"] + fit[:, None], self.limits.every)
        weight = self._answering(share, parts)[:, 0] * fit
        if strange is not None and self.judge is None:
            weight = torch.where(strange[1][:, 0], 0.0, weight)
        keep = torch.where(apart > radius, radius / apart.clamp_min(torch.finfo(torch.float64).tiny), 1.0)
        w = trailing((weight * keep).to(gap.real.dtype), gap)
        var = None
        if network.var is not None and beside.var is not None:
            var = beside.var + w * torch.where(trailing(fit, gap), network.var - beside.var, 0.0)
        memory = torch.cat([parts[name] for name in LENGTHS], -1)
        kind = remembered["memory"].dtype
        return Estimate(beside.x + w * gap, var), more | {
            "trust": torch.cat([share, 1 - share], -1).to(kind),
            "memory": memory.to(kind),
        }

    def _answered(self, rows: Observation, beside: Estimate) -> tuple[Estimate, Tensor | None]:
        """What the network says of y, and with a monitor the rank of y among the draws of calibration."""
        if self.monitor is None:
            return self.network(rows), None
        said, ranks = self.monitor.judged(rows)
        var = None if said.var is None else said.var.reshape(beside.x.shape)
        return Estimate(said.x.reshape(beside.x.shape), var), ranks

    def _watched(
        self, remembered: Mapping[str, Tensor], ranks: Tensor | None, measured: Tensor, fit: Tensor
    ) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor] | None]:
        """The p-value and the martingale's state by name, and whether it had alarmed before and has after."""
        if self.monitor is None or ranks is None:
            return {}, None
        watch, kind = remembered["watch"].double(), remembered["memory"].dtype
        after = torch.where(fit[:, None], self.monitor.after(watch, ranks), watch)
        p = self.monitor.p_values(torch.where(measured, ranks, 1.0))[:, None]
        strange = self.monitor.alarmed(watch), self.monitor.alarmed(after)
        return {"p_value": p.to(kind), "watch": after.to(kind)}, strange

    def _difference(
        self, rows: Observation, drawn: Tensor, whole: tuple[Estimate, Estimate], before: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Over the last calls what both leave of y, `(streams, 2)`, and its loudness; and the difference of losses."""
        judge, (left, loudness) = self.judge, before
        assert judge is not None
        halves = judge.split(rows, drawn)
        difference = judge.differences(halves, self.network(halves.obs), self.baseline(halves.obs))
        if self.levels is not None:
            claimed, kept = judge.claimed(rows), judge.memory
            now = self.levels.ratios(torch.stack([judge.residuals(rows, path) for path in whole], -1), claimed)
            left = kept * left + (1 - kept) * now
            if self.levels.hidden:
                loudness = kept * loudness + (1 - kept) * self.levels.loudness(judge.heard(rows), claimed)[:, None]
            difference = self.levels.corrected(difference, claimed, left, loudness[:, 0])
        return left, loudness, difference[:, None]

    def _trusted(self, network: Tensor, parts: Parts, difference: Tensor) -> tuple[Tensor, Parts]:
        """`Trusting.after` for streams side by side."""
        rule, scale = self.rule, parts["scale"]
        u = counted(rule, scale, difference)
        after = {
            "scale": rescaled(rule, scale, difference),
            "evidence": _bet(parts["evidence"], parts["judged"], u),
            "judged": parts["judged"] + 1,
            "favour": _bet(parts["favour"], parts["since"], -u),
            "since": parts["since"] + 1,
        }
        against = after["evidence"].sum(-1, keepdim=True) + 1 / (after["judged"] + 1)
        after["highest"] = torch.maximum(parts["highest"], against)
        return moved(rule, network, u, rule.rate), after

    def _alarm(self, parts: Parts, strange: Tensor | None) -> Parts:
        """`Guarded`'s alarm, raised, also by what has just become strange, and ended."""
        enough, on = 1 / self.limits.alarm, parts["raised"] > 0
        against = parts["evidence"].sum(-1, keepdim=True) + 1 / (parts["judged"] + 1)
        benign = parts["favour"].sum(-1, keepdim=True) + 1 / (parts["since"] + 1)
        turned = torch.where(on, benign, against) >= enough
        if strange is not None:
            turned = turned | (strange & ~on)
        anew = {name: torch.where(turned, 0.0, parts[name]) for name in ("evidence", "judged", "favour", "since")}
        return anew | {"raised": torch.where(turned, (~on).double(), parts["raised"])}

    def _answering(self, share: Tensor, parts: Parts) -> Tensor:
        """The weight that answers, with `Hysteresis` where it is wished for; its state in `parts` is that after."""
        if (rule := self.limits.hysteresis) is not None:
            parts["fallen"], parts["remaining"] = fallen(rule, share, parts["fallen"], parts["remaining"])
            share = 1 - parts["fallen"]
        if self.limits.latch and self.judge is not None:
            share = torch.where(parts["highest"] >= 1 / self.limits.alarm, 0.0, share)
        return share


def counted(rule: Trusting, scale: Tensor, difference: Tensor) -> Tensor:
    """`Trusting.counted` for streams side by side, of one shape: within ±1."""
    known, most = scale > 0, rule.clip * scale
    u = torch.where(known, (difference / torch.where(known, most, 1.0)).clamp(-1.0, 1.0), torch.sign(difference))
    return torch.where(torch.isnan(difference), 1.0, u)


def rescaled(rule: Trusting, scale: Tensor, difference: Tensor) -> Tensor:
    """The mean size of a difference after one more, of streams side by side."""
    size = torch.minimum(difference.abs(), rule.clip * scale)
    counts = (scale > 0) & torch.isfinite(difference) & (size > 0)
    return torch.where(counts, rule.memory * scale + (1 - rule.memory) * size, scale)


def moved(rule: Trusting, network: Tensor, u: Tensor, rate: Tensor | float) -> Tensor:
    """The network's weight after a difference that counts as u, at any rates."""
    before = (1 - rule.share) * network + rule.share / 2
    return torch.sigmoid((before / (1 - before)).log() - rate * u)


def fallen(rule: Hysteresis, share: Tensor, down: Tensor, remaining: Tensor) -> tuple[Tensor, Tensor]:
    """`Hysteresis.after` for streams side by side: 1 where the baseline answers, and the calls that it still must."""
    was = down > 0
    stays = was & ((remaining > 0) | (share < rule.back))
    falls = ~was & (share <= rule.leave)
    left = torch.where(stays, (remaining - 1).clamp_min(0.0), 0.0)
    return (stays | falls).double(), torch.where(falls, float(rule.stay - 1), left)


def _bet(evidence: Tensor, calls: Tensor, u: Tensor) -> Tensor:
    start = 1 / ((calls + 1) * (calls + 2)) / len(STAKES)
    stakes = torch.tensor(STAKES, dtype=torch.float64, device=evidence.device)
    return ((evidence + start) * (1 + stakes * u)).clamp_max(ENOUGH)


def _parts(memory: Tensor) -> Parts:
    """What is remembered by name, `(streams, k)` each."""
    return dict(zip(LENGTHS, memory.split(list(LENGTHS.values()), -1)))
