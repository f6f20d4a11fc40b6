"""Problems: draws of signals and their observations. A new one is a file here and a row in the REGISTRY.

PARTS are classes whose settings stand within those of problems: where parameters come from.
"""

from fanfold.problems.base import Problem
from fanfold.problems.gaussian.denoising import Denoising
from fanfold.problems.gaussian.linear_gaussian import LinearGaussian
from fanfold.problems.gaussian.mixture_signal import MixtureSignal
from fanfold.problems.located.direction_of_arrival import DirectionOfArrival
from fanfold.problems.located.time_delay import TimeDelay
from fanfold.problems.located.tone import Tone
from fanfold.problems.pairs import Pairs
from fanfold.problems.radio.few_channels import FewChannels
from fanfold.problems.radio.mimo_detection import MIMODetection
from fanfold.problems.radio.modulation import Modulation
from fanfold.problems.radio.ofdm_channel import OFDMChannel
from fanfold.problems.radio.receiver_chain import ReceiverChain
from fanfold.problems.rf.imaging import RFImaging
from fanfold.problems.rf.user_array import RFGeometry
from fanfold.problems.simulators import BatchSimulator, Box, Independent, Program, Simulations, Simulator, Truncated
from fanfold.problems.simulators.heat import Heat
from fanfold.problems.sparse.broad import Broad
from fanfold.problems.sparse.clustered import Clustered
from fanfold.problems.sparse.compressed_sensing import CompressedSensing
from fanfold.problems.sparse.exactly_sparse import ExactlySparse
from fanfold.problems.sparse.generalized_linear import GeneralizedLinear
from fanfold.problems.sparse.mismatched import Mismatched
from fanfold.problems.sparse.photographs import Photographs
from fanfold.problems.sparse.varied import Varied

REGISTRY: dict[str, type] = {
    "broad": Broad,
    "clustered": Clustered,
    "compressed-sensing": CompressedSensing,
    "denoising": Denoising,
    "direction-of-arrival": DirectionOfArrival,
    "exactly-sparse": ExactlySparse,
    "few-channels": FewChannels,
    "generalized-linear": GeneralizedLinear,
    "heat": Heat,
    "linear-gaussian": LinearGaussian,
    "mimo-detection": MIMODetection,
    "mismatched": Mismatched,
    "mixture-signal": MixtureSignal,
    "modulation": Modulation,
    "ofdm-channel": OFDMChannel,
    "pairs": Pairs,
    "photographs": Photographs,
    "program": Program,
    "receiver-chain": ReceiverChain,
    "rf": RFGeometry,
    "rf-imaging": RFImaging,
    "simulations": Simulations,
    "time-delay": TimeDelay,
    "tone": Tone,
    "varied": Varied,
}
PARTS: dict[str, type] = {
    "box": Box,
    "independent": Independent,
    "truncated": Truncated,
}  # of problems: where parameters come from

__all__ = [
    "PARTS",
    "REGISTRY",
    "BatchSimulator",
    "Box",
    "Broad",
    "Clustered",
    "CompressedSensing",
    "Denoising",
    "DirectionOfArrival",
    "ExactlySparse",
    "FewChannels",
    "GeneralizedLinear",
    "Heat",
    "Independent",
    "LinearGaussian",
    "MIMODetection",
    "Mismatched",
    "MixtureSignal",
    "Modulation",
    "OFDMChannel",
    "Pairs",
    "Photographs",
    "Problem",
    "Program",
    "RFGeometry",
    "RFImaging",
    "ReceiverChain",
    "Simulations",
    "Simulator",
    "TimeDelay",
    "Tone",
    "Truncated",
    "Varied",
]


def __dir__() -> list[str]:
    return __all__
