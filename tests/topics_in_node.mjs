// Runs one program of a topic in Node, call by call: what it gives for an input of its own goes in at the next call.
// node topics_in_node.mjs FOLDER PROGRAM, where modules, manifest.json, payload.b64 and given.json lie; prints outputs by name.

import {readFileSync} from 'node:fs';
import {inflateSync} from 'node:zlib';
import {pathToFileURL} from 'node:url';

const [folder, name] = process.argv.slice(2);
const {Engine} = await import(pathToFileURL(`${folder}/engine.mjs`));
const packed = inflateSync(Buffer.from(readFileSync(`${folder}/payload.b64`, 'latin1'), 'base64'));
const engine = await Engine.of(JSON.parse(readFileSync(`${folder}/manifest.json`)), packed.buffer.slice(packed.byteOffset, packed.byteOffset + packed.length));
const given = JSON.parse(readFileSync(`${folder}/given.json`)), [{programs, arrays}] = engine.presets;
const said = {}, held = {...arrays};
for (let i = 0; i < Object.values(given)[0].length; i++) {
    const row = Object.fromEntries(Object.entries(given).map(([key, rows]) => [key, Float32Array.from(rows[i])]));
    for (const [key, values] of Object.entries(programs[name].run({...held, ...row}))) {
        (said[key] ??= []).push([...values]);
        if (key.endsWith('_next')) held[key.replace('_next', '')] = values;
    }
}
console.log(JSON.stringify(said));
