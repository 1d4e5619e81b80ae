// One model: its replicas, its variants, and where each field came from.

import { ask } from "./data.js";
import { count, counted, duration, each, element, millis, missing, percent, safe, seconds, setText, show, tenths } from "./text.js";

/** So many replicas are shown; the others are counted. */
const MOST_ROWS = 300;

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
  /** `{replicas, allocations, pace}` of the opened model, when they were received, and why they are not newer. */
  #received = null;
  #failure = null;
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
    this.#received = null;
    this.#failure = null;
    this.#node.hidden = false;
    this.update();
    this.ask();
    this.#node.scrollTop = 0;
    this.#parts.title.focus({ preventScroll: true });
  }

  close() {
    this.#key = null;
    this.#node.hidden = true;
  }

  /** Asks for the opened model again. */
  async ask() {
    const key = this.#key;
    const model = this.#models.all.get(key);
    if (!model) return;
    try {
      const answer = await ask("page/model?id=" + model.id);
      if (this.#key !== key) return;
      const { replicas: item } = answer;
      // An id of another process may be that of another model.
      if (item?.model !== model.name || item.namespace !== model.namespace) return;
      this.#received = { ...answer, at: performance.now() };
      this.#failure = null;
    } catch (error) {
      if (this.#key !== key) return;
      this.#failure = error.message;
    }
    this.update();
  }

  update() {
    if (this.#key === null) return;
    const { title, under, notes, facts, variants, replicas, more, fields } = this.#parts;
    const [namespace, name] = JSON.parse(this.#key);
    setText(title, safe(name));
    const gone = !this.#models.all.has(this.#key);
    setText(under, "in namespace " + safe(namespace) + (gone ? "; it is not tracked any more" : ""));
    if (!this.#received) {
      list(notes, this.#failure === null || gone ? [] : ["it cannot be read: " + this.#failure]);
      for (const part of [facts, variants, replicas, more, fields]) part.hidden = true;
      return;
    }
    const { replicas: item, allocations, pace } = this.#received;
    const before = this.#failure === null ? [] : ["what follows is from before: " + this.#failure];
    list(notes, [...before, ...remarks(item)]);
    facts.hidden = false;
    const pairs = this.#facts(item, pace);
    each(facts, pairs, () => element("div", "", element("dt"), element("dd")), (pair, [name, value]) => {
      setText(pair.firstElementChild, name);
      show(pair.lastElementChild, value);
    });
    this.#showVariants(variants, allocations);
    const rows = item.replicas ?? [];
    this.#showReplicas(replicas, item, rows.slice(0, MOST_ROWS));
    more.hidden = rows.length <= MOST_ROWS;
    setText(more, "and " + counted(rows.length - MOST_ROWS, "more replica", "more replicas"));
    fields.hidden = rows.length === 0;
    this.#showFields(fields, item, rows);
  }

  /** An age that was received, by now. */
  #age(seconds) {
    return typeof seconds === "number" ? seconds + (performance.now() - this.#received.at) / 1000 : null;
  }

  #facts(item, pace) {
    const ttl = pace.ttlSeconds;
    const interval = { text: duration(ttl) + " (" + safe(pace.because) + ")" };
    if (item.error) {
      return [
        ["Status", { text: "no reading: " + safe(item.error.reason) }],
        ["Refresh interval", interval],
      ];
    }
    const age = this.#age(item.ageSeconds);
    return [
      ["Status", { text: (this.#models.connected ? "" : "was ") + item.status + (item.partial ? ", partial" : "") }],
      ["Age", seconds(age)],
      ["Sampled", { text: safe(item.collectedAt).replace("T", " ").replace("Z", " UTC") }],
      ["From", { text: safe(item.backend) + " (" + safe(item.source) + ")" }],
      ...supplyFacts(item.supply, seconds(this.#age(item.supply?.ageSeconds)).text),
      ["Window", seconds(item.windowSeconds, "the backend does not report it")],
      ["Refresh interval", interval],
      ["Next refresh", { text: age < ttl ? "in " + duration(ttl - age) + " at the latest" : "due" }],
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
        seconds(this.#age(item.ageSeconds)),
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
        { text: safe(row.podName) + (STATES[row.state] ? " (" + STATES[row.state] + ")" : "") },
        row.variantName === null ? missing("no variant claims the pod") : text(row.variantName),
        ...shown.map(([field, , , format]) =>
          withOrigin(format(row[field], why(item, row, field)), row.marks?.[field], item)),
        latency("ttft", "p50Ms"), latency("ttft", "p99Ms"), latency("itl", "p50Ms"), latency("itl", "p99Ms"),
        seconds(this.#age(row.ageSeconds)),
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

/** What the cluster lists, if one is asked: so many pods in each state. */
function supplyFacts(supply, age) {
  if (!supply) return [];
  const { ready, wanted, starting, notReady, sleeping, terminating, silent } = supply;
  const states = [[starting, "starting"], [notReady, "not ready"], [sleeping, "sleeping"], [terminating, "terminating"],
    [silent.length, "ready without metrics"]];
  const others = states.filter(([number]) => number > 0).map(([number, state]) => ", " + number + " " + state);
  const asked = wanted === null ? "" : " of " + wanted;
  return [["Cluster", { text: ready + asked + " ready" + others.join("") + " (" + age + " ago)" }]];
}

/** What a state other than serving is called. */
const STATES = { sleeping: "asleep", starting: "starting", notReady: "not ready", terminating: "terminating" };

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
