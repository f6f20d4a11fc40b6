// Draws of signals, noise and errors of the matrix, the same for the same seed: what is estimated from, never how.

export function uniform(seed) { // mulberry32: numbers in [0, 1)
    let a = seed >>> 0;
    return () => {
        a = (a + 0x6d2b79f5) >>> 0;
        let t = Math.imul(a ^ (a >>> 15), a | 1);
        t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
        return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
}

export function normal(next) { // Box & Muller (1958), eq. 1, one of the two
    return Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
}

export function normals(count, seed) {
    const next = uniform(seed);
    return Float32Array.from({length: count}, () => normal(next));
}

// What a draw is made from; as the sparsity moves, the same entries come and go.
export function ingredients({n, m}, seed) {
    const next = uniform(seed);
    const levels = Float32Array.from({length: n}, next);
    const heights = Float32Array.from({length: n}, () => normal(next));
    return {levels, heights, noise: normals(m, seed ^ 0x5bd1e995)};
}

export function signal({levels, heights}, sparsity) {
    return heights.map((height, i) => (levels[i] < sparsity ? height : 0));
}

// Unknowns of another density: some of those that are not zero go, or others come, normal and of variance 1; as the density
// moves, the same entries come and go. An entry has so many parts, one after the other.
export function thinned(x, sparsity, density, parts, seed) {
    const next = uniform(seed), count = x.length / parts;
    const levels = Float32Array.from({length: count}, next), heights = normals(x.length, seed ^ 0x5bd1e995);
    const isThere = Float32Array.from({length: count}, (_, i) => Number(x.subarray(i * parts, (i + 1) * parts).some(v => v !== 0)));
    const added = (sparsity - density) / (1 - density); // of those that are zero
    return x.map((v, k) => {
        const i = Math.floor(k / parts);
        if (isThere[i]) return levels[i] < sparsity / density ? v : 0;
        return levels[i] < added ? heights[k] / Math.sqrt(parts) : 0;
    });
}

// Where each number of a vector comes from if its entries, of so many parts, are put in another order, and with which sign.
export function turned(count, parts, seed) {
    const next = uniform(seed), order = Array.from({length: count}, (_, i) => [next(), i]).sort((a, b) => a[0] - b[0]);
    return order.flatMap(([, from]) => {
        const sign = next() < 0.5 ? -1 : 1;
        return Array.from({length: parts}, (_, part) => [from * parts + part, sign]);
    });
}

// A Gaussian error of the matrix whose Frobenius norm is that of the matrix.
export function error(matrix, seed) {
    const error = normals(matrix.length, seed);
    const power = values => values.reduce((sum, v) => sum + v * v, 0);
    const factor = Math.sqrt(power(matrix) / power(error));
    return error.map(v => factor * v);
}
