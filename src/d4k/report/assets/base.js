"use strict";
/* What every other script stands on: elements that are made without HTML, figures as text, and storage that a browser
   may refuse. Texts of the report reach the page through `textContent` and attributes only. */
window.d4k = { views: {} };

(function (d4k) {
  const SVG = "http://www.w3.org/2000/svg";

  /** Fills `node`: attributes by name (`text` its text, `on` listeners, `css` custom properties), then children. */
  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "text") node.textContent = value;
      else if (name === "on") for (const [event, run] of Object.entries(value)) node.addEventListener(event, run);
      else if (name === "css") for (const [key, given] of Object.entries(value)) node.style.setProperty(key, given);
      else node.setAttribute(name, value === true ? "" : String(value));
    }
    for (const child of children.flat(Infinity)) {
      if (child !== null && child !== undefined && child !== false) node.append(child);
    }
    return node;
  }

  d4k.el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  d4k.svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  /** A button that says what it does; `more` are further attributes. */
  d4k.button = (text, run, more) => d4k.el("button", { type: "button", on: { click: run }, ...more }, text);

  /** A choice with a label in front. `options` are pairs of value and text. */
  d4k.choice = function (label, options, chosen, change, more) {
    const select = d4k.el("select", { on: { change: () => change(select.value) }, ...more });
    for (const [value, text] of options) {
      select.append(d4k.el("option", { value, selected: String(value) === String(chosen) }, text));
    }
    return d4k.el("label", { class: "choice" }, d4k.el("span", { text: label }), select);
  };

  d4k.known = (value) => typeof value === "number" && Number.isFinite(value);

  /** How many decimals show two digits of `spread`, such as half an interval; 4 digits of `value` without one. */
  d4k.decimals = function (value, spread) {
    const size = d4k.known(spread) && spread > 0 ? spread * 100 : Math.abs(value || 0);
    if (!(size > 0)) return 2;
    return Math.max(0, Math.min(7, 3 - Math.floor(Math.log10(size))));
  };

  /** A figure as text, with a real minus; a dash where there is none. */
  d4k.figure = function (value, decimals, sign) {
    if (!d4k.known(value)) return "–";
    const text = Math.abs(value).toFixed(decimals === undefined ? d4k.decimals(value) : decimals);
    const negative = value < 0 && Number(text) !== 0;
    return (negative ? "−" : sign ? "+" : "") + text;
  };

  d4k.span = (interval, decimals, sign) =>
    interval && d4k.known(interval[0]) && d4k.known(interval[1])
      ? `${d4k.figure(interval[0], decimals, sign)} to ${d4k.figure(interval[1], decimals, sign)}`
      : "";

  d4k.count = (number, one, many) => `${number} ${number === 1 ? one : many || one + "s"}`;

  /** localStorage, which a browser may deny to pages from disk: then nothing is kept. */
  d4k.store = {
    get(key) {
      try {
        return JSON.parse(window.localStorage.getItem(key));
      } catch (error) {
        return null;
      }
    },
    set(key, value) {
      try {
        if (value === null) window.localStorage.removeItem(key);
        else window.localStorage.setItem(key, JSON.stringify(value));
        return true;
      } catch (error) {
        return false;
      }
    },
  };

  /** A whole number below 2^32 that nobody can foresee. */
  d4k.freshSeed = () => window.crypto.getRandomValues(new Uint32Array(1))[0];

  /** Numbers in [0, 1) from a seed (mulberry32), so that an order can be repeated. */
  d4k.random = function (seed) {
    let state = seed >>> 0;
    return function () {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
    };
  };

  /** Runs `run` once things have been quiet for `wait` milliseconds. `.now()` does not wait, `.drop()` forgets. */
  d4k.later = function (run, wait) {
    let timer = 0;
    const start = function () {
      clearTimeout(timer);
      timer = setTimeout(() => ((timer = 0), run()), wait);
    };
    start.drop = () => (clearTimeout(timer), (timer = 0));
    start.now = () => timer && (start.drop(), run());
    return start;
  };

  /** Says something to everybody, also to those who do not see the page. */
  d4k.say = function (text) {
    const place = document.getElementById("said");
    place.textContent = text;
    place.classList.add("shown");
    clearTimeout(d4k.say.timer);
    d4k.say.timer = setTimeout(() => place.classList.remove("shown"), 2500);
  };

  /** Puts a text on the clipboard; where the browser refuses, shows it for copying by hand. */
  d4k.copy = async function (text, done) {
    try {
      await navigator.clipboard.writeText(text);
      d4k.say(done);
    } catch (error) {
      window.prompt("Copy this text:", text);
    }
  };

  d4k.calm = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;
})(window.d4k);
