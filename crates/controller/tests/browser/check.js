(() => {
  const found = [];
  const say = (what, e) => found.push(what + ": " + (e.outerHTML || "").slice(0, 160));
  const shown = e => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length > 0;
  const words = e => (e.getAttribute("aria-label") || e.innerText || e.textContent || e.querySelector("title")?.textContent || "").trim();

  if (!document.documentElement.lang) say("the page names no language", document.documentElement);
  if (!document.title) found.push("the page has no title");
  if (document.querySelectorAll("main").length !== 1) found.push("there is not one main part");
  if (document.querySelectorAll("h1").length !== 1) found.push("there is not one first heading");
  let level = 0;
  for (const h of document.querySelectorAll("h1, h2, h3, h4")) {
    const now = Number(h.tagName[1]);
    if (now > level + 1) say("a heading leaves out a level", h);
    level = now;
  }
  const ids = new Set();
  for (const e of document.querySelectorAll("[id]")) {
    if (ids.has(e.id)) say("two parts have one id", e);
    ids.add(e.id);
  }
  for (const e of document.querySelectorAll("[aria-describedby], [aria-labelledby]")) {
    for (const id of ((e.getAttribute("aria-describedby") || "") + " " + (e.getAttribute("aria-labelledby") || "")).split(" ").filter(Boolean)) {
      if (!ids.has(id)) say("it refers to what is not there", e);
    }
  }
  for (const e of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
    if (!(e.labels && [...e.labels].some(l => l.textContent.trim())) && !e.getAttribute("aria-label")) say("a field has no label", e);
  }
  for (const e of document.querySelectorAll("a[href], button, summary")) if (!words(e)) say("it has no name", e);
  for (const e of document.querySelectorAll("svg[role], meter")) if (!e.getAttribute("aria-label")) say("a picture has no words", e);
  for (const e of document.querySelectorAll("svg:not([role])")) if (!e.closest("[aria-hidden=true]") && e.getAttribute("aria-hidden") !== "true") say("a picture is neither told nor hidden", e);
  for (const e of document.querySelectorAll("[tabindex]")) if (Number(e.getAttribute("tabindex")) > 0) say("it stands out of the order of the page", e);
  for (const e of document.querySelectorAll("thead th")) if (!e.hasAttribute("scope") || !words(e)) say("a column has no name", e);
  for (const e of document.querySelectorAll("dl > *")) if (!["DT", "DD", "DIV"].includes(e.tagName)) say("a list of terms holds something else", e);
  for (const e of document.querySelectorAll("[style]")) say("it has a style of its own", e);

  // Contrast: WCAG 2.2, 1.4.3.
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  canvas.canvas.width = canvas.canvas.height = 1;
  const colour = text => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  const ground = e => {
    const all = [];
    for (let at = e; at; at = at.parentElement) all.push(colour(getComputedStyle(at).backgroundColor));
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    return all.reverse().reduce((below, one) => over(one, below), dark ? [0, 0, 0, 1] : [255, 255, 255, 1]);
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const seen = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || seen.has(e) || !shown(e) || e.closest(".hidden, option, [aria-hidden=true], svg")) continue;
    seen.add(e);
    const style = getComputedStyle(e);
    const below = ground(e);
    const [a, b] = [light(over(colour(style.color), below)), light(below)];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    const need = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if (contrast < need && size > 0) say("contrast " + contrast.toFixed(2), e);
  }
  for (const e of document.querySelectorAll("svg text, svg .trace")) {
    const style = getComputedStyle(e);
    const paint = colour(e.matches("text") ? style.fill : style.stroke);
    const below = e.closest(".map") ? colour(getComputedStyle(e.closest("svg")).backgroundColor) : ground(e.closest("svg").parentElement);
    const [a, b] = [light(paint), light(below)];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < (e.matches("text") ? 4.5 : 3)) say("contrast in a picture " + contrast.toFixed(2), e);
  }

  // Nothing but what scrolls by itself is wider than the window.
  if (document.documentElement.scrollWidth > innerWidth + 1) {
    const wide = [...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll, pre, .tabs, .editor, .hidden"));
    found.push("wider than the window: " + document.documentElement.scrollWidth + " " + wide.slice(0, 3).map(e => e.outerHTML.slice(0, 120)));
  }
  // What is touched is at least 24 by 24, but within a text (WCAG 2.2, 2.5.8).
  for (const e of document.querySelectorAll("button, summary, .button, select")) {
    const box = e.getBoundingClientRect();
    if (shown(e) && box.height > 0 && (box.height < 24 || box.width < 24)) say("too small to touch: " + box.width.toFixed() + "×" + box.height.toFixed(), e);
  }
  return found;
})()
