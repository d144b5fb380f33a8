/* The form: built from GET /models, /models/{name} and /samplers; read into the body of POST /generate; filled from a recipe. */
import {get, Problem} from './api.js';
import * as classes from './classes.js';
import {$, el, fill, keep, show} from './dom.js';
import {read, row, typed, write} from './fields.js';

let samplers = [];
let model = null;
let start = null; // {png, mask, url, maskUrl}: base64 of what to begin from
let extra = {}; // fields of a recipe that the form has no row for: they go along until they are removed
const changed = new Set();

export const onChange = (f) => changed.add(f);
const tellChange = () => { for (const f of changed) f(); };
export const currentModel = () => model;
export const currentSeed = () => $('seed').value.trim();

export function randomSeed() {
  return String(crypto.getRandomValues(new Uint32Array(1))[0]);
}
export function roll() {
  $('seed').value = randomSeed();
  tellChange();
}
export const locked = () => $('lock').getAttribute('aria-pressed') === 'true';
export function setLock(on) {
  $('lock').setAttribute('aria-pressed', String(on));
}

/* ---- Building */
export async function load() {
  const [list, table] = await Promise.all([get('/models'), get('/samplers')]);
  samplers = table.samplers;
  const before = $('model').value || keep.get('model');
  fill($('model'), list.models.map((one) => el('option', {value: one.name}, one.name)));
  const name = list.models.some((one) => one.name === before) ? before : list.default;
  if (name) {
    $('model').value = name;
    await chooseModel(name);
  }
  return list;
}

export async function chooseModel(name) {
  const next = await get(`/models/${encodeURIComponent(name)}`);
  /* A model that has been loaded says more of itself (its weights' hash), and what was typed for it stays. */
  const other = model?.name !== next.name || !model.architecture !== !next.architecture ||
    Boolean(model.weights_sha256 && next.weights_sha256 && model.weights_sha256 !== next.weights_sha256);
  model = next;
  keep.set('model', name);
  $('model').value = name;
  noteModel();
  if (other) {
    classes.clearPictures();
    classes.setModel(model);
    fill($('sampler'), (model.samplers || []).map((one) => el('option', {value: one}, samplers.find((s) => s.name === one)?.title || one)),
      model.model_sampler ? el('option', {value: 'model'}, `As the model says (${model.model_sampler})`) : null);
    setDefaults();
    buildModelFields();
    setStart(null);
    setExtra({});
  }
  tellChange();
  return model;
}

function noteModel() {
  const words = {unloaded: 'Loaded when first wanted.', loading: 'Loading.', failed: `Cannot be loaded: ${model.error}`}[model.state] || '';
  const facts = model.architecture ? `${model.architecture}, ${model.width} × ${model.height}, ${model.class_count} classes, ${model.device}. ` : '';
  $('model-note').textContent = facts + words;
}

function setDefaults() {
  const defaults = model.defaults || {sampler: 'ddim', steps: 20, guidance_scale: 1};
  $('guidance_scale').value = model.guidance || model.guidance_methods?.length ? defaults.guidance_scale : 1;
  $('steps').value = defaults.steps;
  $('sampler').value = defaults.sampler;
  syncRanges();
  buildSamplerFields();
}

const group = {strength: 'start', resample: 'start', variation_strength: 'other'};
function buildModelFields() {
  const fields = model.fields || [];
  fill($('guidance-fields'), fields.filter((one) => !group[one.name]).map(row),
    row({name: 'negative_class', type: 'text', default: null, help: 'guided away from this class instead of the null class: a name or a number'}));
  document.querySelector('[data-testid="guidance-options"]').hidden = !(model.guidance_methods?.length);
  fill($('other-fields'), fields.some((one) => one.name === 'variation_strength') ? [
    row({name: 'variation_seed', type: 'text', default: null, help: 'the start noise goes towards this seed’s'}),
    row(fields.find((one) => one.name === 'variation_strength'))] : [],
  row({name: 'priority', type: 'integer', minimum: -10, maximum: 10, default: 0, help: 'higher is sooner'}),
  row({name: 'deadline_ms', type: 'integer', minimum: 1, maximum: 604800000, default: null, help: 'milliseconds after which it is too late'}));
  for (const name of ['negative_class', 'variation_seed']) {
    const input = $(`option-${name}`);
    if (input) { input.placeholder = 'none'; input.dataset.text = ''; }
  }
  if ($('option-deadline_ms')) $('option-deadline_ms').placeholder = 'none';
}

function buildSamplerFields() {
  const sampler = samplers.find((one) => one.name === ($('sampler').value === 'model' ? model.model_sampler : $('sampler').value));
  const before = read($('sampler-fields'));
  const fields = sampler && $('sampler').value !== 'model' ? sampler.fields : [];
  fill($('sampler-fields'), fields.map(row));
  write($('sampler-fields'), before);
  document.querySelector('[data-testid="sampler-options"]').hidden = fields.length === 0;
  $('sampler-note').textContent = !sampler ? '' : [`Order ${sampler.order}`,
    sampler.evaluations_per_step > 1 ? `${sampler.evaluations_per_step} evaluations a step` : '', sampler.stochastic ? 'draws fresh noise' : '',
    sampler.adaptive ? 'chooses its own steps' : '', sampler.needs_init_image ? 'goes from a picture to its noise' : ''].filter(Boolean).join(', ') + '.';
  count();
}

function count() {
  for (const name of ['sampler', 'guidance', 'other']) {
    const set = Object.keys(read($(`${name}-fields`))).length;
    $(`${name}-count`).textContent = set > 0 ? `${set} set` : '';
  }
}

function syncRanges() {
  for (const [range, input] of [['guidance-range', 'guidance_scale'], ['steps-range', 'steps']]) {
    const value = Number($(input).value);
    if (Number.isFinite(value)) $(range).value = value;
  }
}

/* ---- A picture to start from */
export const startPicture = () => start;
export function setStart(next) {
  start = next;
  const node = $('picture-row');
  show(node, next !== null);
  if (!next) { fill(node); tellChange(); return; }
  const fields = (model.fields || []).filter((one) => group[one.name] === 'start' && (one.name !== 'resample' || next.mask));
  fill(node, el('div', {class: 'split'}, el('span', {class: 'label'}, el('strong', {}, next.mask ? 'Painted anew from' : 'Starts from')),
    el('button', {type: 'button', class: 'link', testid: 'init-remove', onclick: () => setStart(null)}, 'Remove')),
  el('div', {class: 'strip'}, el('img', {class: 'pixel', src: next.url, alt: 'The picture to start from', width: 96, height: 96}),
    next.maskUrl ? el('img', {class: 'pixel', src: next.maskUrl, alt: 'The mask: white is painted anew', width: 96, height: 96}) : null),
  fields.map(row), el('p', {class: 'error', 'data-error': '/init_image', hidden: true}), el('p', {class: 'error', 'data-error': '/mask_image', hidden: true}));
  tellChange();
}

/* What a recipe has and the form has not: a mixture of classes, options of another program's version. */
function setExtra(next) {
  extra = next;
  const names = Object.keys(extra);
  show($('extra-row'), names.length > 0);
  fill($('extra-row'), names.map((name) => el('div', {class: 'split'}, el('span', {class: 'mono'}, `${name}: ${JSON.stringify(extra[name])}`),
    el('button', {type: 'button', class: 'link', 'aria-label': `Remove ${name}`, onclick: () => { const {[name]: _, ...rest} = extra; setExtra(rest); }}, 'Remove'),
    el('p', {class: 'error', 'data-error': `/${name}`, hidden: true}))));
}

/* ---- The request */
export function body() {
  const label = classes.current();
  const request = {model: model.name, class_label: label, guidance_scale: typed($('guidance_scale').value), steps: typed($('steps').value),
    sampler: $('sampler').value, seed: currentSeed() || undefined, n: typed($('n').value),
    ...read($('sampler-fields')), ...read($('guidance-fields')), ...read($('other-fields')), ...(start ? read($('picture-row')) : {}), ...extra};
  if (extra.class_mixture) delete request.class_label;
  if (start) request.init_image = start.png;
  if (start?.mask) request.mask_image = start.mask;
  if (/^\d+$/.test(request.negative_class || '')) request.negative_class = Number(request.negative_class);
  for (const name of Object.keys(request)) if (request[name] === undefined) delete request[name];
  return request;
}

/* Fills the form from a request as jobs and PNGs have it. A picture to start from is no more than a hash there: pictures(init_image, mask_image)
 * may know more. True: nothing of the recipe is missing. */
export async function setRecipe(recipe, pictures = async () => null) {
  const known = [...$('model').options].some((one) => one.value === recipe.model);
  if (recipe.model && !known) throw new Problem(0, 'no-model', `this daemon has no model ${recipe.model}`);
  if (recipe.model && recipe.model !== model.name) await chooseModel(recipe.model);
  setStart(null);
  $('guidance_scale').value = recipe.guidance_scale ?? model.defaults.guidance_scale;
  $('steps').value = recipe.steps ?? model.defaults.steps;
  $('n').value = recipe.n ?? 1;
  if (recipe.seed !== undefined) { $('seed').value = recipe.seed; setLock(true); }
  fill($('sampler-fields'));
  $('sampler').value = recipe.sampler ?? model.defaults.sampler;
  buildSamplerFields();
  let complete = true;
  if (recipe.init_image) {
    const kept = await pictures(recipe.init_image, recipe.mask_image);
    complete = Boolean(kept);
    if (kept) setStart({...kept, url: `data:image/png;base64,${kept.png}`, maskUrl: kept.mask && `data:image/png;base64,${kept.mask}`});
  }
  const taken = new Set(['init_image', 'mask_image', 'strength', 'resample', 'model', 'class_label', 'class_name', 'negative_class_name', 'guidance_scale', 'steps', 'n', 'seed', 'sampler', 'webhook']);
  for (const id of ['sampler-fields', 'guidance-fields', 'other-fields', 'picture-row']) for (const name of write($(id), recipe)) taken.add(name);
  if (recipe.class_mixture) recipe = {...recipe, class_mixture: recipe.class_mixture.map(({class_label, weight}) => ({class_label, weight}))};
  else classes.choose(recipe.class_label ?? null);
  syncRanges();
  count();
  tellChange();
  setExtra(Object.fromEntries(Object.entries(recipe).filter(([name, value]) => !taken.has(name) && value !== null && value !== undefined)));
  return complete;
}

/* ---- Wiring */
for (const [range, input] of [['guidance-range', 'guidance_scale'], ['steps-range', 'steps']]) {
  $(range).addEventListener('input', () => { $(input).value = $(range).value; });
  $(input).addEventListener('input', syncRanges);
}
$('sampler').addEventListener('change', buildSamplerFields);
$('form').addEventListener('input', (event) => {
  count();
  if (event.target.getAttribute('aria-invalid')) {
    event.target.removeAttribute('aria-invalid');
    const note = document.querySelector(`#form [data-error="/${CSS.escape(event.target.name)}"]`);
    if (note) note.hidden = true;
  }
});
$('seed').addEventListener('input', tellChange);
$('dice').addEventListener('click', roll);
$('lock').addEventListener('click', () => setLock(!locked()));
classes.listen(tellChange);
