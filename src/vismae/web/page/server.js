// Talking to the server: uploads with progress, states, numbers as typed arrays.

const TYPES = {
  '|u1': Uint8Array, '|i1': Int8Array, '<u2': Uint16Array, '<i2': Int16Array,
  '<i4': Int32Array, '<u4': Uint32Array, '<f4': Float32Array,
};

export class Problem extends Error {
  constructor(code, message, retrySeconds = 0) {
    super(message);
    this.code = code;
    this.retrySeconds = retrySeconds;
  }
}

function problemOf(status, text, retry) {
  try {
    const { code, message } = JSON.parse(text).error;
    return new Problem(code, message, Number(retry) || 0);
  } catch {
    return new Problem(String(status), 'The server did not answer as expected. Is it still running?');
  }
}

async function answered(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem('offline', 'The server cannot be reached. It may have been stopped; start vismae web again.');
  }
  if (!response.ok) {
    throw problemOf(response.status, await response.text(), response.headers.get('retry-after'));
  }
  return response;
}

export async function ask(path, options = {}) { return (await answered(path, options)).json(); }

export function askJson(path, content, signal) {
  const headers = { 'content-type': 'application/json' };
  return ask(path, { method: 'POST', headers, body: JSON.stringify(content), signal });
}

// XMLHttpRequest, because fetch does not say how much has been sent.
export function upload(path, form, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open('POST', path);
    request.upload.onprogress = (event) => onProgress(event.loaded / event.total);
    request.onload = () => (request.status < 300
      ? resolve(JSON.parse(request.responseText))
      : reject(problemOf(request.status, request.responseText, request.getResponseHeader('retry-after'))));
    request.onerror = () => reject(new Problem('offline', 'The upload broke off. The file may be too large for this server, or the server was stopped.'));
    request.onabort = () => reject(new DOMException('aborted', 'AbortError'));
    signal.addEventListener('abort', () => request.abort());
    request.send(form);
  });
}

// Returns at once; `ready` resolves when all numbers are there, `onPart` is told how many are.
export function numbers(path, dtype, count, onPart, signal) {
  const array = new TYPES[dtype](count);
  const bytes = new Uint8Array(array.buffer);
  async function read() {
    const response = await answered(path, { signal });
    const reader = response.body.getReader();
    let at = 0;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      bytes.set(value, at);
      at += value.length;
      onPart(at / bytes.length);
    }
    if (at !== bytes.length) throw new Problem('broken', 'The image did not come whole. Open the file again.');
  }
  return { array, ready: read() };
}
