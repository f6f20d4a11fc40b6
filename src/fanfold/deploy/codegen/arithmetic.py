"""Rows for operations entry by entry that are more than one line of C: with bounds, exponents, factors, roundings."""

from typing import Any

import torch
from torch import fx

from fanfold.deploy.codegen.nests import Pending
from fanfold.deploy.codegen.scalars import LARGER, LINES, POWERS, SMALLER, WHOLE, Line
from fanfold.deploy.codegen.writer import Operand, Writer, name_of, row

BELOW = "{0} < {1} ? {1} : {0}"  # bounds that are numbers are not NaN, and an entry that is stays
ABOVE = "{0} > {1} ? {1} : {0}"


def _plain(bound: Operand) -> bool:
    return isinstance(bound, int | float)


@row("clamp", "hardtanh")
def bounded(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pending:
    """Entries within bounds; the upper one where they cross."""
    out = node.meta["val"]
    low = args[1] if len(args) > 1 else kwargs.get("min")
    high = args[2] if len(args) > 2 else kwargs.get("max")
    value = args[0]
    if low is not None:
        line = Line(BELOW if _plain(low) else LARGER)
        value = writer.let(line, [value, low], out.shape, out.dtype, len(node.users) if high is None else 1)
    if high is not None:
        line = Line(ABOVE if _plain(high) else SMALLER)
        inner = value if isinstance(value, Pending) and low is not None else None
        value = writer.let(line, [value, high], out.shape, out.dtype, len(node.users))
        if inner is not None:
            inner.uses[0] -= 1
    return value


@row("add", "sub")
def summed(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pending:
    """A sum or a difference, of a multiple of the second operand."""
    out, alpha = node.meta["val"], kwargs.get("alpha", 1)
    name = name_of(node)
    line = LINES[name]
    if out.dtype == torch.bool:
        line = Line("{0} | {1}")
    if alpha == 1:
        return writer.let(line, args[:2], out.shape, out.dtype, len(node.users))
    sign = "-" if name == "sub" else "+"
    return writer.let(Line(f"{{0}} {sign} {{1}} * {{2}}"), [*args[:2], alpha], out.shape, out.dtype, len(node.users))


@row("mul")
def scaled(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pending:
    """A product entry by entry."""
    out = node.meta["val"]
    line = Line("{0} & {1}") if out.dtype == torch.bool else LINES["mul"]
    return writer.let(line, args[:2], out.shape, out.dtype, len(node.users))


@row("pow")
def power(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pending:
    """Powers; products and roots where the exponent is one of these."""
    out, exponent = node.meta["val"], args[1]
    if _plain(exponent) and float(exponent) in POWERS:
        return writer.let(Line(POWERS[float(exponent)]), args[:1], out.shape, out.dtype, len(node.users))
    return writer.let(LINES["pow"], args[:2], out.shape, out.dtype, len(node.users))


@row("div")
def divided(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pending:
    """Quotients, rounded if so wished."""
    out, mode = node.meta["val"], kwargs.get("rounding_mode")
    text = LINES["div"].text
    if mode is not None and out.dtype.is_floating_point:
        text = f"{mode}{{f}}({{0}} / {{1}})"
    elif mode is not None:
        text = WHOLE[f"div_{mode}"]
    return writer.let(Line(text), args[:2], out.shape, out.dtype, len(node.users))
