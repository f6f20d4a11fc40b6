// The guided path of the photograph: signals that no formula describes, and a network outside its training.

import {at, dB} from 'fanfold/words';

const NET = 'unfolded LISTA-CP';

export const STEPS = [
    {
        title: 'A sparse photograph',
        ask: 'FISTA believes that each block is a few waves, and has half as many measurements as pixels. How near does it '
            + 'come in 16 iterations?',
        choices: ['About −5 dB, blocks', 'About −15 dB, a blurred picture', 'About −25 dB, the picture'],
        set: {layer: 1}, shown: ['FISTA'], pick: 'FISTA',
        task: 'Slide the layers to 16, and watch the estimate.',
        done: ({settings}) => settings.layer === 16,
        see: state => `FISTA has ${dB(at(state, 'FISTA'))} after 16 iterations, and ${dB(at(state, 'FISTA', 4))} after four. `
            + 'What is left in the error is edges and grain: few waves are not what a photograph is.',
    },
    {
        title: 'A filter that has seen photographs',
        ask: 'LMMSE is one matrix, made from the covariance of blocks of two other photographs. Is that more than sparsity?',
        choices: ['Less', 'About the same', 'More'],
        set: {}, shown: ['FISTA'], pick: 'FISTA',
        task: 'Tick LMMSE in the list of curves.',
        done: ({shown}) => shown.includes('LMMSE'),
        see: state => `The filter has ${dB(at(state, 'LMMSE'))}, FISTA ${dB(at(state, 'FISTA'))}; a hundred iterations with a smaller λ `
            + 'would bring it nearer, and not there. A filter has no layers: its curve is flat. Whoever shows a network of photographs without it shows half of the picture.',
    },
    {
        title: 'Sixteen learned layers',
        ask: 'The unfolded network learned a matrix and 64 thresholds in each layer, from the same two photographs. When is it at '
            + 'the level of the filter?',
        choices: ['From layer 4 on', 'In the last layer alone', 'Never'],
        set: {layer: 1}, shown: ['FISTA', 'LMMSE', NET], pick: NET,
        task: 'Slide the layers to 16.',
        done: ({settings}) => settings.layer === 16,
        see: state => `At layer 8 it has ${dB(at(state, NET, 8))}, at layer 16 ${dB(at(state, NET))}, the filter `
            + `${dB(at(state, 'LMMSE'))}. Learning pays against FISTA; against the filter it is a draw here.`,
    },
    {
        title: 'Another noise',
        ask: 'The network was trained at noise that is 1 % of white, about 35 dB here. Let there be far more of it, 10 dB. Who is '
            + 'best now?',
        choices: ['The network', 'FISTA', 'The filter, which is told the noise'],
        set: {}, shown: ['FISTA', 'LMMSE', NET], pick: NET,
        task: 'Slide the SNR down to 10 dB.',
        done: ({settings}) => settings.snr === 10,
        see: state => `The filter has ${dB(at(state, 'LMMSE'))}, FISTA ${dB(at(state, 'FISTA'))}, the network ${dB(at(state, NET))}: `
            + `worse than after its own first layer, ${dB(at(state, NET, 1))}. It was never shown such noise, and nothing in it asks how `
            + 'much there is.',
    },
];
