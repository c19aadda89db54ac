// The panel beside the image: window, overlay, classes, results, notes.

import { drawScale } from './colours.js';

const PRESETS = {
  hu: [['Soft tissue', 40, 400], ['Lung', -600, 1500], ['Bone', 400, 1800], ['Brain', 40, 80], ['Liver', 90, 150], ['Angio', 300, 600]],
  suv: [['0 to 5', 2.5, 5], ['0 to 10', 5, 10]],
};

export const byId = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

export function bytesText(bytes) {
  const units = ['bytes', 'kB', 'MB', 'GB'];
  let k = 0, size = bytes;
  while (size >= 1000 && k < 3) { size /= 1000; k += 1; }
  return `${k && size < 10 ? size.toFixed(1) : Math.round(size)} ${units[k]}`;
}

function amountText(found) {
  if (found.volume_ml !== null) return `${found.volume_ml >= 10 ? found.volume_ml.toFixed(0) : found.volume_ml.toFixed(2)} mL`;
  return `${found.pixels.toLocaleString('en')} px`;
}

export class Panels {
  // `calibration` gives the note on a model by its number.
  constructor(viewer, calibration) {
    this.viewer = viewer;
    this.calibration = calibration;
    this.answers = [];
    const centre = byId('window-centre'), width = byId('window-width'), preset = byId('window-preset');
    const typed = () => {
      if (centre.value !== '' && Number(width.value) > 0) viewer.setWindow(Number(centre.value), Number(width.value));
    };
    centre.addEventListener('change', typed);
    width.addEventListener('change', typed);
    preset.addEventListener('change', () => {
      if (preset.value === 'first') viewer.resetWindow();
      else if (preset.value === 'whole') this.wholeRange();
      else if (preset.value) viewer.setWindow(...preset.value.split(' ').map(Number));
    });
    byId('layer').addEventListener('change', () => this.chooseLayer());
    byId('opacity').addEventListener('input', () => this.setOpacity(Number(byId('opacity').value)));
    drawScale(byId('scale-bar'));
  }

  // Sections of an image; `path` gives the address of a file of numbers.
  open(image, path) {
    this.image = image;
    this.whole = null;
    this.path = path;
    const preset = byId('window-preset');
    preset.replaceChildren(new Option('', ''), new Option('first window', 'first'));
    for (const [name, centre, width] of PRESETS[image.unit] ?? []) preset.add(new Option(name, `${centre} ${width}`));
    preset.add(new Option('whole range', 'whole'));
    byId('window-section').hidden = false;
    this.showWindow();
  }

  close() {
    this.answers = [];
    this.image = null;
    for (const name of ['window', 'overlay', 'classes', 'reconstruction', 'results', 'notes']) byId(`${name}-section`).hidden = true;
    byId('layer').replaceChildren();
    byId('legend').replaceChildren();
    byId('scale').hidden = true;
  }

  showWindow() {
    const { window, digits } = this.viewer;
    byId('window-centre').value = window.centre.toFixed(digits);
    byId('window-width').value = window.width.toFixed(digits);
    byId('window-preset').value = this.image ? this.presetOf(window) : '';
  }

  // The preset that a window is, however it came about.
  presetOf({ centre, width }) {
    const [low, high] = this.image.window;
    if (centre === (low + high) / 2 && width === high - low) return 'first';
    if (this.whole && centre === this.whole[0] && width === this.whole[1]) return 'whole';
    const known = [...byId('window-preset').options].map(({ value }) => value);
    return known.find((value) => value === `${centre} ${width}`) ?? '';
  }

  wholeRange() {
    const { numbers, shown } = this.viewer;
    let low = Infinity, high = -Infinity;
    for (const value of numbers) { if (value < low) low = value; if (value > high) high = value; }
    const ends = [low, high].map((value) => value * shown.slope + shown.intercept);
    this.whole = [(ends[0] + ends[1]) / 2, Math.abs(ends[1] - ends[0]) || 1];
    this.viewer.setWindow(...this.whole);
  }

  setOpacity(percent) {
    byId('opacity').value = percent;
    byId('opacity-value').textContent = `${percent} %`;
    this.viewer.setOpacity(percent / 100);
  }

  toggleOverlay() {
    const now = Number(byId('opacity').value);
    if (now) this.before = now;
    this.setOpacity(now ? 0 : this.before ?? 45);
  }

  // What models said of the image shown; `notes` are of the whole upload.
  show(answers, notes) {
    this.answers = answers;
    this.showLayers();
    this.showClasses();
    this.showNotes(notes);
  }

  ofImage(answer) { return answer.images.find(({ image }) => image === this.image.number); }

  showLayers() {
    const several = this.answers.length > 1;
    this.layers = this.answers.flatMap((answer) => answer.layers
      .filter((layer) => layer.image === this.image.number)
      .map((layer) => ({ ...layer, model: answer.model, found: this.ofImage(answer) })));
    const select = byId('layer');
    const before = select.value;
    select.replaceChildren(...this.layers.map((layer) => new Option(several ? `${layer.title} (${layer.model})` : layer.title, layer.file)), new Option('none', ''));
    byId('overlay-section').hidden = this.layers.length === 0;
    const kept = this.layers.some((layer) => layer.file === before);
    select.value = kept ? before : this.layers[0]?.file ?? '';
    this.chooseLayer();
  }

  async chooseLayer() {
    const layer = this.layers.find(({ file }) => file === byId('layer').value) ?? null;
    try {
      if (await this.viewer.showLayer(layer, layer && this.path(layer.file))) this.showLegend(layer);
    } catch (error) {
      if (error.name === 'AbortError') return;
      byId('layer-note').textContent = error.message;
      byId('layer-note').hidden = false;
    }
  }

  showLegend(layer) {
    const isClasses = layer?.kind === 'labels';
    byId('legend').replaceChildren(...(isClasses ? layer.legend.map((entry) => this.legendRow(layer, entry)) : []));
    byId('scale').hidden = !layer || isClasses;
    byId('scale-high').textContent = layer && !isClasses ? (this.viewer.layer.highest / 255).toFixed(2) : '1';
    byId('layer-note').textContent = {
      evidence: 'Probability of the most probable class that each place alone would give.',
      uncertainty: 'Entropy of the class probabilities: 1 where all classes are as likely.',
      error: 'Mean error of each pixel while it was hidden: what the network finds unusual.',
    }[layer?.kind] ?? '';
    byId('layer-note').hidden = !layer || isClasses;
  }

  legendRow(layer, { value, name, colour }) {
    const hidden = this.viewer.hiddenOf(layer);
    const box = make('input', { type: 'checkbox', checked: !hidden.has(value) });
    box.addEventListener('change', () => {
      if (box.checked) hidden.delete(value); else hidden.add(value);
      this.viewer.recolour();
    });
    const swatch = make('span', { className: 'swatch' });
    swatch.style.backgroundColor = colour;
    const found = layer.found?.classes.find((entry) => entry.name === name);
    const amount = make('span', { className: 'amount', textContent: found ? amountText(found) : '' });
    return make('li', {}, make('label', {}, box, swatch, name, amount));
  }

  showClasses() {
    const answers = this.answers.filter((answer) => answer.kind === 'classifier' && this.ofImage(answer));
    byId('classes-section').hidden = answers.length === 0;
    byId('classes').replaceChildren(...answers.map((answer) => this.classBlock(answer, answers.length > 1)));
  }

  classBlock(answer, named) {
    const found = this.ofImage(answer);
    const slice = found.slices.length > 1 ? found.slices[this.viewer.fileSlice] : null;
    const rows = found.classes.map(({ name, probability }, k) => {
      const bar = make('i');
      bar.style.width = `${100 * probability}%`;
      const chosen = found.predicted.includes(name);
      const row = make('div', { className: chosen ? 'class-row chosen' : 'class-row' }, make('span', { textContent: name }),
        make('span', { textContent: `${(100 * probability).toFixed(1)} %` }), make('span', { className: 'bar' }, bar));
      if (slice) row.append(make('span', { className: 'of-slice', textContent: `this slice ${(100 * slice[k]).toFixed(1)} %` }));
      return row;
    });
    const block = make('div', { className: 'class-rows' }, ...rows);
    if (named) block.prepend(make('p', { className: 'model-name', textContent: answer.model }));
    if (slice) block.append(make('p', { className: 'quiet', textContent: `Mean of ${found.slices.length} slices.` }));
    block.append(make('p', { className: 'calibration', textContent: this.calibration(answer.number) }));
    return block;
  }

  showResults(answers, address) {
    const made = answers.filter((answer) => answer.files.length);
    byId('results-section').hidden = made.length === 0;
    byId('results').replaceChildren(...made.map((answer) => {
      const list = make('ul', {}, ...answer.files.map(({ name, bytes }) => make('li', {},
        make('a', { href: address(answer.number, name), download: '', textContent: name }),
        make('span', { className: 'size', textContent: bytesText(bytes) }))));
      if (answer.files.length > 1) {
        list.append(make('li', {}, make('a', { href: address(answer.number, null), download: '', textContent: 'all as one zip archive' })));
      }
      const block = make('div', {}, list);
      if (made.length > 1) block.prepend(make('p', { className: 'model-name', textContent: answer.model }));
      return block;
    }));
  }

  showNotes(more) {
    const notes = [...(this.image?.notes ?? []), ...this.answers.flatMap((answer) => answer.notes.map((note) => (this.answers.length > 1 ? `${answer.model}: ${note}` : note))), ...more];
    byId('notes').replaceChildren(...notes.map((text) => make('li', { textContent: text })));
    byId('notes-section').hidden = notes.length === 0;
  }
}
