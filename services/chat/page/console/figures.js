// Numbers and times as they are written in the reader's language. What was not measured is a dash.
import { t } from "../words.js";
import { feed } from "./feed.js";

const NONE = "–", DAY = 86_400, UNITS = [[DAY, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];
const kept = new Map();

// Formatters are slow to make.
function format(kind, options) {
  const language = document.documentElement.lang, name = `${language} ${kind.name} ${JSON.stringify(options)}`;
  if (!kept.has(name)) kept.set(name, new kind(language === "en" ? "en-GB" : language, options));
  return kept.get(name);
}

export const number = (value, digits = 2) => value === null || value === undefined ? NONE
  : format(Intl.NumberFormat, { maximumFractionDigits: digits }).format(value);

export const percent = (value, digits = 1) => value === null || value === undefined ? NONE
  : format(Intl.NumberFormat, { style: "percent", maximumFractionDigits: digits }).format(value);

export const interval = (low, high, write = percent) => low === null ? "" : `${write(low)} … ${write(high)}`;

export const clock = (ms) => format(Intl.DateTimeFormat, { hour: "2-digit", minute: "2-digit" }).format(ms);

export const when = (ms) => ms ? format(Intl.DateTimeFormat, { dateStyle: "medium", timeStyle: "medium" }).format(ms) : NONE;

// A time of the last hours without its date.
export function since(ms, now = Date.now()) {
  return ms && now - ms < DAY / 2 * 1000 ? format(Intl.DateTimeFormat, { timeStyle: "medium" }).format(ms) : when(ms);
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  const unit = UNITS.find(([size]) => seconds >= size) ?? UNITS.at(-1);
  const value = seconds / unit[0];
  const options = { style: "unit", unit: unit[1], unitDisplay: "short", maximumFractionDigits: value < 10 ? 1 : 0 };
  return format(Intl.NumberFormat, options).format(value);
}

// How what the gate predicted of versions meets what people said of them.
export function predictionSaid() {
  if (!feed.overview?.prediction) return "";
  const { versions, correlation, correlation_low: low, correlation_high: high, slope, gap, alarm } = feed.overview.prediction;
  if (!versions) return t("predictionNone");
  const r = correlation === null ? "" : t("predictionR", { r: number(correlation), interval: interval(low, high, number) });
  const said = t("predictionIs", { n: number(versions), r, slope: number(slope), gap: percent(gap) });
  return alarm ? `${t("predictionParted", { why: alarm })} ${said}` : said;
}

// 12 of "policy-000012".
export const numberOf = (version) => parseInt(version.split("-").at(-1), 10);

export const stateName = (state) => t(`state.${state}`);
