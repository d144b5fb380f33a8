/* The gallery: this client's jobs, newest first, a page at a time, from GET /jobs; so it survives reloads, restarts and other tabs. */
import {get} from './api.js';
import * as classes from './classes.js';
import {$, ago, el, fill, show} from './dom.js';
import * as form from './form.js';
import * as jobs from './jobs.js';
import {onSheet as listenSheets, sheetOf} from './sheets.js';
import {drawPreview, pictureUrl, words} from './stage.js';

const PAGE = 24;
let order = []; // ids, newest first
let next = null;
let chosen = () => {};
const nodes = new Map();
export const onChoose = (f) => { chosen = f; };
let opened = () => {};
export const onSheet = (f) => { opened = f; };
/* A sheet is one tile, that of its first job which is still there. */
const hiddenBy = (sheet, id) => sheet && sheet.ids.find((one) => nodes.has(one)) !== id;

/* Pictures are fetched when their tile comes near the window. */
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { near.unobserve(entry.target); entry.target.dataset.near = '1'; paint(entry.target.dataset.job); }
}, {rootMargin: '300px'});

export async function load(more = false) {
  const query = more && next ? `&cursor=${encodeURIComponent(next)}` : '';
  const list = await get(`/jobs?limit=${PAGE}${query}`);
  for (const job of list.jobs) jobs.put(job);
  if (!more) leave(list);
  if (more || next === null) next = list.next_cursor;
  show($('more'), next !== null);
  note();
  return list.jobs;
}

/* Of what the first page should have shown, what is not there has been deleted elsewhere. */
function leave(list) {
  const there = new Set(list.jobs.map((one) => one.id)), last = list.next_cursor === null ? '' : list.jobs[list.jobs.length - 1].created_at;
  for (const id of order.filter((one) => !there.has(one) && jobs.job(one)?.created_at > last)) jobs.refresh(id).catch(() => {});
}

function note() {
  $('gallery-note').textContent = order.length === 0 ? 'Nothing yet. What you make is kept here, by the daemon.' : '';
}

function insert(job) {
  const at = order.findIndex((id) => (jobs.job(id)?.created_at || '') < job.created_at);
  const node = el('li', {'data-job': job.id, testid: 'tile', 'data-state': job.state});
  const place = at < 0 ? order.length : at;
  $('tiles').insertBefore(node, $('tiles').children[place] || null);
  order.splice(place, 0, job.id);
  nodes.set(job.id, node);
  paint(job.id);
  near.observe(node);
  note();
}

export function paint(id) {
  const node = nodes.get(id), job = jobs.job(id);
  if (!node || !job) return;
  const near_ = node.dataset.near === '1', sheet = sheetOf(id);
  show(node, !hiddenBy(sheet, id));
  if (node.hidden) return;
  const sign = `${job.state} ${job.images.length} ${near_} ${job.request === null} ${Boolean(sheet)}`;
  if (node.dataset.sign !== sign) {
    node.dataset.sign = sign;
    node.dataset.state = job.state;
    const name = job.request?.class_name || (job.request?.class_mixture ? 'Mixture' : job.request ? 'Anything' : 'Expired');
    const count = job.request?.n || 1;
    const size = sheet ? `${sheet.rows.length} × ${sheet.columns.length} sheet` : count > 1 ? `× ${count}` : ago(job.created_at);
    fill(node, el('button', {type: 'button', class: 'tile', onclick: () => (sheet ? opened(sheet) : chosen(jobs.job(id), 0)), 'aria-label': `${name}, ${job.state}, ${ago(job.created_at)}`},
      thumb(job, near_), el('span', {class: 'name'}, el('span', {}, name), el('span', {}, size))));
  }
  const line = node.querySelector('.thumb p');
  if (line && !jobs.ended(job)) line.textContent = job.state === 'queued' ? words(job).replace(/, ready.*/, '') : `${Math.round(100 * (job.progress.fraction || 0))} %`;
  const bar = node.querySelector('progress');
  if (bar) bar.value = job.progress.fraction || 0;
}

/* Whether its picture may stand for its class in the picker. */
function typical(request) {
  const model = form.currentModel();
  return request && request.model === model?.name && !request.init_image && !request.class_mixture && request.negative_class === undefined &&
    (request.guidance_scale >= 1 || request.class_label === null) && request.steps >= model.defaults?.steps / 2;
}

function thumb(job, near_) {
  const box = el('span', {class: 'thumb'});
  if (job.images.length === 0 || !near_) {
    if (jobs.ended(job)) box.append(el('p', {}, job.state === 'failed' ? `failed: ${job.error?.code || ''}` : job.state === 'succeeded' ? '' : 'cancelled'));
    else box.append(el('canvas', {width: 1, height: 1}), el('p', {}), el('progress', {max: 1, value: 0, 'aria-label': 'Progress'}));
    return box;
  }
  const images = job.images.slice(0, job.images.length >= 4 ? 4 : 1);
  if (images.length === 4) box.classList.add('four');
  for (const image of images) {
    const node = el('img', {alt: '', width: image.width, height: image.height, testid: 'thumb'});
    pictureUrl(image).then((url) => {
      node.src = url;
      if (typical(job.request)) classes.setPicture(job.request.class_label, url, false);
    }, () => node.replaceWith(el('p', {}, 'the picture is gone')));
    box.append(node);
  }
  if (!jobs.ended(job)) box.append(el('progress', {max: 1, value: 0, 'aria-label': 'Progress'}));
  return box;
}

jobs.listen((event) => {
  if (event.type === 'gone') {
    nodes.get(event.id)?.remove();
    nodes.delete(event.id);
    for (const id of sheetOf(event.id)?.ids || []) paint(id);
    order = order.filter((id) => id !== event.id);
    note();
  } else if (event.type === 'preview') {
    const canvas = event.preview.index === 0 && nodes.get(event.id)?.querySelector('canvas');
    if (canvas) drawPreview(canvas, event.preview).catch(() => {});
  } else if (!nodes.has(event.id)) insert(event.job);
  else paint(event.id);
});
listenSheets((sheet) => { for (const id of sheet.ids) paint(id); });
$('more').addEventListener('click', () => load(true).catch(() => {}));
