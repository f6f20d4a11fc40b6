"""Random small integer programs: any operation after any other that is proved to fit."""

import numpy as np
from hypothesis import strategies as st

from fanfold.deploy.integer import Draft, IntegerProgram


@st.composite
def integer_programs(draw, most_operations: int = 8) -> IntegerProgram:
    """A program of up to so many operations, each on values that are there; what cannot be proved is left out."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    draft = Draft("p")
    size = draw(st.sampled_from([1, 2, 6, 12]))
    draft.input("y", (size,), draw(st.sampled_from(["int8", "int16"])))
    draft.input("v", (1,), draw(st.sampled_from(["int8", "int16"])))
    for _ in range(draw(st.integers(1, most_operations))):
        kind = draw(st.sampled_from(sorted(APPEND)))
        value = draw(st.sampled_from(sorted(draft.sizes)))
        try:
            APPEND[kind](draft, rng, value)
        except ValueError as refusal:
            if not any(word in str(refusal) for word in ("may reach", "beyond")):  # it might overflow
                raise
    if not draft.operations:
        draft.clamp("y", -3, 3)
    shown = [op.name for op in draft.operations if draft.dtypes[op.name] != "int48"]
    shown = shown or [draft.clamp(draft.operations[-1].name, -100, 100)]
    for name in shown[-3:]:
        draft.output(name, (draft.sizes[name],))
    return draft.finish()


WIDE_ENDS = 2**24 + 3  # of a clamp that single precision does not carry


def narrow(draft: Draft, rng: np.random.Generator, value: str) -> str:
    """The value, or one that is clamped to what a product takes."""
    if draft.dtypes[value] in ("int8", "int16"):
        return value
    most = int(rng.choice([127, 2000, 32767]))
    return draft.clamp(value, -most - int(rng.integers(2)), most)


def matmul(draft, rng, value):
    source = narrow(draft, rng, value)
    size = draft.sizes[source]
    outer, inner = (int(rng.choice([d for d in (1, 2, 3) if (size // k) % d == 0])) for k in (1, 1))
    if size % (outer * inner):
        outer, inner = 1, 1
    dtype, most = [(np.int8, 127), (np.int8, 60), (np.int16, 32767)][rng.integers(3)]
    rows = int(rng.integers(1, 5))
    weights = rng.integers(-most - 1, most + 1, (rows, size // (outer * inner))).astype(dtype)
    draft.matmul(source, weights, outer, inner)


def shifts(rng, size):
    return rng.integers(-3, 12, int(rng.choice([1, size])))


def clamp(draft, rng, value):
    size = int(rng.choice([1, draft.sizes[value]]))
    low = rng.integers(-300, 100, size)
    draft.clamp(value, low, low + rng.integers(0, 300, size))


def lookup(draft, rng, value):
    source = draft.clamp(value, -17, 20)
    draft.lookup(source, -17, rng.integers(-(2**15), 2**15, 38))


def bank(draft, rng, value):
    rows = int(rng.integers(2, 6))
    edges = np.sort(rng.choice(np.arange(-100, 100), rows - 1, replace=False))
    source = draft.clamp(value, -9, 9)
    pickers = [name for name, size in draft.sizes.items() if size in (1, draft.sizes[value])]
    draft.bank(source, str(rng.choice(pickers)), edges, -9, rng.integers(-128, 128, (rows, 19)))


def const(draft, rng, value):
    draft.const(rng.integers(-(2 ** int(rng.integers(1, 30))), 1000, draft.sizes[value]))


def binary(name):
    def append(draft, rng, value):
        others = [other for other, size in draft.sizes.items() if size in (1, draft.sizes[value])]
        getattr(draft, name)(value, str(rng.choice(others)))

    return append


def transpose(draft, rng, value):
    size = draft.sizes[value]
    shape = (2, 3, size // 6) if size % 6 == 0 else (1, size)
    draft.transpose(value, shape, tuple(int(a) for a in rng.permutation(len(shape))))


def windows(draft, rng, value):
    size = draft.sizes[value]
    shape = (2, 3, size // 6) if size % 6 == 0 else (1, size, 1)
    if size <= 48:  # what is seen through windows of 9 grows fast
        draft.windows(value, shape, (int(rng.choice([1, 3])), int(rng.choice([1, 3, 5]))))


def join(draft, rng, value):
    other = str(rng.choice(sorted(draft.sizes)))
    sizes = draft.sizes[value], draft.sizes[other]
    if sum(sizes) <= 100:
        draft.join(value, other, int(rng.choice([d for d in (1, 2, 3, 6) if not any(size % d for size in sizes)])))


APPEND = {
    "matmul": matmul,
    "rescale": lambda draft, rng, value: draft.rescale(value, shifts(rng, draft.sizes[value])),
    "clamp": clamp,
    "lookup": lookup,
    "bank": bank,
    "const": const,
    "add": binary("add"),
    "sub": binary("sub"),
    "mul": binary("mul"),
    "transpose": transpose,
    "windows": windows,
    "join": join,
}


def everything() -> IntegerProgram:
    """A program of all operations: bytes, words, sums of 48 bits by blocks, factors of a product, shifts both ways."""
    rng, draft = np.random.default_rng(0), Draft("p")
    y, v = draft.input("y", (70,), "int8"), draft.input("v", (1,), "int16")
    wide = draft.matmul(y, rng.integers(-127, 128, (130, 70)).astype(np.int8))
    kept = draft.clamp(draft.rescale(wide, 6), -127, 127)
    words = draft.clamp(wide, -32768, 32767)
    sums = draft.matmul(words, rng.integers(-3000, 3000, (9, 130)).astype(np.int16))
    broad = draft.clamp(draft.matmul(y, rng.integers(-127, 128, (300, 70)).astype(np.int8)), -32768, 32767)
    draft.matmul(broad, np.full((2, 300), -32768, np.int16), name="most")
    draft.rescale(draft.matmul(broad, np.full((1, 300), 32767, np.int16)), 20, name="pairs")
    small = draft.clamp(draft.rescale(sums, 12), -100, 100)
    edges = np.array([-300, 0, 500])
    picked = draft.bank(small, v, edges, -100, rng.integers(-128, 128, (4, 201)), name="picked")
    each = draft.bank(small, sums, edges * 1000, -100, rng.integers(-(2**20), 2**20, (4, 201)), name="each")
    draft.rescale(draft.mul(kept, v), np.arange(130) % 7 - 1, name="scaled")
    turned = draft.transpose(kept, (10, 13), (1, 0))
    draft.matmul(turned, rng.integers(-127, 128, (3, 13)).astype(np.int8), 1, 10, name="inner")
    draft.matmul(kept, rng.integers(-127, 128, (4, 13)).astype(np.int8), 10, 1, name="outer")
    seen = draft.windows(draft.join(turned, kept, 10, name="both"), (5, 4, 13), (3, 3))
    draft.matmul(seen, rng.integers(-127, 128, (4, 117)).astype(np.int8), 20, 1, name="convolved")
    draft.windows("both", (13, 10, 2), (1, 3), name="around")
    draft.matmul(wide, rng.integers(-127, 128, (2, 130)).astype(np.int8), name="wide_sums")
    draft.rescale("wide_sums", 16, name="of_sums")
    draft.sub(draft.lookup(picked, -128, np.arange(256) ** 2), draft.const(np.arange(9) - 4), name="square")
    draft.rescale(draft.add("most", draft.const([2**31 + 5, -(2**31)])), 20, name="shown")
    for name in (
        picked,
        each,
        "scaled",
        "inner",
        "outer",
        "square",
        "shown",
        "pairs",
        "convolved",
        "around",
        "of_sums",
    ):
        draft.output(name, (draft.sizes[name],))
    return draft.finish()


def looked_at(program: IntegerProgram) -> IntegerProgram:
    """The same operations, their wide values shown by what is cut off on both sides, and by their first digits."""
    draft = Draft("looked")
    for port in program.inputs:
        draft.input(port.name, port.shape, port.dtype)
    for op in program.operations:
        draft.copy(op)
    for name, held in program.proof.ranges.items():
        low, high = held.span
        if max(-low, high) <= 2**23:
            shown = [draft.clamp(name, low, high)]
        else:
            cut = draft.clamp(name, -WIDE_ENDS, 2**40 + 1 if high > 2**41 else WIDE_ENDS)
            shown = [draft.clamp(name, -4_000_000, 4_100_000), draft.rescale(name, 25), draft.rescale(cut, 20)]
        for value in shown:
            draft.output(draft.clamp(value, -(2**23), 2**23), (draft.sizes[value],))
    return draft.finish()


def all_shown() -> IntegerProgram:
    """The program of all operations, of which every value is looked at."""
    return looked_at(everything())


def random_inputs(program: IntegerProgram, batch: int, seed: int) -> dict[str, np.ndarray]:
    """Inputs for a program; the first samples are the ends of each port's type."""
    rng, inputs = np.random.default_rng(seed), {}
    for port in program.inputs:
        info = np.iinfo(port.dtype)
        drawn = rng.integers(info.min, info.max, (batch, *port.shape), endpoint=True)
        drawn[0], drawn[1], drawn[2] = info.min, info.max, 0
        inputs[port.name] = drawn.astype(port.dtype)
    return inputs
