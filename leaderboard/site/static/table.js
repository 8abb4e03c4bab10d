"use strict";
/* What all pages share: making elements, writing numbers, and a table that sorts, filters and shows a page of rows. */
window.promptseg = { data: null };

(function () {
  const SVG = "http://www.w3.org/2000/svg";
  const PAGE = 50;
  const collator = new Intl.Collator("en", { numeric: true });

  function dressed(made, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children); // strings become text, never markup
    return made;
  }

  promptseg.element = (tag, attributes = {}, ...children) =>
    dressed(document.createElement(tag), attributes, children);
  promptseg.shape = (tag, attributes = {}, ...children) =>
    dressed(document.createElementNS(SVG, tag), attributes, children);
  promptseg.number = (value, digits = 3) => (value === null || value === undefined ? "–" : value.toFixed(digits));
  promptseg.signed = (value) => (value === null ? "–" : (value > 0 ? "+" : "") + value.toFixed(3).replace("-", "−"));
  /* Text that breaks behind its underscores and the like, rather than anywhere. */
  promptseg.breaking = (text) => promptseg.element("span", {},
    ...text.split(/([^_./-]*[_./-]+)/).filter(Boolean).flatMap((part) => [part, promptseg.element("wbr")]));
  promptseg.different = (values) => [...new Set(values)].sort(collator.compare);

  /* data: a list for each column, all as long; columns: [{key, label, number, minor, show(index) -> text or node}];
     cards: rows become cards on a phone */
  promptseg.Table = class {
    constructor(place, { caption, data, columns, sort, descending = false, cards = false }) {
      const { element } = promptseg;
      this.data = data;
      this.columns = columns;
      this.length = data[columns[0].key].length;
      this.order = Array.from({ length: this.length }, (_, i) => i);
      this.accepts = () => true;
      this.page = 0;
      this.current = null;
      this.body = element("tbody");
      this.heads = columns.map((column) => this.head(column));
      const head = element("thead", {}, element("tr", {}, ...this.heads));
      const table = element("table", { class: cards ? "cards" : null }, element("caption", {}, caption), head, this.body);
      this.status = element("span", { role: "status" });
      [this.previous, this.next] = [["Previous page", "←", -1], ["Next page", "→", 1]].map(([label, text, by]) => {
        const button = element("button", { type: "button", "aria-label": label, title: label }, text);
        button.addEventListener("click", () => this.turn(this.page + by));
        return button;
      });
      const region = element("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: 0 }, table);
      place.append(region, element("nav", { class: "pager", "aria-label": `Pages: ${caption}` }, this.previous, this.status,
        this.next));
      this.sort(sort, descending);
    }

    head(column) {
      const button = promptseg.element("button", { type: "button" }, column.label);
      button.addEventListener("click", () => {
        const same = this.sorted === column.key;
        this.sort(column.key, same ? !this.descending : Boolean(column.descends));
      });
      return promptseg.element("th", { scope: "col", class: this.kind(column) }, button);
    }

    kind(column) {
      return ["number", "minor"].filter((kind) => column[kind]).join(" ") || null;
    }

    sort(key, descending) {
      this.sorted = key;
      this.descending = descending;
      const values = this.data[key];
      const sign = descending ? -1 : 1;
      const numbers = values.some((value) => typeof value === "number");
      const compare = numbers ? (a, b) => a - b : collator.compare;
      this.order.sort((a, b) => {
        const [x, y] = [values[a], values[b]];
        if (x === null || y === null) return (x === null) - (y === null) || a - b; // what has no value is last either way
        return sign * compare(x, y) || a - b;
      });
      this.columns.forEach((column, i) => {
        if (column.key === key) this.heads[i].setAttribute("aria-sort", descending ? "descending" : "ascending");
        else this.heads[i].removeAttribute("aria-sort");
      });
      this.filter(this.accepts);
    }

    filter(accepts) {
      this.accepts = accepts;
      this.shown = this.order.filter(accepts);
      this.turn(0);
    }

    turn(page) {
      const last = Math.max(0, Math.ceil(this.shown.length / PAGE) - 1);
      this.page = Math.min(Math.max(0, page), last);
      const from = this.page * PAGE;
      const rows = this.shown.slice(from, from + PAGE);
      this.rows = new Map(rows.map((index) => [index, this.row(index)]));
      this.body.replaceChildren(...this.rows.values());
      this.mark();
      const count = this.shown.length.toLocaleString("en");
      const of = this.shown.length < this.length ? ` (of ${this.length.toLocaleString("en")})` : "";
      this.status.textContent = rows.length ? `${from + 1}–${from + rows.length} of ${count}${of}` : `none${of}`;
      [this.previous.disabled, this.next.disabled] = [this.page === 0, this.page === last];
    }

    row(index) {
      const cells = this.columns.map((column, i) =>
        promptseg.element(i === 0 ? "th" : "td", { class: this.kind(column), scope: i === 0 ? "row" : null,
          "data-label": column.label }, column.show(index)));
      return promptseg.element("tr", {}, ...cells);
    }

    /* Mark a row and turn to its page; a page that is shown already stays, and with it what has the focus. */
    select(index) {
      this.current = index;
      const place = this.shown.indexOf(index);
      if (place >= 0 && !this.rows.has(index)) this.turn(Math.floor(place / PAGE));
      else this.mark();
    }

    mark() {
      for (const [index, row] of this.rows) {
        if (index === this.current) row.setAttribute("aria-current", "true");
        else row.removeAttribute("aria-current");
      }
    }
  };
})();
