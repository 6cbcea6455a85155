/* The page: what stands above and below the grid, and what the toolbar does to it. */

function main() {
  const data = JSON.parse(find("data").textContent);
  const rows = data.rows.map(prepare);
  const counts = {};
  for (const row of rows) counts[row.status] = (counts[row.status] || 0) + 1;
  masthead(data, rows, counts);
  failures(rows.filter((row) => row.status === "failed" || row.status === "uncompared"));
  colophon(data);
  theme();
  const viewer = new Viewer(data.metrics, (index) => grid.focus(index));
  const grid = new Grid(find("grid"), (index) => viewer.open(grid.rows, index));
  toolbar(rows, counts, (chosen) => {
    grid.show(chosen);
    find("empty").hidden = chosen.length > 0;
    find("count").textContent =
      chosen.length === rows.length ? plural(rows.length) : `${chosen.length} of ${plural(rows.length)}`;
  });
}

const plural = (count) => `${count.toLocaleString("en")} ${count === 1 ? "image" : "images"}`;

function masthead(data, rows, counts) {
  find("title").textContent = data.title;
  const weights = (data.settings.weights || []).map(([name]) => name);
  const made = new Date(data.made);
  find("lede").textContent = [
    weights.length ? weights.join(", ") : null,
    made.toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric" }),
  ].filter(Boolean).join(" · ");
  const figure = (term, value, unit, className, title) =>
    find("figures").append(
      make("div", { className: className || "", title }, make("dt", {}, term), make("dd", {}, value, unit ? make("small", {}, unit) : null)),
    );
  figure(rows.length === 1 ? "image" : "images", rows.length.toLocaleString("en"));
  if (counts.failed) figure("failed", String(counts.failed), null, "bad");
  if (counts.missing) figure("not restored", String(counts.missing), null, "bad");
  const { before, after } = data.mean;
  if (after) {
    const gains = rows.filter((row) => row.gain !== null).map((row) => row.gain);
    for (const metric of data.metrics) {
      const leading = metric.key === "psnr";
      const term = `mean ${metric.label}${leading ? `, ${data.protocol}` : ""}`;
      figure(term, figureOf(metric, after), metric.unit, "", `${metric.better} is better`);
      if (leading && before && gains.length) {
        figure("mean gain", signed(gains.reduce((sum, gain) => sum + gain, 0) / gains.length), "dB");
      }
    }
  }
  const timed = rows.filter((row) => row.seconds !== null && row.views.result);
  const seconds = timed.reduce((sum, row) => sum + row.seconds, 0);
  if (seconds > 0) {
    const pixels = timed.reduce((sum, row) => sum + row.views.result.width * row.views.result.height, 0);
    figure("restored at", (pixels / 1e6 / seconds).toPrecision(3), "MP/s");
  }
}

function failures(failed) {
  const section = find("failures");
  if (!failed.length) return;
  section.hidden = false;
  section.querySelector("details").open = failed.length <= 5;
  const lost = failed.filter((row) => row.status === "failed").length;
  const parts = [
    lost ? `${plural(lost)} failed` : null,
    failed.length > lost ? `${plural(failed.length - lost)} could not be compared` : null,
  ];
  section.querySelector("summary").textContent = parts.filter(Boolean).join(", ");
  section.querySelector("ul").append(
    ...failed.map((row) => make("li", {}, make("b", {}, row.name), make("span", {}, row.reason || "no reason is known"))),
  );
}

function colophon(data) {
  const block = (title, pairs) => {
    if (!pairs.length) return;
    const list = make("dl");
    for (const [term, value] of pairs) list.append(make("dt", {}, term), make("dd", {}, value));
    find("colophon").append(make("section", {}, make("h2", {}, title), list));
  };
  const settings = Object.entries(data.settings).map(([name, values]) => [
    name.replaceAll("_", " "),
    values.map(([value, count]) => (values.length > 1 ? `${value} (${plural(count)})` : value)).join(", "),
  ]);
  block("Restored with", settings.length ? settings : [["settings", "not known; runs write them with --log-json FILE"]]);
  if (data.protocol) {
    block("Measured", [["protocol", data.reason ? `${data.protocol}, ${data.reason}` : data.protocol]]);
  }
  block("Folders", Object.entries(data.folders));
  block("This report", [["made", data.made.slice(0, 16).replace("T", " ")], ...Object.entries(data.versions)]);
}

function theme() {
  const names = ["auto", "light", "dark"];
  const button = find("theme");
  const set = (name) => {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    button.textContent = `Theme: ${name}`;
    button.value = name;
  };
  button.addEventListener("click", () => set(names[(names.indexOf(button.value) + 1) % names.length]));
  set("auto");
}

/** Smaller first; what has no value comes last whichever way it goes. */
const byNumber = (key) => (a, b, way) => {
  if (a[key] === null || b[key] === null) return (a[key] === null) - (b[key] === null);
  return a[key] === b[key] ? 0 : way * (a[key] < b[key] ? -1 : 1);
};
const ORDERS = [
  { value: "name", label: "Name", compare: (a, b, way) => way * (a.place - b.place) },
  { value: "psnr", label: "PSNR", compare: byNumber("psnr") },
  { value: "gain", label: "Gain", compare: byNumber("gain") },
  {
    value: "status",
    label: "Status",
    compare: (a, b, way) => way * (Object.keys(STATUSES).indexOf(a.status) - Object.keys(STATUSES).indexOf(b.status)),
  },
  { value: "seconds", label: "Time", compare: byNumber("seconds") },
];

function toolbar(rows, counts, show) {
  const has = { psnr: false, gain: false, seconds: false };
  for (const row of rows) for (const key of Object.keys(has)) has[key] = has[key] || row[key] !== null;
  const known = Object.keys(STATUSES).filter((status) => counts[status]);
  const state = { query: "", status: "all", least: null, most: null, order: ORDERS[0], way: 1 };

  const update = () => {
    const chosen = rows.filter(
      (row) =>
        row.folded.includes(state.query) &&
        (state.status === "all" || row.status === state.status) &&
        (state.least === null || (row.psnr !== null && row.psnr >= state.least)) &&
        (state.most === null || (row.psnr !== null && row.psnr <= state.most)),
    );
    chosen.sort((a, b) => state.order.compare(a, b, state.way) || a.place - b.place);
    show(chosen);
  };

  const direction = find("direction");
  const turn = (way) => {
    state.way = way;
    direction.textContent = way > 0 ? "↑" : "↓";
    direction.setAttribute("aria-pressed", way < 0);
    direction.setAttribute("aria-label", "Descending");
    direction.title = way > 0 ? "Ascending" : "Descending";
  };
  turn(1);
  direction.addEventListener("click", () => {
    turn(-state.way);
    update();
  });

  find("toolbar").addEventListener("submit", (event) => event.preventDefault());
  find("query").addEventListener("input", (event) => {
    state.query = event.target.value.trim().toLocaleLowerCase();
    update();
  });
  for (const key of ["least", "most"]) {
    find(key).addEventListener("input", (event) => {
      state[key] = event.target.value === "" ? null : Number(event.target.value);
      update();
    });
  }
  find("range").hidden = !has.psnr;
  find("statuses").hidden = known.length < 2;
  segments(
    find("statuses"),
    "status",
    [{ value: "all", label: "All", count: rows.length }, ...known.map((value) => ({ value, label: STATUSES[value], count: counts[value] }))],
    "all",
    (status) => {
      state.status = status;
      update();
    },
  );
  for (const order of ORDERS) {
    if (order.value in has ? !has[order.value] : order.value === "status" && known.length < 2) continue;
    find("sort").append(make("option", { value: order.value }, order.label));
  }
  find("sort").addEventListener("change", (event) => {
    state.order = ORDERS.find((order) => order.value === event.target.value);
    update();
  });
  find("reset").addEventListener("click", () => {
    find("toolbar").reset();
    Object.assign(state, { query: "", status: "all", least: null, most: null, order: ORDERS[0] });
    turn(1);
    update();
    find("query").focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !find("viewer").open && !event.target.matches("input, select")) {
      event.preventDefault();
      find("query").focus();
    }
  });
  update();
}

main();
