"use strict";
// Open what the address names, and all that is folded before it is printed, on a page as wide as A4.
function reveal() {
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let box = named?.closest("details"); box; box = box.parentElement.closest("details")) {
    box.open = true;
  }
  named?.scrollIntoView();
}
addEventListener("hashchange", reveal);
reveal();
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const box of opened) box.open = true;
  document.documentElement.classList.add("printing");
});
addEventListener("afterprint", () => {
  for (const box of opened) box.open = false;
  document.documentElement.classList.remove("printing");
});
// Show all columns of a table, or the main ones.
for (const button of document.querySelectorAll("button.columns")) {
  button.addEventListener("click", () => {
    const all = document.getElementById(button.getAttribute("aria-controls")).classList.toggle("all");
    button.setAttribute("aria-expanded", String(all));
    button.textContent = all ? "Main columns" : "All columns";
    applyFilter();
  });
}
// Sort a table by a column: numbers by size, text by letter, empty cells last.
function orderOf(row, index) {
  return row.cells[index].dataset.order ?? row.cells[index].textContent.trim();
}
function compare(a, b) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const x = a === "inf" ? Infinity : Number(a), y = b === "inf" ? Infinity : Number(b);
  if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
  return a.localeCompare(b, "en", { numeric: true });
}
for (const table of document.querySelectorAll("table.sortable")) {
  for (const button of table.querySelectorAll("thead button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const body = table.tBodies[0];
      const rows = [...body.rows].sort((a, b) => {
        const x = orderOf(a, head.cellIndex), y = orderOf(b, head.cellIndex);
        const order = compare(x, y);
        return descending && x !== "" && y !== "" ? -order : order;
      });
      body.append(...rows);
    });
  }
}
// Show the runs whose row, as it is seen, contains every word of the filter. A number counts as a
// whole one: 60 is not in 2.603, and 3 is not in 3.000; but 2.6 is where 2.603 begins.
const filter = document.getElementById("filter");
function seen(row) {
  const all = row.closest("table").classList.contains("all");
  const cells = [...row.cells].filter(({ classList }) => !classList.contains("act") && (all || !classList.contains("more")));
  return cells.map(({ textContent }) => textContent).join("\n").toLowerCase();
}
function holds(text, word) {
  if (!/^\d/.test(word)) return text.includes(word);
  const end = /^\d+$/.test(word) ? "(?![\\p{L}\\p{N}]|[.,]\\d)" : "";
  return new RegExp(`(?<![\\p{L}\\p{N}]|\\d[.,])${word.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&")}${end}`, "u").test(text);
}
function applyFilter() {
  if (!filter) return;
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...document.getElementById("runs-table").tBodies[0].rows];
  for (const row of rows) {
    const text = seen(row);
    row.hidden = !words.every((word) => holds(text, word));
  }
  const count = rows.filter(({ hidden }) => !hidden).length;
  const none = words.length > 1 ? ": no row shows all of these words" : ": no row shows this word";
  document.getElementById("shown").textContent = `${count} of ${rows.length}${count ? "" : none}`;
}
filter?.addEventListener("input", applyFilter);
applyFilter();
// Copy a command; if the browser does not allow that, show the command.
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const code = button.nextElementSibling;
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    } catch {
      code.classList.toggle("open");
    }
  });
}
