"""Functions of <math.h> in single precision as C without branches and calls, so that loops over them become vectors."""

import re
from collections.abc import Iterable

ERF = """\
/* erf to 4 units of rounding, without branches, so that loops over it become vectors: x P(x^2) / Q(x^2) up to 4, fitted
   by weighted least squares to the smallest largest relative error. */
static inline float erf_of(float x) {
    const float a = x > 4.0f ? 4.0f : x < -4.0f ? -4.0f : x, t = a * a;
    float p = 1.986780944207567e-06f, q = 3.7420166336232796e-05f;
    p = p * t + 0.0002845660492312163f, q = q * t + 0.001185573055408895f;
    p = p * t + 0.00388335227034986f, q = q * t + 0.015207269228994846f;
    p = p * t + 0.05310177430510521f, q = q * t + 0.11535008251667023f;
    p = p * t + 0.19354526698589325f, q = q * t + 0.50485759973526f;
    p = p * t + 1.1283791065216064f, q = q * t + 1.0f;
    p = a * p / q;
    return p > 1.0f ? 1.0f : p < -1.0f ? -1.0f : p;
}
"""
WORD = """\
typedef union { float f; uint32_t u; } float_word; /* a number and its word */
"""
EXP = """\
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__)
#error "sums in another order (-ffast-math, -Ofast, -fassociative-math) make exp wrong; see the header for what may be"
#endif
/* exp to 1.01 units of rounding, of all numbers: x = n log 2 + r with n whole (Cody & Waite, 1980), exp r by its best
   polynomial, and 2^n by exponents in two steps, so that small results are subnormal. */
static inline float exp_of(float x) {
    const float a = x > 89.0f ? 89.0f : x < -104.0f ? -104.0f : x;
    float_word shifted, one, other;
    shifted.f = a * 1.44269504f + 12582912.0f; /* 1.5 2^23, so that the last digits are n */
    const float n = shifted.f - 12582912.0f;
    const float r = a - n * 0.693145752f - n * 1.42860677e-06f;
    float p = 0.00138143216f;
    p = p * r + 0.00836885106f;
    p = p * r + 0.0416684011f;
    p = p * r + 0.166665195f;
    p = p * r + 0.499999934f;
    p = p * r * r + r + 1.0f;
    const uint32_t m = shifted.u - 0x4b400000u + 254u, half = m >> 1;
    one.u = half << 23;
    other.u = (m - half) << 23;
    return p * one.f * other.f;
}
"""
LOG = """\
/* log to 0.8 units of rounding, of all numbers: x = 2^k (1 + f) and log(1 + f) = 2 artanh(s) with s = f / (2 + f), by
   its best polynomial (the form of fdlibm's e_log.c). */
static inline float log_of(float x) {
    float_word given, word;
    given.f = x;
    const uint32_t subnormal = given.u < 0x800000u;
    word.f = x * (1.0f + (float)(int)subnormal * 8388607.0f);
    const uint32_t u = word.u + 0x3f800000u - 0x3f3504f3u;
    const float k = (float)(int)(u >> 23) - 127.0f - (float)(int)(23u * subnormal);
    word.u = (u & 0x7fffffu) + 0x3f3504f3u;
    const float f = word.f - 1.0f, s = f / (2.0f + f), z = s * s, h = 0.5f * f * f;
    const float t = z * (0.666667771f + z * (0.399774495f + z * 0.298744187f));
    word.f = k * 0.693145752f - (h - (s * (h + t) + k * 1.42860677e-06f) - f);
    const uint32_t zero = given.u << 1 == 0, high = given.u == 0x7f800000u, plain = given.u - 1u < 0x7f7fffffu;
    word.u = plain * word.u + (1u - plain) * (0x7fc00000u + zero * 0x7fc00000u - high * 0x400000u); /* no branches */
    return word.f;
}
"""
FUNCTIONS = {"erf_of": ERF, "exp_of": EXP, "log_of": LOG}
CALLS = re.compile(r"\b(erf|exp|log)f\(")


def without_calls(text: str) -> str:
    """C with these functions instead of those of the library.

    Example:
        >>> from fanfold.deploy.codegen.functions import without_calls
        >>> without_calls("1 / (1 + expf(-x0)) + log1pf(x1)")
        '1 / (1 + exp_of(-x0)) + log1pf(x1)'
    """
    return CALLS.sub(r"\1_of(", text)


def functions_of(bodies: Iterable[str]) -> list[str]:
    """The C of those functions that some bodies call."""
    joined = "\n".join(bodies)
    texts = [text for name, text in FUNCTIONS.items() if f"{name}(" in joined]
    return [WORD] * any("float_word" in text for text in texts) + texts
