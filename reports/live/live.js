// What the live page does: asks for data every few seconds while it is shown, and draws again what has changed.

const POLL_MILLISECONDS = 5000;
const LOOK = { height: 340, showlegend: false, margin: { t: 30 } };
const LOST = "The command that serves this page has ended or does not answer. What is shown was known before.";
let seen = "";
let shape = "";
let running = [];
const marks = new Map();

const place = (id) => document.getElementById(id);

function table(header, rows) {
  const head = element("tr", {}, ...header.map((name) => element("th", { scope: "col" }, name)));
  const body = rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, cell))));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

function showProgress({ header, rows }) {
  const made = rows.map(({ cells, share }) => {
    const bar = element("progress", { max: 1, value: share });
    bar.setAttribute("aria-label", "Share of the runs of " + cells[0] + " that are done");
    return [cells[0], element("span", {}, bar, " " + cells[1]), ...cells.slice(2)];
  });
  place("progress").replaceChildren(rows.length ? table(header, made) : "There is no plan yet.");
}

function duration(seconds) {
  if (seconds < 60) return Math.max(0, Math.round(seconds)) + " s ago";
  return seconds < 3600 ? Math.round(seconds / 60) + " min ago" : Math.round(seconds / 3600) + " h ago";
}

function showRunning() {
  const now = Date.now() / 1000;
  const rows = running.rows.map(({ cells, at }) => [...cells, at === null ? "none yet" : duration(now - at)]);
  place("running").replaceChildren(rows.length ? table(running.header, rows) : "No run is going on.");
}

function showText(where, text, otherwise) {
  where.replaceChildren(...(text ? [element("p", {}, text.sentence), table(text.header, text.rows)] : [otherwise]));
}

// Sections are made anew only where experiments or charts come or go, so that a chart stays as it was magnified.
function makeViews(views) {
  marks.clear();
  place("views").replaceChildren(...views.map((view, index) => {
    const id = "view-" + index;
    const groups = view.groups.map(({ label, colour }) => {
      const sign = element("i", {});
      sign.style.background = colour;
      sign.setAttribute("aria-hidden", "true");
      return element("li", {}, sign, label);
    });
    const charts = view.charts.map(({ title }, number) => {
      const caption = element("figcaption", { id: id + "-" + number + "-title" }, title);
      const figure = element("figure", {}, caption, element("div", { id: id + "-" + number }));
      figure.setAttribute("aria-labelledby", caption.id);
      return figure;
    });
    const summary = element("div", { className: "scroll", id: id + "-table", tabIndex: 0, role: "region" });
    summary.setAttribute("aria-label", "Methods by median test loss");
    const section = element(
      "section", {}, element("h2", { id }, view.title), element("ul", { className: "groups" }, ...groups),
      element("div", { className: "charts" }, ...charts), element("h3", {}, "Runs that have ended, by method"), summary,
    );
    section.setAttribute("aria-labelledby", id);
    return section;
  }));
}

function showViews(views) {
  const wanted = JSON.stringify(views.map(({ title, groups, charts }) => [title, groups, charts.map((chart) => chart.title)]));
  if (wanted !== shape) makeViews(views);
  shape = wanted;
  views.forEach(({ charts, table: text }, index) => {
    showText(place("view-" + index + "-table"), text, "No run has ended yet.");
    charts.forEach(({ mark, chart }, number) => {
      const id = "view-" + index + "-" + number;
      if (marks.get(id) === mark) return;
      drawChart(place(id), chart, 12, LOOK);
      marks.set(id, mark);
    });
  });
}

function show(data) {
  seen = data.version;
  running = data.running;
  place("at").textContent = "Last change at " + new Date(data.at * 1000).toLocaleTimeString() + ".";
  place("problems").replaceChildren(...data.problems.map((line) => element("li", {}, line)));
  showProgress(data.progress);
  showViews(data.views);
  showText(place("troubles"), data.troubles, "None so far.");
}

async function ask() {
  try {
    const answer = await fetch("data.json?seen=" + encodeURIComponent(seen), { cache: "no-store" });
    if (answer.status === 200) show(await answer.json());
    else if (answer.status !== 204) throw new Error(answer.statusText);
    if (running.rows) showRunning();
    if (place("lost").textContent) place("lost").textContent = "";
  } catch (error) {
    console.error(error);
    if (!place("lost").textContent) place("lost").textContent = LOST;
  }
}

async function poll() {
  if (!document.hidden) await ask();
  setTimeout(poll, POLL_MILLISECONDS);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
poll();
