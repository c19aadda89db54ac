// The page: takes files, follows their way through the queue, and shows what came of them.

import { dropped, oneFile } from './archive.js';
import { Panels, byId, bytesText, make } from './panels.js';
import { Reconstruction } from './reconstruction.js';
import { Problem, ask, upload } from './server.js';
import { Viewer } from './viewer.js';

const STUDIES = '/page/studies';
const POLL_MS = 300;
const TOUCH_MS = 20000;
const ORDINALS = ['', 'next', 'second', 'third'];
const KINDS = { segmenter: 'segments', classifier: 'classifies', mae: 'reconstructs' };

class Page {
  constructor() {
    this.viewer = new Viewer(byId('views'), (what) => this.changed(what));
    this.panels = new Panels(this.viewer, (number) => this.offer.models[number].calibration);
    this.reconstruction = new Reconstruction(this.viewer, () => `${this.address}/reconstruction`);
    this.listen();
    // A file may be dropped before the server has answered.
    this.ready = this.start();
  }

  get address() { return `${STUDIES}/${this.study}`; }

  async start() {
    try {
      this.offer = await ask('/v1/model');
    } catch (error) {
      this.fail(error);
      return;
    }
    const { limits, models } = this.offer;
    byId('promise').textContent = `The file is deleted as soon as it was worked on, results when this page is closed or ${Math.round(limits.keep_seconds / 60)} minutes after they were last looked at. Up to ${bytesText(limits.upload_bytes)}.`;
    byId('foot').textContent = `vismae ${this.offer.vismae}. For research; not a medical device.`;
    models.forEach(({ name, kind }, number) => {
      const box = make('input', { type: 'checkbox', checked: true, value: name, name: 'models' });
      byId('models').append(make('label', {}, box, make('span', { textContent: name }), make('span', { className: 'kind', textContent: KINDS[kind] })));
      this.offer.models[number].number = number;
    });
    if (!this.file) this.state('empty');
  }

  // Shows one of: empty, working, problem, views.
  state(name) {
    document.body.dataset.state = name;
    for (const each of ['empty', 'working', 'problem']) byId(each).hidden = each !== name;
    const shown = name === 'views';
    const mode = document.querySelector('input[name="mode"]:checked').value;
    document.body.dataset.mode = shown ? mode : '';
    byId('views').hidden = !shown || mode !== 'planes';
    byId('reconstruction').hidden = !shown || mode !== 'reconstruction';
    byId('reconstruction-section').hidden = byId('reconstruction').hidden;
    byId('keys-section').hidden = !shown;
    byId('close').hidden = name === 'empty';
    byId('file-bar').hidden = !this.file || name === 'empty';
    if (!shown) byId('mode').hidden = true;
  }

  listen() {
    const input = byId('file');
    const choose = () => { input.value = ''; input.click(); };
    for (const id of ['open', 'drop', 'another']) byId(id).addEventListener('click', choose);
    input.addEventListener('change', () => input.files.length && this.open(input.files[0]));
    const folder = byId('folder');
    byId('open-folder').addEventListener('click', () => { folder.value = ''; folder.click(); });
    folder.addEventListener('change', () => {
      if (folder.files.length) this.open([...folder.files].map((file) => ({ path: file.webkitRelativePath, file })));
    });
    byId('close').addEventListener('click', () => this.close());
    byId('cancel').addEventListener('click', () => this.close());
    byId('again').addEventListener('click', () => this.open(this.file));
    byId('image-choice').addEventListener('change', (event) => this.showImage(Number(event.target.value)));
    for (const box of document.querySelectorAll('input[name="mode"]')) {
      box.addEventListener('change', () => { this.state('views'); this.viewer.redraw(); this.reconstruction.refresh(); });
    }
    const holdsFile = (event) => event.dataTransfer?.types.includes('Files');
    let depth = 0;
    addEventListener('dragenter', (event) => { if (holdsFile(event)) { depth += 1; byId('veil').hidden = false; } });
    addEventListener('dragleave', (event) => { if (holdsFile(event) && (depth -= 1) <= 0) byId('veil').hidden = true; });
    addEventListener('dragover', (event) => { if (holdsFile(event)) event.preventDefault(); });
    addEventListener('drop', (event) => {
      depth = 0;
      byId('veil').hidden = true;
      if (!event.dataTransfer?.files.length) return;
      event.preventDefault();
      this.open(dropped(event.dataTransfer));
    });
    addEventListener('keydown', (event) => this.key(event));
    addEventListener('pagehide', () => this.forget(true));
  }

  key(event) {
    if (document.body.dataset.state !== 'views' || event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target.tagName;
    // Sliders and boxes leave letters and digits alone; what is typed into belongs to its field.
    if (target === 'SELECT' || (target === 'INPUT' && event.target.type === 'number')) return;
    const key = event.key.toLowerCase();
    if (key === 'l') this.panels.toggleOverlay();
    else if (key === 'r') this.viewer.resetWindow();
    else if ('123'.includes(key) && this.viewer.views.length === 3) this.viewer.enlarge(['axial', 'coronal', 'sagittal'][Number(key) - 1]);
    else if (target === 'BODY' && this.viewer.main?.key(event)) event.preventDefault();
  }

  changed(what) {
    if (what === 'window') this.panels.showWindow();
    if (what === 'slice') {
      this.panels.showClasses();
      this.reconstruction.refresh();
    }
    this.touch();
  }

  // Tells the server that the results are still looked at.
  touch() {
    const now = Date.now();
    if (!this.study || now - this.touched < TOUCH_MS) return;
    this.touched = now;
    fetch(this.address).catch(() => {});
  }

  choosePlanes() { document.querySelector('input[name="mode"][value="planes"]').checked = true; }

  say(text) { byId('status').textContent = text; }

  working(title, share = null, detail = '') {
    byId('working-title').textContent = title;
    byId('working-detail').textContent = detail;
    const bar = byId('working-bar');
    if (share === null) bar.removeAttribute('value'); else bar.value = share;
    this.state('working');
    this.say(title);
  }

  fail(error) {
    if (error.name === 'AbortError') return;
    byId('problem-message').textContent = error.message;
    byId('problem-code').textContent = error.code ? `Reason: ${error.code}` : '';
    byId('again').hidden = !this.file;
    this.clear();
    this.state('problem');
    this.say('');
  }

  // Lets the server delete what it has of the file shown.
  forget(leaving = false) {
    this.abort?.abort();
    if (this.study) fetch(this.address, { method: 'DELETE', keepalive: leaving }).catch(() => {});
    this.study = null;
  }

  // Takes off the page what is of a file.
  clear() {
    this.reconstruction.close();
    this.viewer.close();
    this.panels.close();
  }

  close() {
    this.forget();
    this.file = null;
    this.clear();
    byId('again').hidden = true;
    this.say('');
    this.state('empty');
    byId('drop').focus();
  }

  // Takes a file, or members [{ path, file }] of a folder, or a promise of those.
  async open(what) {
    this.forget();
    this.clear();
    this.file = what instanceof File ? what : null;
    this.touched = Date.now();
    this.images = null;
    byId('image-choice').hidden = true;
    byId('again').hidden = !this.file;
    this.choosePlanes();
    const abort = new AbortController();
    this.abort = abort;
    try {
      await this.ready;
      if (!this.offer || abort.signal.aborted) return;
      if (!this.file) this.working('Putting files together');
      const file = this.file ?? await oneFile(await what, this.offer.limits.upload_bytes, (share) => this.working('Putting files together', share), abort.signal);
      if (abort.signal.aborted) return;
      this.file = file;
      byId('file-name').textContent = file.name;
      this.study = await this.send(file, abort.signal);
      await this.follow(abort.signal);
    } catch (error) {
      if (!abort.signal.aborted) this.fail(error);
    }
  }

  async send(file, signal) {
    const most = this.offer.limits.upload_bytes;
    if (file.size > most) throw new Problem('too-large', `${file.name} has ${bytesText(file.size)}; at most ${bytesText(most)} are taken. Send a part of it, or use vismae predict.`);
    const form = new FormData();
    if (byId('modality').value) form.append('modality', byId('modality').value);
    form.append('models', [...document.querySelectorAll('input[name="models"]:checked')].map(({ value }) => `${value},`).join('') || ',');
    form.append('file', file);
    for (;;) {
      this.working('Sending', 0, bytesText(file.size));
      try {
        const { key } = await upload(STUDIES, form, (share) => this.working('Sending', share, bytesText(file.size)), signal);
        return key;
      } catch (error) {
        if (!error.retrySeconds) throw error;
        this.working('The server is busy', null, `All places are taken; trying again in ${error.retrySeconds} s.`);
        await new Promise((resolve) => { setTimeout(resolve, 1000 * error.retrySeconds); });
        if (signal.aborted) throw new DOMException('aborted', 'AbortError');
      }
    }
  }

  // Asks how far the upload is until it is done; shows images as soon as they are there.
  async follow(signal) {
    for (;;) {
      const found = await ask(this.address, { signal });
      if (found.state === 'failed') throw new Problem(found.error.code, found.error.message);
      if (found.images && !this.images) this.showImages(found);
      if (found.state === 'done') {
        this.done(found);
        return;
      }
      this.progress(found);
      await new Promise((resolve) => { setTimeout(resolve, POLL_MS); });
      if (signal.aborted) return;
    }
  }

  progress(found) {
    if (found.state === 'queued') {
      const place = ORDINALS[found.place] ?? `number ${found.place}`;
      this.working('Waiting', null, `This file is ${place} in the queue.`);
    } else if (found.stage === 'reading') {
      // Images may be there, and shown, a moment before a model says how far it is.
      if (!this.images) this.working('Reading');
    } else {
      const share = found.done / found.total;
      const text = `${found.model}: slice ${found.done} of ${found.total}`;
      if (this.images) this.say(text); else this.working('Asking the models', share, text);
    }
  }

  showImages(found) {
    this.images = found.images;
    this.answers = [];
    this.left = found.left_out.map(({ message }) => message);
    const choice = byId('image-choice');
    choice.replaceChildren(...found.images.map(({ number, title }) => new Option(`${number + 1}: ${title}`, number)));
    choice.hidden = found.images.length < 2;
    byId('again').hidden = false;
    this.showImage(0);
  }

  async showImage(number) {
    const image = this.images[number];
    const { abort } = this;
    const path = (name) => `${this.address}/numbers/${name}`;
    this.state('views');
    try {
      const opened = this.viewer.open(image, path(`${number}.pixels`), (share) => {
        if (share < 1 && !this.answers.length) this.say(`Loading the image: ${Math.round(100 * share)} %`);
      });
      if (!this.viewer.numbers) await opened; // which says why
      this.panels.open(image, path);
      this.showAnswers();
      await opened;
      if (document.body.dataset.done === this.study) this.say(`${image.title} · done`);
      else if (!byId('status').textContent.includes('slice')) this.say(image.title);
    } catch (error) {
      if (!abort.signal.aborted && error.name !== 'AbortError') this.fail(error);
    }
  }

  done(found) {
    this.answers = found.answers;
    this.panels.showResults(found.answers, (number, name) => `${this.address}/results/${number}${name === null ? '' : `/${name.split('/').map(encodeURIComponent).join('/')}`}`);
    // Of an image that the browser has no room for there are the results alone.
    if (this.viewer.numbers) this.showAnswers();
    this.say(`${this.images[Number(byId('image-choice').value) || 0].title} · done`);
    document.body.dataset.done = this.study;
  }

  showAnswers() {
    this.panels.show(this.answers, this.left);
    const shown = this.viewer.shown.number;
    const autoencoders = this.answers
      .filter((answer) => answer.kind === 'mae' && answer.images.some(({ image }) => image === shown))
      .map((answer) => this.offer.models[answer.number]);
    this.reconstruction.open(autoencoders);
    if (!autoencoders.length) this.choosePlanes();
    this.state('views');
    this.reconstruction.refresh();
  }
}

new Page();
