"use strict";
// Draws the charts of a page. One view of Vega for each panel, made when it comes into sight; what
// is switched off, which step is shown and what is zoomed are signals of all views.
(() => {
const DATA = JSON.parse(document.getElementById("charts-data").textContent);
const SHAPES = {
  o: "circle", s: "square", D: "diamond", d: "diamond", "^": "triangle-up", v: "triangle-down",
  "<": "triangle-left", ">": "triangle-right",
  P: "cross",
  X: "M-1,-.6l.4,-.4l.6,.6l.6,-.6l.4,.4l-.6,.6l.6,.6l-.4,.4l-.6,-.6l-.6,.6l-.4,-.4l.6,-.6z",
  "*": "M0,-1.4l.34,.96h1l-.8,.62l.3,1l-.84,-.58l-.84,.58l.3,-1l-.8,-.62h1z",
  h: "M-1,-.56l1,-.56l1,.56v1.12l-1,.56l-1,-.56z", p: "M0,-1.1l1.04,.76l-.4,1.22h-1.28l-.4,-1.22z",
};
const dark = matchMedia("(prefers-color-scheme: dark)");
const off = new Set();
const charts = [];
const MOST_NAMES = 5; // beside lines
const NARROW = 420; // pixels of a panel that has no room for names beside its lines
let isPrinting = false;

// Numbers that are read together: in one notation, each with three digits, unless they are counts.
function numbers(values, areCounts) {
  const sizes = values.filter((value) => value).map(Math.abs);
  const isFar = sizes.some((size) => size < 1e-4 || size >= 1e5);
  return values.map((value) => {
    if (value === null || value === undefined) return "not finite";
    if (isFar && value) return value.toExponential(2).replace("e+", "e");
    if (areCounts || !value || Math.abs(value) >= 1e3) return Math.round(value).toLocaleString("en");
    return value.toLocaleString("en", { minimumSignificantDigits: 3, maximumSignificantDigits: 3 });
  });
}
function element(name, classes, text) {
  const made = document.createElement(name);
  if (classes) made.className = classes;
  if (text) made.textContent = text;
  return made;
}

// ---- The specification of a panel ----
function rowsOf(panel) {
  return panel.series.flatMap((series, s) => series.x.map((x, i) => {
    const low = series.low[i] ?? null, high = series.high[i] ?? null;
    return { s, x, y: series.y[i] ?? null, low, high, frame: series.frame };
  }));
}
function scaleOf(name, axis, range) {
  return {
    name, range, type: axis.scale, zero: false, nice: false, domain: { signal: name + "dom" },
    ...(axis.scale === "symlog" && { constant: Math.min(...axis.ticks.filter((t) => t > 0)) }),
  };
}
function logTicks([low, high], most) { // as `log_ticks` of chart.py
  const isInside = (tick) => low <= tick && tick <= high, every = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
    every.push(...[1, 2, 5].map((digit) => Number(`${digit}e${e}`)));
  }
  const ticks = every.filter(isInside);
  if (ticks.length < 3) return roundNumbers(low, high);
  if (ticks.length <= most) return ticks;
  const powers = every.filter((tick, i) => i % 3 === 0 && isInside(tick));
  return powers.filter((_, i) => i % Math.ceil(powers.length / most) === 0);
}
function roundNumbers(low, high) {
  const rough = (high - low) / 6, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => power * digit).find((size) => size >= rough);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}
function ticksIn({ scale, ticks }, domain, most) { // null: as Vega chooses
  return scale === "log" && !ticks.length ? logTicks(domain, Math.max(4, most)) : null;
}
const PLAIN = "datum.value >= 1e-4 && datum.value < 1e5";
const LOG_WORDS = { labels: { update: { text: { signal: `${PLAIN} ? format(datum.value, ',~r') : replace(format(datum.value, '~e'), '+', '')` } } } };
function axisOf(scale, axis, orient) {
  const made = {
    scale, orient, title: axis.label, grid: true, labelOverlap: true, labelFlush: false, titlePadding: 6,
  };
  const isRound = axis.scale === "log" && !axis.ticks.length; // with ticks that fit, and no fewer
  if (isRound) made.labelOverlap = false;
  else made.tickCount = { signal: orient === "bottom" ? "max(2, ceil(width / 70))" : "max(2, ceil(height / 45))" };
  if (axis.ticks.length) {
    made.values = axis.ticks;
    if (orient === "left") Object.assign(made, { labelOverlap: false, labelLimit: 160, tickCount: axis.ticks.length });
    made.encode = { labels: { update: { text: { signal: `${scale}words[indexof(${scale}ticks, datum.value)]` } } } };
    if (axis.words.some((word) => word.length > 6) && axis.ticks.length > 3 && orient === "bottom") {
      Object.assign(made, { labelAngle: -50, labelAlign: "right", labelLimit: 160 });
    }
  } else if (isRound) {
    made.encode = LOG_WORDS;
    made.values = { signal: `${scale}round` };
  } else if (axis.whole) {
    made.tickCount.signal = `max(1, min(${made.tickCount.signal}, floor(${scale}dom[1] - ${scale}dom[0])))`; // none between two
    made.tickMinStep = 1;
    made.format = "d";
  } else {
    const plain = "datum.value === 0 || (abs(datum.value) >= 1e-4 && abs(datum.value) < 1e6)";
    made.encode = { labels: { update: { text: { signal: `${plain} ? format(datum.value, ',~r') : format(datum.value, '.2~e')` } } } };
  }
  return made;
}
const BY_SERIES = { facet: { name: "one", data: "shown", groupby: ["s", "frame"] } };
function lineMark(field, filter, width, opacity) {
  return {
    type: "group", clip: true, from: BY_SERIES,
    encode: { update: { width: { signal: "width" }, height: { signal: "height" } } },
    data: [{ name: "part", source: "one", transform: [{ type: "filter", expr: filter }] }],
    marks: [{
      type: "line", from: { data: "part" }, interactive: false,
      encode: { update: {
        x: { scale: "x", field: "x" }, y: { scale: "y", field },
        defined: { signal: `isValid(datum.${field}) && (yscale !== 'log' || datum.${field} > 0)` },
        stroke: { signal: "colours[datum.s]" }, strokeDash: { signal: "dashes[datum.s]" },
        strokeWidth: { signal: width }, strokeOpacity: { value: opacity },
        strokeJoin: { value: "round" },
        interpolate: { signal: "kinds[datum.s] === 'steps' ? 'step-after' : 'linear'" },
      } },
    }],
  };
}
const EDGE = { // of a reference or region: null is the edge of the panel
  x: (field, edge) => ({ signal: `datum.${field} === null ? ${edge} : scale('x', datum.${field})` }),
  y: (field, edge) => ({ signal: `datum.${field} === null ? ${edge} : scale('y', datum.${field})` }),
};
function marksOf(panel) {
  const line = "indexof(['line', 'steps'], kinds[datum.s]) >= 0";
  const thin = "0.55 * widths[datum.s]";
  const positive = "(yscale !== 'log' || datum.low > 0)";
  const text = (more) => ({
    type: "text", interactive: false, ...more,
    encode: { update: { fontSize: { value: 12 }, fill: { signal: "ink" }, ...more.encode } },
  });
  const haloed = (more) => text({ ...more, encode: { // charts.css paints the halo first
    stroke: { signal: "paper" }, strokeWidth: { value: 4 }, strokeJoin: { value: "round" }, ...more.encode,
  } });
  return [
    { type: "group", clip: true, encode: { update: { width: { signal: "width" }, height: { signal: "height" } } }, marks: [
      { type: "rect", from: { data: "cells" }, interactive: false, encode: { update: {
        x: { scale: "x", field: "x0" }, x2: { scale: "x", field: "x1", offset: 0.6 }, // over the seam
        y: { scale: "y", field: "y0" }, y2: { scale: "y", field: "y1", offset: -0.6 },
        fill: [{ test: "!isValid(datum.v)", signal: "paper" }, panel.cells ? { scale: "fill", field: "v" } : { value: null }],
      } } },
      { type: "rect", from: { data: "regions" }, interactive: false, encode: { update: {
        x: EDGE.x("x0", "0"), x2: EDGE.x("x1", "width"), y: EDGE.y("y0", "height"), y2: EDGE.y("y1", "0"),
        fill: { signal: "dark ? '#9fd3f2' : '#0063b4'" }, fillOpacity: { value: 0.13 },
      } } },
      { type: "rule", from: { data: "references" }, interactive: false, encode: { update: {
        x: EDGE.x("x0", "0"), x2: EDGE.x("x1", "width"), y: EDGE.y("y0", "0"), y2: EDGE.y("y1", "height"),
        stroke: { signal: "soft" }, strokeDash: { value: [2, 3] }, strokeWidth: { value: 1.3 },
      } } },
      { type: "rule", interactive: false, encode: { update: { // the slider's step
        x: { signal: "follows && frame !== null ? scale('x', frame) : 0" }, y: { value: 0 }, y2: { signal: "height" },
        stroke: { signal: "ink" }, strokeWidth: { value: 1 }, strokeOpacity: { signal: "follows && frame !== null ? 0.7 : 0" },
      } } },
      {
        type: "group", from: BY_SERIES, encode: { update: { width: { signal: "width" }, height: { signal: "height" } } },
        data: [{ name: "ranged", source: "one", transform: [{ type: "filter", expr: `${line} && isValid(datum.low) && ${positive}` }] }],
        marks: [{ type: "area", from: { data: "ranged" }, interactive: false, encode: { update: {
          x: { scale: "x", field: "x" }, y: { scale: "y", field: "low" }, y2: { scale: "y", field: "high" },
          fill: { signal: "colours[datum.s]" }, fillOpacity: { value: 0.15 },
        } } }],
      },
      lineMark("low", `${line} && !isValid(datum.y)`, thin, 0.9),
      lineMark("high", `${line} && !isValid(datum.y)`, thin, 0.9),
      lineMark("y", line, "widths[datum.s]", 1),
      { type: "rect", from: { data: "bars" }, interactive: false, encode: { update: {
        x: { signal: "scale('x', datum.x - 0.38)" }, x2: { signal: "scale('x', datum.x + 0.38)" },
        y: { scale: "y", field: "y" }, y2: { signal: "scale('y', max(ydom[0], min(0, ydom[1])))" },
        fill: { signal: "colours[datum.s]" }, fillOpacity: { value: 0.85 },
      } } },
      { type: "rule", from: { data: "shown" }, interactive: false, encode: { update: {
        x: { scale: "x", field: "x" }, y: { scale: "y", field: "low" }, y2: { scale: "y", field: "high" },
        stroke: { signal: "colours[datum.s]" }, strokeWidth: { value: 1.2 },
        strokeOpacity: { signal: `kinds[datum.s] === 'dots' && isValid(datum.low) && ${positive} ? 0.8 : 0` },
      } } },
      ...["y", "low", "high"].map((field) => ({
        type: "symbol", from: { data: "shown" }, interactive: false, encode: { update: {
          x: { scale: "x", field: "x" }, y: { scale: "y", field }, size: { signal: "(datum.x === place ? 70 : 34) * sizes[datum.s] * sizes[datum.s]" },
          shape: { signal: "shapes[datum.s]" }, fill: { signal: "colours[datum.s]" }, stroke: { signal: "paper" }, strokeWidth: { signal: "sizes[datum.s] > 1 ? 1.5 : 0.6" },
          opacity: { signal: `isValid(datum.${field}) && (yscale !== 'log' || datum.${field} > 0) && ${field === "y" ? "" : "!isValid(datum.y) && "}(datum.x === place || marked[datum.s]) ? 1 : 0` },
        } },
      })),
      { type: "rule", interactive: false, encode: { update: {
        x: { signal: "place === null ? 0 : scale('x', place)" }, y: { value: 0 }, y2: { signal: "height" },
        stroke: { signal: "soft" }, strokeWidth: { value: 1 }, strokeOpacity: { signal: "place === null ? 0 : 0.6" },
      } } },
      haloed({ from: { data: "regions" }, encode: {
        text: { field: "label" }, x: { value: 6 }, y: { signal: "(datum.y1 === null ? 0 : scale('y', datum.y1)) + 14" }, fill: { signal: "soft" },
      } }),
      haloed({ from: { data: "references" }, encode: {
        text: { signal: "datum.isNamed && !isUnnamed ? '' : datum.label" }, align: { signal: "datum.is_right || (datum.x1 !== null && datum.x0 !== datum.x1) ? 'right' : 'left'" },
        x: { signal: "datum.x1 === null ? (datum.is_right ? width - 5 : 5) : scale('x', datum.x1) + (datum.x0 === datum.x1 ? 4 : -4)" },
        y: { signal: "datum.y1 === null ? 14 : scale('y', datum.y1) + (datum.is_below ? 14 : -5)" }, fill: { signal: "soft" },
      } }),
      text({ from: { data: "cells" }, encode: {
        text: { field: "text" }, x: { signal: "(scale('x', datum.x0) + scale('x', datum.x1)) / 2" },
        y: { signal: "(scale('y', datum.y0) + scale('y', datum.y1)) / 2" }, align: { value: "center" }, baseline: { value: "middle" },
        lineHeight: { value: 15 }, fill: { signal: "!isValid(datum.v) ? ink : datum.isLight ? '#000000' : '#ffffff'" }, fontSize: { value: 12.5 },
      } }),
    ] },
    { type: "symbol", from: { data: "arrows" }, interactive: false, encode: { update: {
      x: { scale: "x", field: "x" }, y: { signal: "datum.is_up ? 0 : height" }, size: { value: 90 },
      shape: { signal: "datum.is_up ? 'triangle-up' : 'triangle-down'" }, fill: { signal: "colours[datum.series]" },
      opacity: { signal: "isZoomed ? 0 : 1" },
    } } },
    haloed({ from: { data: "arrows" }, encode: {
      text: { field: "text" }, x: { signal: "scale('x', datum.x) + (scale('x', datum.x) > 0.75 * width ? -8 : 8)" },
      align: { signal: "scale('x', datum.x) > 0.75 * width ? 'right' : 'left'" },
      y: { signal: "datum.is_up ? 10 + 14 * datum.level : height - 6 - 14 * datum.level" },
      fill: { signal: "colours[datum.series]" }, opacity: { signal: "isZoomed ? 0 : 1" },
    } }),
    text({ from: { data: "names" }, encode: {
      text: { field: "text" }, x: { signal: "width + 6" }, y: { signal: "(1 - datum.height) * height" }, baseline: { value: "middle" },
      fill: { signal: "datum.series === null ? soft : colours[datum.series]" }, fontWeight: { signal: "datum.series === null ? 400 : 600" }, limit: { signal: "0.42 * room" }, opacity: { signal: "isZoomed ? 0 : 1" },
    } }),
  ];
}
function cellRows(chart, panel) {
  if (!panel.cells) return [];
  const { x_edges: X, y_edges: Y, values, texts } = panel.cells;
  const [low, high] = chart.data.colours.limits;
  const log = chart.data.colours.scale === "log" ? Math.log : (value) => value;
  return values.flatMap((row, j) => row.map((v, i) => ({
    i, j, x0: X[i], x1: X[i + 1], y0: Y[j], y1: Y[j + 1], v, text: texts.length ? texts[j][i].split("\n") : "",
    isLight: (log(v) - log(low)) / (log(high) - log(low)) > 0.55,
  })));
}
function specOf(chart, panel) {
  const isOn = (name) => `indexof(off, datum.${name}) < 0 && (frames[datum.${name}] === null || frames[datum.${name}] === frame)`;
  const onSeries = (name) => ({ type: "filter", expr: isOn(name) });
  const signal = (name, value) => ({ name, value });
  const { series, x, y } = panel;
  const few = (one) => one.kind === "dots" || (one.kind === "line" && one.mark && one.x.length <= 16);
  return {
    $schema: "https://vega.github.io/schema/vega/v6.json",
    padding: 5, autosize: { type: "fit", contains: "padding" }, background: null,
    signals: [
      signal("xdom", x.limits), signal("ydom", y.limits), signal("off", []), signal("offx", []), signal("offy", []), signal("frame", null),
      signal("dark", false), signal("place", null), signal("isZoomed", false), signal("follows", panel.follows),
      signal("room", 0), { name: "isUnnamed", update: `room < ${NARROW} || ${hasTooManyNames(panel)}` },
      signal("xticks", x.ticks), signal("xwords", x.words), signal("yticks", y.ticks), signal("ywords", y.words),
      signal("xround", null), signal("yround", null),
      signal("yscale", y.scale), signal("lights", series.map((s) => s.light)), signal("darks", series.map((s) => s.dark)),
      signal("dashes", series.map((s) => s.dash.map((part) => part * s.width))), signal("kinds", series.map((s) => s.kind)),
      signal("widths", series.map((s) => s.width)), signal("sizes", series.map((s) => s.kind === "dots" ? s.width / 2 : 1)), signal("frames", series.map((s) => s.frame)),
      signal("shapes", series.map((s) => SHAPES[s.mark] ?? "circle")), signal("marked", series.map(few)),
      { name: "colours", update: "dark ? darks : lights" },
      { name: "ink", update: "dark ? '#e8eaed' : '#1b1e23'" }, { name: "soft", update: "dark ? '#a9b0b9' : '#565d66'" },
      { name: "paper", update: "dark ? '#16191d' : '#ffffff'" },
    ],
    data: [
      { name: "shown", values: rowsOf(panel), transform: [onSeries("s")] },
      { name: "bars", source: "shown", transform: [{ type: "filter", expr: "kinds[datum.s] === 'bars'" }] },
      { name: "cells", values: cellRows(chart, panel), transform: [{ type: "filter", expr: "indexof(offx, datum.i) < 0 && indexof(offy, datum.j) < 0" }] },
      { name: "arrows", values: panel.arrows, transform: [onSeries("series")] },
      { name: "names", values: panel.names, transform: [{ type: "filter", expr: `!isUnnamed && (datum.series === null || ${isOn("series")})` }] },
      { name: "references", values: panel.references.map(({ label, x: at, y: height, points, is_right, is_below }) => ({
        label, is_right, is_below, isNamed: panel.names.length > 0 && height !== null, x0: points ? points[0][0] : at, x1: points ? points[1][0] : at, y0: points ? points[0][1] : height, y1: points ? points[1][1] : height,
      })) },
      { name: "regions", values: panel.regions.map((r) => ({ label: r.label, x0: r.x[0], x1: r.x[1], y0: r.y[0], y1: r.y[1] })) },
    ],
    scales: [
      scaleOf("x", x, "width"), scaleOf("y", y, "height"),
      ...(chart.data.colours ? [fillScale(chart.data.colours)] : []),
    ],
    axes: [axisOf("x", x, "bottom"), axisOf("y", y, "left")],
    marks: marksOf(panel),
    config: configOf(),
  };
}
function fillScale({ limits, scale }) {
  return { name: "fill", type: scale, domain: limits, range: { scheme: "cividis" }, clamp: true, zero: false };
}
function configOf() {
  const ink = { signal: "ink" }, soft = { signal: "soft" };
  const font = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
  const words = { labelColor: ink, titleColor: ink, labelFont: font, titleFont: font, labelFontSize: 12, titleFontSize: 12.5, titleFontWeight: 500 };
  return {
    text: { font }, legend: words,
    axis: { ...words, domainColor: soft, tickColor: soft, gridColor: soft, gridOpacity: 0.16 },
  };
}
function barSpec({ label, limits, scale }, width) {
  return {
    $schema: "https://vega.github.io/schema/vega/v6.json", width, height: 1, padding: 2, background: null,
    autosize: { type: "pad" },
    signals: [
      { name: "dark", value: false }, { name: "ink", update: "dark ? '#e8eaed' : '#1b1e23'" }, { name: "soft", update: "ink" },
    ],
    scales: [fillScale({ limits, scale })],
    legends: [{ fill: "fill", direction: "horizontal", orient: "none", legendX: 30, legendY: 0, gradientLength: width - 60, gradientThickness: 14, title: label, titleLimit: width, ...(scale === "log" ? { values: logTicks(limits, width / 40), encode: LOG_WORDS } : { format: "~g", tickCount: 4 }) }],
    config: configOf(),
  };
}

// ---- A chart on the page ----
function addChart(figure) {
  const data = DATA[figure.dataset.chart];
  const chart = { figure, data, views: [], zoom: new Map(), frame: null };
  charts.push(chart);
  figure.classList.add("live");
  const box = figure.querySelector(".panels");
  const columns = data.shape[1];
  box.style.setProperty("--columns", (data.widths.length ? data.widths : Array(columns).fill(1)).map((w) => `minmax(0, ${w}fr)`).join(" "));
  chart.tip = element("div", "tip");
  chart.tip.setAttribute("role", "status");
  figure.append(chart.tip);
  const steps = data.frames.filter((frame) => new RegExp(`\\bstep ${frame}\\b`).test(figure.dataset.title));
  chart.heading = { steps, note: element("p", "heading-note") };
  chart.heading.note.setAttribute("role", "status");
  figure.prepend(chart.heading.note);
  chart.same = element("p", "heading-note");
  chart.same.setAttribute("role", "status");
  box.before(chart.same);
  chart.none = element("p", "note", "Nothing is selected. Tick an entry of the legend.");
  box.before(chart.none);
  addKey(chart);
  addControls(chart);
  if (data.colours) {
    chart.bar = element("div", "bar");
    box.before(chart.bar);
  }
  data.panels.forEach((panel) => {
    const cell = element("div", "panel");
    cell.style.setProperty("--at", `${panel.row + 1} / ${panel.column + 1}`);
    if (panel.title) cell.append(element("p", "panel-title", panel.title));
    const plot = element("div", "plot" + (columns === 1 || data.widths.length ? " tall" : ""));
    if (panel.cells) plot.style.minHeight = `${1.15 * panel.y.ticks.length + 4}rem`; // a line of words in each row
    plot.tabIndex = 0;
    plot.setAttribute("role", "application");
    plot.setAttribute("aria-label", `${panel.title || figure.dataset.title}: arrows left and right read values, plus and minus zoom, 0 shows all`);
    cell.append(plot);
    box.append(cell);
    chart.views.push({ panel, plot, view: null });
  });
  seen.observe(figure);
}
// What a line means, where a narrow panel has no names beside its lines.
const MARKS = { o: "●", s: "■", D: "◆", d: "◆", "^": "▲", v: "▼", "<": "◀", ">": "▶", P: "✚", X: "✖", "*": "★", h: "⬢", p: "⬟" };
function addKey(chart) {
  const all = chart.data.panels.flatMap(({ series }) => series);
  const labels = [...new Set(all.map(({ label }) => label))];
  if (labels.length < 2 || !document.querySelector(".legend")) return;
  chart.key = element("p", "key");
  for (const label of labels) {
    const of = all.filter((one) => one.label === label), look = of.find(({ kind }) => kind !== "dots") ?? of[0];
    const entry = element("span", "entry", label);
    entry.style.setProperty("--light", look.light);
    entry.style.setProperty("--dark", look.dark);
    entry.prepend(look.kind === "dots" ? element("span", "mark", MARKS[look.mark] ?? MARKS.o) : swatch(look));
    entry.keysOf = of.map(({ keys }) => keys);
    chart.key.append(entry);
  }
  chart.figure.querySelector(".panels").before(chart.key);
}
function swatch({ dash, kind }) {
  const [svg, line] = ["svg", "line"].map((name) => document.createElementNS("http://www.w3.org/2000/svg", name));
  const set = (made, values) => Object.entries(values).forEach(([name, value]) => made.setAttribute(name, value));
  set(svg, { class: "swatch", viewBox: "0 0 32 8", "aria-hidden": true });
  set(line, { x1: 0, x2: 32, y1: 4, y2: 4, stroke: "currentColor", "stroke-width": kind === "bars" ? 8 : 4, "stroke-dasharray": dash.map((part) => 2 * part).join(" ") });
  svg.append(line);
  return svg;
}
function addControls(chart) {
  const bar = chart.figure.querySelector(".controls");
  const { frames } = chart.data;
  chart.reset = element("button", "reset", "Show all");
  Object.assign(chart.reset, { type: "button", hidden: true });
  chart.reset.addEventListener("click", () => zoomTo(chart, null));
  if (frames.length > 1) {
    const label = element("label", "step", "Step ");
    const slider = element("input");
    const output = element("span"); // the slider says it itself
    output.ariaHidden = "true";
    Object.assign(slider, { type: "range", min: 0, max: frames.length - 1, step: 1, value: frames.indexOf(chart.data.frame) });
    const show = () => {
      chart.frame = frames[slider.value];
      const place = `${Number(slider.value) + 1} of ${frames.length}`;
      output.textContent = `${chart.frame} (${place} steps)`;
      slider.setAttribute("aria-valuetext", `step ${chart.frame}, ${place}`);
      setSignals(chart);
    };
    slider.addEventListener("input", show);
    label.append(slider, output);
    bar.append(label);
    show();
  } else if (frames.length) {
    chart.frame = frames[0];
    bar.append(element("span", "", `Step ${frames[0]}`));
  }
  bar.append(chart.reset);
  if (chart === charts[0]) {
    bar.append(element("span", "hint fine", "Drag over a figure to zoom in."), element("span", "hint coarse", "Tap a figure to read its values."));
  }
}
const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting) draw(charts.find(({ figure }) => figure === target));
  }
}, { rootMargin: "600px" });
const resized = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const chart = charts.find(({ figure }) => figure.contains(target));
    fit(chart, chart.views.find(({ plot }) => plot === target));
  }
});
function fit(chart, { view, plot: { clientWidth: width, clientHeight: height } }) {
  if (!view || !width || (view.width() === width && view.height() === height)) return;
  view.width(width).height(height);
  setSignals(chart);
}
const OPTIONS = { mode: "vega", ast: true, actions: false, defaultStyle: false, tooltip: false };
function draw(chart) {
  if (!chart || chart.drawn) return chart?.drawn;
  seen.unobserve(chart.figure);
  const bar = chart.bar && vegaEmbed(chart.bar, barSpec(chart.data.colours, Math.min(420, chart.bar.clientWidth - 10)), { ...OPTIONS, renderer: "svg" })
    .then(({ view }) => {
      chart.barView = view;
      const { low, high } = chart.data.colours;
      if (low || high) chart.bar.append(element("p", "ends", `dark: ${low}; yellow: ${high}`));
    });
  const panels = chart.views.map(async (one) => {
    const spec = specOf(chart, one.panel);
    const size = { width: one.plot.clientWidth, height: one.plot.clientHeight };
    const canvas = one.panel.cells && one.panel.cells.x.length > 12;
    const { view } = await vegaEmbed(one.plot, { ...spec, ...size }, { ...OPTIONS, renderer: canvas ? "canvas" : "svg" });
    for (const svg of one.plot.querySelectorAll("svg, canvas")) svg.setAttribute("aria-hidden", "true");
    one.view = view;
    fit(chart, one); // its place may have changed meanwhile
    listen(chart, one);
    resized.observe(one.plot);
  });
  chart.drawn = Promise.all([bar, ...panels]).then(() => setSignals(chart));
  return chart.drawn;
}
function isOff(keys) {
  return keys.some((key) => off.has(key));
}
function setSignals(chart) {
  const isDark = dark.matches && !isPrinting;
  chart.barView?.signal("dark", isDark).runAsync();
  const running = [];
  sayWhatIsShown(chart);
  for (const { panel, plot, view } of chart.views) {
    const hidden = panel.series.flatMap(({ keys }, s) => isOff(keys) ? [s] : []);
    plot.closest(".panel").hidden = isEmpty(panel);
    if (!view) continue;
    const xdom = chart.zoom.get(`x${panel.x.label}`) ?? panel.x.limits;
    const ydom = chart.zoom.get(`y${panel.y.label}`) ?? panel.y.limits;
    const [offx, offy] = ["x_keys", "y_keys"].map((name) => (panel.cells?.[name] ?? []).flatMap((keys, i) => isOff(keys) ? [i] : []));
    view.signal("dark", isDark).signal("off", hidden).signal("offx", offx).signal("offy", offy).signal("frame", chart.frame)
      .signal("xdom", xdom).signal("ydom", ydom).signal("isZoomed", xdom !== panel.x.limits || ydom !== panel.y.limits).signal("room", plot.clientWidth)
      .signal("xround", ticksIn(panel.x, xdom, plot.clientWidth / 55)).signal("yround", ticksIn(panel.y, ydom, plot.clientHeight / 24));
    running.push(view.runAsync());
  }
  chart.reset.hidden = !chart.zoom.size;
  return Promise.all(running);
}
function hasTooManyNames({ names }) { // beside its lines: there is a key in their place
  return names.filter(({ series }) => series !== null).length > MOST_NAMES;
}
function isEmpty({ series, cells }) {
  return cells ? isOff(cells.keys) || cells.x_keys.every(isOff) || cells.y_keys.every(isOff) : series.length > 0 && series.every(({ keys }) => isOff(keys));
}
function sayWhatIsShown(chart) { // beside the figure: what its heading means, what its lines are
  const { steps, note } = chart.heading, { panels } = chart.data;
  const keys = panels.flatMap(({ series, cells }) => [...series.map((one) => one.keys), ...(cells ? [cells.keys, ...cells.x_keys, ...cells.y_keys] : [])]);
  const speaksOf = [
    ...(steps.length && !steps.includes(chart.frame) ? [`step ${steps.join(" and ")}`] : []), ...(keys.some(isOff) ? ["all arms"] : []),
  ];
  const isNothing = panels.every(isEmpty);
  const what = panels.some(({ cells }) => cells?.y_keys.some((own) => own.length)) ? "The heading, the order of rows and asterisks speak" : "The heading speaks";
  const text = speaksOf.length && !isNothing ? `${what} of ${speaksOf.join(" and of ")}.` : "";
  const same = panels.flatMap((panel) => coinciding(chart, panel)).join("; ");
  for (const [place, words] of [[note, text], [chart.same, same && `One line hides the other: ${same}.`]]) {
    if (place.textContent !== words) place.textContent = words;
  }
  chart.none.hidden = !isNothing;
  if (chart.bar) chart.bar.hidden = isNothing;
  if (!chart.key) return;
  const hasTooMany = panels.some(hasTooManyNames);
  chart.key.hidden = !hasTooMany && !chart.views.some(({ plot }) => plot.clientWidth && plot.clientWidth < NARROW);
  for (const entry of chart.key.children) entry.hidden = entry.keysOf.every(isOff);
}

// ---- Values, zoom, keyboard ----
function visible(chart, panel) {
  return panel.series.filter(({ keys, frame }) => !isOff(keys) && (frame === null || frame === chart.frame));
}
function coinciding(chart, panel) { // lines of which one hides the other, where few are shown
  const lines = visible(chart, panel).filter(({ kind }) => kind === "line");
  if (lines.length > 6) return [];
  const [low, high] = panel.y.limits.map(heightOn(panel.y));
  const heights = lines.map(({ x, y, low: from, high: to }) => x.map((_, i) => (heightOn(panel.y)(y[i] ?? (from[i] + to[i]) / 2) - low) / (high - low)));
  const pairs = lines.flatMap((one, i) => lines.slice(i + 1).map((other, j) => [one, other, heights[i], heights[i + 1 + j]]));
  return pairs.filter(([one, other, a, b]) => one.label !== other.label && String(one.x) === String(other.x) && a.every((height, i) => Math.abs(height - b[i]) < 0.006))
    .map(([one, other]) => `${panel.title ? `${panel.title}, ` : ""}${one.label} and ${other.label}`);
}
function heightOn({ scale }) {
  return scale === "log" ? Math.log : (value) => value;
}
function isOfCounts({ series, cells }) {
  const values = [...series.flatMap(({ y, low, high }) => [y, low, high]), ...(cells?.values ?? [])].flat();
  return values.every((value) => value === null || Number.isInteger(value));
}
function valueOf(panel, series, index) {
  const words = (...values) => numbers(values, isOfCounts(panel));
  const [y, low, high] = [series.y, series.low, series.high].map((column) => column[index]);
  if (!series.y.length && (high === null || low === high)) return words(low)[0] + (high === null ? "" : " twice");
  if (!series.y.length) return words(low, high).join(" and ");
  if (!series.low.length || low === high) return words(y)[0];
  const [middle, ...ends] = words(y, low, high);
  return `${middle} (${ends.join(" to ")})`;
}
function tickWords(axis, value) {
  const index = axis.ticks.indexOf(value);
  return index >= 0 ? axis.words[index] : axis.whole ? String(value) : numbers([value])[0];
}
function isInView(one, series, index) { // what is beyond a zoomed panel is not spoken of
  if (!one.view.signal("isZoomed")) return true;
  const [low, high] = one.view.signal("ydom"), values = [series.y, series.low, series.high].map((column) => column[index] ?? null);
  const shown = values.filter((value) => value !== null);
  return Math.min(...shown) <= high && Math.max(...shown) >= low;
}
function show(chart, one, x, pixel) {
  const { panel, plot } = one, shown = visible(chart, panel).filter((series) => series.x.includes(x) && isInView(one, series, series.x.indexOf(x)));
  if (!shown.length) return hide(chart, one);
  chart.tip.textContent = "";
  chart.tip.append(element("p", "", `${panel.x.label} ${tickWords(panel.x, x)}${shown.some(({ frame }) => frame !== null) ? `, at step ${chart.frame}` : ""}`));
  for (const series of shown) {
    const index = series.x.indexOf(x);
    const line = element("p", "", `${series.label}${series.kind === "dots" && panel.series.some((s) => s.label === series.label && s.kind !== "dots") ? ", dots" : ""}: ${valueOf(panel, series, index)}`);
    line.style.setProperty("--light", series.light);
    line.style.setProperty("--dark", series.dark);
    line.classList.add("of");
    chart.tip.append(line);
  }
  place(chart, plot, pixel);
}
function showCell(chart, one, i, j, pixel) {
  const { panel: { cells, x, y }, plot } = one;
  const value = cells.values[j][i];
  chart.tip.textContent = "";
  chart.tip.append(
    element("p", "", `${x.label} ${tickWords(x, cells.x[i])}, ${y.label} ${tickWords(y, cells.y[j])}`),
    element("p", "", `${chart.data.colours.label}: ${value === null ? "none" : numbers([value], isOfCounts(one.panel))[0]}`),
  );
  place(chart, plot, pixel);
}
function place(chart, plot, pixel) {
  const outer = chart.figure.getBoundingClientRect(), inner = plot.getBoundingClientRect();
  chart.tip.classList.add("open");
  const width = chart.tip.offsetWidth, left = inner.left - outer.left + pixel.x;
  chart.tip.style.left = `${Math.max(0, left + 14 + width > outer.width ? left - 14 - width : left + 14)}px`;
  chart.tip.style.top = `${inner.top - outer.top + Math.max(0, Math.min(pixel.y, inner.height - 40))}px`;
}
function hide(chart, one) {
  chart.tip.classList.remove("open");
  one.view.signal("place", null).runAsync();
}
function nearest(values, target) {
  return values.reduce((best, value) => Math.abs(value - target) < Math.abs(best - target) ? value : best);
}
function placesOf(chart, { panel, view }) {
  const [low, high] = view.signal("xdom");
  return [...new Set(visible(chart, panel).flatMap(({ x }) => x))].filter((x) => low <= x && x <= high).sort((a, b) => a - b);
}
function pointAt(chart, one, pixel) {
  const { view, panel } = one, origin = view.origin();
  const at = { x: view.scale("x").invert(pixel.x - origin[0]), y: view.scale("y").invert(pixel.y - origin[1]) };
  if (panel.cells) {
    const index = (edges, value) => edges.findIndex((edge, i) => i + 1 < edges.length && edge <= value && value < edges[i + 1]);
    const i = index(panel.cells.x_edges, at.x), j = index(panel.cells.y_edges, at.y);
    return i < 0 || j < 0 || isOff(panel.cells.x_keys[i]) || isOff(panel.cells.y_keys[j]) ? hide(chart, one) : showCell(chart, one, i, j, pixel);
  }
  const places = placesOf(chart, one);
  if (!places.length) return hide(chart, one);
  const scaled = panel.x.scale === "log" ? places.map(Math.log) : places;
  const x = places[scaled.indexOf(nearest(scaled, panel.x.scale === "log" ? Math.log(at.x) : at.x))];
  setCursor(chart, one, x, pixel);
}
function setCursor(chart, one, x, pixel) {
  one.cursor = x;
  one.view.signal("place", x).runAsync();
  show(chart, one, x, pixel);
}
function zoomTo(chart, domains) {
  chart.zoom = new Map(domains ?? []);
  return setSignals(chart);
}
function around({ limits, scale }, now, factor) {
  const [to, from] = scale === "log" ? [Math.log, Math.exp] : [(v) => v, (v) => v];
  const [a, b] = now.map(to), middle = (a + b) / 2, half = (b - a) / 2 * factor;
  const [low, high] = limits.map(to);
  return [from(Math.max(low, middle - half)), from(Math.min(high, middle + half))];
}
function zoomBy(chart, { panel, view }, factor) {
  zoomTo(chart, [
    [`x${panel.x.label}`, around(panel.x, view.signal("xdom"), factor)],
    [`y${panel.y.label}`, around(panel.y, view.signal("ydom"), factor)],
  ]);
}
function listen(chart, one) {
  const { plot, panel, view } = one;
  const pixelOf = (event) => {
    const box = plot.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  let start = null, brush = null, isTouch = false;
  plot.addEventListener("pointermove", (event) => {
    const pixel = pixelOf(event);
    if (start && Math.hypot(pixel.x - start.x, pixel.y - start.y) > 6) {
      brush ??= plot.appendChild(element("div", "brush"));
      brush.style.left = `${Math.min(start.x, pixel.x)}px`;
      brush.style.top = `${Math.min(start.y, pixel.y)}px`;
      brush.style.width = `${Math.abs(start.x - pixel.x)}px`;
      brush.style.height = `${Math.abs(start.y - pixel.y)}px`;
    } else {
      pointAt(chart, one, pixel);
    }
  });
  plot.addEventListener("pointerleave", () => { if (!start && !isTouch) hide(chart, one); });
  plot.addEventListener("pointercancel", () => hide(chart, one)); // the page is scrolled
  plot.addEventListener("click", (event) => { if (isTouch) pointAt(chart, one, pixelOf(event)); });
  plot.addEventListener("pointerdown", (event) => {
    isTouch = event.pointerType === "touch";
    if (isTouch || event.button) return;
    start = pixelOf(event);
    plot.setPointerCapture(event.pointerId);
  });
  plot.addEventListener("pointerup", (event) => {
    const from = start, to = pixelOf(event), wasDragged = brush;
    brush?.remove();
    start = brush = null;
    if (!wasDragged) return;
    const origin = view.origin(), x = view.scale("x"), y = view.scale("y");
    const ends = (a, b) => a < b ? [a, b] : [b, a];
    zoomTo(chart, [
      ...chart.zoom,
      [`x${panel.x.label}`, ends(x.invert(from.x - origin[0]), x.invert(to.x - origin[0]))],
      [`y${panel.y.label}`, ends(y.invert(from.y - origin[1]), y.invert(to.y - origin[1]))],
    ]);
  });
  plot.addEventListener("dblclick", () => zoomTo(chart, null));
  plot.addEventListener("blur", () => hide(chart, one));
  plot.addEventListener("keydown", (event) => {
    const turn = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (turn && panel.cells) return;
    if (turn) {
      const places = placesOf(chart, one);
      const index = places.indexOf(one.cursor) + turn;
      const x = places[Math.max(0, Math.min(places.length - 1, index))];
      if (x !== undefined) setCursor(chart, one, x, { x: view.origin()[0] + view.scale("x")(x), y: 20 });
    } else if (event.key === "+" || event.key === "=") zoomBy(chart, one, 0.6);
    else if (event.key === "-") zoomBy(chart, one, 1 / 0.6);
    else if (event.key === "0") zoomTo(chart, null);
    else if (event.key === "Escape") hide(chart, one);
    else return;
    event.preventDefault();
  });
}

// ---- The page ----
const library = typeof vegaEmbed === "function";
if (library) {
  for (const figure of document.querySelectorAll("figure[data-chart]")) addChart(figure);
  for (const legend of document.querySelectorAll(".legend")) legend.hidden = false;
  for (const box of document.querySelectorAll("input[data-key]")) {
    const change = () => {
      if (box.checked) off.delete(box.dataset.key); else off.add(box.dataset.key);
    };
    box.addEventListener("change", () => { change(); charts.forEach(setSignals); });
    change();
  }
  dark.addEventListener("change", () => charts.forEach(setSignals));
  for (const [event, value] of [["beforeprint", true], ["afterprint", false]]) {
    addEventListener(event, () => {
      isPrinting = value;
      charts.forEach((chart) => value && draw(chart));
      for (const chart of charts) for (const one of chart.views) fit(chart, one); // the observer is too late
      charts.forEach(setSignals);
    });
  }
  window.normscopeCharts = { charts, draw: () => Promise.all(charts.map(draw)) };
}
})();
