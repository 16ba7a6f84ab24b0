// What everything else uses: the data, elements, numbers as text, and where the page is (its hash).

const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);

/** An element. Children are elements or text; text from data is text, whatever it contains. */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, own] of Object.entries(value)) element.style.setProperty(key, own);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

/** One decimal. A tie goes to the even digit, as in the tables of the command line. */
function decimal(value) {
  const text = value.toFixed(1);
  if (Math.abs(value) % 1 !== 0.25) return text;
  return `${value < 0 ? "-" : ""}${Math.trunc(Math.abs(value))}.2`;
}
const percent = (value) => (value === null || value === undefined ? "-" : decimal(100 * value));

/** Mean of runs as percent, with its standard deviation where there are several. */
function percentOf(number) {
  if (!number || number[0] === null) return "-";
  return percent(number[0]) + (number[1] === null ? "" : ` ± ${percent(number[1])}`);
}

/** Mean count over runs. */
function countOf(number) {
  if (!number || number[0] === null) return "-";
  return Number.isInteger(number[0]) ? String(number[0]) : decimal(number[0]);
}

// Where the page is. The hash says which case is open: row=..&split=..&video=..&frame=.., so that it can be sent.

function stateOf(hash) {
  return hash.includes("=") ? Object.fromEntries(new URLSearchParams(hash.replace(/^#/, ""))) : {};
}
function hashOf(state) {
  const words = Object.entries(state).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return `#${new URLSearchParams(words.map(([key, value]) => [key, String(value)]))}`;
}

const rowNamed = (name) => data.rows.findIndex((row) => row.name === name);
const placeNamed = (name) => data.places.findIndex((place) => place.name === name);

/** Positions of the cases of a row on a place, one a seed. */
function casesOf(place, row) {
  return data.cases.flatMap((one, n) => (one.place === place && one.row === row ? [n] : []));
}

/** A number as a link to the cases behind it; plain where there are none. */
function numberLink(text, place, row, state, attributes = {}) {
  if (text === "-" || !casesOf(place, row).length) return h("span", { class: "number" }, text);
  const full = { row: data.rows[row].name, split: data.places[place].name, ...state };
  return h("a", { class: "number", href: hashOf(full), ...attributes }, text);
}

const pictures = new Map(data.pictures.map((picture) => [`${picture.truth}/${picture.video}`, picture]));
const pictureOf = (one, video) => pictures.get(`${one.truth}/${video}`);
