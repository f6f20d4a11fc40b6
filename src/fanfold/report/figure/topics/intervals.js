// Intervals counted: which share of true entries lies in those that the estimate claims, and in calibrated ones.

import {normal, uniform} from 'fanfold/draws';

const DRAWS = 400, AT_ONCE = 40;
const SHOWN = 30; // entries of one draw

export class World {
    constructor({programs, arrays, levels, prior, power, sizes}) {
        Object.assign(this, {programs, arrays, prior, power, sizes, levels});
    }

    take(settings) {
        const before = this.settings;
        this.settings = settings;
        if (before && settings.snr === before.snr && settings.noise === before.noise) return;
        Object.assign(this, {draws: 0, next: uniform(23), off: [], deviations: 0, first: undefined});
    }

    more() {
        const {programs, next, prior, sizes: {n, m}, settings} = this;
        const told = Math.fround(this.power / 10 ** (settings.snr / 10)), deviation = Math.sqrt(settings.noise * told);
        for (let i = 0; i < AT_ONCE && this.draws < DRAWS; i++, this.draws++) {
            const x = Float32Array.from({length: n}, () => (next() < prior.sparsity ? normal(next) : 0));
            const y = programs.measured.run({y: x}).x_hat.map(v => v + deviation * normal(next));
            const {x_hat, var: variance} = programs.estimator.run({y, noise_var: told});
            const deviations = variance.map(Math.sqrt);
            this.off.push(x_hat.map((v, k) => Math.abs(v - x[k]) / Math.max(deviations[k], 1e-9)));
            this.deviations += deviations.reduce((sum, v) => sum + v, 0) / n;
            this.first ??= {x, x_hat, deviations};
        }
    }

    get settled() {
        return this.draws >= DRAWS;
    }

    reach(key) { // how many deviations an interval reaches
        return this.arrays[key][this.levels.indexOf(this.settings.level)];
    }

    running(key) { // share held, in per cent, after each draw
        const reach = this.reach(key), {n} = this.sizes;
        let held = 0;
        return this.off.map((row, i) => { for (const v of row) held += v <= reach; return 100 * held / (n * (i + 1)); });
    }

    get numbers() {
        const of = key => ({held: this.running(key).at(-1), width: 2 * this.reach(key) * this.deviations / this.draws});
        return {claimed: of('claimed'), calibrated: of('calibrated'), level: 100 * this.settings.level};
    }

    said(key) {
        return `${this.running(key).at(-1).toFixed(1)} %`;
    }

    chart(shown) {
        const lines = shown.map(key => ({key, values: this.running(key)})), {level} = this.settings;
        const ends = lines.flatMap(({values}) => values.slice(20)), low = Math.min(100 * level - 8, ...ends), high = Math.max(100 * level + 4, ...ends);
        return {
            x: this.off.map((_, i) => i + 1), lines, level: 100 * level, xLabel: 'draws', yLabel: 'held, %',
            xRange: [1, DRAWS], yRange: [Math.max(0, low - 2), Math.min(101, high + 2)],
        };
    }

    below(shown) {
        const {x, x_hat, deviations} = this.first, entries = Array.from({length: SHOWN}, (_, i) => i);
        const bars = shown.flatMap(key => entries.map(i => {
            const half = this.reach(key) * deviations[i];
            return {key, x: i + 1, low: x_hat[i] - half, high: x_hat[i] + half, offset: shown.length < 2 ? 0 : key === 'claimed' ? -2 : 2};
        }));
        const most = Math.max(1, ...x.subarray(0, SHOWN).map(Math.abs), ...bars.map(({low, high}) => Math.max(-low, high)));
        return {
            x: entries.map(i => i + 1), lines: [], bars, dots: entries.map(i => [i + 1, x[i]]), xLabel: `the first ${SHOWN} entries of the first draw`,
            yLabel: 'x', whole: true, xRange: [0.4, SHOWN + 0.6], yRange: [-1.1 * most, 1.1 * most],
        };
    }

    words(shown) {
        const {numbers} = this, held = key => `${key} intervals hold ${numbers[key].held.toFixed(1)}, ${numbers[key].width.toFixed(2)} wide on average`;
        return `Of 100 true entries ${shown.map(held).join('; ')}; ${numbers.level.toFixed(0)} were asked for.`;
    }
}
