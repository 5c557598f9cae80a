"use strict";
{
// ---- The atlas: two placements, a step, and what was measured of them there.
const placements = JSON.parse(document.getElementById("data").textContent);
const names = Object.keys(placements);
const SIDES = ["left", "right"];
const picks = Object.fromEntries(SIDES.map((side) => [side, document.getElementById(`${side}-pick`)]));
const slider = document.getElementById("step");
const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}
function html(tag, text = "", className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}
// Three significant digits.
function digits(value) {
  if (value === null || value === undefined) return "not measured";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 0.001 || size >= 1e5) return value.toExponential(2);
  return size < 100 ? value.toPrecision(3) : String(Number(value.toPrecision(3)));
}
// The runs of both sides, without warm-up first and solid; of one placement on both sides once.
function runs() {
  const sides = picks.left.value === picks.right.value ? ["left"] : SIDES;
  return sides.flatMap((side) => {
    const { title, runs: of } = placements[picks[side].value];
    return Object.entries(of).map(([warmup, run]) => ({
      key: `${side} ${warmup}`, side, title, run, dash: run.dash, words: run.words, name: `${title}, ${run.words}`,
    }));
  });
}
const hidden = new Set(); // keys of runs
const shown = () => runs().filter(({ key }) => !hidden.has(key));
function steps() {
  return runs().reduce((most, { run }) => (run.steps.length > most.length ? run.steps : most), []);
}
// The newest probe at this step or before: a run that diverged has none after.
function probed(run, name, step) {
  const index = run.steps.findLastIndex((of) => of <= step);
  return index < 0 || !run[name] ? null : run[name][index];
}
const frequencies = (of) => of.find(({ run }) => run.frequencies !== null)?.run.frequencies ?? null;
const lastLoss = (run, step) => run.loss.findLast(([at]) => at <= step) ?? [null, null];
// A run that ended earlier shows its last numbers, and says so.
function dated({ run, name }, step) {
  const at = run.steps.findLast((of) => of <= step);
  return at === undefined || at === step ? name : `${name} (step ${at}, its last)`;
}

// ---- Charts of lines
// Strokes and gaps are in widths of the line.
function line(className, side, dash, width, d) {
  const path = make("path", { class: `series ${className} ${side}`, "stroke-width": width, d });
  if (dash.length) path.setAttribute("stroke-dasharray", dash.map((part) => (part * width).toFixed(1)).join(" "));
  return path;
}
const HEIGHT = 264, LEFT = 48, BOTTOM = 40, TOP = 26, FLOOR = HEIGHT - BOTTOM;
let WIDTH = 560; // of a chart, so that its letters are as large on a phone
const DECADES = 9; // of a logarithmic axis at most; what lies beyond is marked at its edge
function logRange(values) {
  const sorted = values.filter((value) => value > 0).sort((a, b) => a - b);
  if (!sorted.length) return [0.1, 10];
  let low = Math.floor(Math.log10(sorted[0])), high = Math.ceil(Math.log10(sorted[sorted.length - 1]));
  const middle = Math.log10(sorted[Math.floor(sorted.length / 2)]);
  low = Math.max(low, Math.floor(middle - DECADES / 2));
  high = Math.min(high, Math.ceil(middle + DECADES / 2));
  return [10 ** low, 10 ** Math.max(high, low + 1)];
}
// Ticks: powers of ten, and multiples of 1, 2 or 5 times one.
function powers(low, high) {
  const count = Math.round(Math.log10(high / low)), every = Math.ceil(count / 5);
  return [...Array(Math.floor(count / every) + 1).keys()].map((i) => low * 10 ** (i * every));
}
function rounds(low, high) {
  const least = (high - low) / 5, power = 10 ** Math.floor(Math.log10(least));
  const every = power * [1, 2, 5, 10].find((times) => times * power >= least);
  const first = Math.ceil(low / every);
  return [...Array(Math.floor(high / every) - first + 1).keys()].map((i) => (first + i) * every);
}
const FAR = 1e5; // of a point beyond the axis, such as a 0 on a logarithmic one
// An svg with its axes; `titles` are those of both, with units.
function axes(label, titles, xTicks, xOf, log, [low, high]) {
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "plot-area", role: "img", "aria-label": label });
  const scale = log ? Math.log10 : (value) => value;
  const yOf = (value) => Math.max(-FAR, Math.min(FAR, FLOOR - (FLOOR - TOP) * (scale(value) - scale(low)) / (scale(high) - scale(low))));
  for (const value of log ? powers(low, high) : rounds(low, high)) {
    svg.append(make("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: yOf(value), y2: yOf(value) }));
    svg.append(make("text", { x: LEFT - 6, y: yOf(value) + 4, "text-anchor": "end" }, log && Math.abs(Math.log10(value)) >= 3.5 ? value.toExponential(0) : String(Number(value.toPrecision(3)))));
  }
  for (const [x, text] of xTicks) svg.append(make("text", { x: xOf(x), y: FLOOR + 16, "text-anchor": "middle" }, text));
  svg.append(make("text", { class: "title", x: 0, y: 12 }, titles.y));
  svg.append(make("text", { class: "title", x: WIDTH, y: HEIGHT - 6, "text-anchor": "end" }, titles.x));
  return { svg, yOf };
}
// A line through points [x, y] as far as it is within the axes; null breaks it.
function within(points) {
  let d = "", end = "";
  points.forEach((to, i) => {
    const from = points[i - 1];
    if (!from || from[1] === null || to[1] === null) return;
    const edge = (of, other) => {
      const y = Math.min(Math.max(of[1], TOP), FLOOR);
      return y === of[1] ? of : [of[0] + (other[0] - of[0]) * (y - of[1]) / (other[1] - of[1]), y];
    };
    if (Math.max(from[1], to[1]) < TOP || Math.min(from[1], to[1]) > FLOOR) return;
    const [start, stop] = [edge(from, to), edge(to, from)].map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`);
    d += `${start === end ? "" : `M${start}`}L${stop}`;
    end = stop;
  });
  return d;
}
// An arrow where a line leaves the axes.
function arrow(side, x, isUp, words) {
  const [tip, base] = isUp ? [TOP - 5, TOP + 5] : [FLOOR + 5, FLOOR - 5];
  const path = make("path", { class: `cut ${side}`, d: `M${x - 5} ${base}H${x + 5}L${x} ${tip}Z` });
  path.append(make("title", {}, words));
  return path;
}
// Whose lines are one, since their numbers are equal.
function coinciding(series) {
  const measured = series.filter(({ values }) => values.some((value) => value !== null));
  const groups = Object.values(Object.groupBy(measured, ({ values }) => JSON.stringify(values))).filter((group) => group.length > 1);
  const parts = groups.map((group) => {
    const each = (name) => [...new Set(group.map((of) => of[name]))].join(" and ");
    const are = ["title", "words"].some((name) => group.every((of) => of[name] === group[0][name]));
    return are ? `${each("title")}, ${each("words")}` : each("name");
  });
  return parts.length ? [html("span", `Equal here, so that one line hides the other: ${parts.join("; ")}`, "equal")] : [];
}
// What each run's values say of those beyond the axis.
function beyond({ side, name, values }, [low, high], where) {
  const notes = [];
  const numbers = values.filter((value) => value !== null);
  const most = Math.max(...numbers), least = Math.min(...numbers);
  if (most > high) notes.push(html("span", `\u2191 ${name}: up to ${digits(most)}${where(most)}`, `cut ${side}`));
  if (least < low) notes.push(html("span", `\u2193 ${name}: down to ${digits(least)}${where(least)}`, `cut ${side}`));
  return notes;
}
function place(id, notes, svg) {
  const lines = html("p", "", "notes");
  lines.append(...notes);
  document.getElementById(id).replaceChildren(lines, svg ?? html("p", "No run is selected."));
}
function drawLines(id, label, titles, xTicks, xOf, step) {
  const of = shown();
  if (!of.length) return place(id, []);
  const range = logRange(of.flatMap(({ run }) => (run[id] ?? []).flat()));
  const { svg, yOf } = axes(label, titles, xTicks, xOf, true, range);
  const series = of.map((one) => ({ ...one, values: probed(one.run, id, step) })).filter(({ values }) => values);
  for (const { side, name, dash, values } of series) {
    svg.append(line("", side, dash, 2.2, within(values.map((value, i) => [xOf(i), value === null ? null : yOf(value)]))));
    values.forEach((value, i) => {
      if (value === null) return;
      const words = `${name}: ${digits(value)}`;
      if (value < range[0] || value > range[1]) {
        svg.append(arrow(side, xOf(i), value > range[1], words));
        return;
      }
      const mark = make("circle", { class: `mark ${side}`, cx: xOf(i), cy: yOf(value), r: 3.5 });
      mark.append(make("title", {}, words));
      svg.append(mark);
    });
  }
  place(id, [...series.flatMap((one) => beyond(one, range, () => "")), ...coinciding(series)], svg);
}
function drawLoss(step) {
  const of = shown().map((one) => ({ ...one, values: one.run.loss.map(([, loss]) => loss) }));
  if (!of.length) return place("loss", []);
  const last = Math.max(1, ...of.flatMap(({ run }) => run.loss.map(([at]) => at)), ...steps());
  const losses = of.flatMap(({ values }) => values).filter((loss) => loss !== null);
  const chance = frequencies(of);
  // Up to twice what token frequencies give: one run that explodes does not flatten the others.
  const largest = Math.max(...losses, chance ?? 1), limit = 2 * (chance ?? largest);
  const high = Math.min(largest, limit), low = Math.min(...losses, high - 1);
  const xOf = (at) => LEFT + 8 + (WIDTH - LEFT - 20) * at / last;
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => [last * part, String(Math.round(last * part))]);
  const titles = { y: "training loss, nats per token", x: "step" };
  const { svg, yOf } = axes("Training loss by step", titles, ticks, xOf, false, [low, high]);
  if (chance !== null) {
    svg.append(make("line", { class: "chance", x1: LEFT, x2: WIDTH, y1: yOf(chance), y2: yOf(chance) }));
  }
  // The newest loss at this step: the last stop is after the last one.
  const now = Math.max(0, ...of.map(({ run }) => lastLoss(run, step)[0]));
  svg.append(make("line", { class: "now", x1: xOf(now), x2: xOf(now), y1: TOP, y2: FLOOR }));
  const arrows = []; // where they are, so that none is on another
  for (const { side, name, run, dash } of of) {
    svg.append(line("loss", side, dash, 1.5, within(run.loss.map(([at, loss]) => [xOf(at), loss === null ? null : yOf(loss)]))));
    const left = run.loss.find(([, loss]) => loss > high);
    if (!left) continue;
    let x = xOf(left[0]);
    while (arrows.some((other) => Math.abs(other - x) < 12)) x += 12;
    arrows.push(x);
    svg.append(arrow(side, x, true, `${name}: ${digits(left[1])} at step ${left[0]}`));
  }
  const notes = of.flatMap((one) => beyond(one, [low, high], (loss) => ` at step ${one.run.loss[one.values.indexOf(loss)][0]}`));
  place("loss", [...notes, ...coinciding(of)], svg);
}

// ---- The matrices of depth mixing
const CELL = 20;
// The root, from a first shade on, so that a share of 1 % can be told from none.
const shade = (share) => (Math.abs(share) < 0.005 ? 0 : 0.25 + 0.75 * Math.sqrt(Math.min(1, Math.abs(share)))).toFixed(3);
// Each share in the colours of the placements that are shown.
function drawShades() {
  const sides = [...new Set(shown().map(({ side }) => side))];
  document.getElementById("shades").replaceChildren("Share:", ...[0, 0.01, 0.05, 0.2, 0.5, 1].map((share) => {
    const key = html("span");
    const svg = make("svg", { viewBox: "0 0 32 16", class: "shade", "aria-hidden": "true" });
    sides.forEach((side, i) => {
      const width = 32 / sides.length;
      svg.append(make("rect", { class: side, x: i * width, width, height: 16, "fill-opacity": shade(share) }));
    });
    key.append(svg, `${100 * share} %`);
    return key;
  }));
}
function drawMatrix(of, step) {
  const rows = probed(of.run, "shares", step);
  const figure = html("figure", "", of.side);
  figure.append(html("figcaption", dated(of, step)));
  if (!rows) {
    figure.append(html("p", "Not measured at this step: the numbers had left their range."));
    return figure;
  }
  const size = rows.length + 2;
  const svg = make("svg", { viewBox: `-22 0 ${size * CELL + 22} ${(rows.length + 1) * CELL}`, class: "matrix", role: "img" });
  const writer = (i) => (i === 0 ? "E" : i === size - 1 ? "N" : `${"AF"[(i - 1) % 2]}${Math.ceil(i / 2)}`);
  const said = [];
  rows.forEach((shares, row) => {
    const y = (rows.length - 1 - row) * CELL;
    const state = writer(row + 1);
    svg.append(make("text", { x: -11, y: y + 14 }, state));
    const largest = shares.indexOf(Math.max(...shares));
    shares.forEach((share, i) => {
      const column = i === shares.length - 1 ? size - 1 : i;
      if (share === null) return;
      const cell = make("rect", { x: column * CELL + 0.5, y: y + 0.5, width: CELL - 1, height: CELL - 1, "fill-opacity": shade(share) });
      cell.append(make("title", {}, `after ${state}, written by ${writer(column)}: ${digits(100 * share)} %`));
      svg.append(cell);
      if (share < -0.005) svg.append(make("circle", { cx: column * CELL + CELL / 2, cy: y + CELL / 2, r: 2 }));
    });
    said.push(`after ${state} most by ${writer(largest)}, ${Math.round(100 * shares[largest])} %`);
  });
  for (let i = 0; i < size; i += 1) svg.append(make("text", { x: (i + 0.5) * CELL, y: rows.length * CELL + 13 }, writer(i)));
  svg.setAttribute("aria-label", `Shares of the stream: ${said.join("; ")}`);
  figure.append(svg);
  return figure;
}

// ---- The page
const COLUMNS = ["run", "training loss", "gradient, first block", "gradient, last block", "gradient, last over first", "stream after the last block", "validation loss at the end"];
function row(cells, tag) {
  const line = document.createElement("tr");
  cells.forEach((text, i) => {
    const cell = html(i === 0 || tag === "th" ? "th" : "td", text);
    if (cell.tagName === "TH") cell.scope = tag === "th" ? "col" : "row";
    else cell.dataset.name = COLUMNS[i];
    line.append(cell);
  });
  return line;
}
// Which numbers are of an earlier step: at the end, after the last update, there is no gradient.
function moments(step) {
  const at = shown().find(({ run }) => run.steps.includes(step));
  if (!at) return `At step ${step}`;
  const trained = probed(at.run, "trained", step), [loss] = lastLoss(at.run, step);
  const earlier = Object.groupBy([["gradients", trained], ["training loss", loss]].filter(([, of]) => of !== null && of < step), ([, of]) => of);
  const parts = Object.entries(earlier).map(([of, what]) => `${what.map(([name]) => name).join(" and ")} of step ${of}`);
  return `At step ${step}${parts.length ? `; ${parts.join(", ")}, the last before it` : ""}`;
}
function drawNumbers(step) {
  const table = document.getElementById("numbers"), of = shown();
  table.caption.textContent = moments(step);
  table.tHead.replaceChildren(row(COLUMNS, "th"));
  table.tBodies[0].replaceChildren(...of.map((one) => {
    const { run } = one;
    const gradient = probed(run, "gradient", step), rms = probed(run, "rms", step);
    const first = gradient?.[0], last = gradient?.at(-1);
    const ratio = first && last !== null ? last / first : null;
    const end = run.status === "finished" ? digits(run.final) : run.status;
    return row([dated(one, step), digits(lastLoss(run, step)[1]), digits(first), digits(last), digits(ratio), digits(rms?.at(-1)), end], "td");
  }));
  const chance = frequencies(of);
  if (chance !== null) table.tBodies[0].append(row(["token frequencies", "", "", "", "", "", digits(chance)], "td"));
}
function drawStep() {
  const step = steps()[Number(slider.value)] ?? 0;
  document.getElementById("at").textContent = step;
  slider.setAttribute("aria-valuetext", `step ${step}`);
  WIDTH = Math.max(280, document.getElementById("loss").clientWidth);
  const blocks = Math.max(1, ...runs().map(({ run }) => run.rms?.[0]?.length ?? 0));
  const along = (count) => (i) => LEFT + 20 + (WIDTH - LEFT - 40) * i / Math.max(1, count - 1);
  const numbers = [...Array(blocks).keys()].map((i) => [i, String(i + 1)]);
  // A phone has no room for those of many blocks.
  const narrow = (WIDTH - LEFT - 40) / (2 * blocks) < 20;
  const sublayers = narrow ? numbers.map(([i, text]) => [2 * i, `A${text}`]) : numbers.flatMap(([i, text]) => [[2 * i, `A${text}`], [2 * i + 1, `F${text}`]]);
  const trained = Math.max(0, ...shown().map(({ run }) => probed(run, "trained", step)));
  drawLoss(step);
  drawLines("gradient", "Gradient norm by block", { y: `gradient norm at step ${trained}, logarithmic`, x: "block" }, numbers, along(blocks), step);
  drawLines("rms", "Root mean square of the stream by block", { y: `root mean square at step ${step}, logarithmic`, x: "block" }, numbers, along(blocks), step);
  drawLines("ratio", "What each branch adds, by sublayer", { y: `branch over stream at step ${step}, logarithmic`, x: "sublayer" }, sublayers, along(2 * blocks), step);
  document.getElementById("matrices").replaceChildren(...shown().map((of) => drawMatrix(of, step)));
  drawShades();
  drawNumbers(step);
}
// A switch for each run.
function drawKeys() {
  document.getElementById("keys").replaceChildren(...runs().map(({ key, side, name, dash }) => {
    const button = html("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    const svg = make("svg", { viewBox: "0 0 32 10", "aria-hidden": "true" });
    svg.append(line("", side, dash, 2.2, "M0 5H32"));
    svg.append(make("circle", { class: `mark ${side}`, cx: 16, cy: 5, r: 3.5 }));
    button.append(svg, html("span", name));
    button.addEventListener("click", () => {
      if (!hidden.delete(key)) hidden.add(key);
      button.setAttribute("aria-pressed", String(!hidden.has(key)));
      drawStep();
    });
    return button;
  }));
}
// The placement's own; where both share one, the right side has that of the text.
function colour(side) {
  const own = placements[picks[side].value];
  return side === "right" && isShared() ? { light: "var(--ink)", dark: "var(--ink)" } : own;
}
function isShared() {
  const [left, right] = SIDES.map((side) => placements[picks[side].value]);
  return left !== right && left.light === right.light;
}
function aboutColours() {
  const [left, right] = SIDES.map((side) => placements[picks[side].value].title);
  if (left === right) return `Both sides are ${left}: its runs are shown once.`;
  if (isShared()) return `${left} and ${right} share a colour: here ${right} has that of the text instead.`;
  return "Each placement has its colour of the table below.";
}
function show() {
  for (const side of SIDES) {
    const card = document.getElementById(`card-${picks[side].value}`).content.cloneNode(true);
    document.getElementById(side).replaceChildren(card);
    const colours = colour(side);
    for (const page of ["light", "dark"]) document.documentElement.style.setProperty(`--${side}-${page}`, colours[page]);
  }
  const share = Number(slider.value) / Number(slider.max);
  slider.max = Math.max(1, steps().length - 1);
  slider.value = Math.round(share * Number(slider.max));
  hidden.clear();
  document.getElementById("colours").textContent = aboutColours();
  drawKeys();
  drawStep();
}
function pick(side, name) {
  picks[side].value = name;
  history.replaceState(null, "", `#${picks.left.value},${picks.right.value}`);
  show();
}
function turn(side, by) {
  pick(side, names[(names.indexOf(picks[side].value) + by + names.length) % names.length]);
}
function readAddress() {
  const asked = decodeURIComponent(location.hash.slice(1)).split(",");
  SIDES.forEach((side, i) => {
    const usual = ["pre_ln", "post_ln"][i];
    picks[side].value = names.includes(asked[i]) ? asked[i] : names.includes(usual) ? usual : names[Math.min(i, names.length - 1)];
  });
  show();
}
for (const side of SIDES) picks[side].addEventListener("change", () => pick(side, picks[side].value));
for (const button of document.querySelectorAll(".picker button")) {
  button.addEventListener("click", () => turn(button.dataset.side, Number(button.dataset.by)));
}
const KEYS = { "[": ["left", -1], "]": ["left", 1], "{": ["right", -1], "}": ["right", 1] };
document.addEventListener("keydown", (event) => {
  if (event.key in KEYS && !event.ctrlKey && !event.metaKey) turn(...KEYS[event.key]);
});
slider.addEventListener("input", drawStep);
window.addEventListener("hashchange", () => {
  if (!document.getElementById(location.hash.slice(1))) readAddress(); // not a link within the page
});
window.addEventListener("resize", drawStep);
slider.value = slider.max; // the end: at the first step warm-up has changed nothing
readAddress();
}
