"use strict";
/* The viewer: what is shown, how, and where. Its state is what the address holds; toolbar.js has its controls. */
(function (d4k) {
  const { el, model } = d4k;
  const view = (d4k.views.view = { title: "Viewer" });
  const $ = (id) => document.getElementById(id);
  const MODES = (view.modes = [
    ["side", "Side by side", "S"],
    ["stack", "Stacked", "V"],
    ["flicker", "Flicker", "F"],
    ["wipe", "Slider", "W"],
    ["difference", "Difference", "D"],
  ]);
  const GAINS = (view.gains = [1, 2, 4, 8, 16, 32]);
  const state = (view.state = {
    row: 0,
    sets: [],
    pair: [0, 0], // indices of sets; the second lies on top
    mode: "side",
    turn: 0, // position in `sets` of what flicker shows
    wipe: 0.5,
    gain: 4,
    metric: "",
    heat: false,
    alpha: 0.6,
  });
  let panes = null;
  let shown = ""; // row and sets that the panes hold

  view.show = function (params) {
    if (!model.rows.length) {
      $("stage").replaceChildren(el("p", { class: "absent", text: "This report has no pictures." }));
      return;
    }
    read(params);
    if (!panes) start();
    const key = `${state.row}/${state.sets.join()}`;
    const spot = spotOf(params);
    if (key !== shown) {
      shown = key;
      panes.onOpen = layHeat;
      layout();
      panes.open(state.sets.map(entry), spot);
      view.facts();
    } else {
      layout();
      panes.resized();
      panes.go(spot, !spot || d4k.calm());
    }
    refresh();
  };

  view.hide = function () {
    note.drop();
    if (panes) panes.close();
    shown = "";
  };

  function start() {
    panes = view.panes = new d4k.Panes($("panes"), { moved, pointed: view.pointed });
    view.buildToolbar();
    const watch = new ResizeObserver(d4k.later(() => panes.panes.length && panes.resized(), 60));
    watch.observe($("panes"));
  }

  /** The state from an address; what it does not say, or says of something that is gone, is as usual. */
  function read(params) {
    const asked = model.rowIndex(params.get("row"));
    if (asked < 0 && params.has("row")) d4k.say(`This report has no row ${params.get("row")}; the first one is shown.`);
    const row = asked >= 0 ? asked : params.has("row") ? 0 : state.row;
    const list = (name) => (params.get(name) || "").split(",").map(model.setIndex).filter((index) => index >= 0);
    const sets = [...new Set(list("sets"))].slice(0, 6);
    state.row = row;
    state.sets = sets.length ? sets : model.usual(model.rows[row]);
    if (!state.sets.length) state.sets = [0];
    const pair = list("pair").filter((index) => state.sets.includes(index));
    state.pair = pair.length === 2 ? pair : usualPair(state.sets);
    const usualMode = window.innerWidth < 700 ? "stack" : "side";
    state.mode = MODES.some(([name]) => name === params.get("mode")) ? params.get("mode") : usualMode;
    state.turn = Math.min(Math.max(0, state.sets.indexOf(model.setIndex(params.get("turn")))), state.sets.length - 1);
    const number = (name, usual) => (params.has(name) && d4k.known(Number(params.get(name))) ? Number(params.get(name)) : usual);
    state.wipe = Math.max(0, Math.min(1, number("wipe", 0.5)));
    state.gain = GAINS.includes(number("gain", 4)) ? number("gain", 4) : 4;
    const metrics = view.patchMetrics();
    state.metric = metrics.includes(params.get("metric")) ? params.get("metric") : metrics.includes(state.metric) ? state.metric : metrics[0] || "";
    state.heat = params.get("heat") === "1" && Boolean(state.metric);
  }

  const usualPair = (sets) => [sets[Math.max(0, sets.length - 2)], sets[sets.length - 1]];

  function spotOf(params) {
    const [x, y, z] = ["x", "y", "z"].map((name) => (params.has(name) ? Number(params.get(name)) : NaN));
    return d4k.known(x) && d4k.known(y) && z > 0 ? { x, y, z } : null;
  }

  /** The state as an address has it. */
  view.params = function (spot) {
    const ids = (indices) => indices.map((index) => model.sets[index].id).join(",");
    const here = spot === undefined ? panes && panes.spot : spot;
    const round = (value, digits) => (here ? Number(value.toFixed(digits)) : null);
    return {
      row: model.rows[state.row].id,
      sets: ids(state.sets),
      pair: ids(state.pair) === ids(usualPair(state.sets)) ? null : ids(state.pair),
      mode: state.mode,
      turn: state.mode === "flicker" ? model.sets[state.sets[state.turn]].id : null,
      wipe: state.mode === "wipe" && state.wipe !== 0.5 ? Number(state.wipe.toFixed(3)) : null,
      gain: state.mode === "difference" && state.gain !== 4 ? state.gain : null,
      metric: state.metric,
      heat: state.heat ? 1 : null,
      x: here && round(here.x, 3),
      y: here && round(here.y, 3),
      z: here && round(here.z, 5),
    };
  };

  const note = d4k.later(() => d4k.route.view === "view" && d4k.route.note("view", view.params(), false), 250);

  /** Goes on with some of the state changed: an entry of the history. */
  view.change = function (changes, spot) {
    note.now();
    Object.assign(state, changes);
    d4k.route.go("view", view.params(spot));
  };

  /** Changes that need no entry of their own, such as the slider's. */
  view.adjust = function (changes) {
    Object.assign(state, changes);
    layout();
    refresh();
    note();
  };

  view.address = function () {
    return window.location.href.replace(/#.*/s, "") + d4k.route.hash("view", view.params());
  };

  function entry(index) {
    const row = model.rows[state.row];
    const picture = row.pictures[index];
    const set = model.sets[index];
    const size = picture ? `, ${picture.width} by ${picture.height} pixels` : "";
    return { label: set.name, alt: `${set.name}: ${model.title(row)}${size}`, picture };
  }

  /** Where the panes lie follows from the mode, which style.css reads. */
  function layout() {
    const stage = $("stage");
    stage.dataset.mode = state.mode;
    const on = (index, position) => {
      if (state.mode === "flicker") return position === state.turn ? "under" : "";
      if (state.mode === "wipe" || state.mode === "difference") {
        return index === state.pair[1] ? "over" : index === state.pair[0] ? "under" : "";
      }
      return "free";
    };
    stage.style.setProperty("--panes", state.sets.length);
    stage.style.setProperty("--wipe", `${(state.wipe * 100).toFixed(2)}%`);
    stage.style.setProperty("--gain", state.gain);
    stage.style.setProperty("--heat", state.alpha);
    stage.classList.toggle("heated", state.heat);
    layout.roles = state.sets.map(on);
    applyRoles();
  }

  function applyRoles() {
    for (const pane of panes ? panes.panes : []) {
      const role = layout.roles[Number(pane.element.dataset.pane)];
      pane.element.dataset.role = pane.caption.dataset.role = role;
      pane.element.setAttribute("aria-hidden", String(role === ""));
      pane.caption.querySelector(".label").textContent = labelOf(pane, role);
      if (role && role !== "over" && pane.ready && panes.leader && panes.leader.element.dataset.role === "") panes.lead(pane);
    }
  }

  function labelOf(pane, role) {
    if (state.mode !== "difference" || role !== "under") return pane.label;
    return `${model.sets[state.pair[0]].name} against ${model.sets[state.pair[1]].name}, difference × ${state.gain}`;
  }

  function moved(here) {
    view.zoomed(here.z);
    view.minimap();
    note();
  }

  function layHeat() {
    for (const pane of panes.panes) if (pane.ready) view.layHeat(pane);
    applyRoles();
  }

  function refresh() {
    applyRoles();
    if (panes.panes.every((pane) => pane.ready || !pane.viewer)) layHeat();
    view.refreshToolbar();
    view.patches();
  }

  /** The row that comes `by` rows on in the order of the list. */
  view.step = function (by) {
    const sequence = d4k.views.pictures.sequence();
    const here = sequence.indexOf(state.row);
    const next = sequence[Math.max(0, Math.min(sequence.length - 1, (here < 0 ? 0 : here) + by))];
    if (next !== state.row) view.change({ row: next }, null);
    else d4k.say(by > 0 ? "This is the last row." : "This is the first row.");
  };

  view.setMode = function (mode) {
    if (mode === "flicker" && state.mode === "flicker") view.nextTurn(1);
    else if (mode !== state.mode) view.change({ mode });
  };

  view.nextTurn = function (by) {
    const turn = (state.turn + by + state.sets.length) % state.sets.length;
    view.adjust({ turn });
    d4k.say(model.sets[state.sets[turn]].name);
  };

  /** Shows or hides a set; the last one stays. */
  view.toggleSet = function (index) {
    const sets = state.sets.includes(index)
      ? state.sets.filter((other) => other !== index)
      : [...state.sets, index].sort((one, other) => one - other);
    if (!sets.length) return d4k.say("One set stays.");
    if (sets.length > 6) return d4k.say("Six sets at most are shown at once.");
    const keep = state.pair[0] !== state.pair[1] && state.pair.every((one) => sets.includes(one));
    view.change({ sets, pair: keep ? state.pair : usualPair(sets), turn: 0 });
  };

  view.number = function (digit) {
    const index = digit - 1;
    if (state.mode === "flicker") {
      if (index < state.sets.length) view.adjust({ turn: index });
    } else if (index < model.sets.length) view.toggleSet(index);
  };
})(window.d4k);
