// Requests to the server. Errors of the server become Errors with its sentence.

async function answer(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is `tag2mask view` still running?");
  }
  if (response.ok) return response;
  const text = await response.text();
  let message = text;
  try { message = JSON.parse(text).error; } catch { /* it is plain text */ }
  throw new Error(message || `The server answered ${response.status}.`);
}

export async function get(path) {
  return (await answer(path)).json();
}

export async function post(path, value) {
  return (await send(path, value)).json();
}

function send(path, value) {
  const headers = { "Content-Type": "application/json", "X-Tag2mask": "1" };
  return answer(path, { method: "POST", headers, body: JSON.stringify(value) });
}

// A mask: {width, height, data: a class number per pixel, iou: number or null}.
export async function getMask(path) {
  return read(await answer(path));
}

export async function postForMask(path, value) {
  return read(await send(path, value));
}

async function read(response) {
  const [width, height] = response.headers.get("X-Size").split(" ").map(Number);
  const iou = response.headers.get("X-IoU");
  const data = new Uint8Array(await response.arrayBuffer());
  return { width, height, data, iou: iou ? Number(iou) : null };
}
