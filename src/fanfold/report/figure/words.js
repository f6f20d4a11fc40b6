// Errors in words, and where the sliders stand at first: what the guided paths, the element and the pictures share.

export const at = (state, name, layer = state.layers) => state.db[name][layer - 1];
export const dB = value => (value === null ? 'not known' : Number.isFinite(value) ? `${value.toFixed(1)} dB`.replace('-', '−') : 'diverged');

export const HOME = {snr: 20, sparsity: 0.1, lam: 1, strength: 1, mismatch: 0, gain: 1, layer: 16};
