"""Golden vectors: measurements and what the released network says of them, and whether a program says the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fanfold.deploy.lowering import Lowered
from fanfold.deploy.release.results import ReleaseResult
from fanfold.linops import LinearOperator
from fanfold.observation import Estimate, Estimator, Observation
from fanfold.problems import Problem
from fanfold.problems.draws import example_of
from fanfold.runs.weights import read_tensors, write_tensors

COUNT = 8  # samples
TOLERANCE = 1e3  # units of rounding of the largest entry: products are summed in another order elsewhere
UNIT = "of the largest entry"  # a deviation
FORBIDDEN = ("Loop", "Scan", "If")  # operations by which a file could take as long as it likes
DOMAINS = ("", "ai.onnx", "com.microsoft")


class ReleaseVectors(NamedTuple):
    """Golden vectors of a release.

    Attributes:
        y: Measurements `(samples, ...)`.
        noise_var: Their noise variance; None where there is none.
        x_hat, var: What the network says, and its error variance where it says one.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.deploy.release import ReleaseVectors
        >>> problem, ista = ff.problems.CompressedSensing(n=20, m=10), ff.iterate(ff.algorithms.ISTA(), 2)
        >>> ReleaseVectors.of(problem, ista).x_hat.shape
        torch.Size([8, 20])
    """

    y: Tensor
    noise_var: Tensor | None
    x_hat: Tensor
    var: Tensor | None

    @classmethod
    def of(cls, problem: Problem, estimator: Estimator) -> "ReleaseVectors":
        """Of held-out draws of a problem."""
        obs = example_of(problem, COUNT)
        with torch.no_grad():
            said = estimator(obs)
        return cls(obs.y, obs.noise_var, said.x, said.var)

    def observation(self, A: LinearOperator | None) -> Observation:
        """The measurements with their operator."""
        return Observation(self.y, A, self.noise_var)

    def write(self, path: Path) -> None:
        """Write them in safetensors."""
        tensors = {"y": self.y, "noise_var": self.noise_var, "x_hat": self.x_hat, "var": self.var}
        write_tensors(path, {name: t for name, t in tensors.items() if t is not None}, {})

    @classmethod
    def read(cls, path: Path) -> "ReleaseVectors":
        """What `write` wrote.

        Raises:
            ValueError: If the file is damaged, or holds none.
        """
        tensors, _ = read_tensors(path, "Certify the run anew.")
        if not {"y", "x_hat"} <= set(tensors) or len(tensors["y"]) != len(tensors["x_hat"]):
            raise ValueError(f"{path} holds no golden vectors: it has {', '.join(sorted(tensors))}.")
        return cls(tensors["y"], tensors.get("noise_var"), tensors["x_hat"], tensors.get("var"))

    def held_against(self, said: Estimate, what: str) -> ReleaseResult:
        """The largest deviation of what a program says, over the largest entry, against what rounding explains."""
        limit = TOLERANCE * torch.finfo(self.x_hat.dtype).eps
        pairs = [(said.x, self.x_hat)] + ([] if self.var is None else [(said.var, self.var)])
        if any(one is None or one.shape != other.shape for one, other in pairs):
            shapes = [None if one is None else tuple(one.shape) for one, _ in pairs]
            return ReleaseResult(what, {}, UNIT, None, limit=limit, note=f"it says {shapes} instead")
        ratios = [
            ((one - other).abs().max() / other.abs().max().clamp_min(torch.finfo(other.dtype).tiny)).item()
            for one, other in pairs
            if one is not None
        ]
        return ReleaseResult(what, {}, UNIT, max(ratios), limit=limit, note=f"{len(self.y)} golden vectors")


def replay_torch(golden: ReleaseVectors, estimator: Estimator, A: LinearOperator | None) -> ReleaseResult:
    """Golden vectors through the network itself."""
    with torch.no_grad():
        return golden.held_against(estimator(golden.observation(A)), "golden vectors in torch")


def replay_onnx(golden: ReleaseVectors, low: Lowered, A: LinearOperator | None, content: bytes) -> ReleaseResult:
    """Golden vectors through ONNX Runtime; not judged where it is not installed.

    Raises:
        ValueError: If the file is no ONNX model, or takes more from elsewhere than its inputs.
    """
    what = "golden vectors in ONNX Runtime"
    try:
        import onnxruntime
    except ImportError:
        return ReleaseResult(what, {}, UNIT, None, note="onnxruntime is not installed")
    check_model(content)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        given = {p.name: t.numpy() for p, t in zip(low.inputs, low.arguments(golden.observation(A)))}
        names = [port.name for port in low.outputs]
        said = session.run(names, {node.name: given[node.name] for node in session.get_inputs()})
    except Exception as error:  # of many kinds, all of them the file's fault
        return ReleaseResult(what, {}, UNIT, None, limit=0.0, note=str(error).partition("\n")[0][:200])
    return golden.held_against(low.estimate(_arrays(said)), what)


def check_model(content: bytes) -> None:
    """Refuse an ONNX file that reads other files, or whose work has no end that can be seen.

    Raises:
        ValueError: Says why.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own kinds
        raise ValueError(f"the ONNX file cannot be read ({str(error)[:80]}).") from error
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ValueError(f"the ONNX file keeps the numbers of {tensor.name[:40]!r} in another file.")
    if model.functions or any(opset.domain not in DOMAINS for opset in model.opset_import):
        raise ValueError("the ONNX file has functions or operations that are not ONNX's own.")
    for node in graph.node:
        inner = any(a.HasField("g") or a.graphs or (a.HasField("t") and a.t.external_data) for a in node.attribute)
        if node.op_type in FORBIDDEN or inner:
            raise ValueError(f"the ONNX file has an operation {node.op_type}, which an export never has.")


def _arrays(said: Sequence[Any]) -> list[Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(values)) for values in said]
