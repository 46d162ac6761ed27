"use strict";
/* What metrics say of parts of a picture: heat maps over the panes, and the worst and best patches below them. */
(function (d4k) {
  const { el, model } = d4k;
  const view = d4k.views.view;
  const state = view.state;
  const $ = (id) => document.getElementById(id);
  const shownPictures = () => state.sets.map((index) => model.rows[state.row].pictures[index]);

  /** Names of the metrics that have patches, or a heat map, in some picture that is shown. */
  view.patchMetrics = function () {
    const pictures = shownPictures().filter(Boolean);
    return model.metrics.map((metric) => metric.name).filter((name) => pictures.some((picture) => picture.heat[name] || picture.patches[name]));
  };

  view.nextMetric = function () {
    const all = view.patchMetrics();
    if (all.length > 1) view.change({ metric: all[(all.indexOf(state.metric) + 1) % all.length] });
  };

  /** Lays the heat map of the metric over a pane, or takes it away. */
  view.layHeat = function (pane) {
    if (pane.heat) {
      pane.viewer.removeOverlay(pane.heat);
      pane.heat = null;
    }
    const heat = state.heat && pane.picture.heat[state.metric];
    if (!heat) return;
    const patch = model.metric(state.metric).patch || pane.picture.width / heat.columns;
    pane.heat = el("img", { class: "heat", src: heat.file, alt: `Heat map of ${state.metric} over ${pane.label}` });
    const size = [heat.columns * patch, heat.rows * patch].map((length) => length / pane.picture.width);
    pane.viewer.addOverlay({ element: pane.heat, location: new window.OpenSeadragon.Rect(0, 0, ...size) });
  };

  /** The colours of the heat map, with the scores that its ends stand for. */
  view.legend = function () {
    const heat = shownPictures().map((picture) => picture && picture.heat[state.metric]).find(Boolean);
    if (!heat) return null;
    const decimals = d4k.decimals(heat.high, heat.high - heat.low);
    const unit = model.metric(state.metric).unit;
    return el("span", { class: "legend" },
      el("span", { class: "small", text: `low ${d4k.figure(heat.low, decimals)}` }),
      el("span", { class: "viridis", role: "img", "aria-label": "from dark violet, low, to yellow, high" }),
      el("span", { class: "small", text: `high ${d4k.figure(heat.high, decimals)}${unit ? " " + unit : ""}` }));
  };

  /** A square of a picture at `size` screen pixels, made of the tiles that have it. */
  view.crop = function (picture, patch, size) {
    const { tiles } = picture;
    const scale = size / patch.size;
    const level = tiles.levels[tiles.maxLevel];
    const place = el("span", { class: "crop", css: { width: `${size}px`, height: `${size}px` } });
    const last = (start) => Math.floor((start + patch.size - 1) / tiles.tileSize);
    for (let row = Math.floor(patch.y / tiles.tileSize); row <= Math.min(level.rows - 1, last(patch.y)); row++) {
      for (let column = Math.floor(patch.x / tiles.tileSize); column <= Math.min(level.columns - 1, last(patch.x)); column++) {
        const [left, top] = [column * tiles.tileSize, row * tiles.tileSize];
        place.append(el("img", {
          src: `${tiles.path}/${tiles.maxLevel}/${column}_${row}.${level.format}`,
          alt: "",
          loading: "lazy",
          decoding: "async",
          css: {
            left: `${(left - patch.x) * scale}px`,
            top: `${(top - patch.y) * scale}px`,
            width: `${Math.min(tiles.tileSize, level.width - left) * scale}px`,
            height: `${Math.min(tiles.tileSize, level.height - top) * scale}px`,
          },
        }));
      }
    }
    return place;
  };

  let drawn = "";

  /** Worst and best patches of the sets that are shown, side by side. */
  view.patches = function () {
    const metrics = view.patchMetrics();
    const key = `${state.row}/${state.sets.join()}/${state.metric}`;
    $("patches-part").hidden = !metrics.length;
    if (key === drawn || !metrics.length) return;
    drawn = key;
    const pick = metrics.length > 1
      ? d4k.choice("Metric", metrics.map((name) => [name, name]), state.metric, (metric) => view.change({ metric }), { id: "patch-metric" })
      : el("p", { class: "quiet", text: state.metric });
    const focused = document.activeElement && document.activeElement.id === "patch-metric";
    $("patch-pick").replaceChildren(pick);
    if (focused) $("patch-metric").focus();
    $("patches").replaceChildren(...state.sets.map(patchesOf));
  };

  function patchesOf(index) {
    const picture = model.rows[state.row].pictures[index];
    const found = picture && picture.patches[state.metric];
    const place = el("div", { class: "of-set" }, el("h4", { text: model.sets[index].name }));
    if (!found) {
      place.append(el("p", { class: "quiet", text: "no patches" }));
      return place;
    }
    const ordered = model.metric(state.metric).higherIsBetter !== null;
    for (const [name, text] of [["worst", ordered ? "Worst" : "Lowest"], ["best", ordered ? "Best" : "Highest"]]) {
      place.append(
        el("div", { class: "strip" }, el("span", { class: "small", text }),
          el("div", { class: "crops" }, found[name].map((patch) => patchButton(index, picture, patch, text))))
      );
    }
    return place;
  }

  function patchButton(index, picture, patch, text) {
    const value = d4k.figure(patch.value);
    return el("button", {
      type: "button",
      class: "patch",
      "aria-label": `${text} patch of ${model.sets[index].name}: ${state.metric} ${value}, at x ${patch.x}, y ${patch.y}. Go there.`,
      on: { click: () => jump(picture, patch) },
    }, view.crop(picture, patch, 80), el("span", { class: "small", text: value }));
  }

  /** Shows a patch in all panes, with some of what is around it. */
  function jump(picture, patch) {
    const first = view.panes.width;
    const share = first / picture.width;
    const pane = view.panes.leader.element;
    const side = Math.min(pane.clientWidth, pane.clientHeight) * (window.devicePixelRatio || 1);
    const z = Math.max(1, Math.floor(side / (patch.size * share * 1.5)));
    view.change({}, { x: (patch.x + patch.size / 2) * share, y: (patch.y + patch.size / 2) * share, z });
    $("stage").scrollIntoView({ block: "nearest" });
  }

  /** What is known of each picture that is shown. */
  view.facts = function () {
    const pictures = shownPictures();
    const text = (read) => pictures.map((picture) => (picture ? read(picture) : "–"));
    const lines = [
      ["File", text((picture) => picture.name)],
      ["Size", text((picture) => `${picture.width} × ${picture.height}`)],
      ["Seed", text((picture) => (picture.seed === null ? "–" : String(picture.seed)))],
      ...model.perPicture.map((metric) => [metric.name + (metric.unit ? `, ${metric.unit}` : ""),
        state.sets.map((index) => d4k.figure(model.value(model.rows[state.row], index, metric.name), model.places(metric.name)))]),
      ["SHA-256", pictures.map((picture) => (picture ? el("code", { title: picture.sha256, text: `${picture.sha256.slice(0, 12)}…` }) : "–"))],
    ];
    $("facts").replaceChildren(
      el("table", { class: "facts" },
        el("thead", {}, el("tr", {}, el("td"), state.sets.map((index) => el("th", { scope: "col", text: model.sets[index].name })))),
        el("tbody", {}, lines.map(([name, values]) => el("tr", {}, el("th", { scope: "row", text: name }), values.map((value) => el("td", {}, value)))))));
  };

  /** A small picture that shows where the panes are; a click goes there. */
  view.minimap = function () {
    const map = $("minimap");
    const { panes } = view;
    if (!panes.leader || !panes.leader.ready) return;
    map.hidden = panes.spot === null;
    if (map.hidden) return;
    const { picture } = panes.first;
    const image = map.querySelector("img");
    if (image.getAttribute("src") !== picture.thumb) image.setAttribute("src", picture.thumb);
    const bounds = panes.leader.viewer.viewport.getBounds(true);
    const deep = picture.height / picture.width;
    const cut = (value) => Math.max(0, Math.min(1, value));
    const [left, right] = [cut(bounds.x), cut(bounds.x + bounds.width)];
    const [top, bottom] = [cut(bounds.y / deep), cut((bounds.y + bounds.height) / deep)];
    const frame = map.querySelector("span");
    for (const [name, share] of [["left", left], ["top", top], ["width", right - left], ["height", bottom - top]]) {
      frame.style[name] = `${share * 100}%`;
    }
    map.onclick = function (event) {
      const box = image.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * picture.width;
      const y = ((event.clientY - box.top) / box.height) * picture.height;
      panes.go({ x, y, z: panes.where().z });
    };
  };
})(window.d4k);
