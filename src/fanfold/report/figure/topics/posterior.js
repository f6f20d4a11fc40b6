// A posterior that is known: networks of three counts of simulations over all observations, and the density at one of them.

import {normal, uniform} from 'fanfold/draws';

const DRAWS = 2000, AT_ONCE = 250;
const EDGE = 0.05; // of the posterior, that an interval of 90 % leaves at either end

// Where a running sum of the density passes a share.
function quantile(grid, density, share) {
    const total = density.reduce((sum, v) => sum + v, 0);
    let sum = 0;
    for (let i = 0; i < grid.length; i++) if ((sum += density[i]) >= share * total) return grid[i];
    return grid.at(-1);
}

export class World {
    constructor({programs, arrays, deviation}) {
        Object.assign(this, {programs, deviation, grid: [...arrays.grid], seen: [...arrays.seen]});
        this.exact = this.seen.map(y => this.#ask('posterior', y).mean[0]);
        this.linear = this.seen.map(y => this.#ask('linear', y).x_hat[0]);
    }

    #ask(program, y) {
        return this.programs[program].run({y});
    }

    take(settings) {
        const {y, count} = settings;
        if (count !== this.settings?.count) {
            this.network = this.seen.map(v => this.#ask(`network_${count}`, v));
            Object.assign(this, {draws: 0, next: uniform(17), held: 0, squares: {'exact mean': 0, linear: 0, network: 0}});
        }
        this.settings = settings;
        const {density, mean} = this.#ask('posterior', y), said = this.#ask(`network_${count}`, y);
        this.at = {density, network: said, means: {'exact mean': mean[0], linear: this.#ask('linear', y).x_hat[0], network: said.x_hat[0]}};
        this.interval = [quantile(this.grid, density, EDGE), quantile(this.grid, density, 1 - EDGE)];
    }

    more() {
        const {programs, next, deviation, squares} = this;
        for (let i = 0; i < AT_ONCE && this.draws < DRAWS; i++, this.draws++) {
            const x = deviation * normal(next), {y} = programs.simulated.run({x, w: normal(next)});
            const said = this.#ask(`network_${this.settings.count}`, y);
            const estimates = {'exact mean': this.#ask('posterior', y).mean[0], linear: this.#ask('linear', y).x_hat[0], network: said.x_hat[0]};
            for (const [key, estimate] of Object.entries(estimates)) squares[key] += (estimate - x) ** 2;
            this.held += said.low[0] <= x && x <= said.high[0];
        }
    }

    get settled() {
        return this.draws >= DRAWS;
    }

    get numbers() {
        const rms = Object.fromEntries(Object.entries(this.squares).map(([key, sum]) => [key, Math.sqrt(sum / this.draws)]));
        const {network, means} = this.at;
        return {rms, means, held: this.held / this.draws, exact: this.interval, network: [network.low[0], network.high[0]]};
    }

    pointed(x) { // at an observation
        return {y: this.seen.reduce((best, y) => (Math.abs(y - x) < Math.abs(best - x) ? y : best)).toFixed(1) * 1};
    }

    said(key) {
        return this.numbers.rms[key].toFixed(3);
    }

    chart(shown) {
        const values = {'exact mean': this.exact, linear: this.linear, network: this.network.map(({x_hat}) => x_hat[0])};
        const lines = shown.map(key => ({key, values: values[key]}));
        if (shown.includes('network')) {
            for (const end of ['low', 'high']) lines.push({key: 'network', values: this.network.map(said => said[end][0]), thin: true});
        }
        return {x: this.seen, lines, marks: [{x: this.settings.y}], xLabel: 'observation y', yLabel: 'estimate of x', xRange: [-4, 4], yRange: [-4.5, 4.5]};
    }

    below(shown) {
        const {density, network, means} = this.at, [low, high] = this.interval, top = Math.max(...density);
        const spans = [{key: 'exact mean', low, high, y: -0.1 * top}, {key: 'network', low: network.low[0], high: network.high[0], y: -0.2 * top}];
        return {
            x: this.grid, lines: [{key: 'exact mean', values: [...density], solid: true}], marks: [...shown].reverse().map(key => ({x: means[key], key, dash: key === 'network' ? [] : [5, 4]})),
            spans: spans.filter(({key}) => shown.includes(key)), xLabel: 'parameter x', yLabel: 'density', yFrom: 0, xRange: [-5.5, 5.5], yRange: [-0.28 * top, 1.08 * top],
        };
    }

    words(shown) {
        const {means, exact, network} = this.numbers, two = v => v.toFixed(2).replace('-', '−').replace('−0.00', '0.00');
        const ends = {'exact mean': exact, network}, span = key => (ends[key] ? `, with 90 % from ${two(ends[key][0])} to ${two(ends[key][1])}` : '');
        return `At y = ${two(this.settings.y)}: ${shown.map(key => `${key} ${two(means[key])}${span(key)}`).join('; ')}.`;
    }
}
