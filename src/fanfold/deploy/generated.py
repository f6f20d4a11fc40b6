"""What the text of generated C shares, whether it computes in floats or in whole numbers."""

from collections.abc import Sequence


def indented(lines: Sequence[str], depth: int = 1) -> list[str]:
    """Lines, so many steps to the right."""
    return ["    " * depth + line for line in lines]


def in_lines(words: Sequence[str], count: int, between: str) -> list[str]:
    """Words in lines of so many, with this text between those of a line."""
    return [between.join(words[k : k + count]) for k in range(0, len(words), count)]


def header_lines(guard: str, declared: Sequence[str], prototype: str) -> list[str]:
    """A header from its guard to its end, for C and C++.

    Args:
        guard: The name of the files, in capitals.
        declared: What stands between `<stdint.h>` and the prototype.
        prototype: The function, without semicolon.
    """
    return [
        f"#ifndef {guard}_H",
        f"#define {guard}_H",
        "",
        "#include <stdint.h>",
        "",
        *declared,
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"{prototype};",
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
    ]
