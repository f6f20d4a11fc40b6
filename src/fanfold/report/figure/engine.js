// Runs the exported programs: each is WebAssembly of generated C, and every number of a curve comes out of one.

import {env} from 'fanfold/host';
import {error, ingredients, normals, signal, thinned, turned} from 'fanfold/draws';

export const DRAWS = 64; // that a curve is the mean over, once it is settled
export const AT_ONCE = 4; // of them, before a slider's effect is drawn
export const LATER = 12; // in each frame from then on

class Program {
    constructor({inputs, outputs}, instance) {
        const wasm = instance.exports;
        const view = ([name, size]) => [name, new Float32Array(wasm.memory.buffer, wasm[`at_${name}`](), size)];
        this.call = wasm.call;
        this.inputs = Object.fromEntries(Object.entries(inputs).map(view));
        this.outputs = Object.fromEntries(Object.entries(outputs).map(view));
        this.held = {};
    }

    // What is given under the name of an input goes in, unless this very array, which nobody writes to, is there.
    run(given) {
        for (const [name, into] of Object.entries(this.inputs)) {
            const value = given[name];
            if (typeof value === 'number') into[0] = value;
            else if (this.held[name] !== value) {
                into.set(value);
                this.held[name] = value.fixed ? value : undefined;
            }
        }
        this.call();
        return Object.fromEntries(Object.entries(this.outputs).map(([name, from]) => [name, from.slice()]));
    }
}

function fixed(array) {
    array.fixed = true;
    return array;
}

export class Engine {
    static async of(manifest, payload) {
        const engine = new Engine();
        const bytes = ([at, size]) => payload.slice(at, at + size);
        engine.layers = manifest.layers;
        engine.presets = await Promise.all(manifest.presets.map(async preset => {
            const programs = {};
            await Promise.all(Object.entries(preset.programs).map(async ([name, program]) => {
                const {instance} = await WebAssembly.instantiate(bytes(program.wasm), {env});
                programs[name] = Object.assign(new Program(program, instance), {bytes: program.wasm[1]});
            }));
            const arrays = {};
            for (const [name, place] of Object.entries(preset.arrays)) arrays[name] = fixed(new Float32Array(bytes(place)));
            if (preset.signals) return {...preset, programs, arrays, signals: new Float32Array(bytes(preset.signals)), turns: turned(preset.n / preset.parts, preset.parts, 77), noise: []};
            if (!preset.estimators) return {...preset, programs, arrays}; // of a topic, whose world asks programs itself
            arrays.V = fixed(programs.right_factor.run(arrays).V);
            const estimators = preset.estimators.map(one => withMatrices(one, programs, arrays, bytes));
            return {...preset, programs, arrays, estimators, error: fixed(error(arrays.matrix, 99)), made: []};
        }));
        return engine;
    }

    preset(key) {
        return this.presets.find(preset => preset.key === key);
    }

    noiseVar(preset, {sparsity, snr}) {
        const {received_power, density} = preset; // of unknowns that are kept, at their density
        const power = received_power === undefined ? sparsity * preset.gain : received_power * (density ? sparsity / density : 1);
        return Math.fround(power / 10 ** (snr / 10));
    }

    // The draw with a number, at these settings, the same for every estimator.
    draw(preset, number, settings) {
        const key = JSON.stringify([preset.key, settings.snr, settings.sparsity, settings.mismatch, settings.gain]);
        if (this.drawn?.key !== key) this.drawn = {key, draws: []};
        return this.drawn.draws[number] ??= this.#measured(preset, number, settings);
    }

    // y = (A + mismatch E) x + w
    #measured(preset, number, settings) {
        if (preset.signals) return this.#observed(preset, number, settings);
        const made = preset.made[number] ??= ingredients(preset, 1000 + number);
        const x = signal(made, settings.sparsity);
        const deviation = Math.sqrt(this.noiseVar(preset, settings));
        const {measured} = preset.programs;
        const w = made.noise.map(v => deviation * v);
        let y = measured.run({y: w, matrix: preset.arrays.matrix, x}).z;
        if (settings.mismatch) {
            y = measured.run({y, matrix: preset.error, x: x.map(v => settings.mismatch * v)}).z;
        }
        return {x, y};
    }

    // The same, times a gain, of unknowns that are kept, whose entries have one part or two; the error of the operator is
    // the operator itself with its columns in another order, some of them turned about.
    #observed(preset, number, settings) {
        const {n, m, parts, density, turns} = preset, {mismatch = 0, gain = 1} = settings;
        const kept = preset.signals.subarray(number * n, (number + 1) * n);
        const x = density && settings.sparsity !== density ? thinned(kept, settings.sparsity, density, parts, 4000 + number) : kept;
        const seen = mismatch ? x.map((v, i) => v + mismatch * turns[i][1] * x[turns[i][0]]) : x;
        const deviation = Math.sqrt(this.noiseVar(preset, settings) / parts);
        const noise = preset.noise[number] ??= normals(m, 1000 + number);
        const y = preset.programs.measured.run({y: seen}).x_hat.map((v, i) => gain * (v + deviation * noise[i]));
        return {x, y};
    }

    // What unknowns look like: the pixels of one.
    pixels(preset, x) {
        return preset.programs.pixels.run({y: x}).x_hat;
    }

    // The estimate after each layer.
    trajectory(preset, estimator, y, settings) {
        if (estimator.whole) return this.#whole(preset, estimator, y, settings);
        const given = {...preset.arrays, y, noise_var: this.noiseVar(preset, settings), strength: settings.strength};
        const at = (values, layer) => values[Math.min(layer, values.length - 1)];
        const set = layer => {
            for (const [name, values] of Object.entries(estimator.values)) {
                const value = at(values, layer);
                given[`value_${name}`] = typeof value === 'number' ? value * (settings[estimator.follows[name]] ?? 1) : value;
                given[`deviation_${name}`] = at(estimator.deviations[name] ?? [0], layer);
            }
        };
        const keep = said => {
            for (const [name, value] of Object.entries(said)) given[name.replace('new_', 'old_')] = value;
        };
        set(0);
        keep(preset.programs[`${estimator.program}_start`].run(given));
        const step = preset.programs[`${estimator.program}_step`];
        const estimates = [];
        for (let layer = 0; layer < this.layers; layer++) {
            set(layer);
            const said = step.run(given);
            keep(said);
            estimates.push(said.new_x);
        }
        return estimates;
    }

    // Of a program that gives all its layers at once; what has fewer than the figure stays at its last.
    #whole(preset, {program, layers}, y, settings) {
        const {n} = preset;
        const all = preset.programs[program].run({y, noise_var: this.noiseVar(preset, settings)}).x_hat;
        return Array.from({length: this.layers}, (_, layer) => {
            const at = Math.min(layer, layers - 1);
            return all.subarray(at * n, (at + 1) * n);
        });
    }
}

// An estimator whose quantities may be matrices: those of the algorithm come out of a program, what was learned lies in
// bytes with a scale for each layer.
function withMatrices(estimator, programs, arrays, bytes) {
    if (!estimator.matrices) return estimator;
    const {program, inputs, learned} = estimator.matrices;
    const nominal = programs[program].run({...arrays, ...inputs});
    const values = {...estimator.values}, deviations = {...estimator.deviations};
    for (const [name, {at, scales}] of Object.entries(learned)) {
        const whole = new Int8Array(bytes(at)), size = whole.length / scales.length;
        values[name] = [fixed(nominal[name])];
        deviations[name] = scales.map((scale, layer) => fixed(Float32Array.from(whole.subarray(layer * size, (layer + 1) * size), v => v * scale)));
    }
    return {...estimator, values, deviations, matrices: undefined};
}

// The error of an estimator after each layer: sums over the draws so far, and the estimates of the first draw.
export class Curve {
    constructor(engine, preset, estimator, settings) {
        Object.assign(this, {engine, preset, estimator, settings, draws: 0, power: 0, seen: []});
        this.most = preset.count ?? DRAWS;
        this.errors = new Float64Array(engine.layers);
    }

    more(draws) {
        const {preset} = this;
        for (let i = 0; i < draws && this.draws < this.most; i++, this.draws++) {
            const {x, y} = this.engine.draw(preset, this.draws, this.settings);
            const estimates = this.engine.trajectory(preset, this.estimator, y, this.settings);
            this.power += x.reduce((sum, v) => sum + v * v, 0);
            estimates.forEach((estimate, layer) => {
                this.errors[layer] += estimate.reduce((sum, v, k) => sum + (v - x[k]) ** 2, 0);
            });
            if (!this.draws || preset.signals) this.seen.push({x, estimates}); // what is looked at
        }
    }

    get settled() {
        return this.draws >= this.most;
    }

    get db() { // a ratio of sums
        return Array.from(this.errors, error => 10 * Math.log10(error / this.power));
    }
}
