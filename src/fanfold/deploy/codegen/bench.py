"""Times of a compiled program taken in C, in turn with the bare work: reading its weights, and as many products."""

import ctypes
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fanfold.core.files import write_whole
from fanfold.deploy.codegen.build import compile_shared
from fanfold.deploy.codegen.compiled import CompiledC

BLOCK = 20  # calls of one kind before the next has its turn, after two that do not count
PANEL = 24 * 128  # floats in the first cache: half of the smallest there is

SOURCE = """\
#define _POSIX_C_SOURCE 199309L
#include <stdint.h>
#include <time.h>

typedef void (*program)({kinds});
void bench_program(program run, void *const *p, int calls, double *us);
void bench_read(const float *weights, const int32_t *ranges, int count, int calls, double *us);
void bench_multiply(float *scratch, double products, int calls, double *us);

static double now(void) {{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e6 * (double)t.tv_sec + 1e-3 * (double)t.tv_nsec;
}}

void bench_program(program run, void *const *p, int calls, double *us) {{
    for (int c = -2; c < calls; c++) {{
        const double began = now();
        run({arguments});
        if (c >= 0) us[c] = now() - began;
    }}
}}

static float total(const float *acc) {{
    float sum = 0;
    for (int l = 0; l < 128; l++) sum += acc[l];
    return sum;
}}

static volatile float sink;

/* Every weight once for each call that uses it, in the order of the calls. */
void bench_read(const float *weights, const int32_t *ranges, int count, int calls, double *us) {{
    for (int t = -2; t < calls; t++) {{
        const double began = now();
        float acc[128];
        for (int l = 0; l < 128; l++) acc[l] = 0;
        for (int c = 0; c < count; c++) {{
            const float *w = weights + ranges[2 * c];
            const int n = ranges[2 * c + 1];
            int k = 0;
            for (; k + 128 <= n; k += 128)
                for (int l = 0; l < 128; l++) acc[l] += w[k + l];
            for (; k < n; k++) acc[0] += w[k];
        }}
        sink = total(acc);
        if (t >= 0) us[t] = now() - began;
    }}
}}

/* So many multiply-accumulates, of numbers in the first cache, with sums in registers. */
void bench_multiply(float *scratch, double products, int calls, double *us) {{
    for (int t = -2; t < calls; t++) {{
        const double began = now();
        float acc[128];
        for (int l = 0; l < 128; l++) acc[l] = 0;
        for (double done = 0; done < products; done += {panel}) {{
            for (int k = 0; k < {panel} / 128; k++) {{
                const float x = scratch[k];
                const float *b = scratch + 128 * k;
                for (int l = 0; l < 128; l++) acc[l] += x * b[l];
            }}
        }}
        sink = total(acc);
        if (t >= 0) us[t] = now() - began;
    }}
}}
"""


class TakenInC(NamedTuple):
    """Microseconds of each call of a program, and of the bare work beside it.

    Attributes:
        program_us, memory_us, arithmetic_us: Of the program, of reading its weights, of as many products.
        stack_bytes: What a call puts on the stack at most, as the compiler says; None where it does not.
    """

    program_us: np.ndarray
    memory_us: np.ndarray
    arithmetic_us: np.ndarray
    stack_bytes: int | None


def measure_c(network: CompiledC, calls: int) -> TakenInC:
    """The times of a compiled program for what is in its ports, in blocks in turn with its floors.

    Args:
        network: The compiled estimator.
        calls: How many calls of it are timed; of the floors as many.
    """
    pointers = network.pointers
    text = SOURCE.format(
        kinds=", ".join(["void *"] * len(pointers)),
        arguments=", ".join(f"p[{i}]" for i in range(len(pointers))),
        panel=PANEL,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.c"
        write_whole(path, text.encode())
        library = ctypes.CDLL(str(compile_shared([path])))
    given = (ctypes.c_void_p * len(pointers))(*(p.value for p in pointers))
    ranges, scratch = weight_ranges(network), np.full(PANEL, 0.5, np.float32)
    products = ctypes.c_double(network.files.program.products)
    kinds = (
        lambda n, us: library.bench_program(network.entry, given, n, us),
        lambda n, us: library.bench_read(pointers[0], ctypes.c_void_p(ranges.ctypes.data), len(ranges) // 2, n, us),
        lambda n, us: library.bench_multiply(ctypes.c_void_p(scratch.ctypes.data), products, n, us),
    )
    taken = [np.zeros(calls) for _ in kinds]
    warm = np.zeros(max(3, calls // 10))
    kinds[0](len(warm), ctypes.c_void_p(warm.ctypes.data))
    for start in range(0, calls, BLOCK):
        for work, times in zip(kinds, taken):
            us = times[start : start + BLOCK]
            work(len(us), ctypes.c_void_p(us.ctypes.data))
    return TakenInC(taken[0], taken[1], taken[2], network.stack_bytes)


def weight_ranges(network: CompiledC) -> np.ndarray:
    """Where each call of the program reads weights, as starts and counts, call after call."""
    ranges = []
    for call in network.files.program.calls.calls:
        for memory in call.memories:
            if memory in network.files.blob:
                ranges += [network.files.blob[memory], memory.size]
    return np.array(ranges, np.int32)
