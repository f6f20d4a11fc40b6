// The guided path of the release: what whole numbers lose, where they lose it, and what was never promised.

const level = v => `${v.toFixed(2)} dB`.replace('-', '−').replace('−0.00', '0.00');

export const STEPS = [
    {
        title: 'Eight bits',
        ask: 'Weights and activations become whole numbers of 8 bits. How much error does that add, in noise of 20 dB?',
        choices: ['Less than 0.1 dB', 'About 1 dB', 'More than 3 dB'],
        set: {snr: 10}, shown: ['float', 'W8A8'],
        task: 'Slide the SNR to 20 dB.',
        done: ({settings}) => settings.snr === 20,
        see: ({numbers: {float, W8A8}}) => `W8A8 has ${level(W8A8.db)}, floating point ${level(float.db)}: ${level(W8A8.loss)} lost. Rounding is noise too, and the receiver's is larger.`,
    },
    {
        title: 'Where noise is low',
        ask: 'With hardly any noise the error of the network itself is left, and rounding beside it. How much is lost at 50 dB?',
        choices: ['Less than 0.1 dB', 'Some tenths of a dB', 'More than 3 dB'],
        set: {snr: 20}, shown: ['float', 'W8A8'],
        task: 'Slide the SNR to 50 dB.',
        done: ({settings}) => settings.snr === 50,
        see: ({numbers: {W8A8}}) => `It loses ${level(W8A8.loss)}, as a program of ${Math.round(W8A8.bytes / 1000)} kB. A profile sets limits to such losses, at every SNR that it names.`,
    },
    {
        title: 'More bits',
        ask: 'W16A16 has twice the bits in both. What does it lose at 50 dB, and what does it cost?',
        choices: ['Nothing that can be seen', 'Half as much', 'As much'],
        set: {snr: 50}, shown: ['float', 'W8A8', 'W8A12'],
        task: 'Tick W16A16 in the list.',
        done: ({shown}) => shown.includes('W16A16'),
        see: ({numbers: {W8A8, W8A12, W16A16}}) => `It loses ${level(W16A16.loss)}, W8A12 ${level(W8A12.loss)} and W8A8 ${level(W8A8.loss)}; their programs have `
            + `${[W16A16, W8A12, W8A8].map(({bytes}) => (bytes / 1000).toFixed(0)).join(', ')} kB.`,
    },
    {
        title: 'Louder than ever seen',
        ask: 'Scales were chosen where signals are as in training. Now measurements are 12 dB louder. Do more bits help?',
        choices: ['Yes: W16A16 is as good as floating point', 'A little: W16A16 too loses some dB', 'No, and whole numbers lose nothing'],
        set: {}, shown: ['float', 'W8A8', 'W8A12', 'W16A16'],
        task: 'Slide the loudness of y to 12 dB.',
        done: ({settings}) => settings.loud === 12,
        see: ({numbers: {float, W8A8, W16A16}}) => `Floating point itself is down to ${level(float.db)}; W8A8 loses another ${level(W8A8.loss)} and W16A16 ${level(W16A16.loss)}: what is beyond the `
            + 'largest number is cut off, with any number of bits. A profile declares how loud y may be.',
    },
];
