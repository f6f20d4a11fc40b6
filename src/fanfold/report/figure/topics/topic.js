// <fanfold-figure> of a topic: a world asks exported programs whatever its sliders say; this draws what it answers.

import {Chart} from 'fanfold/chart';
import {embedded, guide, Guided, slider} from 'fanfold/guided';
import {World} from 'fanfold/world';

const template = (style, {controls, titles, note, listed, below}) => `<div class="figure">${guide(style)}
  <div class="body">
    <div class="pictures">
      <div class="top"><h2>${titles[0]}</h2><div class="plot" data-part="plot" role="img" aria-label="Curves"></div></div>
      <div><h2>${titles[1]}</h2><div class="plot flat" data-part="below" role="img" aria-label="${titles[1]}"></div></div>
      <p class="quiet">${below} <span class="words"></span></p>
      <p class="unseen" data-part="said" role="status"></p>
    </div>
    <div class="controls">
      <fieldset class="curves" data-part="curves"><legend>${listed}</legend></fieldset>
      ${controls.map(({name, label}) => slider([name, label])).join('')}
      <table data-part="table" class="hidden"></table>
      <div class="row"><button data-part="again">Back to the start</button></div>
      <p class="quiet" data-part="note">${note}</p>
    </div>
  </div></div>`;

// Sliders over values that the manifest lists, with their words.
const scale = ({values, said}) => ({max: values.length - 1, step: 1, of: i => values[i], to: v => values.indexOf(v), say: v => said[values.indexOf(v)]});

class FanfoldTopic extends Guided {
    constructor() {
        super(template(embedded('fanfold-style'), JSON.parse(embedded('fanfold-manifest'))));
    }

    begin({controls, series}) {
        [this.preset] = this.engine.presets;
        this.scales = Object.fromEntries(controls.map(control => [control.name, scale(control)]));
        this.home = Object.fromEntries(controls.map(({name, home}) => [name, home]));
        this.series = series;
        this.keys = this.ticked = Object.keys(series);
        this.world = new World(this.preset);
        const point = x => { const changes = this.world.pointed?.(x); if (changes) this.set(changes); };
        this.plot = new Chart(this.part_('plot'), key => this.lookOf(key), point);
        this.below = new Chart(this.part_('below'), key => this.lookOf(key), undefined, 0.75);
        this.reset();
    }

    lookOf(key) {
        return this.series[key];
    }

    // What tests and pages may look at.
    get state() {
        const {settings, shown, redraws, latencies, step, world} = this;
        const begun = Boolean(world?.settings), settled = begun && !this.waiting && world.settled;
        return {settings, shown, redraws, latencies, step, settled, numbers: begun && world.numbers, preset: this.preset?.key};
    }

    reset() {
        this.shown = [...this.keys];
        Object.assign(this.settings, this.home);
    }

    compute() {
        this.world.take({...this.settings});
        this.world.more();
    }

    draw() {
        const {world, shown} = this;
        this.plot.show(world.chart(shown));
        this.below.show(world.below(shown));
        this.paintControls(key => (shown.includes(key) ? world.said(key) : ''));
        this.#tabulate(shown.length ? world.table?.(shown) : undefined);
        if (!this.state.settled) return;
        const numbers = shown.map(key => `${key} ${world.said(key)}`).join(', ');
        this.speak(`${this.manifest.listed}: ${numbers || 'no curve is shown'}.`, shown.length ? world.words(shown) : '');
    }

    #tabulate(table) {
        this.part_('table').classList.toggle('hidden', !table);
        if (!table) return;
        const row = kind => cells => `<tr>${cells.map((cell, i) => `<${i ? kind : 'th'}${i || kind === 'th' ? '' : ' scope="row"'}>${cell}</${i ? kind : 'th'}>`).join('')}</tr>`;
        this.part_('table').innerHTML = `<thead>${row('th')(table.head)}</thead><tbody>${table.rows.map(row('td')).join('')}</tbody>`;
    }
}

customElements.define('fanfold-figure', FanfoldTopic);
