// What a tab knows of its user: the token, and the choices of language and colours.
//
// The token is in the tab's own storage, which ends with the tab. It goes nowhere but into the header `X-Keytide-Token`.

// Storage that a browser refuses is replaced by memory.
const memory = new Map();

const read = (storage, name) => {
  try {
    return storage().getItem(`keytide.${name}`) ?? memory.get(name) ?? null;
  } catch {
    return memory.get(name) ?? null;
  }
};

const write = (storage, name, value) => {
  memory.delete(name);
  try {
    if (value === null) storage().removeItem(`keytide.${name}`);
    else storage().setItem(`keytide.${name}`, value);
  } catch {
    if (value !== null) memory.set(name, value);
  }
};

// Access itself throws where storage is forbidden.
const ofTab = () => globalThis.sessionStorage;
const ofBrowser = () => globalThis.localStorage;

if (globalThis.keytideToken !== undefined) {
  memory.set("token", globalThis.keytideToken);
  delete globalThis.keytideToken;
}

export const token = () => read(ofTab, "token");
export const setToken = (value) => write(ofTab, "token", value);

export const language = () => (document.documentElement.lang === "ko" ? "ko" : "en");
export const setLanguage = (value) => {
  write(ofBrowser, "language", value);
  document.documentElement.lang = value;
};

/** Returns `light`, `dark`, or `auto` if the system decides. */
export const theme = () => document.documentElement.dataset.theme ?? "auto";
export const setTheme = (value) => {
  write(ofBrowser, "theme", value === "auto" ? null : value);
  if (value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = value;
};

/** Returns whether a text can be a token at all: headers take no others. */
export const canBeToken = (text) => /^[\x21-\x7e]{1,4096}$/.test(text);

/** Reads the part of the address behind `#` as names and values. */
export const place = () => {
  const found = {};
  for (const part of location.hash.slice(1).split("&")) {
    const at = part.indexOf("=");
    if (at <= 0) continue;
    try {
      found[part.slice(0, at)] = decodeURIComponent(part.slice(at + 1));
    } catch {
      // What can't be decoded names nothing.
    }
  }
  return found;
};

/** Writes names and values behind `#` of the address; those that are null or undefined are left out. */
export const setPlace = (values, replace = false) => {
  const parts = Object.entries(values)
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
  const address = location.pathname + location.search + (parts.length > 0 ? `#${parts.join("&")}` : "");
  if (address === location.pathname + location.search + location.hash) return;
  history[replace ? "replaceState" : "pushState"](null, "", address);
};
