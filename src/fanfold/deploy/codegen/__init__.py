"""C for estimators in single precision: from a traced program to loop nests, their text, and a compiled estimator."""

from fanfold.deploy.codegen.build import compile_shared, find_compiler
from fanfold.deploy.codegen.compiled import CompiledC, compiled
from fanfold.deploy.codegen.to_c import CFiles, to_c, write_c
from fanfold.deploy.codegen.wasm import compile_wasm, host_functions, to_wasm

__all__ = [
    "CFiles", "CompiledC", "compile_shared", "compile_wasm", "compiled", "find_compiler", "host_functions", "to_c",
    "to_wasm", "write_c",
]  # fmt: skip
