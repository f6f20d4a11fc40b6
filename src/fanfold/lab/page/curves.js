// The curves of the runs that are compared: error on held-out draws over steps, with the batches' loss faint behind.

export const LOOKS = [ // told apart by the colour-blind, and by their dashes without colour
    {light: '#b35000', dark: '#ff9a4d', dash: []},
    {light: '#0072b2', dark: '#56b4e9', dash: [8, 4]},
    {light: '#00735c', dark: '#33c9a5', dash: [10, 3, 2, 3]},
    {light: '#8b3d88', dark: '#dd9bc8', dash: [4, 2]},
    {light: '#111111', dark: '#f0e442', dash: []},
    {light: '#6b4a00', dark: '#c6e04f', dash: [12, 4]},
    {light: '#6b7280', dark: '#a8b0bb', dash: [2, 3]},
    {light: '#a3003c', dark: '#ff8fa8', dash: [6, 2, 2, 2]},
];
export const isDark = () => matchMedia('(prefers-color-scheme: dark)').matches;
export const colourOf = slot => LOOKS[slot][isDark() ? 'dark' : 'light'];
export const dB = value => (Number.isFinite(value) ? `${value.toFixed(1).replace('-', '−')} dB` : 'no number');
const LONG = 2000; // steps
const FONT = '12px system-ui, sans-serif';

// Steps that a run needs room for: all of a training that goes on, of a long one twice what there is.
const room = ({steps, ended, events}) => (ended || !steps ? 0 : steps <= LONG ? steps : Math.min(steps, 2 ** Math.ceil(Math.log2(events + 64))));

export class Curves {
    constructor(host) {
        this.host = host;
        this.redraws = 0;
        new ResizeObserver(() => this.show(this.runs ?? [], this.levels ?? {})).observe(host);
        matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.show(this.runs, this.levels));
    }

    // Each run has a name, a slot of LOOKS, points `validated` and `batches` of [step, dB]; levels are {name: dB}.
    show(runs, levels) {
        Object.assign(this, {runs, levels});
        if (this.waiting) return;
        this.waiting = requestAnimationFrame(() => { this.waiting = undefined; this.#draw(); });
    }

    #draw() {
        const {runs, levels} = this;
        const width = Math.max(260, this.host.clientWidth - 10);
        const lines = runs.flatMap(run => [
            {run, points: run.batches, faint: true}, {run, points: run.validated, faint: false},
        ]);
        const steps = [...new Set([0, ...lines.flatMap(({points}) => points.map(([step]) => step))])].sort((a, b) => a - b);
        const place = new Map(steps.map((step, i) => [step, i]));
        const columns = lines.map(({points}) => {
            const column = Array(steps.length).fill(null);
            for (const [step, value] of points) column[place.get(step)] = Number.isFinite(value) ? value : null;
            return column;
        });
        const most = Math.max(10, steps.at(-1), ...runs.map(room));
        const flat = Object.entries(levels);
        const made = JSON.stringify([width, isDark(), most, runs.map(run => [run.name, run.slot]), flat]);
        const data = [steps, ...columns];
        if (made !== this.made) this.#make(lines, flat, data, width, most);
        else this.chart.setData(data);
        this.made = made;
        this.redraws++;
        const said = runs.map(run => `${run.name} ${run.validated.length ? `at step ${run.validated.at(-1)[0]}: ${dB(run.validated.at(-1)[1])}` : 'has no error yet'}`);
        this.host.setAttribute('aria-label', said.length ? `Error over steps. ${said.join('; ')}.` : 'No run is shown yet.');
    }

    #make(lines, flat, data, width, most) {
        this.chart?.destroy();
        const ink = isDark() ? '#e5e9ee' : '#1c2733', grid = isDark() ? '#2f3945' : '#e4e8ec';
        const axis = {stroke: ink, grid: {stroke: grid, width: 1}, ticks: {stroke: grid}, font: FONT, labelFont: FONT};
        const range = (_, low, high) => {
            const all = [low, high, ...flat.map(([, v]) => v)].filter(v => v !== null && Number.isFinite(v));
            if (!all.length) return [-20, 0];
            const [least, largest] = [Math.min(...all), Math.min(30, Math.max(...all))], room = Math.max(0.5, 0.06 * (largest - least));
            return [least - room, largest + room];
        };
        const options = {
            width, height: Math.round(Math.min(400, Math.max(250, width * 0.5))),
            padding: [10, 28, 0, 0], legend: {show: false}, cursor: {show: false},
            scales: {x: {time: false, range: [0, most]}, y: {range}},
            axes: [
                {...axis, label: 'step', labelSize: 20, size: 34},
                {...axis, label: 'NMSE in dB', labelSize: 22, size: 56, values: (_, ticks) => ticks.map(v => String(v).replace('-', '−'))},
            ],
            series: [{}, ...lines.map(({run, faint}) => ({
                label: run.name, stroke: faint ? `${colourOf(run.slot)}55` : colourOf(run.slot), dash: faint ? [] : LOOKS[run.slot].dash,
                width: faint ? 1 : 2.4, spanGaps: true, points: {show: false},
            }))],
            hooks: {draw: [chart => this.#levels(chart, flat, ink)]},
        };
        this.chart = new globalThis.uPlot(options, data, this.host);
    }

    #levels(chart, flat, ink) { // of the strongest peers and the limit, where they are known
        const {ctx} = chart, ratio = devicePixelRatio || 1, {left, width} = chart.bbox, paper = getComputedStyle(this.host).backgroundColor;
        ctx.save();
        Object.assign(ctx, {strokeStyle: ink, fillStyle: ink, globalAlpha: 0.75, lineWidth: ratio, font: `${11 * ratio}px system-ui, sans-serif`, textAlign: 'right'});
        ctx.setLineDash([3 * ratio, 4 * ratio]);
        for (const [name, value] of flat) {
            const y = chart.valToPos(value, 'y', true);
            ctx.beginPath();
            ctx.moveTo(left, y);
            ctx.lineTo(left + width, y);
            ctx.stroke();
            const place = [`${name} ${dB(value)}`, left + width - 4 * ratio, y - 4 * ratio];
            ctx.save();
            Object.assign(ctx, {globalAlpha: 1, strokeStyle: paper, lineWidth: 4 * ratio, lineJoin: 'round'});
            ctx.setLineDash([]);
            ctx.strokeText(...place); // a rim that keeps curves out of the letters
            ctx.fillText(...place);
            ctx.restore();
        }
        ctx.restore();
    }
}
