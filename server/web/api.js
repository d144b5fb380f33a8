/* The daemon's API: where it is, who we are, refusals, events. Keys live in sessionStorage, so that each tab has its own and none outlives it. */

/* "/prefix" or "": modules lie under <base>/page/. Urls in answers carry it already. */
export const base = new URL('..', import.meta.url).pathname.replace(/\/$/, '');
export const origin = location.origin;

export class Problem extends Error {
  constructor(status, code, detail, more = {}) {
    super(detail);
    Object.assign(this, {status, code, detail, field: null, retryAfter: 0}, more);
  }
}
export const unreachable = (error) => error instanceof Problem && error.code === 'offline';

/* ---- The key */
let held = null;
try { held = sessionStorage.getItem('key'); } catch { /* kept in memory alone */ }
export const hasKey = () => held !== null;
export function setKey(value) {
  held = value;
  try { if (value === null) sessionStorage.removeItem('key'); else sessionStorage.setItem('key', value); } catch { /* in memory */ }
}
let asking = null;
let askForKey = () => Promise.reject(new Problem(401, 'unauthorized', 'a key is needed'));
/* The page's dialog: (wrong: a key was refused) => Promise that ends when another has been set. */
export const onKeyNeeded = (function_) => { askForKey = function_; };

async function problemOf(response) {
  let body = {};
  try { body = (await response.json()) || {}; } catch { /* a proxy's page */ }
  for (const name of ['code', 'detail', 'field']) if (typeof body[name] !== 'string') body[name] = null;
  const retryAfter = Number(response.headers.get('Retry-After')) || 0;
  return new Problem(response.status, body.code || 'unknown', body.detail || `the server answered ${response.status}`,
    {field: body.field || null, retryAfter, requestId: body.request_id || response.headers.get('X-Request-Id')});
}

let tellPause = () => {};
/* f(seconds): a key's rate is used up, and reading goes on so much later; 0: it goes on now. */
export const onPause = (f) => { tellPause = f; };
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

/* A successful Response, or a thrown Problem. A 401 asks for a key and tries again; reading waits as long as a 429 says. path: without the base,
 * or an absolute one from an answer. */
export async function call(path, {method = 'GET', body, headers = {}, signal, absolute = false, anonymous = false, patient = method === 'GET'} = {}) {
  for (let paused = false; ;) {
    const used = held;
    const all = {...headers};
    if (used !== null && !anonymous) all.Authorization = `Bearer ${used}`;
    if (body !== undefined) all['Content-Type'] = 'application/json';
    let response;
    try {
      response = await fetch(absolute ? path : base + path, {method, headers: all, signal, credentials: 'omit', cache: 'default',
        body: body === undefined ? undefined : JSON.stringify(body)});
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new Problem(0, 'offline', 'the daemon cannot be reached');
    }
    if (response.ok) {
      if (paused) tellPause(0);
      return response;
    }
    const problem = await problemOf(response);
    if (problem.status === 429 && patient && problem.retryAfter > 0 && problem.retryAfter <= 60) {
      paused = true;
      tellPause(problem.retryAfter);
      await sleep(problem.retryAfter + Math.random());
      continue;
    }
    if (problem.status !== 401 || anonymous) throw problem;
    if (used === held) {
      asking ??= askForKey(used !== null).finally(() => { asking = null; });
      await asking;
    }
  }
}

export const get = async (path, options) => (await call(path, options)).json();
export const picture = async (url, options) => (await call(url, {...options, absolute: true})).blob();

/* crypto.randomUUID needs a secure context, which plain http on a network is not. */
export function token() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/* ---- Events. Reads one stream to its end; onEvent(name, data, id). Resolves when the stream ends, however that is. */
export async function events(path, onEvent, {signal, after = 0} = {}) {
  const response = await call(path + (after > 0 ? `?after=${after}` : ''), {headers: {Accept: 'text/event-stream'}, signal, patient: false});
  if (response.status === 204) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new Problem(0, 'offline', 'the connection was cut');
    }
    if (piece.done) return;
    rest += piece.value;
    const blocks = rest.split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      const event = {};
      for (const line of block.split('\n')) {
        const colon = line.indexOf(':');
        if (colon > 0) event[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
      }
      if (event.event && event.data) onEvent(event.event, JSON.parse(event.data), Number(event.id) || 0);
    }
  }
}
