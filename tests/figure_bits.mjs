// A hash of the bits of every estimate of every layer, for draws at several settings: the same in Node and in a browser.

export function bits(engine, draws = 12) {
    let hash = 0x811c9dc5, count = 0;
    for (const preset of engine.presets) {
        for (const [snr, strength, mismatch] of [[20, 1, 0], [30, 0.5, 0.1]]) {
            const settings = {snr, sparsity: 0.1, lam: 0.5, mismatch, strength};
            for (let number = 0; number < draws; number++) {
                const {y} = engine.draw(preset, number, settings);
                for (const estimator of preset.estimators) {
                    for (const estimate of engine.trajectory(preset, estimator, y, settings)) {
                        count++;
                        for (const word of new Uint32Array(estimate.buffer)) hash = Math.imul(hash ^ word, 0x01000193) >>> 0;
                    }
                }
            }
        }
    }
    return `${count} ${hash.toString(16)}`;
}
