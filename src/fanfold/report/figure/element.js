// <fanfold-figure> of layers: exported programs, run anew whenever a slider moves, beside the limit that no estimator passes.

import {AT_ONCE, Curve, LATER} from 'fanfold/engine';
import {embedded, Guided} from 'fanfold/guided';
import {isDark, Plot} from 'fanfold/plot';
import {pictures, picturesInWords} from 'fanfold/pictures';
import {inWords, spikes} from 'fanfold/spikes';
import {template} from 'fanfold/template';
import {dB, HOME} from 'fanfold/words';

const TEXTS = ['snr', 'sparsity', 'lam', 'layer', 'strength', 'mismatch']; // the sliders of the text's figure
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
    gain: {min: -2, max: 2, step: 0.25, of: i => 2 ** i, to: Math.log2, say: v => `${v.toFixed(2)} ×`},
    mismatch: {max: 0.4, step: 0.02, of: i => i, to: v => v, say: v => (v ? `${Math.round(100 * v)} % of A` : 'none')},
});

class FanfoldFigure extends Guided {
    constructor() {
        super(template(embedded('fanfold-style')));
        this.settings = {...HOME};
        this.curves = {};
    }

    begin(manifest) {
        this.scales = scales(manifest);
        this.home = {...HOME, ...manifest.home};
        this.reset();
        this.ticked = this.preset.estimators.map(({key}) => key);
        this.keys = [...this.ticked, ...(this.preset.limits.flat().some(v => v !== null) ? ['limit'] : [])];
        this.plot = new Plot(this.part_('plot'), manifest.layers, layer => this.set({layer}));
        this.#arrange();
        this.#listen();
    }

    // What tests and pages may look at; before the programs are there, nothing is settled.
    get state() {
        const {settings, shown, pick, scene, redraws, latencies, step} = this, asked = {settings, shown, pick, scene, redraws, latencies, step};
        if (!this.plot) return {...asked, settled: false};
        const db = Object.fromEntries(Object.entries(this.curves).map(([key, {curve}]) => [key, curve.db]));
        const settled = !this.waiting && Object.values(this.curves).every(({curve}) => curve.settled);
        return {...asked, limit: this.limit, db, settled, layers: this.engine.layers, preset: this.preset.key};
    }

    get limit() {
        const {snr, sparsity} = this.scales;
        return this.preset.limits[sparsity.to(this.settings.sparsity)][snr.to(this.settings.snr)];
    }

    // Every curve, at the condition of the training.
    reset() {
        this.preset = this.engine.presets[0];
        this.shown = this.preset.estimators.map(({key}) => key);
        this.pick = this.shown.at(-1);
        this.scene = 0;
        Object.assign(this.settings, this.home);
    }

    #listen() {
        const sizes = this.part_('preset');
        sizes.append(...this.engine.presets.map(({key, label}) => new Option(label, key)));
        sizes.addEventListener('change', () => { this.preset = this.engine.preset(sizes.value); this.set({}); });
        const picks = this.part_('pick');
        picks.append(...this.preset.estimators.map(({key}) => new Option(key, key)));
        picks.addEventListener('change', () => { this.pick = picks.value; this.set({}); });
        this.part_('play').addEventListener('click', () => this.#play());
    }

    #arrange() { // what this world has: sliders, words, pictures
        const {view, sliders = TEXTS, note, count} = this.manifest;
        for (const name of Object.keys(this.scales)) if (!sliders.includes(name)) this.part_(`${name}-control`).classList.add('hidden');
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

    compute() {
        const {snr, sparsity, mismatch, gain, lam, strength} = this.settings;
        const wanted = new Set([...this.shown, this.pick, ...(this.pathStep?.shown ?? [])]); // of which a step speaks too
        for (const estimator of this.preset.estimators) {
            const {key, learned, follows} = estimator;
            if (!wanted.has(key)) { delete this.curves[key]; continue; }
            const own = [learned && strength, Object.values(follows).includes('lam') && lam];
            const made = JSON.stringify([this.preset.key, snr, sparsity, mismatch, gain, own]);
            if (this.curves[key]?.made !== made) {
                this.curves[key] = {made, curve: new Curve(this.engine, this.preset, estimator, {...this.settings})};
            }
            const {curve} = this.curves[key];
            curve.more(curve.draws ? LATER : AT_ONCE);
        }
    }

    draw() {
        const {settings, preset, limit, shown} = this, {layer} = settings;
        const shownCurves = Object.fromEntries(shown.map(key => [key, this.curves[key].curve.db]));
        this.plot.show(shownCurves, limit, layer, this.manifest.view && limit === null ? -30 : Math.min(-30, -settings.snr - 10, limit - 4));
        const look = this.#look(layer);
        this.paintControls(key => (key === 'limit' ? dB(limit) : shown.includes(key) ? dB(shownCurves[key][layer - 1]) : ''));
        this.part_('preset').value = preset.key;
        this.part_('pick').value = this.pick;
        this.part_('scene').value = this.scene;
        if (this.state.settled) this.#say(shownCurves, look);
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

    #say(shownCurves, words) {
        const {layer} = this.settings, look = words();
        const ranking = Object.entries(shownCurves).map(([key, db]) => [key, db[layer - 1]]).sort((a, b) => a[1] - b[1]);
        const rows = ranking.map(([key, value]) => `${key} ${dB(value)}`).join(', ');
        this.speak(`Error at layer ${layer}, the lowest first: ${rows || 'no curve is shown'}; the limit is ${dB(this.limit)}.`, look);
        this.part_('spikes').setAttribute('aria-label', look);
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
}

customElements.define('fanfold-figure', FanfoldFigure);
