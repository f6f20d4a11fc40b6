// One network in floating point and in whole numbers: errors over the SNR, bytes, and times in this browser.

import {ingredients, signal} from 'fanfold/draws';

const DRAWS = 200, AT_ONCE = 25;
const ROUNDS = 8, CALLS = 500; // of a program that is timed

const lost = db => db.toFixed(2).replace('-', '−').replace('−0.00', '0.00');

export class World {
    constructor({programs, snrs, sparsity, power, series}) {
        const {measured, ...rest} = programs;
        Object.assign(this, {measured, snrs, sparsity, power, rounds: 0});
        this.programs = Object.fromEntries(Object.keys(series).map(key => [key, rest[key.toLowerCase()]]));
        this.times = Object.fromEntries(Object.keys(series).map(key => [key, Infinity]));
    }

    take(settings) {
        if (settings.loud !== this.settings?.loud) {
            const zeros = () => this.snrs.map(() => 0);
            Object.assign(this, {draws: 0, total: 0, errors: Object.fromEntries(Object.keys(this.programs).map(key => [key, zeros()]))});
        }
        this.settings = settings;
    }

    more() {
        const n = this.measured.inputs.y.length, m = this.measured.outputs.x_hat.length, gain = 10 ** (this.settings.loud / 20);
        for (let i = 0; i < AT_ONCE && this.draws < DRAWS; i++, this.draws++) {
            const made = ingredients({n, m}, 3000 + this.draws), x = signal(made, this.sparsity).map(v => gain * v);
            const clean = this.measured.run({y: x}).x_hat;
            this.total += x.reduce((sum, v) => sum + v * v, 0);
            this.snrs.forEach((snr, at) => {
                const deviation = gain * Math.sqrt(this.power / 10 ** (snr / 10)), y = clean.map((v, k) => v + deviation * made.noise[k]);
                for (const [key, program] of Object.entries(this.programs)) {
                    this.errors[key][at] += program.run({y}).x_hat.reduce((sum, v, k) => sum + (v - x[k]) ** 2, 0);
                }
            });
        }
        if (this.draws >= DRAWS && this.rounds < ROUNDS) this.#time();
    }

    #time() { // a round of each, in turn, so that what else the machine does meets all of them
        this.rounds++;
        for (const [key, program] of Object.entries(this.programs)) {
            const began = performance.now();
            for (let i = 0; i < CALLS; i++) program.call();
            this.times[key] = Math.min(this.times[key], 1000 * (performance.now() - began) / CALLS);
        }
    }

    get settled() {
        return this.draws >= DRAWS && this.rounds >= ROUNDS;
    }

    db(key) {
        return this.errors[key].map(error => 10 * Math.log10(error / this.total));
    }

    get numbers() {
        const at = this.snrs.indexOf(this.settings.snr), float = this.db('float')[at];
        const of = key => ({db: this.db(key)[at], loss: this.db(key)[at] - float, us: this.times[key], bytes: this.programs[key].bytes});
        return Object.fromEntries(Object.keys(this.programs).map(key => [key, of(key)]));
    }

    pointed(x) { // at an SNR
        return {snr: this.snrs.reduce((best, snr) => (Math.abs(snr - x) < Math.abs(best - x) ? snr : best))};
    }

    said(key) {
        return `${this.numbers[key].db.toFixed(1)} dB`.replace('-', '−');
    }

    #until({key, values}) { // the SNR that is chosen, so that what comes then may be guessed
        return {key, values: values.map((v, i) => (this.snrs[i] <= this.settings.snr ? v : null))};
    }

    chart(shown) {
        const lines = shown.map(key => ({key, values: this.db(key)})), all = lines.flatMap(({values}) => values);
        return {x: this.snrs, lines: lines.map(line => this.#until(line)), marks: [{x: this.settings.snr}], xLabel: 'SNR in dB', yLabel: 'NMSE in dB', xRange: [this.snrs[0], this.snrs.at(-1)], yRange: [Math.min(-20, ...all) - 1, Math.max(2, ...all) + 1]};
    }

    below(shown) {
        const float = this.db('float'), lines = shown.map(key => ({key, values: this.db(key).map((v, i) => v - float[i])}));
        const all = lines.flatMap(({values}) => values), most = Math.max(0.5, ...all);
        return {x: this.snrs, lines: lines.map(line => this.#until(line)), marks: [{x: this.settings.snr}], xLabel: 'SNR in dB', yLabel: 'loss in dB', xRange: [this.snrs[0], this.snrs.at(-1)], yRange: [Math.min(-0.1 * most, 1.1 * Math.min(...all)), 1.1 * most]};
    }

    table(shown) {
        const rows = Object.entries(this.numbers).filter(([key]) => shown.includes(key)).map(([key, {loss, us, bytes}]) => [
            key, lost(loss), Number.isFinite(us) ? us.toFixed(1) : '…', (bytes / 1000).toFixed(1),
        ]);
        return {head: ['Program', 'Loss, dB', 'µs a call', 'kB'], rows};
    }

    words(shown) {
        const {numbers} = this;
        return `At this SNR: ${shown.map(key => `${key} loses ${lost(numbers[key].loss)} dB`).join(', ')}.`;
    }
}
