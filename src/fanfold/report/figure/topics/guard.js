// A stream whose world changes and comes back: the errors of network, baseline and guard, and whom the guard trusts.

import {ingredients, signal, turned} from 'fanfold/draws';

const AT_ONCE = 75; // calls
const OVER = 20; // calls that an error is taken over

const dB = ratio => 10 * Math.log10(Math.max(ratio, 1e-12));

export class World {
    constructor({programs, arrays, calls, begins, ends, sparsity, noise_var}) {
        Object.assign(this, {programs, arrays, calls, begins, ends, home: {gain: 1, noise: 1, wrong: 0, sparsity}, noise_var});
        this.turns = turned(programs.measured.inputs.y.length, 1, 31); // columns of A in another order are an error as large as A
    }

    take(settings) {
        const made = JSON.stringify(settings);
        if (made === this.made) return;
        Object.assign(this, {made, settings, call: 0, trust: this.arrays.trust, memory: this.arrays.memory, weights: [], powers: []});
        this.errors = {baseline: [], network: [], guarded: []};
    }

    more() {
        const {programs, noise_var} = this, n = programs.measured.inputs.y.length, m = programs.network.inputs.y.length;
        for (let i = 0; i < AT_ONCE && this.call < this.calls; i++, this.call++) {
            const {gain, noise, wrong, sparsity} = this.shifted(this.call) ? this.settings : this.home;
            const made = ingredients({n, m}, 5000 + this.call), x = signal(made, sparsity);
            const seen = wrong ? x.map((v, k) => v + wrong * this.turns[k][1] * x[this.turns[k][0]]) : x;
            const deviation = Math.sqrt(noise * noise_var);
            const y = programs.measured.run({y: seen}).x_hat.map((v, k) => gain * (v + deviation * made.noise[k]));
            const drawn = ingredients({n: 1, m}, 9000 + this.call).noise;
            const guarded = programs.guarded.run({y, noise_var, drawn, trust: this.trust, memory: this.memory});
            Object.assign(this, {trust: guarded.trust_next, memory: guarded.memory_next});
            const estimates = {baseline: programs.baseline.run({y}).x_hat, network: programs.network.run({y}).x_hat, guarded: guarded.x_hat};
            for (const [key, estimate] of Object.entries(estimates)) this.errors[key].push(estimate.reduce((sum, v, k) => sum + (v - x[k]) ** 2, 0));
            this.powers.push(x.reduce((sum, v) => sum + v * v, 0));
            this.weights.push(this.trust[0]);
        }
    }

    shifted(call) {
        return call >= this.begins && call < this.ends;
    }

    get settled() {
        return this.call >= this.calls;
    }

    over(key, from, to) { // the error of some calls, a ratio of sums in dB
        const sum = values => values.slice(Math.max(0, from), to).reduce((total, v) => total + v, 0);
        return dB(sum(this.errors[key]) / sum(this.powers));
    }

    get numbers() {
        const of = (from, to) => Object.fromEntries(Object.keys(this.errors).map(key => [key, this.over(key, from, to)]));
        const {begins, ends, calls, weights} = this;
        const late = weights.slice(ends - 40, ends); // when it has had time to see
        return {before: of(0, begins), while: of(begins, ends), after: of(ends + OVER, calls), trust: late.reduce((sum, v) => sum + v, 0) / late.length, last: weights.at(-1)};
    }

    said(key) {
        return this.call > this.begins ? `${this.over(key, this.begins, this.ends).toFixed(1)} dB`.replace('-', '−') : '';
    }

    get axis() {
        const marks = [this.begins, this.ends].map(x => ({x, dash: [4, 4]}));
        return {x: this.powers.map((_, i) => i + 1), marks, xLabel: 'call', xRange: [1, this.calls]};
    }

    chart(shown) {
        const lines = shown.map(key => ({key, values: this.powers.map((_, i) => this.over(key, i + 1 - OVER, i + 1))}));
        const top = Math.max(2, ...lines.flatMap(({values}) => values)), low = Math.min(-16, ...lines.flatMap(({values}) => values.slice(OVER)));
        return {...this.axis, lines, yLabel: 'NMSE in dB', yRange: [low - 1, top + 1]};
    }

    below(shown) {
        const lines = shown.includes('guarded') ? [{key: 'guarded', values: this.weights}] : [];
        return {...this.axis, lines, yLabel: 'weight of the network', yRange: [-0.05, 1.05]};
    }

    words(shown) {
        const {trust, last} = this.numbers;
        if (!shown.includes('guarded')) return '';
        return `Towards the end of the changed world it gave ${Math.round(100 * trust)} % of its weight to the network, and ${Math.round(100 * last)} % at the last call.`;
    }
}
