"""What a program wrote, read as numbers: nothing in it is run, and it takes no more memory than its length allows."""

import io
import json
import math
import warnings
from typing import Any

import numpy as np

DEEPEST = 100  # lists in lists that are read; arrays have 64 axes at most
NUMBER_KINDS = "biufc"  # of NumPy's types: truth values, integers, real and complex numbers
NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def understood(content: bytes) -> Any:
    """What a program wrote: an `.npy` array, JSON, or numbers as text.

    Raises:
        ValueError: If it is none of these.
    """
    try:
        if content.startswith(b"\x93NUMPY"):
            return _array(content)
        text = content.decode().strip()
        if text[:1] in ("[", "{"):
            return _listed(text, content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is nothing but comments
            numbers = np.loadtxt(io.StringIO(text), ndmin=1)
    except ValueError:
        raise
    except Exception as error:  # of a garbled header anything may come, such as SyntaxError and MemoryError
        raise ValueError(f"it cannot be read ({type(error).__name__}: {error})") from error
    if numbers.size == 0:
        raise ValueError("the observation is empty")
    return numbers


def _array(content: bytes) -> np.ndarray:
    """An `.npy` array, if all of it is there."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"the .npy array has format {version}; arrays of numbers have (1, 0) or (2, 0)")
    shape, _, dtype = HEADERS[version](file)
    if dtype.kind not in NUMBER_KINDS:
        raise ValueError(f"the .npy array holds {dtype} and not numbers")
    needed, there = math.prod(shape) * dtype.itemsize, len(content) - file.tell()
    if min(shape, default=0) < 0 or needed > there:
        raise ValueError(f"the .npy array is cut short: shape {shape} takes {needed} bytes, and {there} are there")
    file.seek(0)
    return np.load(file, allow_pickle=False)


def _listed(text: str, content: bytes) -> Any:
    """The observation of a JSON list or object."""
    brackets = np.frombuffer(content.translate(None, NOT_BRACKETS), np.uint8)
    depth = np.cumsum(np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1), dtype=np.int32).max()
    if depth > DEEPEST:  # the parser calls itself for each
        raise ValueError(f"the JSON has {depth} lists in lists; an array of at most three axes is read")
    answer = json.loads(text, parse_int=float)  # integers may be of any length
    if isinstance(answer, dict) and "y" not in answer:
        raise ValueError(f"the JSON object has no entry y; it has {', '.join(answer) or 'none'}")
    return answer["y"] if isinstance(answer, dict) else answer
