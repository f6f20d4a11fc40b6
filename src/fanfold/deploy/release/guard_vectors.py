"""Golden calls of a guarded estimator: what it says of them in their order, and whether a program says the same."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fanfold.deploy.codegen import CompiledC
from fanfold.deploy.lowering import Lowered
from fanfold.deploy.release.golden import TOLERANCE, UNIT, check_model
from fanfold.deploy.release.results import ReleaseResult
from fanfold.guard import Guarded
from fanfold.linops import LinearOperator
from fanfold.observation import Observation
from fanfold.problems import Problem
from fanfold.problems.draws import example_of
from fanfold.runs.weights import read_tensors, write_tensors

CALLS = 24  # the middle third of them six times as loud, of which no network and no monitor is made
LOUDER = 6.0
RANKS, WEIGHTS = "p-values of golden calls", "weights of golden calls"
RATE = 1e-3  # of a weight between 0 and 1: rates up to 16 act on differences that are rounded otherwise elsewhere


class GuardVectors(NamedTuple):
    """Golden calls of a guard, from a fresh start.

    Attributes:
        y: Measurements of successive calls, `(calls, ...)`.
        noise_var: Their noise variance; None where there is none.
        x_hat: What the guard says.
        trust: Its weights of network and baseline after each call, `(calls, 2)`.
        p_value: Those of its monitor, `(calls,)`; None without one.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.deploy.release.guard_vectors import GuardVectors
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> net, safe = ff.iterate(ff.algorithms.ISTA(), 3), ff.iterate(ff.algorithms.FISTA(lam=0.1), 5)
        >>> guard = ff.guard.guarded(net, safe, problem, reach=0.9, samples=100)
        >>> GuardVectors.of(problem, guard).trust.shape
        torch.Size([24, 2])
    """

    y: Tensor
    noise_var: Tensor | None
    x_hat: Tensor
    trust: Tensor
    p_value: Tensor | None

    @classmethod
    def of(cls, problem: Problem, guard: Guarded) -> "GuardVectors":
        """Of held-out draws of a problem, some of them as in another world."""
        obs = example_of(problem, CALLS)
        y = obs.y.clone()
        y[CALLS // 3 : 2 * CALLS // 3] *= LOUDER
        calls = Observation.unchecked(y, obs.A, obs.noise_var)
        return cls(y, obs.noise_var, **_said(guard, calls))

    def observation(self, A: LinearOperator | None) -> Observation:
        """The measurements with their operator."""
        return Observation(self.y, A, self.noise_var)

    def write(self, path: Path) -> None:
        """Write them in safetensors."""
        write_tensors(path, {name: t for name, t in self._asdict().items() if t is not None}, {})

    @classmethod
    def read(cls, path: Path) -> "GuardVectors":
        """What `write` wrote.

        Raises:
            ValueError: If the file is damaged, or holds none.
        """
        tensors, _ = read_tensors(path, "Certify the run anew.")
        if not {"y", "x_hat", "trust"} <= set(tensors):
            raise ValueError(f"{path} holds no golden calls: it has {', '.join(sorted(tensors))}.")
        y, x, trust, p = tensors["y"], tensors["x_hat"], tensors["trust"], tensors.get("p_value")
        counts = {len(t) if t.ndim else 0 for t in (y, x, trust, *([] if p is None else [p]))}
        alike = x.is_floating_point() or x.is_complex(), x.real.dtype == y.real.dtype
        if counts != {CALLS} or not all(alike) or trust.shape[1:] != (2,) or trust.dtype != torch.float32:
            raise ValueError(f"{path} is damaged: its golden calls have other shapes or types than {CALLS} calls have.")
        if p is not None and (p.ndim != 1 or not p.is_floating_point()):
            raise ValueError(f"{path} is damaged: a p-value is one real number a call.")
        return cls(y, tensors.get("noise_var"), x, trust, p)

    def held_against(self, said: Mapping[str, Tensor | None], where: str, draws: int) -> list[ReleaseResult]:
        """How far estimates, weights and p-values are from the golden ones; the latter may be one rank off.

        Args:
            said: `x_hat`, and `trust` and `p_value` where the program says them.
            where: What computed them.
            draws: How many the monitor was calibrated on; of no meaning without one.
        """
        x, results = said["x_hat"], []
        eps = torch.finfo(self.x_hat.dtype).eps
        size = self.x_hat.abs().flatten(1).amax(-1).clamp_min(torch.finfo(self.x_hat.real.dtype).tiny)
        value = None
        if x is not None and x.shape == self.x_hat.shape:
            value = ((x - self.x_hat).abs().flatten(1).amax(-1) / size).max().item()
        note = f"{len(self.y)} calls" if value is not None else "it says something else"
        results.append(ReleaseResult(f"golden calls in {where}", {}, UNIT, value, limit=TOLERANCE * eps, note=note))
        if (trust := said.get("trust")) is not None:
            off = (trust.reshape(self.trust.shape) - self.trust).abs().max().item()
            results.append(ReleaseResult(f"{WEIGHTS} in {where}", {}, "", off, limit=RATE))
        if self.p_value is not None and (p := said.get("p_value")) is not None:
            ranks = (p.double().flatten() - self.p_value.double()).abs().max().item() * (draws + 1)
            results.append(ReleaseResult(f"{RANKS} in {where}", {}, "ranks", ranks, limit=1.01))
        return results


def replayed_in_torch(golden: GuardVectors, guard: Guarded, A: LinearOperator | None) -> list[ReleaseResult]:
    """Golden calls through the guard itself."""
    return golden.held_against(_said(guard, golden.observation(A)), "torch", _draws(guard))


def replayed_in_c(golden: GuardVectors, guard: Guarded, in_c: CompiledC, A: LinearOperator | None) -> ReleaseResult:
    """Golden calls through the guard in C."""
    in_c.reset()
    return golden.held_against({"x_hat": in_c(golden.observation(A)).x}, "C", _draws(guard))[0]


def replayed_in_onnx(
    golden: GuardVectors, guard: Guarded, low: Lowered, content: bytes, A: LinearOperator | None
) -> list[ReleaseResult]:
    """Golden calls through the guard in ONNX Runtime; not judged where it is not installed.

    Raises:
        ValueError: If the file is no ONNX model, or takes more from elsewhere than its inputs.
    """
    what = "golden calls in ONNX Runtime"
    try:
        import onnxruntime
    except ImportError:
        return [ReleaseResult(what, {}, UNIT, None, note="onnxruntime is not installed")]
    check_model(content)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    obs, said, names = golden.observation(A), [], [port.name for port in low.outputs]
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        wanted = [node.name for node in session.get_inputs()]
        held: dict[str, Any] = {}
        for call in range(len(golden.y)):
            values = low.arguments(obs[call : call + 1], call)
            given = {port.name: t.numpy() for port, t in zip(low.inputs, values)} | held
            out = dict(zip(names, session.run(names, {name: given[name] for name in wanted})))
            held = {name: out[after] for name, after in low.kept.items()}
            said.append(out)
    except Exception as error:  # of many kinds, all of them the file's fault
        return [ReleaseResult(what, {}, UNIT, None, limit=0.0, note=str(error).partition("\n")[0][:200])]
    return golden.held_against(_joined(said, low), "ONNX Runtime", _draws(guard))


def _joined(said: Sequence[Mapping[str, Any]], low: Lowered) -> dict[str, Tensor | None]:
    x = torch.cat([low.estimate([out[port.name] for port in low.outputs]).x for out in said])
    p = torch.cat([torch.from_numpy(out["p_value"]) for out in said]) if "p_value" in said[0] else None
    return {"x_hat": x, "trust": torch.cat([torch.from_numpy(out["trust_next"]) for out in said]), "p_value": p}


def _draws(guard: Guarded) -> int:
    return 0 if guard.monitor is None else guard.monitor.draws


@torch.no_grad()
def _said(guard: Guarded, calls: Observation) -> dict[str, Any]:
    """What a guard says of successive calls from a fresh start, as its program does: one at a time."""
    guard.reset()
    step, held = guard.step(), guard.remembered
    x, trust, ranks = [], [], []
    for call in range(len(calls.y)):
        one = calls[call : call + 1]
        held = {name: held[name].reshape(1, -1) for name in guard.remembered}
        estimate, held = step(one, guard.chance(one, (call,)), held)
        x.append(estimate.x)
        trust.append(held["trust"])
        ranks.append(held.get("p_value"))
    p = None if guard.monitor is None else torch.cat([value for value in ranks if value is not None])[:, 0]
    return {"x_hat": torch.cat(x), "trust": torch.cat(trust).float(), "p_value": p}
