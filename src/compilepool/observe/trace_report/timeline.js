"use strict";

// The indices of what a run is an array of.
const ROW = 0, NAME = 1, QUEUED = 2, STARTED = 3, ENDED = 4, OUTCOME = 5, CLIENT = 6, CPU = 7,
  PEAK = 8, JOBS = 9, PHASES = 10;

function seconds(us) {
  const s = us / 1e6;
  if (s === 0) return "0 s";
  if (s < 0.001) return `${us.toFixed(0)} µs`;
  if (s < 1) return `${+(s * 1000).toPrecision(3)} ms`;
  return s < 1000 ? `${+s.toPrecision(3)} s` : `${Math.round(s)} s`;
}

// Draws the runs of each worker, the critical path, and how many jobs wait. All of it is drawn anew
// whenever something changes, at most once a frame. Runs that fall on one pixel are drawn once.
class Timeline {
  constructor(canvas, figures, onChoose) {
    this.canvas = canvas;
    this.figures = figures;
    this.onChoose = onChoose;
    this.colourBy = "name";
    this.showPath = true;
    this.chosen = null;
    this.begin = 0;
    this.end = this.wall = Math.max(1, figures.wall_us);
    this.byRow = figures.rows.map(() => []);
    figures.runs.forEach((run, at) => this.byRow[run[ROW]].push(at));
    for (const row of this.byRow) {
      row.sort((a, b) => figures.runs[a][STARTED] - figures.runs[b][STARTED]);
    }
    this.onPath = new Set(figures.path.filter((step) => step[0] === 0).map((step) => step[3]));
    this.queue = queueOf(figures.runs);
    this.pointers = new Map();
    this.isDue = false;
    this.drawMs = [];
    this.listen();
    this.resize();
  }

  listen() {
    const canvas = this.canvas;
    new ResizeObserver(() => this.resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.restyle());
    matchMedia("print").addEventListener("change", () => this.restyle());
    addEventListener("beforeprint", () => { this.resize(); this.draw(); });
    canvas.addEventListener("wheel", (event) => {
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        this.zoom(Math.exp(event.deltaY * 0.004), event.offsetX);
      } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        event.preventDefault();
        this.move((event.deltaX || event.deltaY) / this.scale());
      }
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, event.offsetX);
      this.travel = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = this.pointers.get(event.pointerId);
      if (before === undefined) return;
      this.travel += Math.abs(event.offsetX - before);
      if (this.pointers.size === 2) {
        const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
        const old = Math.abs(before - other), now = Math.abs(event.offsetX - other);
        if (old > 4 && now > 4) this.zoom(old / now, (event.offsetX + other) / 2);
      } else {
        this.move((before - event.offsetX) / this.scale());
      }
      this.pointers.set(event.pointerId, event.offsetX);
    });
    const release = (event) => {
      const isClick = this.pointers.delete(event.pointerId) && this.travel < 4;
      if (isClick && event.type === "pointerup") this.choose(event.offsetX, event.offsetY);
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("keydown", (event) => {
      const step = (this.end - this.begin) / 8;
      const act = {
        ArrowLeft: () => this.move(-step), ArrowRight: () => this.move(step),
        "+": () => this.zoom(0.7), "-": () => this.zoom(1 / 0.7), 0: () => this.zoomOut(),
      }[event.key];
      if (act) { event.preventDefault(); act(); }
    });
  }

  // The part that is shown

  scale() { return (this.width - this.gutter) / (this.end - this.begin); }

  x(us) { return this.gutter + (us - this.begin) * this.scale(); }

  show(begin, end) {
    const length = Math.min(this.wall, Math.max(20, end - begin));
    this.begin = Math.max(0, Math.min(begin, this.wall - length));
    this.end = this.begin + length;
    this.redraw();
  }

  move(us) { this.show(this.begin + us, this.end + us); }

  zoom(factor, x = (this.width + this.gutter) / 2) {
    const at = this.begin + (x - this.gutter) / this.scale();
    const length = Math.min(this.wall, Math.max(20, (this.end - this.begin) * factor));
    const left = (at - this.begin) / (this.end - this.begin);
    this.show(at - length * left, at + length * (1 - left));
  }

  zoomOut() { this.show(0, this.wall); }

  choose(x, y) {
    const row = Math.floor((y - this.top) / this.rowHeight);
    const runs = this.figures.runs;
    const near = 3 / this.scale(), at = this.begin + (x - this.gutter) / this.scale();
    const found = (this.byRow[row] || []).filter(
      (run) => runs[run][STARTED] - near <= at && at <= runs[run][ENDED] + near);
    const distance = (run) => Math.max(runs[run][STARTED] - at, at - runs[run][ENDED]);
    this.chosen = found.length ? found.reduce((a, b) => (distance(b) < distance(a) ? b : a)) : null;
    this.onChoose(this.chosen);
    this.redraw();
  }

  // Drawing

  resize() {
    const rows = Math.max(1, this.byRow.length);
    this.width = this.canvas.clientWidth || 300;
    this.gutter = this.width < 520 ? 46 : 92;
    this.rowHeight = Math.max(5, Math.min(22, Math.floor(640 / rows)));
    this.top = 20;
    this.queueTop = this.top + rows * this.rowHeight + 18;
    this.queueHeight = 36;
    const height = this.queueTop + this.queueHeight + 4;
    const pixels = Math.max(1, devicePixelRatio || 1);
    this.canvas.style.height = `${height}px`;
    this.canvas.width = Math.round(this.width * pixels);
    this.canvas.height = Math.round(height * pixels);
    this.context = this.canvas.getContext("2d");
    this.context.setTransform(pixels, 0, 0, pixels, 0, 0);
    this.height = height;
    this.restyle();
  }

  restyle() {
    const style = getComputedStyle(document.documentElement), read = new Map();
    this.style = (name) => {
      if (!read.has(name)) read.set(name, style.getPropertyValue(`--${name}`).trim());
      return read.get(name);
    };
    const hues = (list) => list.map((_, at) => this.hue(at, list.length));
    this.nameColours = hues(this.figures.names);
    this.phaseColours = hues(this.figures.phases);
    this.redraw();
  }

  hue(number, count) {
    const hue = count > 12 ? (number * 137.508) % 360 : (number * 360) / Math.max(1, count) + 210;
    return `hsl(${hue % 360} 52% ${this.style("lightness")})`;
  }

  colourOf(run) {
    if (this.colourBy === "outcome") {
      return this.style({ done: "good", failed: "bad", cancelled: "gone" }[run[OUTCOME]]);
    }
    if (this.colourBy === "phase" && run[PHASES].length) return this.phaseColours[longestPhase(run)];
    return this.nameColours[run[NAME]];
  }

  redraw() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => { if (this.isDue) this.draw(); });
  }

  draw() {
    const began = performance.now();
    this.isDue = false;
    const context = this.context;
    context.fillStyle = this.style("page");
    context.fillRect(0, 0, this.width, this.height);
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    this.drawAxis();
    context.save();
    context.beginPath();
    context.rect(this.gutter, 0, this.width - this.gutter, this.height);
    context.clip();
    this.byRow.forEach((row, number) => this.drawRow(row, number));
    if (this.showPath) this.drawPath();
    this.drawQueue();
    context.restore();
    this.drawLabels();
    this.drawMs.push(performance.now() - began);
  }

  drawAxis() {
    const context = this.context, length = this.end - this.begin;
    const about = (length * 90) / Math.max(1, this.width - this.gutter);
    const power = 10 ** Math.floor(Math.log10(about));
    const step = power * [1, 2, 5, 10].find((each) => each * power >= about);
    context.textAlign = "left";
    for (let at = Math.ceil(this.begin / step) * step; at <= this.end; at += step) {
      const x = Math.round(this.x(at)) + 0.5;
      context.fillStyle = this.style("line");
      context.fillRect(x, 14, 1, this.height - 14);
      context.fillStyle = this.style("dim");
      if (x < this.width - 34) context.fillText(seconds(at), x + 3, 9);
    }
  }

  drawRow(row, number) {
    const { runs } = this.figures, context = this.context;
    const y = this.top + number * this.rowHeight;
    const height = this.rowHeight - (this.rowHeight > 8 ? 2 : 1);
    let low = 0, high = row.length; // the first run that ends within what is shown
    while (low < high) {
      const middle = (low + high) >> 1;
      if (runs[row[middle]][ENDED] < this.begin) low = middle + 1; else high = middle;
    }
    let drawnTo = -1;
    for (let index = low; index < row.length; index++) {
      const run = runs[row[index]];
      if (run[STARTED] > this.end) break;
      const x = this.x(run[STARTED]), right = Math.max(x + 0.75, this.x(run[ENDED]) - 0.5);
      const isMarked = run[OUTCOME] === "failed" || row[index] === this.chosen;
      if (right < drawnTo + 0.5 && !isMarked) continue;
      drawnTo = right;
      context.fillStyle = this.colourOf(run);
      context.fillRect(x, y, right - x, height);
      if (this.colourBy === "phase" && right - x > 4) this.drawPhases(run, y, height);
      if (run[OUTCOME] === "failed" && this.colourBy !== "outcome") {
        context.fillStyle = this.style("bad");
        context.fillRect(x, y + height - 3, Math.max(2, right - x), 3);
      }
      if (row[index] === this.chosen) {
        context.strokeStyle = this.style("ink");
        context.lineWidth = 2;
        context.strokeRect(x, y, Math.max(2, right - x), height);
      }
      if (height >= 11) this.drawName(run, Math.max(x, this.gutter), right, y + height / 2);
    }
  }

  drawPhases(run, y, height) {
    const phases = run[PHASES];
    for (let index = 0; index < phases.length; index += 2) {
      const until = index + 3 < phases.length ? phases[index + 3] : run[ENDED];
      const x = this.x(phases[index + 1]);
      this.context.fillStyle = this.phaseColours[phases[index]];
      this.context.fillRect(x, y, Math.max(0.75, this.x(until) - x), height);
    }
  }

  drawName(run, x, right, y) {
    const room = Math.floor((Math.min(right, this.width) - x - 6) / 6);
    if (room < 4) return;
    const name = this.figures.names[run[NAME]];
    this.context.fillStyle = "#000000";
    this.context.textAlign = "left";
    this.context.fillText(name.length > room ? `${name.slice(0, room - 1)}…` : name, x + 3, y);
  }

  drawPath() {
    const { runs, path } = this.figures, context = this.context;
    context.strokeStyle = context.fillStyle = this.style("accent");
    context.lineWidth = 1.5;
    let last = null;
    for (const [kind, begin, end, at] of path) {
      const y = this.top + runs[at][ROW] * this.rowHeight + this.rowHeight / 2 - 1;
      const isSeen = end >= this.begin && begin <= this.end;
      const x = this.x(begin), right = this.x(end);
      if (isSeen && kind === 0) {
        context.fillRect(x, y + this.rowHeight / 2 - 3, Math.max(1, right - x), 3);
      } else if (isSeen && right - x > 1) {
        context.setLineDash([3, 3]);
        line(context, x, y, right, y);
        context.setLineDash([]);
      }
      if (last !== null && last.y !== y && x >= this.gutter && x <= this.width) {
        line(context, x, last.y, x, y);
      }
      last = { y };
    }
  }

  drawQueue() {
    const context = this.context, { times, counts, most } = this.queue;
    if (!most) return;
    const bottom = this.queueTop + this.queueHeight;
    context.fillStyle = this.style("queue");
    let index = 0;
    while (index + 1 < times.length && times[index + 1] <= this.begin) index++;
    for (let x = this.gutter; x < this.width; x++) {
      const until = this.begin + (x + 1 - this.gutter) / this.scale();
      let count = counts[index];
      while (index + 1 < times.length && times[index + 1] <= until) {
        index++;
        count = Math.max(count, counts[index]);
      }
      if (count) {
        const height = Math.max(1, (count / most) * this.queueHeight);
        context.fillRect(x, bottom - height, 1, height);
      }
    }
  }

  drawLabels() {
    const context = this.context, { rows } = this.figures;
    context.textAlign = "right";
    context.fillStyle = this.style("dim");
    const every = Math.ceil(11 / this.rowHeight);
    const several = this.gutter > 60 && rows.some((row) => row.pool !== rows[0].pool);
    rows.forEach(({ pool, worker }, number) => {
      if (number % every) return;
      const y = this.top + number * this.rowHeight + this.rowHeight / 2;
      context.fillText(several ? `${pool + 1}: ${worker}` : worker, this.gutter - 6, y);
    });
    if (this.queue.most) {
      context.fillText(`${this.queue.most}`, this.gutter - 6, this.queueTop + 6);
      context.fillText(this.gutter > 60 ? "jobs waiting" : "wait", this.gutter - 6, this.queueTop + 20);
    }
  }
}

function longestPhase(run) {
  const phases = run[PHASES];
  let longest = 0, most = -1;
  for (let index = 0; index < phases.length; index += 2) {
    const until = index + 3 < phases.length ? phases[index + 3] : run[ENDED];
    if (until - phases[index + 1] > most) {
      most = until - phases[index + 1];
      longest = phases[index];
    }
  }
  return longest;
}

function line(context, x, y, toX, toY) {
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(toX, toY);
  context.stroke();
}

// How many runs wait, over time.
function queueOf(runs) {
  const changes = [];
  for (const run of runs) {
    if (run[STARTED] > run[QUEUED]) changes.push([run[QUEUED], 1], [run[STARTED], -1]);
  }
  changes.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const times = [0], counts = [0];
  let most = 0;
  for (const [at, change] of changes) {
    const now = counts[counts.length - 1] + change;
    if (at === times[times.length - 1]) counts[counts.length - 1] = now;
    else { times.push(at); counts.push(now); }
    most = Math.max(most, now);
  }
  return { times, counts, most };
}
