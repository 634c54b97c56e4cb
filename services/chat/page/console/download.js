// Files that the browser makes of what it was told.
import { save } from "../dom.js";

export function download(name, type, text) {
  save(name, new Blob([text], { type }));
}

// Columns of one length as comma-separated values (RFC 4180), their names first. A text that a spreadsheet would take for
// a formula is quoted by an apostrophe.
export function csv(columns) {
  const names = Object.keys(columns), rows = columns[names[0]].map((_, i) => names.map((name) => cell(columns[name][i])).join(","));
  return [names.join(","), ...rows, ""].join("\r\n");
}

function cell(value) {
  if (typeof value !== "string") return String(value ?? "");
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
