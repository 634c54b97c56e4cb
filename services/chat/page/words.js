// What the page says, in the reader's language: one JSON file a language, all with the same keys.
//
// Elements name their words: data-t (text), data-t-label (aria-label, and title where the element shows an icon alone),
// data-t-title, data-t-placeholder.
import * as storage from "./storage.js";

const { assets, languages } = document.body.dataset;
export const LANGUAGES = languages.split(" ");
let words = {};

export function t(name, values = {}) {
  return (words[name] ?? name).replace(/{(\w+)}/g, (_, value) => values[value]);
}

export const has = (name) => name in words;

// A tag of the service's configuration, which may be one that no language knows.
export function tagName(tag) {
  return words[`tag.${tag}`] ?? tag.replaceAll("_", " ");
}

export function preferred() {
  const wanted = [storage.read("language"), ...navigator.languages.map((tag) => tag.split("-")[0]), "en"];
  return wanted.find((language) => LANGUAGES.includes(language));
}

export async function load(language) {
  words = await fetchWords(language);
  document.documentElement.lang = language;
  translate(document);
}

async function names() {
  return Promise.all(LANGUAGES.map(async (language) => [language, (await fetchWords(language)).name]));
}

// Fills a list of languages; `changed` is called when another one was chosen.
export async function offer(select, changed) {
  for (const [language, name] of await names()) select.append(new Option(name, language));
  select.value = document.documentElement.lang;
  select.onchange = async () => {
    storage.write("language", select.value);
    await load(select.value);
    changed();
  };
}

export function translate(root) {
  for (const node of root.querySelectorAll("[data-t]")) label(node).textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll("[data-t-label]")) {
    node.setAttribute("aria-label", t(node.dataset.tLabel));
    if (node.matches("button")) node.title = t(node.dataset.tLabel);
  }
  for (const node of root.querySelectorAll("[data-t-title]")) node.title = t(node.dataset.tTitle);
  for (const node of root.querySelectorAll("[data-t-placeholder]")) node.placeholder = t(node.dataset.tPlaceholder);
}

// A button's words stand beside its icon.
function label(node) {
  return node.querySelector(":scope > .label") ?? node;
}

async function fetchWords(language) {
  const response = await fetch(`${assets}/${language}.json`);
  if (!response.ok) location.reload();  // a newer release of the service has another page
  return response.json();
}
