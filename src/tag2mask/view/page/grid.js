// All photos in rows of one height, as wide as the page. Only what is in sight has elements.

import { $, make } from "./dom.js";

const GAP = 6;
const SIZES = [72, 96, 124, 160, 210, 280, 380];

export class Grid {
  constructor(open) {
    this.box = $("grid");
    this.rows = $("rows");
    this.open = open;
    this.photos = [];
    this.cells = new Map();
    this.tops = [];
    this.lines = [];
    this.current = 0;
    const saved = Number(localStorage.getItem("tag2mask-size"));
    this.size = SIZES.includes(saved) ? saved : innerWidth < 600 ? 96 : 160;
    this.masks = true;
    this.box.addEventListener("scroll", () => this.soon(), { passive: true });
    new ResizeObserver(() => this.layout()).observe(this.box);
  }

  // photos: in their order. keep: whether to keep the place.
  show(photos, keep) {
    const id = this.photos[this.current]?.id;
    this.photos = photos;
    this.current = keep ? Math.max(0, photos.findIndex(photo => photo.id === id)) : 0;
    if (!keep) this.box.scrollTop = 0;
    for (const cell of this.cells.values()) cell.remove();
    this.cells.clear();
    this.layout();
  }

  layout() {
    const width = this.box.clientWidth - 2 * GAP;
    if (width <= 0) return;
    this.width = width;
    this.lines = [];
    this.places = new Array(this.photos.length);
    let top = GAP, start = 0, sum = 0;
    const close = (end, full) => {
      const gaps = (end - start - 1) * GAP;
      const height = full ? Math.min((width - gaps) / sum, 1.6 * this.size) : this.size;
      let left = GAP;
      for (let i = start; i < end; i++) {
        const wide = this.ratio(i) * height;
        this.places[i] = [left, top, wide, height];
        left += wide + GAP;
      }
      this.lines.push([top, start, end]);
      top += height + GAP;
      start = end;
      sum = 0;
    };
    for (let i = 0; i < this.photos.length; i++) {
      sum += this.ratio(i);
      if (sum * this.size + (i - start) * GAP >= width) close(i + 1, true);
    }
    if (start < this.photos.length) close(this.photos.length, false);
    this.rows.style.height = `${top}px`;
    for (const [id, cell] of this.cells) this.put(cell, this.places[cell.index], id);
    this.draw();
  }

  ratio(i) {
    return Math.min(2.6, Math.max(0.45, this.photos[i].ratio));
  }

  soon() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.draw(); });
  }

  draw() {
    const from = this.box.scrollTop - 400, to = this.box.scrollTop + this.box.clientHeight + 400;
    const first = this.line(from), last = this.line(to);
    const wanted = new Set();
    if (this.lines.length) {
      for (let i = this.lines[first][1]; i < this.lines[last][2]; i++) wanted.add(i);
    }
    for (const [id, cell] of this.cells) {
      if (!wanted.has(cell.index) || this.photos[cell.index]?.id !== id) {
        for (const image of cell.querySelectorAll("img")) image.removeAttribute("src"); // not loaded any more
        cell.remove();
        this.cells.delete(id);
      }
    }
    for (const i of wanted) if (!this.cells.has(this.photos[i].id)) this.add(i);
  }

  line(y) {
    let low = 0, high = this.lines.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.lines[middle][0] <= y) low = middle; else high = middle - 1;
    }
    return low;
  }

  add(i) {
    const photo = this.photos[i];
    const cell = make("button", { class: "cell", tabindex: "-1", onclick: () => this.open(photo.id) });
    cell.index = i;
    this.cells.set(photo.id, cell);
    this.fill(cell, photo);
    this.put(cell, this.places[i]);
    this.rows.append(cell);
  }

  fill(cell, photo) {
    const names = photo.tags.map(tag => this.classes[tag]).join(", ") || "nothing";
    cell.title = photo.name;
    cell.setAttribute("aria-label", `${photo.name}: ${names}`);
    const base = `/api/photos/${photo.id}`;
    const dots = photo.tags.slice(0, 6).map(tag => make("i", { color: this.colors[tag] }));
    const failed = event => event.target.remove();
    cell.replaceChildren(
      make("img", { class: "thumb", src: `${base}/thumb?t=${photo.time}`, alt: "", decoding: "async", draggable: "false", onerror: failed }),
      photo.mask ? make("img", { class: "layer", src: `${base}/layer?t=${photo.mask}`, alt: "", decoding: "async", draggable: "false", onerror: failed }) : "",
      make("span", { class: "dots" }, ...dots),
      photo.mark ? make("span", { class: `mark ${photo.mark}`, title: photo.says }, { tags: "tag", right: "✓", wrong: "✗", mended: "✎" }[photo.mark]) : "",
    );
    cell.classList.toggle("current", cell.index === this.current);
  }

  put(cell, place) {
    if (!place) return;
    cell.style.cssText = `left:${place[0].toFixed(1)}px;top:${place[1].toFixed(1)}px;width:${place[2].toFixed(1)}px;height:${place[3].toFixed(1)}px`;
  }

  // A photo has a new mask or other corrections.
  renew(photo) {
    const cell = this.cells.get(photo.id);
    if (cell) this.fill(cell, photo);
  }

  choose(i, scroll = true) {
    if (!this.photos.length) return;
    this.cells.get(this.photos[this.current]?.id)?.classList.remove("current");
    this.current = Math.min(this.photos.length - 1, Math.max(0, i));
    if (scroll && this.places) {
      const [, top, , height] = this.places[this.current];
      const box = this.box;
      if (top < box.scrollTop + GAP) box.scrollTop = top - GAP;
      else if (top + height > box.scrollTop + box.clientHeight - GAP) box.scrollTop = top + height - box.clientHeight + GAP;
      this.draw();
    }
    this.cells.get(this.photos[this.current].id)?.classList.add("current");
  }

  // The photo one row below (1) or above (-1).
  below(step) {
    const [left, top, width] = this.places[this.current];
    const line = this.lines[Math.min(this.lines.length - 1, Math.max(0, this.line(top + 1) + step))];
    let best = this.current, distance = Infinity;
    for (let i = line[1]; i < line[2]; i++) {
      const d = Math.abs(this.places[i][0] + this.places[i][2] / 2 - left - width / 2);
      if (d < distance) [best, distance] = [i, d];
    }
    this.choose(best);
  }

  page(step) {
    this.box.scrollTop += step * this.box.clientHeight * 0.9;
    const line = this.lines[this.line(this.box.scrollTop + GAP + 1)];
    if (line) this.choose(line[1], false);
  }

  resize(step) {
    this.size = SIZES[Math.min(SIZES.length - 1, Math.max(0, SIZES.indexOf(this.size) + step))];
    localStorage.setItem("tag2mask-size", this.size);
    this.layout();
    this.choose(this.current);
  }

  setMasks(on) {
    this.masks = on;
    this.box.classList.toggle("bare", !on);
  }
}
