
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const place = document.getElementById("items");
const show = document.getElementById("show");
const search = document.getElementById("search");
const key = `d4k-captions-${data.dataset}`;
let saved = true;

function element(name, values, ...inner) {
  const made = Object.assign(document.createElement(name), values);
  made.append(...inner);
  return made;
}

// A browser may keep nothing for pages from the disk; then only what was saved stays.
function kept() {
  try {
    return JSON.parse(localStorage.getItem(key)) || {};
  } catch {
    return {};
  }
}

function keep() {
  try {
    localStorage.setItem(key, JSON.stringify(Object.fromEntries(corrections().map((each) => [each.sha256, each]))));
  } catch {
    return;
  }
}

function isChanged(item) {
  return item.field.value.trim() !== item.text || item.mark.checked !== item.bad;
}

function corrections() {
  return data.items.filter(isChanged).map((item) => ({
    sha256: item.sha256,
    text: item.field.value.trim(),
    bad: item.mark.checked,
  }));
}

function isShown(item) {
  const words = `${item.name} ${item.field.value} ${item.note}`.toLowerCase();
  const chosen = { all: true, none: !item.field.value.trim(), changed: isChanged(item), bad: item.mark.checked };
  return chosen[show.value] && words.includes(search.value.toLowerCase());
}

function mark(item) {
  item.card.classList.toggle("changed", isChanged(item));
  item.card.classList.toggle("bad", item.mark.checked);
}

function count() {
  const changed = corrections().length;
  const shown = data.items.filter((item) => !item.card.hidden).length;
  const of = data.total > data.items.length ? ` of ${data.total}` : "";
  const state = changed ? `${changed} changed${saved ? ", saved" : ", not saved"}` : "nothing changed";
  document.getElementById("count").textContent = `${shown} shown, ${data.items.length}${of} on this page; ${state}`;
}

function filter() {
  for (const item of data.items) item.card.hidden = !isShown(item);
  count();
}

function changed(item) {
  saved = false;
  mark(item);
  keep();
  count();
}

function save() {
  const content = { file: data.file, format: data.format, dataset: data.dataset, corrections: corrections() };
  const url = URL.createObjectURL(new Blob([JSON.stringify(content, null, 2) + "\n"], { type: "application/json" }));
  element("a", { href: url, download: "corrections.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
  saved = true;
  count();
}

function build(item, before) {
  item.field = element("textarea", { value: before ? before.text : item.text, spellcheck: true });
  item.field.setAttribute("aria-label", `Caption of ${item.name}`);
  item.mark = element("input", { type: "checkbox", checked: before ? before.bad : item.bad });
  item.card = element(
    "article",
    {},
    element("img", { src: item.picture, alt: item.name, loading: "lazy", decoding: "async" }),
    item.field,
    element("div", { className: "row" }, element("label", {}, item.mark, " bad"), element("p", { textContent: item.size })),
    element("p", { textContent: item.name }),
    element("p", { textContent: item.note }),
  );
  item.field.addEventListener("input", () => changed(item));
  item.mark.addEventListener("change", () => changed(item));
  mark(item);
  place.append(item.card);
}

const before = kept();
for (const item of data.items) build(item, before[item.sha256]);
saved = corrections().length === 0;
show.addEventListener("change", filter);
search.addEventListener("input", filter);
document.getElementById("save").addEventListener("click", save);
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "s") {
    event.preventDefault();
    save();
  }
});
window.addEventListener("beforeunload", (event) => {
  if (!saved) event.preventDefault();
});
filter();
