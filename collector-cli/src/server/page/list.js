// The list of models: sorted, filtered, and drawn only where it is seen.

import { HISTORY, STATUSES } from "./models.js";
import { drawSparkLine, element, safe, seconds, setText, show, sparkLine } from "./text.js";

/** Rows drawn above and below what is seen, so that scrolling does not uncover nothing. */
const SPARE = 6;

const byNumber = cell => model => model.cells[cell].value ?? null;
const showCell = cell => (node, model) => show(node, model.cells[cell]);

const COLUMNS = [
  {
    name: "status",
    label: "Status",
    order: model => STATUSES.indexOf(model.cells.status),
    make: cell => cell.append(element("span", "dot"), element("span", "word")),
    fill(cell, { cells }, models) {
      const [dot, word] = cell.children;
      dot.className = "dot " + (models.connected ? cells.status : "before");
      setText(word, (models.connected ? "" : "was ") + cells.status + (cells.partial ? ", partial" : ""));
    },
  },
  {
    name: "model",
    label: "Model",
    order: model => model.searched,
    make: cell => cell.append(element("bdi", "name"), element("bdi", "under")),
    fill(cell, model) {
      const [name, under] = cell.children;
      setText(name, safe(model.name));
      setText(under, safe(model.namespace) + (model.error ? ": " + safe(model.error) : ""));
      const title = safe(model.error ?? model.name);
      if (cell.title !== title) cell.title = title;
    },
  },
  { name: "replicas", label: "Replicas", order: byNumber("replicas"), fill: showCell("replicas") },
  {
    name: "queue",
    label: "Queue",
    order: byNumber("queue"),
    make: cell => cell.append(sparkLine("spark"), element("span")),
    fill(cell, model) {
      const [line, text] = cell.children;
      drawSparkLine(line, model.history, HISTORY);
      show(text, model.cells.queue);
    },
  },
  {
    name: "kv",
    label: "KV cache",
    order: byNumber("kv"),
    make: cell => cell.append(element("span", "bar", element("span")), element("span")),
    fill(cell, { cells }) {
      const [bar, text] = cell.children;
      const ratio = cells.kv.value;
      bar.hidden = ratio === undefined;
      bar.className = ratio > 0.9 ? "bar full" : "bar";
      bar.firstElementChild.style.setProperty("transform", "scaleX(" + Math.min(ratio ?? 0, 1).toFixed(3) + ")");
      show(text, cells.kv);
    },
  },
  { name: "rate", label: "Requests/min", order: byNumber("rate"), fill: showCell("rate") },
  {
    name: "age",
    label: "Age",
    order: (model, models) => models.age(model),
    fill: (cell, model, models) => show(cell, seconds(models.age(model), model.error)),
  },
];

export class List {
  #models;
  #table;
  #onOpen;
  #query = "";
  #status = null;
  #sort = { column: COLUMNS[0], descending: false };
  #shown = [];
  /** The model that the keys are on. */
  #active = null;
  #opened = null;
  #rows = new Map();
  #above = spacer();
  #below = spacer();
  #made = 0;

  constructor(table, models, onOpen) {
    this.#models = models;
    this.#table = table;
    this.#onOpen = onOpen;
    table.tHead.append(this.#head());
    table.tBodies[0].append(this.#above, this.#below);
    table.addEventListener("keydown", event => this.#key(event));
    table.tBodies[0].addEventListener("click", event => {
      const row = event.target.closest("tr[id]");
      if (row) this.#open(row.dataset.key);
    });
    let scheduled = false;
    const draw = () => {
      if (scheduled) return;
      scheduled = true;
      requestAnimationFrame(() => {
        scheduled = false;
        this.draw();
      });
    };
    addEventListener("scroll", draw, { passive: true });
    addEventListener("resize", draw);
    // What is above the list may open and close.
    new ResizeObserver(draw).observe(document.body);
  }

  search(query) {
    this.#query = query.trim().toLowerCase();
    this.update();
  }

  /** Shows the models with this status, or all for null. */
  filter(status) {
    this.#status = status;
    this.update();
  }

  opened(key) {
    this.#opened = key;
    this.draw();
  }

  focus() {
    this.#table.focus({ preventScroll: true });
  }

  /** Filters and sorts again, and draws. */
  update() {
    const words = this.#query.split(/\s+/);
    const { column, descending } = this.#sort;
    const sign = descending ? -1 : 1;
    this.#shown = [...this.#models.all.values()]
      .filter(model => this.#status === null || model.cells.status === this.#status)
      .filter(model => words.every(word => model.searched.includes(word)))
      .map(model => [column.order(model, this.#models), model])
      .sort(([a, first], [b, second]) => {
        // What is not known is neither little nor much: it comes last either way.
        if ((a === null) !== (b === null)) return a === null ? 1 : -1;
        if (a !== b) return a < b ? -sign : sign;
        return first.searched < second.searched ? -1 : 1;
      })
      .map(([, model]) => model);
    this.#table.setAttribute("aria-rowcount", this.#shown.length + 1);
    this.draw();
  }

  get length() {
    return this.#shown.length;
  }

  /** Draws the rows that are seen. */
  draw() {
    const body = this.#table.tBodies[0];
    const height = parseFloat(getComputedStyle(this.#table).getPropertyValue("--row"));
    const top = -body.getBoundingClientRect().top;
    const first = Math.min(Math.max(0, Math.floor(top / height) - SPARE), this.#shown.length);
    const last = Math.max(first, Math.min(this.#shown.length, Math.ceil((top + innerHeight) / height) + SPARE));
    const seen = this.#shown.slice(first, last);
    const keys = new Set(seen.map(model => model.key));
    const free = [...this.#rows].filter(([key]) => !keys.has(key));
    for (const [key] of free) this.#rows.delete(key);

    this.#above.style.setProperty("height", first * height + "px");
    this.#below.style.setProperty("height", (this.#shown.length - last) * height + "px");
    let next = this.#above.nextSibling;
    seen.forEach((model, offset) => {
      const row = this.#rows.get(model.key) ?? free.pop()?.[1] ?? this.#row();
      this.#rows.set(model.key, row);
      this.#fill(row, model, first + offset);
      if (row === next) next = row.nextSibling;
      else body.insertBefore(row, next);
    });
    for (const [, row] of free) row.remove();

    const active = this.#rows.get(this.#active);
    if (active) this.#table.setAttribute("aria-activedescendant", active.id);
    else this.#table.removeAttribute("aria-activedescendant");
  }

  #head() {
    const row = element("tr");
    row.setAttribute("aria-rowindex", 1);
    for (const column of COLUMNS) {
      const button = element("button", "", column.label);
      button.type = "button";
      const head = element("th", column.name, button);
      head.scope = "col";
      button.addEventListener("click", () => {
        const descending = this.#sort.column === column && !this.#sort.descending;
        this.#sort = { column, descending };
        this.#showSort(row);
        this.update();
      });
      row.append(head);
    }
    this.#showSort(row);
    return row;
  }

  #showSort(row) {
    COLUMNS.forEach((column, index) => {
      const { column: sorted, descending } = this.#sort;
      const state = sorted !== column ? "none" : descending ? "descending" : "ascending";
      row.children[index].setAttribute("aria-sort", state);
    });
  }

  #row() {
    const row = element("tr");
    row.id = "model-" + this.#made++;
    for (const column of COLUMNS) {
      const cell = element("td", column.name);
      // The element that is shown in may get another class.
      const inside = column.make ? cell : element("span");
      if (column.make) column.make(cell);
      else cell.append(inside);
      row.append(cell);
    }
    return row;
  }

  #fill(row, model, index) {
    row.setAttribute("aria-rowindex", index + 2);
    row.setAttribute("aria-selected", model.key === this.#opened);
    row.classList.toggle("active", model.key === this.#active);
    const version = this.#models.version;
    if (row.dataset.key === model.key && row.version === version) return;
    row.dataset.key = model.key;
    row.version = version;
    row.classList.toggle("error", model.error !== undefined);
    COLUMNS.forEach((column, index) => {
      const cell = row.children[index];
      column.fill(column.make ? cell : cell.firstElementChild, model, this.#models);
    });
  }

  #open(key) {
    this.#active = key;
    this.#onOpen(key);
  }

  #key(event) {
    if (event.target !== this.#table || event.altKey || event.ctrlKey || event.metaKey) return;
    const at = this.#shown.findIndex(model => model.key === this.#active);
    const end = this.#shown.length - 1;
    const to = {
      ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + 10, PageUp: at - 10, Home: 0, End: end,
    }[event.key];
    if (to !== undefined && end >= 0) {
      event.preventDefault();
      const index = Math.min(Math.max(to, 0), end);
      this.#active = this.#shown[index].key;
      this.#reveal(index);
      this.draw();
    } else if (event.key === "Enter" && at >= 0) {
      event.preventDefault();
      this.#open(this.#active);
    }
  }

  /** Scrolls by as much as it takes to see a row below the head of the table. */
  #reveal(index) {
    const height = parseFloat(getComputedStyle(this.#table).getPropertyValue("--row"));
    const top = this.#table.tBodies[0].getBoundingClientRect().top + index * height;
    const above = top - this.#table.tHead.offsetHeight;
    const below = top + height - innerHeight;
    if (above < 0) scrollBy(0, above);
    else if (below > 0) scrollBy(0, below);
  }
}

function spacer() {
  const row = element("tr", "spacer");
  row.setAttribute("aria-hidden", "true");
  return row;
}
