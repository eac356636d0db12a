// The page: all photos, filtered and in order; one of them large; what the run does meanwhile.

import { get } from "./api.js";
import { $, make, note, plural } from "./dom.js";
import { Grid } from "./grid.js";
import { showKeys } from "./keys.js";
import { Large } from "./photo.js";
import { showRun, summary } from "./run.js";

const ORDERS = [
  ["", "As listed", photo => 0],
  ["doubt", "Most doubtful first", photo => known(-photo.doubt)],
  ["agree", "The two networks disagree", photo => known(-photo.facts.agree)],
  ["entropy", "Unsure scores first", photo => known(-photo.facts.entropy)],
  ["crf", "Most changed by the CRF", photo => known(-photo.facts.crf)],
  ["small", "Smallest objects first", photo => known(photo.size || undefined)],
  ["large", "Largest objects first", photo => known(-photo.size)],
  ["worst", "Lowest IoU first", photo => known(photo.facts.iou ?? undefined)],
  ["best", "Highest IoU first", photo => known(-(photo.facts.iou ?? undefined))],
];
const known = number => Number.isFinite(number) ? number : Infinity;

// Photos by all their tags, and by all that is in their masks: a text, and which photos it means.
const BY_TAGS = [
  ["something", photo => photo.tags.length > 0],
  ["nothing", photo => !photo.tags.length && !photo.unknown.length],
  ["not sure", photo => photo.unknown.length > 0],
];
const BY_MASK = [
  ["something", photo => photo.found?.length > 0],
  ["nothing", photo => photo.found?.length === 0],
];
const keyOf = text => `;${text}`; // the tag "nothing" has another key

const state = { run: null, photos: [], byId: new Map(), shown: [], next: 0, waiting: false };
const choice = { tag: "", found: "", split: "", order: "", search: "" };
const grid = new Grid(id => open(id));
const large = new Large({
  close: () => open(null),
  step: by => step(by),
  changed: (id, change) => { Object.assign(state.byId.get(id), change); grid.renew(state.byId.get(id)); refill(); },
});

// ---- what the server has

async function load() {
  const [run, list] = await Promise.all([get("/api/run"), get("/api/photos")]);
  state.run = run;
  state.version = list.version;
  state.photos = list.rows.map(([id, split, name, tags, unknown, ratio, time, mask, mark, says], i) =>
    ({ id, split, name, tags, unknown, ratio, time, mask, mark, says, place: i, facts: {}, size: undefined, doubt: undefined }));
  state.byId = new Map(state.photos.map(photo => [photo.id, photo]));
  state.next = 0;
  grid.classes = run.classes;
  grid.colors = run.colors;
  large.use(run);
  $("name").textContent = run.name;
  document.title = `${run.name} · tag2mask`;
  refill();
  head();
  await facts();
}

async function facts() {
  const news = await get(`/api/facts?since=${state.next}`);
  state.next = news.next;
  for (const [id, values] of Object.entries(news.facts)) {
    const photo = state.byId.get(id);
    if (!photo) continue;
    photo.facts = values;
    const shares = Object.entries(values.shares ?? {});
    photo.size = values.shares ? shares.reduce((sum, [, share]) => sum + share, 0) : undefined;
    photo.found = shares.map(([number]) => Number(number));
    if (values.mask && values.mask !== photo.mask) {
      photo.mask = values.mask;
      grid.renew(photo);
    }
  }
  for (const [id, doubt] of Object.entries(news.doubts)) {
    const photo = state.byId.get(id);
    if (photo) photo.doubt = doubt;
  }
  if (!Object.keys(news.facts).length) return;
  refill();
  if (choice.order || choice.found) {
    if ($("grid").scrollTop < 10 && !large.id) filter(true);
    else $("again").hidden = false;
  }
}

async function poll() {
  if (document.visibilityState === "visible") {
    try {
      const run = await get("/api/run");
      if (run.version !== state.version) await load().then(() => filter(true));
      else { state.run = run; head(); await facts(); }
    } catch (error) {
      note(error.message);
    }
  }
  const { looked, of, predicted } = state.run?.facts ?? { looked: 0, of: 1, predicted: 0 };
  const busy = looked < of || predicted < of || state.run?.stages.some(stage => stage.state === "running");
  setTimeout(poll, busy ? 2000 : 6000);
}

function head() {
  const text = summary(state.run);
  $("run").textContent = text;
  $("run").className = `quiet ${text.toLowerCase().replace(/\W+/g, "-")}`;
  if ($("about").open) showRun(state.run);
}

// ---- filters and order

function options(select, rows, value) {
  const same = select.dataset.rows === JSON.stringify(rows);
  if (!same) {
    select.replaceChildren(...rows.map(([key, text]) => make("option", { value: key }, text)));
    select.dataset.rows = JSON.stringify(rows);
  }
  select.value = rows.some(([key]) => key === value) ? value : "";
  select.closest("label").classList.toggle("set", Boolean(select.value));
}

// The rows of a list: all photos, the kinds, then the classes from the most frequent on. What is
// chosen stays in the list when no photo is left.
function rowsOf(kinds, numbers, chosen) {
  const { run: { classes }, photos } = state, counts = new Array(classes.length).fill(0);
  for (const photo of photos) for (const number of numbers(photo)) if (number < counts.length) counts[number]++;
  const some = kinds.map(([text, belongs]) => [keyOf(text), text, photos.filter(belongs).length]);
  const each = classes.map((name, n) => [name, name, counts[n]]).slice(1).sort((a, b) => b[2] - a[2]);
  const rows = [...some, ...each].filter(([key, , count]) => count || key === chosen);
  return [["", "all"], ...rows.map(([key, text, count]) => [key, `${text} (${count.toLocaleString("en")})`])];
}

// Whether a photo is of the kind or class that is chosen.
function chosenBy(kinds, numbers, chosen) {
  const kind = kinds.find(([text]) => keyOf(text) === chosen), number = state.run.classes.indexOf(chosen);
  return !chosen ? () => true : kind ? kind[1] : photo => numbers(photo).includes(number);
}

const tagsOf = photo => photo.tags;
const foundIn = photo => photo.found ?? [];

function refill() {
  const marks = { tags: 0, right: 0, wrong: 0, mended: 0 };
  for (const photo of state.photos) if (photo.mark) marks[photo.mark]++;
  options($("tag"), rowsOf(BY_TAGS, tagsOf, choice.tag), choice.tag);
  options($("found"), rowsOf(BY_MASK, foundIn, choice.found), choice.found);
  const { train, val } = state.run.photos, corrected = Object.values(marks).reduce((a, b) => a + b, 0);
  options($("split"), [["", `all (${(train + val).toLocaleString("en")})`], ["train", `training (${train})`],
    ...(val ? [["val", `validation (${val})`]] : []), ...(corrected ? [["corrected", `corrected (${corrected})`]] : []),
    ...(corrected ? [["rest", `not corrected (${train + val - corrected})`]] : [])], choice.split);
  options($("order"), ORDERS.filter(([key]) => state.run.truth || !["worst", "best"].includes(key)), choice.order);
}

function filter(keep = false) {
  const words = choice.search.toLowerCase();
  const tagged = chosenBy(BY_TAGS, tagsOf, choice.tag), found = chosenBy(BY_MASK, foundIn, choice.found);
  const wanted = photo => tagged(photo) && found(photo)
    && (!choice.split || (choice.split === "corrected" ? photo.mark : choice.split === "rest" ? !photo.mark : photo.split === choice.split))
    && (!words || photo.name.toLowerCase().includes(words));
  const value = (ORDERS.find(([key]) => key === choice.order) ?? ORDERS[0])[2];
  const keyed = state.photos.filter(wanted).map(photo => [value(photo), photo]);
  keyed.sort(([a, p], [b, q]) => (a === b ? p.place - q.place : a - b));
  state.shown = keyed.map(([, photo]) => photo);
  $("again").hidden = true;
  $("count").textContent = state.shown.length === state.photos.length ? plural(state.shown.length, "photo") : `${state.shown.length.toLocaleString("en")} of ${plural(state.photos.length, "photo")}`;
  grid.show(state.shown, keep);
  empty();
}

function empty() {
  const box = $("empty");
  box.hidden = state.shown.length > 0;
  if (state.shown.length) return;
  const work = choice.found && state.run.facts.looked < state.run.facts.of;
  box.replaceChildren(
    make("h2", {}, state.photos.length ? "No photo matches" : "This run has no photos"),
    make("p", {}, work ? "The masks are still being read. Wait a moment, or show all photos." : "Choose another tag, class or name, or show all photos."),
    make("button", { onclick: () => choose({ tag: "", found: "", split: "", search: "" }) }, "Show all photos"));
}

export function choose(change) {
  Object.assign(choice, change);
  $("search").value = choice.search;
  refill();
  filter();
  address();
}

// ---- one photo, and the address: a reload finds it again

function address() {
  const parts = new URLSearchParams();
  for (const [key, value] of Object.entries(choice)) if (value) parts.set(key, value);
  if (large.id) parts.set("photo", large.id);
  const text = parts.toString();
  if (location.hash.slice(1) !== text) history.replaceState(null, "", `${location.pathname}#${text}`);
}

function open(id) {
  const i = state.shown.findIndex(photo => photo.id === id);
  if (i >= 0) grid.choose(i);
  const photo = id && state.byId.get(id);
  $("home").classList.toggle("away", Boolean(photo));
  if (photo) large.show(photo, i < 0 ? "" : `${(i + 1).toLocaleString("en")} of ${state.shown.length.toLocaleString("en")}`);
  else { large.hide(); grid.layout(); grid.choose(grid.current); }
  const near = i < 0 ? [] : [state.shown[i + 1], state.shown[i - 1]].filter(Boolean);
  for (const other of photo ? near : []) new Image().src = `/api/photos/${other.id}/picture?t=${other.time}`;
  address();
}

function step(by) {
  const i = state.shown.findIndex(photo => photo.id === large.id);
  const next = state.shown[i + by];
  if (next) open(next.id);
  else note(by > 0 ? "This is the last photo." : "This is the first photo.");
}

function masks() {
  const on = !grid.masks;
  grid.setMasks(on);
  $("masks").setAttribute("aria-checked", on);
}

// ---- keys and buttons

const dialogs = () => document.querySelector("dialog[open]");

function onKey(event) {
  if (event.altKey || event.metaKey && event.key !== "z" && event.key !== "Z") return;
  if (event.key === "Escape" && event.target.matches?.("input[type=search]")) event.target.blur();
  if (dialogs()) return;
  if (event.target.matches?.("input:not([type=range]), textarea")) return;
  if (event.key === "?") { showKeys(); event.preventDefault(); return; }
  if (large.id) { large.onKey(event); return; }
  if (event.ctrlKey || event.target.matches?.("select")) return;
  const actions = {
    ArrowRight: () => grid.choose(grid.current + 1), ArrowLeft: () => grid.choose(grid.current - 1),
    ArrowDown: () => grid.below(1), ArrowUp: () => grid.below(-1),
    PageDown: () => grid.page(1), PageUp: () => grid.page(-1), " ": () => grid.page(event.shiftKey ? -1 : 1),
    Home: () => grid.choose(0), End: () => grid.choose(state.shown.length - 1),
    Enter: () => state.shown.length && open(state.shown[grid.current].id),
    m: masks, "+": () => grid.resize(1), "=": () => grid.resize(1), "-": () => grid.resize(-1),
    "/": () => $("search").focus(), t: () => $("tag").focus(), f: () => $("found").focus(),
    p: () => $("split").focus(), o: () => $("order").focus(), i: about,
    d: () => choose({ order: choice.order === "doubt" ? "" : "doubt" }),
    Escape: () => choose({ tag: "", found: "", split: "", search: "" }),
  };
  const focused = event.target.matches?.("button:not(.cell)") && ["Enter", " "].includes(event.key);
  if (!actions[event.key] || !state.run || focused) return;
  event.preventDefault();
  actions[event.key]();
}

function about() {
  showRun(state.run);
  $("about").showModal();
}

function start() {
  if (new URLSearchParams(location.search).has("token")) history.replaceState(null, "", location.pathname + location.hash);
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const key of Object.keys(choice)) choice[key] = asked.get(key) ?? "";
  $("search").value = choice.search;
  for (const key of ["tag", "found", "split", "order"]) {
    $(key).addEventListener("change", event => { choose({ [key]: event.target.value }); event.target.blur(); });
  }
  $("search").addEventListener("input", event => choose({ search: event.target.value }));
  $("search").addEventListener("keydown", event => { if (event.key === "Enter") event.target.blur(); });
  $("again").addEventListener("click", () => filter(true));
  $("masks").addEventListener("click", masks);
  $("smaller").addEventListener("click", () => grid.resize(-1));
  $("larger").addEventListener("click", () => grid.resize(1));
  $("run").addEventListener("click", about);
  for (const button of document.querySelectorAll(".help")) button.addEventListener("click", showKeys);
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", () => location.reload());
  load().then(() => {
    filter();
    refill();
    if (state.byId.has(asked.get("photo"))) open(asked.get("photo"));
    document.body.classList.add("ready");
    setTimeout(poll, 1000);
  }).catch(error => {
    $("empty").hidden = false;
    $("empty").replaceChildren(make("h2", {}, "The run cannot be shown"), make("p", {}, error.message), make("button", { onclick: () => location.reload() }, "Try again"));
  });
}

start();
