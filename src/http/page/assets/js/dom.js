// The only place where elements are made. Text becomes text nodes, attributes come from a known list, links lead to
// where links may lead: whatever a name holds, it stays text.

const ATTRIBUTES = new Set([
  'action', 'autocomplete', 'class', 'datetime', 'disabled', 'for', 'hidden', 'href', 'id', 'lang', 'list', 'maxlength',
  'method', 'name', 'open', 'placeholder', 'rel', 'role', 'scope', 'selected', 'spellcheck', 'tabindex', 'target', 'title',
  'type', 'value',
]);

/** Where a link may lead: within the page, to files of its lists, to the web, into the meeting client. */
export function safeLink(href) {
  if (typeof href !== 'string') return null;
  if (href === './' || href.startsWith('#') || href.startsWith('api/v1/export/')) return href;
  try {
    return ['http:', 'https:', 'cloudlink:'].includes(new URL(href).protocol) ? href : null;
  } catch {
    return null;
  }
}

/** An element: `h('a', { class: 'x', href: '#/', onclick: f }, 'text', node, null)`. */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function' && name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else setAttribute(element, name, value);
  }
  return append(element, children);
}

/** Sets an attribute of the known list; an unsafe link is left out. */
export function setAttribute(element, name, value) {
  if (!ATTRIBUTES.has(name) && !/^(aria|data)-[a-z-]+$/.test(name)) throw new Error(`no attribute of ours: ${name}`);
  if (value === null || value === undefined || value === false) return element.removeAttribute(name);
  const text = name === 'href' ? safeLink(String(value)) : value === true ? '' : String(value);
  if (text === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

/** Appends nodes and texts; arrays are flattened, nothing is skipped over silently but null and false. */
export function append(element, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

/** Replaces what is in an element. */
export function fill(element, ...children) {
  element.replaceChildren();
  return append(element, children);
}

/** Sets the text, and touches nothing if it is the same: what does not change is neither painted nor read again. */
export function setText(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

const SVG = 'http://www.w3.org/2000/svg';

/** Shapes, so that a state is told apart without its colour. */
const SHAPES = {
  ok: ['M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20Z', 'm7.5 12.2 3 3 6-6.4'],
  warn: ['M12 3 1.8 20.5h20.4L12 3Z', 'M12 10v4.6m0 2.6v.1'],
  bad: ['M8 2h8l6 6v8l-6 6H8l-6-6V8l6-6Z', 'm8.5 8.5 7 7m0-7-7 7'],
  unknown: ['M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20Z', 'M9.4 9.4a2.7 2.7 0 1 1 3.9 2.5c-.9.5-1.3 1-1.3 2m0 2.9v.1'],
  note: ['M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20Z', 'M12 11v5.5m0-9v.1'],
};

/** An icon for a state; decoration, the words beside it say the same. */
export function icon(state) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  svg.setAttribute('class', `icon icon-${state}`);
  SHAPES[state].forEach((shape, index) => {
    const path = document.createElementNS(SVG, 'path');
    path.setAttribute('d', shape);
    path.setAttribute('class', index === 0 ? 'icon-ground' : 'icon-sign');
    svg.append(path);
  });
  return svg;
}

/**
 * Keeps the children of `parent` in step with a list. A row that stays keeps its element (and the focus in it), the
 * element of one that goes is used for one that comes: however many pass by, there are never more than the longest list.
 */
export function keyed(parent, build, update) {
  const rows = new Map();
  const spare = [];
  return (items, keyOf) => {
    const wanted = new Set(items.map(keyOf));
    for (const [key, row] of rows) {
      if (wanted.has(key)) continue;
      rows.delete(key);
      row.element.remove();
      spare.push(row);
    }
    let next = parent.firstChild;
    for (const item of items) {
      const key = keyOf(item);
      const row = rows.get(key) ?? spare.pop() ?? build();
      rows.set(key, row);
      update(row, item);
      if (row.element === next) next = next.nextSibling;
      else parent.insertBefore(row.element, next);
    }
  };
}
