/* The operator's view: what the daemon does, from GET /stats every two seconds while somebody looks. Charts are what this page has seen since it was
 * opened; the daemon keeps no history of them. */
import {get} from './api.js';
import {$, bytes, el, fill, number} from './dom.js';

const EVERY_MS = 2000, POINTS = 150;
const NS = 'http://www.w3.org/2000/svg';
const history = {};
let timer = 0, looking = false;
const parts = {};

/* ---- A chart: a line over the last five minutes, its scale from zero to the largest value, said in words for who does not see it. */
function chart(name, label, format) {
  const svg = document.createElementNS(NS, 'svg'), area = document.createElementNS(NS, 'path'), line = document.createElementNS(NS, 'path');
  for (const [key, value] of Object.entries({preserveAspectRatio: 'none', role: 'img'})) svg.setAttribute(key, value);
  svg.classList.add('chart');
  area.classList.add('area');
  line.classList.add('curve');
  svg.append(area, line);
  const value = el('output', {testid: `machine-${name}`}, '–'), note = el('span', {class: 'note'});
  parts[name] = (now, words = '') => {
    const all = (history[name] ??= []);
    all.push(now ?? 0);
    if (all.length > POINTS) all.shift();
    const top = Math.max(...all, 1e-9), wide = Math.max(all.length, 30), from = wide - all.length;
    const points = all.map((one, i) => `${from + i} ${(39 - 37 * one / top).toFixed(1)}`);
    svg.setAttribute('viewBox', `0 0 ${wide - 1} 40`);
    line.setAttribute('d', `M${points.join('L')}`);
    area.setAttribute('d', `M${from} 40L${points.join('L')}L${wide - 1} 40Z`);
    value.textContent = now === null || now === undefined ? '–' : format(now);
    note.textContent = words;
    svg.setAttribute('aria-label', `${label}: now ${value.textContent}, at most ${format(Math.max(...all))} in the last ${Math.round(all.length * EVERY_MS / 1000)} seconds`);
  };
  return el('section', {class: 'panel'}, el('h2', {}, label), el('p', {class: 'big'}, value), svg, el('p', {}, note));
}

function table(name, label, head) {
  const body = el('tbody', {testid: `machine-${name}`});
  parts[name] = (rows) => fill(body, rows.map((row) => el('tr', {}, row.map((one, i) => el(i === 0 ? 'th' : 'td', i === 0 ? {scope: 'row'} : {}, String(one))))));
  return el('section', {class: 'panel wide'}, el('h2', {}, label), el('div', {class: 'scroll', tabindex: 0, role: 'region', 'aria-label': label},
    el('table', {}, head.length ? el('thead', {}, el('tr', {}, head.map((one) => el('th', {scope: 'col'}, one)))) : null, body)));
}

const ms = (value) => (value === null || value === undefined ? '–' : value < 1000 ? `${value < 10 ? value.toFixed(1) : Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`);
const spread = (name, one) => [name, ms(one.p50), ms(one.p90), ms(one.p99)];

function build() {
  fill($('machine'), el('div', {class: 'split'}, el('h1', {class: 'lead'}, 'Machine'), el('p', {class: 'note', id: 'machine-note', testid: 'machine-note', role: 'status'}, 'Looking')),
    el('div', {class: 'panels', testid: 'machine-panels'},
      chart('images', 'Pictures a second', (v) => v.toFixed(v < 10 ? 2 : 1)), chart('queue', 'Jobs in the queue', number), chart('rows', 'Rows a tick', (v) => v.toFixed(1)),
      chart('tick', 'A tick, median', ms),
      table('times', 'How long things take, over the last minutes', ['What', 'Median', '90 %', '99 %']),
      table('workers', 'Workers', ['Process', 'Device', 'State', 'Restarts', 'Memory']),
      table('models', 'Models', ['Name', 'State', 'Memory']),
      table('rest', 'The daemon', [])));
}

function duration(value) {
  const d = Math.floor(value / 86400), h = Math.floor(value / 3600) % 24, m = Math.floor(value / 60) % 60;
  return d > 0 ? `${d} d ${h} h` : h > 0 ? `${h} h ${m} min` : m > 0 ? `${m} min` : `${Math.floor(value)} s`;
}

function showStats(s) {
  parts.images(s.images_per_second['10s'], `${number(s.images_per_second['60s'])} over a minute`);
  parts.queue(s.queue.queued, `${number(s.queue.running)} running, ${number(s.queue.cost)} evaluations wait`);
  parts.rows(s.rows_per_tick, 'Pictures share each pass of the network.');
  parts.tick(s.tick_ms.p50, `99 %: ${ms(s.tick_ms.p99)}`);
  parts.times([spread('Wait in the queue', s.wait_ms), spread('A job, whole', s.latency_ms), spread('A tick', s.tick_ms), spread('A commit', s.store.commit_ms)]);
  parts.workers(s.workers.map((one) => [one.pid ?? '–', one.device, one.state, one.restarts, bytes(one.resident_bytes)]));
  parts.models(s.models.map((one) => [one.name, one.state, one.bytes ? bytes(one.bytes) : '–']));
  parts.rest([['Up for', duration(s.uptime_seconds)], ['Jobs succeeded', number(s.jobs.succeeded)], ['Jobs failed', number(s.jobs.failed)], ['Jobs cancelled', number(s.jobs.canceled)],
    ['Event streams', number(s.streams)], ['Memory', bytes(s.resident_bytes)], ['Write-ahead log', bytes(s.store.wal_bytes)], ['Free disk', bytes(s.store.free_bytes)],
    ['Version', s.version], ['Build', String(s.build).slice(0, 16)]]);
}

async function look() {
  timer = 0;
  if (!looking) return;
  let pause = EVERY_MS;
  if (!document.hidden) {
    try {
      showStats(await get('/stats'));
      $('machine-note').textContent = 'Live';
      $('machine').dataset.state = 'live';
    } catch (error) {
      $('machine').dataset.state = 'unknown';
      $('machine-note').textContent = error.status === 403 ? 'This key may not look: the operator’s view needs a key with the scope admin.'
        : error.status === 404 ? 'This daemon has no /stats.' : `Not known: ${error.detail || 'the answer was not understood'}`;
      pause = 1000 * Math.max(3, error.retryAfter || 0);
    }
  }
  if (looking && !timer) timer = setTimeout(look, pause);
}

export function open() {
  if (!parts.images) build();
  looking = true;
  if (!timer) look();
}
export function close() {
  looking = false;
  clearTimeout(timer);
  timer = 0;
}
