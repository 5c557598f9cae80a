"use strict";
// Open what the address names, and all that is folded before it is printed.
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
});
addEventListener("afterprint", () => {
  for (const box of opened) box.open = false;
});
// Show all columns of a table, or the main ones.
for (const button of document.querySelectorAll("button.columns")) {
  button.addEventListener("click", () => {
    const all = document.getElementById(button.getAttribute("aria-controls")).classList.toggle("all");
    button.setAttribute("aria-expanded", String(all));
    button.textContent = all ? "Main columns" : "All columns";
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
// Show the runs that contain every word of the filter, on pages that have one.
const filter = document.getElementById("filter");
if (filter) {
  const shown = document.getElementById("shown");
  const runRows = [...document.getElementById("runs-table").tBodies[0].rows];
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of runRows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      count += row.hidden ? 0 : 1;
    }
    shown.textContent = `${count} of ${runRows.length}`;
  };
  filter.addEventListener("input", apply);
  apply();
}
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
