// The guided path of the posterior: what a mean is between modes, what a line can say of it, and what draws teach.

const two = v => v.toFixed(2).replace('-', '−').replace('−0.00', '0.00');

export const STEPS = [
    {
        title: 'Three answers to one question',
        ask: 'Up to three values of x explain one observation. Where is the estimate of least squared error, the posterior mean?',
        choices: ['At the highest mode', 'Between the modes', 'At zero'],
        set: {y: 0}, shown: ['exact mean'],
        task: 'Slide the observation y to 1.0, and look at the density.',
        done: ({settings}) => settings.y === 1,
        see: ({numbers: {means, exact}}) => `The mean is ${two(means['exact mean'])}, where the density is low, and the interval of 90 % goes from `
            + `${two(exact[0])} to ${two(exact[1])}. It errs least on average; it is not the most likely value.`,
    },
    {
        title: 'A straight line',
        ask: 'The best linear estimator is a straight line over y. By how much is its root mean square error larger than that of the exact mean?',
        choices: ['By a few per cent', 'By a fifth', 'By a factor of two'],
        set: {}, shown: ['exact mean'],
        task: 'Tick linear in the list.',
        done: ({shown}) => shown.includes('linear'),
        see: ({numbers: {rms}}) => `Its error is ${rms.linear.toFixed(3)}, that of the exact mean ${rms['exact mean'].toFixed(3)}: `
            + `${Math.round(100 * (rms.linear / rms['exact mean'] - 1))} % more. No estimator passes the exact mean.`,
    },
    {
        title: 'What draws teach',
        ask: 'A network saw 100 draws of the simulator, and is as straight as the line that it began with. How much of the gap to the exact mean closes with 1 000?',
        choices: ['Less than half', 'Nearly nine tenths', 'All of it'],
        set: {count: 100}, shown: ['exact mean', 'linear', 'network'],
        task: 'Slide the simulations to 1 000.',
        done: ({settings}) => settings.count === 1000,
        see: ({numbers: {rms}}) => {
            const gap = (rms.linear - rms.network) / (rms.linear - rms['exact mean']);
            return `The network has ${rms.network.toFixed(3)}, the line ${rms.linear.toFixed(3)}, the exact mean ${rms['exact mean'].toFixed(3)}: `
                + `${Math.round(100 * gap)} % of the gap. It bends where the mean bends.`;
        },
    },
    {
        title: 'What a mean and a variance leave out',
        ask: 'With 10 000 draws the mean is learned. At y = 0 hardly any values but those near zero explain what was seen. Is the interval of the network as narrow as the exact one?',
        choices: ['Yes', 'It is wider', 'It is narrower'],
        set: {y: 1.5}, shown: ['exact mean', 'network'],
        task: 'Slide the observation y to 0.0.',
        done: ({settings}) => settings.y === 0,
        see: ({numbers: {exact, network, held}}) => `The exact interval is ${two(exact[1] - exact[0])} wide, that of the network ${two(network[1] - network[0])}: `
            + `its variance changes too slowly over y. Over all draws it still holds ${(100 * held).toFixed(0)} % of the truth: `
            + 'what holds on average need not hold at each observation.',
    },
];
