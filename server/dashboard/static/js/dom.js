// Elements from data. Text goes in as text only: nothing here, or anywhere on this page, parses HTML.

/** Make an element: `el("p", {class: "muted", title: "…"}, "text", child)`. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") made.toggleAttribute(name, value);
    else if (value !== null && value !== undefined) made.setAttribute(name, String(value));
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return made;
}

/** The element with this id; the template promises that it is there. */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element ${id}`);
  return found;
}

/** Set text only where it changed, so that nothing is laid out again for nothing. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Give a <select> these options, keeping what was chosen where it still exists. */
export function setOptions(select, all, values) {
  const have = [...select.options].slice(1).map((option) => option.value);
  if (have.length === values.length && have.every((value, i) => value === values[i])) return;
  const chosen = select.value;
  const options = values.map((value) => el("option", { value }, value));
  select.replaceChildren(el("option", { value: "" }, all), ...options);
  select.value = values.includes(chosen) ? chosen : "";
}

const wanted = new Set();

/** Call `draw` in the next animation frame, once, however often it is asked for. */
export function nextFrame(draw) {
  if (wanted.size === 0) requestAnimationFrame(drawAll);
  wanted.add(draw);
}

function drawAll() {
  const now = [...wanted];
  wanted.clear();
  for (const draw of now) draw();
}

/** A function that calls `draw` in a frame, at most once every `everyMs`. */
export function paced(draw, everyMs) {
  let timer = 0;
  let drawnAt = -Infinity;
  const run = () => {
    timer = 0;
    drawnAt = performance.now();
    nextFrame(draw);
  };
  return () => {
    if (timer) return;
    timer = setTimeout(run, Math.max(0, drawnAt + everyMs - performance.now()));
  };
}
