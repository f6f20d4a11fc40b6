// The guided path: five steps, each a guess, a slider, and what is to be seen.

import {at, dB, HOME} from 'fanfold/words';

const ladder = ['ISTA', 'unfolded ISTA'];

export const STEPS = [
    {
        title: 'Sixteen iterations',
        ask: 'ISTA lowers a known objective with safe steps. How low is its error after 16 of them?',
        choices: ['About −4 dB', 'About −12 dB', 'About −24 dB, the limit'],
        set: {...HOME, layer: 1}, shown: ['ISTA'], pick: 'ISTA',
        task: 'Slide the layers to 16.',
        done: ({settings}) => settings.layer === 16,
        see: state => `ISTA has ${dB(at(state, 'ISTA'))}: steps that are safe for every matrix are short. The limit, which `
            + `no estimator passes, is ${dB(state.limit)}.`,
    },
    {
        title: 'Thirty-two numbers',
        ask: 'Now the step and the threshold of each layer may be learned. At strength 0 the network is ISTA, bit for '
            + 'bit. How much do 32 numbers gain?',
        choices: ['About 1 dB', 'About 5 dB', 'More than 10 dB'],
        set: {...HOME, strength: 0}, shown: ladder, pick: 'unfolded ISTA',
        task: 'Slide the strength to 1.',
        done: ({settings}) => settings.strength === 1,
        see: state => `From ${dB(at(state, 'ISTA'))} to ${dB(at(state, 'unfolded ISTA'))}. Much of that comes in the last `
            + 'layers, which were trained to be good; those before them were not, and are not to be trusted.',
    },
    {
        title: 'One number',
        ask: 'AMP has learned nothing; one threshold of it was tuned. Where does it end, against the 32 learned numbers?',
        choices: ['Far above', 'About as low', 'Far below'],
        set: HOME, shown: ladder, pick: 'AMP',
        task: 'Tick AMP in the list of curves.',
        done: ({shown}) => shown.includes('AMP'),
        see: state => `AMP has ${dB(at(state, 'AMP'))}, the network ${dB(at(state, 'unfolded ISTA'))}. Beside ISTA alone, `
            + 'learning looks better than it is.',
    },
    {
        title: 'The limit',
        ask: 'OAMP knows what signals are like. This one starts from a wrong guess: three entries of ten not zero, and '
            + 'noise unknown. What will learning mend?',
        choices: ['The last layer', 'The way there', 'Nothing'],
        set: {...HOME, strength: 0}, shown: ['AMP', 'unfolded ISTA', 'unfolded OAMP'], pick: 'unfolded OAMP',
        task: 'Slide the strength from 0 to 1, and watch layers 4 and 16.',
        done: ({settings}) => settings.strength === 1,
        see: state => `At layer 4 it has ${dB(at(state, 'unfolded OAMP', 4))}, at layer 16 `
            + `${dB(at(state, 'unfolded OAMP'))}; the limit is ${dB(state.limit)}. A better algorithm leaves less to learn.`,
    },
    {
        title: 'Another world',
        ask: 'All of them believe in one matrix. Let the true one differ from it by a fifth. Who stays at the limit?',
        choices: ['The trained networks', 'OAMP, which knows the prior', 'Nobody'],
        set: HOME, shown: ['FISTA', 'AMP', 'OAMP', 'unfolded ISTA', 'unfolded OAMP'], pick: 'unfolded OAMP',
        task: 'Slide the mismatch to 0.2.',
        done: ({settings}) => settings.mismatch >= 0.2,
        see: state => `OAMP has ${dB(at(state, 'OAMP'))}, unfolded OAMP ${dB(at(state, 'unfolded OAMP'))}, unfolded ISTA `
            + `${dB(at(state, 'unfolded ISTA'))}; the limit for the believed matrix stays at ${dB(state.limit)}. No curve of `
            + 'a training says what happens elsewhere.',
    },
];
