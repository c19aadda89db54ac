// One slice with patches hidden, as a masked autoencoder sees it and draws it.

import { heatTable } from './colours.js';
import { byId } from './panels.js';
import { askJson } from './server.js';

const WAIT_MS = 180;
const HIDDEN_GREY = 52;

async function pixels(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: 'image/png' }));
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext('2d');
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

// Pixels that are no squares become as much higher or wider as they are in the patient.
function paint(canvas, size, colourOf) {
  const source = new OffscreenCanvas(size.width, size.height);
  const context = source.getContext('2d');
  const picture = context.createImageData(size.width, size.height);
  const out = new Uint32Array(picture.data.buffer);
  for (let k = 0; k < out.length; k += 1) out[k] = colourOf(k);
  context.putImageData(picture, 0, 0);
  canvas.width = Math.round(size.width * Math.max(1, size.pixelWidth / size.pixelHeight));
  canvas.height = Math.round(size.height * Math.max(1, size.pixelHeight / size.pixelWidth));
  canvas.getContext('2d').drawImage(source, 0, 0, canvas.width, canvas.height);
}

export class Reconstruction {
  // `address` gives the address of the upload shown.
  constructor(viewer, address) {
    this.viewer = viewer;
    this.address = address;
    this.pattern = 0;
    byId('ratio').addEventListener('input', () => this.ratioChanged());
    byId('pattern').addEventListener('click', () => { this.pattern += 1; this.refresh(); });
    byId('reconstruction-model').addEventListener('change', () => { this.useModel(); this.refresh(); });
    byId('reconstruction-slice').addEventListener('input', (event) => this.viewer.moveToFileSlice(Number(event.target.value) - 1));
  }

  // Autoencoders that took the image; hides all of it where there is none.
  open(models) {
    this.models = models;
    const select = byId('reconstruction-model');
    select.replaceChildren(...models.map(({ name, number }) => new Option(name, number)));
    byId('reconstruction-model-row').hidden = models.length < 2;
    byId('mode').hidden = models.length === 0;
    if (models.length) this.useModel();
  }

  useModel() {
    const model = this.models.find(({ number }) => number === Number(byId('reconstruction-model').value));
    byId('ratio').value = Math.round(100 * (model.mask_ratio ?? 0.75));
    this.showRatio();
  }

  showRatio() { byId('ratio-value').textContent = `${byId('ratio').value} %`; }

  ratioChanged() {
    this.showRatio();
    this.refresh();
  }

  // Asks no more: for a file that is no longer open there is nothing to draw.
  close() {
    clearTimeout(this.timer);
    this.abort?.abort();
  }

  // Asks again, once nothing has changed for a moment.
  refresh() {
    if (byId('reconstruction').hidden) return;
    const slider = byId('reconstruction-slice');
    const { fileSlice, fileSlices } = this.viewer;
    slider.max = fileSlices;
    slider.value = fileSlice + 1;
    slider.disabled = fileSlices === 1;
    byId('reconstruction-place').textContent = `${fileSlice + 1} / ${fileSlices}`;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), WAIT_MS);
  }

  async ask() {
    this.close();
    const abort = new AbortController();
    this.abort = abort;
    const note = byId('reconstruction-note');
    note.textContent = 'Drawing …';
    const wanted = {
      model: Number(byId('reconstruction-model').value),
      image: this.viewer.shown.number,
      slice: this.viewer.fileSlice,
      mask_ratio: Number(byId('ratio').value) / 100,
      pattern: this.pattern,
    };
    try {
      const found = await askJson(this.address(), wanted, abort.signal);
      await this.show(found);
      if (abort.signal.aborted) return;
      note.textContent = `${Math.round(100 * found.hidden_fraction)} % of the pixels were hidden; the mean error there is ${found.mean_absolute_error.toFixed(3)} of the grey scale.`;
    } catch (error) {
      if (error.name === 'AbortError') return;
      note.textContent = error.message;
      if (error.retrySeconds) this.timer = setTimeout(() => this.ask(), 1000 * error.retrySeconds);
    }
  }

  async show({ pictures, width, height, pixel_mm: [high, wide] }) {
    const [image, hidden, filled, error] = await Promise.all(
      [pictures.image, pictures.hidden, pictures.filled, pictures.error].map(pixels),
    );
    const known = high && wide;
    const size = { width, height, pixelHeight: known ? high : 1, pixelWidth: known ? wide : 1 };
    const grey = (value) => (0xff000000 | (value * 0x010101)) >>> 0;
    paint(byId('seen'), size, (k) => (hidden.data[4 * k] ? grey(HIDDEN_GREY) : grey(image.data[4 * k])));
    paint(byId('filled'), size, (k) => grey(filled.data[4 * k]));
    let most = 1;
    for (let k = 0; k < error.data.length; k += 4) most = Math.max(most, error.data[k]);
    const table = heatTable(most, true);
    paint(byId('error'), size, (k) => table[error.data[4 * k]]);
  }
}
