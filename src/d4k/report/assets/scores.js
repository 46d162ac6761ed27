"use strict";
/* The first view: the table with intervals, and which differences are real. */
(function (d4k) {
  const { el, model } = d4k;
  const view = (d4k.views.scores = { title: "Scores", keys: [] });
  let made = false;
  let base = 0;

  view.show = function (params) {
    const asked = model.setIndex(params.get("with"));
    const changed = asked >= 0 && asked !== base;
    if (!made) base = asked >= 0 ? asked : usualBase();
    if (changed) base = asked;
    if (!made || changed) fillTable();
    if (!made) {
      document.getElementById("differences").replaceChildren(...differences());
      d4k.about();
    }
    made = true;
  };
  view.hide = () => {};

  function usualBase() {
    const first = model.sets.findIndex((set) => !set.photograph);
    return first >= 0 ? first : 0;
  }

  function fillTable() {
    const options = model.sets.map((set) => [set.id, set.name]);
    const chosen = model.sets.length ? model.sets[base].id : "";
    const pick = d4k.choice("Compare with", options, chosen, (id) => d4k.route.go("scores", { with: id }), { id: "base" });
    document.getElementById("compare-with").replaceChildren(model.sets.length > 1 ? pick : "");
    document.getElementById("table").replaceChildren(table());
  }

  function table() {
    const axes = model.metrics.map((_, m) => axisOf(m));
    const head = el("tr", { role: "row" }, el("th", { scope: "col", role: "columnheader", text: "Set" }));
    model.metrics.forEach((metric, m) => head.append(heading(metric, m)));
    const body = el("tbody", { role: "rowgroup" });
    model.sets.forEach((set, s) => body.append(line(set, s, axes)));
    return el(
      "table",
      { class: "scores", role: "table", "aria-label": "Scores with 95 % intervals" },
      el("thead", { role: "rowgroup" }, head),
      body
    );
  }

  function axisOf(m) {
    const values = [];
    for (const scores of model.data.scores) {
      if (scores[m]) values.push(scores[m].value, ...(scores[m].interval || []));
    }
    return d4k.axis(values);
  }

  function heading(metric, m) {
    const direction = model.direction(metric);
    return el(
      "th",
      { scope: "col", role: "columnheader" },
      d4k.button(metric.name, () => d4k.showMetric(m), {
        class: "name",
        title: `${metric.name}: ${direction.text}. Remarks and settings below.`,
      }),
      el("span", { class: "small", text: `${direction.mark} ${direction.text}` }),
      metric.unit ? el("span", { class: "small", text: `in ${metric.unit}` }) : null,
      metric.remarks.length ? el("span", { class: "small", text: d4k.count(metric.remarks.length, "remark") }) : null
    );
  }

  function line(set, s, axes) {
    const faults = model.data.faults.filter((fault) => fault.set === s && fault.leftOut).length;
    const pictures = model.rows.filter((row) => row.pictures[s]).length;
    const row = el(
      "tr",
      { role: "row", class: s === base ? "base" : null },
      el(
        "th",
        { scope: "row", role: "rowheader" },
        el("span", { class: "set", text: set.name }),
        el("span", { class: "small", text: d4k.count(pictures, "picture") + (set.photograph ? ", photographs" : "") }),
        faults ? el("span", { class: "small fault", text: `! ${faults} left out` }) : null
      )
    );
    model.metrics.forEach((metric, m) => row.append(cell(metric, s, m, axes[m])));
    return row;
  }

  function cell(metric, s, m, axis) {
    const score = model.data.scores[s][m];
    const place = el("td", { role: "cell", "data-metric": metric.name, "data-unit": metric.unit });
    if (!score || !axis) return fillEmpty(place);
    const decimals = placesOf(m);
    const basis = model.data.scores[base][m];
    const found = s === base ? null : model.comparison(metric.name, base, s);
    const verdict = found ? model.verdict(found) : null;
    place.append(
      el("span", { class: "value", text: d4k.figure(score.value, decimals) }),
      verdict ? badge(verdict, found) : unjudged(s),
      d4k.whisker(axis, score.value, score.interval, {
        guide: s !== base && basis ? basis.value : null,
        kind: verdict ? verdict.kind : "plain",
      }),
      el("span", { class: "small", text: d4k.span(score.interval, decimals) || "no interval" }),
      el("span", { class: "small count", text: `n = ${score.count}` }),
      score.references ? el("span", { class: "small count", text: d4k.count(score.references, "reference") }) : ""
    );
    return place;
  }

  function fillEmpty(place) {
    place.append(el("span", { class: "small", text: "not measured" }));
    return place;
  }

  function placesOf(m) {
    const scores = model.data.scores.map((all) => all[m]).filter(Boolean);
    return Math.max(...scores.map((score) => d4k.decimals(score.value, halfOf(score.interval))));
  }

  function unjudged(s) {
    if (model.sets.length < 2) return "";
    return el("span", { class: "badge basis", text: s === base ? "basis" : "not compared" });
  }

  const halfOf = (interval) => (interval && d4k.known(interval[0]) ? (interval[1] - interval[0]) / 2 : null);

  function badge(verdict, found) {
    const by = d4k.figure(found.difference, d4k.decimals(found.difference, halfOf(found.interval)), true);
    return el(
      "span",
      { class: `badge ${verdict.kind}`, title: `${by} against ${model.sets[found.a].name}: ${verdict.text}` },
      el("span", { "aria-hidden": "true", text: `${verdict.mark} ` }),
      `${verdict.word} ${by}`
    );
  }

  /** Every pair of sets, metric by metric. */
  function differences() {
    const all = model.data.comparisons;
    if (!all.length) return [el("p", { class: "quiet", text: "There is one set, so there is nothing to compare." })];
    const real = all.filter((found) => found.real).length;
    const body = el("tbody", { role: "rowgroup" });
    for (const metric of model.metrics) {
      const group = all.filter((found) => found.metric === metric.name);
      const axis = d4k.axis([0, ...group.flatMap((found) => [found.difference, ...(found.interval || [])])]);
      for (const found of group) body.append(difference(metric, found, axis));
    }
    const names = ["Metric", "Pair", "Difference", "95 % interval", "Wins, ties, losses", "p", "p (Holm)", "Verdict"];
    const head = el("tr", { role: "row" }, names.map((text) => el("th", { scope: "col", role: "columnheader", text })));
    const text = `${real} of ${d4k.count(all.length, "difference")} ${real === 1 ? "is" : "are"} real: the 95 % interval leaves out zero.`;
    return [
      el("p", { text }),
      el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Differences" },
        el("table", { class: "differences", role: "table" }, el("thead", { role: "rowgroup" }, head), body)),
    ];
  }

  const chance = (p) => (d4k.known(p) ? (p < 0.001 ? "< 0.001" : d4k.figure(p, 3)) : "–");

  function difference(metric, found, axis) {
    const verdict = model.verdict(found);
    const decimals = d4k.decimals(found.difference, halfOf(found.interval));
    const cells = [
      ["Metric", metric.name],
      ["Pair", `${model.sets[found.b].name} − ${model.sets[found.a].name}`],
      ["Difference", [d4k.figure(found.difference, decimals, true), metric.unit ? ` ${metric.unit}` : ""]],
      ["95 % interval", [d4k.whisker(axis, found.difference, found.interval, { guide: 0, kind: verdict.kind }),
        el("span", { class: "small", text: d4k.span(found.interval, decimals, true) || "none" })]],
      ["Wins, ties, losses", `${found.wins}, ${found.ties}, ${found.losses} of ${found.count}`],
      ["p", chance(found.p)],
      ["p (Holm)", chance(found.pAdjusted)],
      ["Verdict", el("span", { class: `badge ${verdict.kind}`, title: verdict.text },
        el("span", { "aria-hidden": "true", text: `${verdict.mark} ` }), verdict.word)],
    ];
    const row = el("tr", { role: "row", class: found.real ? "real" : null });
    for (const [name, content] of cells) row.append(el("td", { role: "cell", "data-name": name }, content));
    return row;
  }
})(window.d4k);
