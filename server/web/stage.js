/* The stage: what is being made, as it is made. One job fills it with its pictures; several jobs (a comparison, variations) share it, with labels
 * where they have any. Before the first, it shows the noise that the form's seed starts from. */
import {picture, unreachable} from './api.js';
import * as classes from './classes.js';
import {$, el, fill, say, seconds, show as reveal} from './dom.js';
import * as form from './form.js';
import * as jobs from './jobs.js';
import {drawNoise} from './noise.js';

let shown = null; // {ids, rows, columns}: labels of a sheet
let cells = new Map(); // "id/index" -> {node, canvas, done}
let chosen = () => {};
let actions = () => [];
export const onChoose = (f) => { chosen = f; };
export const setActions = (f) => { actions = f; };
export const current = () => shown;

/* ---- Pictures by URL: fetched with the key, kept as blob URLs for as long as the page knows their job. */
const blobs = new Map();
async function patiently(url) {
  for (;;) {
    try {
      return await picture(url);
    } catch (error) {
      if (!unreachable(error)) throw error;
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}
export function pictureUrl(image) {
  if (!blobs.has(image.url)) {
    const coming = patiently(image.url).then((blob) => URL.createObjectURL(blob));
    coming.catch(() => blobs.delete(image.url));
    blobs.set(image.url, coming);
  }
  return blobs.get(image.url);
}
export function dropPictures(job) {
  for (const image of job?.images || []) {
    blobs.get(image.url)?.then(URL.revokeObjectURL, () => {});
    blobs.delete(image.url);
  }
}

/* ---- Previews: the latest of each cell, decoded off the main thread, drawn with the next frame. */
const waiting = new Map();
let frame = 0;
export async function drawPreview(canvas, preview) {
  waiting.set(canvas, null);
  const data = Uint8Array.from(atob(preview.png), (letter) => letter.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([data], {type: 'image/png'}));
  waiting.set(canvas, bitmap);
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    for (const [target, latest] of waiting) {
      if (!latest) continue;
      if (target.width !== latest.width || target.height !== latest.height) Object.assign(target, {width: latest.width, height: latest.height});
      target.getContext('2d').drawImage(latest, 0, 0);
      latest.close();
      waiting.delete(target);
    }
  });
}

function title(text) {
  $('stage-title').textContent = text;
  $('stage-title').classList.toggle('long', text.length > 32);
}

/* ---- The noise of the form's seed */
export function showNoise() {
  const model = form.currentModel();
  if (shown || !model?.width) return;
  const seed = /^\d{1,20}$/.test(form.currentSeed()) ? form.currentSeed() : '0';
  const size = model.latent || model;
  const canvas = $('frame').querySelector('#noise') || el('canvas', {id: 'noise', role: 'img', 'aria-label': 'Noise'});
  drawNoise(canvas, seed, size.width, size.height, size.channels);
  if (!canvas.isConnected) { fill($('frame'), canvas); $('frame').className = 'frame'; }
  $('frame').style.aspectRatio = `${model.width} / ${model.height}`;
  title(classes.nameOf(classes.current()));
  $('stage-state').textContent = `This is the noise that seed ${seed} starts from. Generate takes it away, step by step, and leaves the picture.`;
}

/* ---- Showing jobs */
export function show(ids, labels = {}) {
  shown = {ids, ...labels};
  cells = new Map();
  const all = ids.map((id) => jobs.job(id)).filter(Boolean);
  if (all.length === 0) { clear(); return; }
  const total = all.reduce((sum, job) => sum + (job.request?.n || 1), 0);
  const box = $('frame');
  const nodes = all.flatMap((job) => Array.from({length: job.request?.n || 1}, (_, index) => cell(job, index)));
  const model = form.currentModel();
  const ratio = model?.width ? model.width / model.height : 1;
  if (labels.rows) sheet(box, nodes, labels, ratio);
  else {
    const columns = Math.ceil(Math.sqrt(total)), rows = Math.ceil(total / columns);
    box.className = 'frame';
    box.style.gridTemplate = `repeat(${rows}, minmax(0, 1fr)) / repeat(${columns}, minmax(0, 1fr))`;
    box.style.aspectRatio = `${columns * ratio} / ${rows}`;
    fill(box, nodes);
  }
  jobs.watchFirst(ids);
  for (const job of all) update(job);
  caption();
}

function sheet(box, nodes, {rows, columns, rowName, columnName}, ratio) {
  box.className = 'sheet';
  box.style.gridTemplate = '';
  box.style.gridTemplateColumns = `auto repeat(${columns.length}, minmax(2.5rem, 1fr))`;
  box.style.aspectRatio = '';
  const children = [el('span', {}, `${rowName} \\ ${columnName}`), ...columns.map((one) => el('span', {}, one))];
  rows.forEach((label, r) => children.push(el('span', {}, label), ...nodes.slice(r * columns.length, (r + 1) * columns.length)));
  for (const node of nodes) node.style.aspectRatio = String(ratio);
  fill(box, children);
}

function cell(job, index) {
  const canvas = el('canvas', {width: 1, height: 1});
  const node = el('button', {type: 'button', class: 'cell', testid: 'cell', 'data-job': job.id, 'data-index': index, 'data-state': job.state,
    'aria-label': `Picture ${index + 1}`, onclick: () => chosen(jobs.job(job.id) || job, index)}, canvas);
  const size = form.currentModel();
  if (job.request?.seed && size?.width && !jobs.ended(job)) {
    const seed = BigInt.asUintN(64, BigInt(job.request.seed) + BigInt(index)).toString();
    const shape = size.latent || size;
    if (!job.request.init_image) drawNoise(canvas, seed, shape.width, shape.height, shape.channels);
  }
  cells.set(`${job.id}/${index}`, {node, canvas, done: false});
  return node;
}

async function update(job) {
  for (const [key, one] of cells) if (key.startsWith(job.id)) one.node.dataset.state = job.state;
  for (const image of job.images) {
    const one = cells.get(`${job.id}/${image.index}`);
    if (!one || one.done) continue;
    one.done = true;
    const alt = `${job.request?.class_name || 'A picture'}, seed ${image.seed}`;
    try {
      const url = await pictureUrl(image);
      const node = el('img', {src: url, alt, testid: 'picture', width: image.width, height: image.height, 'data-sha256': image.sha256});
      await node.decode().catch(() => {});
      fill(one.node, node);
      one.node.setAttribute('aria-label', `${alt}: recipe and actions`);
    } catch {
      one.done = false;
    }
  }
}

const plural = (count, word) => `${count} ${word}${count === 1 ? '' : 's'}`;

export function words(job) {
  if (job.state === 'queued') {
    const place = job.queue_position;
    const model = form.currentModel();
    if (model?.name === job.request?.model && model?.state !== 'ready') return 'Queued; its model is loaded first';
    const where = place === null ? 'Queued' : place === 0 ? 'Queued, next' : `Queued, ${plural(place, 'job')} before it`;
    return where + (job.eta_seconds !== null ? `, ready in ${seconds(job.eta_seconds)}` : '');
  }
  if (job.state === 'running') {
    const {done, total} = job.progress;
    const step = total ? `Denoising, step ${done} of ${total}` : `Denoising, ${done} steps so far`;
    return (job.cancel_requested ? 'Stopping' : step) + (job.eta_seconds !== null ? `, ${seconds(job.eta_seconds)} left` : '');
  }
  if (job.state === 'failed') return `Failed: ${job.error?.detail || job.error?.code || 'no reason was given'}`;
  if (job.state === 'canceled') return job.images.length ? `Cancelled; ${plural(job.images.length, 'picture')} kept` : 'Cancelled';
  const took = (Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000;
  return took >= 0 ? `Made in ${took < 10 ? took.toFixed(2) : Math.round(took)} s` : 'Done';
}

let milestone = '';
function caption() {
  const all = (shown?.ids || []).map((id) => jobs.job(id)).filter(Boolean);
  if (all.length === 0) return;
  const one = all[0], many = all.length > 1;
  const name = one.request?.class_name || 'Anything';
  const over = all.filter(jobs.ended).length;
  title(shown.title || (one.request?.class_mixture ? 'A mixture' : name));
  const state = many && over < all.length ? `${over} of ${all.length} jobs are done` : many ? `${plural(all.length, 'job')}, done` : words(one);
  $('stage-state').textContent = state;
  $('stage').dataset.state = many ? (over < all.length ? 'running' : 'succeeded') : one.state;
  $('stage').dataset.job = one.id;
  $('stage').dataset.jobs = String(all.length);
  const fractions = all.map((job) => (jobs.ended(job) ? 1 : job.progress.fraction));
  const bar = $('stage-progress');
  reveal(bar, over < all.length);
  if (fractions.some((value) => value === null)) bar.removeAttribute('value');
  else bar.value = fractions.reduce((sum, value) => sum + value, 0) / all.length;
  /* Only when they say something else: a button that is replaced ten times a second loses the focus, and a press between two of them. */
  const sign = all.map((job) => `${job.id} ${job.state} ${job.images.length}`).join();
  if (shown.sign !== sign) {
    shown.sign = sign;
    facts(all);
    fill($('stage-actions'), actions(all));
  }
  const now = `${one.id} ${one.state} ${over}`;
  if (now !== milestone) say(`${name}: ${state}`);
  milestone = now;
}

/* After "same again": whether the promise was kept. */
function compared(job) {
  const pairs = (shown.expected || []).map((one, i) => [one, job.images.find((image) => image.index === i)]).filter(([, image]) => image);
  if (pairs.length === 0) return null;
  if (pairs.every(([one, image]) => one.pixels === image.pixels_sha256)) return 'every pixel';
  return pairs.every(([one, image]) => one.build === image.build) ? 'no: other pixels' : 'other pixels, by another build';
}

/* Of several jobs what they have in common. */
function facts(all) {
  const r = all[0].request;
  const same = (name) => (all.every((job) => job.request?.[name] === r[name]) ? r[name] ?? null : null);
  const list = !r ? [] : [['Class', all.length > 1 ? same('class_name') : null], ['Guidance', same('guidance_scale')], ['Steps', same('steps')], ['Sampler', same('sampler')],
    ['Seed', same('seed')], ['Variation', same('variation_strength')], ['Pictures', all.length > 1 || r.n > 1 ? all.reduce((sum, job) => sum + (job.request?.n || 1), 0) : null],
    ['Model', same('model')], ['As before', compared(all[0])]];
  fill($('stage-facts'), list.filter(([, value]) => value !== null).map(([name, value]) => [el('dt', {}, name), el('dd', {}, String(value))]));
}

export function clear() {
  shown = null;
  cells = new Map();
  jobs.watchFirst([]);
  fill($('frame'));
  $('frame').style.gridTemplate = '';
  reveal($('stage-progress'), false);
  fill($('stage-facts'));
  fill($('stage-actions'));
  delete $('stage').dataset.state;
  showNoise();
}

let pending = 0;
jobs.listen((event) => {
  if (!shown?.ids.includes(event.id)) return;
  if (event.type === 'gone') {
    const ids = shown.ids.filter((id) => id !== event.id);
    if (ids.length === 0) clear();
    else show(ids, {title: shown.title});
  } else if (event.type === 'preview') {
    const one = cells.get(`${event.id}/${event.preview.index}`);
    if (one && !one.done) {
      one.node.dataset.previews = String(Number(one.node.dataset.previews || 0) + 1);
      drawPreview(one.canvas, event.preview).catch(() => {});
    }
  } else {
    update(event.job);
    pending ||= requestAnimationFrame(() => { pending = 0; caption(); });
  }
});
