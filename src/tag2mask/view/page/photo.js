// One photo large: its masks, score maps and threshold; correction of its tags and its mask.

import { get, getMask, post, postForMask } from "./api.js";
import { $, make, note, percent } from "./dom.js";
import { ERRORS } from "./draw.js";
import { Pane, View } from "./pane.js";
import { panel } from "./panel.js";

export const TITLES = {
  mended: "Corrected mask", pseudo: "Pseudo mask", before: "Before the CRF", first: "First pseudo mask",
  segmenter: "Segmenter", truth: "True mask", errors: "Errors",
};
const UNDONE = "Nothing to undo on this photo.";

export class Large {
  constructor({ close, step, changed }) {
    Object.assign(this, { close, step, changed });
    this.id = null;
    this.look = { masks: true, outline: true, opacity: 0.5, beside: false };
    this.brush = { brush: null, color: "#fff", radius: 14, done: (points, radius, pressed) => this.stroke(points, radius, pressed) };
    this.view = new View();
    this.main = new Pane(this.view, this.brush);
    this.other = new Pane(this.view, null);
    $("stage").append(this.main.box, this.other.box);
    $("back").addEventListener("click", () => this.close());
    $("previous").addEventListener("click", () => this.step(-1));
    $("next").addEventListener("click", () => this.step(1));
  }

  use(run) {
    this.run = run;
  }

  // ---- show a photo

  async show(photo, place) {
    if (this.id !== photo.id) {
      this.view.reset();
      this.brush.brush = null;
      this.redoable = [];
      this.kind = this.beside = null;
      this.threshold = null;
    }
    this.id = photo.id;
    this.photo = photo;
    $("photo").hidden = false;
    $("title").textContent = photo.name;
    $("place").textContent = place;
    const base = this.base = `/api/photos/${photo.id}`;
    this.masks = new Map();
    this.about = null;
    this.early = [];
    delete $("photo").dataset.ready;
    try {
      const about = await get(base);
      if (this.id !== photo.id) return;
      const factor = Math.min(1, 1600 / Math.max(...about.size));
      const [width, height] = about.size.map(side => Math.max(1, Math.round(side * factor)));
      this.factor = about.size[0] / width;
      for (const pane of [this.main, this.other]) pane.open(width, height, `${base}/picture?t=${photo.time}`, `Photo ${photo.name}`);
      this.take(about);
      await this.draw();
      if (this.id !== photo.id) return;
      $("photo").dataset.ready = photo.id;
      for (const event of this.early.splice(0)) this.onKey(event);
    } catch (error) {
      if (this.id === photo.id) note(error.message);
    }
  }

  hide() {
    this.id = null;
    $("photo").hidden = true;
  }

  // What the server knows of the photo now.
  take(about) {
    this.about = about;
    this.kinds = [...(about.corrected.keeps ? ["mended"] : []), ...about.masks];
    if (about.masks.includes("truth") && this.kinds.length > 1) this.kinds.push("errors");
    if (!this.kinds.includes(this.kind)) this.kind = this.kinds[0] ?? null;
    if (!this.kinds.includes(this.beside) || this.beside === this.kind) {
      this.beside = ["segmenter", "truth", "before", "pseudo"].find(kind => this.kinds.includes(kind) && kind !== this.kind) ?? null;
    }
    this.threshold ??= about.threshold;
    panel(this);
  }

  async mask(kind) {
    const id = this.id;
    if (!this.masks.has(kind)) this.masks.set(kind, getMask(`${this.base}/mask?kind=${kind}`));
    try {
      const mask = await this.masks.get(kind);
      return this.id === id ? mask : null;
    } catch (error) {
      this.masks.delete(kind);
      if (this.id === id) note(error.message);
      return null;
    }
  }

  async draw() {
    const beside = this.look.beside && this.beside;
    this.other.box.hidden = !beside;
    $("stage").classList.toggle("beside", Boolean(beside));
    for (const pane of [this.main, this.other]) {
      pane.box.classList.toggle("bare", !this.look.masks);
      pane.box.classList.toggle("plain", !this.look.outline);
      pane.box.style.setProperty("--opacity", this.look.opacity);
    }
    const jobs = [[this.main, this.kind], ...(beside ? [[this.other, this.beside]] : [])];
    await Promise.all(jobs.map(([pane, kind]) => this.drawOne(pane, kind)));
  }

  async drawOne(pane, kind) {
    const id = this.id;
    const slow = setTimeout(() => { pane.caption.textContent = `${TITLES[kind]} …`; }, 200);
    pane.kind = kind;
    const truth = kind === "errors" ? await this.mask("truth") : null;
    const mask = kind === null ? null : await this.mask(kind === "errors" ? this.kinds[0] : kind);
    clearTimeout(slow);
    if (this.id !== id || pane.kind !== kind) return;
    if (mask && (kind !== "errors" || truth)) {
      pane.show(mask, this.run.classes, this.run.colors, truth);
      this.say(pane, kind, mask.iou);
    } else {
      pane.hide();
      pane.caption.textContent = kind === null ? "No mask yet" : "";
    }
  }

  say(pane, kind, iou) {
    const parts = [make("span", {}, TITLES[kind])];
    if (iou !== null && kind !== "truth") parts.push(make("span", { class: "iou" }, `IoU ${percent(iou)}`));
    if (kind === "errors") {
      const words = { missed: "missed", extra: "too much", confused: "wrong class", right: "right" };
      parts.push(...Object.entries(words).map(([key, text]) => make("span", { class: "tagged", color: ERRORS[key] }, text)));
    }
    pane.caption.replaceChildren(...parts);
  }

  choose(kind) {
    if (!this.kinds.includes(kind)) return;
    this.kind = kind;
    if (this.beside === kind) this.beside = null;
    this.main.hideHeat();
    this.heat = null;
    this.take(this.about);
    this.draw();
  }

  setLook(change) {
    Object.assign(this.look, change);
    panel(this);
    this.draw();
  }

  toggleHeat(number) {
    this.heat = this.heat === number ? null : number;
    if (this.heat === null) this.main.hideHeat();
    else this.main.showHeat(`${this.base}/heat?class=${number}`);
    panel(this);
  }

  // ---- the threshold: the newest value wins, one request at a time

  slide(value) {
    this.threshold = value;
    this.wanted = value;
    if (!this.sliding) this.sliding = this.follow().finally(() => { this.sliding = null; });
  }

  async follow() {
    while (this.wanted !== null) {
      const value = this.wanted, id = this.id;
      this.wanted = null;
      const start = performance.now();
      try {
        const mask = await getMask(`${this.base}/mask?threshold=${value}`);
        if (this.id !== id) return;
        this.kind = this.kinds.includes("pseudo") ? "pseudo" : this.kind;
        this.main.kind = "slid";
        this.main.show(mask, this.run.classes, this.run.colors);
        this.say(this.main, "pseudo", mask.iou);
        performance.measure("threshold to mask", { start });
      } catch (error) {
        note(error.message);
        return;
      }
    }
  }

  get moved() {
    return this.about?.threshold != null && Math.abs(this.threshold - this.about.threshold) > 0.004;
  }

  resetThreshold() {
    this.threshold = this.about.threshold;
    this.masks.delete("pseudo");
    panel(this);
    this.draw();
  }

  // ---- corrections

  paintWith(name) {
    this.brush.brush = this.brush.brush === name ? null : name;
    const number = this.run.classes.indexOf(name);
    this.brush.color = number > 0 ? this.run.colors[number] : "#ffffff";
    this.main.box.classList.toggle("painting", this.brush.brush !== null);
    if (this.brush.brush) this.main.hideHeat();
    panel(this);
  }

  // Corrections reach the server one after the other, in the order in which they were made.
  inTurn(work) {
    this.pending = (this.pending ?? Promise.resolve()).then(work).catch(error => { note(error.message); return null; });
    return this.pending;
  }

  stroke(points, radius, pressed) {
    const start = performance.now(), { id, base } = this;
    const stroke = {
      tag: this.brush.brush,
      points: points.map(([x, y]) => [+(x * this.factor).toFixed(1), +(y * this.factor).toFixed(1)]),
      radius: +(radius * this.factor).toFixed(2),
    };
    const value = { strokes: [stroke], threshold: this.moved ? this.threshold : null };
    return this.inTurn(async () => {
      const mask = await postForMask(`${base}/strokes`, value).finally(() => { if (this.id === id) this.main.dry(); });
      if (this.id === id) {
        this.masks.set("mended", Promise.resolve(mask));
        this.main.kind = this.kind = "mended";
        this.main.show(mask, this.run.classes, this.run.colors);
        this.say(this.main, "mended", mask.iou);
        await new Promise(requestAnimationFrame);
        performance.measure("stroke to mask", { start, detail: { pressed } });
        this.redoable = [];
      }
      this.renewed(await get(base));
    });
  }

  correct(path, value, text) {
    const { id, base } = this;
    return this.inTurn(async () => {
      const about = await post(`${base}/${path}`, value);
      if (this.id === id) {
        this.redoable = [];
        if (text) note(text, () => this.undo(), "Undo");
      }
      this.renewed(about);
      return this.id === id ? about : null;
    });
  }

  // After a correction: show it in the grid, and here if the photo is still shown.
  renewed(about) {
    this.changed(about.id, { tags: about.numbers, unknown: about.unsure, mark: about.corrected.mark, says: about.corrected.says, mask: about.mask });
    if (about.id !== this.id) return;
    const before = this.kind;
    this.take(about);
    if (before !== this.kind || this.kind === "errors") this.draw();
  }

  setTag(tag, value) {
    const words = { present: `“${tag}” is in the photo.`, absent: `“${tag}” is not in the photo.`, unknown: `Not sure about “${tag}”.` };
    return this.correct("tag", { tag, value }, words[value]);
  }

  async judge(value) {
    const kind = this.moved && this.main.kind === "slid" ? "threshold" : this.kind === "errors" ? this.kinds[0] : this.kind;
    if (value === "right" && !["pseudo", "mended", "segmenter", "first", "threshold"].includes(kind)) {
      note("Choose the mask that is right: the pseudo mask or the segmenter’s.");
      return;
    }
    const words = {
      right: "Kept as it is: the segmenter will learn from this mask.",
      wrong: "Left out: the segmenter will not learn from this mask.",
      computed: "The mask is again as it was computed.",
    };
    const about = await this.correct("judge", value === "right" ? { value, kind, threshold: kind === "threshold" ? this.threshold : null } : { value }, words[value]);
    if (about) this.masks.delete("mended");
    if (about?.corrected.keeps) this.choose("mended");
    else if (about) this.draw();
  }

  undo(of = null) {
    const { id, base } = this;
    return this.inTurn(async () => {
      const answer = await post(`${base}/undo`, { of });
      if (!answer.undone) { note(UNDONE); return; }
      if (this.id === id) {
        if (of === null) this.redoable.push(answer.undone);
        this.masks.delete("mended");
      }
      this.renewed(answer.about);
      if (this.id !== id) return;
      if (this.kinds.includes("mended")) this.kind = "mended";
      panel(this);
      this.draw();
    });
  }

  redo() {
    const of = this.redoable.pop();
    if (of) this.undo(of);
    else note("Nothing to do again.");
  }

  // ---- keys

  onKey(event) {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.ctrlKey || event.metaKey) {
      if (key === "z") { event.preventDefault(); if (event.shiftKey) this.redo(); else this.undo(); }
      return;
    }
    if (event.target.matches?.("select")) return;
    if (event.target.matches?.("input[type=range]") && event.key.startsWith("Arrow")) return;
    if (!this.about) { // it is being opened: other keys wait for it
      if (key === "Escape") this.close();
      else if (key === "ArrowRight" || key === "ArrowLeft") this.step(key === "ArrowRight" ? 1 : -1);
      else this.early.push(event);
      return;
    }
    const cycle = (list, now) => list[(list.indexOf(now) + 1) % list.length];
    const slide = by => {
      if (this.about.threshold == null) return;
      this.slide(Math.min(0.95, Math.max(0.05, +(this.threshold + by).toFixed(3))));
      panel(this);
    };
    const actions = {
      ArrowRight: () => this.step(1), ArrowLeft: () => this.step(-1),
      Escape: () => (this.brush.brush ? this.paintWith(this.brush.brush) : this.close()),
      m: () => this.setLook({ masks: !this.look.masks }), o: () => this.setLook({ outline: !this.look.outline }),
      c: () => this.setLook({ beside: !this.look.beside }),
      b: () => this.choose(this.kind === "before" ? "pseudo" : "before"),
      h: () => { const next = cycle([null, ...this.about.heats], this.heat ?? null); this.toggleHeat(next === null ? this.heat : next); },
      "[": () => this.setLook({ opacity: Math.max(0, +(this.look.opacity - 0.1).toFixed(2)) }),
      "]": () => this.setLook({ opacity: Math.min(1, +(this.look.opacity + 0.1).toFixed(2)) }),
      ",": () => slide(-0.02), ".": () => slide(0.02),
      "+": () => this.view.scale(1.4), "=": () => this.view.scale(1.4), "-": () => this.view.scale(1 / 1.4), 0: () => this.view.reset(),
      p: () => { const names = this.paintable(); if (names.length) this.paintWith(cycle(names, this.brush.brush)); },
      x: () => this.about.corrected.possible && this.paintWith("background"),
      "{": () => this.size(-1), "}": () => this.size(1),
      r: () => this.about.corrected.possible && this.judge("right"), w: () => this.about.corrected.possible && this.judge("wrong"),
      t: () => $("add")?.focus(), z: () => this.undo(), y: () => this.redo(),
    };
    const number = Number(key);
    const act = number >= 1 && number <= this.kinds.length ? () => this.choose(this.kinds[number - 1]) : actions[key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  size(by) {
    this.brush.radius = Math.min(80, Math.max(3, Math.round(this.brush.radius * (by > 0 ? 1.3 : 1 / 1.3))));
    panel(this);
  }

  // What can be painted: the photo's tags. Others are added as tags first.
  paintable() {
    return this.about.corrected.possible ? [...this.about.tags, ...this.about.unknown] : [];
  }
}
