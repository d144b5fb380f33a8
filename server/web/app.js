/* The page's beginning: loads what the form and the gallery need, sends the form, says how the daemon is, asks for keys, and wires the rest. */
import {call, get, hasKey, onKeyNeeded, Problem, setKey, unreachable} from './api.js';
import {$, el, fill, keep, openDialog, say, show} from './dom.js';
import {clearErrors, explain} from './fields.js';
import * as form from './form.js';
import * as gallery from './gallery.js';
import * as jobs from './jobs.js';
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

async function look() {
  let pause = 10000;
  try {
    await call('/readyz', {anonymous: true});
    status('ready', 'Ready');
    if (!loaded) await start();
  } catch (error) {
    const state = unreachable(error) ? 'offline' : error.code === 'draining' ? 'draining' : 'loading';
    status(state, {offline: 'Not reachable, trying again', draining: 'Draining: no new pictures', loading: `Not ready: ${error.detail}`}[state]);
    pause = 1500;
    if (!loaded && state !== 'offline') await start().catch(() => {});
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
  box.oncancel = (event) => event.preventDefault();
  $('key-form').onsubmit = (event) => {
    event.preventDefault();
    const value = $('key').value.trim();
    if (!value) return;
    setKey(value);
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

let sending = null;
/* Sends a request, or an array of them, and puts the jobs on the stage. Refusals are told beside their fields, or below the form. */
export async function make(body, labels) {
  clearErrors();
  $('generate').setAttribute('aria-busy', 'true');
  sending = new AbortController();
  try {
    const made = await jobs.submit(body, {signal: sending.signal, onWait: (error) => banner(`${error.detail}: the request is sent again when it is back.`)});
    banner('');
    stage.show(made.map((one) => one.id), labels);
    return made;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    banner('');
    explain(error);
    if (error.retryAfter > 0) countDown(Date.now() + 1000 * error.retryAfter, error.detail);
    return null;
  } finally {
    $('generate').removeAttribute('aria-busy');
    sending = null;
  }
}

$('form').addEventListener('submit', async (event) => {
  event.preventDefault();
  if (!loaded || Date.now() < again || sending) return;
  const made = await make(form.body());
  if (made && !form.locked()) form.roll();
});
$('model').addEventListener('change', async () => {
  try {
    await form.chooseModel($('model').value);
  } catch (error) {
    explain(error);
  }
});
form.onChange(stage.showNoise);

stage.setActions((all) => {
  const active = all.filter((one) => !jobs.ended(one));
  if (active.length > 0) {
    return [el('button', {type: 'button', testid: 'cancel', onclick: () => Promise.all(active.map((one) => jobs.cancel(one.id))).catch((error) => banner(error.detail))},
      active.length > 1 ? `Cancel ${active.length} jobs` : 'Cancel')];
  }
  return [];
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

look();
