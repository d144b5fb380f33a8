/* Painting over a picture: what is white in the mask is made anew, the rest stays. The mask has the picture's own pixels. By mouse, finger or pen;
 * by keyboard the arrows move the brush, Space paints, with Shift it wipes. */
import {$, closeDialog, el, openDialog, say} from './dom.js';
import * as classes from './classes.js';
import * as form from './form.js';
import {base64, encode, encodeCanvas, fitted} from './png.js';

const SHADE = [255, 92, 60, 150];

export async function paint(blob, {make, refuse}) {
  const model = form.currentModel();
  const bitmap = await createImageBitmap(await fitted(blob, model));
  const {width, height} = bitmap;
  const picture = Object.assign(document.createElement('canvas'), {width, height});
  picture.getContext('2d', {willReadFrequently: true}).drawImage(bitmap, 0, 0);
  const mask = new Uint8Array(width * height);
  const canvas = el('canvas', {class: 'pixel paint', width, height, tabindex: 0, role: 'application', testid: 'paint-canvas',
    'aria-label': 'The picture. Arrow keys move the brush, Space paints, Shift and Space wipe.'});
  const size = el('input', {type: 'range', id: 'brush', testid: 'brush', min: 1, max: Math.max(4, Math.round(width / 3)), step: 1, value: Math.max(2, Math.round(width / 8))});
  const strength = el('input', {type: 'range', id: 'paint-strength', testid: 'strength', min: 0.05, max: 1, step: 0.05, value: 0.8});
  const told = el('output', {for: 'paint-strength'}, '0.8');
  const note = el('p', {class: 'note', testid: 'paint-note', role: 'status'});
  strength.addEventListener('input', () => { told.textContent = strength.value; });
  let at = {x: width / 2, y: height / 2}, wiping = false, cursor = false;

  function draw() {
    const context = canvas.getContext('2d', {willReadFrequently: true});
    context.drawImage(picture, 0, 0);
    const image = context.getImageData(0, 0, width, height), a = SHADE[3] / 255;
    for (let i = 0; i < mask.length; i++) if (mask[i]) for (let c = 0; c < 3; c++) image.data[4 * i + c] = image.data[4 * i + c] * (1 - a) + SHADE[c] * a;
    context.putImageData(image, 0, 0);
    if (cursor) { context.strokeStyle = '#ff5c3c'; context.lineWidth = Math.max(1, width / 128); context.strokeRect(at.x - size.value / 2, at.y - size.value / 2, Number(size.value), Number(size.value)); }
    const part = mask.reduce((sum, one) => sum + (one ? 1 : 0), 0) / mask.length;
    note.textContent = part === 0 ? 'Nothing is painted: the whole picture is the start.' : `${Math.round(100 * part)} % is made anew, the rest stays.`;
    canvas.dataset.painted = String(mask.reduce((sum, one) => sum + (one ? 1 : 0), 0));
  }
  function dab(x, y) {
    const r = size.value / 2;
    for (let j = Math.max(0, Math.floor(y - r)); j < Math.min(height, y + r); j++) {
      for (let i = Math.max(0, Math.floor(x - r)); i < Math.min(width, x + r); i++) {
        if ((i + 0.5 - x) ** 2 + (j + 0.5 - y) ** 2 <= Math.max(r * r, 0.5)) mask[j * width + i] = wiping ? 0 : 255;
      }
    }
  }
  function stroke(to) {
    const steps = Math.ceil(Math.hypot(to.x - at.x, to.y - at.y)) || 1;
    for (let i = 1; i <= steps; i++) dab(at.x + (to.x - at.x) * i / steps, at.y + (to.y - at.y) * i / steps);
    at = to;
    draw();
  }
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return {x: (event.clientX - box.left) * width / box.width, y: (event.clientY - box.top) * height / box.height};
  };
  canvas.addEventListener('pointerdown', (event) => {
    canvas.setPointerCapture(event.pointerId);
    cursor = false;
    wiping = event.shiftKey || event.button === 2;
    at = place(event);
    stroke(at);
  });
  canvas.addEventListener('pointermove', (event) => { if (canvas.hasPointerCapture(event.pointerId)) stroke(place(event)); });
  canvas.addEventListener('contextmenu', (event) => event.preventDefault());
  canvas.addEventListener('keydown', (event) => {
    const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (step) {
      const far = Math.max(1, size.value / 3);
      at = {x: Math.min(width, Math.max(0, at.x + far * step[0])), y: Math.min(height, Math.max(0, at.y + far * step[1]))};
      cursor = true;
    } else if (event.key === ' ') { wiping = event.shiftKey; dab(at.x, at.y); say(wiping ? 'Wiped' : 'Painted'); } else return;
    event.preventDefault();
    draw();
  });
  canvas.addEventListener('blur', () => { cursor = false; draw(); });
  const all = (f) => () => { mask.forEach((one, i) => { mask[i] = f(one); }); draw(); };

  async function start() {
    const channels = model.channels === 1 ? 1 : 3;
    const png = await base64(await encodeCanvas(picture, channels));
    const painted = mask.some(Boolean);
    const white = painted ? await base64(await encode(mask, width, height, 1)) : null;
    form.setStart({png, url: `data:image/png;base64,${png}`, mask: white, maskUrl: white && `data:image/png;base64,${white}`});
    const field = $('option-strength');
    if (field) field.value = strength.value;
    closeDialog();
  }
  openDialog('Paint', 'paint', el('div', {class: 'two'}, el('div', {}, canvas, note), el('div', {},
    el('p', {}, 'Paint over what should become new. Without paint, the whole picture is where the next one starts.'),
    el('label', {for: 'brush'}, 'Brush'), size,
    el('div', {class: 'actions'}, el('button', {type: 'button', testid: 'mask-clear', onclick: all(() => 0)}, 'Clear'),
      el('button', {type: 'button', testid: 'mask-invert', onclick: all((one) => 255 - one)}, 'Invert')),
    el('p', {}, el('label', {for: 'paint-strength'}, 'Strength'), ' ', told), strength,
    el('p', {class: 'note'}, `It becomes: ${classes.nameOf(classes.current())}. Another class, guidance or sampler can be chosen in the form.`),
    el('div', {class: 'go'}, el('button', {type: 'button', class: 'primary', testid: 'paint-go', onclick: async () => {
      try { await start(); await make(form.body()); } catch (error) { refuse(error); }
    }}, 'Generate'), el('button', {type: 'button', testid: 'paint-use', onclick: () => start().then(() => $('generate').focus(), refuse)}, 'Into the form')))));
  draw();
}
