// The models as the page knows them: what was last received of each, and the last values of its queue.

import { count, missing, percent, tenths } from "./text.js";

/** So many values of each model's queue are kept. */
export const HISTORY = 60;
/** After a longer pause the line through these values is broken. */
const PAUSE_MS = 15000;

/** From the worst to the best. */
export const STATUSES = ["failed", "missing", "unavailable", "stale", "pending", "fresh"];

function cellsOf(row) {
  const { status, partial, error, why = {} } = row;
  const cell = (name, format) => format(row[name], error ?? why[name]);
  return {
    status,
    partial,
    replicas: row.supply ? { ...cell("replicas", count), why: "in the cluster: " + row.supply } : cell("replicas", count),
    queue: cell("queue", count),
    kv: cell("kv", percent),
    rate: cell("rate", tenths),
  };
}

export class Models {
  /** By key, which is the name: ids are those of one process of the collector. */
  all = new Map();
  connected = false;
  /** Grows with each change of what is shown. */
  version = 0;
  #byId = new Map();
  #receivedAt = -Infinity;

  /** Takes what has changed. */
  take({ all, models, removed }) {
    const now = performance.now();
    const before = this.all;
    if (all) {
      this.all = new Map();
      this.#byId = new Map();
    }
    for (const { id, age, model: name, namespace, row } of models) {
      let model = this.#byId.get(id);
      if (name !== undefined) {
        const key = JSON.stringify([namespace, name]);
        const searched = (name + "\n" + namespace).toLowerCase();
        model = { key, id, name, namespace, searched, history: before.get(key)?.history ?? [] };
        this.#byId.set(id, model);
        this.all.set(key, model);
      }
      if (row !== undefined) Object.assign(model, { error: row.error, cells: cellsOf(row) });
      Object.assign(model, { age, receivedAt: now });
    }
    for (const id of removed) {
      const model = this.#byId.get(id);
      this.#byId.delete(id);
      if (this.all.get(model?.key) === model) this.all.delete(model?.key);
    }
    const paused = now - this.#receivedAt > PAUSE_MS;
    for (const { history, cells } of this.all.values()) {
      if (paused && history.length > 0) history.push(null);
      history.push(cells.queue.value ?? null);
      history.splice(0, history.length - HISTORY);
    }
    this.#receivedAt = now;
    this.connected = true;
    this.version += 1;
  }

  /** Nothing can be had: what there is is from before. */
  lose() {
    this.connected = false;
    this.version += 1;
  }

  /** The age of the oldest sample of a model by now; it goes on while the collector is silent. */
  age({ age, receivedAt }) {
    return typeof age === "number" ? age + (performance.now() - receivedAt) / 1000 : null;
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
