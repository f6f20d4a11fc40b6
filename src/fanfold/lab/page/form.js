// What to train: problem, network and settings, built from what the lab says can be chosen.

import {TEXT} from './address.js';
import {made} from './made.js';

export const PAIRS = 'pairs';
const FIRST = 4; // settings that are seen at once; the others are folded away
const SHORT = 32; // characters of what is said of a setting beside its name
const TRAINING = ['steps', 'lr', 'batch', 'validate_every'];
const text = value => (Array.isArray(value) ? value.join(' ') : value ?? '');

// What a field's text stands for; undefined where nothing is said, and an error where it is no such thing.
export function valueOf({name, kind}, said) {
    if (said.trim() === '') return undefined;
    const numbers = said.trim().split(/[\s,]+/).map(Number);
    if (numbers.some(v => !Number.isFinite(v)) || (kind === 'number' && numbers.length > 1)) {
        throw new Error(`${name} takes ${kind === 'numbers' ? 'numbers' : 'a number'}, not “${said.trim()}”.`);
    }
    return kind === 'numbers' ? numbers : numbers[0];
}

// Which networks the problem refuses, and why; several for one reason are said together.
function refused(networks, reasons) {
    const names = Map.groupBy(networks.filter(n => reasons[n.name]).map(n => n.name), name => reasons[name]);
    if (!names.size) return [];
    const rows = [...names].map(([reason, several]) => made('li', {}, made('b', {textContent: several.join(', ')}), `: ${reason}`));
    const count = networks.filter(n => reasons[n.name]).length;
    return [made('details', {className: 'quiet'}, made('summary', {textContent: `${count} do not fit this problem`}), made('ul', {}, ...rows))];
}

export class Form {
    // onChange is called when the state changed, onTrain when it is to be trained, onFile with a file of pairs.
    constructor(host, choices, {onChange, onTrain, onFile}) {
        Object.assign(this, {host, choices, onChange, onTrain, onFile, wrong: new Map()});
        host.addEventListener('submit', event => { event.preventDefault(); if (this.check()) onTrain(); });
    }

    show(state) {
        this.state = state;
        const {problems, networks, training} = this.choices;
        const problem = problems.find(p => p.name === state.problem) ?? problems[0];
        const reasons = problem.name === PAIRS ? this.pairs?.refused ?? {} : Object.fromEntries(networks.map(n => [n.name, n.refused[problem.name]]));
        const fitting = networks.filter(n => !reasons[n.name]);
        const network = fitting.find(n => n.name === state.network) ?? fitting[0];
        if (problem.name !== state.problem) state.of_problem = {};
        const other = network.name !== state.network;
        Object.assign(state, {problem: problem.name, network: network.name});
        if (!this.choices.widths.includes(state.quantise)) state.quantise = ''; // of an address
        this.asks = (problem.name === PAIRS ? this.pairs?.asks?.[network.name] : network.asks?.[problem.name]) ?? '';
        if (other) { state.of_network = {}; this.#trainedAsUsual(); } // settings were of the other one
        this.wrong.clear();
        const focused = document.activeElement?.id;
        const usual = training.map(row => ({...row, default: network.usual[row.name] ?? row.default})); // of this network
        const ordered = usual.sort((a, b) => (TRAINING.indexOf(a.name) >>> 0) - (TRAINING.indexOf(b.name) >>> 0));
        this.host.replaceChildren(
            this.#part('Problem', 'problem', problems, problem, 'of_problem', problem.name === PAIRS ? [this.#drop()] : []),
            this.#part('Network', 'network', fitting, network, 'of_network', refused(networks, reasons), this.#learned(network)),
            made('fieldset', {}, made('legend', {textContent: 'Training'}), ...this.#fields(ordered, 'training', [this.#more()]), this.#quantise()),
            this.button = made('button', {className: 'main', textContent: 'Train', type: 'submit'}),
        );
        document.getElementById(focused)?.focus();
        this.ready();
    }

    #trainedAsUsual() { // what is said of the text's figure, steps and rates, is not for what is no algorithm
        const {networks} = this.choices, {state} = this;
        state.learn = {};
        const algorithm = networks.find(n => n.name === state.network).quantities.length;
        if (!algorithm && JSON.stringify(state.training) === JSON.stringify(TEXT.training)) state.training = {};
    }

    ready() {
        this.button.disabled = this.state.problem === PAIRS && !this.pairs;
    }

    #part(legend, name, rows, row, table, more = [], folded = []) {
        const select = made('select', {id: `choose-${name}`}, ...rows.map(r => new Option(r.name, r.name, false, r === row)));
        select.addEventListener('change', () => {
            this.state[name] = select.value;
            this.state[table] = {};
            if (name === 'network') this.#trainedAsUsual();
            this.show(this.state);
            this.onChange();
        });
        const about = made('p', {className: 'quiet', id: `about-${name}`, textContent: row.about});
        select.setAttribute('aria-describedby', about.id);
        const chosen = made('div', {className: 'field wide'}, made('label', {htmlFor: select.id, className: 'unseen', textContent: legend}), select, about);
        const ordered = name === 'network' ? [...row.fields].sort((a, b) => this.#early(b) - this.#early(a)) : row.fields;
        const asks = name === 'network' && this.asks ? [made('p', {id: 'asks', role: 'status', textContent: this.asks})] : [];
        return made('fieldset', {}, made('legend', {textContent: legend}), chosen, ...asks, ...more, ...this.#fields(ordered, table, folded));
    }

    #early({name}) { // what is seen at once: the layers, and what the network asks for
        return Number(name === 'layers') + 2 * Number(this.asks !== '' && name === 'voxels');
    }

    #quantise() {
        const select = made('select', {id: 'quantise'}, new Option('no', '', false, !this.state.quantise), ...this.choices.widths.map(w => new Option(w, w, false, w === this.state.quantise)));
        select.addEventListener('change', () => { this.state.quantise = select.value; this.onChange(); });
        const about = made('p', {className: 'quiet', id: 'about-quantise', textContent: 'weights and activations of so many bits; the run RUN-WIDTHS is trained after this one'});
        select.setAttribute('aria-describedby', about.id);
        return made('div', {className: 'field apart'}, made('label', {htmlFor: 'quantise', textContent: 'then train on in whole numbers'}), select, about);
    }

    #more() { // what fields have no room for, as the command line takes it
        const area = made('textarea', {id: 'more', rows: 3, value: this.state.more, spellcheck: false, placeholder: 'key = value'});
        area.addEventListener('change', () => { this.state.more = area.value.trim(); this.onChange(); });
        return made('div', {className: 'field wide'}, made('label', {htmlFor: 'more', title: 'flags of fanfold train, without their dashes', textContent: 'other flags, one a line'}), area);
    }

    #fields(rows, table, folded = []) {
        const shown = made('div', {className: 'fields'}, ...rows.slice(0, FIRST).map(row => this.#field(row, table)));
        const rest = [...rows.slice(FIRST).map(row => this.#field(row, table)), ...folded];
        const said = table === 'training' ? this.state.more : Object.keys(this.state.learn).length;
        const changed = rows.slice(FIRST).some(({name}) => name in this.state[table]) || (folded.length && said);
        const more = made('details', {open: Boolean(changed)}, made('summary', {textContent: 'More settings'}), made('div', {className: 'fields'}, ...rest));
        return rest.length ? [shown, more] : [shown];
    }

    #field(row, table) {
        const id = `${table}-${row.name}`, values = this.state[table];
        const about = row.about.length > SHORT ? '' : row.about.replace(/^[A-Z](?=[a-z])/, letter => letter.toLowerCase()); // what is longer is in the title alone
        const label = made('label', {htmlFor: id, title: row.about}, row.name, made('span', {className: 'quiet', textContent: about && ` ${about}`}));
        const set = value => {
            if (value === undefined) delete values[row.name];
            else values[row.name] = value;
            this.onChange();
        };
        if (row.kind === 'switch') {
            const box = made('input', {type: 'checkbox', id, checked: values[row.name] ?? row.default, title: row.about});
            box.addEventListener('change', () => set(box.checked === row.default ? undefined : box.checked));
            return made('div', {className: 'field switch'}, box, label);
        }
        if (row.kind === 'choice') {
            const select = made('select', {id, title: row.about}, ...row.choices.map(c => new Option(c, c, false, c === (values[row.name] ?? row.default))));
            if (row.default === null) select.prepend(new Option('as usual', '', false, !(row.name in values)));
            select.addEventListener('change', () => set(select.value === '' ? undefined : row.choices.find(c => String(c) === select.value)));
            return made('div', {className: 'field'}, label, select);
        }
        const input = made('input', {id, value: text(values[row.name]), placeholder: text(row.default), inputMode: row.kind === 'number' ? 'decimal' : 'text', title: row.about, autocomplete: 'off'});
        const wrong = made('span', {className: 'wrong', id: `${id}-wrong`});
        const take = () => {
            let value;
            try {
                value = valueOf(row, input.value);
                this.wrong.delete(input);
            } catch (error) {
                this.wrong.set(input, error.message);
            }
            wrong.textContent = this.wrong.get(input) ?? '';
            input.setAttribute('aria-invalid', String(this.wrong.has(input)));
            if (!this.wrong.has(input)) set(value);
        };
        input.setAttribute('aria-describedby', wrong.id);
        input.addEventListener('change', take);
        return made('div', {className: 'field'}, label, input, wrong);
    }

    #learned(network) { // what may deviate: all numbers of each layer's own, if nothing is said
        return network.quantities.map(name => {
            const id = `learn-${name}`;
            const select = made('select', {id}, ...['', ...this.choices.sharings].map(s => new Option(s || 'as usual', s, false, s === (this.state.learn[name] ?? ''))));
            select.addEventListener('change', () => {
                if (select.value) this.state.learn[name] = select.value;
                else delete this.state.learn[name];
                this.onChange();
            });
            return made('div', {className: 'field'}, made('label', {htmlFor: id, textContent: `learn ${name}`}), select);
        });
    }

    #drop() {
        const input = made('input', {type: 'file', accept: '.npz', id: 'file'});
        input.addEventListener('change', () => { if (input.files.length) this.onFile(input.files[0]); });
        const reading = made('p', {className: 'quiet', id: 'pairs', role: 'status'});
        reading.textContent = this.pairs ? [this.pairs.file, this.pairs.reading, ...this.pairs.doubts].join(': ').replace(/\s+/g, ' ')
            : this.state.data ? `The address names ${this.state.data}.` : 'Arrays x (samples, n), y (samples, m) and, where it is known, A (m, n).';
        return made('div', {className: 'drop'}, made('label', {htmlFor: 'file', textContent: 'Your pairs, an .npz of at most 64 MB; drop it here, or choose it:'}), input, reading);
    }

    // Whether all fields can be read; the first that cannot is where the reader is led.
    check() {
        this.host.querySelectorAll('input, textarea').forEach(input => input === document.activeElement && input.dispatchEvent(new Event('change')));
        const [first] = this.wrong.keys();
        first?.focus();
        return !first;
    }
}
