// The list of keys.

import { $, make } from "./dom.js";

const KEYS = {
  "All photos": [
    ["← → ↑ ↓", "go to another photo"], ["Enter", "open it"], ["Page ↑ ↓, Space", "scroll"],
    ["d", "most doubtful first"], ["t", "choose a tag"], ["f", "choose a class found"],
    ["p", "choose which photos"], ["o", "choose the order"], ["/", "search by name"], ["Esc", "show all photos"],
    ["m", "masks on or off"], ["+ −", "larger or smaller pictures"], ["i", "stages and losses of the run"],
  ],
  "One photo": [
    ["← →", "previous, next photo"], ["Esc", "stop painting; back to all photos"],
    ["1 … 7", "another mask: as numbered"], ["b", "before or after the CRF"], ["c", "two masks side by side"],
    ["m", "mask on or off"], ["o", "outlines on or off"], ["[ ]", "mask paler, stronger"],
    ["h", "score map of the next tag"], [", .", "background threshold lower, higher"],
    ["+ − 0", "zoom in, out, whole photo"], ["Shift + drag", "move while you paint"],
  ],
  Corrections: [
    ["p", "paint the next tag"], ["x", "paint background"], ["{ }", "smaller, larger brush"],
    ["r", "this mask is right"], ["w", "this mask is wrong"], ["t", "add a tag"],
    ["z", "undo"], ["y", "redo"],
  ],
};

export function showKeys() {
  $("keylist").replaceChildren(...Object.entries(KEYS).map(([title, rows]) => make("section", {},
    make("h3", {}, title),
    make("dl", {}, ...rows.flatMap(([key, text]) => [make("dt", {}, ...key.split(" ").flatMap(part =>
      part.length > 1 && /^[+…,]/.test(part) ? [part, " "] : [make("kbd", {}, part), " "])), make("dd", {}, text)])))));
  if (!$("keys").open) $("keys").showModal();
}
