// The guided path of the RF scene: an algorithm that theory puts at the limit, what keeps it from there, what learning mends.

import {at, dB} from 'fanfold/words';

const NET = 'unfolded OAMP';

export const STEPS = [
    {
        title: 'Safe steps, again',
        ask: 'A scene of 1024 voxels from 576 measurements. FISTA may take 12 iterations. What does the scene look like then?',
        choices: ['Points where points are', 'A haze', 'Nothing at all'],
        set: {layer: 1}, shown: ['FISTA'], pick: 'FISTA',
        task: 'Slide the layers to 12, and look at the estimate.',
        done: ({settings}) => settings.layer === 12,
        see: state => `A haze, at ${dB(at(state, 'FISTA'))}. Its steps are as short as the largest gain of the apertures asks; it would get `
            + 'further in hundreds of them.',
    },
    {
        title: 'Told everything',
        ask: 'OAMP is told the prior and the noise. State evolution says where it should end: at the dashed limit. Does it?',
        choices: ['Yes', 'It stops short of it', 'It diverges'],
        set: {}, shown: ['FISTA'], pick: 'FISTA',
        task: 'Tick OAMP in the list of curves.',
        done: ({shown}) => shown.includes('OAMP'),
        see: state => `OAMP has ${dB(at(state, 'OAMP'))}, the limit is ${dB(state.limit)}. The theory is of matrices without `
            + 'structure, and two apertures in a Kronecker product have some.',
    },
    {
        title: 'What learning mends',
        ask: 'The unfolded one starts from a prior that is wrong by a factor of three and from noise that nobody tells it. It learned '
            + 'seven numbers a layer: variances, damping, the prior. Where does it end?',
        choices: ['Above OAMP', 'At OAMP', 'Below OAMP, near the limit'],
        set: {layer: 1}, shown: ['OAMP', NET], pick: NET,
        task: 'Slide the layers to 12.',
        done: ({settings}) => settings.layer === 12,
        see: state => `It has ${dB(at(state, NET))}, OAMP ${dB(at(state, 'OAMP'))}, the limit is ${dB(state.limit)}. At layer 4 it is behind, `
            + `${dB(at(state, NET, 4))} for ${dB(at(state, 'OAMP', 4))}: it was told less.`,
    },
    {
        title: 'More noise than in training',
        ask: 'All that was at 30 dB, where the network was trained. At 10 dB, what do more layers do to OAMP?',
        choices: ['It ends at the limit', 'It stands still after some layers', 'It gets worse after some layers'],
        set: {}, shown: ['OAMP', NET], pick: 'OAMP',
        task: 'Slide the SNR down to 10 dB.',
        done: ({settings}) => settings.snr === 10,
        see: state => `OAMP has ${dB(at(state, 'OAMP', 5))} at layer 5 and ${dB(at(state, 'OAMP'))} at layer 12. The network, which `
            + `was not trained in such noise, has ${dB(at(state, NET))}: it reads the noise off each sample. The limit is ${dB(state.limit)}.`,
    },
];
