/* A picture for each class of the picker: made once, on demand, as one batch of low priority; kept in this browser, not in the gallery. */
import {call, get, picture} from './api.js';
import * as classes from './classes.js';
import {$, show} from './dom.js';
import * as form from './form.js';
import * as shelf from './shelf.js';

const ARRAY_MAX = 64;
/* sha256: of the model's weights, which the daemon knows once it has loaded them. */
const keyOf = (sha256, index) => `${sha256} ${index === null ? 'none' : String(index).padStart(6, '0')}`;
let busy = false;

function lacking() {
  return classes.visible().shown.filter((one) => !classes.hasSample(one.index)).slice(0, ARRAY_MAX);
}
export function offer() {
  const model = form.currentModel();
  show($('samples'), Boolean(model?.width) && !busy && lacking().length > 0);
}

/* What this browser has already. */
export async function load() {
  const model = form.currentModel(), sha256 = model.weights_sha256;
  for (const [key, blob] of sha256 ? await shelf.range('samples', `${sha256} `, `${sha256} ~`) : []) {
    if (model !== form.currentModel()) return;
    const name = key.split(' ')[1];
    classes.setPicture(name === 'none' ? null : Number(name), URL.createObjectURL(blob), true);
  }
  offer();
}

export async function make(refused) {
  const model = form.currentModel(), wanted = lacking();
  let sha256 = model.weights_sha256;
  if (wanted.length === 0 || busy) return;
  busy = true;
  $('samples').textContent = 'Making samples';
  $('samples').disabled = true;
  try {
    const asked = wanted.map((one) => ({model: model.name, class_label: one.index, seed: '1', priority: -10}));
    const made = (await (await call('/generate', {method: 'POST', body: asked})).json()).jobs;
    for (let i = 0; i < made.length; i++) {
      let job = made[i];
      while (job.state === 'queued' || job.state === 'running') job = await get(`/jobs/${job.id}`, {headers: {Prefer: 'wait=30'}});
      if (job.images.length > 0) {
        const blob = await picture(job.images[0].url);
        sha256 ||= (await get(`/models/${encodeURIComponent(model.name)}`)).weights_sha256;
        if (sha256) await shelf.put('samples', keyOf(sha256, wanted[i].index), blob);
        if (model === form.currentModel()) classes.setPicture(wanted[i].index, URL.createObjectURL(blob), true);
      }
      await call(`/jobs/${job.id}?purge=1`, {method: 'DELETE'});
    }
  } catch (error) {
    refused(error);
  }
  busy = false;
  $('samples').textContent = 'Make samples';
  $('samples').disabled = false;
  offer();
}
