"use strict";
/* Small pictures of figures, as inline SVG. Each has a text beside it, so that it is hidden from screen readers. */
(function (d4k) {
  const { svg, known } = d4k;
  const WIDTH = 132;
  const HEIGHT = 18;
  const EDGE = 6;

  /** Ends of an axis that shows all `values`, with some room; null where there are none. */
  d4k.axis = function (values) {
    const seen = values.filter(known);
    if (!seen.length) return null;
    const [low, high] = [Math.min(...seen), Math.max(...seen)];
    const room = (high - low) * 0.04 || Math.abs(high) * 0.05 || 1;
    return [low - room, high + room];
  };

  const place = (axis, value) => EDGE + ((value - axis[0]) / (axis[1] - axis[0])) * (WIDTH - 2 * EDGE);

  /** A dot with its interval. `guide` draws a vertical line at a value; a hollow dot is what chance may have done. */
  d4k.whisker = function (axis, value, interval, { guide = null, kind = "plain" } = {}) {
    const middle = HEIGHT / 2;
    const drawing = svg("svg", {
      class: `whisker ${kind}`,
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      width: WIDTH,
      height: HEIGHT,
      "aria-hidden": "true",
    });
    drawing.append(svg("line", { class: "floor", x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }));
    if (known(guide) && guide >= axis[0] && guide <= axis[1]) {
      const x = place(axis, guide);
      drawing.append(svg("line", { class: "guide", x1: x, x2: x, y1: 0, y2: HEIGHT }));
    }
    if (interval && known(interval[0]) && known(interval[1])) {
      const [from, to] = interval.map((end) => place(axis, end));
      drawing.append(svg("line", { class: "reach", x1: from, x2: to, y1: middle, y2: middle }));
      for (const x of [from, to]) {
        drawing.append(svg("line", { class: "reach", x1: x, x2: x, y1: middle - 4, y2: middle + 4 }));
      }
    }
    if (known(value)) drawing.append(svg("circle", { class: "dot", cx: place(axis, value), cy: middle, r: 3.6 }));
    return drawing;
  };

  /** How the pictures of one set are spread over the bins of a metric. */
  d4k.bars = function (counts, most, label) {
    const [width, height] = [260, 44];
    const step = width / counts.length;
    const drawing = svg("svg", {
      class: "bars",
      viewBox: `0 0 ${width} ${height}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": label,
    });
    counts.forEach(function (count, index) {
      const tall = most > 0 ? (count / most) * (height - 2) : 0;
      if (count > 0) {
        drawing.append(
          svg("rect", { x: index * step + 0.5, y: height - 1 - tall, width: Math.max(0.5, step - 1), height: tall })
        );
      }
    });
    drawing.append(svg("line", { class: "floor", x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5 }));
    return drawing;
  };
})(window.d4k);
