"use strict";

const EVERY_MS = 1000;
const SHARE = 20; // of the sandbox's time, at most one part in so many goes into answering this page
const byId = (id) => document.getElementById(id);
const time = (unix) => new Date(unix * 1000).toLocaleTimeString();
const number = (value) => value.toLocaleString(undefined, { maximumFractionDigits: 4 });

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function figure([label, value, bad]) {
  const box = element("div", undefined, bad ? "bad" : "");
  box.append(element("dt", label), element("dd", number(value)));
  return box;
}

function took(task, now) {
  const seconds = (task.finished_at ?? now) - task.accepted_at;
  return `${number(Math.round(seconds * 10) / 10)} s`;
}

function row(task, now) {
  const line = element("tr");
  const id = element("td");
  const refunded = task.status === "failed" && task.refunded > 0;
  const credits = refunded ? `${number(task.credits)} refunded` : number(task.credits - task.refunded);
  id.append(element("code", task.task_id));
  line.append(
    element("td", task.status.replace("_", " "), task.status),
    element("td", task.prompt.length > 200 ? `${task.prompt.slice(0, 200)}…` : task.prompt, "prompt"),
    id,
    element("td", task.model),
    element("td", number(task.references), "number"),
    element("td", credits, "number"),
    element("td", time(task.accepted_at)),
    element("td", took(task, now), "number"),
  );
  return line;
}

function stepText(step) {
  if (step === null) return "pass";
  if (Array.isArray(step)) return step.map(stepText).join(" and ");
  return typeof step === "string" ? step : `${step.fault} for ${number(step.lasting_s)} s`;
}

function faultLines({ scripts, chances, happened }) {
  const about = (script) => (script.about === null ? "" : ` about ${script.about}`);
  const lines = [
    ...scripts.map((script) => `next at ${script.kind}${about(script)}: ${script.steps.map(stepText).join(", ")}`),
    ...chances.map((chance) => `${chance.kind}: ${stepText(chance.fault)}, ${number(chance.probability * 100)} %`),
    ...happened.map((past) => `${past.kind}: ${past.fault} happened ${past.times === 1 ? "once" : `${past.times} times`}`),
  ];
  return lines.length ? lines : ["None scripted, and none happened."];
}

function eventLines(events) {
  const lines = events.map(
    (sent) => `${time(sent.at)} ${sent.type} of ${sent.task_id ?? "the test button"}, attempt ${sent.number}: ${sent.status ?? "no answer"}`,
  );
  return lines.length ? lines.reverse() : ["None sent."];
}

function show(state) {
  const { tasks, credits, requests } = state;
  const all = tasks.queued + tasks.in_progress + tasks.completed + tasks.failed;
  byId("now").textContent = new Date(state.now * 1000).toLocaleString();
  byId("figures").replaceChildren(...[
    ["at work", tasks.queued + tasks.in_progress],
    ["completed", tasks.completed],
    ["failed", tasks.failed],
    ["credits paid", credits.paid],
    ["refunded", credits.refunded],
    ["paid twice", state.paid_twice.length, state.paid_twice.length > 0],
    ["requests", requests.total],
    ["answers of 429", state.rate_limited, state.rate_limited > 0],
  ].map(figure));
  byId("count").textContent = all > state.latest.length ? `the latest ${state.latest.length} of ${number(all)}` : "";
  byId("tasks").replaceChildren(...state.latest.map((task) => row(task, state.now)));
  byId("none").hidden = all > 0;
  byId("faults").replaceChildren(...faultLines(state.faults).map((text) => element("li", text)));
  byId("events").replaceChildren(...eventLines(state.events).map((text) => element("li", text)));
}

function setStatus(live) {
  const link = byId("link");
  const text = live ? "live" : "no answer";
  if (link.textContent !== text) link.textContent = text;
  link.className = live ? "live" : "lost";
}

async function refresh() {
  const started = performance.now();
  try {
    const answer = await fetch("/_sandbox/state", { signal: AbortSignal.timeout(30000) });
    show(await answer.json());
    setStatus(true);
  } catch {
    setStatus(false);
  }
  setTimeout(refresh, Math.max(EVERY_MS, SHARE * (performance.now() - started)));
}

byId("where").textContent = location.origin;
refresh();
