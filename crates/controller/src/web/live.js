// Replaces the live part of the page when the controller says that something changed.
"use strict";
const part = document.getElementById("live");
const mark = document.getElementById("connection");
const address = new URL(part.dataset.path, location.origin);
address.searchParams.set("part", "1");
let asking = false, again = false;

async function ask() {
  if (asking) { again = true; return; }
  asking = true;
  try {
    const answer = await fetch(address, { redirect: "manual", headers: { Accept: "text/html" } });
    if (answer.type === "opaqueredirect") { location.assign("/login"); return; }
    if (answer.ok) {
      const bottom = innerHeight + scrollY >= document.body.scrollHeight - 40;
      const opened = new Set([...part.querySelectorAll("details[open]")].map(d => d.id));
      part.innerHTML = await answer.text();
      for (const d of part.querySelectorAll("details")) if (opened.has(d.id)) d.open = true;
      if (bottom && part.querySelector(".log")) scrollTo(0, document.body.scrollHeight);
    }
  } catch { /* the next sign of life asks again */ }
  asking = false;
  if (again) { again = false; ask(); }
}

const events = new EventSource("/live");
events.onmessage = ask;
events.onopen = () => { mark.textContent = "live"; mark.className = "live"; ask(); };
events.onerror = () => { mark.textContent = "reconnecting"; mark.className = "lost"; };
