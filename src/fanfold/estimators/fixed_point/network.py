"""A network in whole numbers, which learns in them; long, as one class is what is trained, kept and traced of it.

Quantisation-aware training, Jacob et al. (2018), section 3. The forward pass is the integer program's, bit for bit;
gradients pass straight through its rounding. The scales of activations are chosen once, on the network as it is when
training begins, and kept with the weights.
"""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fanfold.algorithms import LISTACP
from fanfold.core.abilities import ability, offers
from fanfold.core.settings import Checked, checks_arguments
from fanfold.estimators.base import Bound, Grouped, InWholeNumbers, Kept, Preparable, device_of
from fanfold.estimators.fixed_point.arithmetic import Widths
from fanfold.estimators.fixed_point.forms import FormPort, integer_form
from fanfold.estimators.fixed_point.operation import enter, whole_in_trace
from fanfold.estimators.fixed_point.readers import HEADROOM, Calibrating, FakeQuantised
from fanfold.estimators.fixed_point.shaped import ShapedArithmetic
from fanfold.estimators.fixed_point.values import Scaled
from fanfold.estimators.ofdm.beam_mixer import MixerSettings
from fanfold.estimators.ofdm.grid_cnn import CNNSettings
from fanfold.estimators.ofdm.learned_filters import FilterSettings
from fanfold.linops import LinearOperator
from fanfold.measurements import takes_measurements
from fanfold.observation import Estimate, Observation
from fanfold.problems import Problem
from fanfold.unfolding.unfold import UnfoldedSettings

CALIBRATION_DRAWS = 500
HEADROOMS = (HEADROOM, 1.5, 2.0)  # over what is seen, of which the one with the least error in the end is taken
SAME_NOISE = 1e-5  # relative difference of one noise variance in two precisions, single ones 6e-8
UNKNOWN = -1.0  # noise variance: NaN is not equal to itself

NetworkSettings = UnfoldedSettings | MixerSettings | CNNSettings | FilterSettings


@dataclass(frozen=True)
class QuantisedSettings(Checked):
    """The settings of a quantised network: those of the network in floating point, and how many bits there are.

    Example:
        >>> import fanfold as ff
        >>> network = ff.unfolding.UnfoldedSettings(ff.algorithms.LISTACP(), layers=2)
        >>> settings = ff.estimators.QuantisedSettings(network, "w8a12")
        >>> settings.build(ff.problems.CompressedSensing(n=40, m=20)).settings == settings
        True
    """

    network: NetworkSettings = field(default_factory=lambda: UnfoldedSettings(LISTACP()))  # in floating point
    widths: Widths = "w8a8"  # bits of weights and of activations
    pairs_fit: bool = False  # whether 8-bit kernels that add two products in 16 bits are proved not to saturate
    trained: bool = False  # whether it begins from weights of a network that was trained in floating point

    def build(self, problem: Problem) -> "QuantisedNetwork":
        """The network before it was trained in whole numbers, without scales."""
        return _around(self.network.build(problem), self)


class QuantisedNetwork(nn.Module):
    """A network in whole numbers, for which `quantised` chooses the scales or `fit`; not scale-equivariant.

    Whole numbers have the units of their ports, and what is beyond these saturates.

    Attributes:
        network: The network with the same weights, in floating point.
        widths: The bits of weights and activations.
        fractions: The fraction of each port and each narrowed value, in the order in which they are computed.
        calibrated: Whether these are chosen.
        noise_var: The noise variance of the observations that they are chosen on, for which tables are made; -1 where
            it is not known.
        key: What it is called in a trace.

    Raises:
        ValueError: If the network has no integer form, or is on another device than the CPU.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> net = ff.unfold(ff.algorithms.LISTACP(), problem, 3, {"threshold": "per-layer"})
        >>> x, obs = problem.sample(200, torch.Generator().manual_seed(0))
        >>> whole = ff.estimators.quantised(net, "w16a16", obs)
        >>> bool((whole(obs).x - net(obs).x).abs().max() < 1e-2)
        True
    """

    scale_equivariant: ClassVar[bool] = False
    fractions: Tensor
    calibrated: Tensor  # a boolean
    noise_var: Tensor

    def __init__(self, network: nn.Module, widths: Widths, *, pairs_fit: bool = False, trained: bool = False):
        super().__init__()
        _check_device(device_of(network))
        self.network, self.widths, self.pairs_fit, self.trained = network, widths, pairs_fit, trained
        self.form = integer_form(network)
        silence = {port.name: torch.zeros(1, port.size) for port in self.form.inputs}
        for name, constant in self.form.constants.items():
            self.register_buffer(f"constant_{name}", constant)  # the tensor itself: loading weights fills it
        self.register_buffer("noise_var", torch.tensor(UNKNOWN, dtype=torch.float64))
        self.register_buffer("fractions", torch.tensor(self._chosen(silence, 1.0)[0]))
        self.register_buffer("calibrated", torch.tensor(data=False))
        self.key = ""  # in a trace
        self._has_weights = False  # of the training in floating point

    @torch.no_grad()
    def _chosen(
        self, ports: Mapping[str, Tensor], noise_var: float | None, headroom: float = HEADROOM
    ) -> tuple[list[int], Tensor]:
        """The scales that suit these numbers, and the estimates with them, `(batch, size)`."""
        reader = Calibrating(ports, self.widths, headroom=headroom, pairs_fit=self.pairs_fit, noise_var=noise_var)
        estimates = self.form.written(reader)[self.form.outputs[0].name].value
        return reader.chosen, estimates

    @property
    def settings(self) -> QuantisedSettings | None:
        """The settings that build the network again; None where the one in floating point has none."""
        kept = ability(self.network, Kept)
        settings = None if kept is None else kept.settings
        if not isinstance(settings, NetworkSettings):
            return None
        return QuantisedSettings(settings, self.widths, self.pairs_fit, self.trained)

    @property
    def known_noise_var(self) -> float | None:
        """The noise variance that tables are made for; None where it is not known."""
        return None if self.noise_var == UNKNOWN else self.noise_var.item()

    @property
    def origin(self) -> tuple[str, nn.Module]:
        """The network with the same weights, in floating point."""
        return "the same weights in floating point", self.network

    @property
    def good_from_start(self) -> bool:
        """Whether it begins from weights that were trained in floating point: with its scales chosen it is good."""
        return self.trained

    @property
    def training_defaults(self) -> Mapping[str, Any]:
        """Fields of `Training`; a network that takes the noise variance is for all, so each sample has its own NMSE.

        In that of a batch the noisiest samples would decide alone.
        """
        every_noise = any(port.name == "noise_var" for port in self.form.inputs)
        return {
            "steps": 300,
            "lr": 3e-4,
            "validate_every": 50,
            "validation_samples": 1000,
            "nmse_over": "sample" if every_noise else "batch",
        }

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """The parameter groups of the network in floating point."""
        grouped = ability(self.network, Grouped)
        return [{"params": [*self.parameters()], "lr": lr}] if grouped is None else grouped.parameter_groups(lr)

    def prepare(self, x: Tensor, obs: Observation) -> None:
        """Choose the scales; a network that was never trained learns first what it learns in closed form.

        Raises:
            ValueError: If it begins from weights of a training in floating point, and these are not there: it stopped
                before its first checkpoint.
        """
        if self.trained and not (self._has_weights or self.calibrated):
            raise ValueError(
                "the run stopped before its first checkpoint, and the weights that it began from were not kept: remove "
                "it, and quantise the network in floating point again."
            )
        learner = ability(self.network, Preparable)
        if learner is not None and not self.trained:
            learner.prepare(x, obs)
        self.calibrate(obs)

    @torch.no_grad()
    def calibrate(self, obs: Observation) -> None:
        """Choose the scales of activations on observations, for the weights as they are.

        Each scale has the least error where it is rounded, which is not yet the least in the end: among ALISTA's in 8
        bits such choices are apart by 1 dB. Of several, which leave more and more room above what is seen, that is
        taken whose estimates are the nearest to those in floating point.

        Raises:
            ValueError: If there are no observations, or they do not fit the network.
        """
        if not obs.y.numel():
            raise ValueError(f"y of shape {tuple(obs.y.shape)} holds no observations to choose scales on; pass some.")
        if self._leading(obs):
            obs = obs[:CALIBRATION_DRAWS]
        few = {name: numbers[:CALIBRATION_DRAWS] for name, numbers in self._ports(obs).items()}
        noise_var, port = _one_noise_var(obs), self.form.outputs[0]
        choices = [self._chosen(few, noise_var, headroom) for headroom in HEADROOMS]
        floating = _parts(port, self.network(obs).x).reshape(-1, port.size)[:CALIBRATION_DRAWS]
        errors = [float((said - floating).square().sum()) for _, said in choices]
        self.fractions.copy_(torch.tensor(choices[errors.index(min(errors))][0]))
        self.noise_var.fill_(UNKNOWN if noise_var is None else noise_var)
        self.calibrated.fill_(value=True)

    def _leading(self, obs: Observation) -> int:
        """How many axes of y are those of a batch."""
        first = self.form.inputs[0]
        return obs.y.ndim - (len(first.shape) - (first.layout == "iq"))

    def _ports(self, obs: Observation) -> dict[str, Tensor]:
        """The numbers of each port as `(batch, size)`."""
        _check_device(device_of(self))
        numbers = self.form.numbers(obs)
        return {
            port.name: _parts(port, numbers[port.name]).reshape(-1, port.size).double() for port in self.form.inputs
        }

    def written(self, arithmetic: ShapedArithmetic[Any]) -> Mapping[str, Scaled[Any]]:
        """The layers in the operations of a reader, with these weights: the value of each output."""
        return self.form.written(arithmetic)

    @takes_measurements
    def forward(self, obs: Observation) -> Estimate:
        """The estimate that the integer program gives.

        Raises:
            ValueError: If no scales are chosen yet.
        """
        if torch.compiler.is_exporting():  # after a call that was not, which has refused what is to be refused
            outputs = whole_in_trace(self, self._ports(obs))
        else:
            self._check(obs)
            enter(self)
            outputs = self.said(self._ports(obs))
        batch, real = obs.y.shape[: self._leading(obs)], obs.y.dtype.to_real()
        said = {}
        for port, numbers in zip(self.form.outputs, outputs, strict=True):
            numbers = numbers.reshape(*batch, *port.shape)
            numbers = torch.view_as_complex(numbers) if port.layout == "iq" else numbers
            said[port.name] = numbers.to(real.to_complex() if numbers.is_complex() else real)
        return Estimate(said["x_hat"], said.get("var"))

    def said(self, ports: Mapping[str, Tensor]) -> list[Tensor]:
        """The numbers of each output, `(batch, size)` in double precision, for those of each port.

        Where one of a sample is NaN, which no port holds, all outputs of it are.
        """
        lost = {name: numbers.isnan() for name, numbers in ports.items()}
        broken = torch.stack([each.any(-1, keepdim=True) for each in lost.values()]).any(0)
        held = {name: numbers.masked_fill(lost[name], 0.0) for name, numbers in ports.items()}
        known = {"pairs_fit": self.pairs_fit, "noise_var": self.known_noise_var}
        values = self.written(FakeQuantised(held, self.widths, self.fractions.tolist(), **known))
        return [values[port.name].value.masked_fill(broken, torch.nan) for port in self.form.outputs]

    def _check(self, obs: Observation) -> None:
        """Refuse a network without scales, and say where tables are made for another noise than observations have."""
        if not self.calibrated:
            raise ValueError(
                "the scales of whole numbers are not chosen yet: train the network, or calibrate(obs) on observations."
            )
        known = self.known_noise_var
        if not self.form.for_one_noise_var or known is None or obs.noise_var is None:
            return
        off = (obs.noise_var - known).abs() > SAME_NOISE * known
        if off.any():
            warnings.warn(
                f"the network's tables are made for noise_var = {known:.3g}, and there are observations with "
                f"{obs.noise_var[off][0]:.3g}: these are estimated as if it were {known:.3g}. Make one for that noise, "
                "quantised(net.network, net.widths, obs), or take the network in floating point, net.network.",
                stacklevel=6,
            )


class BoundQuantisedNetwork(QuantisedNetwork):
    """A network in whole numbers that belongs to one operator.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> net = ff.unfold(ff.algorithms.LISTACP(), problem, 3, {"threshold": "per-layer"})
        >>> ff.estimators.quantised(net).fingerprint == problem.A.fingerprint()
        True
    """

    @property
    def operator(self) -> LinearOperator:
        """The operator that the network belongs to."""
        return _bound(self.network).operator

    @property
    def fingerprint(self) -> str:
        """The hash of the operator; another one is refused."""
        return _bound(self.network).fingerprint


def _bound(network: nn.Module) -> Bound:
    assert offers(network, Bound)
    return network


def _check_device(device: torch.device) -> None:
    if device.type != "cpu":
        raise ValueError(f"the network is on {device}; whole numbers are computed on the CPU so far: net.cpu().")


def _one_noise_var(obs: Observation) -> float | None:
    """The noise variance of all observations; None where it is not one."""
    if obs.noise_var is None or (obs.noise_var != obs.noise_var.reshape(-1)[0]).any():
        return None
    return obs.noise_var.reshape(-1)[0].item()


def _parts(port: FormPort, numbers: Tensor) -> Tensor:
    return torch.view_as_real(numbers.resolve_conj()) if port.layout == "iq" else numbers


def _around(network: nn.Module, settings: QuantisedSettings) -> QuantisedNetwork:
    kind = BoundQuantisedNetwork if offers(network, Bound) else QuantisedNetwork
    return kind(network, settings.widths, pairs_fit=settings.pairs_fit, trained=settings.trained)


@checks_arguments
def quantised(
    network: nn.Module, widths: Widths = "w8a8", obs: Observation | None = None, *, pairs_fit: bool = False
) -> QuantisedNetwork:
    """A copy of a trained network that computes in whole numbers, its scales chosen on observations.

    Args:
        network: The network in floating point, which stays as it is; or a quantised one, whose weights are taken.
        widths: The bits of weights and activations.
        obs: Observations to choose scales on, a few hundred as they will come; `fit` draws some where there are none.
        pairs_fit: Whether weights of 8 bits lose one more, in rows that need it, so that 8-bit kernels which add two
            products in 16 bits are proved not to saturate: ONNX files then multiply bytes, and faster. The C needs it
            not.

    Raises:
        ValueError: If the network has no integer form; the error names what has. Or if it is on another device than
            the CPU.
    """
    whole_already = ability(network, InWholeNumbers)
    inner = network if whole_already is None else whole_already.network
    integer_form(inner)
    bound = ability(inner, Bound)
    kept = {} if bound is None else {id(bound.operator): bound.operator}
    whole = _around(copy.deepcopy(inner, kept), QuantisedSettings(widths=widths, pairs_fit=pairs_fit, trained=True))
    whole._has_weights = True
    if obs is not None:
        whole.calibrate(obs)
    return whole
