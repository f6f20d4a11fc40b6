"""The methods that `versus_sbi.py` compares, and how each is judged against a known posterior."""

import contextlib
import copy
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import fanfold as ff
from fanfold.core.streams import Stream
from fanfold.experiments.by_hand import dense_product, in_turn
from fanfold.experiments.simulators.benchmarks import Benchmark
from fanfold.observation import Observation
from fanfold.problems.draws import draw
from fanfold.problems.protocols import Limited

TEST_DRAWS, PRIOR_DRAWS = 300, 20_000
SAMPLES, ENOUGH, ROUNDS = 1000, 100, 10  # of a sampler, an observation: at a time, within the prior's support, tries
PATIENCE = 20  # epochs without improvement of what is held out, after which the perceptron stops, as sbi does


class Reference(NamedTuple):
    """Observations with their exact posteriors, double; those whose posterior could not be computed are left out."""

    obs: Observation
    mean: Tensor  # (observations, d)
    var: Tensor
    scale: Tensor  # (d,) standard deviations of the prior
    left_out: int


class Answer(NamedTuple):
    """What a method says of the test observations, double, and what it took."""

    mean: Tensor  # (observations, d)
    var: Tensor | None  # of the posterior, if it gives one
    spread: Tensor | float  # variance of the mean's own sampling
    seconds: float  # processor time of drawing and training
    notes: dict[str, Any]


Method = Callable[[Benchmark, int, int, float, Observation], Answer]  # problem, count, seed, seconds, test observations


def reference(name: str, problem: Benchmark, cache: Path) -> Reference:
    """The test observations of a problem and their posteriors, which are kept in `cache`, the same for all seeds."""
    _, obs = draw(problem, TEST_DRAWS, 0, Stream.TESTING, 0)
    path = cache / f"{name.replace(' ', '_')}.npz"
    stored = dict(np.load(path)) if path.exists() else {}
    if not stored or str(stored["problem"]) != repr(problem) or not np.array_equal(stored["y"], obs.y.numpy()):
        exact = problem.posterior(obs)
        assert exact.var is not None
        x, _ = draw(problem, PRIOR_DRAWS, 1, Stream.TESTING, 0)
        mean, var, scale = exact.x.double(), exact.var.double().expand_as(exact.x), x.double().std(0)
        arrays = {"mean": mean, "var": var, "scale": scale, "y": obs.y}
        stored = {key: value.numpy() for key, value in arrays.items()}
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(path, problem=np.array(repr(problem)), **stored)
    mean, var, scale = (torch.from_numpy(stored[key]) for key in ("mean", "var", "scale"))
    known = mean.isfinite().all(-1) & var.isfinite().all(-1)
    return Reference(obs[known], mean[known], var[known], scale, int((~known).sum()))


def judged(answer: Answer, exact: Reference) -> dict[str, Any]:
    """The numbers that stand in the docstring of `versus_sbi.py`; infinite where the answer is not finite."""
    error = (answer.mean - exact.mean) / exact.scale
    squares = (error.square() - torch.as_tensor(answer.spread) / exact.scale.square()).sum(-1).mean()
    excess = 100 * (squares / (exact.var / exact.scale.square()).sum(-1).mean()).item()
    off = ((answer.mean - exact.mean).abs() / exact.var.sqrt()).mean(-1).median().item()
    claimed = None if answer.var is None else (answer.var / exact.var).sqrt().median().item()
    finite = bool(answer.mean.isfinite().all())
    return {
        "excess": excess if finite else float("inf"),
        "off": off if finite else float("inf"),
        "claimed": claimed,
        "seconds": answer.seconds,
        **answer.notes,
    }


def default_call(problem: Benchmark, count: int, seed: int, seconds: float, obs: Observation) -> Answer:
    """The default call and nothing else; `seconds` is not for it."""
    return ours(lambda: ff.fit(ff.neural(problem, seed=seed), problem, simulations=count, seed=seed, threads=1), obs)


def ours(train: Callable[[], Any], obs: Observation) -> Answer:
    """Train an estimator of fanfold, and time one answer as it would be deployed: in ONNX Runtime, and in C."""
    import onnxruntime

    began = time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net = train()
    seconds = time.process_time() - began
    with torch.no_grad():
        estimate = net(obs)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        session = onnxruntime.InferenceSession(ff.deploy.to_onnx(net, obs, f"{folder}/net.onnx"), options)
        one = {"y": obs.y[:1].numpy()}
        if obs.noise_var is not None:
            one["noise_var"] = obs.noise_var.expand(len(obs.y))[:1].numpy()
        asked = {port.name: one[port.name].reshape(1, *port.shape[1:]) for port in session.get_inputs()}
        cost = in_turn(lambda: session.run(None, asked), dense_product(182), 200)
    warned = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    program = ff.deploy.compiled(net, obs)
    in_c = in_turn(lambda: program(obs[:1]), dense_product(182), 200)
    notes = {"milliseconds": 1e3 * cost.ours, "products": cost.ratio, "products_c": in_c.ratio, "warned": warned}
    var = None if estimate.var is None else estimate.var.double().expand_as(estimate.x)
    return Answer(estimate.x.double(), var, 0.0, seconds, notes)


def npe(problem: Benchmark, count: int, seed: int, seconds: float, obs: Observation) -> Answer:
    """As sbi comes, stopped after so many seconds with the weights that were best on what it holds out."""
    from sbi.inference import NPE

    class Stopped(NPE):
        """NPE whose end may also be a time: `train` offers none, and to resume it would go back to the best weights."""

        def _converged(self, epoch: int, stop_after_epochs: int) -> bool:
            converged = super()._converged(epoch, stop_after_epochs)
            if not converged and epoch > 0 and time.process_time() - began > seconds:
                assert self._neural_net is not None
                self._neural_net.load_state_dict(self._best_model_state_dict)
                return True
            return converged

    torch.manual_seed(seed)
    began = time.process_time()
    x, seen = draw(problem, count, seed, Stream.TRAINING, 0)
    prior = _prior(problem, x)
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(None),
    ):  # its logs
        inference = Stopped(prior=prior, show_progress_bars=False)
        inference.append_simulations(x, seen.y).train(show_train_summary=False)
    posterior = inference.build_posterior()
    spent = time.process_time() - began
    notes: dict[str, Any] = {"epochs": inference.summary["epochs_trained"][-1]}
    mean, var, kept = _moments(posterior, prior, obs.y, x.double().mean(0))
    times = []
    for y in obs.y[:6].split(1):
        asked = time.perf_counter()
        _drawn(posterior, y)
        times.append(1e3 * (time.perf_counter() - asked))
    notes |= {"milliseconds": statistics.median(times[1:]), "within": (kept / SAMPLES).clamp_max(1).mean().item()}
    return Answer(mean, var, var / (kept - 1).clamp_min(1), spent, notes)


def _prior(problem: Benchmark, x: Tensor) -> Any:
    """A prior with the support that samples must lie in: all that a single round of NPE asks of it."""
    from sbi.utils import BoxUniform, process_prior

    limits = problem.limits if isinstance(problem, Limited) else ((-np.inf, np.inf),) * x.shape[-1]
    parts: list[Any] = []
    for column, (low, high) in zip(x.mT, limits, strict=True):
        if np.isfinite(high):
            parts.append(BoxUniform(torch.tensor([low]), torch.tensor([high])))
        elif np.isfinite(low):
            logs = (column - low).log()
            parts.append(torch.distributions.LogNormal(logs.mean(0, keepdim=True), logs.std(0, keepdim=True)))
        else:
            parts.append(torch.distributions.Normal(column.mean(0, keepdim=True), column.std(0, keepdim=True)))
    return process_prior(parts)[0]


def _moments(posterior: Any, prior: Any, y: Tensor, otherwise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance over samples within the prior's support, and how many these are, `(observations, 1)`.

    This is sbi's own rejection of the others but for its end: a flow that leaks for a single observation of hundreds
    would hold it up for hours. Where no try lies within, the mean is that of the prior.
    """
    from sbi.utils.sbiutils import within_support

    d = len(otherwise)
    kept, total, squares = (torch.zeros(len(y), size, dtype=torch.float64) for size in (1, d, d))
    for _ in range(ROUNDS):
        few = (kept < ENOUGH).squeeze(-1).nonzero().squeeze(-1)
        for rows in few.split(50) if len(few) else ():  # for their memory
            drawn = _drawn(posterior, y[rows])
            within = within_support(prior, drawn.flatten(0, 1)).unflatten(0, drawn.shape[:2]).unsqueeze(-1)
            drawn = torch.where(within, drawn.double() - otherwise, 0.0)
            kept[rows] += within.sum(0)
            total[rows] += drawn.sum(0)
            squares[rows] += drawn.square().sum(0)
    mean = total / kept.clamp_min(1)
    return otherwise + mean, (squares / kept.clamp_min(1) - mean.square()).clamp_min(0), kept


@torch.no_grad()
def _drawn(posterior: Any, y: Tensor) -> Tensor:
    """`(SAMPLES, observations, d)`, some of which may lie outside of the prior's support."""
    return posterior.sample_batched((SAMPLES,), x=y, show_progress_bars=False, reject_outside_prior=False)


class Residual(nn.Module):
    """A perceptron whose blocks of two layers add to what they see."""

    def __init__(self, m: int, d: int, width: int = 128, blocks: int = 3):
        super().__init__()
        self.first, self.last = nn.Linear(m, width), nn.Linear(width, d)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(blocks)
        )

    def forward(self, y: Tensor) -> Tensor:
        h = self.first(y)
        for block in self.blocks:
            h = h + block(h)
        return self.last(nn.functional.silu(h))


def perceptron(problem: Benchmark, count: int, seed: int, seconds: float, obs: Observation) -> Answer:
    """Squared error of standardised x from standardised y, by Adam; the best weights on a tenth that is held out.

    The rate falls to 0.3 of itself after five epochs without improvement of that tenth.
    """
    torch.manual_seed(seed)
    began = time.process_time()
    x, seen = draw(problem, count, seed, Stream.TRAINING, 0)
    (x, x_mean, x_scale), (y, y_mean, y_scale) = _standardised(x), _standardised(seen.y)
    held = count // 10
    net = Residual(y.shape[-1], x.shape[-1])
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    rate = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.3, patience=5, threshold=0.0)
    least, best, waited, epochs = float("inf"), copy.deepcopy(net.state_dict()), 0, 0
    while waited < PATIENCE and time.process_time() - began < seconds:
        for rows in (held + torch.randperm(count - held)).split(100):
            optimiser.zero_grad()
            (net(y[rows]) - x[rows]).square().mean().backward()
            optimiser.step()
        with torch.no_grad():
            loss = (net(y[:held]) - x[:held]).square().mean().item()
        rate.step(loss)
        epochs, waited = epochs + 1, waited + 1
        if loss < least:
            least, best, waited = loss, copy.deepcopy(net.state_dict()), 0
    net.load_state_dict(best)
    spent = time.process_time() - began
    with torch.no_grad():
        mean = x_mean + x_scale * net((obs.y - y_mean) / y_scale)
    return Answer(mean.double(), None, 0.0, spent, {"epochs": epochs})


def _standardised(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean, scale = values.mean(0), values.std(0).clamp_min(1e-12)
    return (values - mean) / scale, mean, scale


METHODS: dict[str, Method] = {"default call": default_call, "sbi NPE": npe, "perceptron": perceptron}
