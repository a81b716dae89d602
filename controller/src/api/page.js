// The page: what the stream says, and how old it is. It asks nothing else, changes nothing, and puts text on the page
// only as text. What counts as old is the server's word; the page only lets the time run.
"use strict";

const line = {
  source: null,
  status: null,
  pulse: null,
  heardAt: 0, // performance.now() of the last event
  broken: false,
};

const $ = (id) => document.getElementById(id);
const GRACE_MILLIS = 5000;

function open() {
  if (line.source || document.hidden) return;
  const source = new EventSource("/api/v1/events");
  line.source = source;
  source.addEventListener("status", (event) => {
    line.status = JSON.parse(event.data);
    heard();
    show(line.status);
  });
  source.addEventListener("pulse", (event) => {
    line.pulse = JSON.parse(event.data);
    heard();
    if (line.status) show(line.status);
  });
  source.onerror = () => {
    line.broken = true;
    // Refused for good (too many streams, for instance): the browser does not try again by itself.
    if (source.readyState === EventSource.CLOSED) {
      close();
      setTimeout(open, GRACE_MILLIS);
    }
    tick();
  };
}

function heard() {
  line.heardAt = performance.now();
  line.broken = false;
  tick();
}

function close() {
  if (line.source) line.source.close();
  line.source = null;
}

// A tab nobody sees holds no connection. What it showed is old until the stream speaks again.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    close();
    line.broken = true;
  } else {
    open();
  }
  tick();
});

// -- How old ---------------------------------------------------------------------------------------------------

const sinceHeard = () => performance.now() - line.heardAt;

function ageMillis() {
  if (!line.pulse || line.pulse.ageMillis === undefined) return null;
  return line.pulse.ageMillis + sinceHeard();
}

/** The server's clock now, so that a wrong clock here shows right ages. */
function serverNow() {
  return line.pulse ? Date.parse(line.pulse.now) + sinceHeard() : null;
}

function condition() {
  const silentFor = sinceHeard();
  const deadline = line.pulse ? line.pulse.nextWithinMillis + GRACE_MILLIS : GRACE_MILLIS;
  if (line.broken || (line.heardAt && silentFor > deadline)) {
    return { word: "lost", banner: "The connection to the controller is lost: this is old. Trying again." };
  }
  if (!line.pulse) return { word: "waiting", banner: "" };
  const reasons = line.pulse.notReady.join("; ");
  if (!line.status) return { word: "waiting", banner: `There is nothing to show yet: ${reasons || "no status yet"}.` };
  const stale = line.status.dataAge;
  if (stale) {
    return { word: "old", banner: `The store was read without its quorum, so this may be old: ${stale.why}.` };
  }
  if (ageMillis() === null || ageMillis() > line.pulse.staleAfterMillis) {
    return { word: "old", banner: `This is old${reasons ? `: ${reasons}` : ""}.` };
  }
  return { word: "live", banner: reasons ? `This node's controller is not ready: ${reasons}.` : "" };
}

function tick() {
  const now = condition();
  document.body.dataset.line = now.word;
  const banner = $("banner");
  put(banner, now.banner);
  banner.hidden = now.banner === "";
  const age = ageMillis();
  const words = { live: "live, confirmed", old: "old: confirmed", lost: "lost: confirmed", waiting: "confirmed" };
  put($("age"), age === null ? "no data yet" : `${words[now.word]} ${span(age)} ago`);
  put(document.querySelector("title"), title(now.word));
  for (const element of document.querySelectorAll("time[datetime]")) put(element, ago(element.dateTime));
}

setInterval(tick, 1000);

function title(word) {
  if (!line.status) return "zsha";
  const { vm, cluster } = line.status;
  const seen = word === "live" ? "" : "last seen: ";
  return `${seen}${vm.state}${vm.node ? ` on ${vm.node}` : ""} - ${cluster} - zsha`;
}

/** Not written where nothing changed: no flicker, and a screen reader says nothing twice. */
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function span(millis) {
  const secs = Math.max(0, Math.floor(millis / 1000));
  if (secs < 120) return `${secs} s`;
  if (secs < 7200) return `${Math.floor(secs / 60)} min`;
  if (secs < 172800) return `${Math.floor(secs / 3600)} h`;
  return `${Math.floor(secs / 86400)} days`;
}

function ago(timestamp) {
  const now = serverNow();
  return now === null ? timestamp : `${span(now - Date.parse(timestamp))} ago`;
}

// -- What is -----------------------------------------------------------------------------------------------------

// Which words are good, doubtful or bad, of the server that knows: by their kind, then by the word.
const TONES = __TONES__;
const tone = (kind, word) => TONES[kind][word] ?? "doubtful";

function show(status) {
  const { vm, nodes } = status;
  put($("cluster"), status.cluster);
  put($("vm-name"), vm.name);
  put($("uuid"), `VM ${vm.uuid}`);
  put($("vm-state"), vm.state);
  $("vm-state").className = `word ${tone("state", vm.state)}`;
  put($("vm-node"), whereabouts(vm));
  put($("vm-note"), note(vm));
  put($("protected"), status.protected ? "Protected" : "Not protected");
  $("shield").className = `shield ${status.protected ? "good" : "bad"}`;
  put($("protection"), status.protection);
  figures(status);
  rows($("waiting"), status.waiting ?? [], waitingItem);
  $("waiting-section").hidden = !status.waiting?.length;
  rows($("nodes"), nodes, nodeRow);
  $("no-nodes").hidden = nodes.length > 0;
  $("nodes-table").hidden = nodes.length === 0;
  rows($("conditions"), status.conditions, conditionRow);
  rows($("events"), [...status.events].reverse().slice(0, 50), eventRow);
  $("no-events").hidden = status.events.length > 0;
  $("data").setAttribute("aria-busy", "false");
  tick();
}

function whereabouts(vm) {
  const node = vm.node ? (vm.state === "Running" ? `on ${vm.node}` : `owned by ${vm.node}`) : "owned by no node";
  return vm.migratingTo ? `${node}, migrating to ${vm.migratingTo}` : node;
}

function note(vm) {
  const last = vm.lastKnownState ? `last known: ${vm.lastKnownState}, ${ago(vm.lastKnownAt)}` : "";
  return [vm.note, last].filter(Boolean).join("; ");
}

function figures(status) {
  const { vm } = status;
  const bound = status.failoverBound;
  const seconds = (value) => `${Number(value.toFixed(2))} s`;
  const terms = bound
    ? `= ${seconds(bound.fenceAfterSeconds)} to fence + ${seconds(bound.lookSeconds)} to look + ` +
      `${seconds(bound.transactionSeconds)} to claim + ${seconds(bound.startSeconds)} to start`
    : "";
  figure($("bound"), status.failoverBoundSeconds === undefined ? "not known" : seconds(status.failoverBoundSeconds), terms);
  const behind = status.generation !== undefined && status.observedGeneration !== status.generation;
  const observed = behind ? `controllers act on ${status.observedGeneration ?? "none that is known"}` : "all controllers act on it";
  figure($("generation"), status.generation === undefined ? "none" : `generation ${status.generation}`,
    status.generation === undefined ? "zsha apply -f FILE" : observed);
  figure($("wanted"), vm.wanted, "");
  const start = vm.lastStart;
  figure($("last-start"), start ? start.reason : "never", start ? `on ${start.node}, ` : "", start?.at);
}

function figure(element, main, small, at) {
  const key = JSON.stringify([main, small, at]);
  if (element.key === key) return;
  element.key = key;
  element.replaceChildren(main, make("small", {}, small, at ? moment(at) : ""));
}

// -- Rows --------------------------------------------------------------------------------------------------------

function nodeRow(node) {
  const head = make("th", { scope: "row", label: "Node" }, make("span", {}, node.name, make("small", {}, node.address ?? "")));
  const reasons = node.reasons ?? [];
  const here = ["Absent", "Off"].includes(node.localVm) ? "-" : node.localVm;
  return make("tr", {}, head, cell("Role", plain(node.role)),
    cell("Lease", tag(node.lease, tone("lease", node.lease))),
    cell("Controller", tag(node.controller, tone("controller", node.controller))),
    cell("Ready", tag(node.ready ? "Yes" : "No", node.ready ? "good" : "bad")),
    cell("VM here", here),
    cell("Reasons", reasons.join("; ")));
}

function conditionRow(condition) {
  return make("tr", {}, make("th", { scope: "row", label: "Condition" }, make("span", {}, condition.type)),
    cell("Status", tag(condition.status, tone("status", condition.status))), cell("Reason", condition.reason),
    cell("Message", condition.message),
    cell("Since", condition.lastTransitionTime ? moment(condition.lastTransitionTime) : ""));
}

function eventRow(event) {
  const count = event.count > 1 ? ` (${event.count} times)` : "";
  return make("tr", {}, cell("When", moment(event.lastAt)),
    cell("Reason", tag(event.reason, tone("event", event.type))),
    cell("About", event.regarding), cell("Message", event.message + count), cell("Reported by", event.node));
}

function waitingItem(waiting) {
  return make("li", {}, make("span", { class: "tag doubtful" }, waiting.reason), `: ${waiting.message} `,
    make("span", { class: "quiet" }, `(${waiting.nodes.join(", ")})`));
}

const plain = (word) => word.replace(/([a-z])([A-Z])/g, (_, a, b) => `${a} ${b.toLowerCase()}`);
const tag = (text, tone) => make("span", { class: `tag ${tone ?? ""}` }, text);
const cell = (label, content) => make("td", { label, class: content === "" ? "empty" : "" }, make("span", {}, content));

function moment(timestamp) {
  const element = make("time", {}, ago(timestamp));
  element.dateTime = timestamp;
  element.title = timestamp;
  return element;
}

/** An element with text and elements in it; strings become text nodes, never markup. */
function make(name, { class: className, label, scope } = {}, ...children) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (label) element.dataset.label = label;
  if (scope) element.scope = scope;
  element.append(...children);
  return element;
}

/** Only rows that changed are replaced, so that a selection or a screen reader's place survives an update. */
function rows(parent, items, draw) {
  const shown = [...parent.children];
  items.forEach((item, place) => {
    const key = JSON.stringify(item);
    if (shown[place]?.key === key) return;
    const row = draw(item);
    row.key = key;
    if (shown[place]) shown[place].replaceWith(row);
    else parent.append(row);
  });
  shown.slice(items.length).forEach((row) => row.remove());
}

open();
