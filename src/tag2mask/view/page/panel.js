// The panel beside a photo: what to see, and what to correct.

import { $, make, note, percent } from "./dom.js";
import { TITLES } from "./photo.js";

// A new panel between the press and the release of a button would lose the click, so it waits.
let pressed = false, late = null;
$("panel").addEventListener("pointerdown", () => { pressed = true; });
for (const name of ["pointerup", "pointercancel"]) {
  addEventListener(name, () => setTimeout(() => { // after the click
    pressed = false;
    if (late) panel(late);
  }), true);
}

// Draws the panel of what `large` shows. The element that has the focus keeps it.
export function panel(large) {
  late = pressed ? large : null;
  if (pressed || !large.about) return;
  const { about } = large;
  const focus = document.activeElement?.dataset?.key, scroll = $("panel").scrollTop;
  const possible = about.corrected.possible;
  $("panel").replaceChildren(
    shown(large),
    ...(possible ? [mask(large), tags(large), threshold(large)] : [validation(large)]),
    display(large), facts(large),
  );
  $("panel").scrollTop = scroll;
  if (focus) document.querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
}

const part = (title, ...children) => make("section", {}, title ? make("h3", {}, title) : "", ...children);

function button(key, text, on, act, more = {}) {
  const { color, ...rest } = more;
  return make("button", { "data-key": key, "aria-pressed": String(Boolean(on)), onclick: act, color, ...rest }, text);
}

function shown(large) {
  if (!large.kinds.length) {
    return part("", make("p", { class: "soft" }, large.about.split === "train"
      ? "No mask of this photo yet. It appears here when the run has made it."
      : "No mask of this photo yet: the segmenter has not been trained."));
  }
  const choices = large.kinds.map((kind, i) => button(`kind-${kind}`, TITLES[kind], large.kind === kind, () => large.choose(kind), { title: `${TITLES[kind]} (${i + 1})` }));
  const others = large.kinds.filter(kind => kind !== large.kind);
  const select = make("select", { "data-key": "beside", "aria-label": "Beside it", onchange: event => { large.beside = event.target.value; large.draw(); } },
    ...others.map(kind => make("option", { value: kind }, TITLES[kind])));
  if (large.beside) select.value = large.beside;
  return part("Show", make("div", { class: "choices" }, ...choices),
    others.length ? make("div", { class: "line" }, button("two", "Side by side", large.look.beside, () => large.setLook({ beside: !large.look.beside }), { title: "Two masks side by side (c)", class: "toggle" }), large.look.beside ? select : "") : "");
}

function display(large) {
  const { look, about, run } = large;
  const opacity = make("input", { type: "range", min: 0, max: 1, step: 0.01, value: look.opacity, "data-key": "opacity", "aria-label": "Strength of the mask",
    oninput: event => { look.opacity = Number(event.target.value); look.masks = true; large.draw(); } });
  const heats = about.heats.map(number => button(`heat-${number}`, run.classes[number], large.heat === number, () => large.toggleHeat(number), { color: run.colors[number], class: "chip", title: "Where the classifier sees it (h)" }));
  return part("See", make("label", { class: "line" }, make("span", {}, "Mask"), opacity),
    make("div", { class: "line" },
      button("masks", "Mask", look.masks, () => large.setLook({ masks: !look.masks }), { class: "toggle", title: "Mask on or off (m)" }),
      button("outline", "Outlines", look.outline, () => large.setLook({ outline: !look.outline }), { class: "toggle", title: "Outlines on or off (o)" }),
      button("fit", "Whole photo", false, () => large.view.reset(), { class: "quiet", title: "Zoom with the wheel or two fingers; 0 shows the whole photo" })),
    heats.length ? make("div", { class: "line wrap" }, make("span", {}, "Score map"), ...heats) : "");
}

function threshold(large) {
  const { about } = large;
  if (about.threshold === null) return "";
  const value = make("output", {}, percent(large.threshold));
  const reset = make("button", { class: "quiet", "data-key": "reset", hidden: !large.moved, onclick: () => large.resetThreshold() }, "Reset");
  const keep = make("button", { class: "quiet", "data-key": "keep", hidden: !large.moved, onclick: () => large.judge("right") }, "Keep this mask");
  const slider = make("input", { type: "range", min: 0.05, max: 0.95, step: 0.01, value: large.threshold, id: "threshold", "data-key": "threshold",
    "aria-label": "Background threshold",
    oninput: event => {
      large.slide(Number(event.target.value));
      value.textContent = percent(large.threshold);
      reset.hidden = keep.hidden = !large.moved;
    } });
  return part("Background threshold", make("div", { class: "line" }, slider, value),
    make("div", { class: "ends" }, make("span", {}, "more object"), make("span", {}, "less object")),
    make("div", { class: "line" }, keep, reset));
}

const VALUES = [["present", "✓", "in the photo"], ["unknown", "?", "not sure"], ["absent", "✗", "not in the photo"]];

function tags(large) {
  const { about, run } = large;
  const state = tag => about.tags.includes(tag) ? "present" : about.unknown.includes(tag) ? "unknown" : "absent";
  const listed = run.classes.slice(1).filter(tag => state(tag) !== "absent" || tag in about.corrected.tags);
  const rows = listed.map(tag => make("div", { class: `tagrow ${state(tag)}` },
    make("span", { class: "tagged", color: run.colors[run.classes.indexOf(tag)] }, tag),
    make("span", { class: "three", role: "group", "aria-label": tag }, ...VALUES.map(([value, sign, text]) =>
      button(`tag-${tag}-${value}`, sign, state(tag) === value, () => state(tag) !== value && large.setTag(tag, value), { "aria-label": `${tag}: ${text}`, title: `“${tag}” is ${text}`.replace("is not sure", "is perhaps here: not sure") })))));
  const others = run.classes.slice(1).filter(tag => !listed.includes(tag));
  const add = make("select", { id: "add", "data-key": "add", "aria-label": "Add a tag", onchange: event => event.target.value && large.setTag(event.target.value, "present") },
    make("option", { value: "" }, "Add a tag …"), ...others.map(tag => make("option", {}, tag)));
  return part("Tags", listed.length ? "" : make("p", { class: "soft" }, "Nothing is in this photo, as its tags say."), ...rows, others.length ? add : "");
}

function mask(large) {
  const { about, run, brush } = large;
  const brushes = [...large.paintable().map(tag => [tag, tag, run.colors[run.classes.indexOf(tag)]]), ["background", "Background", "#ffffff"]];
  const size = make("input", { type: "range", min: 3, max: 80, step: 1, value: brush.radius, "data-key": "size", "aria-label": "Size of the brush", oninput: event => { brush.radius = Number(event.target.value); } });
  const { mask, count } = about.corrected;
  const said = { right: "You said that this mask is right.", wrong: "You said that this mask is wrong.", mended: "You mended this mask." }[mask];
  return part("Correct the mask",
    make("p", { class: "soft" }, brush.brush ? `Paint a little of ${brush.brush === "background" ? "the background" : `“${brush.brush}”`}; the mask follows the photo’s edges.` : "Choose what to paint, then paint a little of it on the photo."),
    make("div", { class: "line wrap" }, ...brushes.map(([name, text, color]) => button(`brush-${name}`, text, brush.brush === name, () => large.paintWith(name), { color, class: "chip", title: name === "background" ? "Paint background (x)" : "Paint this tag (p)" }))),
    brush.brush ? make("label", { class: "line" }, make("span", {}, "Brush"), size) : "",
    make("div", { class: "line" },
      button("right", "✓ Right", mask === "right", () => large.judge(mask === "right" ? "computed" : "right"), { title: "Keep this mask as it is (r)", class: "verdict" }),
      button("wrong", "✗ Wrong", mask === "wrong", () => large.judge(mask === "wrong" ? "computed" : "wrong"), { title: "Do not learn from this mask (w)", class: "verdict" })),
    said ? make("p", { class: "said" }, said) : "",
    make("div", { class: "line" },
      make("button", { class: "quiet", "data-key": "undo", disabled: !count, title: "Undo the last correction of this photo (z)", onclick: () => large.undo() }, "Undo"),
      make("button", { class: "quiet", "data-key": "redo", disabled: !large.redoable.length, title: "Redo (y)", onclick: () => large.redo() }, "Redo"),
      mask === "mended" ? make("button", { class: "quiet", "data-key": "computed", title: "Take all strokes back: the mask is again as computed", onclick: () => large.judge("computed") }, "Undo all") : ""),
    !about.corrected.mark ? "" : about.corrected.run
      ? make("p", { class: "soft" }, "Kept in the run folder. To learn from your corrections: ", make("code", { class: "command" }, about.corrected.run))
      : make("p", { class: "soft" }, "The run has learned from this correction."));
}

function validation(large) {
  const { about, run } = large;
  const names = [...about.tags, ...about.unknown.map(tag => `${tag}?`)];
  return part("Tags", names.length
    ? make("div", { class: "line wrap" }, ...about.tags.map(tag => make("span", { class: "tagged", color: run.colors[run.classes.indexOf(tag)] }, tag)))
    : make("p", { class: "soft" }, "This photo has no tags."),
  make("p", { class: "soft" }, "A validation photo: no network learns from it, so there is nothing to correct here."));
}

function facts(large) {
  const { about, photo } = large, { facts } = about, rows = [];
  const add = (name, value, text) => Number.isFinite(value) && rows.push(make("dt", {}, name), make("dd", {}, text ?? percent(value)));
  add("Doubt, of all photos", photo.doubt, photo.doubt === undefined ? "" : photo.doubt > 0.66 ? `high (${percent(photo.doubt)})` : photo.doubt > 0.33 ? `middle (${percent(photo.doubt)})` : `low (${percent(photo.doubt)})`);
  add(about.split === "train" ? "The networks differ in" : "Tags and mask differ in", facts.agree);
  add("Unsure scores", facts.entropy);
  add("Changed by the CRF", facts.crf);
  add("Objects cover", photo.size);
  add("IoU with the true mask", facts.iou);
  return part("", rows.length ? make("dl", {}, ...rows) : "", make("p", { class: "file" }, about.file, ` · ${about.size.join(" × ")}`), facts.fault ? make("p", { class: "fault" }, facts.fault) : "");
}
