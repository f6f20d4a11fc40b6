// Runs a world's engine without a page: for some draws x, y and every layer of every estimator, as float32 in world.bin.
// node worlds_in_node.mjs FOLDER SNR DRAWS OTHERS, settings that are others as JSON, where the modules, manifest.json and payload.b64 lie.

import {readFileSync, writeFileSync} from 'node:fs';
import {inflateSync} from 'node:zlib';
import {pathToFileURL} from 'node:url';

const [folder, snr, draws, others = '{}'] = process.argv.slice(2);
const {Engine} = await import(pathToFileURL(`${folder}/engine.mjs`));
const packed = inflateSync(Buffer.from(readFileSync(`${folder}/payload.b64`, 'latin1'), 'base64'));
const payload = packed.buffer.slice(packed.byteOffset, packed.byteOffset + packed.length);
const engine = await Engine.of(JSON.parse(readFileSync(`${folder}/manifest.json`)), payload);
const [preset] = engine.presets;
const settings = {snr: Number(snr), sparsity: 0.1, lam: 1, mismatch: 0, strength: 1, ...JSON.parse(others)};
const chunks = [];
for (let number = 0; number < Number(draws); number++) {
    const {x, y} = engine.draw(preset, number, settings);
    chunks.push(x, y);
    if (preset.signals) chunks.push(engine.pixels(preset, x));
    for (const estimator of preset.estimators) chunks.push(...engine.trajectory(preset, estimator, y, settings));
}
writeFileSync(`${folder}/world.bin`, Buffer.concat(chunks.map(c => Buffer.from(c.buffer, c.byteOffset, c.byteLength))));
