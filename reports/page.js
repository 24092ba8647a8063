// What the page does: draws the charts, sorts and filters the table of runs, opens what is recorded of a run.

const data = JSON.parse(document.getElementById("data").textContent);
for (const run of Object.values(data.runs)) {
  run.spec = Object.fromEntries(Object.entries(run.spec).map(([key, place]) => [key, data.parts[place]]));
}
const collator = new Intl.Collator("en", { numeric: true });
const UNKNOWN = "—";
const LINE = 110;
const NOT_MEASURED = new Set(["missing", "not finished", "interrupted"]);

// Of the charts: what a figure leaves open.
const LOOK = {
  height: 540, margin: { l: 70, r: 20, t: 20, b: 60 }, hoverlabel: { bgcolor: "#fff", align: "left" },
  legend: { font: { size: 12 }, tracegroupgap: 0 },
};
// On narrow screens the legend is below, a name a line, and the chart is higher by as many lines.
const NARROW = matchMedia("(max-width: 50rem)");
const NAME_LINE = 20;

function narrowLook(chart) {
  const names = chart.data.filter(({ showlegend }) => showlegend !== false).length;
  const plot = 340;
  const legend = {
    font: { size: 11 }, tracegroupgap: 0, orientation: "h", x: -0.16, y: -70 / plot, yanchor: "top", entrywidth: 1.16,
    entrywidthmode: "fraction",
  };
  const margin = { l: 55, r: 10, t: 10, b: 80 + NAME_LINE * names };
  return { ...LOOK, height: plot + 90 + NAME_LINE * names, margin, legend };
}

function drawCharts() {
  for (const place of document.querySelectorAll("[data-chart]")) {
    const chart = data.charts[place.dataset.chart];
    drawChart(place, chart, NARROW.matches ? 12 : 13, NARROW.matches ? narrowLook(chart) : LOOK);
  }
}

// The library is kept compressed.
async function loadCharts() {
  const packed = document.getElementById("plotly").textContent;
  if (!packed) return;
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  document.head.append(element("script", { textContent: await new Response(stream).text() }));
  drawCharts();
  NARROW.addEventListener("change", drawCharts);
}

// A cell is null, a text, a number, or a pair: what to sort by and what to show.
function shown(cell) {
  return cell === null ? UNKNOWN : String(Array.isArray(cell) ? cell[1] : cell);
}

// Numbers that were measured, all with the digits they have: 0.1 as 0.1000.
function measure(cell) {
  const isShort = typeof cell === "number" && cell !== 0 && Math.abs(cell) < 1000;
  return isShort ? cell.toPrecision(data.digits) : shown(cell);
}

function compare(first, second) {
  const [a, b] = [first, second].map((cell) => (Array.isArray(cell) ? cell[0] : cell));
  return typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b);
}

// ---- the table of runs: an entry a row

const entries = data.rows.map((cells) => {
  const texts = cells.map((cell, index) => (data.columns[index].kind === "measure" ? measure : shown)(cell));
  return { cells, texts, searched: texts.join(" ").toLowerCase(), opened: null };
});
const order = { column: -1, descending: false };

function buildRow(entry) {
  const row = element("tr", { className: "run" });
  entry.button = element("button", { type: "button", className: "open-run", ariaExpanded: "false" });
  data.columns.forEach(({ name, kind }, index) => {
    const cell = element("td", { className: kind === "text" ? name : "number" });
    if (name === "label") entry.button.append(entry.texts[index]);
    cell.append(name === "label" ? entry.button : entry.texts[index]);
    if (name === "status") cell.className += ` ${NOT_MEASURED.has(entry.cells[index]) ? "open" : entry.cells[index]}`;
    row.append(cell);
  });
  row.addEventListener("click", () => toggle(entry));
  return row;
}

function toggle(entry) {
  if (entry.opened) {
    entry.opened.remove();
    entry.opened = null;
  } else {
    const cell = element("td", { className: "detail", colSpan: data.columns.length }, detail(entry.cells.at(-1)));
    entry.opened = element("tr", {}, cell);
    entry.row.after(entry.opened);
  }
  entry.button.ariaExpanded = String(entry.opened !== null);
  entry.row.classList.toggle("opened", entry.opened !== null);
}

function show() {
  const words = document.getElementById("filter").value.toLowerCase().split(/\s+/);
  const visible = entries.filter(({ searched }) => words.every((word) => searched.includes(word)));
  const rows = visible.flatMap(({ row, opened }) => (opened ? [row, opened] : [row]));
  document.querySelector("#runs > table > tbody").replaceChildren(...rows);
  document.getElementById("count").textContent = `${visible.length} of ${entries.length} rows`;
}

// What is not known comes last either way.
function sortBy(column) {
  order.descending = order.column === column && !order.descending;
  order.column = column;
  const sign = order.descending ? -1 : 1;
  entries.sort(({ cells: { [column]: a } }, { cells: { [column]: b } }) =>
    a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b));
  document.querySelectorAll("#runs > table > thead th").forEach((header, index) => {
    header.ariaSort = index === column ? (order.descending ? "descending" : "ascending") : "none";
  });
  show();
}

function buildTable() {
  const headers = data.columns.map(({ title, kind }, index) => {
    const button = element("button", { type: "button" }, title);
    button.addEventListener("click", () => sortBy(index));
    return element("th", { scope: "col", className: kind === "text" ? "" : "number" }, button);
  });
  document.querySelector("#runs > table > thead").append(element("tr", {}, ...headers));
  for (const entry of entries) entry.row = buildRow(entry);
  document.getElementById("filter").addEventListener("input", show);
  show();
}

// ---- what opens below a run

function detail(identity) {
  const run = data.runs[identity];
  if (!run) return element("p", { className: "parts" }, "This run has not been started: nothing is recorded of it.");
  const spec = element("pre", { className: "spec", tabIndex: 0 }, pretty(run.spec));
  return element("div", { className: "parts" },
    ...message(run),
    element("div", {}, element("h3", {}, "Time"), ...accounts(run), records(identity)),
    element("div", {}, element("h3", {}, "Settings"), element("div", { className: "scroll" }, spec)),
    element("div", { className: "wide" }, ...log(run)));
}

function message(run) {
  const isVoid = ["seconds", "plain_steps"].includes(run.spec.budget.unit);
  const what = isVoid ? "The clock was disturbed" : "The clock was disturbed (losses are valid, seconds are not)";
  const disturbed = run.disturbed?.length ? `${what}: ${run.disturbed.join("; ")}` : "";
  const changes = run.changes?.length ? `The run was resumed with ${run.changes.join(", ")}` : "";
  const text = [run.message, disturbed, changes].filter(Boolean).join("\n\n");
  if (!text) return [];
  const lines = element("pre", { className: "message", tabIndex: 0 }, text);
  return [element("div", { className: "wide" }, element("h3", {}, "Message"), element("div", { className: "scroll" }, lines))];
}

// Links to what the results folder keeps, as long as page and folder keep their places; none into an archive.
function records(identity) {
  if (data.records === null) return element("p", { className: "note" }, "An archive keeps its records.");
  const links = data.files.map((name) => element("a", { href: `${data.records}/${identity}/${name}` }, name));
  return element("p", { className: "note" }, "Kept: ", ...links.flatMap((link) => [link, " "]));
}

function accounts(run) {
  if (!run.accounts) return [element("p", {}, "This run has not ended.")];
  const rows = [...Object.entries(run.accounts), ["wall time", run.wall_seconds]].map(([account, seconds]) => {
    const share = run.wall_seconds ? `${((100 * seconds) / run.wall_seconds).toFixed(1)} %` : UNKNOWN;
    return [account, seconds, share];
  });
  return [table("accounts", ["account", "seconds", "share"], rows)];
}

function log(run) {
  const titles = Object.keys(run.log);
  const length = titles.length ? run.log[titles[0]].length : 0;
  const heading = element("h3", {}, "Log");
  if (!length) return [heading, element("p", {}, "Nothing has been evaluated.")];
  if (length < run.evaluations) heading.append(`: ${length} of ${run.evaluations} evaluations, evenly spaced`);
  const rows = Array.from({ length }, (_, index) => titles.map((title) => run.log[title][index]));
  return [heading, element("div", { className: "scroll", tabIndex: 0 }, table("log", titles, rows))];
}

// Columns of whole numbers are counts, of other numbers measures; what is not a number is shown as it is.
function table(className, titles, rows) {
  const isCount = titles.map((_, index) => rows.every((row) => row[index] === null || Number.isInteger(row[index])));
  const line = (cells) => cells.map((cell, index) => element("td", {}, (isCount[index] ? shown : measure)(cell)));
  const headers = titles.map((title) => element("th", { scope: "col" }, title));
  return element("table", { className },
    element("thead", {}, element("tr", {}, ...headers)),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...line(row)))));
}

// JSON in which an object or a list of plain values stands on one line, where that is not too long.
function pretty(value, indent = "") {
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const inner = `${indent}  `;
  const isList = Array.isArray(value);
  const parts = Object.entries(value).map(([key, item]) =>
    isList ? pretty(item, inner) : `${JSON.stringify(key)}: ${pretty(item, inner)}`);
  const [open, close] = isList ? "[]" : "{}";
  const isFlat = Object.values(value).every((item) => item === null || typeof item !== "object");
  const line = `${open}${parts.join(", ")}${close}`;
  if (isFlat && indent.length + line.length < LINE) return line;
  return `${open}\n${parts.map((part) => inner + part).join(",\n")}\n${indent}${close}`;
}

buildTable();
loadCharts();

// What is wider than its window says so.
const widths = new ResizeObserver((entries) => entries.forEach(({ target }) =>
  target.classList.toggle("wide", target.scrollWidth > target.clientWidth + 1)));
document.querySelectorAll("figure > .scroll").forEach((part) => widths.observe(part));
