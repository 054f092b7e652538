const figures = JSON.parse(document.getElementById("figures").textContent);
const by = (id) => document.getElementById(id);

const WORDS = {
  busy: ["ran jobs", ""],
  start: ["started", "jobs waited for workers that were not there yet; preload, warm_up() or fewer crashes shorten this"],
  queue: ["were handed jobs", "jobs were on their way to a worker that was free"],
  memory: ["waited for memory", "jobs waited until there was enough memory for them"],
  few_jobs: ["had too few jobs", "the program submitted more only later"],
  tail: ["waited for the last jobs", "no job was left to begin; submit the longest jobs first, or split them"],
  no_jobs: ["had no job", "the program did something else"],
  run: ["jobs that ran", ""],
  program: ["the program itself", "nothing was submitted that could run"],
};
const PATH_WORDS = {
  ...WORDS, start: ["workers that started", ""], queue: ["the way to a worker", ""], memory: ["memory", ""],
};

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function percent(part, whole) {
  const share = whole ? (100 * part) / whole : 0;
  if (share > 0 && share < 0.1) return "< 0.1 %";
  return `${share >= 10 || share === 0 ? share.toFixed(0) : share.toFixed(1)} %`;
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; bytes >= 1024 && unit < 4; unit++) bytes /= 1024;
  return `${+bytes.toPrecision(3)} ${units[unit]}`;
}

// Fills a table. A column is a title, or ["a title"] if its cells are numbers.
function fill(table, columns, rows) {
  const head = element("tr");
  for (const column of columns) {
    head.append(element("th", [].concat(column)[0], Array.isArray(column) ? "number" : ""));
  }
  const body = element("tbody");
  for (const cells of rows) {
    const row = element("tr");
    cells.forEach((cell, at) => {
      const made = element("td", undefined, Array.isArray(columns[at]) ? "number" : at ? "text" : "name");
      made.append(cell);
      row.append(made);
    });
    body.append(row);
  }
  const thead = element("thead");
  thead.append(head);
  table.replaceChildren(thead, body);
}

function swatch(colour, text) {
  const made = element("span");
  const box = element("span", undefined, "swatch");
  box.style.background = colour;
  made.append(box, text);
  return made;
}

function bar(box, parts, words) {
  const whole = Object.values(parts).reduce((a, b) => a + b, 0);
  box.replaceChildren();
  for (const [kind, us] of Object.entries(parts)) {
    if (!us) continue;
    const made = element("span");
    made.style.flexGrow = us;
    made.style.background = `var(--${kind})`;
    made.title = `${words[kind][0]}: ${percent(us, whole)}`;
    box.append(made);
  }
  box.setAttribute("aria-label",
    Object.entries(parts).map(([kind, us]) => `${words[kind][0]} ${percent(us, whole)}`).join(", "));
}

function showSummary() {
  const { outcomes } = figures;
  const programs = [...new Set(figures.clients.map((client) => client.program))];
  document.title = `${programs.join(", ")}: compilepool report`;
  by("subtitle").textContent =
    `${programs.slice(0, 4).join(", ")}${programs.length > 4 ? ", …" : ""}, ` +
    `from ${new Date(figures.began).toLocaleString()}`;
  const facts = [
    ["from first to last", seconds(figures.wall_us)],
    ["jobs", figures.jobs, outcomes.failed ? `${outcomes.failed} failed` : ""],
    ["workers", figures.workers],
    ["time in workers", seconds(figures.run_us), `CPU ${seconds(figures.cpu_s * 1e6)}`],
    ["at once on average", (figures.run_us / Math.max(1, figures.wall_us)).toFixed(2)],
    ["most memory of a job", size(figures.peak_bytes)],
  ];
  if (outcomes.cancelled) facts.push(["cancelled", outcomes.cancelled]);
  const shared = figures.joined + figures.reused;
  if (shared) facts.push(["got a shared result", shared, `of ${figures.runs.length} runs`]);
  for (const [title, value, more] of facts) {
    const box = element("div"), number = element("dd", `${value} `);
    if (more) number.append(element("small", more));
    box.append(element("dt", title), number);
    by("summary").append(box);
  }
  if (!figures.is_one_machine) {
    by("clock").hidden = false;
    by("clock").textContent = "The programs ran on several machines, or before and after a restart. " +
      "Their clocks are set to each other by the time of day, and may be apart by as much as that.";
  }
}

function showCapacity() {
  const { capacity } = figures;
  const whole = Object.values(capacity).reduce((a, b) => a + b, 0);
  by("efficiency").textContent = whole
    ? `${figures.workers} workers could have worked for ${seconds(whole)}. ` +
      `They ran jobs for ${percent(capacity.busy, whole)} of that.`
    : "No job ran.";
  bar(by("capacity-bar"), capacity, WORDS);
  fill(by("capacity"), ["The workers", ["share"], ["worker time"]],
    Object.entries(capacity).filter(([, us]) => us).map(([kind, us]) => {
      const cell = swatch(`var(--${kind})`, WORDS[kind][0]);
      if (WORDS[kind][1]) cell.append(element("small", WORDS[kind][1]));
      return [cell, percent(us, whole), seconds(us)];
    }));
}

function showPath() {
  const parts = figures.path_us;
  const whole = Object.values(parts).reduce((a, b) => a + b, 0);
  const steps = figures.path.filter((step) => step[0] === 0).length;
  by("path-text").textContent = whole
    ? `Going back from the end of the last job, each wait has a reason. This chain of ${steps} jobs ` +
      `took ${seconds(whole)}: to be done sooner, make it shorter.`
    : "No job ran.";
  bar(by("path-bar"), parts, PATH_WORDS);
  fill(by("path"), ["On the critical path", ["share"], ["time"]],
    Object.entries(parts).filter(([, us]) => us).map(([kind, us]) => [
      swatch(`var(--${kind})`, PATH_WORDS[kind][0]), percent(us, whole), seconds(us)]));
  fill(by("waited-for"), ["Jobs on it", ["runs"], ["share"], ["time"]],
    figures.waited_for.map(({ name, us, runs }) => [name, runs, percent(us, whole), seconds(us)]));
}

function describe(run) {
  const row = figures.rows[run[ROW]], client = figures.clients[run[CLIENT]];
  const facts = [
    ["job", figures.names[run[NAME]]],
    ["outcome", run[OUTCOME]],
    ["ran", `${seconds(run[ENDED] - run[STARTED])}, from ${seconds(run[STARTED])}`],
    ["waited", seconds(run[STARTED] - run[QUEUED])],
    ["CPU, memory", `${seconds(run[CPU] * 1e6)}, ${size(run[PEAK])}`],
    ["worker", row.worker],
    ["program", `${client.program}, PID ${client.pid}`],
  ];
  if (run[JOBS] > 1) facts.push(["shared by", `${run[JOBS]} jobs`]);
  if (run[PHASES].length) facts.push(["phases", phasesOf(run)]);
  return facts;
}

function phasesOf(run) {
  const phases = run[PHASES], lengths = new Map();
  for (let index = 0; index < phases.length; index += 2) {
    const until = index + 3 < phases.length ? phases[index + 3] : run[ENDED];
    const [length, count] = lengths.get(phases[index]) || [0, 0];
    lengths.set(phases[index], [length + until - phases[index + 1], count + 1]);
  }
  return [...lengths].map(([phase, [length, count]]) =>
    `${figures.phases[phase]} ${seconds(length)}${count > 1 ? ` (${count} times)` : ""}`).join(", ");
}

function choose(at) {
  const box = by("chosen");
  box.hidden = at === null;
  box.replaceChildren();
  for (const [title, text] of at === null ? [] : describe(figures.runs[at])) {
    box.append(element("dt", title), element("dd", text));
  }
}

function showLegend() {
  const box = by("legend"), most = 12;
  box.replaceChildren();
  if (timeline.colourBy === "outcome") {
    box.append(swatch("var(--good)", "done"), swatch("var(--bad)", "failed"), swatch("var(--gone)", "cancelled"));
  } else if (timeline.colourBy === "phase") {
    figures.phases.slice(0, most).forEach((name, at) => box.append(swatch(timeline.phaseColours[at], name)));
  } else if (figures.names.length <= most) {
    figures.names.forEach((name, at) => box.append(swatch(timeline.nameColours[at], name)));
  }
  if (timeline.showPath) box.append(swatch("var(--accent)", "critical path"));
  if (timeline.queue.most) box.append(swatch("var(--queue)", "jobs waiting"));
}

function showTables() {
  const length = (run) => run[ENDED] - run[STARTED];
  fill(by("slowest"), ["Job", ["time"], ["CPU"], ["memory"], ["waited"], "phases"],
    figures.slowest.map((at) => figures.runs[at]).map((run) => [
      figures.names[run[NAME]], seconds(length(run)), seconds(run[CPU] * 1e6), size(run[PEAK]),
      seconds(run[STARTED] - run[QUEUED]), phasesOf(run)]));
  const phases = Object.entries(figures.phases_us);
  by("phases-section").hidden = !phases.length;
  fill(by("phases"), ["Phase", ["share of the time in workers"], ["time"]],
    phases.map(([name, us]) => [name, percent(us, figures.run_us), seconds(us)]));
  by("programs-section").hidden = figures.clients.length < 2;
  fill(by("programs"), ["Program", ["PID"], ["jobs"], ["pool"]],
    figures.clients.map((client) => [client.program, client.pid, client.jobs, client.pool + 1]));
}

function showFailures() {
  const { count, by_type: types, first } = figures.failures;
  by("failures-section").hidden = !count;
  by("failures-text").textContent = types.map(([type, number]) => `${number} ${type}`).join(", ") +
    (count > first.length ? `; the first ${first.length} follow` : "");
  for (const failure of first) {
    const box = element("details"), title = element("summary");
    title.append(element("b", failure.name), ` at ${seconds(failure.at)}: ${failure.error}`);
    box.append(title, element("pre", failure.text));
    by("failures").append(box);
  }
}

const timeline = new Timeline(by("timeline"), figures, choose);
showSummary();
showCapacity();
showPath();
showTables();
showFailures();
showLegend();
by("colour").addEventListener("change", (event) => {
  timeline.colourBy = event.target.value;
  timeline.redraw();
  showLegend();
});
by("show-path").addEventListener("change", (event) => {
  timeline.showPath = event.target.checked;
  timeline.redraw();
  showLegend();
});
by("zoom-in").addEventListener("click", () => timeline.zoom(0.6));
by("zoom-out").addEventListener("click", () => timeline.zoom(1 / 0.6));
by("zoom-all").addEventListener("click", () => timeline.zoomOut());
addEventListener("beforeprint", () => {
  for (const box of document.querySelectorAll("details")) box.open = true;
});
