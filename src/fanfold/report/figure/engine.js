// Runs the exported programs: each is WebAssembly of generated C, and every number of a curve comes out of one.

import {env} from 'fanfold/host';
import {error, ingredients, signal} from 'fanfold/draws';

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
                programs[name] = new Program(program, instance);
            }));
            const arrays = {};
            for (const [name, place] of Object.entries(preset.arrays)) arrays[name] = fixed(new Float32Array(bytes(place)));
            arrays.V = fixed(programs.right_factor.run(arrays).V);
            return {...preset, programs, arrays, error: fixed(error(arrays.matrix, 99)), made: []};
        }));
        return engine;
    }

    preset(key) {
        return this.presets.find(preset => preset.key === key);
    }

    noiseVar(preset, {sparsity, snr}) {
        return Math.fround(sparsity * preset.gain / 10 ** (snr / 10));
    }

    // The draw with a number, at these settings, the same for every estimator.
    draw(preset, number, settings) {
        const key = JSON.stringify([preset.key, settings.snr, settings.sparsity, settings.mismatch]);
        if (this.drawn?.key !== key) this.drawn = {key, draws: []};
        return this.drawn.draws[number] ??= this.#measured(preset, number, settings);
    }

    // y = (A + mismatch E) x + w
    #measured(preset, number, settings) {
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

    // The estimate after each layer.
    trajectory(preset, estimator, y, settings) {
        const given = {...preset.arrays, y, noise_var: this.noiseVar(preset, settings), strength: settings.strength};
        const at = (values, layer) => values[Math.min(layer, values.length - 1)];
        const set = layer => {
            for (const [name, values] of Object.entries(estimator.values)) {
                given[`value_${name}`] = at(values, layer) * (settings[estimator.follows[name]] ?? 1);
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
}

// The error of an estimator after each layer: sums over the draws so far, and the estimates of the first draw.
export class Curve {
    constructor(engine, preset, estimator, settings) {
        Object.assign(this, {engine, preset, estimator, settings, draws: 0, power: 0});
        this.errors = new Float64Array(engine.layers);
    }

    more(draws) {
        for (let i = 0; i < draws && this.draws < DRAWS; i++, this.draws++) {
            const {x, y} = this.engine.draw(this.preset, this.draws, this.settings);
            const estimates = this.engine.trajectory(this.preset, this.estimator, y, this.settings);
            this.power += x.reduce((sum, v) => sum + v * v, 0);
            estimates.forEach((estimate, layer) => {
                this.errors[layer] += estimate.reduce((sum, v, k) => sum + (v - x[k]) ** 2, 0);
            });
            if (!this.draws) Object.assign(this, {x, estimates});
        }
    }

    get db() { // a ratio of sums
        return Array.from(this.errors, error => 10 * Math.log10(error / this.power));
    }
}
