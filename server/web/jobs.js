/* The jobs this page knows, kept up to date while they run. Jobs on the stage are watched by event stream (previews): two in a tab, four in
 * all tabs, for a browser has six connections to one address. Other jobs, and all of them while the tab is hidden, are polled together. */
import {call, events, get, Problem, token} from './api.js';

const STREAMS_MAX = 2, STREAMS_OF_ALL_TABS = 4;
const POLL_MS = 1000;
const known = new Map();
const listeners = new Set();
const streams = new Map(); // id -> AbortController
const refused = new Map(); // id -> time before which no stream is tried
const seen = new Map(); // id -> last event id
let wanted = []; // ids on the stage, first come first streamed
let timer = 0;

export const ended = (job) => ['succeeded', 'failed', 'canceled'].includes(job.state);
export const job = (id) => known.get(id);
/* f({type: 'job' | 'preview' | 'gone', id, ...}) */
export function listen(f) { listeners.add(f); return () => listeners.delete(f); }
function tell(event) { for (const f of listeners) f(event); }

/* Takes a job as an answer showed it. What streams said since is newer than a list that was asked for before. */
export function put(job_) {
  const before = known.get(job_.id);
  if (before && ended(before) && !ended(job_)) return before;
  if (before && before.images.length > job_.images.length) job_.images = before.images;
  known.set(job_.id, job_);
  tell({type: 'job', id: job_.id, job: job_, before});
  if (!ended(job_)) schedule();
  return job_;
}

export function forget(id) {
  known.delete(id);
  streams.get(id)?.abort();
  tell({type: 'gone', id});
}

export function watchFirst(ids) {
  wanted = ids;
  schedule(0);
}

/* ---- Asking for work. The same Idempotency-Key until an answer comes: a cut connection or a restart makes no second job. */
export async function submit(body, {onWait, signal} = {}) {
  const key = token();
  for (let pause = 1; ; pause = Math.min(pause * 2, 4)) {
    try {
      const answer = await (await call('/generate', {method: 'POST', body, headers: {'Idempotency-Key': key}, signal})).json();
      return (answer.jobs || [answer]).map(put);
    } catch (error) {
      if (!(error instanceof Problem) || !['offline', 'outcome-unknown', 'draining'].includes(error.code)) throw error;
      onWait?.(error);
      await new Promise((resolve, reject) => {
        const id = setTimeout(resolve, 1000 * (error.retryAfter || pause));
        signal?.addEventListener('abort', () => { clearTimeout(id); reject(signal.reason); }, {once: true});
      });
    }
  }
}

export async function cancel(id) {
  put(await (await call(`/jobs/${id}`, {method: 'DELETE'})).json());
}

export async function purge(id) {
  try {
    await call(`/jobs/${id}?purge=1`, {method: 'DELETE'});
  } catch (error) {
    if (error.status !== 404 && error.status !== 410) throw error; /* it has gone already */
  }
  forget(id);
}

/* ---- Watching */
const active = () => [...known.values()].filter((one) => !ended(one));

function schedule(delay = POLL_MS) {
  if (delay === 0) { clearTimeout(timer); timer = 0; }
  if (!timer) timer = setTimeout(tick, delay);
}

async function tick() {
  timer = 0;
  openStreams();
  const polled = active().filter((one) => !streams.has(one.id));
  if (polled.length > 0) await poll(polled).catch(() => {});
  openStreams();
  if (active().length > 0) schedule(document.hidden ? 3 * POLL_MS : POLL_MS);
}

async function poll(polled) {
  if (polled.length > 2) {
    const list = await get('/jobs?limit=100');
    for (const one of list.jobs) if (known.has(one.id)) put(one);
    const listed = new Set(list.jobs.map((one) => one.id));
    polled = polled.filter((one) => !listed.has(one.id)).slice(0, 10);
  }
  for (const one of polled) await refresh(one.id);
}

export async function refresh(id) {
  try {
    return put(await get(`/jobs/${id}`));
  } catch (error) {
    if (error.status === 404 || error.status === 410) forget(id);
    else throw error;
  }
}

function openStreams() {
  if (document.hidden) return;
  const rest = wanted.filter((id) => { const one = known.get(id); return one && !ended(one) && !streams.has(id) && !(refused.get(id) > Date.now()); });
  for (const id of rest.slice(0, Math.max(0, STREAMS_MAX - streams.size))) stream(id);
}

/* Does the work while it holds one of the places that all tabs share; false: there is none. Without locks (no secure context) a tab counts its own. */
async function inPlace(work) {
  if (!navigator.locks) { await work(); return true; }
  for (let place = 0; place < STREAMS_OF_ALL_TABS; place++) {
    const done = await navigator.locks.request(`denoised stream ${place}`, {ifAvailable: true}, (lock) => (lock ? work().then(() => true) : false));
    if (done) return true;
  }
  return false;
}

async function stream(id) {
  const control = new AbortController();
  streams.set(id, control);
  try {
    const had = await inPlace(() => events(`/jobs/${id}/events`, (name, data, eventId) => take(id, name, data, eventId), {signal: control.signal, after: seen.get(id)}));
    refused.set(id, Date.now() + (had ? 500 : 2000));
  } catch (error) {
    if (error.status === 404 || error.status === 410) forget(id);
    refused.set(id, Date.now() + 1000 * Math.max(2, error.retryAfter || 0));
  } finally {
    streams.delete(id);
    const one = known.get(id);
    if (one && !ended(one)) schedule();
    else openStreams();
  }
}

function take(id, name, data, eventId) {
  if (eventId > 0) seen.set(id, eventId);
  const one = known.get(id);
  if (!one) return;
  if (name === 'preview') tell({type: 'preview', id, preview: data});
  else if (data.job) put(data.job);
  else if (name === 'image') put({...one, images: [...one.images.filter((i) => i.index !== data.image.index), data.image].sort((a, b) => a.index - b.index)});
  else if (name === 'started') put({...one, state: 'running', queue_position: null});
  else if (name === 'requeued') put({...one, state: 'queued', queue_position: null, eta_seconds: null});
  else if (name === 'queued' || name === 'position') put({...one, queue_position: data.queue_position ?? null, eta_seconds: data.eta_seconds ?? null});
  else if (name === 'progress') {
    const {eta_seconds, ...progress} = data;
    put({...one, state: one.state === 'queued' ? 'running' : one.state, progress: {...one.progress, ...progress}, eta_seconds: eta_seconds ?? null});
  }
}

document.addEventListener('visibilitychange', () => {
  if (document.hidden) for (const control of streams.values()) control.abort();
  else if (active().length > 0) schedule(0);
});
