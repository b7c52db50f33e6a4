"use strict";
// Data from outside (names of series, boxes, sites) enters the page by textContent only.

const ROWS_MAX = 200;
let windowsShown = 60;
const STATUS_EVERY_MS = 2000;

const byId = (id) => document.getElementById(id);
const rows = new Map(); // name of a series -> what its row shows
let prefix = "";
let siteSeries = 0;
let watching = null; // aborts the present watch
let token = sessionStorage.getItem("token") || "";

// ---- talking to this box ----

async function ask(path, signal) {
  const headers = token ? { Authorization: "Bearer " + token } : {};
  const response = await fetch(path, { headers, signal, cache: "no-store" });
  if (response.status === 401) {
    byId("login").hidden = false;
    throw new Error("token required");
  }
  byId("login").hidden = true;
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Error(problem.detail || "status " + response.status);
  }
  return response;
}

// Totals have up to 128 bits, a JavaScript number has 53: longer totals are kept as text. Inside a JSON
// string every quote has a backslash before it, so the pattern cannot match inside a name.
function parse(text) {
  return JSON.parse(text.replace(/"(total|increase|up|down|value)":(-?\d{16,})/g, '"$1":"$2"'));
}

const read = async (path) => parse(await (await ask(path)).text());

function digits(value) {
  if (value === undefined || value === null) return "?";
  return typeof value === "string" ? BigInt(value).toLocaleString("en") : value.toLocaleString("en");
}

function short(value) {
  const size = Math.abs(value);
  if (size >= 1e15 || (size > 0 && size < 1e-3)) return value.toExponential(1);
  for (const [unit, sign] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (size >= unit) return (value / (sign === "k" ? 1e3 : unit)).toFixed(1).replace(/\.0$/, "") + sign;
  }
  return String(Number(value.toPrecision(4)));
}

const values = (count) => digits(count) + (count === 1 ? " value" : " values");

const clock = (ms, seconds) =>
  new Date(ms).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", ...(seconds && { second: "2-digit" }) });

function spanText(ms) {
  for (const [unit, name] of [[86400000, "d"], [3600000, "h"], [60000, "min"], [1000, "s"]]) {
    if (ms >= unit && ms % unit === 0) return ms / unit + " " + name;
  }
  return ms + " ms";
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// ---- the site ----

async function refreshStatus() {
  try {
    showStatus(await read("/v1/status"));
    byId("trouble").hidden = true;
  } catch (error) {
    pill("no answer", "bad");
    say("No answer from this box.", "bad");
    byId("trouble").textContent = "This box does not answer: " + error.message;
    byId("trouble").hidden = !byId("login").hidden;
  }
}

function pill(text, state) {
  byId("state").textContent = text;
  byId("state").className = "pill " + state;
}

// A live region: it is written only when it changes, or it would be read out again and again.
function say(text, state) {
  const verdict = byId("verdict");
  if (verdict.textContent !== text) verdict.textContent = text;
  verdict.className = state;
}

function showStatus(status) {
  document.title = status.site + " · Tallyd";
  byId("site").textContent = status.site;
  byId("here").textContent = "seen from " + status.node + " · site " + status.site_id;
  const counts = status.verdict.counts;
  const spare = status.tolerates.failures > 0 || status.members.length < 2;
  say(status.verdict.text, counts ? (spare ? "good" : "wait") : "bad");
  if (status.storage.state !== "ok") pill("disk trouble", "bad");
  else if (!status.leader) pill("no leader", "bad");
  else if (!status.ready) pill("not ready", "wait");
  else pill("counting", "good");
  byId("boxes").replaceChildren(...status.members.map((member) => boxCard(member, status)));
  byId("tolerates").textContent = status.tolerates.text;
  const out = status.upstream || {};
  const sender = status.leader ? "sent by " + status.leader : "no leader to send";
  const words = { off: "no broker configured", standby: sender, connecting: "connecting", connected: "connected" };
  figures([
    ["Waiting in outbox", digits(status.outbox.waiting)],
    ["Numbered up to", digits(status.outbox.numbered)],
    ["Delivered up to", digits(status.outbox.delivered)],
    ["Held back", digits(status.outbox.held), status.outbox.held ? "bad" : ""],
    ["Undeliverable", digits(out.undeliverable || 0), out.undeliverable ? "wait" : ""],
    ["Broker", words[out.state] || out.state || "none", out.state === "connecting" ? "wait" : ""],
    [status.clock.synced ? "Site time" : "Site time, not synchronised", clock(status.clock.site_ms, true), status.clock.synced ? "" : "wait"],
  ]);
  const trouble = out.last_error && (out.last_error.what || out.last_error.text || out.last_error.error);
  byId("upstream-trouble").textContent = trouble ? "Broker: " + trouble : "";
  byId("upstream-trouble").hidden = !trouble;
  showRefused(out);
  byId("version").textContent = "Tallyd " + status.version + " · term " + status.term + " · index " + digits(status.applied);
  siteSeries = status.series;
  showCount();
}

// Shows what the broker refuses: each held summary with its series, topic and cause.
function showRefused(out) {
  const held = (out.held_first || []).map((one) => `Held: ${one.series}, number ${one.seq}, topic ${one.topic}: ${one.cause}`);
  const more = (out.held || 0) - held.length;
  if (more > 0) held.push(`and ${digits(more)} more`);
  const refused = (out.refuses || []).map((one) => `The broker refuses ${one.topic}: ${one.cause}`);
  const other = out.other_site ? [out.other_site.what] : [];
  const lines = [...other, ...refused, ...held];
  byId("upstream-refused").replaceChildren(...lines.map((line) => {
    const item = document.createElement("li");
    item.textContent = line;
    return item;
  }));
  byId("upstream-refused").hidden = lines.length === 0;
  byId("refused-title").hidden = lines.length === 0;
}

function boxCard(member, status) {
  const here = member.name === status.node;
  const reached = here || member.connected;
  const role = member.membership === "observer" ? "observer" : reached ? member.role : "not connected";
  const card = element("li", (member.role === "leader" && reached ? "leader" : "") + (reached ? "" : " away"));
  const top = element("div", "top");
  top.append(element("span", "name", member.name), element("span", "role", role));
  const what = [];
  if (here) what.push("this box");
  if (member.address) what.push(member.address);
  if (!here && reached && member.rtt_us !== null) what.push((member.rtt_us / 1000).toFixed(1) + " ms");
  card.append(top, element("div", "what", what.join(" · ") || "\u00a0"));
  return card;
}

function figures(list) {
  byId("figures").replaceChildren(...list.map(([name, value, state]) => {
    const pair = element("div");
    pair.append(element("dt", "", name), element("dd", state || "", value));
    return pair;
  }));
}

// ---- the series ----

async function loadSeries() {
  const page = await read("/v1/series?read=local&limit=" + ROWS_MAX + "&prefix=" + encodeURIComponent(prefix));
  byId("series").replaceChildren();
  rows.clear();
  seen.disconnect();
  for (const series of page.series) addRow(series, null);
  rows.complete = page.next === undefined;
  siteSeries = page.count;
  showCount();
}

function showCount() {
  const shown = digits(rows.size);
  let text = shown + " of " + digits(siteSeries) + " series";
  if (!rows.complete && rows.size) text = "The first " + text + "; type a prefix to see others";
  else if (!rows.size) text = prefix ? "No series name begins with this" : "Nothing counted yet; try: tallyd add coffee";
  byId("count").textContent = text;
}

function addRow(series, before) {
  const item = element("li");
  const title = element("div");
  const name = element("div", "name");
  const cut = series.series.lastIndexOf("/") + 1;
  name.append(element("span", "path", series.series.slice(0, cut)), series.series.slice(cut));
  title.append(name, element("div", "kind", series.kind));
  const total = element("div", "total");
  const plot = element("div", "plot");
  item.append(title, total, plot);
  byId("series").insertBefore(item, before);
  const row = { name: series.series, kind: series.kind, item, total, plot, windows: null, wanted: false };
  item.row = row;
  rows.set(row.name, row);
  showTotal(row, series);
  seen.observe(item);
}

function showTotal(row, series) {
  row.total.textContent = row.kind === "sample" ? short(series.last) : digits(series.total);
  if (row.kind === "sample") {
    row.total.append(element("span", "more", values(series.total) + ", mean " + short(series.mean)));
  }
}

function changed(series) {
  const row = rows.get(series.series);
  if (row) return showTotal(row, series);
  // A new series goes to its place by name, as far as there is room.
  if (rows.size >= ROWS_MAX || !rows.complete) return;
  let before = null;
  for (const item of byId("series").children) {
    if (item.row.name > series.series) { before = item; break; }
  }
  addRow(series, before);
  showCount();
}

// Windows are fetched for visible rows only, a few at a time.
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting || entry.target.row.wanted) continue;
    entry.target.row.wanted = true;
    queue.push(entry.target.row);
  }
  fetchNext();
}, { rootMargin: "200px" });
const queue = [];
let fetching = 0;

function fetchNext() {
  while (fetching < 4 && queue.length) {
    const row = queue.shift();
    if (rows.get(row.name) !== row) continue;
    fetching++;
    const path = row.name.split("/").map(encodeURIComponent).join("/");
    read("/v1/windows/" + path + "?read=local&last=" + windowsShown)
      .then((answer) => { row.windows = merged([], answer.windows); draw(row); })
      .catch(() => { row.wanted = false; })
      .finally(() => { fetching--; fetchNext(); });
  }
}

function closed(summary) {
  const row = rows.get(summary.series);
  if (!row || !row.windows) return;
  row.windows = merged(row.windows, [summary]);
  draw(row);
}

// Late summaries are addends of their window: by start, everything adds up.
function merged(windows, summaries) {
  const byStart = new Map(windows.map((window) => [window.start, window]));
  for (const s of summaries) {
    const add = { start: s.start, span: s.span, up: Number(s.increase ?? s.up ?? 0), down: Number(s.down ?? 0),
      count: s.count ?? 0, sum: s.sum ?? 0, min: s.min, max: s.max };
    const old = byStart.get(s.start);
    if (old) {
      add.up += old.up; add.down += old.down; add.count += old.count; add.sum += old.sum;
      add.span = Math.max(add.span, old.span); add.min = Math.min(add.min, old.min); add.max = Math.max(add.max, old.max);
    }
    byStart.set(s.start, add);
  }
  return [...byStart.values()].sort((a, b) => a.start - b.start).slice(-windowsShown);
}

// ---- plots ----

const SIZE = { width: 384, height: 69, left: 44, right: 4, top: 7, bottom: 15 };

function svg(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function draw(row) {
  const windows = row.windows;
  if (!windows.length) {
    row.plot.replaceChildren(element("div", "none", "no window has closed yet"));
    return;
  }
  const isSample = row.kind === "sample";
  const end = windows.at(-1).start + windows.at(-1).span;
  const span = Math.min(...windows.map((w) => w.span));
  const begin = Math.max(windows[0].start, end - windowsShown * span);
  const shown = windows.filter((w) => w.start + w.span > begin);
  const x = (time) => SIZE.left + (SIZE.width - SIZE.left - SIZE.right) * Math.max(0, Math.min(1, (time - begin) / Math.max(end - begin, 12 * span)));
  let low = isSample ? Math.min(...shown.map((w) => w.min)) : -Math.max(0, ...shown.map((w) => w.down));
  let high = isSample ? Math.max(...shown.map((w) => w.max)) : Math.max(0, ...shown.map((w) => w.up));
  if (low === high) { high += Math.abs(high) * 0.1 || 1; if (isSample) low -= Math.abs(low) * 0.1 || 1; }
  const floor = SIZE.height - SIZE.bottom;
  const y = (value) => floor - (floor - SIZE.top) * (value - low) / (high - low);
  const chart = svg("svg", { class: "chart", viewBox: "0 0 " + SIZE.width + " " + SIZE.height, role: "img" });
  chart.setAttribute("aria-label", row.name + ": its latest " + shown.length + " windows of " + spanText(span) + "; the last: " + inWords(shown.at(-1), row.kind)
    + "; from " + short(low) + " to " + short(high));
  axes(chart, { x, y, low, high, begin, end, floor, zero: isSample ? floor : y(0), seconds: span < 60000 });
  if (isSample) drawLine(chart, shown, x, y);
  else drawBars(chart, shown, x, y);
  hits(chart, shown, x, floor, row.kind);
  row.plot.replaceChildren(chart);
}

function axes(chart, a) {
  const label = (at, height, anchor, text) => chart.append(svg("text", { x: at, y: height, "text-anchor": anchor }, text));
  chart.append(svg("line", { class: "axis", x1: SIZE.left, x2: SIZE.width - SIZE.right, y1: a.zero, y2: a.zero }));
  label(SIZE.left - 6, SIZE.top + 4, "end", short(Number(a.high.toPrecision(3))));
  label(SIZE.left - 6, a.floor + 2, "end", short(Number(a.low.toPrecision(3))));
  label(SIZE.left, SIZE.height - 3, "start", clock(a.begin, a.seconds));
  const last = a.x(a.end);
  if (last - SIZE.left > 110) label(last, SIZE.height - 3, "end", clock(a.end, a.seconds));
}

function drawBars(chart, windows, x, y) {
  for (const w of windows) {
    const left = x(w.start);
    const width = Math.max(1, x(w.start + w.span) - left - 1);
    if (w.up > 0) chart.append(svg("rect", { class: "up", x: left, width, y: y(w.up), height: Math.max(1, y(0) - y(w.up)), rx: 1 }));
    if (w.down > 0) chart.append(svg("rect", { class: "down", x: left, width, y: y(0), height: Math.max(1, y(-w.down) - y(0)), rx: 1 }));
  }
}

function drawLine(chart, windows, x, y) {
  const middle = (w) => x(w.start + w.span / 2);
  const point = (at, value) => at.toFixed(1) + " " + y(value).toFixed(1);
  const tops = windows.map((w) => point(middle(w), w.max));
  const bottoms = windows.map((w) => point(middle(w), w.min)).reverse();
  const means = windows.map((w) => point(middle(w), w.sum / w.count));
  chart.append(svg("path", { class: "band", d: "M" + tops.concat(bottoms).join("L") + "Z" }));
  chart.append(svg("path", { class: "mean", d: "M" + means.join("L") }));
  const last = windows.at(-1);
  chart.append(svg("circle", { class: "dot", cx: middle(last), cy: y(last.sum / last.count), r: 2.2 }));
}

function inWords(w, kind) {
  if (kind === "sample") return values(w.count) + ", mean " + short(w.sum / w.count) + ", " + short(w.min) + " to " + short(w.max);
  return kind === "updown" ? "+" + digits(w.up) + " −" + digits(w.down) : "+" + digits(w.up);
}

function hits(chart, windows, x, floor, kind) {
  for (const w of windows) {
    const hit = svg("rect", { class: "hit", x: x(w.start), width: Math.max(1, x(w.start + w.span) - x(w.start)), y: SIZE.top, height: floor - SIZE.top });
    hit.append(svg("title", {}, clock(w.start, true) + ", " + spanText(w.span) + ": " + inWords(w, kind)));
    chart.append(hit);
  }
}

// ---- what changes ----

async function watch() {
  const present = new AbortController();
  if (watching) watching.abort();
  watching = present;
  while (!present.signal.aborted) {
    try {
      const response = await ask("/v1/watch?prefix=" + encodeURIComponent(prefix), present.signal);
      // A fresh page has the changes that came between two watches.
      await loadSeries();
      await follow(response.body.pipeThrough(new TextDecoderStream()).getReader());
    } catch (error) {
      if (present.signal.aborted) return;
    }
    await new Promise((resolve) => setTimeout(resolve, 1500));
  }
}

async function follow(reader) {
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const lines = event.split("\n");
      const data = lines.find((line) => line.startsWith("data: "));
      if (!data) continue;
      if (lines[0] === "event: total") changed(parse(data.slice(6)));
      else if (lines[0] === "event: window") closed(parse(data.slice(6)));
    }
  }
}

let typing;
byId("filter").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => { prefix = event.target.value; watch(); }, 250);
});
byId("windows").addEventListener("change", (event) => {
  windowsShown = Number(event.target.value);
  loadSeries().catch(() => {});
});
byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  sessionStorage.setItem("token", token);
  refreshStatus().then(watch);
});
setInterval(() => { if (!document.hidden) refreshStatus(); }, STATUS_EVERY_MS);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refreshStatus(); });
refreshStatus();
watch();
