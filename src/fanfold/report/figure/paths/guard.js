// The guided path of the guard: a world in which the network fails, one in which it does not, and one that no losses show.

const level = v => `${v.toFixed(1)} dB`.replace('-', '−'), part = v => `${Math.round(100 * v)} %`;

export const STEPS = [
    {
        title: 'A noisy spell',
        ask: 'The network was trained at 10 dB, and at home it has 4 dB less error than the baseline. From call 80 to call 200 the noise has 100 times '
            + 'the power, and nobody says so. Who errs less then?',
        choices: ['The network', 'The baseline', 'Both alike'],
        set: {}, shown: ['baseline', 'network'],
        task: 'Slide the noise power to 100 ×.',
        done: ({settings}) => settings.noise === 100,
        see: ({numbers: {while: there}}) => `The network has ${level(there.network)}, the baseline ${level(there.baseline)}: both are worse than saying zero, the network `
            + 'by far, since it trusts its measurements more.',
    },
    {
        title: 'Without the truth',
        ask: 'The guard sees measurements alone. It estimates from one noisy copy of each and compares losses at another. Where does it end in that spell?',
        choices: ['Between both', 'At the baseline', 'At the network'],
        set: {noise: 100}, shown: ['baseline', 'network'],
        task: 'Tick guarded in the list, and look at its weight below.',
        done: ({shown}) => shown.includes('guarded'),
        see: ({numbers: {while: there, trust, last}}) => `It has ${level(there.guarded)}, the baseline ${level(there.baseline)}: within some calls the network's weight is ${part(trust)}. `
            + `Once the world is back the network wins again, and has ${part(last)} at the last call.`,
    },
    {
        title: 'Wrong, and still the better one',
        ask: 'Now the matrix is wrong by 40 %. The network errs 5 dB more than at home. Does the guard leave it?',
        choices: ['Yes, it is unlike the training', 'No, the baseline is worse still', 'In part'],
        set: {}, shown: ['baseline', 'network', 'guarded'],
        task: 'Slide the error of A to 40 %.',
        done: ({settings}) => settings.wrong === 0.4,
        see: ({numbers: {while: there, trust}}) => `No: the network has ${level(there.network)}, the baseline ${level(there.baseline)}, and the network keeps ${part(trust)}. `
            + 'A guard asks which of its two paths is better; whether the world is another one, a monitor asks.',
    },
    {
        title: 'What measurements cannot say',
        ask: 'A receiver whose gain is 1.5 gives for x what the one of the training gives for 1.5 x. The baseline shrinks more and is nearer to x. Does the guard see it?',
        choices: ['Yes', 'No', 'After some calls'],
        set: {}, shown: ['baseline', 'network', 'guarded'],
        task: 'Slide the gain to 1.5 ×.',
        done: ({settings}) => settings.gain === 1.5,
        see: ({numbers: {while: there}}) => `No: it has ${level(there.guarded)} as the network has ${level(there.network)}, and the baseline ${level(there.baseline)}. The estimates of the network explain what was measured, `
            + 'as those of a larger signal, and measurements are all that the guard has.',
    },
];
