/* A picture's recipe, and what can be made of it: the same again, variations, comparisons, a painted one, a file, a command. Loaded when first
 * wanted. */
import {hasKey, base, origin, picture} from './api.js';
import * as classes from './classes.js';
import {$, ago, bytes, closeDialog, el, fill, openDialog, say, sentence, show} from './dom.js';
import {typed} from './fields.js';
import * as form from './form.js';
import * as jobs from './jobs.js';
import {keepSheet} from './sheets.js';
import * as shelf from './shelf.js';
import * as stage from './stage.js';

let make = null;
let refuse = () => {};
export function start(functions) { ({make, refuse} = functions); }

/* The request of one image, without what cannot or should not be sent again. */
export function requestOf(job, index = null) {
  const {class_name, negative_class_name, webhook, deadline_ms, init_image, mask_image, ...rest} = job.request;
  const request = {...rest};
  if (index !== null) {
    request.n = 1;
    request.seed = job.images.find((one) => one.index === index)?.seed ?? BigInt.asUintN(64, BigInt(rest.seed) + BigInt(index)).toString();
  }
  if (request.class_mixture) {
    request.class_mixture = request.class_mixture.map(({class_label, weight}) => ({class_label, weight}));
    delete request.class_label;
  }
  return request;
}

/* The same with the pictures it started from, where this browser still has them. */
async function whole(job, index) {
  const request = requestOf(job, index);
  if (job.request.init_image) {
    const kept = await shelf.inputsOf(job.request.init_image, job.request.mask_image);
    if (!kept) throw new Error('The picture that this one started from is no longer in this browser.');
    request.init_image = kept.png;
    if (kept.mask) request.mask_image = kept.mask;
  }
  return request;
}

const act = (name, label, work, more = {}) => el('button', {type: 'button', testid: name, ...more, onclick: async () => {
  try { await work(); } catch (error) { refuse(error); }
}}, label);

/* index null: all of a job's pictures. */
export async function again(job, index) {
  const before = index === null ? job.images : job.images.filter((one) => one.index === index);
  closeDialog();
  await make(await whole(job, index), {expected: before.map((one) => ({pixels: one.pixels_sha256, build: one.build}))});
}

/* Says what is wrong in a dialog, beside what was typed there; nothing: hides it. */
function wrong(note, words) {
  note.textContent = words;
  show(note, words !== '');
  return words !== '';
}

export function vary(job, index) {
  const seeds = el('input', {type: 'radio', name: 'kind', value: 'seeds', id: 'vary-seeds', testid: 'vary-seeds'});
  const noise = el('input', {type: 'radio', name: 'kind', value: 'noise', id: 'vary-noise', testid: 'vary-noise', checked: true});
  const strength = el('input', {type: 'range', id: 'vary-strength', testid: 'vary-strength', min: 0.02, max: 1, step: 0.02, value: 0.2});
  const told = el('output', {for: 'vary-strength'}, '0.2');
  const count = el('input', {class: 'mono', id: 'vary-count', testid: 'vary-count', inputmode: 'numeric', value: '9', 'aria-describedby': 'vary-error'});
  const error = el('p', {class: 'error', id: 'vary-error', role: 'alert', hidden: true, testid: 'vary-error'});
  strength.addEventListener('input', () => { told.textContent = strength.value; });
  openDialog('Vary', 'vary', el('form', {class: 'two', onsubmit: async (event) => {
    event.preventDefault();
    const n = typed(count.value);
    if (wrong(error, Number.isInteger(n) && n >= 1 && n <= 64 ? '' : 'How many must be a whole number from 1 to 64.')) { count.focus(); return; }
    try {
      const request = await whole(job, index);
      const body = seeds.checked ? {...request, n, seed: BigInt.asUintN(64, BigInt(request.seed) + 1n).toString()}
        : Array.from({length: n}, () => ({...request, variation_seed: form.randomSeed(), variation_strength: Number(strength.value)}));
      closeDialog();
      await make(body, {title: `${job.request.class_name || 'Variations'}, varied`});
    } catch (reason) { refuse(reason); }
  }},
  el('div', {}, el('p', {}, el('label', {for: 'vary-noise'}, noise, ' Near it'), el('span', {class: 'note'}, ' The start noise turned a little towards other seeds’.')),
    el('p', {}, el('label', {for: 'vary-strength'}, 'How far'), ' ', told), strength,
    el('p', {}, el('label', {for: 'vary-seeds'}, seeds, ' Other seeds'), el('span', {class: 'note'}, ' The seeds that follow this one’s: the same words, other pictures.'))),
  el('div', {}, el('label', {for: 'vary-count'}, 'How many'), count, error, el('div', {class: 'go'}, el('button', {class: 'primary', testid: 'vary-go'}, 'Make variations')))));
}

const list = (text) => text.split(/[\s;,]+/).filter(Boolean).map(typed);

const SHEET = {guidance_scale: '0, 1, 2, 4', steps: '5, 10, 20, 50'};
/* A contact sheet: guidance down, steps across, everything else alike, as one array of jobs. before: what was typed and refused, which is asked for
 * again with the reason beside it. */
export function compare(request, before = SHEET, problem = null) {
  const down = el('input', {class: 'mono', id: 'sheet-guidance', testid: 'sheet-guidance', value: before.guidance_scale});
  const across = el('input', {class: 'mono', id: 'sheet-steps', testid: 'sheet-steps', value: before.steps});
  const told = el('p', {class: 'note', testid: 'sheet-count'});
  const error = el('p', {class: 'error', role: 'alert', hidden: true, testid: 'sheet-error'});
  const count = () => { told.textContent = `${list(down.value).length} × ${list(across.value).length} = ${list(down.value).length * list(across.value).length} pictures, of one seed.`; };
  for (const input of [down, across]) input.addEventListener('input', count);
  count();
  openDialog('Compare', 'compare', el('form', {class: 'two', onsubmit: async (event) => {
    event.preventDefault();
    const rows = list(down.value), columns = list(across.value), cells = rows.length * columns.length;
    if (wrong(error, cells < 1 || cells > 64 ? 'A sheet has 1 to 64 pictures.' : '')) return;
    const body = rows.flatMap((guidance_scale) => columns.map((steps) => ({...request, n: 1, guidance_scale, steps})));
    closeDialog();
    const labels = {rows: rows.map(String), columns: columns.map(String), rowName: 'guidance', columnName: 'steps', title: 'Guidance and steps'};
    const typed_ = {guidance_scale: down.value, steps: across.value};
    const made = await make(body, labels, (one) => {
      const mine = /^\/\d+\/(guidance_scale|steps)$/.test(one.field || '');
      if (mine) compare(request, typed_, one);
      return mine;
    });
    if (made) keepSheet({ids: made.map((one) => one.id), ...labels});
  }},
  el('div', {}, el('label', {for: 'sheet-guidance'}, 'Guidance, down'), down, el('label', {for: 'sheet-steps'}, 'Steps, across'), across),
  el('div', {}, told, error, el('div', {class: 'go'}, el('button', {class: 'primary', testid: 'sheet-go'}, 'Make the sheet')))));
  if (problem) {
    wrong(error, sentence(problem.detail));
    (problem.field.endsWith('/steps') ? across : down).focus();
  }
}

/* ---- As a command */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
export function curl(job, index) {
  const request = requestOf(job, index);
  let body = quoted(JSON.stringify(request));
  for (const name of ['mask_image', 'init_image']) {
    if (job.request[name]) body = body.replace(/\}'$/, `,"${name}":"'$(base64 -w0 ${name === 'init_image' ? 'start' : 'mask'}.png)'"}'`);
  }
  return [`curl -s ${quoted(`${origin}${base}/generate`)} \\`, ...(hasKey() ? ['  -H "Authorization: Bearer $DENOISED_KEY" \\'] : []),
    "  -H 'Content-Type: application/json' -H 'Accept: image/png' \\", `  -d ${body} \\`, `  -o ${fileName(job, index)}`].join('\n');
}

function fileName(job, index) {
  const name = (job.request.class_name || 'picture').toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, '') || 'picture';
  return `${name}-${requestOf(job, index).seed}.png`;
}

async function copy(text, area) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { /* no clipboard without a secure context: the old way */
    area.select();
    document.execCommand('copy');
  }
  say('Copied');
}

/* ---- The recipe */
const shown = {model: 'Model', guidance_scale: 'Guidance', steps: 'Steps', sampler: 'Sampler'};
const left = new Set(['model', 'guidance_scale', 'steps', 'sampler', 'class_label', 'class_name', 'negative_class_name', 'n', 'seed', 'priority', 'class_mixture']);

function facts(job, image) {
  const r = job.request, rows = [];
  for (const [name, label] of Object.entries(shown)) rows.push([label, r[name]]);
  rows.push(['Seed', image?.seed ?? r.seed]);
  if (r.class_mixture) rows.push(['Classes', r.class_mixture.map((one) => `${one.class_name} ${one.weight}`).join(', ')]);
  for (const [name, value] of Object.entries(r)) {
    if (!left.has(name) && value !== null) rows.push([name, typeof value === 'object' ? `sha256 ${String(value.sha256).slice(0, 12)}` : value]);
  }
  if (r.priority) rows.push(['Priority', r.priority]);
  rows.push(['State', stage.words(job)], ['Asked for', ago(job.created_at)]);
  if (job.expires_at) rows.push(['Kept until', new Date(job.expires_at).toLocaleDateString()]);
  if (image) {
    rows.push(['File', `${image.width} × ${image.height}, ${bytes(image.bytes)}`], ['Device', image.device]);
    if (image.evaluations) rows.push(['Evaluations', image.evaluations]);
    rows.push(['SHA-256', image.sha256]);
  }
  rows.push(['Job', job.id]);
  return el('dl', {class: 'facts', testid: 'recipe'}, rows.map(([name, value]) => [el('dt', {}, name), el('dd', {}, String(value))]));
}

export function open(job, index = 0) {
  if (!job.request) {
    openDialog('Expired', 'recipe', el('p', {}, 'The daemon has deleted this job’s pictures and recipe: it was kept as long as it was told to keep jobs.'),
      el('div', {class: 'actions'}, act('delete', 'Delete', () => remove(job))));
    return;
  }
  const image = job.images.find((one) => one.index === index) || job.images[0];
  const at = image ? image.index : 0;
  const name = job.request.class_name || (job.request.class_mixture ? 'A mixture' : 'Anything');
  const large = el('img', {class: 'pixel', testid: 'recipe-picture', alt: `${name}, seed ${image?.seed ?? job.request.seed}`, width: image?.width, height: image?.height});
  if (image) stage.pictureUrl(image).then((url) => { large.src = url; }, () => {});
  const command = el('textarea', {class: 'code', readonly: true, testid: 'curl', 'aria-label': 'The same as a command', hidden: true});
  command.value = curl(job, at);
  const strip = job.images.length > 1 ? el('div', {class: 'strip', role: 'group', 'aria-label': 'Pictures of this job'}, job.images.map((one) => {
    const small = el('img', {class: 'pixel', alt: ''});
    stage.pictureUrl(one).then((url) => { small.src = url; }, () => {});
    return el('button', {type: 'button', 'aria-label': `Picture ${one.index + 1}`, 'aria-pressed': String(one.index === at), onclick: () => open(job, one.index)}, small);
  })) : null;
  const active = !jobs.ended(job);
  const actions = el('div', {class: 'actions'},
    active ? act('dialog-cancel', 'Cancel', async () => { await jobs.cancel(job.id); closeDialog(); }) : null,
    act('again', 'Same again', () => again(job, at), {class: 'primary'}),
    act('vary', 'Vary', () => vary(job, at)),
    act('sheet', 'Compare', async () => compare(await whole(job, at))),
    image ? act('paint', 'Paint', () => paintOver(job, image)) : null,
    act('use', 'Use recipe', () => use(job, at)),
    image ? el('a', {class: 'button', testid: 'download', download: fileName(job, at)}, 'Download') : null,
    act('copy-curl', 'Copy as curl', () => { show(command, true); return copy(command.value, command); }),
    active ? null : act('delete', 'Delete', () => remove(job)));
  const link = actions.querySelector('a');
  if (link) stage.pictureUrl(image).then((url) => { link.href = url; }, () => {});
  openDialog(name, 'recipe', el('div', {class: 'two'}, el('div', {}, image ? large : el('p', {class: 'note'}, stage.words(job)), strip),
    el('div', {}, actions, command, facts(job, image))));
}

/* Deleting is for good: the button asks once more. */
async function remove(job) {
  const button = document.querySelector('#dialog [data-testid="delete"]');
  if (button && button.dataset.sure !== '1') {
    button.dataset.sure = '1';
    fill(button, 'Delete for good?');
    return;
  }
  await jobs.purge(job.id);
  stage.dropPictures(job);
  closeDialog();
  say('Deleted');
}

async function use(job, index) {
  closeDialog();
  const {init_image, mask_image} = job.request;
  const complete = await form.setRecipe({...requestOf(job, index), ...(init_image ? {init_image} : {}), ...(mask_image ? {mask_image} : {})}, shelf.inputsOf);
  if (!complete) refuse(new Error('The picture that this one started from is no longer in this browser.'));
  $('form').scrollIntoView({block: 'nearest'});
  $('generate').focus();
}

export async function paintOver(job, image) {
  const {paint} = await import('./paint.js');
  await form.setRecipe(requestOf(job, image.index));
  await paint(await picture(image.url), {make, refuse, name: classes.nameOf(job.request.class_label)});
}
