"""C for estimators in single precision: from a traced program to loop nests, their text, and a compiled estimator."""

from fanfold.deploy.codegen.build import compile_shared, find_compiler
from fanfold.deploy.codegen.compiled import CompiledC, compiled
from fanfold.deploy.codegen.to_c import CFiles, to_c
from fanfold.deploy.codegen.wasm import to_wasm

__all__ = ["CFiles", "CompiledC", "compile_shared", "compiled", "find_compiler", "to_c", "to_wasm"]
