// What the browser keeps between visits. One that keeps nothing (private windows, no room) keeps it for this visit.
const PREFIX = "rlhf:";
const visit = new Map();
let full = () => {};

export function read(name) {
  if (visit.has(name)) return structuredClone(visit.get(name));
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name));
  } catch {
    return null;
  }
}

export function write(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
    visit.delete(name);
  } catch {
    visit.set(name, structuredClone(value));
    full();
  }
}

export function forget(name) {
  visit.delete(name);
  try {
    localStorage.removeItem(PREFIX + name);
  } catch { /* it was never kept */ }
}

// What belongs to this tab alone, and outlives a reload.
export const tab = {
  read(name) {
    try {
      return sessionStorage.getItem(PREFIX + name) ?? visit.get(`tab:${name}`) ?? "";
    } catch {
      return visit.get(`tab:${name}`) ?? "";
    }
  },
  write(name, text) {
    visit.set(`tab:${name}`, text);
    try {
      sessionStorage.setItem(PREFIX + name, text);
    } catch { /* kept for this visit */ }
  },
};

export function names(prefix) {
  const found = new Set([...visit.keys()].filter((name) => name.startsWith(prefix)));
  try {
    for (const key of Object.keys(localStorage)) {
      if (key.startsWith(PREFIX + prefix)) found.add(key.slice(PREFIX.length));
    }
  } catch { /* nothing is kept */ }
  return [...found];
}

// `changed(name)` is called when another tab has written or forgotten what begins with `prefix`.
export function onChange(prefix, changed) {
  addEventListener("storage", (event) => {
    if (event.key?.startsWith(PREFIX + prefix)) changed(event.key.slice(PREFIX.length));
  });
}

export function onFull(callback) {
  full = callback;
}

export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
