// What an estimate looks like where unknowns are pictures, or blocks of one: the truth, the estimate, and the error.

import {dB} from 'fanfold/words';

export const BRIGHTER = 4; // times, is the error drawn
// Rises in lightness alone, so that it reads in grey and to the colour-blind: black, violet, orange, near white.
const HEAT = [[0, 0, 4], [60, 15, 112], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]];

function shade(kind, v) {
    const t = Math.min(1, Math.max(0, v));
    if (kind === 'grey') return [255 * t, 255 * t, 255 * t];
    const at = t * (HEAT.length - 1), low = Math.min(HEAT.length - 2, Math.floor(at));
    return HEAT[low].map((c, i) => c + (at - low) * (HEAT[low + 1][i] - c));
}

// Paint blocks of pixels row by row into one picture; what is not there yet stays as empty as the page.
function paint(canvas, {rows, columns, height, width, shades}, blocks) {
    Object.assign(canvas, {width: columns * width, height: rows * height});
    const context = canvas.getContext('2d'), image = context.createImageData(canvas.width, canvas.height);
    blocks.forEach((block, number) => {
        const top = Math.floor(number / columns) * height, left = (number % columns) * width;
        block.forEach((v, i) => {
            const at = 4 * ((top + Math.floor(i / width)) * canvas.width + left + (i % width));
            image.data.set([...shade(shades, v), 255], at);
        });
    });
    context.putImageData(image, 0, 0);
}

// Draw what was seen, `{x, estimates}` of each block, at a layer; `pixels` is the program that makes pictures.
export function pictures([truth, estimate, error], view, seen, layer, pixels) {
    const at = seen.map(({x, estimates}) => ({x, x_hat: estimates[layer - 1]}));
    const true_ = at.map(({x}) => pixels(x)), shown = at.map(({x_hat}) => pixels(x_hat));
    const left = at.map(({x, x_hat}) => pixels(x_hat.map((v, i) => v - x[i])).map(Math.abs));
    const most = view.shades === 'grey' ? 1 : Math.max(...true_.map(block => Math.max(...block)));
    const scaled = (blocks, factor) => blocks.map(block => block.map(v => factor * v));
    paint(truth, view, scaled(true_, 1 / most));
    paint(estimate, view, scaled(shown, 1 / most));
    paint(error, view, scaled(left, BRIGHTER / most));
    const power = parts => parts.reduce((sum, part) => part.reduce((s, v) => s + v * v, sum), 0);
    const db = 10 * Math.log10(power(at.map(({x, x_hat}) => x_hat.map((v, i) => v - x[i]))) / power(at.map(({x}) => x)));
    return {db, worst: Math.max(...left.map(block => Math.max(...block))) / most};
}

// The same in words.
export function picturesInWords({what}, {db, worst}, name, layer) {
    return `${name} at layer ${layer} leaves an error of ${dB(db)} in this ${what}; at its worst place it is off by `
        + `${Math.round(100 * worst)} % of the brightest.`;
}
