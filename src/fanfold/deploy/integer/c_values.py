"""Where the values of an integer program lie in its C, and the constants and helpers that its loops share."""

from collections.abc import Callable

import numpy as np

from fanfold.deploy.integer.c_text import BYTES, C_TYPES, constant, narrowest
from fanfold.deploy.integer.operations import Const, content
from fanfold.deploy.integer.program import IntegerProgram

IN_LANES, WITHOUT_LANES = "#if LANES", "#if !LANES"


class CValues:
    """The C arrays of values and constants, and what the loops over them need beside them.

    Args:
        program: The program.
        place: The C array in which a value lies.
        prefix: What the names of constants begin with.

    Attributes:
        constants: The text of the constant arrays, each once.
        constant_bytes: The bytes of these arrays.
        needs: The names of helper functions.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer import Draft
        >>> from fanfold.deploy.integer.c_values import CValues
        >>> draft = Draft("minus")
        >>> y = draft.input("y", (2,), "int8")
        >>> draft.output(draft.sub(y, y, name="x_hat"), (2,))
        >>> values = CValues(draft.finish(), lambda name: name)
        >>> values.constant("k", np.array([1, 2])), values.constant("again", np.array([1, 2])), len(values.constants)
        ('k', 'k', 1)
    """

    def __init__(self, program: IntegerProgram, place: Callable[[str], str], prefix: str = ""):
        self.program, self.place, self.prefix = program, place, prefix
        self.rows = {row.operation: row for row in program.proof.rows}
        self.constants: list[str] = []
        self.constant_bytes = 0
        self.needs: set[str] = set()
        self._named: dict[tuple, str] = {}  # constants by their content
        self._numbers = {op.name: op for op in program.operations if isinstance(op, Const)}

    def whole(self, name: str) -> str:
        """The C array of a value, or of a constant."""
        op = self._numbers.get(name)
        return self.place(name) if op is None else self.constant(f"k_{name}", op.values, C_TYPES[op.dtype])

    def constant(self, name: str, values: np.ndarray, ctype: str | None = None, only: str = "") -> str:
        """The name of a constant array of these numbers: an older one where they are the same.

        Args:
            name: What it is called if it is new.
            values: The numbers.
            ctype: Their type in C; the narrowest if None.
            only: The line of the preprocessor under which alone it is there; always if empty.
        """
        ctype = ctype or narrowest(values)
        key = (only, ctype, *content(values))
        if key not in self._named:
            self._named[key] = name = f"{self.prefix}{name}"
            text = constant(ctype, name, values)
            self.constants += [only, text, "#endif"] if only else [text]
            if only != IN_LANES:  # which is there instead of others
                self.constant_bytes += values.size * BYTES[ctype]
        return self._named[key]

    def either(self, name: str, packed: np.ndarray, rows: np.ndarray) -> tuple[str, str]:
        """The names of weights as lanes take them, and row by row: a compiler sees the one or the other."""
        name = f"{self.prefix}{name}"
        names = f"lanes_{name}", name
        key = ("either", *content(packed), *content(rows))
        if key not in self._named:
            self._named[key] = name
            ctype = C_TYPES[rows.dtype.name]
            aligned = constant(C_TYPES[packed.dtype.name], names[0], packed).replace("] = {", "] ALIGNED = {", 1)
            self.constants += [IN_LANES, aligned, "#else", constant(ctype, name, rows), "#endif"]
            self.constant_bytes += rows.size * BYTES[ctype]
            self.needs.add("lanes")
        return f"lanes_{self._named[key]}", self._named[key]
