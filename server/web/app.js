/* The page's beginning: loads what the form and the gallery need, sends the form, says how the daemon is, asks for keys, and wires the rest. */
import {call, hasKey, onKeyNeeded, onPause, Problem, setKey, unreachable} from './api.js';
import {$, el, keep, openDialog, say, sentence, show} from './dom.js';
import {clearErrors, explain} from './fields.js';
import * as form from './form.js';
import * as gallery from './gallery.js';
import * as jobs from './jobs.js';
import * as samples from './samples.js';
import * as shelf from './shelf.js';
import * as stage from './stage.js';

/* ---- What the daemon says of itself */
let loaded = false;
function status(state, text) {
  $('status').dataset.state = state;
  if ($('status-text').textContent !== text) $('status-text').textContent = text;
}
export function banner(text) {
  $('banner-text').textContent = text || '';
  show($('banner'), Boolean(text));
}
$('banner-close').addEventListener('click', () => banner(''));

onPause((seconds) => status(seconds > 0 ? 'waiting' : 'ready', seconds > 0 ? `Your key’s rate is used up: ${seconds} s` : 'Ready'));

let starting = null; // one at a time
async function look() {
  let pause = 10000;
  try {
    await call('/readyz', {anonymous: true});
    if ($('status').dataset.state !== 'waiting') status('ready', 'Ready');
    if (!loaded) await (starting ??= start().finally(() => { starting = null; }));
    else if (form.currentModel() && !form.currentModel().architecture && form.currentModel().state !== 'failed') await form.chooseModel(form.currentModel().name);
  } catch (error) {
    const state = unreachable(error) ? 'offline' : error.code === 'draining' ? 'draining' : 'loading';
    status(state, {offline: 'Not reachable, trying again', draining: 'Draining: no new pictures', loading: `Not ready: ${error.detail}`}[state]);
    pause = 1500;
    if (!loaded && state !== 'offline') await (starting ??= start().finally(() => { starting = null; })).catch(() => {});
  }
  setTimeout(look, document.hidden ? 3 * pause : pause);
}

async function start() {
  await form.load();
  loaded = true;
  if (!form.currentSeed()) form.roll();
  const list = await gallery.load();
  show($('sign-out'), hasKey());
  const running = list.filter((one) => !jobs.ended(one));
  if (running.length > 0) stage.show([running[0].id]);
  else stage.showNoise();
}

/* ---- The key */
onKeyNeeded((wrong) => new Promise((resolve) => {
  const box = $('key-dialog');
  $('key-error').textContent = wrong ? 'That key is not known here, or has been revoked.' : '';
  show($('key-error'), wrong);
  $('key').value = '';
  let given = false;
  box.oncancel = (event) => event.preventDefault();
  /* A second Escape closes a dialog whatever its page thinks of it, and there is nothing behind this one. */
  box.onclose = () => { if (!given && !box.open) { box.showModal(); $('key').focus(); } };
  $('key-form').onsubmit = (event) => {
    event.preventDefault();
    const value = $('key').value.trim();
    if (!value) return;
    if (!/^[!-~]+$/.test(value)) { /* no header can carry it, so no request would reach the daemon */
      $('key-error').textContent = 'A key has no spaces, and no letters but a to z.';
      show($('key-error'), true);
      return;
    }
    setKey(value);
    given = true;
    box.close();
    show($('sign-out'), true);
    resolve();
  };
  if (!box.open) box.showModal();
  $('key').focus();
}));
$('sign-out').addEventListener('click', () => { setKey(null); location.reload(); });

/* ---- Making */
let again = 0; // when Generate may be pressed again
function countDown(until, detail) {
  again = until;
  const button = $('generate');
  const left = Math.ceil((until - Date.now()) / 1000);
  button.disabled = left > 0;
  button.textContent = left > 0 ? `Again in ${left} s` : 'Generate';
  if (left > 0) setTimeout(() => { if (again === until) countDown(until, detail); }, 250);
}

let sending = null, trying = false; // a request on its way; it has met no daemon, and is sent again and again
/* Sends a request, or an array of them, and puts the jobs on the stage. Refusals are told beside their fields, or below the form; by refused(problem),
 * where what is wrong was typed elsewhere: true if it was. */
export async function make(body, labels, refused = () => false) {
  clearErrors();
  $('generate').setAttribute('aria-busy', 'true');
  const control = new AbortController();
  sending = control;
  try {
    const made = await jobs.submit(body, {signal: control.signal, onWait: (error) => {
      banner(`${sentence(error.detail)} The request is sent again by itself.`);
      $('generate').textContent = 'Stop trying';
      trying = true;
    }});
    banner('');
    stage.show(made.map((one) => one.id), labels);
    keepInputs(body, made);
    const box = $('frame').getBoundingClientRect(); /* on a phone the form is below it */
    if (box.bottom < 80 || box.top > innerHeight - 80) $('stage').scrollIntoView({block: 'start'});
    others?.postMessage('made');
    return made;
  } catch (error) {
    if (error.name === 'AbortError') { banner(''); return null; }
    if (!(error instanceof Problem)) throw error;
    banner('');
    if (!refused(error)) explain(error);
    if (error.retryAfter > 0) countDown(Date.now() + 1000 * error.retryAfter, error.detail);
    return null;
  } finally {
    $('generate').removeAttribute('aria-busy');
    if (trying) $('generate').textContent = 'Generate';
    trying = false;
    if (sending === control) sending = null;
  }
}

/* The daemon gives back the hashes of pictures that jobs start from; "same again" needs the pictures. */
function keepInputs(body, made) {
  [body].flat().forEach((one, i) => {
    const request = made[i]?.request;
    if (one.init_image && request?.init_image) {
      shelf.put('inputs', request.init_image.sha256 + (request.mask_image?.sha256 || ''), {png: one.init_image, mask: one.mask_image || null});
    }
  });
}

/* Anything that went wrong outside the form. */
function refuse(error) {
  if (error.name === 'AbortError') return;
  if (error instanceof Problem && error.field) explain(error);
  else banner(sentence(error.detail || error.message || String(error)));
}

$('form').addEventListener('submit', async (event) => {
  event.preventDefault();
  if (trying) { sending.abort(); return; }
  if (!loaded || Date.now() < again || sending) return;
  const made = await make(form.body());
  if (made && !form.locked()) form.roll();
});
$('model').addEventListener('change', () => form.chooseModel($('model').value).catch(refuse));
let model = null;
form.onChange(() => {
  stage.showNoise();
  if (model !== form.currentModel()) {
    model = form.currentModel();
    if (model.width) samples.load();
  }
});
/* A model that was loaded for a job says more of itself now. */
jobs.listen((event) => {
  if (event.type === 'job' && event.job.state !== 'queued' && event.job.request?.model === model?.name && model.state !== 'ready' && event.before?.state !== event.job.state) {
    form.chooseModel(model.name).catch(() => {});
  }
});
$('samples').addEventListener('click', () => samples.make(refuse));
$('class-search').addEventListener('input', samples.offer);

/* ---- Recipes: loaded when first wanted */
async function recipes() {
  const module = await import('./recipe.js');
  module.start({make, refuse});
  return module;
}
const openRecipe = (job, index) => recipes().then((module) => module.open(job, index)).catch(refuse);
stage.onChoose(openRecipe);
/* What still runs goes on the stage, where it can be watched. */
gallery.onChoose((job, index) => {
  if (jobs.ended(job)) { openRecipe(job, index); return; }
  stage.show([job.id]);
  $('stage').scrollIntoView({block: 'nearest'});
});
gallery.onSheet(async (sheet) => {
  await Promise.all(sheet.ids.filter((id) => !jobs.job(id)).map((id) => jobs.refresh(id).catch(() => {})));
  stage.show(sheet.ids, sheet);
  $('stage').focus();
  $('stage').scrollIntoView({block: 'start'});
});
$('compare').addEventListener('click', () => {
  if (loaded) recipes().then((module) => { const {n, ...request} = form.body(); module.compare(request); }).catch(refuse);
});

stage.setActions((all) => {
  const active = all.filter((one) => !jobs.ended(one));
  if (active.length > 0) {
    return [el('button', {type: 'button', testid: 'cancel', onclick: () => Promise.all(active.map((one) => jobs.cancel(one.id))).catch(refuse)},
      active.length > 1 ? `Cancel ${active.length} jobs` : 'Cancel')];
  }
  const one = all[0];
  if (all.length > 1 || !one.request) return [];
  const act = (name, label, work) => el('button', {type: 'button', testid: `stage-${name}`, onclick: () => recipes().then((module) => work(module)).catch(refuse)}, label);
  return [act('again', 'Same again', (module) => module.again(one, one.request.n > 1 ? null : 0)), act('vary', 'Vary', (module) => module.vary(one, 0)),
    one.images.length === 1 ? act('paint', 'Paint', (module) => module.paintOver(one, one.images[0])) : null,
    one.images.length > 0 ? act('recipe', 'Recipe', (module) => module.open(one, 0)) : null];
});

const FILE_MAX = 64 << 20; // bytes
/* ---- A PNG from outside: its recipe fills the form; without one it may be where the next picture starts */
async function take(file) {
  try {
    if (file.size > FILE_MAX) throw new Error();
    const png = await import('./png.js');
    const found = await png.texts(await file.arrayBuffer());
    const recipe = found && png.recipe(found);
    if (recipe) {
      const complete = await form.setRecipe(recipe, shelf.inputsOf);
      banner(complete ? '' : 'The recipe is in the form, but the picture that this one started from is not in this browser.');
      say('The recipe is in the form.');
      $('generate').focus();
    } else if (form.currentModel()?.width) {
      const text = await png.base64(await png.fitted(file, form.currentModel()));
      form.setStart({png: text, url: `data:image/png;base64,${text}`, mask: null});
      banner('This file has no recipe, so it is where the next picture starts.');
    }
  } catch (error) {
    refuse(error instanceof Problem ? error : new Error('This file is no picture that can be read.'));
  }
}
$('open-file').addEventListener('click', () => $('file').click());
$('file').addEventListener('change', () => { if ($('file').files[0]) take($('file').files[0]); $('file').value = ''; });
const carriesFile = (event) => [...(event.dataTransfer?.types || [])].includes('Files');
let inside = 0;
addEventListener('dragenter', (event) => { if (carriesFile(event)) { inside++; show($('drop'), true); } });
addEventListener('dragleave', () => { inside = Math.max(0, inside - 1); if (inside === 0) show($('drop'), false); });
addEventListener('dragover', (event) => { if (carriesFile(event)) event.preventDefault(); });
addEventListener('drop', (event) => {
  inside = 0;
  show($('drop'), false);
  const file = event.dataTransfer?.files[0];
  if (file) { event.preventDefault(); take(file); }
});
addEventListener('paste', (event) => { const file = event.clipboardData?.files[0]; if (file) take(file); });

/* ---- Views: the address says which */
let machine = null;
async function route() {
  const view = location.hash === '#/machine' ? 'machine' : 'studio';
  for (const name of ['studio', 'machine']) show($(name), name === view);
  for (const link of document.querySelectorAll('[data-view]')) {
    if (link.dataset.view === view) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.title = view === 'machine' ? 'Machine · denoised' : 'denoised';
  if (view === 'machine') {
    machine ??= await import('./machine.js');
    if (location.hash === '#/machine') machine.open();
  } else machine?.close();
}
addEventListener('hashchange', route);

/* ---- Other tabs: what one of them makes or deletes, the others see. */
const others = 'BroadcastChannel' in window ? new BroadcastChannel(`denoised ${location.pathname}`) : null;
const news = () => { if (loaded && !document.hidden) gallery.load().catch(() => {}); };
if (others) others.onmessage = news;
addEventListener('visibilitychange', news);
jobs.listen((event) => { if (event.type === 'gone') others?.postMessage('gone'); });

/* ---- Keys. Single letters act only outside of fields, and can be turned off (WCAG 2.1.4). */
const shortcuts = [
  ['Ctrl Enter', 'Generate', () => $('form').requestSubmit()], ['/', 'Search a class', () => $('class-search').focus()], ['s', 'Studio', () => { location.hash = '#/'; }],
  ['m', 'Machine', () => { location.hash = '#/machine'; }], ['d', 'Roll another seed', () => form.roll()], ['l', 'Keep the seed, or not', () => form.setLock(!form.locked())],
  ['g', 'To the gallery', () => { $('tiles').querySelector('button')?.focus(); }], ['p', 'To the picture', () => { $('stage').focus(); }],
  ['x', 'Smooth or square pixels', () => $('smooth').click()], ['t', 'Theme', () => $('theme').click()], ['?', 'These keys', () => help()], ['Esc', 'Close', null]];
function help() {
  const off = el('input', {type: 'checkbox', id: 'keys-off', testid: 'keys-off', checked: keep.get('keys') === 'off', onchange: () => keep.set('keys', off.checked ? 'off' : '')});
  openDialog('Keys', 'keys', el('dl', {class: 'keys'}, shortcuts.map(([key, words]) => [el('dt', {}, key.split(' ').map((one) => [el('kbd', {}, one), ' '])), el('dd', {}, words)])),
    el('p', {class: 'check'}, off, el('label', {for: 'keys-off'}, 'Single letters do nothing')));
}
$('help').addEventListener('click', help);
addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
    if (!document.querySelector('dialog[open]')) { event.preventDefault(); $('form').requestSubmit(); }
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || keep.get('keys') === 'off' || document.querySelector('dialog[open]')) return;
  if (event.target.closest?.('input:not([type="range"], [type="checkbox"], [type="radio"]), textarea, select')) return;
  const found = shortcuts.find(([key]) => key === event.key);
  if (found?.[2]) { event.preventDefault(); found[2](); }
});

/* ---- Looks */
const themes = {auto: 'Auto', light: 'Light', dark: 'Dark'};
function setTheme(name) {
  document.documentElement.dataset.theme = name;
  $('theme').textContent = themes[name];
  $('theme').setAttribute('aria-label', `Theme: ${name === 'auto' ? 'as the system' : name}`);
  keep.set('theme', name);
}
$('theme').addEventListener('click', () => {
  const names = Object.keys(themes);
  setTheme(names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length]);
});
setTheme(keep.get('theme') in themes ? keep.get('theme') : 'auto');
function setSmooth(on) {
  document.documentElement.toggleAttribute('data-smooth', on);
  $('smooth').setAttribute('aria-pressed', String(on));
  keep.set('smooth', on ? '1' : '');
}
$('smooth').addEventListener('click', () => setSmooth(!document.documentElement.hasAttribute('data-smooth')));
setSmooth(keep.get('smooth') === '1');

route();
look();
