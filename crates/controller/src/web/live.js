// The islands of script: the live part follows the controller, filters act while one types, the
// editor shows its line numbers. Every page works without.
"use strict";
const part = document.getElementById("live");
const mark = document.getElementById("connection");
const said = document.getElementById("said");

// Turns one tree into another in place: focus, scrolling and what is open stay.
function morph(from, to) {
  const want = [...to.childNodes];
  for (let i = 0; i < want.length; i++) {
    const have = from.childNodes[i];
    const next = want[i];
    if (!have) { from.append(next); continue; }
    if (have.nodeType !== next.nodeType || have.nodeName !== next.nodeName || have.id !== next.id) {
      have.replaceWith(next);
      continue;
    }
    if (have.nodeType === Node.TEXT_NODE) {
      if (have.data !== next.data) have.data = next.data;
      continue;
    }
    if (have.nodeType !== Node.ELEMENT_NODE) continue;
    for (const { name } of [...have.attributes]) {
      if (!next.hasAttribute(name) && !(name === "open" && have.nodeName === "DETAILS")) have.removeAttribute(name);
    }
    for (const { name, value } of next.attributes) {
      if (have.getAttribute(name) !== value) have.setAttribute(name, value);
    }
    morph(have, next);
  }
  while (from.childNodes.length > want.length) from.lastChild.remove();
}

function follow() {
  let asking = false, again = false, said_before = null;
  const words = () => part.querySelector("[data-say]")?.dataset.say ?? null;
  said_before = words();

  async function ask() {
    if (asking) { again = true; return; }
    asking = true;
    again = false;
    const began = performance.now();
    try {
      const address = new URL(part.dataset.path, location.origin);
      address.searchParams.set("part", "1");
      const answer = await fetch(address, { redirect: "manual", headers: { Accept: "text/html" } });
      if (answer.type === "opaqueredirect") { location.assign("/login"); return; }
      if (answer.ok) {
        const bottom = innerHeight + scrollY >= document.body.scrollHeight - 40;
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").body;
        morph(part, fresh);
        if (bottom && part.querySelector(".log.tail")) scrollTo(0, document.body.scrollHeight);
        const now = words();
        if (now !== said_before) { said.textContent = now ?? ""; said_before = now; }
      }
    } catch { /* the next sign of life asks again */ }
    // What takes the controller long is asked for less often.
    const pause = Math.min(10 * (performance.now() - began), 10000);
    setTimeout(() => { asking = false; if (again) ask(); }, Math.max(pause, 300));
  }

  const events = new EventSource("/live");
  let opened = false;
  events.onmessage = ask;
  events.onopen = () => {
    mark.textContent = "live"; mark.className = "live";
    if (opened) ask();
    opened = true;
  };
  events.onerror = () => { mark.textContent = "reconnecting"; mark.className = "lost"; };

  for (const form of document.querySelectorAll("form[data-filter]")) {
    let timer;
    const act = () => {
      const fields = [...new FormData(form)].filter(([, value]) => value !== "");
      const query = new URLSearchParams(fields).toString();
      const path = location.pathname + (query ? "?" + query : "");
      history.replaceState(null, "", path);
      part.dataset.path = path;
      ask();
    };
    form.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(act, 250); });
    form.addEventListener("submit", event => { event.preventDefault(); clearTimeout(timer); act(); });
  }
}

for (const editor of document.querySelectorAll(".editor")) {
  const numbers = editor.querySelector("pre"), text = editor.querySelector("textarea");
  let lines = 0;
  const count = () => {
    const now = text.value.split("\n").length;
    if (now !== lines) numbers.textContent = Array.from({ length: now }, (_, i) => i + 1).join("\n");
    lines = now;
  };
  text.addEventListener("input", count);
  text.addEventListener("scroll", () => { numbers.scrollTop = text.scrollTop; });
  count();
  if (text.dataset.line) {
    const at = text.value.split("\n").slice(0, Number(text.dataset.line) - 1).join("\n").length;
    text.focus();
    text.setSelectionRange(at, at);
    text.scrollTop = Math.max(0, (Number(text.dataset.line) - 8) * 20);
  }
}

// An open menu closes by Escape and gives the focus back.
document.addEventListener("keydown", event => {
  const menu = event.key === "Escape" && document.querySelector("details.menu[open]");
  if (menu) { menu.open = false; menu.querySelector("summary").focus(); }
});

if (part && part.dataset.path) follow(); else if (mark) mark.hidden = true;
