/* The class picker: a list box of tiles with search. A tile shows a sample where there is one: from samples.js, or a picture of the gallery. */
import {$, el, fill} from './dom.js';

const SHOWN_MAX = 60;
let model = null;
let chosen; // an index, or null: unconditional; undefined: no model yet
let onChoose = () => {};
const pictures = new Map(); // index -> URL of a picture of it
const samples = new Set(); // indices whose picture is a sample

export const current = () => chosen ?? null;
export const nameOf = (index) => (index === null ? 'Anything' : model?.classes?.find((one) => one.index === index)?.names[0] ?? `Class ${index}`);
export const listen = (f) => { onChoose = f; };

function options() {
  const all = (model?.classes || []).map((one) => ({index: one.index, names: one.names.length ? one.names : [`Class ${one.index}`]}));
  if (model && all.length < model.class_count && all.length === 0) for (let i = 0; i < model.class_count; i++) all.push({index: i, names: [`Class ${i}`]});
  if (model?.unconditional) all.push({index: null, names: ['Anything', 'unconditional', 'none']});
  return all;
}

function found() {
  const words = $('class-search').value.trim().toLowerCase();
  const all = options();
  if (!words) return all;
  return all.filter((one) => String(one.index) === words || one.names.some((name) => name.toLowerCase().includes(words)));
}

function tile(one, first) {
  const selected = one.index === chosen;
  const url = pictures.get(one.index);
  return el('div', {class: 'class', role: 'option', 'aria-selected': String(selected), tabindex: selected || first ? 0 : -1, 'data-index': String(one.index),
    testid: 'class', title: one.names.join(', ')},
  el('i', {'aria-hidden': 'true'}, url ? el('img', {src: url, alt: ''}) : one.index === null ? '∗' : String(one.index)), el('span', {}, one.names[0]));
}

/* The tiles on show, the chosen one among them although it may stand far down. */
export function visible() {
  const all = found();
  const shown = all.slice(0, SHOWN_MAX);
  const mine = all.find((one) => one.index === chosen);
  if (mine && !shown.includes(mine)) shown.unshift(mine);
  return {shown, left: all.length - shown.length};
}

export function render() {
  const {shown, left} = visible();
  const some = shown.some((one) => one.index === chosen);
  fill($('classes'), shown.map((one, i) => tile(one, !some && i === 0)));
  $('classes-note').textContent = shown.length === 0 && $('class-search').value ? 'No class has such a name.' : left > 0 ? `${left} more: search by name or number.` : '';
}

export function setModel(next) {
  model = next;
  const all = options();
  if (!all.some((one) => one.index === chosen)) chosen = all.length ? all[0].index : null;
  $('class-search').value = '';
  render();
}

export function choose(index, focus = false) {
  chosen = index;
  if (!found().some((one) => one.index === index)) $('class-search').value = '';
  render();
  const node = $('classes').querySelector('[aria-selected="true"]');
  if (focus) node?.focus();
  if (node) { /* into view inside the list alone, never the page */
    const box = $('classes');
    if (node.offsetTop < box.scrollTop + box.offsetTop || node.offsetTop + node.offsetHeight > box.offsetTop + box.scrollTop + box.clientHeight) box.scrollTop = node.offsetTop - box.offsetTop - 8;
  }
  onChoose(index);
}

/* sample: one of samples.js, which takes the place of a picture of the gallery. */
export function setPicture(index, url, sample) {
  if (!sample && pictures.has(index)) return;
  pictures.set(index, url);
  if (sample) samples.add(index);
  const slot = $('classes').querySelector(`[data-index="${index}"] i`);
  if (slot) fill(slot, el('img', {src: url, alt: ''}));
}
export const hasSample = (index) => samples.has(index);
export function clearPictures() { pictures.clear(); samples.clear(); }

const indexOf = (node) => (node.dataset.index === 'null' ? null : Number(node.dataset.index));

$('class-search').addEventListener('input', render);
$('class-search').addEventListener('keydown', (event) => {
  const first = $('classes').querySelector('.class');
  if (event.key === 'ArrowDown' && first) { event.preventDefault(); ($('classes').querySelector('[tabindex="0"]') || first).focus(); }
  if (event.key === 'Enter' && $('class-search').value && first) { event.preventDefault(); choose(indexOf(first)); $('class-search').value = ''; render(); }
});
$('classes').addEventListener('click', (event) => {
  const node = event.target.closest('.class');
  if (node) choose(indexOf(node), true);
});
$('classes').addEventListener('keydown', (event) => {
  const node = event.target.closest('.class');
  if (!node) return;
  const all = [...$('classes').children];
  const columns = getComputedStyle($('classes')).gridTemplateColumns.split(' ').length;
  const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns}[event.key];
  let next = step !== undefined ? all[all.indexOf(node) + step] : event.key === 'Home' ? all[0] : event.key === 'End' ? all[all.length - 1] : null;
  if (event.key === 'ArrowUp' && !next) { event.preventDefault(); $('class-search').focus(); return; }
  if (event.key === ' ' || event.key === 'Enter') next = node;
  if (!next) return;
  event.preventDefault();
  choose(indexOf(next), true);
});
