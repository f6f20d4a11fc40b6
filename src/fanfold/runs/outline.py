"""The outline of a problem: all that a network is built from, so that a run needs no problem to be loaded or applied.

It is plain data in a run's config, and answers what a network's settings ask of a problem: shapes and data types of
signals and measurements, what an observation is, the noise variance, the scene, the pilots, the window of a waveform.
The operator lies beside it in the run; every other number that a network keeps is among its weights.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from fanfold.core.abilities import ability, offers
from fanfold.linops import LinearOperator
from fanfold.observation import Observation
from fanfold.problems.kinds import AXES
from fanfold.problems.protocols import ChannelProblem, KnownWaveform, WithScene, kind_of, noise_var_of, unknowns_of
from fanfold.problems.unknowns import Unknowns
from fanfold.propagation import Layout

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
        *(torch.bool, torch.uint8, torch.int32, torch.int64),
    )
}
LAYOUT = ("array", "symbols", "subcarriers", "spacing_hz", "carrier_hz")
MOST_ENTRIES = 2**31  # of one signal or observation

Data = dict[str, Any]


def outline_of(problem: Any, x: Tensor, obs: Observation) -> Data:
    """The outline of a problem as plain data.

    Args:
        problem: The problem.
        x: Some of its signals, `(n, unknowns)`.
        obs: Their observation.
    """
    one_hot = not x.is_complex() and bool(((x == 0) | (x == 1)).all() and (x.sum(-1) == 1).all())
    data: Data = {
        "problem": type(problem).__name__,
        "kind": kind_of(problem),
        "x": _form(x[0]) | ({"one_hot": True} if one_hot else {}),
        "y": _form(obs.y[0]),
    }
    if obs.noise_var is not None:
        data["noise"] = {"each": True} if obs.noise_var.ndim else {"each": False, "var": obs.noise_var.item()}
    if (known := _known_noise(problem)) is not None:
        data["noise_var"] = known
    imaging = ability(problem, WithScene)
    if imaging is not None and (scene := imaging.scene) is not None:
        data["scene"] = list(scene)
    if any(unknowns := unknowns_of(problem)):
        data["unknowns"] = {name: list(said) for name, said in unknowns._asdict().items() if said}
    if offers(problem, ChannelProblem):
        layout = asdict(problem.layout)
        data["layout"] = {name: list(layout[name]) if name == "array" else layout[name] for name in LAYOUT}
        data["mask"] = ["".join("1" if pilot else "0" for pilot in row) for row in problem.mask.tolist()]
    if offers(problem, KnownWaveform):
        low, high = problem.window
        shape = problem.waveform(torch.tensor([low], dtype=torch.float64))[0]
        data |= {"window": [float(low), float(high)], "resolution": float(problem.resolution), "gain": problem.gain}
        data["waveform"] = _form(shape)
    return data


def outline_of_operator(A: LinearOperator) -> Data:
    """The outline of what is known by its operator alone."""
    dtype = str(A.dtype).removeprefix("torch.")
    form = {"dtype": dtype}
    return {
        "problem": "an operator",
        "kind": "vector",
        "x": form | {"shape": [A.n]},
        "y": form | {"shape": [A.m]},
    }


class Outline:
    """A problem as a network sees it when it is built; what it draws are zeros.

    It has the abilities that the outlined problem had, such as a scene or a layout, as attributes.

    Args:
        data: What `outline_of` gave.
        A: The operator, which the run keeps by itself.

    Raises:
        ValueError: If the data are damaged.

    Example:
        >>> import torch, fanfold as ff
        >>> from fanfold.runs.outline import Outline, outline_of
        >>> problem = ff.problems.LinearGaussian(n=2, m=3)
        >>> data = outline_of(problem, *problem.sample(2, torch.Generator()))
        >>> Outline(data, None).sample(5, torch.Generator())[1].y.shape
        torch.Size([5, 3])
    """

    def __init__(self, data: Mapping[str, Any], A: LinearOperator | None):
        self.data, self.A = data, A
        try:
            self.name, self.kind = str(data["problem"]), data["kind"]
            self._x, self._y, self._noise = data["x"], data["y"], data.get("noise")
            if self.kind not in AXES or not all(_entries(form) <= MOST_ENTRIES for form in (self._x, self._y)):
                raise ValueError(f"an observation is no {self.kind} of shape {self._y['shape']}")
            self.observation = self.sample(2, torch.Generator())[1]
            self._take_abilities(data)
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError, OverflowError) as error:
            raise ValueError(f"the [outline] of the run's config is damaged: {error!r}; restore it.") from error

    def _take_abilities(self, data: Mapping[str, Any]) -> None:
        if "noise_var" in data:
            self.noise_var = float(data["noise_var"])
        if "unknowns" in data:
            self.unknowns = _unknowns(data["unknowns"], self._x["shape"][-1])
        if "scene" in data:
            self.scene = tuple(int(size) for size in data["scene"])
        if "layout" in data:
            array, symbols, subcarriers, spacing, carrier = (data["layout"][name] for name in LAYOUT)
            self.layout = Layout(tuple(array), int(symbols), int(subcarriers), float(spacing), float(carrier))
            self.mask = torch.tensor([[pilot == "1" for pilot in row] for row in data["mask"]])
            if self.mask.shape != (self.layout.symbols, self.layout.subcarriers):
                raise ValueError(f"the mask is {tuple(self.mask.shape)}")
        if "waveform" in data:
            low, high = (float(end) for end in data["window"])
            self.window, self.resolution, self.gain = (low, high), float(data["resolution"]), str(data["gain"])
            self.waveform = self._waveform

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """Zeros of the shape of `n` draws; of classes, the first one."""
        x, y, var = _zeros(self._x, n), _zeros(self._y, n), None
        if self._x.get("one_hot"):
            x = x.clone()
            x[..., 0] = 1
        if self._noise is not None:
            var = torch.zeros(n, 1) if self._noise["each"] else torch.tensor(float(self._noise["var"]))
        if var is not None:
            var = var.to(y.real.dtype)
        return x, Observation.unchecked(y, self.A, var)

    def _waveform(self, place: Tensor) -> Tensor:
        """Ones of the shape of waveforms, whose numbers are among the weights."""
        form = self.data["waveform"]
        return torch.ones(*place.shape, *form["shape"], dtype=DTYPES[form["dtype"]])

    def shifted(self, **changes: Any) -> "Outline":
        """An outline has no conditions to change.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"the outline of {self.name} draws nothing under other conditions; take the problem itself.")

    def held_out(self) -> "Outline":
        """The outline itself."""
        return self


def _unknowns(said: Mapping[str, Any], n: int) -> Unknowns:
    """What is kept of names, units and limits of n unknowns."""
    texts = [tuple(str(text) for text in said.get(kind, ())) for kind in ("names", "units")]
    limits = tuple((float(low), float(high)) for low, high in said.get("limits", ()))
    if any(len(part) not in (0, n) for part in (*texts, limits)) or (texts[1] and not texts[0]):
        raise ValueError(f"names, units or limits are not those of {n} unknowns")
    return Unknowns(texts[0], texts[1], limits)


def _known_noise(problem: Any) -> float | None:
    try:
        var = noise_var_of(problem)
    except ValueError:  # each draw has its own
        return None
    if var is None or (isinstance(var, Tensor) and var.numel() != 1):
        return None
    return float(var)


def _form(t: Tensor) -> Data:
    return {"shape": list(t.shape), "dtype": str(t.dtype).removeprefix("torch.")}


def _entries(form: Mapping[str, Any]) -> int:
    return math.prod(int(size) for size in form["shape"])


def _zeros(form: Mapping[str, Any], n: int) -> Tensor:
    """Zeros that take no memory."""
    return torch.zeros((), dtype=DTYPES[form["dtype"]]).expand(n, *(int(size) for size in form["shape"]))
