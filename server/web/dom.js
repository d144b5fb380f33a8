/* Making elements, words for numbers, and what is said to screen readers. Text goes in as text nodes: nothing here parses markup. */

export const $ = (id) => document.getElementById(id);

/* el('p', {class: 'note', onclick: f, dataset: {x: 1}}, 'text', child): properties, attributes, listeners. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name === 'dataset') Object.assign(node.dataset, value);
    else if (name === 'value' || name === 'checked') node[name] = value;
    else node.setAttribute(name === 'testid' ? 'data-testid' : name, value === true ? '' : String(value));
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function fill(node, ...children) {
  node.replaceChildren(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function show(node, visible) {
  node.hidden = !visible;
}

let said = '';
/* To the polite live region; the same words twice are said once. */
export function say(text) {
  if (text !== said) $('live').textContent = said = text;
}

export function seconds(value) {
  if (value === null || value === undefined) return '';
  if (value < 1) return 'less than a second';
  if (value < 90) return `about ${Math.round(value)} s`;
  if (value < 5400) return `about ${Math.round(value / 60)} min`;
  return `about ${(value / 3600).toFixed(1)} h`;
}

export function bytes(value) {
  if (value === null || value === undefined) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  for (; value >= 1024 && unit < 4; unit++) value /= 1024;
  return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

export const number = (value) => (value === null || value === undefined ? '–' : Number(value).toLocaleString('en', {maximumFractionDigits: 3}));

/* A message as a sentence. */
export const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.') : '');

export function ago(time) {
  const past = (Date.now() - Date.parse(time)) / 1000;
  if (!(past >= 0)) return '';
  if (past < 60) return 'just now';
  if (past < 3600) return `${Math.floor(past / 60)} min ago`;
  if (past < 86400) return `${Math.floor(past / 3600)} h ago`;
  return `${Math.floor(past / 86400)} d ago`;
}

/* Kept in this browser; a browser that forbids it forgets. */
export const keep = {
  get(name) { try { return localStorage.getItem(name); } catch { return null; } },
  set(name, value) { try { localStorage.setItem(name, value); } catch { /* forgotten */ } },
};

const dialog = () => $('dialog');
/* One dialog at a time: its contents are made anew each time. Escape and the backdrop close it; focus returns to where it was. */
export function openDialog(title, name, ...children) {
  const box = dialog();
  const from = document.activeElement;
  fill(box, el('div', {class: 'dialog-head'}, el('h2', {id: 'dialog-title', testid: 'dialog-title'}, title),
    el('button', {type: 'button', class: 'quiet', testid: 'dialog-close', 'aria-label': 'Close', onclick: () => box.close()}, 'Close')), ...children);
  box.dataset.name = name;
  if (!box.open) box.showModal();
  box.onclose = () => { fill(box); if (from && from.isConnected) from.focus(); };
  box.onclick = (event) => { if (event.target === box) box.close(); };
  return box;
}
export const closeDialog = () => { if (dialog().open) dialog().close(); };
