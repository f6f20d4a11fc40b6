"""Networks in whole numbers: one description of their layers, which torch trains with and integer programs are made of.

A network gets an integer form by being registered with `integer_form`; its layers are written in the operations of
`Arithmetic`, once.
"""

from fanfold.estimators.fixed_point.arithmetic import Arithmetic, Widths
from fanfold.estimators.fixed_point.cnn_form import CNNForm
from fanfold.estimators.fixed_point.complex_oamp import ComplexOAMPLayers
from fanfold.estimators.fixed_point.filters_form import FiltersForm
from fanfold.estimators.fixed_point.firm_steps import FirmStep, FirmSteps
from fanfold.estimators.fixed_point.forms import FormPort, IntegerForm, as_network, integer_form
from fanfold.estimators.fixed_point.mixer_form import MixerForm
from fanfold.estimators.fixed_point.mixture_form import MixtureForm
from fanfold.estimators.fixed_point.network import BoundQuantisedNetwork, QuantisedNetwork, QuantisedSettings, quantised
from fanfold.estimators.fixed_point.oamp import OAMPLayers
from fanfold.estimators.fixed_point.readers import Calibrating, FakeQuantised
from fanfold.estimators.fixed_point.shaped import ShapedArithmetic
from fanfold.estimators.fixed_point.soft_steps import SoftStep, SoftSteps, form_of_algorithm
from fanfold.estimators.fixed_point.values import RoundedMatrix, Scaled

__all__ = [
    "Arithmetic",
    "BoundQuantisedNetwork",
    "CNNForm",
    "Calibrating",
    "ComplexOAMPLayers",
    "FakeQuantised",
    "FiltersForm",
    "FirmStep",
    "FirmSteps",
    "FormPort",
    "IntegerForm",
    "MixerForm",
    "MixtureForm",
    "OAMPLayers",
    "QuantisedNetwork",
    "QuantisedSettings",
    "RoundedMatrix",
    "Scaled",
    "ShapedArithmetic",
    "SoftStep",
    "SoftSteps",
    "Widths",
    "as_network",
    "form_of_algorithm",
    "integer_form",
    "quantised",
]


def __dir__() -> list[str]:
    return __all__
