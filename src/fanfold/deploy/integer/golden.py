"""Golden vectors: inputs of an integer program and what the player makes of them, also as text for test benches."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fanfold.deploy.generated import in_lines
from fanfold.deploy.integer.operations import BITS
from fanfold.deploy.integer.player import play
from fanfold.deploy.integer.program import IntegerPort, IntegerProgram

COUNT = 8
WORDS_A_LINE = 16


class GoldenVectors(NamedTuple):
    """Vectors `(count, *shape)` for each port, by its name; made by `golden_vectors`.

    Example:
        >>> from fanfold.deploy.integer import Draft, golden_vectors
        >>> draft = Draft("half")
        >>> y = draft.input("y", (4,), "int8")
        >>> draft.output(draft.rescale(y, 1, name="x_hat"), (4,))
        >>> golden_vectors(draft.finish()).outputs["x_hat"][:2].tolist()
        [[-64, -64, -64, -64], [64, 64, 64, 64]]
    """

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]


def golden_vectors(
    program: IntegerProgram, inputs: Mapping[str, np.ndarray] | None = None, count: int = COUNT, seed: int = 0
) -> GoldenVectors:
    """Golden vectors for given inputs, or for drawn ones.

    Drawn are the least and the greatest value of each port in all entries, then values of any size: each sample is
    uniform within a power of two of its own.

    Args:
        program: The program.
        inputs: The inputs `(count, *shape)` of each port; drawn if not given.
        count: How many vectors are drawn.
        seed: The seed of the draws.

    Raises:
        ValueError: If the inputs are not those of the program's ports.
    """
    if inputs is None:
        rng = np.random.default_rng(seed)
        inputs = {port.name: _drawn(port, count, rng) for port in program.inputs}
    outputs = play(program, inputs)
    return GoldenVectors({port.name: np.asarray(inputs[port.name]) for port in program.inputs}, outputs)


def _drawn(port: IntegerPort, count: int, rng: np.random.Generator) -> np.ndarray:
    bits = BITS[port.dtype]
    most = 2 ** rng.integers(1, bits, (count, *(1,) * len(port.shape)))
    values = rng.integers(-most, most, (count, *port.shape))
    values[:1], values[1:2] = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return values.astype(port.dtype)


def hex_text(port: IntegerPort, vectors: np.ndarray) -> str:
    """Vectors of a port as hexadecimal words in two's complement, which `$readmemh` reads; a comment says the rest.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer import IntegerPort, hex_text
        >>> print(hex_text(IntegerPort("y", (3,), "int16", fraction=12), np.array([[1, -1, -32768]])), end="")
        // y: 1 vectors of 3 words, int16, Q3.12, real, unit 1
        // vector 0
        0001 ffff 8000
    """
    bits, shape = BITS[port.dtype], "x".join(map(str, port.shape))
    lines = [
        f"// {port.name}: {len(vectors)} vectors of {shape} words, {port.dtype}, {port.q_format}, {port.layout}, "
        f"unit {port.unit}"
    ]
    for i, vector in enumerate(vectors):
        lines.append(f"// vector {i}")
        words = [f"{int(value) & ((1 << bits) - 1):0{bits // 4}x}" for value in vector.ravel()]
        lines += in_lines(words, WORDS_A_LINE, " ")
    return "\n".join(lines) + "\n"


def hex_vectors(port: IntegerPort, text: str) -> np.ndarray:
    """The vectors `(count, *shape)` of a text that `hex_text` wrote.

    Raises:
        ValueError: If it holds something else than words of the port's width, or not whole vectors.
    """
    bits = BITS[port.dtype]
    words = " ".join(line for line in text.splitlines() if not line.startswith("//")).split()
    if any(len(word) != bits // 4 for word in words) or len(words) % port.size:
        raise ValueError(f"the text holds {len(words)} words; pass vectors of {port.size} words of {bits} bits.")
    unsigned = np.array([int(word, 16) for word in words], dtype=np.int64)
    values = np.where(unsigned >> (bits - 1), unsigned - (1 << bits), unsigned)
    return values.reshape(-1, *port.shape).astype(port.dtype)
