"use strict";
/* A row a prompt. Only the rows in sight exist as elements, so 3,000 of them are as fast as ten. */
(function (d4k) {
  const { el, model } = d4k;
  const SPARE = 4; // rows that are made above and below those in sight
  const view = (d4k.views.pictures = { title: "Pictures" });
  const order = { metric: "", of: 0, minus: null, down: true, query: "" };
  let found = []; // row numbers, in the order shown
  let made = new Map(); // position in `found` to its element
  let at = 0; // the position that has the focus, or had it last
  let height = 0;
  let grid = null;

  view.show = function (params) {
    grid = document.getElementById("rows");
    order.metric = model.metric(params.get("sort")) ? params.get("sort") : "";
    order.of = Math.max(0, model.setIndex(params.get("of")));
    order.minus = model.setIndex(params.get("minus")) >= 0 ? model.setIndex(params.get("minus")) : null;
    order.down = params.get("order") !== "up";
    if (!order.metric && !params.get("order")) order.down = false;
    order.query = params.get("q") || "";
    fillControls();
    arrange(params.get("row"));
    window.addEventListener("scroll", draw, { passive: true });
    window.addEventListener("resize", relayout);
  };

  view.hide = function () {
    window.removeEventListener("scroll", draw);
    window.removeEventListener("resize", relayout);
    clear();
  };

  const params = () => ({
    sort: order.metric,
    of: order.metric ? model.sets[order.of].id : null,
    minus: order.metric && order.minus !== null ? model.sets[order.minus].id : null,
    order: order.down === Boolean(order.metric) ? null : order.down ? "down" : "up",
    q: order.query,
  });
  const note = d4k.later(() => d4k.route.view === "pictures" && d4k.route.note("pictures", params(), false), 200);

  function changed() {
    d4k.route.note("pictures", params(), true);
    fillControls();
    arrange();
  }

  function fillControls() {
    const sets = model.sets.map((set, index) => [index, set.name]);
    const sortings = [["", "Order of the set"], ...model.perPicture.map((metric) => [metric.name, metric.name])];
    const parts = [
      d4k.choice("Sort by", sortings, order.metric, function (name) {
        order.metric = name;
        order.down = Boolean(name);
        changed();
        document.getElementById("sort").focus();
      }, { id: "sort" }),
    ];
    if (order.metric) {
      parts.push(
        d4k.choice("of", sets, order.of, (index) => ((order.of = Number(index)), changed(), document.getElementById("sort-of").focus()), { id: "sort-of" }),
        d4k.choice("minus", [["", "nothing"], ...sets], order.minus === null ? "" : order.minus,
          (index) => ((order.minus = index === "" ? null : Number(index)), changed(), document.getElementById("sort-minus").focus()), { id: "sort-minus" })
      );
    }
    parts.push(
      d4k.button(order.down ? (order.metric ? "↓ highest first" : "↓ from the last") : order.metric ? "↑ lowest first" : "↑ from the first",
        () => ((order.down = !order.down), changed(), document.getElementById("sort-order").focus()),
        { id: "sort-order", title: "Turn the order around" })
    );
    document.getElementById("order").replaceChildren(...parts);
    const filter = document.getElementById("filter");
    if (filter.value !== order.query) filter.value = order.query;
    filter.oninput = function () {
      order.query = filter.value;
      arrange();
      note();
    };
  }

  function arrange(focusId) {
    found = model.select(order.query, order.metric ? order : { down: order.down });
    const wanted = focusId ? found.indexOf(model.rowIndex(focusId)) : -1;
    at = wanted >= 0 ? wanted : Math.min(at, Math.max(0, found.length - 1));
    const all = model.rows.length;
    document.getElementById("found").textContent =
      found.length === all ? d4k.count(all, "row") : `${found.length} of ${d4k.count(all, "row")}`;
    grid.setAttribute("aria-rowcount", String(found.length));
    document.getElementById("none").hidden = found.length > 0;
    relayout();
    if (wanted >= 0) reveal(at);
  }

  const narrow = () => grid.clientWidth < 700;

  /** All rows are equally tall, so that a place in the list is a multiplication. */
  function relayout() {
    const lines = model.perPicture.length;
    const sets = model.sets.length;
    const columns = Math.max(1, Math.min(sets, narrow() ? (grid.clientWidth < 360 ? 2 : 3) : Math.floor((grid.clientWidth - 200) / 240)));
    const deep = Math.ceil(sets / columns);
    height = narrow() ? 64 + deep * (112 + 18 * Math.min(lines, 3)) : 24 + deep * Math.max(112, 20 * lines + 16);
    grid.style.setProperty("--columns", columns);
    grid.style.setProperty("--row", `${height}px`);
    grid.style.height = `${height * found.length}px`;
    grid.classList.toggle("narrow", narrow());
    clear();
    draw();
  }

  function clear() {
    for (const element of made.values()) element.remove();
    made = new Map();
  }

  function inSight() {
    const top = -grid.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / height) - SPARE);
    const last = Math.min(found.length - 1, Math.ceil((top + window.innerHeight) / height) + SPARE);
    return [first, last];
  }

  function draw() {
    const [first, last] = inSight();
    for (const [position, element] of made) {
      if ((position < first || position > last) && position !== at) {
        element.remove();
        made.delete(position);
      }
    }
    for (let position = first; position <= last; position++) make(position);
    if (found.length) make(at);
  }

  function make(position) {
    if (made.has(position)) return;
    const element = rowOf(position);
    made.set(position, element);
    const after = [...made.keys()].filter((other) => other > position).sort((one, other) => one - other)[0];
    grid.insertBefore(element, after === undefined ? null : made.get(after));
  }

  function rowOf(position) {
    const row = model.rows[found[position]];
    const element = el("div", {
      class: "row",
      role: "row",
      "aria-rowindex": position + 1,
      "data-row": row.id,
      tabindex: position === at ? 0 : -1,
      css: { transform: `translateY(${position * height}px)` },
      on: { focus: () => settle(position) },
    });
    const key = order.metric ? model.key(row, order) : null;
    element.append(
      el("div", { class: "what", role: "rowheader" },
        el("a", { class: "prompt", href: link(row), tabindex: -1, text: model.title(row) }),
        el("span", { class: "small", text: row.prompt ? row.id : "no prompt" }),
        order.metric ? el("span", { class: "key", text: keyText(key) }) : null)
    );
    model.sets.forEach((set, s) => element.append(cell(row, set, s)));
    return element;
  }

  function keyText(key) {
    return `${order.metric} ${key === null ? "none" : d4k.figure(key, model.places(order.metric), order.minus !== null)}`;
  }

  const link = (row) => d4k.route.hash("view", { row: row.id, sets: model.usual(row).map((s) => model.sets[s].id).join(",") });

  function cell(row, set, s) {
    const picture = row.pictures[s];
    const place = el("div", { class: "picture", role: "gridcell" });
    if (!picture) {
      place.append(el("span", { class: "absent small", text: `${set.name}: no picture` }));
      return place;
    }
    const shown = narrow() ? lead() : model.perPicture;
    place.append(
      el("a", { href: link(row), tabindex: -1 },
        el("img", { src: picture.thumb, loading: "lazy", decoding: "async", alt: `${set.name}: ${model.title(row)}` })),
      el("div", { class: "figures" },
        el("span", { class: "set", text: set.name }),
        shown.map((metric) =>
          el("span", { class: metric.name === order.metric ? "figure sorted" : "figure" },
            el("span", { text: metric.name }),
            el("b", { text: d4k.figure(model.value(row, s, metric.name), model.places(metric.name)) }))))
    );
    return place;
  }

  /** The metrics that a narrow screen has room for: the one that is sorted by, and the first others. */
  function lead() {
    const first = model.perPicture.filter((metric) => metric.name === order.metric);
    return [...first, ...model.perPicture.filter((metric) => metric.name !== order.metric)].slice(0, 3);
  }

  function settle(position) {
    const old = made.get(at);
    if (old) old.tabIndex = -1;
    at = position;
    made.get(at).tabIndex = 0;
  }

  /** Scrolls so that a row can be seen, beneath what sticks to the top of the window. */
  function reveal(position) {
    const top = grid.getBoundingClientRect().top + window.scrollY + position * height;
    const bar = document.getElementById("sticky").getBoundingClientRect().height + 8;
    if (top < window.scrollY + bar) window.scrollTo(0, top - bar);
    else if (top + height > window.scrollY + window.innerHeight) window.scrollTo(0, top + height - window.innerHeight + 8);
    draw();
  }

  function move(position) {
    if (!found.length) return;
    const next = Math.max(0, Math.min(found.length - 1, position));
    reveal(next);
    make(next);
    made.get(next).focus({ preventScroll: true });
    draw();
  }

  const page = () => Math.max(1, Math.floor((window.innerHeight - 160) / height));
  const inGrid = () => grid && grid.contains(document.activeElement);
  view.keys = [
    { keys: ["ArrowDown", "j"], label: "↓ or J", does: "next row", run: () => move(inGrid() ? at + 1 : at) },
    { keys: ["ArrowUp", "k"], label: "↑ or K", does: "row before", run: () => move(inGrid() ? at - 1 : at) },
    { keys: ["PageDown"], label: "Page down", does: "a screen on", run: () => move(at + page()) },
    { keys: ["PageUp"], label: "Page up", does: "a screen back", run: () => move(at - page()) },
    { keys: ["Home"], label: "Home", does: "first row", run: () => move(0) },
    { keys: ["End"], label: "End", does: "last row", run: () => move(found.length - 1) },
    {
      keys: ["Enter"],
      label: "Enter",
      does: "open the row in the viewer",
      when: inGrid,
      run: () => (window.location.hash = link(model.rows[found[at]])),
    },
    { keys: ["/"], label: "/", does: "filter by prompt", run: () => document.getElementById("filter").focus() },
    { keys: ["o"], label: "O", does: "turn the order around", run: () => ((order.down = !order.down), changed()) },
  ];

  /** The row numbers in the order shown: the viewer steps through them. */
  view.sequence = () => (found.length ? found : model.rows.map((_, index) => index));
})(window.d4k);
