// Folders and several files become one ZIP archive, which the server takes like a zipped series.
// Format: APPNOTE.TXT 4.3, members stored as they are (images hardly shrink, or are compressed).

import { bytesText } from './panels.js';
import { Problem } from './server.js';

const MOST_MEMBERS = 65535; // more need ZIP64
const HIDDEN = /(^|\/)(\.|__MACOSX\/|Thumbs\.db$)/;
const UTF8_NAMES = 0x0800;
const LOCAL = 0x04034b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const FIRST_DAY = 0x21; // 1980-01-01: when a file was changed is nobody's business

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  let rest = value;
  for (let bit = 0; bit < 8; bit += 1) rest = rest & 1 ? 0xedb88320 ^ (rest >>> 1) : rest >>> 1;
  return rest;
});

function crc32(bytes) {
  let crc = -1;
  for (let at = 0; at < bytes.length; at += 1) crc = CRC_TABLE[(crc ^ bytes[at]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

// Fields are [bytes, value], little-endian.
function packed(fields, ...tail) {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [width]) => sum + width, 0)));
  let at = 0;
  for (const [width, value] of fields) {
    if (width === 4) view.setUint32(at, value, true); else view.setUint16(at, value, true);
    at += width;
  }
  return new Blob([view, ...tail]);
}

function isTree(entries) { return entries.length > 1 || entries[0]?.isDirectory; }

async function filesUnder(entry, path = entry.name) {
  if (entry.isFile) {
    return [{ path, file: await new Promise((resolve, reject) => { entry.file(resolve, reject); }) }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) { // a hundred at a time
    const some = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
    if (!some.length) break;
    for (const inner of some) found.push(...await filesUnder(inner, `${path}/${inner.name}`));
  }
  return found;
}

// What was dropped: a file, or a promise of [{ path, file }]. To be asked while the event is handled.
export function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!isTree(entries)) return transfer.files[0];
  return Promise.all(entries.map((entry) => filesUnder(entry))).then((found) => found.flat());
}

// Returns one file: the only one among the members, or an archive of them.
export async function oneFile(members, mostBytes, onProgress, signal) {
  const taken = members.filter(({ path }) => !HIDDEN.test(path)).sort((a, b) => (a.path < b.path ? -1 : 1));
  if (!taken.length) throw new Problem('empty', 'This folder holds no files.');
  if (taken.length === 1) return taken[0].file;
  const size = taken.reduce((sum, { file }) => sum + file.size, 0);
  if (size > mostBytes || taken.length > MOST_MEMBERS) {
    throw new Problem('too-large', `These ${taken.length} files have ${bytesText(size)}; at most ${bytesText(mostBytes)} and ${MOST_MEMBERS} files are taken. Send one series, or use vismae predict.`);
  }
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const [number, { path, file }] of taken.entries()) {
    if (signal.aborted) throw new DOMException('aborted', 'AbortError');
    onProgress(number / taken.length);
    let crc;
    try {
      crc = crc32(new Uint8Array(await file.arrayBuffer()));
    } catch {
      throw new Problem('unreadable', `${path} cannot be read. It may have been moved; open the folder again.`);
    }
    const name = new TextEncoder().encode(path);
    const shared = [[2, 20], [2, UTF8_NAMES], [2, 0], [2, 0], [2, FIRST_DAY], [4, crc], [4, file.size], [4, file.size], [2, name.length], [2, 0]];
    const head = packed([[4, LOCAL], ...shared], name);
    parts.push(head, file);
    directory.push(packed([[4, CENTRAL], [2, 20], ...shared, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]], name));
    offset += head.size + file.size;
  }
  const length = directory.reduce((sum, { size: bytes }) => sum + bytes, 0);
  const end = packed([[4, END], [2, 0], [2, 0], [2, taken.length], [2, taken.length], [4, length], [4, offset], [2, 0]]);
  const folders = new Set(taken.map(({ path }) => path.split('/')[0]));
  const title = folders.size === 1 ? [...folders][0] : `${taken.length} files`;
  return new File([...parts, ...directory, end], `${title}.zip`, { type: 'application/zip' });
}
