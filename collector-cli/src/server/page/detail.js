// One model: its replicas, its variants, and where each field came from.

import { ask } from "./data.js";
import { count, counted, duration, each, element, millis, missing, percent, safe, seconds, setText, show, tenths } from "./text.js";

/** So many replicas are shown; the others are counted. */
const MOST_ROWS = 300;
/** How long a refresh interval is taken for the present one. */
const PACE_MS = 15000;

/** Fields of a replica, with what they are. */
const FIELDS = [
  ["kvCacheUsage", "KV cache", "peak, share of capacity", percent],
  ["queueLength", "Queue", "peak, requests", count],
  ["runningRequests", "Running", "requests", count],
  ["avgInputTokens", "Input", "mean, tokens per request", tenths],
  ["avgOutputTokens", "Output", "mean, tokens per request", tenths],
  ["prefixCacheHitRate", "Prefix hits", "share of queries", percent],
  ["totalKvCapacityTokens", "Capacity", "tokens", count],
  ["tokensInUse", "In use", "tokens", count],
];
const WINDOWED = new Set(["kvCacheUsage", "queueLength", "avgInputTokens", "avgOutputTokens", "prefixCacheHitRate"]);

const text = value => (value === null || value === undefined ? missing() : { text: safe(value) });

export class Detail {
  #models;
  #node;
  #key = null;
  #pace = null;
  #parts;

  constructor(node, models, onClose) {
    this.#models = models;
    this.#node = node;
    const close = element("button", "close", "Close");
    close.type = "button";
    close.setAttribute("aria-keyshortcuts", "Escape");
    close.addEventListener("click", onClose);
    const title = element("h2");
    title.id = "detail-title";
    title.tabIndex = -1;
    this.#parts = {
      title,
      under: element("p", "under"),
      notes: element("ul", "notes"),
      facts: element("dl", "facts"),
      variants: table("Variants and their allocation"),
      replicas: table("Replicas"),
      more: element("p", "under"),
      fields: table("Where the fields come from"),
    };
    const { under, notes, facts, variants, replicas, more, fields } = this.#parts;
    node.append(element("div", "title", title, close), under, notes, facts, variants, replicas, more, fields);
  }

  get key() {
    return this.#key;
  }

  open(key) {
    this.#key = key;
    this.#pace = null;
    this.#node.hidden = false;
    this.update();
    this.#node.scrollTop = 0;
    this.#parts.title.focus({ preventScroll: true });
  }

  close() {
    this.#key = null;
    this.#node.hidden = true;
  }

  update() {
    if (this.#key === null) return;
    const model = this.#models.all.get(this.#key);
    const { title, under, notes, facts, variants, replicas, more, fields } = this.#parts;
    if (!model) {
      setText(under, "It is not tracked any more.");
      for (const part of [notes, facts, variants, replicas, more, fields]) part.hidden = true;
      return;
    }
    const { item } = model;
    this.#askPace(item);
    setText(title, safe(item.model));
    setText(under, "in namespace " + safe(item.namespace));
    facts.hidden = fields.hidden = false;
    list(notes, remarks(item));
    const pairs = this.#facts(item);
    each(facts, pairs, () => element("div", "", element("dt"), element("dd")), (pair, [name, value]) => {
      setText(pair.firstElementChild, name);
      show(pair.lastElementChild, value);
    });
    this.#showVariants(variants, model.allocations);
    const rows = item.replicas ?? [];
    this.#showReplicas(replicas, item, rows.slice(0, MOST_ROWS));
    more.hidden = rows.length <= MOST_ROWS;
    setText(more, "and " + counted(rows.length - MOST_ROWS, "more replica", "more replicas"));
    fields.hidden = rows.length === 0;
    this.#showFields(fields, item, rows);
  }

  async #askPace(item) {
    const now = performance.now();
    if (this.#pace && now - this.#pace.at < PACE_MS) return;
    const asked = { at: now, answer: this.#pace?.answer };
    this.#pace = asked;
    const query = new URLSearchParams({ model: item.model, namespace: item.namespace });
    try {
      asked.answer = await ask("api/v1/pace?" + query);
    } catch {
      // That the collector does not answer is shown elsewhere.
      return;
    }
    if (this.#pace === asked) this.update();
  }

  #facts(item) {
    const pace = this.#pace?.answer;
    const ttl = pace?.ttlSeconds;
    const interval = typeof ttl === "number"
      ? { text: duration(ttl) + " (" + safe(pace.because) + ")" } : missing("not asked yet");
    if (item.error) {
      return [
        ["Status", { text: "no reading: " + safe(item.error.reason) }],
        ["Refresh interval", interval],
      ];
    }
    const age = this.#models.age(item.ageSeconds);
    let next = missing("not known yet");
    if (typeof ttl === "number") next = { text: age < ttl ? "within " + duration(ttl - age) : "due" };
    return [
      ["Status", { text: (this.#models.connected ? "" : "was ") + item.status + (item.partial ? ", partial" : "") }],
      ["Age", seconds(age)],
      ["Sampled", { text: safe(item.collectedAt) }],
      ["From", { text: safe(item.backend) + " (" + safe(item.source) + ")" }],
      ["Window", seconds(item.windowSeconds, "the backend does not report it")],
      ["Refresh interval", interval],
      ["Next refresh", next],
    ];
  }

  #showVariants(node, allocations) {
    const columns = ["Variant", "Accelerator", "Replicas", "Requests/min", "TTFT", "ITL", "Input", "Output",
      "Max batch", "Age"];
    fill(node, columns, allocations, item => {
      if (item.error) {
        const none = missing(safe(item.error.message));
        return [text(item.variant), { text: safe(item.error.message), className: "bad" }, ...Array(8).fill(none)];
      }
      const why = field => item.failed?.[field] ?? item.reasons?.[field];
      const from = (field, value) => withOrigin(value, item.marks?.[field], item);
      const sleeping = item.numSleeping > 0 ? " + " + item.numSleeping + " asleep" : "";
      const { load } = item;
      return [
        text(item.variant),
        text(item.accelerator),
        { text: count(item.numReplicas).text + sleeping },
        from("arrivalRatePerMinute", tenths(load.arrivalRatePerMinute, why("arrivalRatePerMinute"))),
        from("ttftAverageMs", millis(item.ttftAverageMs, why("ttftAverageMs"))),
        from("itlAverageMs", millis(item.itlAverageMs, why("itlAverageMs"))),
        from("avgInputTokens", tenths(load.avgInputTokens, why("avgInputTokens"))),
        from("avgOutputTokens", tenths(load.avgOutputTokens, why("avgOutputTokens"))),
        count(item.maxBatch, "not configured"),
        seconds(this.#models.age(item.ageSeconds)),
      ];
    });
  }

  #showReplicas(node, item, rows) {
    const shown = FIELDS.slice(0, 6);
    const columns = ["Pod", "Variant", ...shown.map(([, label]) => label), "TTFT p50", "p99", "ITL p50", "p99", "Age"];
    fill(node, columns, rows, row => {
      const latency = (kind, quantile) =>
        millis(row.latencies?.[kind]?.[quantile], "no histogram of it is read, or nothing was observed");
      return [
        { text: safe(row.podName) + (row.state === "sleeping" ? " (asleep)" : "") },
        row.variantName === null ? missing("no variant claims the pod") : text(row.variantName),
        ...shown.map(([field, , , format]) =>
          withOrigin(format(row[field], why(item, row, field)), row.marks?.[field], item)),
        latency("ttft", "p50Ms"), latency("ttft", "p99Ms"), latency("itl", "p50Ms"), latency("itl", "p99Ms"),
        seconds(this.#models.age(row.ageSeconds)),
      ];
    });
  }

  #showFields(node, item, rows) {
    const window = typeof item.windowSeconds === "number" ? " over " + duration(item.windowSeconds) : "";
    fill(node, ["Field", "Unit", "Measured", "From", "Why not"], FIELDS, ([field, label, unit]) => {
      const measured = rows.filter(row => typeof row[field] === "number");
      const from = new Set(measured.map(row => row.marks?.[field]?.backend ?? item.backend));
      const reasons = new Set(rows.filter(row => !measured.includes(row)).map(row => why(item, row, field) ?? "not measured"));
      return [
        { text: label },
        { text: unit + (WINDOWED.has(field) ? window : "") },
        { text: measured.length + " of " + rows.length },
        measured.length ? text([...from].join(", ")) : missing(),
        { text: [...reasons].map(safe).join("; ") },
      ];
    });
  }
}

const why = (item, row, field) => item.failed?.[field] ?? row.reasons?.[field];

/** What was measured elsewhere or earlier than its row says so. */
function withOrigin(value, mark, item) {
  if (value.value === undefined) return value;
  const origin = mark ? safe(mark.backend) + ", " + duration(mark.ageSeconds) + " old" : safe(item.backend);
  return { ...value, why: "from " + origin, className: mark ? "marked" : "" };
}

/** What else there is to know: errors with their remedy, fields that failed, warnings, and the endpoint picker. */
function remarks(item) {
  if (item.error) return [item.error.message, ...item.error.hints];
  const failed = Object.entries(item.failed ?? {}).map(([field, reason]) => field + " failed: " + reason);
  const remarks = [...failed, ...(item.warnings ?? [])];
  if (item.partial) remarks.push("some replicas may be absent");
  if (item.replicas.length === 0) remarks.push("the model is known, and has no live replica");
  return remarks;
}

function list(node, texts) {
  node.hidden = texts.length === 0;
  each(node, texts, () => element("li"), (line, text) => setText(line, safe(text)));
}

/** A table that may be wider than its place, which the keys then scroll. */
function table(caption) {
  const node = element("table", "", element("caption", "", caption), element("thead", "", element("tr")), element("tbody"));
  const frame = element("div", "frame", node);
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", caption);
  return frame;
}

function fill(frame, columns, items, cells) {
  const node = frame.firstElementChild;
  frame.hidden = items.length === 0;
  each(node.tHead.rows[0], columns, () => {
    const head = element("th");
    head.scope = "col";
    return head;
  }, setText);
  each(node.tBodies[0], items, () => element("tr"), (row, item) =>
    each(row, cells(item), () => element("td", "", element("span")), (cell, value) => show(cell.firstElementChild, value)));
}

export { fill, table };
