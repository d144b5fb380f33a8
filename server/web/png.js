/* PNG files: what a picture says of itself, and pictures as the daemon takes them (grey or RGB, 8 bits, no transparency). */

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const latin = new TextDecoder('latin1'), utf8 = new TextDecoder();

const TEXT_MAX = 1 << 20; // bytes of one text, unpacked: a few bytes may claim gigabytes

async function through(bytes, stream, most = Infinity) {
  const reader = new Blob([bytes]).stream().pipeThrough(stream).getReader(), pieces = [];
  for (let count = 0, piece; !(piece = await reader.read()).done; pieces.push(piece.value)) {
    count += piece.value.length;
    if (count > most) { reader.cancel(); throw new Error('too long'); }
  }
  return new Uint8Array(await new Blob(pieces).arrayBuffer());
}

/* Keyword to text of its tEXt, zTXt and iTXt chunks; null: this is no PNG. */
export async function texts(buffer) {
  const all = new Uint8Array(buffer), view = new DataView(buffer), found = {};
  if (SIGNATURE.some((byte, i) => all[i] !== byte)) return null;
  for (let at = 8; at + 12 <= all.length;) {
    const length = view.getUint32(at), kind = latin.decode(all.subarray(at + 4, at + 8));
    if (at + 12 + length > all.length) break;
    const body = all.subarray(at + 8, at + 8 + length), end = body.indexOf(0);
    const key = latin.decode(body.subarray(0, Math.max(end, 0)));
    try {
      if (kind === 'tEXt') found[key] = latin.decode(body.subarray(end + 1));
      else if (kind === 'zTXt') found[key] = latin.decode(await through(body.subarray(end + 2), new DecompressionStream('deflate'), TEXT_MAX));
      else if (kind === 'iTXt') {
        const compressed = body[end + 1] === 1;
        let rest = body.subarray(end + 3);
        for (let i = 0; i < 2; i++) rest = rest.subarray(rest.indexOf(0) + 1); /* language, translated keyword */
        found[key] = utf8.decode(compressed ? await through(rest, new DecompressionStream('deflate'), TEXT_MAX) : rest);
      }
    } catch { /* a broken chunk says nothing */ }
    at += 12 + length;
  }
  return found;
}

/* The request that a PNG of this program was made by; or what the infotext of others has in common with it; or null. */
export function recipe(found) {
  try {
    const request = JSON.parse(found.denoised).request;
    if (request && typeof request === 'object') return request;
  } catch { /* not ours */ }
  const tail = /(?:^|\n)(Steps: [^\n]*)$/.exec(found.parameters || '');
  if (!tail) return null;
  const value = (name) => new RegExp(`(?:^|, )${name}: ([^,]*)`).exec(tail[1])?.[1];
  const request = {seed: value('Seed'), steps: Number(value('Steps')) || undefined, guidance_scale: Number(value('CFG scale')) || undefined,
    class_label: value('Class') !== undefined ? parseInt(value('Class'), 10) : undefined};
  for (const name of Object.keys(request)) if (request[name] === undefined) delete request[name];
  return request;
}

const table = Uint32Array.from({length: 256}, (_, n) => {
  for (let i = 0; i < 8; i++) n = n & 1 ? (n >>> 1) ^ 0xEDB88320 : n >>> 1;
  return n;
});
function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = table[(value ^ byte) & 255] ^ (value >>> 8);
  return ~value >>> 0;
}

function chunk(kind, body) {
  const out = new Uint8Array(12 + body.length), view = new DataView(out.buffer);
  view.setUint32(0, body.length);
  for (let i = 0; i < 4; i++) out[4 + i] = kind.charCodeAt(i);
  out.set(body, 8);
  view.setUint32(8 + body.length, crc(out.subarray(4, 8 + body.length)));
  return out;
}

/* pixels: height * width * channels (1 or 3) bytes. */
export async function encode(pixels, width, height, channels) {
  const head = new Uint8Array(13), view = new DataView(head.buffer), row = width * channels;
  view.setUint32(0, width);
  view.setUint32(4, height);
  head.set([8, channels === 1 ? 0 : 2, 0, 0, 0], 8);
  const raw = new Uint8Array(height * (row + 1));
  for (let y = 0; y < height; y++) raw.set(pixels.subarray(y * row, (y + 1) * row), y * (row + 1) + 1);
  const packed = await through(raw, new CompressionStream('deflate'));
  return new Blob([Uint8Array.from(SIGNATURE), chunk('IHDR', head), chunk('IDAT', packed), chunk('IEND', new Uint8Array(0))], {type: 'image/png'});
}

/* What a canvas shows, with as many channels as the model has. */
export function encodeCanvas(canvas, channels) {
  const {width, height} = canvas, data = canvas.getContext('2d').getImageData(0, 0, width, height).data;
  const pixels = new Uint8Array(width * height * channels);
  for (let i = 0; i < width * height; i++) {
    if (channels === 1) pixels[i] = Math.round(0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]);
    else pixels.set(data.subarray(4 * i, 4 * i + 3), 3 * i);
  }
  return encode(pixels, width, height, channels);
}

/* Any picture in the model's size: cut to its shape around the middle, then scaled. */
export async function fitted(blob, model) {
  const bitmap = await createImageBitmap(blob);
  const canvas = Object.assign(document.createElement('canvas'), {width: model.width, height: model.height});
  const scale = Math.min(bitmap.width / model.width, bitmap.height / model.height);
  const w = model.width * scale, h = model.height * scale;
  const context = canvas.getContext('2d');
  context.imageSmoothingQuality = 'high';
  context.drawImage(bitmap, (bitmap.width - w) / 2, (bitmap.height - h) / 2, w, h, 0, 0, model.width, model.height);
  return encodeCanvas(canvas, model.channels === 1 ? 1 : 3);
}

export async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = '';
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return btoa(text);
}
