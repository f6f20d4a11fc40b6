// Runs the figure's engine without a page: the trajectories of every estimator for some draws, as float32 in files.
// node figure_in_node.mjs FOLDER, where the modules, manifest.json and payload.b64 lie; figure.bin and hash.txt appear.

import {readFileSync, writeFileSync} from 'node:fs';
import {inflateSync} from 'node:zlib';
import {pathToFileURL} from 'node:url';

const [folder] = process.argv.slice(2);
const {Engine} = await import(pathToFileURL(`${folder}/engine.mjs`));
const {bits} = await import(pathToFileURL(`${folder}/bits.mjs`));
const packed = inflateSync(Buffer.from(readFileSync(`${folder}/payload.b64`, 'latin1'), 'base64'));
const payload = packed.buffer.slice(packed.byteOffset, packed.byteOffset + packed.length);
const engine = await Engine.of(JSON.parse(readFileSync(`${folder}/manifest.json`)), payload);
const [preset] = engine.presets;
const chunks = [];
for (const strength of [1, 0]) {
    const settings = {snr: 20, sparsity: 0.1, lam: 1, mismatch: 0, strength};
    for (let number = 0; number < 3; number++) {
        const {x, y} = engine.draw(preset, number, settings);
        chunks.push(x, y);
        for (const estimator of preset.estimators) chunks.push(...engine.trajectory(preset, estimator, y, settings));
    }
}
writeFileSync(`${folder}/figure.bin`, Buffer.concat(chunks.map(c => Buffer.from(c.buffer, c.byteOffset, c.byteLength))));
writeFileSync(`${folder}/hash.txt`, bits(engine));
