// The guided path of the intervals: a variance is no interval, what calibration mends, and where its promise ends.

const share = v => `${v.toFixed(1)} %`;

export const STEPS = [
    {
        title: 'A variance is no interval',
        ask: 'OAMP knows the prior, and its variance is that of its errors. If errors were normal, x_hat ± 0.67 √var would hold half of them. How many does it hold?',
        choices: ['About 50 %', 'About 80 %', 'About 30 %'],
        set: {level: 0.9}, shown: ['claimed'],
        task: 'Slide the nominal level down to 50 %.',
        done: ({settings}) => settings.level === 0.5,
        see: ({numbers}) => `It holds ${share(numbers.claimed.held)} where ${share(numbers.level)} were asked for. Most errors are next to nothing and a few are large: `
            + 'that is not a normal law, however right the variance is.',
    },
    {
        title: 'The other end',
        ask: 'At 50 % claimed intervals were too wide. At 98 %?',
        choices: ['Too wide again', 'Right', 'Too narrow'],
        set: {level: 0.5}, shown: ['claimed'],
        task: 'Slide the nominal level up to 98 %.',
        done: ({settings}) => settings.level === 0.98,
        see: ({numbers}) => `They hold ${share(numbers.claimed.held)}: too few. One factor cannot mend both ends; each level needs a factor of its own.`,
    },
    {
        title: 'Calibrated on draws',
        ask: 'Conformal intervals take the factor that held the level on draws. How far from 98 % are they on others?',
        choices: ['Within 1 %', 'Within 5 %', 'As far as the claimed'],
        set: {level: 0.98}, shown: ['claimed'],
        task: 'Tick calibrated in the list.',
        done: ({shown}) => shown.includes('calibrated'),
        see: ({numbers}) => `They hold ${share(numbers.calibrated.held)}, and are ${(numbers.calibrated.width / numbers.claimed.width).toFixed(1)} times as wide `
            + 'as the claimed. The promise needs nothing but draws like those to come.',
    },
    {
        title: 'Where the promise ends',
        ask: 'Now the noise has ten times the power that the estimator is told. Calibration saw no such noise. What happens at 90 %?',
        choices: ['Both still hold 90 %', 'Calibrated ones do', 'Neither does'],
        set: {}, shown: ['claimed', 'calibrated'],
        task: 'Slide the true noise power to 10 ×.',
        done: ({settings}) => settings.noise === 10,
        see: ({numbers}) => `Claimed intervals hold ${share(numbers.claimed.held)}, calibrated ones ${share(numbers.calibrated.held)}. Whether a measurement is still one `
            + 'of those that were calibrated on, a monitor says, and not the interval.',
    },
];
