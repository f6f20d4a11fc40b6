// Opens built documents from disk in Chromium with the network off: searches, runs the live figures, asks axe, looks at a
// phone's width. node documents_in_browser.cjs FOLDER [PICTURES], with playwright-core and axe-core in NODE_PATH; prints one
// JSON object.

const {readFileSync} = require('node:fs');
const {pathToFileURL} = require('node:url');
const {chromium} = require('playwright-core');

const [folder, pictures] = process.argv.slice(2);
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const address = page => `${pathToFileURL(folder)}/${page}`;
const WAIT = {timeout: 120000};
const LIVE = ['unfolding', 'lista', 'photographs', 'rf-imaging', 'channels', 'limits', 'shifts', 'end-to-end', 'uncertainty', 'guard', 'release'];
const JUDGED = ['start.html', 'unfolding.html', 'release.html', 'api/problems.html', 'search.html?q=conformal'];
const NARROW = ['index.html', 'start.html', 'which.html', 'how-to.html', 'results.html', 'api/problems.html'];

(async () => {
    const browser = await chromium.launch({executablePath: process.env.CHROMIUM, args: ['--no-sandbox']});
    const asked = [], errors = [], wide = [], figures = {}, covered = {}, violations = [];
    const opened = async (look, page) => {
        const context = await browser.newContext({offline: true, ...look});
        const tab = await context.newPage();
        tab.on('request', request => { if (!/^(file|data|blob):/.test(request.url())) asked.push(request.url()); });
        tab.on('console', message => { if (message.type() === 'error') errors.push(`${page}: ${message.text()}`); });
        tab.on('pageerror', error => errors.push(`${page}: ${error.message}`));
        await tab.goto(address(page));
        return tab;
    };
    const settled = tab => tab.waitForFunction(() => document.querySelector('fanfold-figure')?.state?.settled, null, WAIT);
    const pictured = (tab, name) => pictures && tab.screenshot({path: `${pictures}/${name.replace(/\W/g, '-')}.png`, fullPage: true});
    const judged = async (tab, name) => {
        await tab.evaluate(axe => { if (!globalThis.axe) globalThis.eval(axe); }, axe);
        const found = await tab.evaluate(async () => (await globalThis.axe.run({preload: false})).violations.map(v => `${v.id}: ${v.nodes.map(n => n.html.slice(0, 200)).join(' | ')}`));
        violations.push(...found.map(violation => `${name}: ${violation}`));
    };

    const start = await opened({}, 'index.html');
    await start.fill('input[name="q"]', 'conformal');
    await start.press('input[name="q"]', 'Enter');
    await start.waitForSelector('ul.search li a', WAIT);
    const hits = await start.$$eval('ul.search li a', links => links.map(link => link.getAttribute('href')));

    const narrow = async (tab, page) => { // as on a phone
        await tab.setViewportSize({width: 390, height: 844});
        const beyond = await tab.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        if (beyond > 0) wide.push(`${page}: ${beyond} pixels`);
        await pictured(tab, `${page} phone`);
    };
    let live; // the first page with a figure
    for (const name of LIVE) {
        const tab = await opened({}, `${name}.html`);
        await settled(tab);
        figures[name] = await tab.evaluate(() => { const {preset, step} = document.querySelector('fanfold-figure').state; return {preset, step}; });
        await pictured(tab, name);
        if (live) {
            await narrow(tab, `${name}.html`);
            covered[name] = await tab.evaluate(() => { // by the theme's header are the curves, as a slider is at the lower end
                const figure = document.querySelector('fanfold-figure');
                const slider = figure.part_(figure.scales.snr ? 'snr' : Object.keys(figure.scales).at(-1)), box = part => part.getBoundingClientRect();
                slider.scrollIntoView({block: 'end', behavior: 'instant'});
                const curves = box(figure.part_('plot').parentElement);
                return {below: Math.round(curves.top - box(document.querySelector('.mobile-header')).bottom), seen: curves.bottom <= box(slider).top};
            });
            await tab.context().close();
        }
        live ??= tab;
    }
    for (const page of JUDGED) {
        const tab = await opened({colorScheme: 'light'}, page);
        if (page.startsWith('search')) await tab.waitForSelector('ul.search li a', WAIT);
        for (const colorScheme of ['light', 'dark']) {
            await tab.emulateMedia({colorScheme});
            if (page.startsWith('unfolding') || page.startsWith('release')) await settled(tab);
            await judged(tab, `${page}, ${colorScheme}`);
            await pictured(tab, `${page} ${colorScheme}`);
        }
        if (NARROW.includes(page)) await narrow(tab, page);
        await tab.context().close();
    }

    const shade = () => live.evaluate(() => getComputedStyle(document.querySelector('fanfold-figure').part_('plot')).colorScheme);
    const shades = [];
    for (const theme of ['light', 'dark', 'auto']) {
        await live.evaluate(theme => { document.body.dataset.theme = theme; }, theme);
        shades.push(await shade());
    }
    await live.evaluate(() => document.querySelector('fanfold-figure').part_('leave').click()); // the guided path shows one
    await live.waitForFunction(() => {
        const {db, settled} = document.querySelector('fanfold-figure').state;
        return settled && Object.keys(db).length > 4;
    }, null, WAIT);
    const curves = await live.evaluate(() => Object.keys(document.querySelector('fanfold-figure').state.db).length);

    for (const page of NARROW.filter(page => !JUDGED.includes(page))) {
        const tab = await opened({}, page);
        await narrow(tab, page);
        await tab.context().close();
    }
    await narrow(live, 'unfolding.html');
    await browser.close();
    console.log(JSON.stringify({asked, errors, hits, curves, wide, figures, covered, shades, violations}));
})().catch(error => {
    console.error(error);
    process.exit(1);
});
