// A mask of photo.jpg by a network that `tag2mask export runs/mine --out model.onnx` wrote, without tag2mask.
// npm install onnxruntime-node jpeg-js; node mask.mjs
import fs from "node:fs";
import ort from "onnxruntime-node";
import jpeg from "jpeg-js";

const SIZE = 385, MEAN = [0.5, 0.5, 0.5]; // `size` and `mean` of the file's metadata
const photo = jpeg.decode(fs.readFileSync("photo.jpg"), { useTArray: true });
const scale = Math.min(1, SIZE / Math.max(photo.width, photo.height));
const w = Math.round(photo.width * scale), h = Math.round(photo.height * scale);
const image = new Float32Array(3 * SIZE * SIZE);
for (let c = 0; c < 3; c++) image.fill(MEAN[c], c * SIZE * SIZE, (c + 1) * SIZE * SIZE);
for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
  const from = (Math.floor(y / scale) * photo.width + Math.floor(x / scale)) * 4;
  for (let c = 0; c < 3; c++) image[c * SIZE * SIZE + y * SIZE + x] = photo.data[from + c] / 255;
}
const network = await ort.InferenceSession.create("model.onnx");
const input = new ort.Tensor("float32", image, [1, 3, SIZE, SIZE]);
const { probabilities } = await network.run({ image: input });
const [, classes] = probabilities.dims, mask = new Uint8Array(w * h); // class numbers, 0 is background
for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
  const probability = (c) => probabilities.data[(c * SIZE + y) * SIZE + x];
  let best = 0;
  for (let c = 1; c < classes; c++) if (probability(c) > probability(best)) best = c;
  mask[y * w + x] = best;
}
console.log(mask.filter((number) => number > 0).length, "pixels are not background");
