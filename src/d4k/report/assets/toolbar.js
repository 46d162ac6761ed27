"use strict";
/* The viewer's controls and keys. They are made once, and say what the state is. */
(function (d4k) {
  const { el, model } = d4k;
  const view = d4k.views.view;
  const state = view.state;
  const $ = (id) => document.getElementById(id);
  const pressed = (button, on) => button.setAttribute("aria-pressed", String(on));
  const controls = {};

  view.buildToolbar = function () {
    const step = (by, text, label) => d4k.button(text, () => view.step(by), { "aria-label": label, title: label, class: "icon" });
    controls.where = el("span", { class: "small" });
    controls.prompt = el("h2", { class: "prompt", id: "view-prompt", tabindex: -1 });
    $("view-row").replaceChildren(step(-1, "‹", "Row before (P)"), step(1, "›", "Next row (N)"), controls.where, controls.prompt);

    controls.sets = model.sets.map((set, index) =>
      d4k.button(set.name, () => view.toggleSet(index), { title: index < 9 ? `Show or hide (${index + 1})` : "Show or hide" }));
    $("view-sets").replaceChildren(...controls.sets);

    controls.modes = view.modes.map(([mode, text, key]) =>
      d4k.button(text, () => view.setMode(mode), { title: `${text} (${key})`, "data-mode": mode }));
    $("view-modes").replaceChildren(...controls.modes);

    const zoom = (text, label, run) => d4k.button(text, run, { "aria-label": label, title: label });
    $("view-zoom").replaceChildren(
      zoom("−", "Zoom out (-)", () => view.panes.zoomBy(0.5)),
      zoom("+", "Zoom in (+)", () => view.panes.zoomBy(2)),
      zoom("Fit", "Show all of it (0)", () => view.panes.go(null)),
      zoom("1:1", "One screen pixel a pixel (Z)", () => view.panes.zoomTo(1)),
      zoom("8:1", "Eight screen pixels a pixel (X)", () => view.panes.zoomTo(8)),
      zoom("32:1", "Thirty-two screen pixels a pixel (C)", () => view.panes.zoomTo(32))
    );
    $("view-link").replaceChildren(
      d4k.button("Copy link", copyLink, { title: "Copy a link to this spot (L)" }),
      d4k.button("Full screen", fullScreen, { title: "Full screen (E)" })
    );
    buildDivider();
  };

  view.refreshToolbar = function () {
    const row = model.rows[state.row];
    const sequence = d4k.views.pictures.sequence();
    const position = sequence.indexOf(state.row);
    controls.where.textContent = `${(position < 0 ? state.row : position) + 1} / ${position < 0 ? model.rows.length : sequence.length}`;
    controls.prompt.textContent = model.title(row);
    controls.sets.forEach((button, index) => pressed(button, state.sets.includes(index)));
    controls.modes.forEach((button) => {
      pressed(button, button.dataset.mode === state.mode);
      button.disabled = state.sets.length < 2 && ["wipe", "difference"].includes(button.dataset.mode);
    });
    fillTools();
    const divider = $("divider");
    divider.hidden = state.mode !== "wipe";
    divider.setAttribute("aria-valuenow", String(Math.round(state.wipe * 100)));
  };

  /** What only some modes have: the pair, the gain; and the heat map. */
  function fillTools() {
    const focused = document.activeElement && document.activeElement.id;
    const sets = state.sets.map((index) => [index, model.sets[index].name]);
    const parts = [];
    if (["wipe", "difference"].includes(state.mode) && state.sets.length > 1) {
      const pick = (label, place) => d4k.choice(label, sets, state.pair[place], (index) => pickPair(place, Number(index)), { id: `pair-${place}` });
      parts.push(pick("Below", 0), pick("Above", 1));
    }
    if (state.mode === "difference") {
      const gains = view.gains.map((gain) => [gain, `× ${gain}`]);
      parts.push(d4k.choice("Gain", gains, state.gain, (gain) => view.adjust({ gain: Number(gain) }), { id: "gain" }));
      if (unequal()) parts.push(el("span", { class: "note small", text: "The pictures differ in size: they are compared scaled." }));
    }
    if (state.mode === "flicker") {
      parts.push(d4k.button(`Next: ${model.sets[state.sets[(state.turn + 1) % state.sets.length]].name}`, () => view.nextTurn(1), { id: "next-turn", title: "Next picture (F or Space)" }));
    }
    const metrics = view.patchMetrics();
    if (metrics.length && state.mode !== "difference") {
      const toggle = d4k.button("Heat map", () => view.change({ heat: !state.heat }), { id: "heat", title: "Heat map of patches (H)" });
      pressed(toggle, state.heat);
      parts.push(toggle);
      if (state.heat) parts.push(...heatTools(metrics));
    }
    $("view-tools").replaceChildren(...parts);
    if (focused && !document.activeElement.id && $(focused)) $(focused).focus();
  }

  function heatTools(metrics) {
    const opacity = el("input", {
      type: "range", id: "alpha", min: 0, max: 100, value: Math.round(state.alpha * 100),
      on: { input: (event) => {
        state.alpha = Number(event.target.value) / 100;
        $("stage").style.setProperty("--heat", state.alpha);
      } },
    });
    return [
      metrics.length > 1 ? d4k.choice("of", metrics.map((name) => [name, name]), state.metric, (metric) => view.change({ metric }), { id: "heat-of" }) : null,
      el("label", { class: "choice" }, el("span", { text: "Opacity" }), opacity),
      view.legend(),
    ].filter(Boolean);
  }

  const pairPictures = () => state.pair.map((index) => model.rows[state.row].pictures[index]);

  function unequal() {
    const [one, other] = pairPictures();
    return one && other && (one.width !== other.width || one.height !== other.height);
  }

  function pickPair(place, index) {
    const pair = [...state.pair];
    if (pair[1 - place] === index) pair[1 - place] = pair[place];
    pair[place] = index;
    view.change({ pair });
  }

  function copyLink() {
    d4k.copy(view.address(), "The link is copied.");
  }

  function fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if ($("stage").requestFullscreen) $("stage").requestFullscreen().catch(() => d4k.say("The browser refuses full screen."));
    else d4k.say("This browser has no full screen.");
  }

  function buildDivider() {
    const divider = $("divider");
    const set = (wipe) => view.adjust({ wipe: Math.max(0, Math.min(1, wipe)) });
    divider.addEventListener("pointerdown", (event) => divider.setPointerCapture(event.pointerId));
    divider.addEventListener("pointermove", function (event) {
      if (!divider.hasPointerCapture(event.pointerId)) return;
      const box = $("panes").getBoundingClientRect();
      set((event.clientX - box.left) / box.width);
    });
    divider.addEventListener("keydown", function (event) {
      const by = { ArrowLeft: -0.02, ArrowRight: 0.02, PageUp: 0.1, PageDown: -0.1, Home: -1, End: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      set(state.wipe + by);
    });
  }

  const ratioText = (z) => (z >= 1 ? `${Number(z.toFixed(z < 10 ? 2 : 1))} : 1` : `1 : ${Number((1 / z).toFixed(2))}`);
  view.zoomed = (z) => ($("zoom").textContent = ratioText(z));

  /** What lies under the cursor: a pixel of that picture. */
  view.pointed = function (place) {
    if (!place) {
      $("cursor").textContent = "";
      return;
    }
    const { width, height } = place.pane.picture;
    const [x, y] = [Math.floor(place.x * width), Math.floor(place.y * width)];
    const inside = x >= 0 && y >= 0 && x < width && y < height;
    $("cursor").textContent = inside ? `x ${x}, y ${y} of ${place.pane.label}` : "";
  };

  const pan = (right, down) => (event) => view.panes.panBy(right * (event.shiftKey ? 8 : 96), down * (event.shiftKey ? 8 : 96));
  const shift = (by) => () =>
    state.mode === "difference"
      ? view.adjust({ gain: view.gains[Math.max(0, Math.min(view.gains.length - 1, view.gains.indexOf(state.gain) + by))] })
      : state.mode === "wipe" && view.adjust({ wipe: Math.max(0, Math.min(1, state.wipe + by * 0.05)) });
  view.keys = [
    { keys: ["n", "j"], label: "N or J", does: "next row", run: () => view.step(1) },
    { keys: ["p", "k"], label: "P or K", does: "row before", run: () => view.step(-1) },
    { keys: ["ArrowLeft"], label: "← → ↑ ↓", does: "move; with Shift in small steps", run: pan(-1, 0) },
    { keys: ["ArrowRight"], run: pan(1, 0) },
    { keys: ["ArrowUp"], run: pan(0, -1) },
    { keys: ["ArrowDown"], run: pan(0, 1) },
    { keys: ["+", "="], label: "+ and −", does: "zoom in and out", run: () => view.panes.zoomBy(1.5) },
    { keys: ["-", "_"], run: () => view.panes.zoomBy(1 / 1.5) },
    { keys: ["0"], label: "0", does: "show all of it", run: () => view.panes.go(null) },
    { keys: ["z"], label: "Z, X, C", does: "1:1, 8:1, 32:1", run: () => view.panes.zoomTo(1) },
    { keys: ["x"], run: () => view.panes.zoomTo(8) },
    { keys: ["c"], run: () => view.panes.zoomTo(32) },
    { keys: ["s"], label: "S", does: "side by side", run: () => view.setMode("side") },
    { keys: ["v"], label: "V", does: "stacked", run: () => view.setMode("stack") },
    { keys: ["f", " "], label: "F or Space", does: "flicker; again: the next picture", run: () => view.setMode("flicker") },
    { keys: ["w"], label: "W", does: "slider", run: () => view.setMode("wipe") },
    { keys: ["d"], label: "D", does: "difference", run: () => view.setMode("difference") },
    { keys: ["["], label: "[ and ]", does: "move the slider, or change the gain of the difference", run: shift(-1) },
    { keys: ["]"], run: shift(1) },
    { keys: ["h"], label: "H", does: "heat map on or off", run: () => state.metric && view.change({ heat: !state.heat }) },
    { keys: ["m"], label: "M", does: "the next metric with patches", run: () => view.nextMetric() },
    { keys: ["l"], label: "L", does: "copy a link to this spot", run: copyLink },
    { keys: ["e"], label: "E", does: "full screen", run: fullScreen },
    ...[1, 2, 3, 4, 5, 6, 7, 8, 9].map((digit) => ({
      keys: [String(digit)],
      label: digit === 1 ? "1 to 9" : null,
      does: "show or hide a set; in flicker: show it",
      run: () => view.number(digit),
    })),
  ];
})(window.d4k);
