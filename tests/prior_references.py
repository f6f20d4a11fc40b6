"""Posterior means and variances of every prior in as many digits as it takes, by other formulas than the package's."""

import itertools
from functools import cache

import mpmath as mp

from fanfold.priors import (
    BernoulliGaussian,
    Constellation,
    Gaussian,
    GaussianMixture,
    Laplace,
    Uniform,
)


def gaussian(d, var, is_complex):
    return mp.exp(-(abs(d) ** 2) / var) / (mp.pi * var) if is_complex else mp.npdf(d, 0, mp.sqrt(var))


def of_parts(parts, r, v, is_complex):
    """Mean and variance where x is one of Gaussians `(weight, mean, variance)`; variance zero is an atom."""
    if v == 0:
        atoms = [m for w, m, var in parts if var == 0]
        if any(var for *_, var in parts):
            return r, mp.mpf(0)
        least = min(abs(r - m) for m in atoms)
        near = [m for m in atoms if abs(r - m) == least]
        x = mp.fsum(near) / len(near)
        return x, mp.fsum((m - x) ** 2 for m in near) / len(near)
    shares = [w * gaussian(r - m, var + v, is_complex) for w, m, var in parts]
    total = mp.fsum(shares)
    means = [m + var / (var + v) * (r - m) for w, m, var in parts]
    x = mp.fsum(s * m for s, m in zip(shares, means)) / total
    spread = [var * v / (var + v) + abs(m - x) ** 2 for (*_, var), m in zip(parts, means)]
    return x, mp.fsum(s * a for s, a in zip(shares, spread)) / total


def components(prior, is_complex):
    if isinstance(prior, Gaussian):
        return [(1, 0, mp.mpf(prior.var))]
    if isinstance(prior, BernoulliGaussian):
        return [(1 - mp.mpf(prior.p), 0, mp.mpf(0)), (mp.mpf(prior.p), 0, mp.mpf(prior.var))]
    if isinstance(prior, GaussianMixture):
        return [tuple(map(mp.mpf, row)) for row in zip(prior.weights, prior.means, prior.variances)]
    return None


def constellation(prior, r, v, is_complex, levels):
    parts = [(1, mp.mpf(a), mp.mpf(0)) for a in levels]
    if not is_complex:
        return of_parts(parts, r, v, False)
    (x, a), (y, b) = (of_parts(parts, part, v / 2, False) for part in (mp.re(r), mp.im(r)))
    return mp.mpc(x, y), a + b


def beyond(a):
    """The probability of more than a standard deviations, in full precision however far out."""
    if abs(a) < 1e4:
        return mp.erfc(a / mp.sqrt(2)) / 2
    tail, term = mp.mpf(0), mp.npdf(a) / abs(a)
    for k in range(60):
        tail, term = tail + term, term * -(2 * k + 1) / a**2
    return tail if a > 0 else 1 - tail


def truncated(r, v, low, high):
    """Mean and variance of `N(r, v)` between two ends."""
    if v == 0:
        return min(max(r, low), high), mp.mpf(0)
    s = mp.sqrt(v)
    a, b = (low - r) / s, (high - r) / s
    mass = beyond(a) - beyond(b) if a + b > 0 else beyond(-b) - beyond(-a)
    at_a, at_b = mp.npdf(a) / mass, mp.npdf(b) / mass
    return r + s * (at_a - at_b), v * (1 + a * at_a - b * at_b - (at_a - at_b) ** 2)


def real_laplace(prior, r, v):
    """The posterior as two Gaussians cut at zero."""
    if v == 0:
        return r, mp.mpf(0)
    rate, s = mp.sqrt(mp.mpf(2) / mp.mpf(prior.var)), mp.sqrt(v)
    rows = []
    for sign in (1, -1):
        c = sign * r - rate * v
        chance = beyond(-c / s)
        density = s * mp.npdf(c / s) / chance
        mean, square = c + density, c * (c + density) + v
        rows.append((mp.exp(-sign * rate * r) * chance, sign * mean, square))
    total = rows[0][0] + rows[1][0]
    x = (rows[0][0] * rows[0][1] + rows[1][0] * rows[1][1]) / total
    return x, (rows[0][0] * rows[0][2] + rows[1][0] * rows[1][2]) / total - x * x


def complex_laplace(prior, r, v):
    """The posterior of the magnitude by quadrature, its phase integrated out to Bessel functions."""
    if v == 0:
        return r, mp.mpf(0)
    rate, m, s = mp.sqrt(mp.mpf(6) / mp.mpf(prior.var)), abs(r), mp.sqrt(v)
    if rate * v < 1e-18 * m:  # then the plane is as good as a line
        return (m - rate * v / 2) * r / m, v
    phase = mp.sign(r)
    with mp.workdps(28):
        m, rate = m / s, rate * s  # in standard deviations: the quadrature ends at an absolute error
        peak = m - rate / 2
        low, high = (max(mp.mpf(0), peak - 9), peak + 9) if peak > 0 else (0, min(9, 50 / (rate - 2 * m)))

        @cache
        def mass(rho):
            z = 2 * rho * m
            common = rho * mp.exp(min(peak, 0) ** 2 - (rho - peak) ** 2 - z)
            return common * mp.besseli(0, z), common * mp.besseli(1, z)

        def of(f):
            return mp.quad(lambda rho: f(rho, *mass(rho)), mp.linspace(low, high, 4))

        total = of(lambda rho, i0, i1: i0)
        x = of(lambda rho, i0, i1: rho * i1) / total
        return s * x * phase, v * (of(lambda rho, i0, i1: rho**2 * i0) / total - x * x)


def posterior(prior, r, v, is_complex, levels):
    """The posterior mean and variance of one entry."""
    reach = max(1, abs(r)) / min([abs(a) for a in (r, mp.sqrt(v), 1) if a])
    with mp.workdps(60 + 3 * int(mp.log10(reach) + 1)):
        return _posterior(prior, r, v, is_complex, levels)


def _posterior(prior, r, v, is_complex, levels):
    if isinstance(prior, Constellation):
        return constellation(prior, r, v, is_complex, levels)
    if isinstance(prior, Laplace):
        return complex_laplace(prior, r, v) if is_complex else real_laplace(prior, r, v)
    if isinstance(prior, Uniform):
        return truncated(r, v, mp.mpf(prior.low), mp.mpf(prior.high))
    return of_parts(components(prior, is_complex), r, v, is_complex)


def chain(prior, r, v, is_complex):
    """Means and variances of all entries of a support chain, by a sum over every support."""
    n, rho = len(r), mp.mpf(prior.persistence)
    p, var = ([mp.mpf(a) for a in t.tolist()] for t in (prior.p, prior.var))
    if v == 0:
        return [(a, mp.mpf(0)) for a in r]
    rows = []
    for support in itertools.product((0, 1), repeat=n):
        chance = p[0] if support[0] else 1 - p[0]
        for i in range(1, n):
            one = (1 - rho) * p[i] + (rho * p[i] / p[i - 1] if support[i - 1] else 0)
            chance *= one if support[i] else 1 - one
        chance *= mp.fprod(gaussian(r[i], v + var[i] * support[i], is_complex) for i in range(n))
        rows.append((chance, support))
    total = mp.fsum(c for c, _ in rows)
    answers = []
    for i in range(n):
        active, gain = mp.fsum(c for c, s in rows if s[i]) / total, var[i] / (var[i] + v)
        answers.append((active * gain * r[i], active * (gain * v + (1 - active) * abs(gain * r[i]) ** 2)))
    return answers
