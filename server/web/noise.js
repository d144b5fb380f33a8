/* The noise that a seed starts from, as the engine draws it (philox-1, engine/base/philox.h): Philox 4x32-10, key = seed, counter = {element / 4,
 * draw 0, stream 0, 0}, then Box and Muller. What the stage shows before anything is made is therefore the very beginning of the picture. */

function product(a, b) { /* 32 x 32 -> [high, low] */
  const al = a & 0xffff, ah = a >>> 16, bl = b & 0xffff, bh = b >>> 16;
  const low = al * bl, middle = ah * bl + (low >>> 16), other = al * bh + (middle & 0xffff);
  return [(ah * bh + Math.floor(middle / 65536) + Math.floor(other / 65536)) >>> 0, Math.imul(a, b) >>> 0];
}

function philox(block, k0, k1) {
  let c0 = block >>> 0, c1 = 0, c2 = 0, c3 = 0;
  for (let round = 0; round < 10; round++) {
    const [h0, l0] = product(0xD2511F53, c0), [h1, l1] = product(0xCD9E8D57, c2);
    [c0, c1, c2, c3] = [(h1 ^ c1 ^ k0) >>> 0, l1, (h0 ^ c3 ^ k1) >>> 0, l0];
    k0 = (k0 + 0x9E3779B9) >>> 0;
    k1 = (k1 + 0xBB67AE85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/* count standard normals of a seed (a string of digits). */
export function normals(seed, count) {
  const all = BigInt.asUintN(64, BigInt(seed));
  const k0 = Number(all & 0xffffffffn), k1 = Number(all >> 32n);
  const out = new Float32Array(count + 3);
  for (let block = 0; 4 * block < count; block++) {
    const words = philox(block, k0, k1);
    for (const pair of [0, 2]) {
      const radius = Math.sqrt(-2 * Math.log((words[pair] + 0.5) / 4294967296));
      const angle = words[pair + 1] * (2 * Math.PI / 4294967296);
      out[4 * block + pair] = radius * Math.cos(angle);
      out[4 * block + pair + 1] = radius * Math.sin(angle);
    }
  }
  return out.subarray(0, count);
}

/* Onto a canvas, grey or in colour; of more than three channels the first three. */
export function drawNoise(canvas, seed, width, height, channels) {
  const values = normals(seed, width * height * Math.min(channels, 3));
  const plane = width * height, image = new ImageData(width, height);
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = 127.5 + 64 * values[(channels >= 3 ? c : 0) * plane + i];
    image.data[4 * i + 3] = 255;
  }
  canvas.width = width;
  canvas.height = height;
  canvas.getContext('2d').putImageData(image, 0, 0);
}
