// The runs: what the lab lists, and those that are shown, followed event by event.

import {colourOf, dB, LOOKS} from './curves.js';
import {made} from './made.js';

export const LIVE = new Set(['waiting', 'training']);
const word = text => (/^[\w./=:,+@-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
const place = name => `runs/${encodeURIComponent(name)}`;

// A run that is followed: its points, and what the lab says of it. A tab that is not seen follows nothing; when it is
// seen again it goes on from its mark, and misses nothing.
export class Followed {
    constructor(name, slot, onNews) {
        Object.assign(this, {name, slot, onNews, validated: [], batches: [], events: 0, updates: 0, connections: 0, mark: ''});
    }

    follow() {
        if (this.source || this.ended) return;
        this.source = new EventSource(`${place(this.name)}/events?after=${encodeURIComponent(this.mark)}`);
        this.connections++;
        this.source.addEventListener('lines', ({data, lastEventId}) => {
            const {anew, lines} = JSON.parse(data);
            if (anew) Object.assign(this, {validated: [], batches: [], events: 0});
            this.mark = lastEventId;
            this.events += lines.length;
            for (const line of lines) this.#take(line);
            this.updates += lines.length > 0;
            this.onNews(this);
        });
        this.source.addEventListener('state', ({data}) => { this.state = JSON.parse(data); this.onNews(this, true); });
        this.source.addEventListener('error', ({target}) => { if (target.readyState === EventSource.CLOSED) this.leave(); }); // refused; else it comes back by itself
        this.source.addEventListener('end', () => { this.ended = true; this.leave(); this.onNews(this, true); });
    }

    leave() {
        this.source?.close();
        this.source = undefined;
    }

    again() { // after it is resumed
        this.leave();
        this.ended = false;
        this.follow();
    }

    #take(line) {
        if (line.event === 'validated') this.validated.push([line.step, line.nmse_db ?? NaN]);
        if (line.event === 'stepped' && this.in_db && !line.skipped) this.batches.push([line.step, 10 * (line.loss ?? NaN)]);
        if (line.event === 'finished') this.advice = line.advice;
    }
}

function what({problem, network, layers}) {
    const sizes = ['n', 'm', 'snr_db'].filter(name => (problem?.[name] ?? null) !== null).map(name => `${name} ${problem[name]}`).join(', ');
    return [`${network}${layers ? `, ${layers} layers` : ''}`, `${problem?.name}${sizes && ` (${sizes})`}`].join(' on ');
}

// One run of the list, made once and then brought up to date, so that the focus stays where it is.
export class Card {
    constructor(name, {onShow, onCancel, onResume}) {
        this.element = made('li', {className: 'run'});
        this.element.dataset.run = name;
        this.box = made('input', {type: 'checkbox'});
        this.box.addEventListener('change', () => onShow(name, this.box.checked));
        this.line = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
        this.line.setAttribute('viewBox', '0 0 30 12');
        this.line.setAttribute('aria-hidden', 'true');
        this.level = made('span', {className: 'level'});
        this.what = made('span', {className: 'quiet'});
        this.condition = made('span', {className: 'quiet condition'});
        this.progress = made('progress', {max: 1, value: 0});
        this.progress.setAttribute('aria-label', `Progress of ${name}`);
        this.message = made('p', {className: 'message'});
        this.cancel = made('button', {textContent: 'Cancel', type: 'button'});
        this.cancel.addEventListener('click', () => onCancel(name));
        this.resume = made('button', {textContent: 'Resume', type: 'button'});
        this.resume.addEventListener('click', () => onResume(name));
        const link = (textContent, file, more) => made('a', {className: 'button', textContent, href: `${place(name)}/${file}`, ...more});
        this.ended = [
            link('Report', 'report', {target: '_blank', rel: 'noopener', title: 'Peers, limits and layers; made when it is first opened, which takes some seconds'}),
            link('Export', 'export.zip', {download: `${name}.zip`, title: 'config.toml, a script that trains it again, and its report'}),
        ];
        for (const element of [this.cancel, this.resume, ...this.ended]) element.setAttribute('aria-label', `${element.textContent} ${name}`);
        this.command = made('details', {}, made('summary', {textContent: 'In a shell'}), made('pre', {tabIndex: 0}));
        this.element.append(
            made('div', {className: 'head'}, made('label', {}, this.box, this.line, name), this.level),
            made('div', {className: 'head'}, this.what, this.condition), this.progress, this.message,
            made('div', {className: 'row'}, this.cancel, this.resume, ...this.ended), this.command,
        );
    }

    update(row, followed) {
        const {condition, message, resumable, damage, command, step, steps, nmse_db, advice} = row;
        const live = LIVE.has(condition), last = followed?.validated.at(-1);
        this.box.checked = Boolean(followed);
        this.line.toggleAttribute('hidden', !followed);
        this.line.innerHTML = followed ? `<line x1="0" x2="30" y1="6" y2="6" stroke="${colourOf(followed.slot)}" stroke-width="3" stroke-dasharray="${LOOKS[followed.slot].dash}"/>` : '';
        const level = last ? last[1] : nmse_db;
        this.level.textContent = level === undefined || level === null ? '' : dB(level);
        this.what.textContent = row.problem ? what(row) : '';
        const at = Math.max(step ?? 0, followed?.batches.at(-1)?.[0] ?? 0, last?.[0] ?? 0);
        this.condition.textContent = condition === 'waiting' || (!at && !steps && condition !== 'training') ? condition
            : !at && condition === 'training' ? 'starting' : `${condition}, step ${at}${steps ? ` of ${steps}` : ''}`;
        this.progress.hidden = !live;
        if (steps && condition === 'training') Object.assign(this.progress, {max: steps, value: at});
        else this.progress.removeAttribute('value');
        this.message.textContent = message || damage || advice || '';
        this.message.className = message || damage ? 'message' : 'message advice';
        this.cancel.hidden = !live;
        this.resume.hidden = !resumable;
        for (const element of this.ended) element.hidden = condition !== 'finished';
        this.command.hidden = !command?.length;
        this.command.lastChild.textContent = command?.length ? ['fanfold', ...command].map(word).join(' ') : '';
    }
}
