"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  root.classList.add("live");
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const remembered = { get: (key) => { try { return localStorage.getItem(key); } catch { return null; } },
    set: (key, value) => { try { localStorage.setItem(key, value); } catch { /* a page may have no memory */ } } };

  // What the reader leaves out, by kind: tasks, backbones and methods.
  const left = { task: new Set(), backbone: new Set(), method: new Set() };
  const isShown = (row) => !left.task.has(row.task) && !left.backbone.has(row.backbone) && !left.method.has(row.method);
  const isLog = () => document.getElementById("log").checked;

  // ---- light and dark
  const theme = document.getElementById("theme");
  const wear = (name) => { if (name) root.dataset.theme = name; else delete root.dataset.theme; };
  theme.value = remembered.get("adaptune-theme") || "";
  wear(theme.value);
  theme.addEventListener("change", () => { wear(theme.value); remembered.set("adaptune-theme", theme.value); });

  // ---- tables: search, sort, and the reader's filter
  const units = { k: 1e3, M: 1e6, B: 1e9 };
  const number = (text) => {
    const plain = text.replace(/,/g, "").replace(/\u2212/g, "-").trim();
    const spent = plain.match(/^(?:(\d+) h)? ?(?:(\d+) min)? ?(?:(\d+) s)?$/);
    if (plain && spent && spent.slice(1).some(Boolean)) return 3600 * (spent[1] || 0) + 60 * (spent[2] || 0) + 1 * (spent[3] || 0);
    const found = plain.match(/^([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)([kMB](?![a-z]))?/);
    return found ? parseFloat(found[1]) * (units[found[2]] || 1) : NaN;
  };
  const order = new Intl.Collator("en", { numeric: true });
  const tables = all(".table").map((box) => {
    const table = box.querySelector("table"), body = table.tBodies[0], rows = [...body.rows];
    const input = box.querySelector("input"), status = box.querySelector("[role=status]");
    const heads = [...table.tHead.rows[0].cells], names = heads.map((head) => head.textContent);
    const task = names.indexOf("task"), method = names.indexOf("method");
    const ownMethod = (text) => data.methods.find((name) => text === name || text.startsWith(name + " "));
    const ownBackbone = (text) => data.backbones.find((name) => text.endsWith(" on " + name));
    const kinds = rows.map((row) => ({ task: task < 0 ? null : row.cells[task].textContent,
      backbone: method < 0 ? null : ownBackbone(row.cells[method].textContent),
      method: method < 0 ? null : ownMethod(row.cells[method].textContent) }));
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const refresh = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, i) => {
        row.hidden = !isShown(kinds[i]) || !words.every((word) => texts[i].includes(word));
        shown += !row.hidden;
      });
      status.textContent = shown === rows.length ? "" : `${shown} of ${rows.length} rows`;
    };
    input.addEventListener("input", refresh);
    if (rows.length < 8) box.querySelector(".find").hidden = true;
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const numeric = head.classList.contains("number");
        const was = head.getAttribute("aria-sort");
        const up = was === "none" ? !numeric : was === "descending";
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const keyed = [...body.rows].map((row) => {
          const text = row.cells[column].textContent;
          return [row, numeric ? number(text) : text];
        });
        const unknown = (key) => key === "\u2013" || (numeric && Number.isNaN(key));
        keyed.sort(([, a], [, b]) => {
          if (unknown(a) || unknown(b)) return unknown(a) - unknown(b); // always last
          const way = numeric ? a - b : order.compare(a, b);
          return up ? way : -way;
        });
        table.classList.add("sorted");
        body.append(...keyed.map(([row]) => row));
      });
    });
    return refresh;
  });

  // ---- charts
  const config = {
    background: "transparent", font: "system-ui, -apple-system, 'Segoe UI', sans-serif",
    view: { stroke: null },
    axis: { labelColor: "var(--quiet)", titleColor: "var(--text)", gridColor: "var(--rule)", domainColor: "var(--quiet)",
      tickColor: "var(--quiet)", labelFontSize: 11, titleFontSize: 12, titleFontWeight: 500, labelOverlap: "greedy" },
    axisX: { grid: false, labelFlush: true }, axisY: { domain: false, ticks: false, tickCount: 5 },
    legend: { orient: "top", direction: "horizontal", title: null, labelColor: "var(--text)", labelFontSize: 12,
      labelLimit: 230, symbolSize: 90, symbolLimit: 0, symbolOpacity: 1, columnPadding: 14 },
    header: { labelColor: "var(--text)", labelFontSize: 12, labelFontWeight: 600, labelAnchor: "start", labelLimit: 260 },
    mark: { color: "var(--quiet)", aria: false }, rule: { color: "var(--quiet)" },
  };
  const visit = (node, see) => {
    if (Array.isArray(node)) node.forEach((item) => visit(item, see));
    else if (node && typeof node === "object") { see(node); Object.values(node).forEach((item) => visit(item, see)); }
  };
  const short = "datum.value >= 1e9 ? format(datum.value / 1e9, '~r') + 'B' : datum.value >= 1e6 ? format(datum.value / 1e6, '~r') + 'M'"
    + " : datum.value >= 1e3 ? format(datum.value / 1e3, '~r') + 'k' : format(datum.value, '~r')";

  /** Round numbers for a log axis: powers of ten, and 2 and 5 times these where there is room. */
  const roundNumbers = (rows, field, width) => {
    const known = rows.map((row) => row[field]).filter((value) => value > 0);
    if (!known.length) return [];
    const low = Math.min(...known), high = Math.max(...known), decades = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) decades.push(power);
    const steps = width / decades.length > 110 || decades.length < 4 ? [1, 2, 5] : [1];
    const all = decades.flatMap((power) => steps.map((step) => Number(`${step}e${power}`)));
    const round = all.filter((value) => value >= low / 1.2 && value <= high * 1.2);
    return round.length ? round : [low]; // of one size, or of sizes so close that no round number is near
  };

  /** The chart's Vega-Lite with the rows, series, axis and size that it has now. */
  const completed = (chart, width, axis) => {
    const spec = structuredClone(chart.spec), chosen = chart.axes.length ? axis.field : null;
    const rows = chart.rows.filter((row) => isShown(row) && (!chosen || (row[chosen] !== null && !(axis.is_log && row[chosen] <= 0))));
    const present = new Set(rows.map((row) => row.series));
    const series = chart.series.filter((one) => present.has(one.name));
    const longest = Math.max(0, ...series.map((one) => one.name.length));
    const columns = Math.max(1, Math.floor(width / Math.min(260, 44 + 7 * longest)));
    const panels = new Set(rows.map((row) => row.panel)).size;
    const across = spec.facet ? Math.max(1, Math.min(3, panels, Math.floor(width / 330))) : 1;
    const panel = spec.facet ? Math.floor(width / across) - 62 : width;
    visit(spec, (node) => {
      if (node.field === "series" && node.type === "nominal") {
        // One domain and one range each, so that colours and shapes share their legend.
        node.title = null;
        node.legend = { columns };
      }
    });
    visit(spec, (node) => {
      if (node.color && node.color.field === "series") node.color.scale = { domain: series.map((one) => one.name), range: series.map((one) => one.color) };
      if (node.shape && node.shape.field === "series") node.shape.scale = { domain: series.map((one) => one.name), range: series.map((one) => one.shape) };
      if (node.x && chart.axes.length && node.x.field === chart.axes[0].field) {
        node.x = axis.is_number
          ? { field: axis.field, type: "quantitative", title: axis.title, scale: axis.is_log ? { type: "log" } : { zero: false } }
          : { field: axis.field, type: "nominal", title: axis.title, axis: { labelAngle: -30, labelLimit: 90 } };
      }
      if (node.x && node.x.scale && node.x.scale.type === "log") {
        node.x.scale = isLog() ? { type: "log", nice: false, padding: 12 } : { type: "linear", zero: false, padding: 12 };
        node.x.axis = { labelExpr: short, ...(isLog() ? { values: roundNumbers(rows, node.x.field === "x" ? "params" : node.x.field, panel) } : { tickCount: panel / 90 }) };
      }
    });
    spec.data = { name: "rows", values: rows };
    spec.description = chart.alt;
    if (spec.facet) {
      spec.columns = across;
      spec.spec.width = panel;
      spec.facet.header = { labelLimit: panel };
      if (across === 1) spec.resolve.axis = { x: "independent" }; // a long column needs its axis at every panel
    } else {
      spec.width = width;
      spec.autosize = { type: "fit-x", contains: "padding" };
    }
    spec.config = config;
    return spec;
  };

  const escaped = (value) => String(value).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
  const options = { actions: false, renderer: "svg", logLevel: 1, tooltip: { theme: "custom", disableDefaultStyle: true, sanitize: escaped } };
  const charts = [];
  /** Keeps one chart in `box` drawn as `wanted(width)` says. */
  const keep = (box, wanted) => {
    const inner = document.createElement("div"); // the library shrinks what it draws into, so the width is the box's
    box.append(inner);
    const chart = { dirty: true, view: null, near: false, async draw() {
      if (!chart.dirty || !box.clientWidth) return;
      chart.dirty = false;
      const spec = wanted(box.clientWidth);
      if (!spec || !spec.data.values.length) {
        if (chart.view) chart.view.finalize();
        chart.view = null;
        inner.textContent = "Nothing to draw of what is chosen.";
        return;
      }
      try {
        if (chart.view) chart.view.finalize();
        chart.view = await vegaEmbed(inner, spec, options);
        all("svg", box).forEach((svg) => { svg.setAttribute("role", "img"); svg.setAttribute("aria-label", spec.description); });
      } catch (error) {
        const still = box.parentElement.querySelector("noscript");
        inner.textContent = `This chart could not be drawn: ${error.message}`;
        if (still) box.insertAdjacentHTML("afterend", still.textContent);
      }
    } };
    charts.push(chart);
    new IntersectionObserver((entries) => { chart.near = entries[0].isIntersecting; if (chart.near) chart.draw(); },
      { rootMargin: "800px" }).observe(box);
    return chart;
  };
  const idle = window.requestIdleCallback || ((call) => setTimeout(call, 200));
  // The charts far from what is seen follow in idle time, so that they are there when the page is printed.
  const rest = async () => { for (const chart of charts) await chart.draw(); root.dataset.drawn = "all"; };
  const again = () => {
    charts.forEach((chart) => { chart.dirty = true; if (chart.near) chart.draw(); });
    idle(rest);
  };

  all("[data-chart]").forEach((figure) => {
    const chart = data.charts[figure.dataset.chart], select = figure.querySelector("select");
    const axis = () => chart.axes[select ? select.value : 0];
    const kept = keep(figure.querySelector(".chart"), (width) => completed(chart, width, axis()));
    if (select) select.addEventListener("change", () => { kept.dirty = true; kept.draw(); });
  });

  // ---- learning curves of the trials that the reader picks
  const MOST = 8, LISTED = 60;
  all("[data-curves]").forEach((box) => {
    const { measures, curves, picked } = data.curves[box.dataset.curves];
    const chosen = new Set(picked), find = box.querySelector("input[type=search]"), measure = box.querySelector("select");
    const list = box.querySelector(".choices"), legend = box.querySelector("legend [role=status]");
    const texts = curves.map((curve) => `${curve.name} ${curve.id}`.toLowerCase());
    const kept = keep(box.querySelector(".chart"), (width) => {
      const own = curves.filter((curve) => chosen.has(curve.id)), values = [];
      own.forEach((curve) => curve.values[measure.value].forEach((value, i) => {
        if (value !== null) values.push({ series: curve.name, id: curve.id, epoch: curve.epochs ? curve.epochs[i] : i + 1, value });
      }));
      const x = { field: "epoch", type: "quantitative", title: "epoch", axis: { tickMinStep: 1, format: "d" }, scale: { zero: false, padding: 10 } };
      const y = { field: "value", type: "quantitative", title: measures[measure.value].replaceAll("_", " "), scale: { zero: false } };
      const half = Math.max(14, Math.floor(width / 16) - 2), names = new Map();
      own.forEach((curve) => {
        const label = curve.name.length > 2 * half ? `${curve.name.slice(0, half)}\u2026${curve.name.slice(-half)}` : curve.name;
        names.set(curve.id, [...names.values()].includes(label) ? `${label} (${names.size + 1})` : label);
      });
      values.forEach((row) => { row.label = names.get(row.id); });
      const color = { field: "label", type: "nominal", title: null, scale: { domain: [...names.values()], range: data.palette },
        legend: { columns: 1, labelLimit: width - 40 } };
      return { description: `${y.title} by epoch of ${own.length} trials`, width, height: 300, autosize: { type: "fit-x", contains: "padding" },
        data: { values }, config, layer: [
          { mark: { type: "line", strokeWidth: 2 }, encoding: { x, y, color } },
          { mark: { type: "point", filled: true, size: 40 }, encoding: { x, y, color, tooltip: [
            { field: "series", title: "trial" }, { field: "id" }, { field: "epoch" }, { field: "value", title: y.title, format: ".4f" }] } },
        ] };
    });
    const redraw = () => { kept.dirty = true; kept.draw(); };
    const fill = () => {
      const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
      const found = curves.filter((curve, i) => !chosen.has(curve.id) && isShown(curve) && words.every((word) => texts[i].includes(word)));
      const listed = [...curves.filter((curve) => chosen.has(curve.id)), ...found.slice(0, LISTED)];
      legend.textContent = `${chosen.size} drawn (at most ${MOST}), ${found.length} more found` + (found.length > LISTED ? `, the first ${LISTED} listed` : "");
      list.replaceChildren(...listed.map((curve) => {
        const item = document.createElement("li"), row = document.createElement("label"), check = document.createElement("input");
        check.type = "checkbox";
        check.checked = chosen.has(curve.id);
        check.disabled = !check.checked && chosen.size >= MOST;
        check.addEventListener("change", () => {
          if (check.checked) chosen.add(curve.id); else chosen.delete(curve.id);
          all("input", list).forEach((other) => { other.disabled = !other.checked && chosen.size >= MOST; });
          legend.textContent = `${chosen.size} drawn (at most ${MOST})`;
          redraw();
        });
        const text = document.createElement("span");
        text.textContent = curve.name;
        row.append(check, text);
        item.append(row);
        return item;
      }));
    };
    find.addEventListener("input", fill);
    measure.addEventListener("change", redraw);
    box.querySelector(".clear").addEventListener("click", () => { chosen.clear(); fill(); redraw(); });
    tables.push(fill); // it follows the filter as tables do
    fill();
  });

  // ---- the reader's filter
  const cards = all(".cards li");
  const refresh = () => {
    tables.forEach((table) => table());
    cards.forEach((card) => { card.hidden = left.task.has(card.dataset.task); });
    again();
  };
  all(".filter").forEach((filter) => {
    const kind = filter.dataset.filter, names = data[`${kind}s`], checks = all("input", filter);
    const said = filter.querySelector("summary span");
    const take = () => {
      left[kind] = new Set(names.filter((_, i) => !checks[i].checked));
      const shown = names.length - left[kind].size;
      said.textContent = shown === names.length ? `all ${shown}` : `${shown} of ${names.length}`;
      refresh();
    };
    checks.forEach((check) => check.addEventListener("change", take));
    all("button", filter).forEach((button) => button.addEventListener("click", () => {
      checks.forEach((check) => { check.checked = Boolean(button.dataset.all); });
      take();
    }));
    filter.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { filter.open = false; filter.querySelector("summary").focus(); }
    });
    document.addEventListener("click", (event) => { if (!filter.contains(event.target)) filter.open = false; });
  });
  document.getElementById("log").addEventListener("change", again);

  let width = root.clientWidth, waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { if (root.clientWidth !== width) { width = root.clientWidth; again(); } }, 150);
  });
  idle(rest);
})();
