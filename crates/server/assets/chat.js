"use strict";
// A plain client of POST /v1/chat/completions. Everything from the server is put in as text, never as HTML.
const log = document.getElementById("log");
const form = document.getElementById("form");
const input = document.getElementById("question");
const send = document.getElementById("send");
const messages = [];
let model = "";
let running = null;
let key = sessionStorage.getItem("key") || "";

const headers = () => ({ "content-type": "application/json", ...(key && { authorization: `Bearer ${key}` }) });

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

async function call(path, options = {}) {
  const response = await fetch(path, { ...options, headers: headers() });
  if (response.status === 401) {
    key = window.prompt("API key for this server") || "";
    sessionStorage.setItem("key", key);
    if (key) return call(path, options);
  }
  if (!response.ok) {
    const body = await response.json().catch(() => null);
    throw new Error(body?.error?.message || `the server answered ${response.status}`);
  }
  return response;
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    let end;
    while ((end = buffer.indexOf("\n\n")) >= 0) {
      const data = buffer.slice(0, end).split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim()).join("");
      buffer = buffer.slice(end + 2);
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

function showSources(turn, details) {
  const cited = new Map();
  for (const citation of details.citations) cited.set(citation.number, citation.basis);
  for (const source of details.sources.filter((source) => cited.has(source.number))) {
    const box = element("details");
    box.append(element("summary", "", `[${source.number}] ${source.title}`));
    box.append(element("p", "", source.text), element("p", "meta", source.url));
    turn.append(box);
  }
  const seconds = (details.timings.total_ms / 1000).toFixed(1);
  turn.append(element("p", "meta", `${details.model} · ${seconds} s · first text after ${Math.round(details.timings.first_token_ms)} ms`));
}

async function ask(question) {
  messages.push({ role: "user", content: question });
  const asked = element("div", "turn user");
  asked.append(element("p", "", question));
  const turn = element("div", "turn");
  const text = element("p", "answer", "…");
  turn.append(text);
  log.append(asked, turn);
  log.scrollTop = log.scrollHeight;
  running = new AbortController();
  send.textContent = "Stop";
  let answer = "";
  try {
    const body = JSON.stringify({ model, messages, stream: true });
    const response = await call("/v1/chat/completions", { method: "POST", body, signal: running.signal });
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      answer += event.choices[0]?.delta?.content || "";
      if (answer) text.textContent = answer;
      if (event.groundtone) showSources(turn, event.groundtone);
      log.scrollTop = log.scrollHeight;
    }
    messages.push({ role: "assistant", content: answer });
  } catch (error) {
    messages.pop();
    turn.append(element("p", "error", error.name === "AbortError" ? "Stopped." : error.message));
  } finally {
    running = null;
    send.textContent = "Ask";
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) return running.abort();
  const question = input.value.trim();
  if (!question) return;
  input.value = "";
  ask(question);
});

call("/v1/models")
  .then((response) => response.json())
  .then((list) => {
    model = list.data[0].id;
    document.getElementById("model").textContent = model;
  })
  .catch((error) => log.append(element("p", "error", error.message)));
