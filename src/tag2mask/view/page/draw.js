// Masks to pixels: tint, outline, and what is wrong where there is a true mask.

const IGNORE = 255;
export const ERRORS = { missed: "#3d8bfd", extra: "#f0483e", confused: "#f5b400", right: "#35b56a" };

const rgb = color => [1, 3, 5].map(i => parseInt(color.slice(i, i + 2), 16));

// Draws a mask: its tint on `fill`, its outlines on `line`. The canvases get its size.
export function drawMask(mask, colors, fill, line) {
  const palette = new Uint32Array(256);
  for (let n = 1; n < colors.length; n++) palette[n] = pack(rgb(colors[n]));
  palette[IGNORE] = pack([235, 235, 240]);
  paint(mask, palette, fill);
  outline(mask, palette, line);
}

// Draws where two masks differ: missed, extra and confused pixels, and where both agree.
export function drawErrors(mask, truth, fill, line) {
  const kinds = new Uint8Array(mask.data.length);
  for (let i = 0; i < kinds.length; i++) {
    const a = mask.data[i], b = truth.data[i];
    if (b === IGNORE || (a === 0 && b === 0)) continue;
    kinds[i] = a === b ? 4 : a === 0 ? 1 : b === 0 ? 2 : 3;
  }
  const palette = new Uint32Array(256);
  Object.values(ERRORS).forEach((color, i) => { palette[i + 1] = pack(rgb(color)); });
  const shown = { width: mask.width, height: mask.height, data: kinds };
  paint(shown, palette, fill);
  clear(line, mask);
}

export function clear(canvas, { width, height }) {
  canvas.width = width;
  canvas.height = height;
}

const pack = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;

function paint(mask, palette, canvas) {
  clear(canvas, mask);
  const image = new ImageData(mask.width, mask.height);
  const out = new Uint32Array(image.data.buffer);
  for (let i = 0; i < out.length; i++) out[i] = palette[mask.data[i]];
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function outline(mask, palette, canvas) {
  clear(canvas, mask);
  const { width, height, data } = mask;
  const image = new ImageData(width, height);
  const out = new Uint32Array(image.data.buffer);
  const reach = Math.max(1, Math.round(Math.max(width, height) / 400));
  const white = Math.max(width, height) < 400 ? 0 : pack([255, 255, 255]); // too thick when enlarged
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const i = y * width + x, own = data[i];
      if (own === 0 || own === IGNORE) continue;
      const edge =
        data[y * width + Math.min(width - 1, x + reach)] !== own ||
        data[y * width + Math.max(0, x - reach)] !== own ||
        data[Math.min(height - 1, y + reach) * width + x] !== own ||
        data[Math.max(0, y - reach) * width + x] !== own;
      if (!edge) continue;
      out[i] = palette[own];
      if (!white) continue;
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        const u = x + dx, v = y + dy;
        if (u >= 0 && v >= 0 && u < width && v < height && data[v * width + u] === 0) out[v * width + u] = white;
      }
    }
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// Where the names of classes go: the middle of the widest run of pixels of each class.
export function places(mask) {
  const { width, height, data } = mask, best = new Map();
  for (let y = 0; y < height; y += 2) {
    let start = 0;
    for (let x = 1; x <= width; x++) {
      const own = data[y * width + start];
      if (x < width && data[y * width + x] === own) continue;
      if (own !== 0 && own !== IGNORE && x - start > (best.get(own)?.[2] ?? width / 40)) best.set(own, [(start + x) / 2, y, x - start]);
      start = x;
    }
  }
  return [...best].map(([number, [x, y]]) => [number, x / width, y / height]);
}
