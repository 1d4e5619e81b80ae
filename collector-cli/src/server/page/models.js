// The models as the page knows them: a summary of each reading, and the last values of its queue.

import { count, missing, percent, tenths } from "./text.js";

/** So many values of each model's queue are kept. */
export const HISTORY = 60;

/** From the worst to the best. */
export const STATUSES = ["failed", "missing", "unavailable", "stale", "pending", "fresh"];

export const keyOf = item => JSON.stringify([item.namespace, item.model]);

/**
 * A total of the replicas; unknown as soon as one of them is: a total without it would be a wrong number.
 */
function total(item, replicas, field, add) {
  const values = replicas.map(row => row[field]).filter(value => typeof value === "number");
  if (replicas.length === 0) return missing("no live replica");
  if (values.length < replicas.length) {
    const without = replicas.find(row => typeof row[field] !== "number");
    const reason = item.failed?.[field] ?? without.reasons?.[field];
    return missing((replicas.length - values.length) + " of " + replicas.length + " replicas report none"
      + (reason ? ": " + reason : ""));
  }
  return add(values);
}

const sum = values => values.reduce((so, value) => so + value, 0);

function statusOf(item) {
  if (!item.error) return item.status;
  switch (item.error.reason) {
    case "MetricsMissing": return "missing";
    case "MetricsStale": return "unavailable";
    case "MetricsPending": return "pending";
    default: return "failed";
  }
}

function arrivalRate(allocations) {
  if (allocations.length === 0) return missing("no variant of the model is tracked, and rates are those of variants");
  const without = allocations.find(item => typeof item.load?.arrivalRatePerMinute !== "number");
  if (without) {
    const why = without.error?.message ?? without.failed?.arrivalRatePerMinute
      ?? without.reasons?.arrivalRatePerMinute;
    return missing("unknown for a variant" + (why ? ": " + why : ""));
  }
  return tenths(sum(allocations.map(item => item.load.arrivalRatePerMinute)));
}

function summarise(item, allocations) {
  const status = statusOf(item);
  const cells = { status };
  if (item.error) {
    const none = missing(item.error.message);
    return Object.assign(cells, { replicas: none, queue: none, kv: none, rate: none, partial: false });
  }
  const { replicas } = item;
  const serving = replicas.filter(row => row.state !== "sleeping");
  cells.partial = item.partial;
  cells.replicas = count(replicas.length);
  cells.queue = total(item, replicas, "queueLength", values => count(sum(values)));
  cells.kv = total(item, serving, "kvCacheUsage", values => percent(sum(values) / values.length));
  cells.rate = arrivalRate(allocations);
  return cells;
}

export class Models {
  /** By key. */
  all = new Map();
  receivedAt = 0;
  connected = false;
  /** Grows with each change of what is shown. */
  version = 0;

  /** Takes all readings; a model that is not among them is gone. */
  take({ replicas, allocations }) {
    const variants = Map.groupBy(allocations, keyOf);
    const before = this.all;
    this.all = new Map();
    this.receivedAt = performance.now();
    this.connected = true;
    this.version += 1;
    for (const item of replicas) {
      const key = keyOf(item);
      const ofModel = variants.get(key) ?? [];
      const model = before.get(key) ?? { key, history: [], searched: (item.model + "\n" + item.namespace).toLowerCase() };
      Object.assign(model, { item, allocations: ofModel, cells: summarise(item, ofModel) });
      model.history.push(model.cells.queue.value ?? null);
      if (model.history.length > HISTORY) model.history.shift();
      this.all.set(key, model);
    }
  }

  /** No readings can be had: those there are from before. */
  lose() {
    this.connected = false;
    this.version += 1;
  }

  /** The age of a reading by now; it goes on while the collector is silent. */
  age(seconds) {
    return typeof seconds === "number" ? seconds + (performance.now() - this.receivedAt) / 1000 : null;
  }

  /** The sum of a cell over the models, and how many of them do not have it. */
  total(cell) {
    let [value, without, any] = [0, 0, false];
    for (const { cells } of this.all.values()) {
      if (cells[cell].value === undefined) {
        without += 1;
      } else {
        value += cells[cell].value;
        any = true;
      }
    }
    return { value: any ? value : null, without };
  }
}
