// The description of the REST routes, drawn from /openapi.json; nothing is fetched from elsewhere.

import { byId, make } from './panels.js';
import { ask } from './server.js';

function resolved(schema, all) {
  if (!schema) return {};
  if (schema.$ref) return resolved(schema.$ref.split('/').slice(1).reduce((part, key) => part[key], all), all);
  return schema;
}

function typeText(schema, all) {
  const found = resolved(schema, all);
  if (found.anyOf) return found.anyOf.filter(({ type }) => type !== 'null').map((part) => typeText(part, all)).join(' or ');
  if (found.enum) return found.enum.join(', ');
  if (found.format === 'binary' || found.contentMediaType) return 'file';
  if (found.type === 'array') return `list of ${typeText(found.items, all)}`;
  return found.title && found.type === 'object' ? found.title : found.type ?? 'value';
}

function table(heads, rows) {
  return make('table', {}, make('thead', {}, make('tr', {}, ...heads.map((text) => make('th', { textContent: text })))),
    make('tbody', {}, ...rows.map((cells) => make('tr', {}, ...cells.map((text) => make('td', { textContent: text ?? '' }))))));
}

function example(path, form) {
  const fields = form ? ' -F file=@scan.nii.gz' : '';
  return make('pre', { tabIndex: 0 }, make('code', { textContent: `curl${fields} ${location.origin}${path}` }));
}

function operation(path, method, found, all) {
  const form = found.requestBody && resolved(found.requestBody.content['multipart/form-data'].schema, all);
  const block = make('article', {}, make('h2', {}, make('span', { className: 'verb', textContent: method.toUpperCase() }), make('code', { textContent: path })),
    make('p', { textContent: found.description ?? found.summary ?? '' }));
  if (form) {
    const needed = new Set(form.required ?? []);
    block.append(table(['field', 'type', 'default', 'meaning'], Object.entries(form.properties).map(([name, field]) => [
      name, typeText(field, all), needed.has(name) ? 'needed' : field.default ?? '', field.description])));
  }
  block.append(example(path, form));
  block.append(table(['status', 'meaning'], Object.entries(found.responses).map(([status, { description }]) => [status, description])));
  const answer = found.responses['200']?.content?.['application/json']?.schema;
  const shape = resolved(answer, all);
  if (shape.properties) {
    block.append(table(['answer', 'type'], Object.entries(shape.properties).map(([name, field]) => [name, typeText(field, all)])));
  }
  return block;
}

async function start() {
  const all = await ask('/openapi.json');
  byId('status').textContent = `version ${all.info.version}`;
  const content = byId('content');
  content.append(...all.info.description.split('\n\n').map((text) => make('p', { textContent: text })));
  for (const [path, methods] of Object.entries(all.paths)) {
    for (const [method, found] of Object.entries(methods)) content.append(operation(path, method, found, all));
  }
}

start().catch((error) => { byId('content').append(make('p', { textContent: error.message })); });
