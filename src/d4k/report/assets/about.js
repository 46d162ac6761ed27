"use strict";
/* Below the table: histograms, what each metric was measured with, faults of files, votes, licences and downloads. */
(function (d4k) {
  const { el, model } = d4k;
  const into = (id, ...children) => document.getElementById(id).replaceChildren(...children.flat(Infinity));
  const quiet = (text) => el("p", { class: "quiet", text });

  d4k.about = function () {
    into("histograms", histograms());
    into("metrics", model.metrics.map(metricDetails));
    into("sets", model.sets.map(setDetails));
    into("faults", faults());
    into("voted", votes(model.data.votes));
    into("licences", licences());
    into("notes", (model.data.notes || []).map((text) => el("p", { class: "note", text })));
    const made = `Made ${model.data.created.replace("T", " ").replace(/(:\d\d)[.\d]*(Z|\+00:00)$/, "$1 UTC")} by d4k ${model.data.version}.`;
    into("made", made);
  };

  /** Opens what is said of a metric, and goes there. */
  d4k.showMetric = function (index) {
    const place = document.getElementById(`metric-${index}`);
    place.open = true;
    place.scrollIntoView({ block: "start", behavior: d4k.calm() ? "auto" : "smooth" });
    place.querySelector("summary").focus({ preventScroll: true });
  };

  function histograms() {
    const found = model.metrics.filter((metric) => model.data.histograms[metric.name]);
    if (!found.length) return quiet("No metric has values of single pictures.");
    return found.map((metric) => histogram(metric, model.data.histograms[metric.name]));
  }

  function histogram(metric, { edges, counts }) {
    const most = Math.max(1, ...counts.flat());
    const decimals = d4k.decimals(edges[edges.length - 1], edges[edges.length - 1] - edges[0]);
    const figure = el("figure", { class: "histogram" }, el("figcaption", { text: metric.name + (metric.unit ? `, ${metric.unit}` : "") }));
    model.sets.forEach(function (set, s) {
      const all = counts[s].reduce((sum, count) => sum + count, 0);
      const top = counts[s].indexOf(Math.max(...counts[s]));
      const label = all
        ? `${set.name}: ${d4k.count(all, "picture")}, most of them from ${d4k.figure(edges[top], decimals)} to ${d4k.figure(edges[top + 1], decimals)}`
        : `${set.name}: no pictures`;
      figure.append(el("div", { class: "spread" }, el("span", { class: "small", text: set.name }), d4k.bars(counts[s], most, label)));
    });
    figure.append(
      el("div", { class: "scale small", "aria-hidden": "true" },
        el("span", { text: d4k.figure(edges[0], decimals) }), el("span", { text: d4k.figure(edges[edges.length - 1], decimals) }))
    );
    return figure;
  }

  const plain = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value));

  /** A list of names and values. */
  function pairs(entries) {
    return el("dl", {}, entries.map(([name, value]) => [el("dt", { text: name }), el("dd", { text: plain(value) })]));
  }

  function metricDetails(metric, m) {
    const settings = Object.entries(metric.settings);
    const further = model.sets.flatMap(function (set, s) {
      const score = model.data.scores[s][m];
      const intervals = (score && score.detailIntervals) || {};
      return Object.entries((score && score.details) || {}).map(function ([name, value]) {
        const span = d4k.span(intervals[name]);
        return [`${set.name}: ${name}`, d4k.figure(value) + (span ? ` (${span})` : "")];
      });
    });
    const kind = metric.set ? "A figure of the whole set; single pictures have none." : "Each picture has a value.";
    return el(
      "details",
      { id: `metric-${m}` },
      el("summary", {}, el("b", { text: metric.name }), el("span", { class: "small", text: ` ${model.direction(metric).text}` })),
      el("p", { text: kind + (metric.patch ? ` Patches are ${metric.patch} pixels a side.` : "") }),
      metric.remarks.length ? el("ul", {}, metric.remarks.map((text) => el("li", { text }))) : null,
      el("h4", { text: "Settings" }),
      settings.length ? pairs(settings) : quiet("None."),
      further.length ? [el("h4", { text: "Further figures" }), pairs(further)] : null
    );
  }

  function setDetails(set) {
    const known = Object.entries(set.about);
    return el(
      "details",
      {},
      el("summary", {}, el("b", { text: set.name }), el("span", { class: "small", text: set.photograph ? " photographs" : " measured" })),
      pairs([["Licence", set.licence], ...known])
    );
  }

  function faults() {
    const all = model.data.faults;
    if (!all.length) return quiet("None: every file was measured as it lies.");
    const out = all.filter((fault) => fault.leftOut).length;
    const names = ["Set", "File", "Kind", "Reason", "Measured"];
    const body = all.map((fault) =>
      el("tr", { role: "row" },
        [model.sets[fault.set].name, fault.file, fault.kind, fault.reason, fault.leftOut ? "✕ left out" : "✓ measured"].map(
          (text, index) => el("td", { role: "cell", "data-name": names[index], text })))
    );
    return [
      el("p", { text: `${d4k.count(all.length, "file")} had something; ${out} of them ${out === 1 ? "was" : "were"} left out.` }),
      el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Faults of files" },
        el("table", { class: "faults", role: "table" },
          el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, names.map((text) => el("th", { scope: "col", role: "columnheader", text })))),
          el("tbody", { role: "rowgroup" }, body))),
    ];
  }

  /** What people voted: a line a pair, a column a figure. */
  function votes(given) {
    if (!given) return el("p", { class: "quiet" }, "Nobody has voted yet. The blind vote saves a file, which ", el("code", { text: "d4k report --votes" }), " takes.");
    const names = [...new Set(Object.values(given).flatMap((line) => Object.keys(line)))];
    const lines = Object.entries(given).map(([pair, line]) =>
      el("tr", { role: "row" }, el("th", { scope: "row", role: "rowheader", text: pair }),
        names.map((name) => el("td", { role: "cell", "data-name": name }, voted(line[name])))));
    return el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Votes" },
      el("table", { class: "faults", role: "table" },
        el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ["Pair", ...names].map((text) => el("th", { scope: "col", role: "columnheader", text })))),
        el("tbody", { role: "rowgroup" }, lines)));
  }

  function voted(value) {
    if (Array.isArray(value)) return d4k.span(value, 2) || "–";
    if (typeof value === "number") return d4k.figure(value, Number.isInteger(value) ? 0 : 2);
    return value === null || value === undefined ? "–" : plain(value);
  }

  function licences() {
    return model.data.licences.map((licence) =>
      el("details", {}, el("summary", { text: licence.name }), el("pre", { text: licence.text }))
    );
  }
})(window.d4k);
