/* The viewer: two pictures of one image under one boundary, side by side, or subtracted. */

const MODES = [
  { value: "slider", label: "Slider", key: "s" },
  { value: "both", label: "Side by side", key: "b" },
  { value: "difference", label: "Difference", key: "d" },
];
const SIDES = ["left", "right"];

class Viewer {
  static LARGEST = 32; // device pixels for a pixel of the picture

  constructor(metrics, close) {
    this.metrics = metrics;
    this.dialog = find("viewer");
    this.stage = find("stage");
    this.boundary = find("boundary");
    this.panes = {};
    this.tags = {};
    for (const side of SIDES) {
      this.panes[side] = this.stage.querySelector(`[data-pane="${side}"]`);
      this.tags[side] = this.stage.querySelector(`[data-tag="${side}"]`);
    }
    this.mode = "slider";
    this.at = 0.5; // the boundary, as a share of the picture in sight
    this.pointers = new Map();
    this.view = { scale: 1, x: 0, y: 0, fit: true };
    segments(find("modes"), "mode", MODES, this.mode, (mode) => this.choose(mode));
    for (const gain of [1, 4, 8, 16, 32]) {
      find("gain").append(make("option", { value: gain, selected: gain === 8 }, `${gain} ×`));
    }
    find("gain").addEventListener("change", () => this.apply());
    find("pair").addEventListener("change", (event) => this.pick(event.target.value));
    this.dialog.addEventListener("close", () => close(this.index));
    const clicks = {
      close: () => this.dialog.close(),
      previous: () => this.step(-1),
      next: () => this.step(1),
      "zoom-in": () => this.zoom(1.5),
      "zoom-out": () => this.zoom(1 / 1.5),
      "zoom-fit": () => this.fit(),
      "zoom-one": () => this.one(),
    };
    for (const [id, action] of Object.entries(clicks)) find(id).addEventListener("click", action);
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.boundary.addEventListener("keydown", (event) => this.boundaryKey(event));
    this.stage.addEventListener("keydown", (event) => this.panKey(event));
    this.stage.addEventListener("pointerdown", (event) => this.press(event));
    this.stage.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      this.stage.addEventListener(name, (event) => this.release(event));
    }
    this.stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.stage.addEventListener("dblclick", (event) => {
      if (this.view.fit) this.one(this.point(event));
      else this.fit();
    });
    new ResizeObserver(() => this.resize()).observe(this.stage);
  }

  open(rows, index) {
    this.rows = rows;
    this.dialog.showModal();
    this.show(index);
    (this.boundary.hidden ? this.stage : this.boundary).focus();
  }

  step(by) {
    let index = this.index + by;
    while (this.rows[index] && !Object.keys(this.rows[index].views).length) index += by;
    if (this.rows[index]) this.show(index);
  }

  show(index) {
    this.index = index;
    const row = this.rows[index];
    this.row = row;
    find("viewer-name").textContent = row.name;
    find("viewer-facts").textContent = this.facts(row);
    find("viewer-place").textContent = `${index + 1} of ${this.rows.length}`;
    find("previous").disabled = index === 0;
    find("next").disabled = index === this.rows.length - 1;
    const roles = Object.keys(ROLES).filter((role) => role in row.views);
    const pairs = roles.length > 1 ? [] : [[roles[0], roles[0]]];
    for (const [left, right] of [["input", "result"], ["target", "result"], ["input", "target"]]) {
      if (roles.includes(left) && roles.includes(right)) pairs.push([left, right]);
    }
    const wanted = find("pair").value;
    find("pair").replaceChildren(
      ...pairs.map(([left, right]) =>
        make("option", { value: `${left} ${right}` }, `${ROLES[left]} and ${ROLES[right].toLowerCase()}`)),
    );
    find("pair-label").hidden = pairs.length < 2;
    const kept = pairs.some((pair) => pair.join(" ") === wanted) ? wanted : pairs[0].join(" ");
    find("pair").value = kept;
    this.view.fit = true;
    this.pick(kept);
  }

  facts(row) {
    const facts = [];
    const view = row.views.result || Object.values(row.views)[0];
    facts.push(`${view.width} × ${view.height}`);
    if (row.after) {
      for (const metric of this.metrics) {
        const change = metric.key === "psnr" && row.before ? `${figureOf(metric, row.before)} → ` : "";
        facts.push(`${metric.label} ${change}${figureOf(metric, row.after)} ${metric.unit}`.trim());
      }
    }
    if (row.seconds !== null) facts.push(`${row.seconds.toFixed(1)} s`);
    if (row.status !== "restored") facts.push(row.reason || STATUSES[row.status]);
    return facts.join("  ·  ");
  }

  /** Show two of the pictures that there are of this image. */
  pick(pair) {
    const [left, right] = pair.split(" ");
    this.single = left === right;
    const sources = { left: this.row.views[left], right: this.row.views[right] };
    this.sources = sources;
    find("stage-note").hidden = true;
    this.stage.ariaBusy = "true";
    const loads = SIDES.map((side) => this.load(side, sources[side]));
    Promise.all(loads).then(() => {
      if (this.sources === sources) this.stage.ariaBusy = "false";
    });
    this.tags.left.textContent = ROLES[left];
    this.tags.right.textContent = ROLES[right];
    this.choose(this.mode);
  }

  /** The thumbnail at once, the picture in full size when it has arrived. */
  async load(side, source) {
    const image = this.panes[side].firstElementChild;
    image.src = source.thumbnail;
    const full = new Image();
    full.src = source.full;
    const found = await full.decode().then(() => true, () => false);
    if (this.sources[side] !== source) return;
    if (found) {
      image.src = source.full;
      await image.decode().catch(() => {}); // another picture was chosen meanwhile
    } else {
      find("stage-note").textContent = "The picture in full size is not where this report expects it; this is the small one.";
      find("stage-note").hidden = false;
    }
  }

  choose(mode) {
    this.mode = mode;
    for (const input of find("modes").querySelectorAll("input")) input.checked = input.value === mode;
    find("modes").disabled = this.single;
    this.stage.dataset.mode = this.single ? "single" : mode;
    find("gain-label").hidden = this.single || mode !== "difference";
    const hide = this.single || mode !== "slider";
    // A hidden element loses the focus to the page, and keys would no longer get here.
    if (hide && document.activeElement === this.boundary) this.stage.focus();
    this.boundary.hidden = hide;
    if (this.view.fit) this.fit();
    else this.place(this.view.scale, this.view.x, this.view.y);
  }

  // --- where the pictures are: one scale and one place for both -------------------------------

  /** Size of what one picture is seen through, in CSS pixels. */
  get window() {
    const width = this.stage.clientWidth;
    const height = this.stage.clientHeight;
    if (this.stage.dataset.mode !== "both") return { width, height, stacked: false };
    const stacked = height > width;
    return stacked
      ? { width, height: Math.floor(height / 2) - 1, stacked }
      : { width: Math.floor(width / 2) - 1, height, stacked };
  }

  get picture() {
    return this.sources.right;
  }

  fit() {
    const { width, height } = this.window;
    const most = 4 / devicePixelRatio; // tiny pictures do not fill a wall
    const scale = Math.min(width / this.picture.width, height / this.picture.height, most);
    this.view.fit = true;
    this.place(scale, (width - this.picture.width * scale) / 2, (height - this.picture.height * scale) / 2);
  }

  /** One pixel of the picture on one pixel of the screen. */
  one(point) {
    this.zoomTo(1 / devicePixelRatio, point);
  }

  zoom(factor, point) {
    this.zoomTo(this.view.scale * factor, point);
  }

  zoomTo(wanted, point) {
    const { width, height } = this.window;
    const { x: px, y: py } = point || { x: width / 2, y: height / 2 };
    const least = Math.min(width / this.picture.width, height / this.picture.height, 1) / 4;
    const scale = clamp(wanted, least, Viewer.LARGEST / devicePixelRatio);
    const ratio = scale / this.view.scale;
    this.view.fit = false;
    this.place(scale, px - (px - this.view.x) * ratio, py - (py - this.view.y) * ratio);
  }

  pan(dx, dy) {
    this.place(this.view.scale, this.view.x + dx, this.view.y + dy);
  }

  /** Set scale and place; what is larger than the window fills it, what is smaller is centred. */
  place(scale, x, y) {
    const { width, height } = this.window;
    const within = (offset, room, size) =>
      size <= room ? (room - size) / 2 : clamp(offset, room - size, 0);
    Object.assign(this.view, {
      scale,
      x: within(x, width, this.picture.width * scale),
      y: within(y, height, this.picture.height * scale),
    });
    this.apply();
  }

  resize() {
    if (!this.dialog.open || !this.sources) return;
    if (this.view.fit) this.fit();
    else this.place(this.view.scale, this.view.x, this.view.y);
  }

  apply() {
    const { scale, x, y } = this.view;
    const { width, height, stacked } = this.window;
    const mode = this.stage.dataset.mode;
    for (const side of SIDES) {
      const pane = this.panes[side];
      const image = pane.firstElementChild;
      image.style.width = `${this.sources[side].width}px`;
      image.style.height = `${this.sources[side].height}px`;
      image.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
      image.classList.toggle("sharp", scale * devicePixelRatio >= 2);
      const second = mode === "both" && side === "right";
      pane.style.left = second && !stacked ? `${width + 2}px` : "0";
      pane.style.top = second && stacked ? `${height + 2}px` : "0";
      pane.style.width = `${width}px`;
      pane.style.height = `${height}px`;
      pane.style.clipPath = "";
    }
    find("layers").style.filter = mode === "difference" ? `brightness(${find("gain").value})` : "";
    this.split();
    this.label(mode, stacked, width, height);
    find("zoom-level").textContent = `${Math.round(scale * devicePixelRatio * 100)} %`;
    find("zoom-fit").setAttribute("aria-pressed", this.view.fit);
    find("zoom-one").setAttribute("aria-pressed", Math.abs(scale * devicePixelRatio - 1) < 1e-6);
    const larger = this.picture.width * scale > width + 1 || this.picture.height * scale > height + 1;
    this.larger = larger;
    this.stage.style.cursor = larger ? "" : mode === "slider" ? "ew-resize" : "default";
  }

  /** The part of the picture that is in sight, in the stage's pixels. */
  get sight() {
    const { width, height } = this.window;
    const { scale, x, y } = this.view;
    return {
      left: Math.max(0, x),
      right: Math.min(width, x + this.picture.width * scale),
      top: Math.max(0, y),
      bottom: Math.min(height, y + this.picture.height * scale),
    };
  }

  split() {
    if (this.boundary.hidden) return;
    const { left, right, top, bottom } = this.sight;
    const at = left + (right - left) * this.at;
    this.panes.left.style.clipPath = `inset(0 ${this.window.width - at}px 0 0)`;
    Object.assign(this.boundary.style, { left: `${at}px`, top: `${top}px`, height: `${bottom - top}px` });
    const percent = Math.round(this.at * 100);
    const [before, after] = SIDES.map((side) => this.tags[side].textContent.toLowerCase());
    this.boundary.setAttribute("aria-label", `Boundary between ${before} and ${after}`);
    this.boundary.setAttribute("aria-valuenow", percent);
    this.boundary.setAttribute("aria-valuetext", `${percent} % ${before}`);
  }

  label(mode, stacked, width, height) {
    const { left, right, top } = this.sight;
    const { left: first, right: second } = this.tags;
    first.hidden = mode === "single" || mode === "difference";
    second.hidden = mode === "difference";
    for (const tag of [first, second]) Object.assign(tag.style, { left: "", right: "", top: `${top + 12}px` });
    first.style.left = `${left + 12}px`;
    if (mode === "both") {
      second.style.left = `${left + 12 + (stacked ? 0 : width + 2)}px`;
      if (stacked) second.style.top = `${top + 12 + height + 2}px`;
    } else {
      second.style.right = `${this.stage.clientWidth - right + 12}px`;
    }
  }

  slideTo(clientX) {
    const { left, right } = this.sight;
    const x = clientX - this.stage.getBoundingClientRect().left;
    this.at = clamp((x - left) / Math.max(right - left, 1), 0, 1);
    this.split();
  }

  // --- pointers: one moves the boundary or the picture, two also zoom -------------------------

  /** A place in the window of the picture under the pointer. */
  point(event) {
    const box = this.stage.getBoundingClientRect();
    const { width, height } = this.window;
    const within = (value, size) => (value > size + 2 ? value - size - 2 : value);
    return { x: within(event.clientX - box.left, width), y: within(event.clientY - box.top, height) };
  }

  press(event) {
    if (event.button !== 0) return;
    this.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    const grip = this.boundary.contains(event.target);
    this.sliding = !this.boundary.hidden && (grip || !this.larger);
    if (this.sliding && !grip) this.slideTo(event.clientX);
    if (!this.sliding) this.stage.classList.add("panning");
    if (grip) {
      event.preventDefault();
      this.boundary.focus({ preventScroll: true });
    }
  }

  move(event) {
    const last = this.pointers.get(event.pointerId);
    if (!last) return;
    const now = { x: event.clientX, y: event.clientY };
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId);
    this.pointers.set(event.pointerId, now);
    if (others.length) {
      const other = others[0][1];
      const distance = (a) => Math.max(Math.hypot(a.x - other.x, a.y - other.y), 1);
      const middle = { clientX: (now.x + other.x) / 2, clientY: (now.y + other.y) / 2 };
      this.zoom(distance(now) / distance(last), this.point(middle));
      this.pan((now.x - last.x) / 2, (now.y - last.y) / 2);
    } else if (this.sliding) {
      this.slideTo(event.clientX);
    } else {
      this.pan(now.x - last.x, now.y - last.y);
    }
  }

  release(event) {
    this.pointers.delete(event.pointerId);
    this.stage.classList.remove("panning");
  }

  wheel(event) {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
    this.zoom(Math.exp(-clamp(pixels, -200, 200) * (event.ctrlKey ? 0.01 : 0.002)), this.point(event));
  }

  // --- keys -----------------------------------------------------------------------------------

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
    const actions = {
      n: () => this.step(1),
      p: () => this.step(-1),
      PageDown: () => this.step(1),
      PageUp: () => this.step(-1),
      0: () => this.fit(),
      1: () => this.one(),
      "+": () => this.zoom(1.5),
      "=": () => this.zoom(1.5),
      "-": () => this.zoom(1 / 1.5),
    };
    for (const mode of MODES) actions[mode.key] = () => this.single || this.choose(mode.value);
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  boundaryKey(event) {
    const step = event.shiftKey ? 0.1 : 0.02;
    const aims = { ArrowLeft: this.at - step, ArrowRight: this.at + step, Home: 0, End: 1 };
    aims.ArrowDown = aims.ArrowLeft;
    aims.ArrowUp = aims.ArrowRight;
    if (!(event.key in aims)) return;
    event.preventDefault();
    event.stopPropagation();
    this.at = clamp(aims[event.key], 0, 1);
    this.split();
  }

  panKey(event) {
    const step = event.shiftKey ? 200 : 50;
    const ways = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.target !== this.stage || !(event.key in ways)) return;
    event.preventDefault();
    this.pan(...ways[event.key]);
  }
}
