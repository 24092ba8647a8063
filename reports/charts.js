// How a page's charts look and what their tools are, for every page that has charts.
"use strict";

// Texts from the records reach the page through here alone: as text, never as HTML.
function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const AXIS = { automargin: true, gridcolor: "#e5e5e5", linecolor: "#444", showline: true, ticks: "outside", zeroline: false };
const FONT = { family: "system-ui, -apple-system, 'Segoe UI', sans-serif", color: "#222" };
// Named one by one, since those that come by default would send a chart away.
const CONFIG = {
  responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "",
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
};

// What a chart leaves open is the page's: the size of letters, and what `layout` adds.  A chart that is there is brought up to date.
function drawChart(place, { data: traces, layout }, size, added) {
  const look = { font: { ...FONT, size }, paper_bgcolor: "#fff", plot_bgcolor: "#fff", hovermode: "closest", xaxis: AXIS, yaxis: AXIS };
  Plotly.react(place, traces, { ...layout, template: { layout: { ...look, ...added } } }, CONFIG);
}
