"""Matrix products of an integer program in C where a processor adds products of bytes, or of words, in 32-bit lanes.

Each of sixteen rows of weights has a lane, into which four bytes of x, or two words, go at once; weights lie so that
what the lanes take is one vector. Nothing is added across lanes, and a window of a picture is read where it lies. The
sums are those of `c_products`, bit for bit. The layout is that of Georganas et al. (2018), "Anatomy of high-performance
deep learning convolutions on SIMD architectures", section II.
"""

from typing import NamedTuple

import numpy as np

from fanfold.deploy.generated import indented
from fanfold.deploy.integer.c_values import IN_LANES, CValues
from fanfold.deploy.integer.operations import MatMul, Windows, highest, lowest
from fanfold.deploy.integer.ranges import OFFSET

LANES, UNIT_BYTES = 16, 4  # of a vector of 64 bytes, and what one takes of x at once
FEWEST_PLACES, FEWEST_ROWS = 4, 8  # from which it pays
PLACES = 8  # whose sums go together, in registers, while the weights of one vector of rows stay in the first cache
MOST_VECTORS = 6
FEWEST_SUMS = 6  # in flight, that no addition waits for the one before: of more vectors of rows where places are few
SWITCH = """\
/* Where a processor adds products of bytes or words in 32-bit lanes, sixteen rows of a matrix are summed at once. The
   numbers are the same. */
#if defined(__AVX512VNNI__)
#include <immintrin.h>
#include <string.h>
#define LANES 1
static inline __m512i in_all_lanes(const char *at)
{
    int32_t unit;
    memcpy(&unit, at, sizeof unit);
    return _mm512_set1_epi32(unit);
}
#define ALIGNED __attribute__((aligned(64)))
#define LANES_OF(left) ((__mmask16)((left) >= 16 ? 0xFFFF : (1u << (left)) - 1))
#else
#define LANES 0
#endif
"""
BYTES_LOOKED_UP = """\
/* Entries of a table for all bytes, first those from 0 on; by whole vectors where a processor does that. */
#if defined(__AVX512VBMI__) && defined(__AVX512BW__)
#include <immintrin.h>
#define BY_VECTORS 1
#else
#define BY_VECTORS 0
#endif
static void bytes_looked_up(const int8_t *x, int8_t *out, const int8_t *table, int32_t count)
{
    int32_t i = 0;
#if BY_VECTORS
    const __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 64);
    const __m512i t2 = _mm512_loadu_si512(table + 128), t3 = _mm512_loadu_si512(table + 192);
    for (; i + 64 <= count; i += 64) {
        const __m512i at = _mm512_loadu_si512(x + i);
        const __m512i low = _mm512_permutex2var_epi8(t0, at, t1), high = _mm512_permutex2var_epi8(t2, at, t3);
        _mm512_storeu_si512(out + i, _mm512_mask_blend_epi8(_mm512_movepi8_mask(at), low, high));
    }
#endif
    for (; i < count; i++) out[i] = table[(uint8_t)x[i]];
}
"""


class Picture(NamedTuple):
    """What a product reads: a picture of places with some channels, and how its windows lie in the padded one.

    Example:
        >>> from fanfold.deploy.integer.c_lanes import Picture
        >>> Picture(8, 12, 48, 3, 3).units(1)
        36
    """

    rows: int
    columns: int
    channels: int
    h: int
    w: int

    def units(self, entry: int) -> int:
        """How many units of four bytes a row of a window has, of entries of so many bytes."""
        return -(-self.w * self.channels * entry // UNIT_BYTES)

    def stride(self, entry: int) -> int:
        """Entries from place to place: those of a place by itself begin at a unit."""
        if self.h * self.w > 1:
            return self.channels
        return self.units(entry) * UNIT_BYTES // entry

    def entries(self, entry: int) -> int:
        """Entries of the padded picture, and of a unit that may begin before its end."""
        places = (self.rows + self.h - 1) * (self.columns + self.w - 1)
        return places * self.stride(entry) + UNIT_BYTES // entry


class LaneProducts:
    """Writes products in lanes.

    Args:
        values: Where values and constants lie.

    Attributes:
        helpers: The text of the functions that sum a tile, by their names.
        copied_bytes: Of the largest padded picture.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer import Draft
        >>> from fanfold.deploy.integer.c_lanes import LaneProducts
        >>> from fanfold.deploy.integer.c_values import CValues
        >>> draft = Draft("product")
        >>> weights = np.ones((16, 4), np.int8)
        >>> draft.output(draft.matmul(draft.input("y", (32,), "int8"), weights, 8, name="x_hat"), (8, 16))
        >>> program = draft.finish()
        >>> products = LaneProducts(CValues(program, lambda name: name))
        >>> products.takes(program.operations[0]), len(products.lines(program.operations[0], None, "w", "start")) > 3
        (True, True)
    """

    def __init__(self, values: CValues):
        self.values, self.copied_bytes = values, 0
        self.helpers: dict[str, str] = {}

    def takes(self, op: MatMul) -> bool:
        """Whether a product has rows and places enough, of words at most, and is summed in 32 bits."""
        small = op.inner == 1 and self.values.program.dtypes[op.source] in ("int8", "int16")
        enough = op.outer >= FEWEST_PLACES and len(op.weights) >= FEWEST_ROWS
        return small and enough and op.dtype == "int32"

    def packed(self, op: MatMul, windows: Windows | None, *, of_bytes: bool) -> tuple[np.ndarray, np.ndarray]:
        """The weights `(vectors, 64 bytes)` as lanes take them, and what their sums start from, `(rows,)` padded."""
        picture, entry = _picture(op, windows), 1 if of_bytes else 2
        rows, each, units = len(op.weights), UNIT_BYTES // entry, picture.units(entry)
        blocks = -(-rows // LANES)
        padded = np.zeros((blocks * LANES, picture.h, units * each), np.int8 if of_bytes else np.int16)
        padded[:rows, :, : picture.w * picture.channels] = op.weights.reshape(rows, picture.h, -1)
        packed = padded.reshape(blocks, LANES, picture.h, units, each).transpose(0, 2, 3, 1, 4)
        starts = -OFFSET * padded.sum((1, 2), dtype=np.int64) if of_bytes else np.zeros(blocks * LANES, np.int64)
        return packed.reshape(-1, LANES * each), starts

    def lines(self, op: MatMul, windows: Windows | None, weights: str, starts: str | None) -> list[str]:
        """The loop of a product.

        Args:
            op: The product.
            windows: The windows that it is of, where there are some.
            weights: The array of packed weights.
            starts: That of the numbers that sums start from; None of words, whose sums start from zero.
        """
        picture, of_bytes = _picture(op, windows), starts is not None
        entry, rows = 1 if of_bytes else 2, len(op.weights)
        units, stride, blocks = picture.units(entry), picture.stride(entry), -(-rows // LANES)
        together, places = _tiled(blocks, picture.columns)
        tile = self._tile(together, places, of_bytes=of_bytes)
        source, copied = self._copied((windows or op).source, picture, of_bytes=of_bytes)
        width = picture.columns + picture.w - 1
        at = f"{source} + (p * {width} + q) * {stride}"
        start = f"{starts} + r * {LANES}" if starts else "0"
        steps = f"{picture.h}, {units}, {width * stride * entry}, {stride * entry}, {rows}, {rows} - r * {LANES}"
        out = f"{self.values.place(op.name)} + (p * {picture.columns} + q) * {rows} + r * {LANES}"
        call = f"{tile}((const char *)({at}), {weights}[r * {picture.h * units}], {start}, {out}, {steps});"
        loops = [
            f"for (int32_t r = 0; r < {blocks}; r += {together})",
            f"    for (int32_t p = 0; p < {picture.rows}; p++)",
            f"        for (int32_t q = 0; q < {picture.columns}; q += {places})",
            f"            {call}",
        ]
        return ["{", *indented([*copied, *loops]), "}"]

    def _copied(self, name: str, picture: Picture, *, of_bytes: bool) -> tuple[str, list[str]]:
        """The array that tiles read, and what makes it: words that lie as they should are read where they are."""
        entry = 1 if of_bytes else 2
        stride, x = picture.stride(entry), self.values.whole(name)
        bare = picture.h * picture.w == 1
        wanted = "int8" if of_bytes else "int16"
        if bare and not of_bytes and stride == picture.channels and self.values.program.dtypes[name] == wanted:
            return x, []
        size = picture.entries(entry)
        self.copied_bytes = max(self.copied_bytes, size * entry)
        value, shift = ("uint8_t", f" + {OFFSET}") if of_bytes else ("int16_t", "")
        width, channels = picture.columns + picture.w - 1, picture.channels
        place = f"((p + {picture.h // 2}) * {width} + {picture.w // 2}) * {stride}"
        lines = [f"{value} x[{size}];"]
        if not bare or stride != channels:
            lines.append(f"for (i = 0; i < {size}; i++) x[i] = ({value})(0{shift});")
        if stride == channels:
            count = picture.columns * channels
            entry_at = f"{x}[p * {count} + i]"
            filled = [f"for (i = 0; i < {count}; i++) x[{place} + i] = ({value})({entry_at}{shift});"]
        else:
            entry_at = f"{x}[(p * {picture.columns} + q) * {channels} + i]"
            filled = [
                f"for (int32_t q = 0; q < {picture.columns}; q++)",
                f"    for (i = 0; i < {channels}; i++) x[{place} + q * {stride} + i] = ({value})({entry_at}{shift});",
            ]
        return "x", [*lines, f"for (int32_t p = 0; p < {picture.rows}; p++) {{", *indented(filled), "}"]

    def _tile(self, together: int, places: int, *, of_bytes: bool) -> str:
        """The name of the function that sums so many vectors of rows at so many places."""
        kind, add = ("bytes", "_mm512_dpbusd_epi32") if of_bytes else ("words", "_mm512_dpwssd_epi32")
        name = f"sums_of_{kind}_{together}_{places}"
        cells = [(r, k) for r in range(together) for k in range(places)]
        begin = "start ? _mm512_loadu_si512(start + {at}) : _mm512_setzero_si512()"
        declared = [f"__m512i s{r}_{k} = {begin.format(at=r * LANES)};" for r, k in cells]
        read = [f"const __m512i w{r} = _mm512_loadu_si512(row + {r} * block);" for r in range(together)]
        added = []
        for k in range(places):
            added.append(f"const __m512i x{k} = in_all_lanes(at + {k} * step);")
            added += [f"s{r}_{k} = {add}(s{r}_{k}, x{k}, w{r});" for r in range(together)]
        stored = [
            f"_mm512_mask_storeu_epi32(out + {k} * rows + {r * LANES}, LANES_OF(left - {r * LANES}), s{r}_{k});"
            for r, k in cells
        ]
        body = [
            "const int64_t block = (int64_t)h * units * 64;",
            "const char *row = (const char *)w;",
            *declared,
            "for (int32_t j = 0; j < h; j++) {",
            "    const char *at = x + j * step_down;",
            "    for (int32_t u = 0; u < units; u++, at += 4, row += 64) {",
            *indented([*read, *added], 2),
            "    }",
            "}",
            *stored,
        ]
        arguments = (
            "const char *x, const void *w, const int32_t *start, int32_t *out,",
            "    int32_t h, int32_t units, int32_t step_down, int32_t step, int32_t rows, int32_t left)",
        )
        text = [f"static void {name}({arguments[0]}", *arguments[1:], "{", *indented(body), "}"]
        self.helpers[name] = "\n".join([IN_LANES, *text, "#endif", ""])
        return name


def _tiled(blocks: int, columns: int) -> tuple[int, int]:
    """How many vectors of rows, and at how many places, are summed together: both divide what there is."""
    places = max(count for count in range(1, PLACES + 1) if columns % count == 0)
    fitting = [count for count in range(1, MOST_VECTORS + 1) if blocks % count == 0]
    enough = [count for count in fitting if count * places >= FEWEST_SUMS]
    return (enough[0] if enough else fitting[-1]), places


def _picture(op: MatMul, windows: Windows | None) -> Picture:
    """A picture of which a product takes windows; places side by side where it takes none."""
    if windows is None:
        return Picture(1, op.outer, op.weights.shape[1], 1, 1)
    return Picture(*windows.shape, *windows.kernel)


def table_of_bytes(values: np.ndarray, low: int) -> np.ndarray:
    """A table as `bytes_looked_up` reads it: an entry for each byte, those of negative ones behind the others.

    Args:
        values: The table, `(entries,)`; of those that are no bytes, or for none, it is proved that none is read.
        low: What its first entry is for.
    """
    least, most = lowest("int8"), highest("int8")
    at = low + np.arange(values.size)
    is_byte = (at >= least) & (at <= most)
    table = np.zeros(256, np.int64)
    table[at[is_byte] % 256] = values[is_byte].clip(least, most)
    return table
