// The guided path of the page with unfolded LISTA: what two learned matrices a layer are worth, and where.

import {at, dB, HOME} from 'fanfold/words';

const LISTA = 'unfolded LISTA', NUMBERS = 'unfolded ISTA';

export const STEPS = [
    {
        title: 'Matrices for numbers',
        ask: 'Unfolded ISTA learns 32 numbers. LISTA learns two matrices in each of its 16 layers, 960 000 numbers. How much '
            + 'lower does it end?',
        choices: ['About 1 dB', 'About 5 dB', 'At the limit'],
        set: {...HOME, strength: 0}, shown: [NUMBERS, LISTA], pick: LISTA,
        task: 'Slide the strength to 1.',
        done: ({settings}) => settings.strength === 1,
        see: state => `The numbers reach ${dB(at(state, NUMBERS))}, the matrices ${dB(at(state, LISTA))}; the limit is `
            + `${dB(state.limit)}. Most of what can be learned of ISTA is in its steps and thresholds.`,
    },
    {
        title: 'Inside',
        ask: 'Training asked for a good last layer and for nothing else. What does LISTA hold after four layers?',
        choices: ['A third of the way in dB', 'As much as ISTA', 'Nothing that is an estimate'],
        set: HOME, shown: ['ISTA', NUMBERS, LISTA], pick: LISTA,
        task: 'Slide the layers to 4.',
        done: ({settings}) => settings.layer === 4,
        see: state => `LISTA has ${dB(at(state, LISTA, 4))} there, ISTA ${dB(at(state, 'ISTA', 4))} and the network of `
            + `32 numbers ${dB(at(state, NUMBERS, 4))}: at 0 dB an estimate is no better than saying zero. The freer the layers, `
            + 'the less one before the last can be read.',
    },
    {
        title: 'Nothing learned',
        ask: 'OAMP has learned nothing and is told the prior. Where does it end, against 960 000 numbers?',
        choices: ['Above LISTA', 'About as low', 'At the limit'],
        set: HOME, shown: [NUMBERS, LISTA], pick: 'OAMP',
        task: 'Tick OAMP in the list of curves.',
        done: ({shown}) => shown.includes('OAMP'),
        see: state => `OAMP has ${dB(at(state, 'OAMP'))}, LISTA ${dB(at(state, LISTA))}, the limit is ${dB(state.limit)}. Which `
            + 'algorithm is unfolded matters more than how much of it is learned.',
    },
    {
        title: 'More noise',
        ask: 'Both networks were trained at 20 dB. At 10 dB, which of the two is ahead?',
        choices: ['LISTA, by a dB', 'Neither', 'The 32 numbers, by a dB'],
        set: HOME, shown: ['AMP', NUMBERS, LISTA], pick: LISTA,
        task: 'Slide the SNR to 10 dB.',
        done: ({settings}) => settings.snr === 10,
        see: state => `LISTA has ${dB(at(state, LISTA))}, the 32 numbers ${dB(at(state, NUMBERS))}, and AMP, which measures its `
            + `own noise, ${dB(at(state, 'AMP'))}. What the matrices won belonged to the noise of the training.`,
    },
];
