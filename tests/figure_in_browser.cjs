// Opens the figure from disk in Chromium with the network off, goes through it with the keyboard, and says what it saw.
// node figure_in_browser.cjs PAGE REPORT BITS FOLDER, with playwright-core and axe-core in NODE_PATH; prints one JSON object.
// FOLDER holds the pages of the worlds, and takes pictures of them.

const {readFileSync} = require('node:fs');
const {chromium} = require('playwright-core');

const [page, report, bits, folder] = process.argv.slice(2);
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const LOOKS = {
    light: {viewport: {width: 1200, height: 900}, colorScheme: 'light'},
    dark: {viewport: {width: 1200, height: 900}, colorScheme: 'dark'},
    phone: {viewport: {width: 390, height: 844}, colorScheme: 'light', reducedMotion: 'reduce'},
};
const WAIT = {timeout: 120000};

class Visit {
    constructor(tab) {
        this.tab = tab;
    }

    state() {
        return this.tab.evaluate(() => document.querySelector('fanfold-figure').state);
    }

    settled() {
        return this.tab.waitForFunction(() => {
            const figure = document.querySelector('fanfold-figure');
            return figure?.engine && figure.state.settled;
        }, null, WAIT);
    }

    part(name) {
        return this.tab.locator(`[data-part="${name}"]`);
    }

    async press(part, ...keys) {
        await this.part(part).focus();
        for (const key of keys) await this.tab.keyboard.press(key);
        await this.settled();
    }

    async tick(key) {
        await this.tab.locator(`[data-key="${key}"] input`).focus();
        await this.tab.keyboard.press('Space');
        await this.settled();
    }
}

// What each page's guided path asks for, step by step, as it is done with the keyboard: a slider and keys, or a curve to tick.
const times = (count, key) => Array(count).fill(key);
const PATHS = {
    text: [['layer', 'End'], ['strength', 'End'], 'AMP', ['strength', 'End'], ['mismatch', ...times(10, 'ArrowRight')]],
    lista: [['strength', 'End'], ['layer', 'Home', ...times(3, 'ArrowRight')], 'OAMP', ['snr', ...times(5, 'ArrowLeft')]],
    photograph: [['layer', 'End'], 'LMMSE', ['layer', 'End'], ['snr', ...times(12, 'ArrowLeft')]],
    rf: [['layer', 'End'], 'OAMP', ['layer', 'End'], ['snr', ...times(10, 'ArrowLeft')]],
    posterior: [['y', ...times(10, 'ArrowRight')], 'linear', ['count', 'ArrowRight'], ['y', ...times(15, 'ArrowLeft')]],
    intervals: [['level', 'Home'], ['level', 'End'], 'calibrated', ['noise', 'End']],
    guard: [['noise', 'End'], 'guarded', ['wrong', 'End'], ['gain', 'ArrowRight', 'ArrowRight']],
    release: [['snr', 'ArrowRight', 'ArrowRight'], ['snr', 'End'], 'W16A16', ['loud', 'ArrowRight', 'ArrowRight']],
    channel: ['least squares, linear', 'LMMSE, space ⊗ grid', ['layer', 'End'], ['snr', ...times(7, 'ArrowRight')]],
};

const ELSEWHERE = {rf: ['dark', 'phone'], posterior: ['dark', 'phone'], release: ['dark', 'phone']}; // pictures, charts, a table

async function visit(browser, seen, look, more = {}, path = page) {
    const context = await browser.newContext({...LOOKS[look], offline: true, ...more});
    const tab = await context.newPage();
    tab.on('console', message => seen.console.push(message.text()));
    tab.on('pageerror', error => seen.console.push(error.message));
    tab.on('request', request => { if (!/^(data|blob):/.test(request.url())) seen.requests.push(request.url()); });
    const began = Date.now();
    await tab.goto(`file://${path}`);
    const visit = new Visit(tab);
    await tab.waitForFunction(() => document.querySelector('fanfold-figure')?.redraws, null, WAIT);
    seen.opened_ms.push(Date.now() - began);
    await visit.settled();
    return visit;
}

async function guided(figure, tasks) {
    const path = [];
    for (const task of tasks) {
        const {step} = await figure.state();
        const ready = () => figure.part('next').getAttribute('aria-disabled');
        const before = await ready();
        await figure.press('next', 'Enter'); // too early: nothing happens
        const {step: still} = await figure.state();
        await figure.tab.locator('[data-part="choices"] input').first().focus();
        await figure.tab.keyboard.press('Space');
        await (typeof task === 'string' ? figure.tick(task) : figure.press(...task));
        const {numbers} = await figure.state();
        path.push({step, still, before, after: await ready(), see: await figure.part('see').textContent(), numbers});
        await figure.press('next', 'Enter');
    }
    return {path, finished: await figure.part('finished').textContent()};
}

async function slid(figure, into, sliders) {
    for (const [name, key] of sliders) {
        const before = await figure.state();
        await figure.press(name, key);
        const after = await figure.state();
        into[name] = {before, after, spoken: await figure.part(name).getAttribute('aria-valuetext')};
    }
}

async function resized(figure, seen) {
    await figure.part('preset').selectOption({index: 1});
    await figure.settled();
    seen.other = await figure.state();
}

async function astray(figure) { // from the path: a step speaks of curves that were taken away, where no limit is known
    await figure.press('leave', 'Enter');
    await figure.part('preset').selectOption('100x34');
    await figure.part('pick').selectOption('OAMP');
    await figure.tab.locator('[data-key="ISTA"] input').click();
    await figure.tab.locator('[data-part="choices"] input').first().click();
    await figure.tab.evaluate(() => document.querySelector('fanfold-figure').set({sparsity: 0.2, snr: 40}));
    await figure.press('layer', 'End');
    return figure.part('see').textContent();
}

async function several(tab) { // in one page, the last one moved before it is ready
    const early = await tab.evaluate(() => {
        for (let i = 0; i < 4; i++) document.body.append(document.createElement('fanfold-figure'));
        document.querySelector('main').append(document.body.lastChild);
        return document.querySelector('main').lastChild.state.settled;
    });
    await tab.waitForFunction(() => [...document.querySelectorAll('fanfold-figure')].every(f => f.redraws || f.part_('failed').textContent), null, WAIT);
    const made = await tab.evaluate(() => [...document.querySelectorAll('fanfold-figure')].map(f => ({
        failed: f.part_('failed').textContent, curves: f.part_('curves').querySelectorAll('.curve').length,
    })));
    return {early, made};
}

// Runs axe, takes a picture if it is to have a name, and says how wide the page is.
async function judged({tab}, name) {
    await tab.evaluate(axe => { if (!globalThis.axe) globalThis.eval(axe); }, axe);
    const violations = await tab.evaluate(async () => (await globalThis.axe.run()).violations.map(v => `${v.id}: ${v.nodes[0].html}`));
    if (name) await tab.screenshot({path: `${folder}/${name}.png`, fullPage: true});
    return {axe: violations, width: await tab.evaluate(() => document.documentElement.scrollWidth)};
}

async function looksAs(figure, look) { // without another visit
    const {viewport, ...media} = LOOKS[look];
    await figure.tab.setViewportSize(viewport);
    await figure.tab.emulateMedia({reducedMotion: null, ...media});
    await figure.settled();
}

// Worlds, each through its path once, and then as it looks elsewhere: in the dark, and on a phone.
async function worlds(browser, seen) {
    for (const [name, tasks] of Object.entries(PATHS).slice(1)) {
        const figure = await visit(browser, seen, 'light', {bypassCSP: true}, `${folder}/${name}.html`);
        const begun = await judged(figure);
        seen.paths[name] = {...await guided(figure, tasks), axe: begun.axe};
        if (name === 'rf') {
            await pictured(figure, seen);
            await slid(figure, seen.slid_there, [['sparsity', 'ArrowRight'], ['mismatch', 'ArrowRight'], ['gain', 'ArrowRight']]);
        }
        seen.looks[name] = {};
        for (const look of ELSEWHERE[name] ?? []) {
            await looksAs(figure, look);
            seen.looks[name][look] = await judged(figure, `${name}-${look}`);
        }
        await figure.tab.context().close();
    }
}

async function pictured(figure, seen) {
    const shown = async () => ({
        db: await figure.part('shown-db').textContent(),
        words: await figure.tab.locator('[data-part="pictured"] .words').textContent(),
        scene: await figure.part('scene').inputValue(),
        estimate: await figure.part('estimate').evaluate(canvas => canvas.toDataURL()),
        state: await figure.state(),
    });
    seen.world.light = await judged(figure, 'world-light');
    seen.world.first = await shown();
    await figure.part('scene').selectOption({index: 1});
    await figure.press('layer', 'Home');
    seen.world.second = await shown();
    await figure.press('again', 'Enter');
    seen.world.again = await shown();
}

(async () => {
    const seen = {console: [], requests: [], opened_ms: [], paths: {}, slid: {}, slid_there: {}, looks: {}, axe: {}, widths: {}, world: {}};
    const browser = await chromium.launch({executablePath: process.env.CHROMIUM, args: ['--no-sandbox']});
    try {
        const figure = await visit(browser, seen, 'light');
        seen.paths.text = await guided(figure, PATHS.text);
        seen.free = await figure.state();
        seen.words = await figure.part('said').textContent();
        await slid(figure, seen.slid, [['snr', 'ArrowRight'], ['sparsity', 'ArrowLeft'], ['lam', 'ArrowLeft'], ['strength', 'ArrowLeft'], ['mismatch', 'ArrowRight'], ['layer', 'ArrowLeft']]);
        await resized(figure, seen);
        seen.latencies = (await figure.state()).latencies;
        seen.astray = await astray(figure);
        const module = `data:text/javascript;base64,${readFileSync(bits).toString('base64')}`;
        seen.bits = await figure.tab.evaluate(async module => {
            const {bits} = await import(module);
            const {engine} = document.querySelector('fanfold-figure');
            return bits({presets: [engine.presets.at(-1)], draw: (...a) => engine.draw(...a), trajectory: (...a) => engine.trajectory(...a)});
        }, module);
        const other = await visit(browser, seen, 'light', {bypassCSP: true}); // which would keep axe out
        for (const look of Object.keys(LOOKS)) {
            await looksAs(other, look);
            const guide = await judged(other);
            await other.press('leave', 'Enter');
            const free = await judged(other, look);
            seen.axe[look] = [...guide.axe, ...free.axe];
            seen.widths[look] = free.width;
            if (look === 'phone') {
                await other.press('layer', 'Home');
                await other.press('play', 'Enter');
                seen.still = (await other.state()).settings.layer; // no motion: all layers at once
            }
            await other.press('leave', 'Enter'); // back to the path
        }
        await other.tab.context().close();
        const within = await visit(browser, seen, 'light', {}, report);
        await within.press('strength', 'Home');
        seen.report = await within.state();
        await within.tab.evaluate(() => document.querySelector('fanfold-figure').set({sparsity: 0.02, snr: 40}));
        await within.settled();
        seen.low = await within.tab.evaluate(() => [document.querySelector('fanfold-figure').plot.floor, document.querySelector('fanfold-figure').limit]);
        await within.tab.emulateMedia({colorScheme: 'dark'});
        seen.scheme = await within.part('plot').evaluate(e => getComputedStyle(e).colorScheme);
        seen.several = await several(within.tab);
        await worlds(browser, seen);
    } finally {
        await browser.close();
    }
    console.log(JSON.stringify(seen));
})();
