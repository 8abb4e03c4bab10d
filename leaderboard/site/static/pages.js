"use strict";
/* The pages: the board, the cases of a cell, and the same for two runs. Each has its data in promptseg.data. */
(function () {
  const { element, number, signed } = promptseg;
  const page = document.body.dataset.page;
  const data = promptseg.data;
  const at = (id) => document.getElementById(id);
  const text = (key) => ({ key, show: (i) => data[key][i] ?? "–" });

  function verdict(i) {
    const outcome = data.verdict[i];
    return element("span", { class: `verdict ${outcome}`, title: data.why[i] }, outcome === "none" ? "–" : outcome);
  }

  /* The interval of a mean as a line from 0 to 1, with a dot for the mean. */
  function whisker(iou, low, high) {
    const { shape } = promptseg;
    const made = shape("svg", { class: "whisker", viewBox: "0 0 100 12", "aria-hidden": "true" },
      shape("line", { class: "axis", x1: 0, x2: 100, y1: 6, y2: 6 }));
    if (low !== null) made.append(shape("line", { class: "range", x1: 100 * low, x2: 100 * high, y1: 6, y2: 6 }));
    made.append(shape("circle", { cx: 100 * iou, cy: 6, r: 4 }));
    return made;
  }

  function mean(i) {
    const [iou, low, high] = [data.iou[i], data.low[i], data.high[i]];
    if (iou === null) return "–";
    const marks = { known: " †", likely: " ‡" }[data.seen[i]] || "";
    const range = element("small", { class: "range" }, low === null ? "" : ` ${number(low)}–${number(high)}`);
    return element("span", {}, whisker(iou, low, high), element("b", {}, number(iou) + marks), range);
  }

  function count(i) {
    const failed = data.failed[i] ? `, ${data.failed[i]} failed` : "";
    return `${data.n[i].toLocaleString("en")}${data.sample[i] ? " (sample)" : ""}${failed}`;
  }

  /* Filter a table by the fields of a form, which the address keeps. */
  function bindFilters(form, table) {
    const fields = [...form.querySelectorAll("select, input")];
    const known = new URLSearchParams(location.hash.slice(1));
    for (const field of fields) {
      const values = field.tagName === "SELECT" ? promptseg.different(data[field.name]) : [];
      field.append(...values.map((value) => element("option", { value }, value)));
      if (known.has(field.name)) field.value = known.get(field.name);
    }
    const apply = () => {
      const wanted = fields.filter((field) => field.value).map((field) => [field.name, field.value]);
      table.filter((i) => wanted.every(([name, value]) =>
        name === "search" ? `${data.model[i]} ${data.task[i]} ${data.mode[i]}`.toLowerCase().includes(value.toLowerCase())
          : data[name][i] === value));
      history.replaceState(null, "", `#${new URLSearchParams(wanted)}`);
    };
    form.addEventListener("input", apply);
    form.addEventListener("reset", () => window.setTimeout(apply));
    form.addEventListener("submit", (event) => event.preventDefault());
    apply();
  }

  function board() {
    const cell = (i) => element("span", {}, element("a", { href: `cells/${data.page[i]}.html` }, data.model[i]),
      data.floor[i] ? " (floor)" : "");
    bindFilters(at("filters"), new promptseg.Table(at("table"), {
      caption: "Cells", data, sort: "iou", descending: true, cards: true, columns: [
        { key: "model", label: "Model", show: cell }, { ...text("task"), label: "Task" },
        { ...text("modality"), label: "Modality", minor: true }, { ...text("mode"), label: "Prompt mode" },
        { ...text("mask"), label: "Mask", minor: true },
        { key: "iou", label: "Mean IoU (95 %)", number: true, descends: true, show: mean },
        { key: "n", label: "Cases", number: true, descends: true, minor: true, show: count },
        { key: "verdict", label: "Threshold", show: verdict }] }));
  }

  function comparison() {
    const cell = (i) => (data.page[i] ? element("a", { href: `compare/${data.page[i]}.html` }, data.model[i]) : data.model[i]);
    const change = (i) => element("span", {}, element("b", {}, signed(data.delta[i])),
      data.low[i] === null ? "" : element("small", {}, ` ${signed(data.low[i])} to ${signed(data.high[i])}`));
    bindFilters(at("filters"), new promptseg.Table(at("table"), {
      caption: "Cells of both runs", data, sort: "delta", cards: true, columns: [
        { key: "model", label: "Model", show: cell }, { ...text("task"), label: "Task" },
        { ...text("mode"), label: "Prompt mode" },
        { key: "before", label: "Before", number: true, minor: true, show: (i) => number(data.before[i]) },
        { key: "after", label: "After", number: true, minor: true, show: (i) => number(data.after[i]) },
        { key: "delta", label: "Difference", number: true, show: change },
        { key: "p", label: "p (Holm)", number: true, minor: true, show: (i) => data.p[i] ?? "–" },
        { key: "n", label: "Cases", number: true, minor: true, show: (i) => data.n[i].toLocaleString("en") },
        { key: "verdict", label: "Verdict", show: verdict }] }));
  }

  /* --- cases ------------------------------------------------------------------------------------------------- */

  const LABELS = { subject: "Subject", size: "Size (%)", parts: "Parts", first: "First", confident: "Confident",
    oracle: "Oracle", last: "Last click", before: "Before", after: "After", delta: "Difference", error: "Error" };
  const KEYS = { first: "f", confident: "c", oracle: "o", before: "b", after: "a" };
  const MINOR = ["subject", "parts", "first", "confident", "oracle", "before", "after", "error"]; // left out on phones

  class Cases {
    constructor() {
      const { cases, counts, layers } = data;
      const pictures = new Map(data.pictures.map((picture) => [picture.id, picture]));
      Object.assign(this, { cases, counts, current: null });
      this.others = Object.keys(cases).filter((key) => key !== "id");
      this.drawn = cases.id.map((id) => pictures.has(id));
      this.ranked = this.sorted(counts);
      this.bySize = this.sorted("size");
      const on = counts === "delta" ? layers : [counts];
      this.viewer = new promptseg.Viewer(at("viewer"),
        { images: "../images/", pictures, layers, on, keys: layers.map((layer) => KEYS[layer]) });
      this.table = new promptseg.Table(at("table"),
        { caption: "Cases", data: cases, columns: this.columns(), sort: counts });
      this.bind();
      this.filter();
      const asked = new URLSearchParams(location.hash.slice(1)).get("case");
      const found = asked === null ? -1 : cases.id.indexOf(asked);
      if (found >= 0) this.show(found);
      else this.show(this.table.shown[0], false);
    }

    /* Indices of the cases that have a value, lowest first. */
    sorted(key) {
      const values = this.cases[key];
      return values.map((_, i) => i).filter((i) => values[i] !== null).sort((a, b) => values[a] - values[b] || a - b);
    }

    columns() {
      const open = (i) => {
        const mark = this.drawn[i] ? element("span", { class: "drawn", title: "drawn" }, "▣\u00a0") : "";
        const button = element("button", { type: "button", class: "case" }, mark, promptseg.breaking(this.cases.id[i]));
        button.addEventListener("click", () => this.show(i));
        return button;
      };
      return [{ key: "id", label: "Case", show: open }, ...this.others.map((key) => {
        const isNumber = !["subject", "error"].includes(key);
        const show = (i) => (isNumber ? this.written(key, i) : promptseg.breaking(this.written(key, i)));
        return { key, label: LABELS[key], number: isNumber, minor: MINOR.includes(key) && key !== this.counts, show };
      })];
    }

    written(key, index) {
      const value = this.cases[key][index];
      if (["subject", "error", "parts"].includes(key)) return String(value ?? "–");
      if (key === "size" && value > 0 && value < 0.1) return value.toPrecision(2); // 0.00 would say nothing
      return key === "delta" ? signed(value) : number(value, key === "size" ? 2 : 3);
    }

    bind() {
      const jumps = { worst: () => this.ranked[0], best: () => this.ranked.at(-1), smallest: () => this.bySize[0],
        largest: () => this.bySize.at(-1) };
      for (const [name, to] of Object.entries(jumps)) at(name).addEventListener("click", () => this.show(to()));
      at("percentile").addEventListener("input", (event) => {
        const wanted = Number(event.target.value);
        this.show(this.near(wanted / 100));
        this.showPercentile(wanted); // where it was moved to, though the nearest case may be at another
      });
      const which = at("which");
      if (!this.cases.error) which.querySelector("[value=failed]").remove();
      which.value = this.drawn.includes(true) ? "drawn" : "all";
      which.addEventListener("change", () => this.filter());
      at("search").addEventListener("input", () => this.filter());
      at("previous").addEventListener("click", () => this.walk(-1));
      at("next").addEventListener("click", () => this.walk(1));
      document.addEventListener("keydown", (event) => this.press(event));
      if (at("scatter")) this.plot(at("scatter"));
    }

    /* A search looks through all cases, whichever are listed. */
    filter() {
      const [which, search] = [at("which").value, at("search").value.trim().toLowerCase()];
      const lists = { all: () => true, drawn: (i) => this.drawn[i], failed: (i) => Boolean(this.cases.error[i]) };
      this.table.filter(search ? (i) => this.cases.id[i].toLowerCase().includes(search) : lists[which]);
      if (this.current !== null) this.table.select(this.current);
    }

    /* The case at a rank from 0 to 1; of the drawn ones, while only these are listed, the nearest. */
    near(part) {
      const rank = Math.round(part * (this.ranked.length - 1));
      if (at("which").value !== "drawn") return this.ranked[rank];
      const ranks = this.ranked.map((_, r) => r).filter((r) => this.drawn[this.ranked[r]]);
      const nearest = ranks.reduce((best, r) => (Math.abs(r - rank) < Math.abs(best - rank) ? r : best), ranks[0]);
      return this.ranked[nearest];
    }

    walk(by) {
      const { shown } = this.table;
      const place = shown.indexOf(this.current);
      this.show(shown[place < 0 ? 0 : Math.min(Math.max(0, place + by), shown.length - 1)]);
    }

    show(index, remember = true) {
      if (index === undefined) return;
      this.current = index;
      const id = this.cases.id[index];
      at("case").textContent = id;
      at("facts").replaceChildren(...this.facts(index));
      at("undrawn").hidden = this.drawn[index];
      const rank = this.ranked.indexOf(index);
      if (rank >= 0) this.showPercentile(Math.round((100 * rank) / Math.max(1, this.ranked.length - 1)));
      this.viewer.show(id);
      this.table.select(index);
      if (remember) history.replaceState(null, "", `#${new URLSearchParams({ case: id })}`);
    }

    showPercentile(percent) {
      at("percentile").value = percent;
      at("percent").textContent = percent;
    }

    facts(index) {
      const rank = this.ranked.indexOf(index);
      const facts = this.others.filter((key) => this.cases[key][index] !== null).map((key) =>
        [LABELS[key], this.written(key, index)]);
      if (rank >= 0) facts.push(["Rank, worst first", `${(rank + 1).toLocaleString("en")} of ${this.ranked.length.toLocaleString("en")}`]);
      return facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
    }

    press(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const { target, key } = event;
      if (target.matches('select, [type="search"]')) return;
      if (key === " " && target.closest("button, input, a, summary")) return; // they answer it themselves
      if (key === "j" || key === "k") this.walk(key === "j" ? 1 : -1);
      else if (!this.viewer.press(key)) return;
      event.preventDefault();
    }

    /* Size against IoU, on a logarithmic axis; a click opens the nearest case. */
    plot(canvas) {
      const { width, height } = canvas;
      const cases = this.ranked.filter((i) => this.cases.size[i] > 0);
      const sizes = cases.map((i) => Math.log10(this.cases.size[i]));
      const low = Math.floor(sizes.reduce((a, b) => Math.min(a, b), 0));
      const [left, right] = [64, width - 20]; // the axes of the plot beside it
      const x = (size) => left + ((right - left) * (size - low)) / (2 - low); // to 100 %
      const y = (iou) => height - 40 - (height - 56) * iou;
      const places = cases.map((i, c) => [x(sizes[c]), y(this.cases[this.counts][i])]);
      const draw = () => {
        const [context, style, many] = [canvas.getContext("2d"), getComputedStyle(canvas), cases.length > 2000];
        const rule = (line, label, textAlign, textBaseline, at, top) => {
          context.fillStyle = style.getPropertyValue("--line");
          context.fillRect(...line);
          Object.assign(context, { fillStyle: style.color, textAlign, textBaseline });
          context.fillText(label, at, top);
        };
        context.clearRect(0, 0, width, height);
        Object.assign(context, { font: `${style.getPropertyValue("--text")} ${style.fontFamily}`, globalAlpha: 1 });
        for (const iou of [0, 0.5, 1]) rule([left, y(iou), right - left, 1], String(iou), "right", "middle", left - 6, y(iou));
        for (let size = low; size <= 2; size++) {
          const [align, at] = size < 2 ? ["center", x(size)] : ["right", width]; // the last one would be cut
          rule([x(size), 16, 1, height - 56], String(+(10 ** size).toFixed(6)), align, "alphabetic", at, height - 12);
        }
        Object.assign(context, { fillStyle: style.getPropertyValue("--accent"), globalAlpha: many ? 0.15 : 0.6 });
        for (const [left, top] of places) {
          context.beginPath();
          context.arc(left, top, many ? 3 : 5, 0, 2 * Math.PI);
          context.fill();
        }
      };
      canvas.addEventListener("click", (event) => {
        const [fromLeft, fromTop] = [event.offsetX, event.offsetY].map((at) => (at * width) / canvas.clientWidth);
        const far = places.map(([x, y]) => Math.hypot(x - fromLeft, y - fromTop));
        this.show(cases[far.indexOf(far.reduce((a, b) => Math.min(a, b), Infinity))]);
      });
      for (const query of ["(prefers-color-scheme: dark)", "(max-width: 40rem)"]) {
        window.matchMedia(query).addEventListener("change", draw);
      }
      draw();
    }
  }

  if (page === "board") board();
  else if (page === "compare") comparison();
  else new Cases();
})();
