// Where we are: `#/meeting/1988692299/0307…?x=y` is a view's name, its parts and its query.

/** What the address says. Anything that is no route of ours is the overview. */
export function where() {
  const hash = location.hash.startsWith('#/') ? location.hash.slice(2) : '';
  const [way, query = ''] = hash.split(/\?(.*)/s);
  const [name, ...parts] = way.split('/');
  return { name: name || 'overview', parts: parts.map(decoded), query: new URLSearchParams(query) };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // Typed by hand; it is looked for as it stands.
  }
}

/** The address of a view. Values of the query that are empty are left out. */
export function to(name, parts = [], query = {}) {
  const kept = new URLSearchParams(Object.entries(query).filter(([, value]) => value));
  const way = [name === 'overview' ? '' : name, ...parts.map(encodeURIComponent)].join('/');
  return `#/${way}${kept.size ? `?${kept}` : ''}`;
}
