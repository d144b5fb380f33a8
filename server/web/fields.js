/* One row of the form from an option as the API describes it (OptionField), and what was typed as a value of the request. Nothing is judged
 * here: what the daemon refuses it explains, beside the field. */
import {$, el, sentence} from './dom.js';

/* "3" -> 3, "0,5" -> 0.5, "" -> undefined; anything else goes out as it was typed, and is refused by name: "1,000" too, which may be 1 or 1000. */
export function typed(text) {
  text = text.trim();
  if (text === '') return undefined;
  if (/^[+-]?[1-9]\d{0,2}(,\d{3})+$/.test(text)) return text;
  const value = Number(text.replace(',', '.'));
  return Number.isFinite(value) ? value : text;
}

function control(field, id) {
  const common = {id, name: field.name, 'data-option': field.name, 'aria-describedby': `${id}-help ${id}-error`};
  if (field.type === 'choice' || field.type === 'boolean') {
    const choices = field.type === 'boolean' ? ['true', 'false'] : field.choices;
    return el('select', common, el('option', {value: ''}, field.default === null ? "model's own" : String(field.default)),
      ...choices.filter((one) => one !== String(field.default)).map((one) => el('option', {value: one}, one)));
  }
  return el('input', {...common, class: 'mono', inputmode: 'decimal', placeholder: field.default === null || field.default === undefined ? "model's" : String(field.default)});
}

export function row(field) {
  const id = `option-${field.name}`;
  const range = field.minimum !== undefined ? ` ${compact(field.minimum)} to ${compact(field.maximum)}.` : '';
  return el('div', {class: 'field', 'data-field': field.name}, el('label', {for: id}, field.label || field.name), control(field, id),
    el('p', {class: 'note', id: `${id}-help`}, sentence(field.help) + range),
    el('p', {class: 'error', id: `${id}-error`, 'data-error': `/${field.name}`, hidden: true}));
}

const compact = (value) => (Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(0) : String(value));

/* The options under a node that differ from their defaults: {name: value}. */
export function read(node) {
  const values = {};
  for (const input of node.querySelectorAll('[data-option]')) {
    const text = input.value;
    const value = input.tagName === 'SELECT' && (text === 'true' || text === 'false') ? text === 'true'
      : input.tagName === 'SELECT' || input.dataset.text !== undefined ? text.trim() || undefined : typed(text);
    if (value !== undefined) values[input.dataset.option] = value;
  }
  return values;
}

/* Puts values back; what a node has no field for is left to the caller: the names that were taken. */
export function write(node, values) {
  const taken = [];
  for (const input of node.querySelectorAll('[data-option]')) {
    const value = values[input.dataset.option];
    const text = value === undefined || value === null ? '' : String(value);
    if (input.tagName === 'SELECT' && text !== '' && ![...input.options].some((one) => one.value === text)) input.value = '';
    else input.value = text;
    if (value !== undefined) taken.push(input.dataset.option);
  }
  return taken;
}

/* ---- Refusals, beside their fields */
export function clearErrors() {
  for (const note of document.querySelectorAll('#form [data-error], #form-error')) { note.hidden = true; note.textContent = ''; }
  for (const input of document.querySelectorAll('#form [aria-invalid]')) input.removeAttribute('aria-invalid');
}

export function explain(problem) {
  const pointer = (problem.field || '').replace(/^\/\d+(?=\/)/, '');
  const name = pointer.split('/')[1] || '';
  const note = name && document.querySelector(`#form [data-error="/${CSS.escape(name)}"]`);
  const words = sentence(problem.detail);
  if (!note) {
    const all = $('form-error');
    all.textContent = name ? `${name}: ${problem.detail}` : words;
    all.hidden = false;
    return;
  }
  note.textContent = words;
  note.setAttribute('role', 'alert');
  note.hidden = false;
  note.closest('details')?.setAttribute('open', '');
  const input = document.querySelector(`#form [name="${CSS.escape(name)}"]`) || (name === 'class_label' && $('class-search'));
  if (input) {
    input.setAttribute('aria-invalid', 'true');
    input.focus();
  }
}
