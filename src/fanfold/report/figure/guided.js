// What every live figure shares: programs that are inflated once a page, sliders, curves to tick, frames, the guided path.

import {Engine} from 'fanfold/engine';
import {STEPS} from 'fanfold/path';
import {colour, isDark, LOOKS} from 'fanfold/plot';

const KEPT = 100; // of the latest latencies

export const slider = ([name, label]) => `<div class="control" data-part="${name}-control"><label for="${name}">${label}</label>
    <output data-part="${name}-said" for="${name}"></output><input type="range" id="${name}" data-part="${name}"></div>`;

// What every figure begins with: its style, what went wrong, and the guided path.
export const guide = style => `<style>${style}</style>
  <p data-part="failed" role="alert"></p>
  <section class="guide" data-part="guide" aria-label="Guided path">
    <div data-part="path">
      <h2><span class="progress" data-part="progress"></span> <span data-part="title"></span></h2>
      <fieldset><legend data-part="ask"></legend><div class="choices" data-part="choices"></div></fieldset>
      <p data-part="task"></p>
      <p data-part="see" role="status"></p>
    </div>
    <div class="row"><button data-part="next" aria-disabled="true">Next</button><button data-part="leave"></button>
      <span data-part="finished" role="status"></span></div>
  </section>`;

export function embedded(id) {
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

// A figure says what it has in `begin(manifest)`, which sets `scales` and `keys`; stands anew by `reset()`; works a frame's worth
// by `compute()` until `settled`; and paints by `draw()`. What it may be asked is its `state`.
export class Guided extends HTMLElement {
    constructor(inside) {
        super();
        this.attachShadow({mode: 'open'}).innerHTML = inside;
        this.part_ = name => this.shadowRoot.querySelector(`[data-part="${name}"]`);
        this.settings = {};
        this.shown = [];
        this.redraws = 0;
        this.latencies = []; // milliseconds from a slider to the curves that it moved
        this.step = -1; // of the guided path; -1 is free play
    }

    async connectedCallback() {
        if (this.connected) return; // once, wherever in the page it is moved
        this.connected = true;
        this.manifest = JSON.parse(embedded('fanfold-manifest'));
        try {
            this.engine = await engineOf(this.manifest);
        } catch (error) { // of a browser that is too old, or that may run no WebAssembly
            this.part_('failed').textContent = `The figure cannot run in this browser: ${error.message}.`;
            return;
        }
        this.begin(this.manifest);
        this.#listen();
        this.#list();
        const first = Math.trunc(this.getAttribute('step')) || 1;
        this.#go(this.getAttribute('mode') === 'free' ? -1 : Math.min(STEPS.length, Math.max(1, first)) - 1);
        this.dispatchEvent(new Event('ready'));
    }

    set(changes, began = performance.now()) {
        Object.assign(this.settings, changes);
        this.#schedule(began);
    }

    lookOf(key) { // whose colour and dash a curve has
        return key;
    }

    get pathStep() {
        return STEPS[this.step];
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
        this.part_('again').addEventListener('click', () => { this.reset(); this.set({}); });
        this.part_('next').addEventListener('click', () => { if (this.#reached()) this.#go(this.step + 1 < STEPS.length ? this.step + 1 : -1, true); });
        this.part_('leave').addEventListener('click', () => this.#go(this.step < 0 ? 0 : -1));
        matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.set({}));
        new ResizeObserver(() => this.set({})).observe(this.part_('plot'));
    }

    #list() { // of the curves, to tick, with a number of each
        const row = key => {
            const label = document.createElement('label');
            const {dash, bold} = LOOKS[this.lookOf(key)];
            const fixed = !this.ticked.includes(key);
            label.className = 'curve';
            label.innerHTML = `${fixed ? '<span></span>' : '<input type="checkbox">'}<svg viewBox="0 0 34 12" aria-hidden="true"><line
                x1="0" x2="34" y1="6" y2="6" stroke-width="${bold ? 3 : 2}" stroke-dasharray="${dash}"/></svg><span>${key}</span><b></b>`;
            label.dataset.key = key;
            label.querySelector('input')?.addEventListener('change', ({target}) => {
                this.shown = this.ticked.filter(k => (k === key ? target.checked : this.shown.includes(k)));
                if (target.checked && this.step >= 0) this.pick = key; // what a step asks for, not before
                this.set({});
            });
            return label;
        };
        this.part_('curves').append(...this.keys.map(row));
    }

    // Draw in the next frame with a few draws, and go on in frames after it until the mean is over all of them.
    #schedule(began) {
        if (began !== undefined) this.began = Math.min(this.began ?? Infinity, began); // undefined where it goes on
        if (this.waiting) return;
        this.waiting = requestAnimationFrame(() => {
            this.waiting = undefined;
            this.compute();
            this.draw();
            this.redraws++;
            this.#guide();
            if (this.began !== undefined) this.latencies = [...this.latencies.slice(1 - KEPT), performance.now() - this.began];
            this.began = undefined;
            if (!this.state.settled) setTimeout(() => { if (!this.waiting) this.#schedule(); });
        });
    }

    paintControls(numberOf) { // where sliders stand, and the number of each curve in words
        const dark = isDark(this.part_('plot'));
        for (const label of this.part_('curves').querySelectorAll('.curve')) {
            const {key} = label.dataset, box = label.querySelector('input');
            label.querySelector('line').setAttribute('stroke', colour(this.lookOf(key), dark));
            label.querySelector('b').textContent = numberOf(key);
            if (box) box.checked = this.shown.includes(key);
        }
        for (const [name, scale] of Object.entries(this.scales)) {
            const input = this.part_(name), said = scale.say(this.settings[name]);
            input.value = scale.to(this.settings[name]);
            input.setAttribute('aria-valuetext', said);
            this.part_(`${name}-said`).textContent = said;
        }
    }

    speak(text, look) { // to those who hear the figure, once it is at rest
        this.part_('plot').setAttribute('aria-label', text);
        for (const part of this.shadowRoot.querySelectorAll('.words')) part.textContent = look;
        if (this.part_('said').textContent !== text) this.part_('said').textContent = text;
    }

    // The guided path

    #go(step, finished = false) {
        clearInterval(this.playing);
        this.step = step;
        this.guess = undefined;
        for (const name of ['path', 'next']) this.part_(name).classList.toggle('hidden', step < 0);
        this.part_('leave').textContent = step < 0 ? 'Start the guided path' : 'Leave the path and play freely';
        this.part_('finished').textContent = finished && step < 0 ? 'That was the path: now every slider is yours.' : '';
        this.reset();
        if (step >= 0) {
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
            Object.assign(this, {shown: [...shown], pick});
            Object.assign(this.settings, set);
        }
        this.set({});
    }

    #reached() {
        return this.step >= 0 && this.guess !== undefined && this.state.settled && this.pathStep.done(this.state);
    }

    #guide() {
        if (this.step < 0) return;
        const reached = this.#reached();
        this.part_('next').setAttribute('aria-disabled', String(!reached));
        const text = reached ? this.pathStep.see(this.state) : '';
        if (this.part_('see').textContent !== text) this.part_('see').textContent = text;
    }
}
