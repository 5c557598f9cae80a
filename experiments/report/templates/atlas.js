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
function digits(value) {
  if (value === null || value === undefined) return "not measured";
  const size = Math.abs(value);
  return size !== 0 && (size < 0.001 || size >= 1e5) ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}
// What is shown: each side's placement, without warm-up first and solid.
function shown() {
  return SIDES.flatMap((side) => {
    const { title, runs } = placements[picks[side].value];
    return Object.values(runs).map((run) => ({
      side, title, run, dash: run.dash, words: run.words,
    }));
  });
}
function steps() {
  return shown().reduce((most, { run }) => (run.steps.length > most.length ? run.steps : most), []);
}
// The newest probe at this step or before: a run that diverged has none after.
function probed(run, name, step) {
  const index = run.steps.findLastIndex((of) => of <= step);
  return index < 0 || !run[name] ? null : run[name][index];
}

// ---- Charts of lines
// Strokes and gaps are in widths of the line.
function line(className, side, dash, width, d) {
  const path = make("path", { class: `series ${className} ${side}`, "stroke-width": width, d });
  if (dash.length) path.setAttribute("stroke-dasharray", dash.map((part) => (part * width).toFixed(1)).join(" "));
  return path;
}
const HEIGHT = 230, LEFT = 48, BOTTOM = 24, TOP = 8;
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
function axes(label, xTicks, xOf, log, [low, high]) {
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "plot-area", role: "img", "aria-label": label });
  const scale = log ? Math.log10 : (value) => value;
  const yOf = (value) => HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (scale(value) - scale(low)) / (scale(high) - scale(low));
  for (const value of log ? powers(low, high) : rounds(low, high)) {
    svg.append(make("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: yOf(value), y2: yOf(value) }));
    svg.append(make("text", { x: LEFT - 6, y: yOf(value) + 4, "text-anchor": "end" }, log && Math.abs(Math.log10(value)) >= 3.5 ? value.toExponential(0) : String(Number(value.toPrecision(3)))));
  }
  for (const [x, text] of xTicks) svg.append(make("text", { x: xOf(x), y: HEIGHT - 6, "text-anchor": "middle" }, text));
  return { svg, yOf };
}
function drawLines(name, label, xTicks, xOf, step) {
  const all = shown().flatMap(({ run }) => (run[name] ?? []).flat());
  const range = logRange(all);
  const { svg, yOf } = axes(label, xTicks, xOf, true, range);
  for (const { side, title, words, run, dash } of shown()) {
    const values = probed(run, name, step);
    if (!values) continue;
    const points = values.map((value, i) => {
      const inside = Math.min(Math.max(value ?? range[0], range[0]), range[1]);
      return { x: xOf(i), y: yOf(inside), value, beyond: value !== inside };
    }).filter(({ value }) => value !== null);
    svg.append(line("", side, dash, 2.2, points.map(({ x, y }, i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("")));
    for (const { x, y, value, beyond } of points) {
      const mark = make("circle", { class: `mark ${side} ${beyond ? "beyond" : ""}`, cx: x, cy: y, r: 3.5 });
      mark.append(make("title", {}, `${title}, ${words}: ${digits(value)}`));
      svg.append(mark);
    }
  }
  document.getElementById(name).replaceChildren(svg);
}
function drawLoss(step) {
  const last = Math.max(1, ...shown().flatMap(({ run }) => run.loss.map(([at]) => at)), ...steps());
  const losses = shown().flatMap(({ run }) => run.loss.map(([, loss]) => loss)).filter((loss) => loss !== null);
  const chance = shown()[0].run.frequencies;
  // Up to twice what token frequencies give: one run that explodes does not flatten the others.
  const largest = Math.max(...losses, chance ?? 1), limit = 2 * (chance ?? largest);
  const high = Math.min(largest, limit), low = Math.min(...losses, high - 1);
  const xOf = (at) => LEFT + 8 + (WIDTH - LEFT - 20) * at / last;
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => [last * part, String(Math.round(last * part))]);
  const { svg, yOf } = axes("Training loss by step", ticks, xOf, false, [low, high]);
  if (chance !== null) svg.append(make("line", { class: "chance", x1: LEFT, x2: WIDTH, y1: yOf(chance), y2: yOf(chance) }));
  svg.append(make("line", { class: "now", x1: xOf(step), x2: xOf(step), y1: TOP, y2: HEIGHT - BOTTOM }));
  let cut = 0;
  for (const { side, title, words, run, dash } of shown()) {
    const points = run.loss.filter(([, loss]) => loss !== null);
    const way = points.map(([at, loss]) => `${xOf(at).toFixed(1)} ${yOf(Math.min(loss, high)).toFixed(1)}`);
    svg.append(line("loss", side, dash, 1.5, way.length ? `M${way.join("L")}` : ""));
    const [at, most] = points.reduce((top, point) => (point[1] > top[1] ? point : top), [0, high]);
    if (most > high) {
      const value = make("text", { class: `cut ${side}`, x: WIDTH - 20, y: TOP + 14 + 14 * cut, "text-anchor": "end" }, `\u2191 up to ${digits(most)}`);
      value.append(make("title", {}, `${title}, ${words}: ${digits(most)} at step ${at}`));
      svg.append(value);
      cut += 1;
    }
  }
  document.getElementById("loss").replaceChildren(svg);
}

// ---- The matrices of depth mixing
const CELL = 20;
// The root, so that a share of 4 % can still be told from none.
const shade = (share) => Math.sqrt(Math.min(1, Math.abs(share))).toFixed(3);
function drawShades() {
  document.getElementById("shades").replaceChildren("Share:", ...[0.01, 0.05, 0.2, 0.5, 1].map((share) => {
    const key = html("span");
    const svg = make("svg", { viewBox: "0 0 32 16", class: "shade", "aria-hidden": "true" });
    svg.append(make("rect", { width: 32, height: 16, "fill-opacity": shade(share) }));
    key.append(svg, `${100 * share} %`);
    return key;
  }));
}
function drawMatrix({ side, title, words, run }, step) {
  const rows = probed(run, "shares", step);
  const figure = html("figure", "", side);
  figure.append(html("figcaption", `${title}, ${words}`));
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
      cell.append(make("title", {}, `after ${state}, written by ${writer(column)}: ${(100 * share).toFixed(1)} %`));
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
const COLUMNS = ["run", "training loss", "gradient, first block", "gradient, last block", "first over last", "stream after the last block", "validation loss at the end"];
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
function drawNumbers(step) {
  const table = document.getElementById("numbers");
  table.caption.textContent = `At step ${step}`;
  table.tHead.replaceChildren(row(COLUMNS, "th"));
  table.tBodies[0].replaceChildren(...shown().map(({ title, words, run }) => {
    const gradient = probed(run, "gradient", step), rms = probed(run, "rms", step);
    const loss = run.loss.findLast(([at]) => at <= step);
    const first = gradient?.[0], last = gradient?.at(-1);
    const ratio = first !== null && last ? first / last : null;
    const end = run.status === "finished" ? digits(run.final) : run.status;
    return row([`${title}, ${words}`, digits(loss?.[1]), digits(first), digits(last), digits(ratio), digits(rms?.at(-1)), end], "td");
  }));
}
function drawStep() {
  const step = steps()[Number(slider.value)] ?? 0;
  document.getElementById("at").textContent = step;
  slider.setAttribute("aria-valuetext", `step ${step}`);
  WIDTH = Math.max(280, document.getElementById("loss").clientWidth);
  const blocks = Math.max(1, ...shown().map(({ run }) => run.rms?.[0]?.length ?? 0));
  const along = (count) => (i) => LEFT + 20 + (WIDTH - LEFT - 40) * i / Math.max(1, count - 1);
  const numbers = [...Array(blocks).keys()].map((i) => [i, String(i + 1)]);
  // A phone has no room for those of many blocks.
  const narrow = (WIDTH - LEFT - 40) / (2 * blocks) < 20;
  const sublayers = narrow ? numbers.map(([i, text]) => [2 * i, `A${text}`]) : numbers.flatMap(([i, text]) => [[2 * i, `A${text}`], [2 * i + 1, `F${text}`]]);
  drawLoss(step);
  drawLines("gradient", "Gradient norm by block", numbers, along(blocks), step);
  drawLines("rms", "Root mean square of the stream by block", numbers, along(blocks), step);
  drawLines("ratio", "What each branch adds, by sublayer", sublayers, along(2 * blocks), step);
  document.getElementById("matrices").replaceChildren(...shown().map((of) => drawMatrix(of, step)));
  drawNumbers(step);
}
function drawKeys() {
  document.getElementById("keys").replaceChildren(...shown().map(({ side, title, words, dash }) => {
    const key = html("span");
    const svg = make("svg", { viewBox: "0 0 32 10", "aria-hidden": "true" });
    svg.append(line("", side, dash, 2.2, "M0 5H32"));
    svg.append(make("circle", { class: `mark ${side}`, cx: 16, cy: 5, r: 3.5 }));
    key.append(svg, `${title}, ${words}`);
    return key;
  }));
}
// The placement's own, on both sides; where both share one, the right has another.
function colour(side) {
  const own = placements[picks[side].value];
  return side === "right" && own.light === placements[picks.left.value].light ? own.beside : own;
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
window.addEventListener("hashchange", readAddress);
window.addEventListener("resize", drawStep);
drawShades();
slider.value = slider.max; // the end: at the first step warm-up has changed nothing
readAddress();
}
