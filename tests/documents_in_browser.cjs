// Opens built documents from disk in Chromium with the network off: searches, runs the live figure, looks at a phone's width.
// node documents_in_browser.cjs FOLDER, with playwright-core in NODE_PATH; prints one JSON object.

const {pathToFileURL} = require('node:url');
const {chromium} = require('playwright-core');

const [folder] = process.argv.slice(2);
const address = page => `${pathToFileURL(folder)}/${page}`;
const WAIT = {timeout: 120000};

(async () => {
    const browser = await chromium.launch({executablePath: process.env.CHROMIUM, args: ['--no-sandbox']});
    const asked = [], errors = [], wide = [];
    const opened = async (look, page) => {
        const context = await browser.newContext({offline: true, ...look});
        const tab = await context.newPage();
        tab.on('request', request => { if (!/^(file|data|blob):/.test(request.url())) asked.push(request.url()); });
        tab.on('console', message => { if (message.type() === 'error') errors.push(`${page}: ${message.text()}`); });
        tab.on('pageerror', error => errors.push(`${page}: ${error.message}`));
        await tab.goto(address(page));
        return tab;
    };

    const start = await opened({}, 'index.html');
    await start.fill('input[name="q"]', 'conformal');
    await start.press('input[name="q"]', 'Enter');
    await start.waitForSelector('ul.search li a', WAIT);
    const hits = await start.$$eval('ul.search li a', links => links.map(link => link.getAttribute('href')));

    const live = await opened({}, 'unfolding.html');
    await live.waitForFunction(() => document.querySelector('fanfold-figure').state?.settled, null, WAIT);
    await live.evaluate(() => document.querySelector('fanfold-figure').part_('leave').click()); // the guided path shows one
    await live.waitForFunction(() => {
        const {db, settled} = document.querySelector('fanfold-figure').state;
        return settled && Object.keys(db).length > 4;
    }, null, WAIT);
    const curves = await live.evaluate(() => Object.keys(document.querySelector('fanfold-figure').state.db).length);

    for (const page of ['index.html', 'start.html', 'which.html', 'how-to.html', 'unfolding.html', 'results.html', 'api/problems.html']) {
        const tab = await opened({viewport: {width: 390, height: 844}}, page);
        const beyond = await tab.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        if (beyond > 0) wide.push(`${page}: ${beyond} pixels`);
    }
    await browser.close();
    console.log(JSON.stringify({asked, errors, hits, curves, wide}));
})().catch(error => {
    console.error(error);
    process.exit(1);
});
