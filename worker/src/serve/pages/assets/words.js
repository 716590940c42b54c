// The words of all pages: a table for each language, with the same names. A page loads one of them, and may have a table of its
// own beside it.
//
// A word that needs numbers or names is a function of them. Numbers come formatted, so that only their place differs. Where a
// name of others stands beside words, it is an element of its own.

export { whole } from "./format.js";

/** Languages by their codes, each named by itself. */
export const LANGUAGES = { en: "English", ko: "한국어" };

const loaded = new Map();

/** Loads the words of a language: those of all pages, and further tables of one page. */
export async function loadWords(language, tables = []) {
  if (loaded.has(language)) return;
  const names = ["words", ...tables.map((table) => `words-${table}`)];
  const modules = await Promise.all(names.map((name) => import(`./${name}-${language}.js`)));
  loaded.set(language, Object.assign({}, ...modules.map(({ words }) => words)));
}

/** Returns the words of a language that was loaded. */
export const wordsOf = (language) => loaded.get(language);

/** Returns the form of a word for one, or for another number. */
export const one = (number, single, many) => (BigInt(number) === 1n ? single : many);
