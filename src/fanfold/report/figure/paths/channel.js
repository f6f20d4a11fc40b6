// The guided path of the channel: what structure is worth, over frequency, over space, and in layers.

import {at, dB} from 'fanfold/words';

const NET = 'unfolded OAMP', LINES = 'least squares, linear', GRID = 'LMMSE, grid', SPACE = 'LMMSE, space ⊗ grid';

export const STEPS = [
    {
        title: 'Lines between pilots',
        ask: 'A pilot is a noisy look at the channel. Draw lines between them over frequency, and nothing else. At an SNR of 10 dB, what '
            + 'is the error?',
        choices: ['About −3 dB', 'About −11 dB', 'About −20 dB'],
        set: {}, shown: [GRID], pick: GRID,
        task: 'Tick least squares, linear, in the list of curves.',
        done: ({shown}) => shown.includes(LINES),
        see: state => `${dB(at(state, LINES))}: lines let the noise of the pilots through. LMMSE, which knows how subcarriers go `
            + `together, has ${dB(at(state, GRID))}.`,
    },
    {
        title: 'The antennas know of each other',
        ask: 'The second filter knows the covariance of the 32 antennas too. What is that worth, with as many pilots?',
        choices: ['Nothing', 'About 2.5 dB', 'About 10 dB'],
        set: {}, shown: [LINES, GRID], pick: GRID,
        task: 'Tick LMMSE, space ⊗ grid.',
        done: ({shown}) => shown.includes(SPACE),
        see: state => `From ${dB(at(state, GRID))} to ${dB(at(state, SPACE))}. In a street waves come from few directions; an average over all `
            + 'users knows that much, and not from where they come this time.',
    },
    {
        title: 'This user’s paths',
        ask: 'The network is OAMP over beams and delays: it looks for the few paths of this user, in five layers. When is it ahead of '
            + 'the filter?',
        choices: ['From the first layer on', 'From the fourth on', 'Never'],
        set: {layer: 1}, shown: [SPACE, NET], pick: NET,
        task: 'Slide the layers to 5.',
        done: ({settings}) => settings.layer === 5,
        see: state => `After three layers it has ${dB(at(state, NET, 3))}, after four ${dB(at(state, NET, 4))}, after five `
            + `${dB(at(state, NET))}; the filter has ${dB(at(state, SPACE))}. What the first layer holds, at `
            + `${dB(at(state, NET, 1))}, is no estimate to use.`,
    },
    {
        title: 'Beyond the training',
        ask: 'The network was trained from 0 to 20 dB. Give it 24 dB, which should be easier. Who is ahead?',
        choices: ['The network, still', 'The filter', 'Lines, as there is hardly any noise'],
        set: {}, shown: [LINES, SPACE, NET], pick: NET,
        task: 'Slide the SNR up to 24 dB.',
        done: ({settings}) => settings.snr === 24,
        see: state => `The filter has ${dB(at(state, SPACE))}, the network ${dB(at(state, NET))}, lines ${dB(at(state, LINES))}. A filter is `
            + 'computed for the noise that it is told; a network has learned the noises that it was shown.',
    },
];
