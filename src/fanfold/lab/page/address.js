// The state of the page, as its address says it: what follows the #, which no server sees.

const TABLES = {p: 'of_problem', a: 'of_network', l: 'learn', t: 'training'};
export const TEXT = { // the text's figure: ISTA unfolded, from where 300 iterations would be best
    problem: 'compressed-sensing', network: 'ista', data: '', quantise: '', more: '', view: 'train', shown: [],
    of_problem: {n: 200, m: 100, sparsity: 0.1, snr_db: 20},
    of_network: {lam: 0.05, layers: 16},
    learn: {},
    training: {steps: 300, lr: 0.004, validate_every: 10},
};

const read = text => { try { return JSON.parse(text); } catch { return text; } };
const written = value => (typeof value === 'string' ? value : JSON.stringify(value));

export function stateOf(hash) {
    const words = new URLSearchParams(hash.replace(/^#/, ''));
    if (!words.has('problem')) return structuredClone({...TEXT, view: words.get('view') ?? TEXT.view, shown: words.getAll('shown')});
    const state = {...TEXT, shown: words.getAll('shown'), of_problem: {}, of_network: {}, learn: {}, training: {}};
    for (const name of ['problem', 'network', 'data', 'quantise', 'more', 'view']) state[name] = words.get(name) ?? TEXT[name];
    for (const [word, value] of words) {
        const [letter, ...name] = word.split('.');
        if (name.length && Object.hasOwn(TABLES, letter)) state[TABLES[letter]][name.join('.')] = letter === 'l' ? value : read(value);
    }
    return state;
}

export function hashOf(state) {
    const words = new URLSearchParams({problem: state.problem, network: state.network});
    for (const [letter, table] of Object.entries(TABLES)) {
        for (const [name, value] of Object.entries(state[table])) words.append(`${letter}.${name}`, written(value));
    }
    for (const name of ['data', 'quantise', 'more']) if (state[name]) words.append(name, state[name]);
    for (const name of state.shown) words.append('shown', name);
    if (state.view !== TEXT.view) words.append('view', state.view);
    return `#${words}`;
}

// What is asked of the lab for a run.
export function requestOf({problem, network, data, quantise, more, of_problem, of_network, learn, training}) {
    const said = Object.entries({quantise, more}).filter(([, text]) => text);
    return {problem, network, of_problem, of_network, learn, training, ...Object.fromEntries(said), ...(problem === 'pairs' ? {data} : {})};
}
