"""Arrays of numbers in MATLAB's .mat files of version 5 to 7, as "MAT-File Level 5 File Format" (MathWorks) says.

SciPy's reader ends the process where a tag was damaged, so that it is not to be had for files that people send; what is
read here is but the numbers.
"""

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

HEADER, MATRIX, COMPRESSED = 128, 14, 15
# by their numbers, data types of what is stored and of what it is read as
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
COMPLEX = {"f8": "c16", "f4": "c8"}
HEAD_BYTES = 4096  # that hold flags, extent and name of an array


class Elements:
    """Elements of a file one after another: tag, data, and zeros up to the next multiple of eight bytes.

    Args:
        content: Their bytes.
        order: `"<"` or `">"`, the order of bytes in numbers.

    Example:
        >>> from fanfold.core.matlab_files import Elements
        >>> kind, data = Elements(bytes([1, 0, 0, 0, 2, 0, 0, 0, 65, 66, 0, 0, 0, 0, 0, 0]), "<").take()
        >>> kind, bytes(data)
        (1, b'AB')
    """

    def __init__(self, content: bytes | memoryview, order: str):
        self.content, self.order, self.at = memoryview(content), order, 0

    def take(self, whole: bool = True) -> tuple[int, memoryview]:
        """The kind and the data of the next element.

        Raises:
            ValueError: If it is cut short; unless it need not be whole.
        """
        kind, size = np.frombuffer(self.content, f"{self.order}u4", 2, self.at).tolist()
        begin, small = self.at + 8, kind >> 16
        if small:  # up to four bytes stand in the tag itself
            kind, size, begin = kind & 0xFFFF, small, self.at + 4
        end = begin + size
        if whole and (end > len(self.content) or (small and size > 4)):
            raise ValueError(f"an element of {size} bytes is cut short")
        self.at = self.at + 8 if small else end if kind == COMPRESSED else begin + -(-size // 8) * 8
        return kind, self.content[begin:end]


class Matrix(NamedTuple):
    """What stands before the numbers of an array.

    Attributes:
        name: The name of the variable.
        shape: Its extent.
        dtype: Its data type; empty where it is none of numbers.
        rest: The elements with the numbers: the real parts, then the imaginary ones of complex data.

    Example:
        >>> from fanfold.core.matlab_files import Elements, Matrix
        >>> Matrix("H", (2, 3), "c16", Elements(b"", "<")).name
        'H'
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    rest: Elements


def matrices(path: Path, *, heads: bool) -> Iterator[Matrix]:
    """The variables of a file, as far as they are of numbers.

    Args:
        path: The file.
        heads: Decompress no more than what says their names and extents.

    Raises:
        ValueError: If the file is damaged, or is of version 4.
    """
    content = np.memmap(path, np.uint8, "r").data
    order = {b"IM": "<", b"MI": ">"}.get(bytes(content[126:128]))
    if order is None:
        raise ValueError("it is no MATLAB file of version 5 to 7.3; save it with -v7")
    elements = Elements(content[HEADER:], order)
    while elements.at < len(elements.content):
        kind, data = elements.take()
        if kind == COMPRESSED:
            unpacker, most = zlib.decompressobj(), HEAD_BYTES
            start = unpacker.decompress(data, most)
            if not heads:
                size = np.frombuffer(start, f"{order}u4", 2)[1]
                start += unpacker.decompress(unpacker.unconsumed_tail, max(1, int(size) + 8 - len(start)))
            kind, data = Elements(start, order).take(whole=not heads)
        if kind == MATRIX and (matrix := _matrix(Elements(data, order))).dtype:
            yield matrix


def _matrix(parts: Elements) -> Matrix:
    flags = np.frombuffer(parts.take()[1], f"{parts.order}u4", 1).item()
    shape = tuple(np.frombuffer(parts.take()[1], f"{parts.order}i4").tolist())
    name = bytes(parts.take()[1]).decode()
    dtype = CLASSES.get(flags & 0xFF, "")
    return Matrix(name, shape, COMPLEX.get(dtype, "") if flags & 0x800 else dtype, parts)


def array_in(path: Path, name: str) -> np.ndarray:
    """The numbers of a variable.

    Raises:
        ValueError: If there is none of that name, or it has not the numbers that its extent says.
    """
    matrix = next((matrix for matrix in matrices(path, heads=False) if matrix.name == name), None)
    if matrix is None:
        raise ValueError(f"it has no array {name!r}")
    parts = [_numbers(matrix) for _ in range(2 if matrix.dtype in COMPLEX.values() else 1)]
    array = parts[0] + 1j * parts[1] if len(parts) == 2 else parts[0]
    return array.astype(matrix.dtype).reshape(matrix.shape, order="F")


def _numbers(matrix: Matrix) -> np.ndarray:
    kind, data = matrix.rest.take()
    if kind not in STORED or min(matrix.shape, default=-1) < 0:
        raise ValueError(f"{matrix.name} is damaged")
    values = np.frombuffer(data, matrix.rest.order + STORED[kind])
    if len(values) != math.prod(matrix.shape):
        raise ValueError(f"{matrix.name} has {len(values)} numbers and is said to be of shape {matrix.shape}")
    return values
