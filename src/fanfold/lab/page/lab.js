// The page of the lab: its form, its runs and their curves, and the live figure once somebody looks at it.

import {hashOf, requestOf, stateOf, TEXT} from './address.js';
import {Curves, LOOKS} from './curves.js';
import {Form, PAIRS} from './form.js';
import {Card, Followed, LIVE} from './runs.js';

const at = id => document.getElementById(id);
const SECONDS = 2000; // between looks at the list of runs, milliseconds
const MOST = LOOKS.length; // runs that are compared

async function asked(path, options) {
    let answer;
    try {
        answer = await fetch(path, options);
    } catch {
        throw new Error('The lab does not answer: was it ended? Start it again: fanfold lab.');
    }
    const said = await answer.json().catch(() => ({error: `The lab answered ${answer.status}.`}));
    if (!answer.ok) throw new Error(said.error);
    return said;
}

class Page {
    constructor() {
        this.state = stateOf(location.hash);
        this.followed = new Map(); // runs that are shown, by name
        this.cards = new Map();
        this.rows = [];
        this.curves = new Curves(at('plot'));
        addEventListener('hashchange', () => { if (location.hash !== hashOf(this.state)) this.restore(stateOf(location.hash)); });
        document.addEventListener('visibilitychange', () => this.#seen());
        for (const button of document.querySelectorAll('[data-view]')) button.addEventListener('click', () => { this.state.view = button.dataset.view; this.changed(); });
        addEventListener('dragover', event => { event.preventDefault(); document.body.classList.add('dragged'); });
        addEventListener('dragleave', () => document.body.classList.remove('dragged'));
        addEventListener('drop', event => { event.preventDefault(); document.body.classList.remove('dragged'); const [file] = event.dataTransfer.files; if (file) this.take(file); });
    }

    async begin() {
        this.#view();
        this.#list();
        setInterval(() => { if (!document.hidden) this.#list(); }, SECONDS);
        await this.trying(async () => {
            const choices = await asked('choices');
            this.text = choices.text;
            this.form = new Form(at('form'), choices, {onChange: () => this.changed(), onTrain: () => this.train(), onFile: file => this.take(file)});
            await this.#pairs();
            this.restore(this.state);
        });
    }

    restore(state) {
        this.state = state;
        this.form?.show(state);
        this.changed();
    }

    changed() {
        const hash = hashOf(this.state);
        if (location.hash !== hash) history.replaceState(null, '', hash);
        this.#view();
        this.#follow();
    }

    async trying(work) { // what goes wrong is said at the top of the page
        try {
            at('alert').textContent = '';
            return await work();
        } catch (error) {
            at('alert').textContent = error.message;
            at('alert').scrollIntoView({block: 'nearest'});
            return undefined;
        }
    }

    train() {
        return this.trying(async () => {
            const body = JSON.stringify(requestOf(this.state));
            const {name} = await asked('runs', {method: 'POST', body, headers: {'Content-Type': 'application/json'}});
            this.state.shown = [...this.state.shown, name].slice(-MOST);
            at('said').textContent = `${name} begins.`;
            this.changed();
            await this.#list();
            at('plot').scrollIntoView({block: 'nearest'});
        });
    }

    take(file) {
        return this.trying(async () => {
            if (!this.form) throw new Error('What can be chosen is still being loaded: drop the file again in a moment.');
            if (this.state.problem !== PAIRS) Object.assign(this.state, {problem: PAIRS, of_problem: {}});
            this.form.show(this.state);
            at('pairs').textContent = `${file.name} is read…`;
            try {
                this.form.pairs = await asked(`data?name=${encodeURIComponent(file.name)}`, {method: 'POST', body: file});
                this.state.data = this.form.pairs.file;
            } finally {
                this.form.show(this.state);
            }
            this.changed();
        });
    }

    async #pairs() { // of a file that the address names: it is there, or is to be dropped again
        if (this.state.problem !== PAIRS || !this.state.data) return;
        try {
            this.form.pairs = await asked(`data/${encodeURIComponent(this.state.data)}`);
        } catch (error) {
            at('alert').textContent = error.message;
        }
    }

    async #list() {
        let said;
        try {
            said = await asked('runs');
        } catch (error) {
            at('alert').textContent = error.message;
            return;
        }
        this.rows = said.runs;
        at('folder').textContent = `in ${said.folder}`;
        for (const row of said.runs) {
            if (!this.cards.has(row.name)) this.cards.set(row.name, new Card(row.name, {
                onShow: (name, shown) => this.show(name, shown),
                onCancel: name => this.trying(async () => { await asked(`runs/${encodeURIComponent(name)}/cancel`, {method: 'POST'}); await this.#list(); }),
                onResume: name => this.resume(name),
            }));
        }
        const elements = said.runs.map(({name}) => this.cards.get(name).element);
        if (elements.some((element, i) => at('runs').children[i] !== element) || at('runs').children.length !== elements.length) {
            const focused = document.activeElement;
            at('runs').replaceChildren(...elements);
            if (at('runs').contains(focused)) focused.focus();
        }
        at('empty').hidden = elements.length > 0;
        this.#follow();
    }

    show(name, shown) {
        this.state.shown = [...this.state.shown.filter(other => other !== name), ...(shown ? [name] : [])].slice(-MOST);
        this.changed();
    }

    resume(name) {
        return this.trying(async () => {
            await asked(`runs/${encodeURIComponent(name)}/resume`, {method: 'POST'});
            this.followed.get(name)?.again();
            if (!this.followed.has(name)) this.show(name, true);
            await this.#list();
        });
    }

    #follow() {
        const known = new Map(this.rows.map(row => [row.name, row]));
        const wanted = this.state.shown.filter(name => known.has(name)).slice(-MOST); // an address may name more
        for (const [name, run] of this.followed) if (!wanted.includes(name)) { run.leave(); this.followed.delete(name); }
        for (const name of wanted) {
            let run = this.followed.get(name);
            if (!run) {
                const taken = new Set([...this.followed.values()].map(({slot}) => slot));
                run = new Followed(name, LOOKS.findIndex((_, slot) => !taken.has(slot)), (...news) => this.#news(...news));
                this.followed.set(name, run);
            }
            const row = known.get(name);
            Object.assign(run, {in_db: row.in_db ?? true, steps: row.steps});
            if (run.ended && LIVE.has(row.condition)) run.again(); // resumed in another tab
            if (!document.hidden) run.follow();
        }
        this.#draw();
    }

    #seen() {
        for (const run of this.followed.values()) {
            if (document.hidden) run.leave();
            else run.follow();
        }
    }

    #news(run, state = false) {
        if (state && run.state) {
            const row = this.rows.find(({name}) => name === run.name);
            if (row && row.condition !== run.state.condition) {
                Object.assign(row, run.state);
                at('said').textContent = `${run.name}: ${run.state.condition}. ${run.state.message}`;
                this.#list();
            }
        }
        this.#draw();
    }

    #draw() {
        const runs = [...this.followed.values()];
        for (const row of this.rows) this.cards.get(row.name)?.update(row, this.followed.get(row.name));
        const ofText = runs.some(({name}) => this.#isText(this.rows.find(row => row.name === name)?.problem));
        const levels = ofText ? {'ISTA': this.text.levels.ISTA, 'AMP, best α': this.text.levels.AMP, 'limit': this.text.limit} : {};
        this.curves.show(runs, levels);
        at('reading').textContent = !runs.length ? 'Tick a run to see its curve; ticked runs are compared.'
            : `Step 0 is the algorithm, before anything is learned; thin lines are the batches.${ofText ? ' Dotted: peers of 16 iterations, and the Bayes limit.' : ' Peers and limits are in the report.'}`;
    }

    #isText(problem) {
        return Boolean(this.text && problem) && Object.entries(this.text.problem).every(([name, value]) => problem[name] === value);
    }

    #view() {
        for (const view of document.querySelectorAll('.view')) view.hidden = view.id !== this.state.view;
        for (const button of document.querySelectorAll('[data-view]')) {
            if (button.dataset.view === this.state.view) button.setAttribute('aria-current', 'page');
            else button.removeAttribute('aria-current');
        }
        if (this.state.view === 'figure') this.figure ??= this.#figure();
    }

    #figure() { // what the element finds in a page from disk is fetched here
        at('figure-loading').textContent = 'Loading the figure; some seconds.';
        return this.trying(async () => {
            const [{manifest, payload}, ...styles] = await Promise.all([
                asked('figure/parts.json'), ...['uPlot.min.css', 'figure.css'].map(name => fetch(`static/${name}`).then(answer => answer.text())),
            ]);
            for (const [id, textContent] of Object.entries({manifest, payload, style: styles.join('')})) {
                document.head.append(Object.assign(document.createElement('script'), {id: `fanfold-${id}`, type: 'text/plain', textContent}));
            }
            await import('fanfold/element');
            at('figure').append(document.createElement('fanfold-figure'));
            at('figure-loading').textContent = '';
        });
    }
}

if (!['train', 'figure'].includes(stateOf(location.hash).view)) history.replaceState(null, '', hashOf({...stateOf(location.hash), view: TEXT.view}));
const page = new Page();
globalThis.lab = page; // for whoever looks at it from the console
page.begin();
