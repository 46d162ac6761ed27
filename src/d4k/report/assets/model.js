"use strict";
/* The report's data, and the questions that several views ask of it. `data.js` has the format. */
(function (d4k) {
  const data = window.D4K;
  const model = (d4k.model = { data: data || null, fault: null });
  if (!data) {
    model.fault = "The file data.js is missing, or it could not be read. It lies beside index.html.";
    return;
  }
  if (data.format !== 1) {
    model.fault = `This page reads data.js of format 1, and this one has format ${data.format}.`;
    return;
  }

  model.sets = data.sets;
  model.metrics = data.metrics;
  model.rows = data.rows;
  model.perPicture = data.metrics.filter((metric) => !metric.set);
  model.metric = (name) => data.metrics.find((metric) => metric.name === name) || null;

  const setIndex = new Map(data.sets.map((set, index) => [set.id, index]));
  const rowIndex = new Map(data.rows.map((row, index) => [row.id, index]));
  model.setIndex = (id) => (setIndex.has(id) ? setIndex.get(id) : -1);
  model.rowIndex = (id) => (rowIndex.has(id) ? rowIndex.get(id) : -1);

  model.title = (row) => (row.prompt === null || row.prompt === "" ? row.id : row.prompt);
  model.value = function (row, set, metric) {
    const picture = row.pictures[set];
    const value = picture ? picture.values[metric] : null;
    return d4k.known(value) ? value : null;
  };

  /** The sets that are shown first: up to three of which the row has pictures. */
  model.usual = (row) => model.sets.map((_, index) => index).filter((index) => row.pictures[index]).slice(0, 3);

  model.direction = function (metric) {
    if (metric.higherIsBetter === true) return { mark: "↑", text: "higher is better" };
    if (metric.higherIsBetter === false) return { mark: "↓", text: "lower is better" };
    return { mark: "↔", text: "neither direction is better" };
  };

  const wasCompared = new Map(data.comparisons.map((found) => [`${found.metric}\n${found.a}\n${found.b}`, found]));

  /** How `set` differs from `base`, as a comparison whose `difference` is `set - base`; null where nobody compared. */
  model.comparison = function (metric, base, set) {
    const straight = wasCompared.get(`${metric}\n${base}\n${set}`);
    if (straight) return straight;
    const found = wasCompared.get(`${metric}\n${set}\n${base}`);
    return found ? turned(found) : null;
  };

  function turned(found) {
    const minus = (value) => (d4k.known(value) ? -value : null);
    return {
      ...found,
      a: found.b,
      b: found.a,
      difference: minus(found.difference),
      interval: found.interval ? [minus(found.interval[1]), minus(found.interval[0])] : null,
      wins: found.losses,
      losses: found.wins,
    };
  }

  /** What a comparison means: a mark, a word and a sentence. Never told by colour alone. */
  model.verdict = function (found) {
    const metric = model.metric(found.metric);
    if (!found.real || !d4k.known(found.difference)) {
      return { kind: "unclear", mark: "○", word: "unclear", text: "cannot be told from chance" };
    }
    if (metric.higherIsBetter === null) {
      return { kind: "differs", mark: "◆", word: "differs", text: "a real difference; neither direction is better" };
    }
    return found.difference > 0 === metric.higherIsBetter
      ? { kind: "better", mark: "▲", word: "better", text: "a real difference, to the better" }
      : { kind: "worse", mark: "▼", word: "worse", text: "a real difference, to the worse" };
  };

  /** Row numbers whose prompt or id has every word of `query`, in the order of `order`. */
  model.select = function (query, order) {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [];
    model.rows.forEach(function (row, index) {
      const text = `${row.prompt || ""} ${row.id}`.toLowerCase();
      if (words.every((word) => text.includes(word))) found.push(index);
    });
    return order && order.metric ? sorted(found, order) : order && order.down ? found.reverse() : found;
  };

  /** By the value of `order.of`, or by how much it exceeds that of `order.minus`; rows without a value come last. */
  function sorted(indices, order) {
    const keys = new Map(indices.map((index) => [index, model.key(model.rows[index], order)]));
    const sign = order.down ? -1 : 1;
    return indices.sort(function (one, other) {
      const [first, second] = [keys.get(one), keys.get(other)];
      if (first === null || second === null) return (first === null) - (second === null) || one - other;
      return sign * (first - second) || one - other;
    });
  }

  /** What a row is sorted by; null where it has no such value. */
  model.key = function (row, order) {
    const value = model.value(row, order.of, order.metric);
    if (value === null || order.minus === null || order.minus === undefined) return value;
    const other = model.value(row, order.minus, order.metric);
    return other === null ? null : value - other;
  };

  /** A decimals count for a metric's values of pictures, common to all rows. */
  const places = new Map();
  model.places = function (name) {
    if (!places.has(name)) {
      const values = [];
      for (const row of model.rows.slice(0, 200)) {
        row.pictures.forEach((picture) => picture && d4k.known(picture.values[name]) && values.push(picture.values[name]));
      }
      const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      places.set(name, d4k.decimals(largest));
    }
    return places.get(name);
  };
})(window.d4k);
