// <fanfold-figure>: exported programs, run anew whenever a slider moves, beside the limit that no estimator passes.

import {AT_ONCE, Curve, Engine, LATER} from 'fanfold/engine';
import {STEPS} from 'fanfold/path';
import {colour, isDark, LOOKS, Plot} from 'fanfold/plot';
import {pictures, picturesInWords} from 'fanfold/pictures';
import {inWords, spikes} from 'fanfold/spikes';
import {template} from 'fanfold/template';
import {dB, HOME} from 'fanfold/words';

const KEPT = 100; // of the latest latencies
const nearest = (values, value) => values.reduce((best, v, i) => (Math.abs(v - value) < Math.abs(values[best] - value) ? i : best), 0);

// What the sliders say: from where they stand to a setting and back, and in words.
const scales = ({snrs, sparsities, layers}) => ({
    snr: {max: snrs.length - 1, step: 1, of: i => snrs[i], to: v => nearest(snrs, v), say: v => `${v} dB`},
    sparsity: {
        max: sparsities.length - 1, step: 1, of: i => sparsities[i], to: v => nearest(sparsities, v),
        say: v => `${Math.round(100 * v)} of 100 not zero`,
    },
    lam: {min: -3, max: 3, step: 0.25, of: i => 2 ** i, to: Math.log2, say: v => `${v.toFixed(2)} × the tuned one`},
    layer: {min: 1, max: layers, step: 1, of: i => i, to: v => v, say: v => `${v} of ${layers}`},
    strength: {max: 1, step: 0.05, of: i => i, to: v => v, say: v => `${v.toFixed(2)}${{0: ', the algorithm', 1: ', as trained'}[v] ?? ''}`},
    mismatch: {max: 0.4, step: 0.02, of: i => i, to: v => v, say: v => (v ? `${Math.round(100 * v)} % of A` : 'none')},
});

function embedded(id) {
    return document.getElementById(id).textContent;
}

async function inflated(text) {
    const packed = Uint8Array.from(atob(text), c => c.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'))).arrayBuffer();
}

let engine; // one for all figures of a page, as a browser has room for about a hundred memories of WebAssembly

function engineOf(manifest) {
    engine ??= inflated(embedded('fanfold-payload')).then(payload => Engine.of(manifest, payload));
    return engine;
}

class FanfoldFigure extends HTMLElement {
    constructor() {
        super();
        this.attachShadow({mode: 'open'}).innerHTML = template(embedded('fanfold-style'));
        this.part_ = name => this.shadowRoot.querySelector(`[data-part="${name}"]`);
        this.settings = {...HOME};
        this.curves = {};
        this.redraws = 0;
        this.latencies = []; // milliseconds from a slider to the curves that it moved
        this.step = -1; // of the guided path; -1 is free play
    }

    async connectedCallback() {
        if (this.connected) return; // once, wherever in the page it is moved
        this.connected = true;
        const manifest = JSON.parse(embedded('fanfold-manifest'));
        try {
            this.engine = await engineOf(manifest);
        } catch (error) { // of a browser that is too old, or that may run no WebAssembly
            this.part_('failed').textContent = `The figure cannot run in this browser: ${error.message}.`;
            return;
        }
        this.scales = scales(manifest);
        this.home = {...HOME, ...manifest.home};
        this.manifest = manifest;
        this.#reset();
        this.plot = new Plot(this.part_('plot'), manifest.layers, layer => this.set({layer}));
        this.#listen();
        this.#list();
        const first = Math.trunc(this.getAttribute('step')) || 1;
        this.#go(this.getAttribute('mode') === 'free' ? -1 : Math.min(STEPS.length, Math.max(1, first)) - 1);
        this.dispatchEvent(new Event('ready'));
    }

    // What tests and pages may look at.
    get state() {
        const db = Object.fromEntries(Object.entries(this.curves).map(([key, {curve}]) => [key, curve.db]));
        const {settings, shown, pick, scene, redraws, latencies, step, limit} = this;
        const settled = !this.waiting && Object.values(this.curves).every(({curve}) => curve.settled);
        return {settings, shown, pick, scene, redraws, latencies, step, limit, db, settled, layers: this.engine.layers, preset: this.preset.key};
    }

    set(changes, began = performance.now()) {
        Object.assign(this.settings, changes);
        this.#schedule(began);
    }

    get limit() {
        const {snr, sparsity} = this.scales;
        return this.preset.limits[sparsity.to(this.settings.sparsity)][snr.to(this.settings.snr)];
    }

    // Every curve, at the condition of the training.
    #reset() {
        this.preset = this.engine.presets[0];
        this.shown = this.preset.estimators.map(({key}) => key);
        this.pick = this.shown.at(-1);
        this.scene = 0;
        Object.assign(this.settings, this.home);
    }

    #listen() {
        for (const [name, scale] of Object.entries(this.scales)) {
            const input = this.part_(name);
            Object.assign(input, {min: scale.min ?? 0, max: scale.max, step: scale.step});
            input.addEventListener('input', event => {
                clearInterval(this.playing);
                this.set({[name]: scale.of(Number(input.value))}, Math.min(event.timeStamp, performance.now()));
            });
        }
        this.#arrange();
        const sizes = this.part_('preset');
        sizes.append(...this.engine.presets.map(({key, label}) => new Option(label, key)));
        sizes.addEventListener('change', () => { this.preset = this.engine.preset(sizes.value); this.set({}); });
        const picks = this.part_('pick');
        picks.append(...this.preset.estimators.map(({key}) => new Option(key, key)));
        picks.addEventListener('change', () => { this.pick = picks.value; this.set({}); });
        this.part_('again').addEventListener('click', () => { this.#reset(); this.set({}); });
        this.part_('play').addEventListener('click', () => this.#play());
        this.part_('next').addEventListener('click', () => { if (this.#reached()) this.#go(this.step + 1 < STEPS.length ? this.step + 1 : -1, true); });
        this.part_('leave').addEventListener('click', () => this.#go(this.step < 0 ? 0 : -1));
        matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.set({}));
        new ResizeObserver(() => this.set({})).observe(this.part_('plot'));
    }

    #arrange() { // what this world has: sliders, words, pictures
        const {view, sliders, note, count} = this.manifest;
        for (const name of Object.keys(this.scales)) if (sliders && !sliders.includes(name)) this.part_(`${name}-control`).classList.add('hidden');
        if (note) this.part_('note').textContent = note;
        this.part_('preset-control').classList.toggle('hidden', this.engine.presets.length < 2);
        this.part_('spiked').classList.toggle('hidden', Boolean(view));
        this.part_('pictured').classList.toggle('hidden', !view);
        if (!view) return;
        const several = view.rows * view.columns === 1;
        this.part_('scene-control').classList.toggle('hidden', !several);
        const scenes = this.part_('scene');
        scenes.append(...Array.from({length: several ? count : 0}, (_, i) => new Option(`${view.what} ${i + 1} of ${count}`, i)));
        scenes.addEventListener('change', () => { this.scene = Number(scenes.value); this.set({}); });
    }

    #list() { // of the curves, to tick, with the error of each at the layer that is shown
        const row = key => {
            const label = document.createElement('label');
            const {dash, bold} = LOOKS[key];
            label.className = 'curve';
            label.innerHTML = `${key === 'limit' ? '<span></span>' : '<input type="checkbox">'}<svg viewBox="0 0 34 12" aria-hidden="true"><line
                x1="0" x2="34" y1="6" y2="6" stroke-width="${bold ? 3 : 2}" stroke-dasharray="${dash}"/></svg><span>${key}</span><b></b>`;
            label.dataset.key = key;
            label.querySelector('input')?.addEventListener('change', ({target}) => {
                this.shown = this.preset.estimators.map(e => e.key).filter(k => (k === key ? target.checked : this.shown.includes(k)));
                if (target.checked && this.step >= 0) this.pick = key; // what a step asks for, not before
                this.set({});
            });
            return label;
        };
        const known = this.preset.limits.flat().some(v => v !== null);
        this.part_('curves').append(...[...this.preset.estimators.map(({key}) => key), ...(known ? ['limit'] : [])].map(row));
    }

    // Draw in the next frame with a few draws, and go on in frames after it until the mean is over all of them.
    #schedule(began) {
        if (began !== undefined) this.began = Math.min(this.began ?? Infinity, began); // undefined where it goes on
        if (this.waiting) return;
        this.waiting = requestAnimationFrame(() => {
            this.waiting = undefined;
            this.#compute();
            this.#draw();
            if (this.began !== undefined) this.latencies = [...this.latencies.slice(1 - KEPT), performance.now() - this.began];
            this.began = undefined;
            if (!this.state.settled) setTimeout(() => { if (!this.waiting) this.#schedule(); });
        });
    }

    #compute() {
        const {snr, sparsity, mismatch, lam, strength} = this.settings;
        const wanted = new Set([...this.shown, this.pick, ...(STEPS[this.step]?.shown ?? [])]); // of which a step speaks too
        for (const estimator of this.preset.estimators) {
            const {key, learned, follows} = estimator;
            if (!wanted.has(key)) { delete this.curves[key]; continue; }
            const own = [learned && strength, Object.values(follows).includes('lam') && lam];
            const made = JSON.stringify([this.preset.key, snr, sparsity, mismatch, own]);
            if (this.curves[key]?.made !== made) {
                this.curves[key] = {made, curve: new Curve(this.engine, this.preset, estimator, {...this.settings})};
            }
            const {curve} = this.curves[key];
            curve.more(curve.draws ? LATER : AT_ONCE);
        }
    }

    #draw() {
        const {settings, preset, limit, shown} = this, {layer} = settings;
        const dark = isDark(this.part_('plot'));
        const shownCurves = Object.fromEntries(shown.map(key => [key, this.curves[key].curve.db]));
        this.plot.show(shownCurves, limit, layer, this.manifest.view && limit === null ? -30 : Math.min(-30, -settings.snr - 10, limit - 4));
        const look = this.#look(layer);
        for (const label of this.part_('curves').querySelectorAll('.curve')) {
            const {key} = label.dataset;
            label.querySelector('line').setAttribute('stroke', colour(key, dark));
            label.querySelector('b').textContent = key === 'limit' ? dB(limit) : shown.includes(key) ? dB(shownCurves[key][layer - 1]) : '';
            if (key !== 'limit') label.querySelector('input').checked = shown.includes(key);
        }
        for (const [name, scale] of Object.entries(this.scales)) {
            const input = this.part_(name), said = scale.say(settings[name]);
            input.value = scale.to(settings[name]);
            input.setAttribute('aria-valuetext', said);
            this.part_(`${name}-said`).textContent = said;
        }
        this.part_('preset').value = preset.key;
        this.part_('pick').value = this.pick;
        this.part_('scene').value = this.scene;
        this.redraws++;
        if (this.state.settled) this.#say(shownCurves, look);
        this.#guide();
    }

    #look(layer) { // what the estimate looks like; what to say of it
        const {seen} = this.curves[this.pick].curve, {view} = this.manifest;
        if (view) {
            const count = view.rows * view.columns;
            const chosen = count === 1 ? [seen[Math.min(this.scene, seen.length - 1)]] : seen;
            const parts = ['truth', 'estimate', 'error'].map(name => this.part_(name));
            const shown = pictures(parts, view, chosen, layer, x => this.engine.pixels(this.preset, x));
            this.part_('shown-db').textContent = dB(shown.db);
            return () => picturesInWords(view, shown, this.pick, layer);
        }
        const [{x, estimates}] = seen, estimate = estimates[layer - 1];
        spikes(this.part_('spikes'), x, estimate, this.pick);
        return () => inWords(x, estimate, this.pick, layer);
    }

    #say(shownCurves, words) { // for those who hear the figure, once it is at rest
        const {layer} = this.settings;
        const ranking = Object.entries(shownCurves).map(([key, db]) => [key, db[layer - 1]]).sort((a, b) => a[1] - b[1]);
        const rows = ranking.map(([key, value]) => `${key} ${dB(value)}`).join(', ');
        const text = `Error at layer ${layer}, the lowest first: ${rows || 'no curve is shown'}; the limit is ${dB(this.limit)}.`;
        const look = words();
        this.part_('plot').setAttribute('aria-label', text);
        this.part_('spikes').setAttribute('aria-label', look);
        for (const part of this.shadowRoot.querySelectorAll('.words')) part.textContent = look;
        if (this.part_('said').textContent !== text) this.part_('said').textContent = text;
    }

    #play() { // through the layers; at once where motion is not wanted
        clearInterval(this.playing);
        const {layers} = this.engine;
        if (matchMedia('(prefers-reduced-motion: reduce)').matches) { this.set({layer: layers}); return; }
        this.set({layer: 1});
        this.playing = setInterval(() => {
            this.set({layer: Math.min(layers, this.settings.layer + 1)});
            if (this.settings.layer === layers) clearInterval(this.playing);
        }, 350);
    }

    // The guided path

    #go(step, finished = false) {
        clearInterval(this.playing);
        this.step = step;
        this.guess = undefined;
        for (const name of ['path', 'next']) this.part_(name).classList.toggle('hidden', step < 0);
        this.part_('leave').textContent = step < 0 ? 'Start the guided path' : 'Leave the path and play freely';
        this.part_('finished').textContent = finished && step < 0 ? 'That was the path: now every slider is yours.' : '';
        if (step < 0) this.#reset();
        else {
            const {title, ask, choices, task, set, shown, pick} = STEPS[step];
            this.part_('progress').textContent = `Step ${step + 1} of ${STEPS.length}`;
            this.part_('title').textContent = title;
            this.part_('ask').textContent = ask;
            this.part_('task').textContent = task;
            this.part_('next').textContent = step + 1 < STEPS.length ? 'Next' : 'Finish';
            this.part_('choices').replaceChildren(...choices.map((text, i) => {
                const label = document.createElement('label');
                const input = Object.assign(document.createElement('input'), {type: 'radio', name: 'guess', value: i});
                input.addEventListener('change', () => { this.guess = i; this.#guide(); });
                label.append(input, text);
                return label;
            }));
            this.#reset();
            Object.assign(this, {shown: [...shown], pick});
            Object.assign(this.settings, set);
        }
        this.set({});
    }

    #reached() {
        const {step} = this;
        return step >= 0 && this.guess !== undefined && this.state.settled && STEPS[step].done(this.state);
    }

    #guide() {
        if (this.step < 0) return;
        const reached = this.#reached();
        this.part_('next').setAttribute('aria-disabled', String(!reached));
        const text = reached ? STEPS[this.step].see(this.state) : '';
        if (this.part_('see').textContent !== text) this.part_('see').textContent = text;
    }
}

customElements.define('fanfold-figure', FanfoldFigure);
