"use strict";
const PERIOD_MS = 2000;
const byId = (id) => document.getElementById(id);
let key = "";
let before = null;

async function get(path) {
  const headers = key ? { Authorization: "Bearer " + key } : {};
  const answer = await fetch(path, { headers, cache: "no-store" });
  if (answer.status === 401) throw new Error("locked");
  if (!answer.ok) throw new Error(path + " answers " + answer.status);
  return answer;
}

// "name{a="b"} 5" becomes samples.get("name") = [{labels: {a: "b"}, value: 5}].
function parse(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const match = /^([a-z_]+)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, name, value] of (match[2] || "").matchAll(/([a-z_]+)="([^"]*)"/g)) labels[name] = value;
    if (!samples.has(match[1])) samples.set(match[1], []);
    samples.get(match[1]).push({ labels, value: Number(match[3]) });
  }
  return samples;
}

const total = (samples, name) => (samples.get("throng_" + name) || []).reduce((sum, s) => sum + s.value, 0);
const count = (n) => n.toLocaleString("en");
function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (bytes >= 1024 && at < units.length - 1) { bytes /= 1024; at += 1; }
  return (at ? bytes.toFixed(1) : Math.round(bytes)) + " " + units[at];
}
function span(secs) {
  const days = Math.floor(secs / 86400), hours = Math.floor(secs / 3600) % 24, minutes = Math.floor(secs / 60) % 60;
  return (days ? days + " d " : "") + (days || hours ? hours + " h " : "") + minutes + " min";
}

function fill(id, rows) {
  byId(id).replaceChildren(...rows.map(([name, value]) => {
    const row = document.createElement("tr"), th = document.createElement("th"), td = document.createElement("td");
    th.scope = "row";
    th.textContent = name;
    td.textContent = value;
    row.append(th, td);
    return row;
  }));
}

function show(online, samples, at) {
  const since = before && at > before.at ? (at - before.at) / 1000 : 0;
  const rate = (name, form) => {
    if (!since) return "…";
    return form(Math.max(0, total(samples, name) - total(before.samples, name)) / since) + "/s";
  };
  const whole = (n) => count(Math.round(n));
  fill("here", [
    ["Node", Object.keys(online.nodes).join(", ")],
    ["Users", count(online.users)],
    ["Sessions", count(online.onlineNum)],
    ["Connections", count(total(samples, "connections")) + " of " + count(total(samples, "connections_max"))],
    ["Memory", size(total(samples, "resident_bytes"))],
    ["Up for", span(total(samples, "uptime_seconds"))],
  ]);
  fill("traffic", [
    ["New connections", rate("accepted_total", whole)],
    ["Frames in", rate("frames_received_total", whole)],
    ["Messages out", rate("deliveries_total", whole)],
    ["Broadcasts out", rate("broadcast_deliveries_total", whole)],
    ["Bytes in", rate("received_bytes_total", size)],
    ["Bytes out", rate("sent_bytes_total", size)],
    ["Waiting to be written", size(total(samples, "write_queue_bytes"))],
  ]);
  const named = (name, label, text) => (samples.get("throng_" + name) || [])
    .filter((s) => s.value > 0).map((s) => [text + s.labels[label], count(s.value)]);
  const ends = [
    ...named("closes_total", "code", "Close "),
    ...named("refusals_total", "status", "Upgrade refused with "),
    ["Told to go elsewhere", count(total(samples, "farewells_total"))],
    ["Messages dropped", count(total(samples, "dropped_total"))],
  ];
  fill("ends", ends);
  fill("reactors", (samples.get("throng_open_sockets") || []).map((s) => {
    const worst = (samples.get("throng_turn_worst_seconds") || []).find((w) => w.labels.reactor === s.labels.reactor);
    const ms = worst ? (worst.value * 1000).toFixed(1) : "?";
    return ["Reactor " + s.labels.reactor, count(s.value) + " sockets, longest turn " + ms + " ms"];
  }));
  byId("state").textContent = total(samples, "draining") ? "draining: letting its clients go" : "running";
  before = { at, samples };
}

async function refresh() {
  try {
    const [online, metrics] = await Promise.all([get("/api/v1/online"), get("/metrics")]);
    show((await online.json()).content, parse(await metrics.text()), performance.now());
    byId("lock").hidden = true;
    byId("sheet").hidden = false;
  } catch (error) {
    const isLocked = error.message === "locked";
    byId("state").textContent = isLocked ? (key ? "this is not the key" : "locked") : "no answer: " + error.message;
    if (isLocked) {
      byId("lock").hidden = false;
      byId("sheet").hidden = true;
      key = "";
      return;
    }
  }
  setTimeout(refresh, PERIOD_MS);
}

byId("lock").addEventListener("submit", (event) => {
  event.preventDefault();
  key = byId("key").value.trim();
  byId("key").value = "";
  refresh();
});
refresh();
