// Elements, made and found.

export const $ = id => document.getElementById(id);

// make("button", {class: "round", onclick: f}, "text", child ...)
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "color") element.style.setProperty("--c", value);
    else if (value === true) element.setAttribute(key, "");
    else element.setAttribute(key, value);
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";
export function svg(name, properties = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(properties)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

let hide;
export function note(text, action, what) {
  const bar = $("note");
  bar.replaceChildren(make("span", {}, text));
  if (action) bar.append(make("button", { class: "quiet", onclick: () => { bar.className = ""; action(); } }, what));
  bar.className = "seen";
  clearTimeout(hide);
  hide = setTimeout(() => { bar.className = ""; }, action ? 7000 : 4000);
}

export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
export const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
