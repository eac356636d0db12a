// The run: stages, how far they are, and the losses of both trainings.

import { $, make, percent, plural, svg } from "./dom.js";

const WORDS = { done: "done", running: "running", stopped: "stopped", waiting: "not yet" };
const TITLES = {
  check: "Check of the data", clusters: "Clusters of tags", classifier: "Patch classifier",
  masks: "Pseudo masks", segmenter: "Segmenter", evaluate: "Evaluation", report: "Report page",
};

export function duration(seconds) {
  const total = Math.round(seconds);
  if (total < 60) return `${total} s`;
  if (total < 3600) return `${Math.floor(total / 60)} min`;
  return `${Math.floor(total / 3600)} h ${Math.floor((total % 3600) / 60)} min`;
}

// One short line for the head of the page.
export function summary(run) {
  const now = run.stages.find(stage => stage.state === "running");
  if (now) return `${TITLES[now.name]}${now.share == null ? "" : ` ${percent(now.share)}`}`;
  if (run.stages.some(stage => stage.state === "stopped")) return "Stopped";
  if (run.command) return "Corrections to learn";
  return run.stages.every(stage => stage.state === "done" || stage.name === "report") ? "Finished" : "Not finished";
}

export function showRun(run) {
  const rows = run.stages.map(stage => make("tr", { class: stage.state },
    make("th", {}, TITLES[stage.name]),
    make("td", {}, stage.state === "done" && stage.seconds != null ? duration(stage.seconds) : WORDS[stage.state]),
    make("td", {}, stage.share == null ? "" : make("progress", { max: 1, value: stage.share, "aria-label": TITLES[stage.name] }), stage.share == null ? "" : ` ${percent(stage.share)}`),
  ));
  const { looked, predicted, of } = run.facts;
  const work = [];
  if (looked < of) work.push(`Numbers of ${looked.toLocaleString("en")} of ${plural(of, "photo")} are computed.`);
  if (run.segmenter && predicted < of) work.push(`The segmenter has looked at ${predicted.toLocaleString("en")} of them; this goes on while the page is open.`);
  const stopped = run.stages.find(stage => stage.state === "stopped");
  if (stopped) work.push(`${TITLES[stopped.name]} is not finished, and nothing works on it now. To resume: tag2mask run --out ${run.folder}`);
  $("stages").replaceChildren(
    make("p", { class: "soft" }, make("code", {}, run.folder)),
    run.fault ? make("p", { class: "fault" }, run.fault) : "",
    make("table", {}, ...rows),
    run.corrected ? make("p", { class: "said" }, `You corrected ${plural(run.corrected, "photo")}. `,
      ...(run.command ? ["To learn from your corrections: ", make("code", { class: "command" }, run.command)] : ["The run has learned from your corrections."])) : "",
    ...work.map(text => make("p", { class: "soft" }, text)),
    ...Object.entries(run.curves).map(([name, chart]) => curve(name, chart)),
  );
}

function curve(name, chart) {
  const title = make("h3", {}, `Loss of the ${name === "classifier" ? "patch classifier" : "segmenter"}`);
  if (!chart) return make("section", { class: name }, title, make("p", { class: "soft" }, "Not trained yet."));
  const { width, height } = chart;
  const lines = [...chart.lines].reverse();
  const drawing = svg("svg", { viewBox: `-42 -8 ${width + 52} ${height + 34}`, role: "img", "aria-label": `Loss over ${chart.steps} steps` },
    ...chart.y_ticks.flatMap(([y, text]) => [
      svg("line", { class: "rule", x1: 0, x2: width, y1: y, y2: y }),
      svg("text", { x: -8, y: y + 4, "text-anchor": "end" }, text)]),
    ...chart.x_ticks.map(([x, text]) => svg("text", { x, y: height + 18, "text-anchor": "middle" }, text)),
    ...lines.flatMap((line, i) => [
      ...(i === lines.length - 1 ? [svg("path", { class: "curve raw", d: line.raw })] : []),
      svg("path", { class: `curve n${lines.length - 1 - i}`, d: line.smooth })]));
  const last = chart.lines.map(line => `${line.name} ${line.last.toPrecision(3)}`).join(", ");
  return make("section", { class: name }, title, drawing, make("p", { class: "soft" }, `${plural(chart.steps, "step")}; now ${last}`));
}
