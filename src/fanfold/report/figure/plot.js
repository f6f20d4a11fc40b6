// The curves: error after each layer, with the name of each at its end; colours are told apart by the colour-blind, and
// dashes and widths say the same without them.

export const LOOKS = {
    'ISTA': {light: '#6b7280', dark: '#a8b0bb', dash: [2, 3]},
    'FISTA': {light: '#0072b2', dark: '#56b4e9', dash: [8, 4]},
    'AMP': {light: '#00735c', dark: '#33c9a5', dash: [10, 3, 2, 3]},
    'OAMP': {light: '#8b3d88', dark: '#dd9bc8', dash: [4, 2]},
    'unfolded ISTA': {light: '#b35000', dark: '#ff9a4d', dash: [], bold: true},
    'unfolded OAMP': {light: '#111111', dark: '#f0e442', dash: [], bold: true},
    'unfolded LISTA': {light: '#7a1f5c', dark: '#ff9bd2', dash: [], bold: true},
    'LMMSE': {light: '#8b3d88', dark: '#dd9bc8', dash: [4, 2]},
    'unfolded LISTA-CP': {light: '#b35000', dark: '#ff9a4d', dash: [], bold: true},
    'least squares, linear': {light: '#6b7280', dark: '#a8b0bb', dash: [2, 3]},
    'LMMSE, grid': {light: '#0072b2', dark: '#56b4e9', dash: [8, 4]},
    'LMMSE, space ⊗ grid': {light: '#00735c', dark: '#33c9a5', dash: [10, 3, 2, 3]},
    'this run': {light: '#6b4a00', dark: '#c6e04f', dash: [12, 4], bold: true},
    'limit': {light: '#a3003c', dark: '#ff8fa8', dash: [3, 5]},
};
const FONT = '12px system-ui, sans-serif';
export const INK = {light: '#1c2733', dark: '#e5e9ee'};
const LOW_TOP = 4, HIGH_TOP = 12; // dB that the axis reaches to; curves that diverge go beyond
const NARROW = 480; // pixels, below which names at the ends of curves have no room and the list below says them

export function isDark(element) {
    return getComputedStyle(element).colorScheme === 'dark';
}

export function colour(name, dark) {
    return LOOKS[name][dark ? 'dark' : 'light'];
}

// What both axes of every chart share.
export function axisOf(dark) {
    const grid = dark ? '#2f3945' : '#e4e8ec';
    return {stroke: INK[dark ? 'dark' : 'light'], grid: {stroke: grid, width: 1}, ticks: {stroke: grid}, font: FONT, labelFont: FONT};
}

export const heightOf = width => Math.round(Math.min(420, Math.max(250, width * 0.55)));
export const minus = ticks => ticks.map(v => String(v).replace('-', '−'));

// Places of labels, moved apart until none covers another.
export function apart(places, room) {
    const order = places.map((place, i) => [place, i]).sort((a, b) => a[0] - b[0]);
    const moved = [];
    let next = -Infinity;
    for (const [place, i] of order) {
        moved[i] = Math.max(place, next);
        next = moved[i] + room;
    }
    return moved;
}

export class Plot {
    constructor(host, layers, onLayer) {
        Object.assign(this, {host, layers, onLayer, names: []});
    }

    // Draw curves `{name: values in dB}` up to the layer that is shown, and the limit, with a line at that layer.
    show(curves, limit, layer, floor) {
        const dark = isDark(this.host);
        const width = Math.max(260, this.host.clientWidth);
        const seen = Object.entries(curves).map(([name, values]) => [name, values.map((v, i) => (i < layer ? v : null))]);
        const all = Object.fromEntries(seen);
        const highest = Math.max(...Object.values(curves).flat().filter(Number.isFinite)); // of later layers too, so that the axis stands still
        Object.assign(this, {layer, floor, top: Math.max(LOW_TOP, Math.min(HIGH_TOP, highest + 1))});
        if (limit !== null) all.limit = Array(this.layers).fill(limit);
        const names = Object.keys(all);
        const made = [names.join(), dark, width].join('|');
        const data = [Array.from({length: this.layers}, (_, i) => i + 1), ...names.map(name => all[name])];
        if (this.made !== made) this.#make(names, data, dark, width);
        else this.chart.setData(data);
        this.made = made;
    }

    #make(names, data, dark, width) {
        this.chart?.destroy();
        const axis = axisOf(dark), named = width >= NARROW;
        const options = {
            width, height: heightOf(width),
            padding: [10, named ? Math.max(112, 16 + 7.6 * Math.max(...names.map(name => name.length))) : 14, 0, 0],
            legend: {show: false}, cursor: {show: false},
            scales: {x: {time: false, range: [1, this.layers]}, y: {range: () => [this.floor, this.top]}},
            axes: [
                {...axis, label: 'layer or iteration', labelSize: 20, size: 34, splits: this.layers < 8 ? undefined : [1, 4, 8, 12, 16].filter(t => t <= this.layers), incrs: [1, 2, 4, 8]},
                {...axis, label: 'NMSE in dB', labelSize: 22, size: 44, values: (_, ticks) => minus(ticks)},
            ],
            series: [{}, ...names.map(name => {
                const {dash, bold} = LOOKS[name];
                const stroke = colour(name, dark);
                return {label: name, stroke, dash, width: bold ? 2.6 : 1.6, points: {show: () => bold || (this.layer === 1 && name !== 'limit'), size: 5, fill: stroke}};
            })],
            hooks: {draw: [chart => this.#annotate(chart, names, dark, named)]},
        };
        this.chart = new globalThis.uPlot(options, data, this.host);
        this.chart.over.addEventListener('pointerdown', event => {
            const at = Math.round(this.chart.posToVal(event.offsetX, 'x'));
            this.onLayer(Math.min(this.layers, Math.max(1, at)));
        });
    }

    #annotate(chart, names, dark, named) {
        const {ctx} = chart, ratio = devicePixelRatio || 1;
        const x = chart.valToPos(this.layer, 'x', true);
        ctx.save();
        ctx.strokeStyle = INK[dark ? 'dark' : 'light'];
        ctx.globalAlpha = 0.5;
        ctx.lineWidth = ratio;
        ctx.beginPath();
        ctx.moveTo(x, chart.bbox.top);
        ctx.lineTo(x, chart.bbox.top + chart.bbox.height);
        ctx.stroke();
        ctx.globalAlpha = 1;
        if (named) {
            Object.assign(ctx, {textBaseline: 'middle', textAlign: 'left'});
            const ends = names.map((_, i) => chart.valToPos(Math.max(this.floor, Math.min(this.top, chart.data[i + 1][this.layer - 1])), 'y', true));
            apart(ends, 15 * ratio).forEach((place, i) => {
                ctx.font = `${LOOKS[names[i]].bold ? 'bold ' : ''}${12 * ratio}px system-ui, sans-serif`;
                ctx.fillStyle = colour(names[i], dark);
                ctx.fillText(names[i], chart.bbox.left + chart.bbox.width + 8 * ratio, place);
            });
        }
        ctx.restore();
    }
}
