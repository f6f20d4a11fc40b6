"""Machines on which generated C is played: compilers, their flags, and what starts their programs."""

import shutil
import subprocess

import pytest

SANITIZED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
MACHINES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "gcc": ("gcc", SANITIZED, ()),
    "gcc for this processor": ("gcc", ("-O3", "-march=native"), ()),
    "clang": ("clang", SANITIZED, ()),
    "aarch64": ("aarch64-linux-gnu-gcc", ("-O2", "-static"), ("qemu-aarch64",)),
    "arm": ("arm-linux-gnueabihf-gcc", ("-O2", "-static"), ("qemu-arm",)),
    "avx2 without vnni": ("gcc", ("-O3", "-mavx2", "-static"), ("qemu-x86_64", "-cpu", "Haswell")),
}


def need(*programs: str) -> None:
    """Skip a test where a program is missing; .ci/run installs them all."""
    if missing := [name for name in programs if shutil.which(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}")


def need_browser(*modules: str) -> None:
    """Skip a test where Node, Chromium or a module of Node is missing; .ci/run installs them all."""
    need("node", "chromium")
    wanted = "; ".join(f"require.resolve('{name}')" for name in modules)
    if subprocess.run(["node", "-e", wanted], capture_output=True).returncode:
        pytest.skip(f"needs {' and '.join(modules)} in NODE_PATH; .ci/run installs them")
