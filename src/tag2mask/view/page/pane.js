// A photo with its mask, zoomed and moved. Panes beside each other share one view.

import { make } from "./dom.js";
import { clear, drawErrors, drawMask, places } from "./draw.js";

// What all panes have in common: zoom (1 fits), the point in the middle, how masks are drawn.
export class View {
  constructor() {
    this.zoom = 1;
    this.x = 0.5;
    this.y = 0.5;
    this.panes = [];
  }

  reset() {
    [this.zoom, this.x, this.y] = [1, 0.5, 0.5];
    this.place();
  }

  place() {
    for (const pane of this.panes) pane.place();
  }

  // Zoom by a factor; the point u, v (0-1) of the photo stays where it is.
  scale(factor, u = this.x, v = this.y) {
    const zoom = Math.min(40, Math.max(1, this.zoom * factor));
    const step = this.zoom / zoom;
    this.x = u + (this.x - u) * step;
    this.y = v + (this.y - v) * step;
    this.zoom = zoom;
    if (zoom === 1) [this.x, this.y] = [0.5, 0.5];
    this.place();
  }

  move(u, v) {
    if (this.zoom === 1) return;
    this.x = Math.min(1, Math.max(0, this.x - u));
    this.y = Math.min(1, Math.max(0, this.y - v));
    this.place();
  }
}

export class Pane {
  constructor(view, strokes) {
    this.view = view;
    this.strokes = strokes; // {brush, radius, done(points, pressed)}, or null: nothing to paint here
    this.photo = make("img", { class: "photo", alt: "", draggable: "false" });
    this.heat = make("img", { class: "heat", alt: "", draggable: "false", hidden: true });
    this.fill = make("canvas", { class: "fill" });
    this.line = make("canvas", { class: "line" });
    this.ink = make("canvas", { class: "ink" });
    this.names = make("div", { class: "names" });
    this.world = make("div", { class: "world" }, this.photo, this.heat, this.fill, this.line, this.ink);
    this.caption = make("div", { class: "caption" });
    this.box = make("div", { class: "pane" }, this.world, this.names, this.caption);
    this.cursor = make("div", { class: "cursor", hidden: true });
    this.box.append(this.cursor);
    this.fingers = new Map();
    view.panes.push(this);
    new ResizeObserver(() => this.place()).observe(this.box);
    this.listen();
  }

  // The photo's size on the page, which its masks have too.
  open(width, height, source, alt) {
    [this.width, this.height] = [width, height];
    this.photo.src = source;
    this.photo.alt = alt;
    this.mask = null;
    this.hideHeat();
    for (const canvas of [this.fill, this.line, this.ink]) clear(canvas, this);
    this.names.replaceChildren();
    this.place();
  }

  show(mask, classes, colors, truth = null) {
    this.mask = mask;
    if (truth) drawErrors(mask, truth, this.fill, this.line);
    else drawMask(mask, colors, this.fill, this.line);
    const spots = truth ? [] : places(mask);
    this.names.replaceChildren(...spots.map(([number, x, y]) => {
      const name = make("span", { class: "name", color: colors[number] }, classes[number] ?? "");
      Object.assign(name, { u: x, v: y });
      return name;
    }));
    this.place();
  }

  hide() {
    this.mask = null;
    clear(this.fill, this);
    clear(this.line, this);
    this.names.replaceChildren();
  }

  showHeat(source) {
    this.heat.src = source;
    this.heat.hidden = false;
    this.box.classList.add("hot");
  }

  hideHeat() {
    this.heat.hidden = true;
    this.heat.removeAttribute("src");
    this.box.classList.remove("hot");
  }

  place() {
    const { clientWidth: w, clientHeight: h } = this.box;
    if (!w || !this.width) return;
    this.scale = Math.min((w - 2) / this.width, (h - 2) / this.height) * this.view.zoom;
    this.left = w / 2 - this.view.x * this.width * this.scale;
    this.top = h / 2 - this.view.y * this.height * this.scale;
    this.world.style.width = `${this.width}px`;
    this.world.style.height = `${this.height}px`;
    this.world.style.transform = `translate(${this.left}px, ${this.top}px) scale(${this.scale})`;
    this.world.classList.toggle("near", this.scale > 3);
    for (const name of this.names.children) {
      name.style.transform = `translate(${this.left + name.u * this.width * this.scale}px, ${this.top + name.v * this.height * this.scale}px) translate(-50%, -50%)`;
    }
  }

  // A pointer's place in pixels of the picture.
  at(event) {
    const box = this.box.getBoundingClientRect();
    return [(event.clientX - box.left - this.left) / this.scale, (event.clientY - box.top - this.top) / this.scale];
  }

  get paints() {
    return this.strokes !== null && this.strokes.brush !== null;
  }

  listen() {
    const box = this.box;
    box.addEventListener("wheel", event => {
      event.preventDefault();
      const [x, y] = this.at(event);
      this.view.scale(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0018)), x / this.width, y / this.height);
    }, { passive: false });
    box.addEventListener("pointerdown", event => {
      if (event.button > 1) return;
      box.setPointerCapture(event.pointerId);
      this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
      const moves = event.button === 1 || event.shiftKey || this.fingers.size > 1;
      if (moves) this.drop();
      else if (this.paints) this.press(event);
    });
    box.addEventListener("pointermove", event => {
      this.point(event);
      if (!this.fingers.has(event.pointerId)) return;
      if (this.points) for (const part of event.getCoalescedEvents?.() ?? [event]) this.paint(part);
      else this.drag(event);
      this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      box.addEventListener(name, event => {
        if (!this.fingers.delete(event.pointerId)) return;
        if (this.points && name === "pointerup") this.release();
        else this.drop();
      });
    }
    box.addEventListener("pointerleave", () => { this.cursor.hidden = true; });
    box.addEventListener("dblclick", event => {
      if (this.paints) return;
      const [x, y] = this.at(event);
      if (this.view.zoom > 1) this.view.reset();
      else this.view.scale(3, x / this.width, y / this.height);
    });
  }

  drag(event) {
    const before = this.fingers.get(event.pointerId);
    const [dx, dy] = [event.clientX - before[0], event.clientY - before[1]];
    if (this.fingers.size === 2) {
      const [other] = [...this.fingers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      const span = place => Math.hypot(place[0] - other[0], place[1] - other[1]) || 1;
      const [x, y] = this.at({ clientX: (event.clientX + other[0]) / 2, clientY: (event.clientY + other[1]) / 2 });
      this.view.scale(span([event.clientX, event.clientY]) / span(before), x / this.width, y / this.height);
    }
    const share = this.fingers.size === 2 ? 0.5 : 1;
    this.view.move(share * dx / (this.width * this.scale), share * dy / (this.height * this.scale));
  }

  // ---- strokes

  press(event) {
    this.pressed = performance.now();
    this.points = [];
    this.paint(event);
  }

  paint(event) {
    const [x, y] = this.at(event), last = this.points.at(-1);
    const radius = this.radius();
    if (last && Math.hypot(x - last[0], y - last[1]) < Math.max(0.5, radius / 4)) return;
    const pen = this.ink.getContext("2d");
    pen.strokeStyle = pen.fillStyle = this.strokes.color;
    pen.lineCap = pen.lineJoin = "round";
    pen.lineWidth = 2 * radius;
    pen.beginPath();
    pen.moveTo(...(last ?? [x, y]));
    pen.lineTo(x, y + (last ? 0 : 0.01));
    pen.stroke();
    this.points.push([x, y]);
  }

  release() {
    const points = this.points;
    this.points = null;
    if (points.length) this.strokes.done(points, this.radius(), this.pressed);
  }

  drop() {
    if (!this.points) return;
    this.points = null;
    this.dry();
  }

  // Clear the ink, unless the next stroke is being drawn.
  dry() {
    if (!this.points) clear(this.ink, this);
  }

  // Of the brush, in pixels of the picture: it looks the same at each zoom.
  radius() {
    return this.strokes.radius / this.scale;
  }

  point(event) {
    const shown = this.paints && event.pointerType !== "touch";
    this.cursor.hidden = !shown;
    this.box.classList.toggle("painting", this.paints);
    if (!shown) return;
    const box = this.box.getBoundingClientRect(), size = 2 * this.strokes.radius;
    this.cursor.style.cssText = `width:${size}px;height:${size}px;transform:translate(${event.clientX - box.left - size / 2}px,${event.clientY - box.top - size / 2}px)`;
    this.cursor.style.setProperty("--c", this.strokes.color);
  }
}
