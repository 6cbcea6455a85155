/* The grid: only the cards in sight exist, so that thousands cost no more than a screenful. */

class Grid {
  static LEAST = 300; // width of a card in pixels; half of that on a phone
  static SPARE = 2; // rows kept beyond what is in sight

  constructor(list, open) {
    this.list = list;
    this.open = open;
    this.rows = [];
    this.cards = new Map(); // by index among the rows shown
    this.active = 0; // the one card that Tab reaches; arrow keys go on from there
    this.seams = new Map(); // where a person has left the boundary, by name
    const render = () => this.render();
    window.addEventListener("scroll", render, { passive: true });
    new ResizeObserver(() => this.layout()).observe(list);
    list.addEventListener("keydown", (event) => this.key(event));
  }

  show(rows) {
    this.rows = rows;
    this.active = 0;
    for (const card of this.cards.values()) card.remove();
    this.cards.clear();
    this.layout();
  }

  layout() {
    const width = this.list.clientWidth;
    if (!width) return;
    const narrow = width < 560;
    const least = narrow ? 150 : Grid.LEAST;
    this.gap = narrow ? 12 : 24;
    this.columns = Math.max(1, Math.floor((width + this.gap) / (least + this.gap)));
    this.width = (width - this.gap * (this.columns - 1)) / this.columns;
    this.height = this.width / 1.5 + (narrow ? 58 : 38) + (narrow ? 6 : 14);
    this.list.style.height = `${Math.ceil(this.rows.length / this.columns) * this.height}px`;
    for (const [index, card] of this.cards) this.place(card, index);
    this.render();
  }

  render() {
    if (!this.columns) return;
    const top = this.list.getBoundingClientRect().top;
    const first = Math.floor(-top / this.height) - Grid.SPARE;
    const last = Math.ceil((window.innerHeight - top) / this.height) + Grid.SPARE;
    const from = clamp(first * this.columns, 0, this.rows.length);
    const to = clamp(last * this.columns, 0, this.rows.length);
    const wanted = (index) =>
      (index >= from && index < to) || (index === this.active && index < this.rows.length);
    for (const [index, card] of this.cards) {
      if (!wanted(index)) {
        card.remove();
        this.cards.delete(index);
      }
    }
    // In the order of the rows, which is that of reading and of Tab.
    const indices = [];
    if (this.active < from) indices.push(this.active);
    for (let index = from; index < to; index += 1) indices.push(index);
    if (this.active >= to) indices.push(this.active);
    let next = this.list.firstElementChild;
    for (const index of indices) {
      if (!wanted(index)) continue;
      const card = this.cards.get(index);
      if (card) {
        next = card.nextElementSibling;
        continue;
      }
      const made = this.card(this.rows[index], index);
      this.cards.set(index, made);
      this.place(made, index);
      this.list.insertBefore(made, next);
    }
  }

  place(card, index) {
    const x = (index % this.columns) * (this.width + this.gap);
    const y = Math.floor(index / this.columns) * this.height;
    card.style.width = `${this.width}px`;
    card.style.transform = `translate(${x}px, ${y}px)`;
  }

  card(row, index) {
    const { input, result, target } = row.views;
    const before = input || (result ? target : null);
    const seam = before && result;
    const thumb = make("button", {
      type: "button",
      className: row.status === "failed" || !result ? "thumb failed" : "thumb",
      tabIndex: index === this.active ? 0 : -1,
      "aria-label": [row.name, STATUSES[row.status], row.psnr === null ? "" : `${decibels(row.psnr)} dB`, row.reason || ""]
        .filter(Boolean).join(", "),
    });
    const picture = (view, className) =>
      make("img", { src: view.thumbnail, alt: "", className, decoding: "async", draggable: false });
    if (before) thumb.append(picture(before, "before"));
    else if (!result && target) thumb.append(picture(target, "before"));
    if (result) thumb.append(picture(result, seam ? "after" : ""));
    if (seam) thumb.append(make("span", { className: "seam" }));
    if (!result || row.status === "failed") {
      thumb.append(make("span", { className: "reason" }, make("b", {}, row.reason || STATUSES[row.status])));
    }
    if (seam) this.drag(thumb, row);
    thumb.addEventListener("click", () => {
      if (thumb.dragged) thumb.dragged = false;
      else if (Object.keys(row.views).length) this.open(index);
    });
    thumb.addEventListener("focus", () => this.activate(index));
    return make(
      "li",
      { className: "card", "aria-setsize": this.rows.length, "aria-posinset": index + 1 },
      thumb,
      make("div", { className: "caption" }, this.name(row), this.figures(row)),
    );
  }

  /** The end of a name tells images apart, so it stays when the beginning has to give way. */
  name(row) {
    const split = Math.max(row.name.length - 9, 0);
    return make(
      "span",
      { className: "name", title: row.name },
      make("span", {}, row.name.slice(0, split)),
      make("span", {}, row.name.slice(split)),
    );
  }

  figures(row) {
    const line = make("span", { className: "psnr" });
    if (row.psnr !== null) line.append(make("b", {}, decibels(row.psnr)), " dB");
    if (row.gain !== null) {
      line.append(" ", make("span", { className: row.gain < 0 ? "loss" : "gain" }, signed(row.gain)));
    }
    if (row.status !== "restored") {
      line.append(make("span", { className: "warn", title: row.reason || "" }, STATUSES[row.status].toLowerCase()));
    }
    return line;
  }

  /** Moving sideways over a thumbnail moves its boundary; a mere click opens it. */
  drag(thumb, row) {
    const set = (at) => {
      this.seams.set(row.name, at);
      thumb.style.setProperty("--at", `${at}%`);
    };
    if (this.seams.has(row.name)) set(this.seams.get(row.name));
    let start = null;
    thumb.addEventListener("pointerdown", (event) => {
      start = event.button === 0 ? event.clientX : null;
      thumb.dragged = false;
    });
    thumb.addEventListener("pointermove", (event) => {
      if (start === null || !event.buttons) return;
      if (!thumb.dragged && Math.abs(event.clientX - start) < 4) return;
      if (!thumb.dragged) thumb.setPointerCapture(event.pointerId);
      thumb.dragged = true;
      const box = thumb.getBoundingClientRect();
      set(clamp((100 * (event.clientX - box.left)) / box.width, 0, 100));
    });
    thumb.addEventListener("pointercancel", () => {
      start = null;
      thumb.dragged = false;
    });
  }

  activate(index) {
    const before = this.cards.get(this.active);
    if (before) before.querySelector(".thumb").tabIndex = -1;
    this.active = index;
    const card = this.cards.get(index);
    if (card) card.querySelector(".thumb").tabIndex = 0;
  }

  /** Bring a card into sight and give it the focus. */
  focus(index) {
    const aim = clamp(index, 0, this.rows.length - 1);
    this.activate(aim);
    this.render();
    const card = this.cards.get(aim);
    if (!card) return;
    this.activate(aim);
    card.querySelector(".thumb").focus({ preventScroll: true });
    const box = card.getBoundingClientRect();
    const bar = find("toolbar").offsetHeight;
    if (box.top < bar + 8) window.scrollBy(0, box.top - bar - 16);
    else if (box.bottom > window.innerHeight) window.scrollBy(0, box.bottom - window.innerHeight + 16);
  }

  key(event) {
    const steps = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -this.columns,
      ArrowDown: this.columns,
      Home: -this.rows.length,
      End: this.rows.length,
    };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.focus(this.active + steps[event.key]);
  }
}
