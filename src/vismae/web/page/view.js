// One plane on the screen: image and overlay as two layers, scrolled, windowed, zoomed.

import { SIDES, paintImage, paintLayer } from './volume.js';

const NAMES = { axial: 'Axial', coronal: 'Coronal', sagittal: 'Sagittal', image: 'Image' };
const CLICK_PX = 4;
const DRAG_PX = 260;
const MARGIN_PX = 26;

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export class View {
  // The viewer holds what all planes share: numbers, window, layer, point.
  constructor(viewer, plane) {
    this.viewer = viewer;
    this.plane = plane;
    this.zoom = 1;
    this.shift = { x: 0, y: 0 };
    this.name = NAMES[plane];
    this.image = element('canvas', { className: 'image' });
    this.overlay = element('canvas', { className: 'overlay' });
    this.cross = [element('i', { className: 'cross h' }), element('i', { className: 'cross v' })];
    this.value = element('span', { className: 'value' });
    this.window = element('span', { className: 'shown-window' });
    this.ruler = element('span', { className: 'ruler' }, element('b'));
    this.picture = element('div', {
      className: 'picture', tabIndex: 0, role: 'slider', 'aria-orientation': 'vertical',
      'aria-label': `${this.name} slice on the image`, 'aria-valuemin': 1,
    }, this.image, this.overlay, ...this.cross, element('span', { className: 'name', textContent: this.name }),
    this.value, this.window, this.ruler);
    for (const [side, letter] of Object.entries(viewer.shown.sides ? SIDES[plane] : {})) {
      this.picture.append(element('span', { className: `side ${side}`, textContent: letter }));
    }
    this.slider = element('input', { type: 'range', min: 1, 'aria-label': `${this.name} slice` });
    this.place = element('output');
    this.enlarge = element('button', { type: 'button', textContent: '⤢', 'aria-label': `Enlarge ${this.name.toLowerCase()} view` });
    this.section = element('section', { className: 'view', 'aria-label': `${this.name} view` }, this.picture,
      element('div', { className: 'scroller' }, element('label', { textContent: this.name, 'aria-hidden': 'true' }), this.slider, this.place, this.enlarge));
    this.section.dataset.plane = plane;
    this.listen();
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.picture);
  }

  get geometry() { return this.viewer.geometry; }

  get slices() { return this.geometry.slices(this.plane); }

  get slice() { return this.geometry.place(this.plane, this.viewer.point).slice; }

  close() {
    this.observer.disconnect();
    this.section.remove();
  }

  scrollTo(slice) {
    const { row, column } = this.geometry.place(this.plane, this.viewer.point);
    const kept = Math.min(Math.max(slice, 0), this.slices - 1);
    this.viewer.moveTo(this.geometry.point(this.plane, kept, row, column));
  }

  listen() {
    const { picture } = this;
    this.slider.addEventListener('input', () => this.scrollTo(Number(this.slider.value) - 1));
    this.enlarge.addEventListener('click', () => this.viewer.enlarge(this.plane));
    picture.addEventListener('dblclick', () => this.viewer.enlarge(this.plane));
    picture.addEventListener('keydown', (event) => { if (this.key(event)) event.preventDefault(); });
    let rest = 0;
    picture.addEventListener('wheel', (event) => {
      event.preventDefault();
      if (event.ctrlKey) return this.zoomBy(Math.exp(-event.deltaY / 300));
      // Touchpads send many small steps, wheels few large ones.
      rest += event.deltaMode === 0 ? event.deltaY / 60 : Math.sign(event.deltaY);
      const steps = Math.trunc(rest) || (Math.abs(event.deltaY) >= 40 ? Math.sign(event.deltaY) : 0);
      rest = steps ? 0 : rest;
      if (steps) this.scrollTo(this.slice - Math.sign(steps));
      return undefined;
    }, { passive: false });
    picture.addEventListener('pointerdown', (event) => this.drag(event));
    picture.addEventListener('pointermove', (event) => this.read(event));
    picture.addEventListener('pointerleave', () => { this.value.textContent = ''; });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const moves = {
      ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10,
      Home: -this.slices, End: this.slices,
    };
    if (event.key in moves) this.scrollTo(this.slice + moves[event.key]);
    else if (event.key === '+' || event.key === '=') this.zoomBy(1.25);
    else if (event.key === '-') this.zoomBy(0.8);
    else if (event.key === '0') this.fit();
    else return false;
    return true;
  }

  zoomBy(factor) {
    this.zoom = Math.min(Math.max(this.zoom * factor, 1), 12);
    if (this.zoom === 1) this.shift = { x: 0, y: 0 };
    this.draw();
  }

  fit() {
    this.zoom = 1;
    this.shift = { x: 0, y: 0 };
    this.draw();
  }

  drag(start) {
    if (start.button !== 0) return;
    const { picture, viewer } = this;
    const first = { ...viewer.window };
    const from = { ...this.shift };
    let moved = false;
    picture.setPointerCapture(start.pointerId);
    const move = (event) => {
      const dx = event.clientX - start.clientX, dy = event.clientY - start.clientY;
      moved ||= Math.hypot(dx, dy) > CLICK_PX;
      if (!moved) return;
      if (start.shiftKey) {
        this.shift = { x: from.x + dx, y: from.y + dy };
        this.draw();
      } else {
        viewer.setWindow(first.centre + (dy / DRAG_PX) * first.width, first.width * Math.exp(dx / DRAG_PX));
      }
    };
    const end = (event) => {
      picture.removeEventListener('pointermove', move);
      picture.removeEventListener('pointerup', end);
      picture.removeEventListener('pointercancel', end);
      const pixel = moved ? null : this.pixelAt(event);
      if (pixel) viewer.moveTo(this.geometry.point(this.plane, this.slice, pixel.row, pixel.column));
    };
    picture.addEventListener('pointermove', move);
    picture.addEventListener('pointerup', end);
    picture.addEventListener('pointercancel', end);
  }

  // Where the slice lies in the picture, in whole device pixels so that no edge is blended.
  frame() {
    const scale = window.devicePixelRatio || 1;
    const box = { width: Math.round(this.picture.clientWidth * scale), height: Math.round(this.picture.clientHeight * scale) };
    const { height, width } = this.geometry.size(this.plane);
    const pixel = this.geometry.pixel(this.plane);
    const margin = MARGIN_PX * scale;
    const fit = Math.min((box.width - 2 * margin) / (width * pixel.width), (box.height - 2 * margin) / (height * pixel.height));
    const size = { width: Math.max(1, Math.round(width * pixel.width * fit * this.zoom)), height: Math.max(1, Math.round(height * pixel.height * fit * this.zoom)) };
    const left = Math.round((box.width - size.width) / 2 + this.shift.x * scale);
    const top = Math.round((box.height - size.height) / 2 + this.shift.y * scale);
    return { scale, box, left, top, ...size, perMm: size.width / (width * pixel.width), known: pixel.known };
  }

  pixelAt(event) {
    const frame = this.frame();
    const box = this.picture.getBoundingClientRect();
    const { height, width } = this.geometry.size(this.plane);
    const column = Math.floor((((event.clientX - box.left) * frame.scale - frame.left) / frame.width) * width);
    const row = Math.floor((((event.clientY - box.top) * frame.scale - frame.top) / frame.height) * height);
    return row >= 0 && row < height && column >= 0 && column < width ? { row, column } : null;
  }

  read(event) {
    const pixel = this.pixelAt(event);
    this.value.textContent = pixel
      ? this.viewer.describe(this.geometry.point(this.plane, this.slice, pixel.row, pixel.column)) : '';
  }

  draw() {
    const { viewer, plane, slice, slices } = this;
    const frame = this.frame();
    if (!frame.box.width || !frame.box.height) return;
    const { height, width } = this.geometry.size(plane);
    for (const canvas of [this.image, this.overlay]) {
      if (canvas.width !== frame.box.width || canvas.height !== frame.box.height) {
        canvas.width = frame.box.width;
        canvas.height = frame.box.height;
        // As large on the screen, or the browser would blend what is drawn here unblended.
        canvas.style.width = `${frame.box.width / frame.scale}px`;
        canvas.style.height = `${frame.box.height / frame.scale}px`;
      }
    }
    this.source ??= new OffscreenCanvas(width, height);
    const source = this.source.getContext('2d');
    const target = source.createImageData(width, height);
    const show = (canvas, smooth) => {
      source.putImageData(target, 0, 0);
      const context = canvas.getContext('2d');
      context.clearRect(0, 0, canvas.width, canvas.height);
      context.imageSmoothingEnabled = smooth;
      context.imageSmoothingQuality = 'high';
      context.drawImage(this.source, frame.left, frame.top, frame.width, frame.height);
    };
    paintImage(target, viewer.numbers, this.geometry, plane, slice, viewer.shown, viewer.window);
    show(this.image, true);
    const { layer } = viewer;
    if (layer) {
      paintLayer(target, layer.numbers, this.geometry, plane, slice, layer.table);
      show(this.overlay, layer.kind !== 'labels'); // classes are never blended
    } else {
      this.overlay.getContext('2d').clearRect(0, 0, frame.box.width, frame.box.height);
    }
    this.overlay.style.opacity = viewer.opacity;
    this.slider.max = slices;
    this.slider.value = slice + 1;
    this.slider.disabled = slices === 1;
    this.place.textContent = `${slice + 1} / ${slices}`;
    this.picture.setAttribute('aria-valuemax', slices);
    this.picture.setAttribute('aria-valuenow', slice + 1);
    this.picture.setAttribute('aria-valuetext', `${slice + 1} of ${slices}`);
    this.window.textContent = viewer.windowText();
    this.drawHelp(frame);
  }

  drawHelp(frame) {
    const { height, width } = this.geometry.size(this.plane);
    const { row, column } = this.geometry.place(this.plane, this.viewer.point);
    const show = this.viewer.views.length > 1;
    this.cross[0].hidden = this.cross[1].hidden = !show;
    this.cross[0].style.top = `${(frame.top + ((row + 0.5) / height) * frame.height) / frame.scale}px`;
    this.cross[1].style.left = `${(frame.left + ((column + 0.5) / width) * frame.width) / frame.scale}px`;
    this.ruler.hidden = !frame.known;
    const wanted = (this.picture.clientWidth * frame.scale) / 5 / frame.perMm;
    const mm = [200, 100, 50, 20, 10, 5, 2, 1].find((step) => step <= wanted) ?? 1;
    this.ruler.style.width = `${(mm * frame.perMm) / frame.scale}px`;
    this.ruler.firstChild.textContent = mm >= 10 ? `${mm / 10} cm` : `${mm} mm`;
  }
}
