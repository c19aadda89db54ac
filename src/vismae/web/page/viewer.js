// One image with its planes, its window, and one layer over it.

import { classTable, heatTable } from './colours.js';
import { numbers } from './server.js';
import { Geometry } from './volume.js';
import { View } from './view.js';

const UNITS = { hu: 'HU', suv: 'SUV', arbitrary: '', display: '' };

export class Viewer {
  // `stage` takes the planes; `onChange` is told of what controls show: 'window' or 'slice'.
  constructor(stage, onChange) {
    this.stage = stage;
    this.onChange = onChange;
    this.views = [];
    this.opacity = 0.45;
    this.layers = new Map();
    this.hidden = new Map();
  }

  // Shows an image whose numbers come from `path`; resolves when all are there.
  async open(image, path, onPart) {
    this.close();
    this.shown = image;
    this.geometry = new Geometry(image);
    this.abort = new AbortController();
    const count = image.shape.reduce((product, length) => product * length, this.geometry.channels);
    let coming;
    try {
      coming = numbers(path, image.dtype, count, (share) => { onPart(share); this.redraw(); }, this.abort.signal);
    } catch (error) {
      if (error instanceof RangeError) throw new Error(`This browser has no room for an image of ${Math.round(count / 1e6)} million values. The results can be downloaded all the same.`, { cause: error });
      throw error;
    }
    this.numbers = coming.array;
    this.point = image.shape.map((length) => Math.floor(length / 2));
    this.resetWindow();
    this.views = image.planes.map((plane) => new View(this, plane));
    this.stage.replaceChildren(...this.views.map((view) => view.section));
    this.stage.classList.toggle('three', this.views.length > 1);
    this.enlarge(image.native_plane);
    await coming.ready;
    this.redraw();
  }

  close() {
    this.abort?.abort();
    this.views.forEach((view) => view.close());
    this.views = [];
    this.numbers = null;
    this.layer = this.wanted = null;
    this.layers.clear();
    this.hidden.clear();
  }

  get main() { return this.views.find((view) => view.section.classList.contains('large')) ?? this.views[0]; }

  enlarge(plane) {
    this.views.forEach((view) => view.section.classList.toggle('large', view.plane === plane));
    this.redraw();
  }

  get fileSlices() { return this.geometry.slices(this.shown.native_plane); }

  // Number of the slice of the file at the point, counted from 0.
  get fileSlice() { return this.reversed(this.geometry.place(this.shown.native_plane, this.point).slice); }

  moveToFileSlice(number) {
    const { native_plane: plane } = this.shown;
    const { row, column } = this.geometry.place(plane, this.point);
    this.moveTo(this.geometry.point(plane, this.reversed(number), row, column));
  }

  // From a slice of the volume to one of the file, and back.
  reversed(slice) { return this.shown.reverse ? this.fileSlices - 1 - slice : slice; }

  moveTo(point) {
    this.point = point;
    this.redraw();
    this.onChange('slice');
  }

  resetWindow() {
    const [low, high] = this.shown.window;
    this.setWindow((low + high) / 2, high - low);
  }

  setWindow(centre, width) {
    if (!Number.isFinite(centre) || !Number.isFinite(width)) return;
    this.window = { centre, width: Math.max(width, 1e-3) };
    this.redraw();
    this.onChange('window');
  }

  get digits() { return this.window.width >= 50 ? 0 : this.window.width >= 2 ? 1 : 3; }

  windowText() {
    const unit = UNITS[this.shown.unit];
    return `C ${this.window.centre.toFixed(this.digits)}  W ${this.window.width.toFixed(this.digits)}${unit ? ` ${unit}` : ''}`;
  }

  // Values under the pointer: of the image, and of the layer.
  describe(point) {
    const at = this.geometry.index(point);
    const { slope, intercept, unit } = this.shown;
    const physical = (value) => {
      const found = value * slope + intercept;
      return Number.isInteger(found) ? String(found) : found.toPrecision(4);
    };
    const parts = [];
    if (this.geometry.channels === 3) parts.push([0, 1, 2].map((k) => this.numbers[at * 3 + k]).join(' '));
    else parts.push(`${physical(this.numbers[at])}${UNITS[unit] ? ` ${UNITS[unit]}` : ''}`);
    if (this.layer?.kind === 'labels') {
      const found = this.layer.legend.find(({ value }) => value === this.layer.numbers[at]);
      if (found) parts.push(found.name);
    } else if (this.layer) parts.push((this.layer.numbers[at] / 255).toFixed(2));
    return parts.join('   ');
  }

  // Resolves to whether it is shown: another one may have been wanted before its numbers came.
  async showLayer(layer, path) {
    this.wanted = layer;
    if (!layer) {
      this.layer = null;
      this.redraw();
      return true;
    }
    if (!this.layers.has(layer.file)) {
      const count = this.shown.shape.reduce((product, length) => product * length, 1);
      const coming = numbers(path, layer.dtype, count, () => {}, this.abort.signal);
      await coming.ready;
      this.layers.set(layer.file, { ...layer, numbers: coming.array, highest: highest(layer, coming.array) });
    }
    if (this.wanted !== layer) return false;
    this.layer = this.layers.get(layer.file);
    this.recolour();
    return true;
  }

  // Classes of a layer that are not drawn.
  hiddenOf(layer) {
    if (!this.hidden.has(layer.file)) this.hidden.set(layer.file, new Set());
    return this.hidden.get(layer.file);
  }

  recolour() {
    const { layer } = this;
    if (!layer) return;
    const length = layer.numbers.BYTES_PER_ELEMENT === 1 ? 256 : 65536;
    layer.table = layer.kind === 'labels'
      ? classTable(layer.legend, this.hiddenOf(layer), length) : heatTable(layer.highest);
    this.redraw();
  }

  setOpacity(share) {
    this.opacity = share;
    this.redraw();
  }

  redraw() {
    if (!this.numbers || this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      if (this.numbers) this.views.forEach((view) => view.draw());
    });
  }
}

// The value that gets the brightest colour: 1, but for errors what all but a thousandth stay below.
function highest(layer, array) {
  if (layer.kind !== 'error') return 255;
  const counts = new Uint32Array(256);
  for (const value of array) counts[value] += 1;
  let above = 0;
  for (let value = 255; value > 0; value -= 1) {
    above += counts[value];
    if (above > array.length / 1000) return value;
  }
  return 1;
}
