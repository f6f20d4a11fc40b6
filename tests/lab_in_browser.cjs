// Trains in the lab in Chromium, in two tabs, and says what it saw.
// node lab_in_browser.cjs ADDRESS PAIRS FOLDER, with playwright-core and axe-core in NODE_PATH; prints one JSON object.

const {readFileSync} = require('node:fs');
const {chromium} = require('playwright-core');

const [address, pairs, folder] = process.argv.slice(2);
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const LOOKS = {
    light: {viewport: {width: 1200, height: 900}, colorScheme: 'light'},
    dark: {viewport: {width: 1200, height: 900}, colorScheme: 'dark'},
    phone: {viewport: {width: 390, height: 844}, colorScheme: 'light'},
};
const WAIT = {timeout: 240000};
const seen = {console: [], requests: [], axe: {}, widths: {}};

async function opened(context, url = address) {
    const tab = await context.newPage();
    tab.on('console', message => seen.console.push(message.text()));
    tab.on('pageerror', error => seen.console.push(error.message));
    tab.on('request', request => { if (!/^(data|blob):/.test(request.url())) seen.requests.push(request.url()); });
    const began = Date.now();
    await tab.goto(url);
    seen.answered_ms ??= Date.now() - began;
    await tab.waitForSelector('button.main', WAIT);
    return tab;
}

const until = (tab, test, given) => tab.waitForFunction(test, given, WAIT);
const run = (tab, name) => tab.evaluate(name => {
    const {validated, batches, updates, events, connections, ended} = lab.followed.get(name);
    return {steps: batches.map(([step]) => step), validated: validated.map(([step]) => step), last: validated.at(-1)?.[1], updates, events, connections, ended};
}, name);
const conditions = tab => tab.evaluate(() => Object.fromEntries(lab.rows.map(({name, condition}) => [name, condition])));

async function hidden(tab, value) { // as the browser does it when another tab comes before this one
    await tab.evaluate(value => {
        Object.defineProperty(document, 'hidden', {value, configurable: true});
        document.dispatchEvent(new Event('visibilitychange'));
    }, value);
}

async function live(first, context) {
    await first.locator('button.main').focus();
    await first.keyboard.press('Enter');
    await until(first, () => lab.state.shown.length === 1);
    const name = await first.evaluate(() => lab.state.shown[0]);
    await until(first, name => lab.followed.get(name)?.batches.length > 20, name);
    const began = Date.now();
    await hidden(first, true);
    const left = await run(first, name);
    const second = await opened(context, first.url());
    await until(second, ([name, least]) => lab.followed.get(name)?.batches.length > least, [name, left.steps.length + 5]);
    seen.unseen = [left.steps.length, (await run(first, name)).steps.length];
    await hidden(first, false);
    for (const tab of [first, second]) await until(tab, name => lab.followed.get(name)?.ended, name);
    seen.seconds = (Date.now() - began) / 1000;
    seen.live = {name, first: await run(first, name), second: await run(second, name)};
    return second;
}

async function cancelled(tab) {
    await tab.locator('[id="training-steps"]').fill('100000');
    await tab.locator('[id="of_problem-n"]').fill('60');
    await tab.locator('[id="of_problem-m"]').fill('30');
    await tab.locator('button.main').click();
    await until(tab, () => lab.state.shown.length === 2);
    const name = await tab.evaluate(() => lab.state.shown[1]);
    await until(tab, name => lab.followed.get(name)?.validated.length > 1, name);
    seen.series = await tab.evaluate(() => lab.curves.chart.series.slice(1).map(({label}) => label));
    await tab.locator(`[data-run="${name}"] button`, {hasText: 'Cancel'}).focus();
    await tab.keyboard.press('Enter');
    await until(tab, name => lab.rows.find(row => row.name === name).condition === 'cancelled', name);
    await tab.locator(`[data-run="${name}"] button`, {hasText: 'Resume'}).waitFor();
    seen.cancelled = {name, conditions: await conditions(tab)};
}

async function restored(tab) {
    const before = tab.url();
    await tab.reload();
    await tab.waitForSelector('button.main', WAIT);
    await until(tab, () => [...lab.followed.values()].filter(run => run.ended).length === 2);
    const value = id => tab.locator(`[id="${id}"]`).inputValue();
    seen.restored = {
        same: tab.url() === before, n: await value('of_problem-n'), steps: await value('training-steps'), lam: await value('of_network-lam'),
        shown: await tab.evaluate(() => [...lab.followed.keys()]),
    };
    await tab.locator('[id="of_problem-n"]').fill('many');
    await tab.locator('button.main').click();
    seen.wrong = await tab.locator('[id="of_problem-n-wrong"]').textContent();
    seen.focused = await tab.evaluate(() => document.activeElement.id);
}

async function looks(browser, url) {
    for (const [look, options] of Object.entries(LOOKS)) {
        const tab = await opened(await browser.newContext({...options, bypassCSP: true}), url); // which would keep axe out
        await until(tab, () => lab.followed.size === 2 && lab.curves.redraws);
        await tab.evaluate(axe);
        const judged = () => tab.evaluate(async () => (await globalThis.axe.run()).violations.map(v => `${v.id}: ${v.nodes[0].html}`));
        seen.axe[look] = await judged();
        await tab.screenshot({path: `${folder}/${look}.png`, fullPage: true});
        seen.widths[look] = await tab.evaluate(() => document.documentElement.scrollWidth);
        if (look === 'light') {
            await tab.locator('[data-view="figure"]').click();
            await until(tab, () => document.querySelector('fanfold-figure')?.redraws);
            seen.figure = await tab.evaluate(() => document.querySelector('fanfold-figure').part_('failed').textContent);
            seen.view = tab.url().endsWith('view=figure');
        }
        await tab.context().close();
    }
}

async function otherProblem(tab) { // one without an operator, for which the algorithm that is chosen is none
    await tab.locator('#choose-problem').selectOption('tone');
    const refusing = tab.locator('#form details.quiet');
    await refusing.locator('summary').click();
    seen.usual = await tab.locator('[id="training-steps"]').getAttribute('placeholder');
    seen.unfit = {count: await refusing.locator('summary').textContent(), reasons: await refusing.locator('li').allTextContents()};
    seen.other = await tab.evaluate(() => { const {problem, network, of_problem, of_network, learn, training} = lab.state; return {problem, network, of_problem, of_network, learn, training}; });
}

async function pairsTaken(tab) {
    await tab.locator('#choose-problem').selectOption('pairs');
    seen.before_pairs = await tab.locator('button.main').isDisabled();
    await tab.locator('#file').setInputFiles(pairs);
    await until(tab, () => /unknowns/.test(document.getElementById('pairs')?.textContent));
    seen.pairs = {reading: await tab.locator('#pairs').textContent(), ready: await tab.locator('button.main').isEnabled(), url: tab.url()};
    seen.silent = [...seen.console]; // from here on what is refused is said on the console too
    await tab.locator('#file').setInputFiles({name: 'notes.txt', mimeType: 'text/plain', buffer: Buffer.from('x')});
    await until(tab, () => document.getElementById('alert').textContent);
    seen.refused = await tab.locator('#alert').textContent();
}

async function flagged(tab) { // what has no field, whole numbers, and a network that asks for something first
    await tab.locator('#choose-problem').selectOption('compressed-sensing');
    await tab.locator('#choose-network').selectOption('back-projection-unet');
    const fields = tab.locator('fieldset', {hasText: 'Network'}).locator('.fields').first();
    seen.asks = {said: await tab.locator('#asks').textContent(), first: await fields.locator('input').first().getAttribute('id')};
    await tab.locator('#choose-network').selectOption('lista-cp');
    await tab.locator('#quantise').selectOption('w8a12');
    await tab.locator('summary', {hasText: 'More settings'}).last().click();
    await tab.locator('#more').fill('dtype = flat32');
    await tab.locator('button.main').click();
    await until(tab, () => document.getElementById('alert').textContent);
    seen.flagged = {said: await tab.locator('#alert').textContent(), url: tab.url(), runs: await tab.evaluate(() => lab.rows.length)};
    await tab.evaluate(axe);
    seen.axe.flagged = await tab.evaluate(async () => (await globalThis.axe.run('#form')).violations.map(v => `${v.id}: ${v.nodes[0].html}`));
    await tab.screenshot({path: `${folder}/flagged.png`, fullPage: true});
}

(async () => {
    const browser = await chromium.launch({executablePath: process.env.CHROMIUM, args: ['--no-sandbox']});
    try {
        const context = await browser.newContext(LOOKS.light);
        const first = await opened(context);
        const second = await live(first, context);
        await cancelled(second);
        await until(first, name => lab.rows.find(row => row.name === name)?.condition === 'cancelled', seen.cancelled.name); // it hears of it
        await restored(second);
        await looks(browser, second.url());
        await otherProblem(first);
        await pairsTaken(first);
        await flagged(await opened(await browser.newContext({...LOOKS.light, bypassCSP: true}), first.url()));
    } finally {
        await browser.close();
    }
    console.log(JSON.stringify(seen));
})();
