"""Integer programs: what a receiver computes in whole numbers, defined once and given elsewhere bit for bit."""

from fanfold.deploy.integer import c_called as c_called  # which enters its row of C
from fanfold.deploy.integer.c_source import IntegerC, program_to_c
from fanfold.deploy.integer.calibrate import to_integers
from fanfold.deploy.integer.draft import Draft
from fanfold.deploy.integer.drafting import Drafting, drafted
from fanfold.deploy.integer.estimator import CompiledProgram, IntegerEstimator, compiled
from fanfold.deploy.integer.files import fingerprint_of_program, load_program, save_program
from fanfold.deploy.integer.golden import GoldenVectors, golden_vectors, hex_text, hex_vectors
from fanfold.deploy.integer.intervals import Range, UnprovedError
from fanfold.deploy.integer.onnx_form import program_to_onnx
from fanfold.deploy.integer.operations import (
    Add,
    Bank,
    Clamp,
    Const,
    Join,
    Lookup,
    MatMul,
    Mul,
    Operation,
    Rescale,
    Sub,
    Transpose,
    Windows,
)
from fanfold.deploy.integer.player import play, values_of
from fanfold.deploy.integer.program import IntegerPort, IntegerProgram
from fanfold.deploy.integer.ranges import Proof, RangeRow
from fanfold.deploy.integer.single_precision import in_single_precision
from fanfold.deploy.integer.torch_form import TorchProgram
from fanfold.deploy.integer.wasm_form import program_to_wasm

__all__ = [
    "Add",
    "Bank",
    "Clamp",
    "CompiledProgram",
    "Const",
    "Draft",
    "Drafting",
    "GoldenVectors",
    "IntegerC",
    "IntegerEstimator",
    "IntegerPort",
    "IntegerProgram",
    "Join",
    "Lookup",
    "MatMul",
    "Mul",
    "Operation",
    "Proof",
    "Range",
    "RangeRow",
    "Rescale",
    "Sub",
    "TorchProgram",
    "Transpose",
    "UnprovedError",
    "Windows",
    "compiled",
    "drafted",
    "fingerprint_of_program",
    "golden_vectors",
    "hex_text",
    "hex_vectors",
    "in_single_precision",
    "load_program",
    "play",
    "program_to_c",
    "program_to_onnx",
    "program_to_wasm",
    "save_program",
    "to_integers",
    "values_of",
]


def __dir__() -> list[str]:
    return __all__
