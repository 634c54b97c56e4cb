// The part of Markdown that models write, as nodes: headings, paragraphs, lists, quotes, code, tables, rules; emphasis,
// code, links. Markup is shown as the text that it is. No string is ever parsed as HTML, links go to http, https and
// mailto alone, and an image is a link to it: nothing is fetched because an answer says so.
import { button, copy, make } from "./dom.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])\s*(\1\s*){2,}$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}>\s?/;
const TABLE_RULE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const SAFE_LINK = /^(https?:\/\/|mailto:)/i;

// Makes `container` show `text`. Blocks that did not change keep their nodes: while an answer grows, what has been read,
// selected or focused stays.
export function show(container, text) {
  const wanted = blocks(text.split(/\r?\n/)), nodes = container.children;
  wanted.forEach((block, i) => {
    const source = JSON.stringify(block);
    if (nodes[i]?.source === source) return;
    const node = render(block);
    node.source = source;
    if (nodes[i]) nodes[i].replaceWith(node);
    else container.append(node);
  });
  while (nodes.length > wanted.length) container.lastElementChild.remove();
}

export function blocks(lines) {
  const found = [];
  for (let i = 0; i < lines.length;) {
    const [block, next] = blockAt(lines, i);
    if (block) found.push(block);
    i = next;
  }
  return found;
}

// The block that begins at line `i` (null for an empty line), and the line after it.
function blockAt(lines, i) {
  const line = lines[i];
  if (!line.trim()) return [null, i + 1];
  const fence = line.match(FENCE);
  if (fence) return codeAt(lines, i, fence);
  const heading = line.match(HEADING);
  if (heading) return [{ type: "heading", level: heading[1].length, text: heading[2] }, i + 1];
  if (RULE.test(line)) return [{ type: "rule" }, i + 1];
  if (QUOTE.test(line)) {
    const end = after(lines, i, (other) => QUOTE.test(other));
    return [{ type: "quote", blocks: blocks(lines.slice(i, end).map((other) => other.replace(QUOTE, ""))) }, end];
  }
  if (ITEM.test(line)) return listAt(lines, i);
  if (line.includes("|") && TABLE_RULE.test(lines[i + 1] ?? "") && lines[i + 1].includes("-")) return tableAt(lines, i);
  const end = after(lines, i + 1, (other) => other.trim() && !begins(other));
  return [{ type: "paragraph", text: lines.slice(i, end).map((other) => other.trimStart()).join("\n") }, end];
}

const begins = (line) => [FENCE, HEADING, RULE, QUOTE].some((form) => form.test(line)) || ITEM.test(line);

function after(lines, i, belongs) {
  while (i < lines.length && belongs(lines[i])) i++;
  return i;
}

function codeAt(lines, i, [, mark, language]) {
  const isEnd = (line) => line.trim().startsWith(mark) && !line.trim().replaceAll(mark[0], "");
  const end = after(lines, i + 1, (line) => !isEnd(line));
  return [{ type: "code", language, text: lines.slice(i + 1, end).join("\n") }, end + 1];
}

function tableAt(lines, i) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim());
  const end = after(lines, i + 2, (line) => line.includes("|"));
  return [{ type: "table", head: cells(lines[i]), rows: lines.slice(i + 2, end).map(cells) }, end];
}

// An item goes on in lines that are indented more than its mark, or that follow without an empty line between.
function listAt(lines, i) {
  const [, indent, mark] = lines[i].match(ITEM), ordered = /\d/.test(mark), items = [];
  let loose = false;
  while (i < lines.length) {
    const item = lines[i].match(ITEM);
    if (!item || item[1].length > indent.length + 1 || /\d/.test(item[2]) !== ordered || RULE.test(lines[i])) break;
    const inside = lines[i].length - item[3].length, own = [item[3]];
    for (i++; i < lines.length; i++) {
      const depth = lines[i].search(/\S/);
      if (depth < 0) {
        const next = lines.slice(i).find((line) => line.trim()) ?? "";
        if (next.search(/\S/) <= item[1].length && !ITEM.test(next)) break;
        own.push("");
      } else if (depth > item[1].length + 1) own.push(lines[i].slice(Math.min(depth, inside)));
      else if (own.at(-1) === "" || begins(lines[i])) break;
      else own.push(lines[i].trimStart());
    }
    loose ||= own.slice(0, -1).includes("") && own.some((line, at) => at && line && own[at - 1] === "" && !ITEM.test(line));
    items.push(blocks(own));
  }
  return [{ type: "list", start: ordered ? parseInt(mark, 10) : 0, ordered, loose, items }, i];
}

function render(block) {
  switch (block.type) {
    case "heading": return make(`h${Math.min(block.level + 2, 6)}`, "", ...inline(block.text));
    case "rule": return make("hr");
    case "quote": return make("blockquote", "", ...block.blocks.map(render));
    case "code": return code(block);
    case "list": return list(block);
    case "table": return table(block);
    default: return make("p", "", ...inline(block.text));
  }
}

function code({ language, text }) {
  const node = make("div", "code"), lines = make("pre", "", make("code", "", text));
  lines.tabIndex = 0;  // what is wider than the page is scrolled by keys too
  node.append(make("div", "bar", make("span", "", language)), lines);
  node.firstChild.append(button("copy", (pressed) => copy(text, pressed), { image: "copy", className: "icon" }));
  return node;
}

function list({ ordered, start, loose, items }) {
  const node = make(ordered ? "ol" : "ul");
  if (ordered) node.start = start;
  for (const item of items) {
    const tight = (block) => (block.type === "paragraph" && !loose ? inline(block.text) : [render(block)]);
    node.append(make("li", "", ...item.flatMap(tight)));
  }
  return node;
}

function table({ head, rows }) {
  const cells = (tag, texts) => head.map((_, column) => make(tag, "", ...inline(texts[column] ?? "")));
  const node = make("table", "", make("thead", "", make("tr", "", ...cells("th", head))));
  node.append(make("tbody", "", ...rows.map((row) => make("tr", "", ...cells("td", row)))));
  const frame = make("div", "wide-table", node);
  frame.tabIndex = 0;
  return frame;
}

// Each form with what it makes; the one that begins first wins, of two the one that stands first here.
const INLINE = [
  [/\\([!-/:-@[-`{-~])/, ([, sign]) => [sign]],
  [/(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)/, ([, , text]) => [make("code", "", text.replace(/^ (.*\S.*) $/, "$1"))]],
  [/!?\[((?:[^\][]|\[[^\][]*\])*)\]\(\s*<?([^\s()<>]*(?:\([^\s()]*\)[^\s()<>]*)*)>?(?:\s+["'(][^"')]*["')])?\s*\)/, link],
  [/<((?:https?:\/\/|mailto:)[^\s<>]+)>/, ([, url]) => [anchor(url, [url])]],
  [/\bhttps?:\/\/[^\s<>()"'`]*[^\s<>()"'`.,;:!?*_~]/, ([url]) => [anchor(url, [url])]],
  [/\*\*\*(?=\S)([\s\S]*?\S)\*\*\*/, ([, text]) => [make("strong", "", make("em", "", ...inline(text)))]],
  [/\*\*(?=\S)([\s\S]*?\S)\*\*(?!\*)/, ([, text]) => [make("strong", "", ...inline(text))]],
  [/(?<!\w)__(?=\S)([\s\S]*?\S)__(?!\w)/, ([, text]) => [make("strong", "", ...inline(text))]],
  [/\*(?=[^\s*])([^*]*[^\s*])\*(?!\*)/, ([, text]) => [make("em", "", ...inline(text))]],
  [/(?<!\w)_(?=[^\s_])([^_]*[^\s_])_(?!\w)/, ([, text]) => [make("em", "", ...inline(text))]],
  [/~~(?=\S)([\s\S]*?\S)~~/, ([, text]) => [make("del", "", ...inline(text))]],
  [/(?: {2,}|\\)\n/, () => [make("br")]],
];

function inline(text) {
  const nodes = [];
  while (text) {
    let first = null;
    for (const [form, makes] of INLINE) {
      const found = text.match(form);
      if (found && (!first || found.index < first.found.index)) first = { found, makes };
    }
    if (!first) return [...nodes, text];
    const { found, makes } = first;
    if (found.index) nodes.push(text.slice(0, found.index));
    nodes.push(...makes(found));
    text = text.slice(found.index + found[0].length);
  }
  return nodes;
}

function link([source, words, url]) {
  return SAFE_LINK.test(url) ? [anchor(url, words ? inline(words) : [url])] : [source];
}

function anchor(url, words) {
  const node = make("a", "", ...words);
  node.href = url;
  node.target = "_blank";
  node.rel = "noopener noreferrer nofollow";
  return node;
}
