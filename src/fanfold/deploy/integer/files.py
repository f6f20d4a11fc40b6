"""Integer programs as files: arrays in safetensors, the rest as JSON in its header. Nothing is pickled."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load, save

from fanfold.core.files import read_regular, write_whole
from fanfold.deploy.integer.operations import KINDS, Operation, content, plain_fields
from fanfold.deploy.integer.program import IntegerPort, IntegerProgram

SCHEMA = 1
REFUSED = (ValueError, TypeError, KeyError, OverflowError, RecursionError, safetensors.SafetensorError)
HEADER_BYTES = 8  # a little-endian number: the length of what follows
PORT = {"name": str, "shape": tuple, "dtype": str, "fraction": int, "layout": str, "unit": str}
PROGRAM = ("schema", "name", "inputs", "operations", "outputs", "sha256")


def program_bytes(program: IntegerProgram) -> bytes:
    """The program as a file holds it; the same program gives the same bytes."""
    names: dict[tuple, str] = {}
    arrays, operations = {}, []
    for i, op in enumerate(program.operations):
        part = {"kind": op.kind} | {field: vars(op)[field] for field in plain_fields(type(op))}
        for field, values in op.numbers.items():
            part[field] = names.setdefault(content(values), f"{i:05d}.{field}")
            arrays.setdefault(part[field], values)
        operations.append(part)
    facts = {
        "schema": SCHEMA,
        "name": program.name,
        "inputs": [{field: vars(port)[field] for field in PORT} for port in program.inputs],
        "operations": operations,
        "outputs": [{field: vars(port)[field] for field in PORT} for port in program.outputs],
        "sha256": checksum(arrays),
    }
    return save(arrays, metadata={"fanfold": json.dumps(facts)})


def fingerprint_of_program(program: IntegerProgram) -> str:
    """The SHA-256 of all that the program is, in hexadecimal digits."""
    return hashlib.sha256(program_bytes(program)).hexdigest()


def save_program(program: IntegerProgram, path: str | Path) -> Path:
    """Write a program to a file, which is there whole or not at all.

    Raises:
        OSError: If it cannot be written; an older file is unharmed.

    Example:
        >>> import pathlib, tempfile, numpy as np
        >>> from fanfold.deploy.integer import Clamp, IntegerPort, IntegerProgram, load_program, save_program
        >>> y, x_hat = IntegerPort("y", (4,), "int8"), IntegerPort("x_hat", (4,), "int8")
        >>> program = IntegerProgram("p", (y,), (Clamp("x_hat", "y", np.array([0]), np.array([9]), "int8"),), (x_hat,))
        >>> path = save_program(program, pathlib.Path(tempfile.mkdtemp(), "p.safetensors"))
        >>> load_program(path).operations[0].high
        array([9])
    """
    write_whole(Path(path), program_bytes(program))
    return Path(path)


def load_program(path: str | Path) -> IntegerProgram:
    """Read a program that `save_program` wrote. Its ranges are proved again: the file is not believed.

    Raises:
        ValueError: If the file is missing, no plain file, cut short, changed, or holds no program that is proved.
    """
    content = read_regular(Path(path))
    try:
        return program_from(content)
    except REFUSED as error:
        raise ValueError(f"{path} is no integer program: {error} Restore it from a copy, or make it anew.") from error


def program_from(content: bytes) -> IntegerProgram:
    """The program that bytes hold, as `program_bytes` gave them.

    Raises:
        ValueError: If they hold none.
    """
    facts, arrays = _facts(content), load(content)
    _exactly(facts, PROGRAM, "the program")
    if facts["schema"] != SCHEMA:
        raise ValueError(f"its schema is {str(facts['schema'])[:20]}, and {SCHEMA} is read.")
    if facts["sha256"] != checksum(arrays):
        raise ValueError("its checksum does not match its arrays.")
    operations = tuple(_operation(i, part, arrays) for i, part in enumerate(_parts(facts["operations"])))
    if len(arrays) > sum(len(op.arrays) for op in operations):
        raise ValueError(f"it has {len(arrays)} arrays, more than its operations have.")
    inputs, outputs = (tuple(_port(part) for part in _parts(facts[which])) for which in ("inputs", "outputs"))
    return IntegerProgram(_typed(facts["name"], str, "name"), inputs, operations, outputs)


def checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """The SHA-256 of arrays with their names, types and shapes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.name} {arrays[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def _facts(content: bytes) -> dict[str, Any]:
    """The program's JSON, from the header of safetensors, which is not read further than the file goes."""
    length = int.from_bytes(content[:HEADER_BYTES], "little")
    if len(content) < HEADER_BYTES or length > len(content) - HEADER_BYTES:
        raise ValueError("it is cut short, or no safetensors file.")
    header = json.loads(content[HEADER_BYTES : HEADER_BYTES + length])
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("fanfold"), str):
        raise ValueError("its header has no program.")
    facts = json.loads(metadata["fanfold"])
    if not isinstance(facts, dict):
        raise ValueError("its header has no program.")
    return facts


def _parts(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        raise ValueError("its ports and operations are no lists of objects.")
    return value


def _port(part: dict[str, Any]) -> IntegerPort:
    _exactly(part, PORT, "a port")
    return IntegerPort(**{name: _typed(part[name], kind, name) for name, kind in PORT.items()})


def _operation(i: int, part: dict[str, Any], arrays: dict[str, np.ndarray]) -> Operation:
    kind = KINDS.get(str(part.get("kind")))
    if kind is None:
        raise ValueError(f"operation {i} is {str(part.get('kind'))[:40]!r}; known are {', '.join(KINDS)}.")
    plain = plain_fields(kind)
    _exactly(part, ("kind", *plain, *kind.arrays), f"operation {i}")
    values: dict[str, Any] = {name: _typed(part[name], wanted, name) for name, wanted in plain.items()}
    for field in kind.arrays:
        name = _typed(part[field], str, field)
        if name not in arrays:
            raise ValueError(f"operation {i} lacks its {field}.")
        values[field] = arrays[name]
    return kind(**values)


def _exactly(part: Mapping[str, Any], fields: Mapping[str, Any] | tuple[str, ...], what: str) -> None:
    if set(part) != set(fields):
        raise ValueError(f"{what} has the fields {sorted(part)[:12]}; they are {sorted(fields)}.")


def _typed(value: Any, kind: type, name: str) -> Any:
    """The value, where it is of this kind: a bool is no number, and tuples, of numbers, are lists in JSON."""
    if kind is tuple:
        if isinstance(value, list) and all(type(n) is int and abs(n) < 1 << 31 for n in value):
            return tuple(value)
    elif type(value) is kind and (kind is not int or abs(value) < 1 << 48):
        return value
    raise ValueError(f"{name} is {str(value)[:40]!r} in it, and no {kind.__name__}.")
