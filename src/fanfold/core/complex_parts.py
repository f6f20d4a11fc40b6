"""Complex arrays that a file stores as two real ones, such as `re` and `im`, or `H_real` and `H_imag`."""

import re
from collections.abc import Iterable

PARTS = {"re": "im", "real": "imag", "r": "i"}
ENDING = re.compile(r"(?:^|(?P<base>.*?)[_./-])(?P<part>re|real|r)$", re.IGNORECASE | re.DOTALL)


def complex_parts(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The arrays of a file that are real and imaginary part of one, by the name of that one.

    What stands alone is called "" then, as the array of an .npy file is; an array of the whole's name, if there is one,
    has the right to it.

    Args:
        names: The names of all arrays.

    Example:
        >>> from fanfold.core.complex_parts import complex_parts
        >>> complex_parts(["H_re", "H_im", "time"]), complex_parts(["re", "im"])
        ({'H': ('H_re', 'H_im')}, {'': ('re', 'im')})
    """
    listed = [*names]
    folded = {name.lower(): name for name in listed}
    parts: dict[str, tuple[str, str]] = {}
    for name in listed:
        ending = ENDING.match(name)
        if ending is None:
            continue
        part = ending["part"]
        imaginary = folded.get((name[: len(name) - len(part)] + PARTS[part.lower()]).lower())
        whole = ending["base"] or ""
        if imaginary is not None and whole not in listed:
            parts[whole] = (name, imaginary)
    return parts
