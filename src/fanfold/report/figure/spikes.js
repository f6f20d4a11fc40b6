// What an estimate looks like: the true entries as circles, the estimate's as sticks.

import {colour, isDark} from 'fanfold/plot';

export function spikes(canvas, x, estimate, name) {
    const dark = isDark(canvas), ratio = globalThis.devicePixelRatio || 1;
    const width = Math.max(260, canvas.parentElement.clientWidth), height = 150;
    Object.assign(canvas, {width: width * ratio, height: height * ratio});
    Object.assign(canvas.style, {width: `${width}px`, height: `${height}px`});
    const ctx = canvas.getContext('2d');
    ctx.scale(ratio, ratio);
    const most = Math.max(1, ...x.map(Math.abs), ...estimate.map(Math.abs));
    const at = i => 8 + (i + 0.5) * (width - 16) / x.length;
    const to = v => height / 2 - v * (height / 2 - 8) / most;
    ctx.strokeStyle = dark ? '#5b6673' : '#9aa4af';
    line(ctx, 8, height / 2, width - 8, height / 2);
    ctx.strokeStyle = colour(name, dark);
    ctx.lineWidth = 2;
    estimate.forEach((v, i) => { if (Math.abs(v) > most / 200) line(ctx, at(i), height / 2, at(i), to(v)); });
    ctx.strokeStyle = dark ? '#e5e9ee' : '#1c2733';
    ctx.lineWidth = 1.4;
    x.forEach((v, i) => {
        if (!v) return;
        ctx.beginPath();
        ctx.arc(at(i), to(v), 3.5, 0, 2 * Math.PI);
        ctx.stroke();
    });
}

function line(ctx, ...[x, y, u, v]) {
    ctx.beginPath();
    ctx.moveTo(x, y);
    ctx.lineTo(u, v);
    ctx.stroke();
}

// The same in words.
export function inWords(x, estimate, name, layer) {
    const large = 0.1;
    const there = x.filter(v => v !== 0).length;
    const caught = x.filter((v, i) => v !== 0 && Math.abs(estimate[i]) > large).length;
    const false_ = estimate.filter((v, i) => x[i] === 0 && Math.abs(v) > large).length;
    return `Of ${there} true entries, ${name} at layer ${layer} shows ${caught} above ${large}, and ${false_} more where `
        + 'nothing is.';
}
