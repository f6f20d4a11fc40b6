// A chart of lines over any axis, with what may stand on it: bars, dots, spans, a level, and marks from top to bottom.

import {axisOf, colour, heightOf, INK, isDark, LOOKS, minus} from 'fanfold/plot';

export class Chart {
    // lookOf says whose colour and dash a name has; onX is called with the place on the axis that is pointed at; `flat` is its height
    // in that of a whole chart.
    constructor(host, lookOf, onX, flat = 1) {
        Object.assign(this, {host, lookOf, onX, flat});
    }

    // Draw `{x, lines: [{key, values, thin, solid}], bars, dots, spans, level, marks, xLabel, yLabel, xRange, yRange}`; with `whole`
    // the axis counts, and what is below `yFrom` has no number.
    show(spec) {
        this.spec = spec;
        const dark = isDark(this.host), width = Math.max(260, this.host.clientWidth);
        const data = [spec.x, ...spec.lines.map(({values}) => values)];
        const made = JSON.stringify([spec.lines.map(({key, thin, solid}) => [key, thin, solid]), spec.xLabel, spec.yLabel, dark, width]);
        if (this.made !== made) this.#make(spec, data, dark, width);
        else this.chart.setData(data);
        this.made = made;
    }

    #make(spec, data, dark, width) {
        this.chart?.destroy();
        const axis = axisOf(dark);
        const options = {
            width, height: this.flat * heightOf(width), padding: [10, 14, 0, 0], legend: {show: false}, cursor: {show: false},
            scales: {x: {time: false, range: () => this.spec.xRange}, y: {range: () => this.spec.yRange}},
            axes: [
                {...axis, label: spec.xLabel, labelSize: 20, size: 34, values: (_, ticks) => minus(ticks), ...(spec.whole && {incrs: [1, 5, 10, 50, 100]})},
                {...axis, label: spec.yLabel, labelSize: 22, size: 54, values: (_, ticks) => minus(ticks.map(v => (v < this.spec.yFrom ? '' : v)))},
            ],
            series: [{}, ...spec.lines.map(({key, thin, solid}) => {
                const {dash, bold} = LOOKS[this.lookOf(key)];
                return {stroke: colour(this.lookOf(key), dark), dash: thin ? [2, 3] : solid ? [] : dash, width: thin ? 1.2 : bold ? 2.6 : 1.8, points: {show: false}};
            })],
            hooks: {draw: [chart => this.#annotate(chart, dark)]},
        };
        this.chart = new globalThis.uPlot(options, data, this.host);
        this.chart.over.addEventListener('pointerdown', event => this.onX?.(this.chart.posToVal(event.offsetX, 'x')));
    }

    #annotate(chart, dark) {
        const {ctx, bbox} = chart, ratio = devicePixelRatio || 1, {bars = [], dots = [], spans = [], marks = [], level} = this.spec;
        const ink = INK[dark ? 'dark' : 'light'], at = v => chart.valToPos(v, 'x', true), to = v => chart.valToPos(v, 'y', true);
        const paint = key => (key ? colour(this.lookOf(key), dark) : ink);
        const line = (stroke, width, dash, ...[x, y, u, v]) => {
            Object.assign(ctx, {strokeStyle: stroke, lineWidth: width * ratio});
            ctx.setLineDash(dash.map(d => d * ratio));
            ctx.beginPath();
            ctx.moveTo(x, y);
            ctx.lineTo(u, v);
            ctx.stroke();
        };
        ctx.save();
        ctx.beginPath();
        ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
        ctx.clip();
        if (level !== undefined) line(ink, 1, [6, 4], bbox.left, to(level), bbox.left + bbox.width, to(level));
        for (const {x, key, dash = []} of marks) line(paint(key), key ? 2 : 1, dash, at(x), bbox.top, at(x), bbox.top + bbox.height);
        for (const {x, low, high, key, offset = 0} of bars) line(paint(key), 3, [], at(x) + offset * ratio, to(low), at(x) + offset * ratio, to(high));
        for (const {y, low, high, key} of spans) line(paint(key), 5, [], at(low), to(y), at(high), to(y));
        ctx.setLineDash([]);
        for (const [x, y] of dots) {
            Object.assign(ctx, {strokeStyle: ink, lineWidth: 1.4 * ratio});
            ctx.beginPath();
            ctx.arc(at(x), to(y), 3.2 * ratio, 0, 2 * Math.PI);
            ctx.stroke();
        }
        ctx.restore();
    }
}
