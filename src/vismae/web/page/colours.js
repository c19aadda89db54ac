// Tables of colours as 32-bit numbers (little endian: alpha, blue, green, red).

const HEAT = [
  [0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99],
  [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164],
];

function packed([red, green, blue], alpha) {
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

function heat(share) {
  const place = Math.min(Math.max(share, 0), 1) * (HEAT.length - 1);
  const low = Math.min(Math.floor(place), HEAT.length - 2);
  return HEAT[low].map((part, k) => Math.round(part + (place - low) * (HEAT[low + 1][k] - part)));
}

// Classes in the colours of the legend; hidden ones and the background are clear.
export function classTable(legend, hidden, length) {
  const table = new Uint32Array(length);
  for (const { value, colour } of legend) {
    if (hidden.has(value) || value >= length) continue;
    table[value] = packed([1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)), 255);
  }
  return table;
}

// Low values are clear, so that the image shows through where nothing is found.
export function heatTable(highest, opaque = false) {
  return Uint32Array.from({ length: 256 }, (_, value) => {
    const share = value / Math.max(highest, 1);
    return packed(heat(share), opaque ? 255 : Math.round(255 * Math.min(1, share)));
  });
}

export function drawScale(canvas) {
  const context = canvas.getContext('2d');
  const picture = context.createImageData(canvas.width, canvas.height);
  const table = heatTable(255, true);
  const out = new Uint32Array(picture.data.buffer);
  for (let k = 0; k < out.length; k += 1) out[k] = table[Math.round((255 * (k % canvas.width)) / (canvas.width - 1))];
  context.putImageData(picture, 0, 0);
}
