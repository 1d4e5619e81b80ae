// The collector itself: its cache, its backends with their circuits, and the queries of autoscalers.

import { ownMetrics } from "./data.js";
import { fill, table } from "./detail.js";
import { count, duration, each, element, missing, percent, safe, setText, show } from "./text.js";

const INTERVAL = 5000;

export class Internals {
  #button;
  #node;
  #backends = table("Backends");
  #groups = element("div", "groups");
  #error = element("p", "bad");
  #timer;

  constructor(button, node) {
    this.#button = button;
    this.#node = node;
    node.append(this.#error, this.#groups, this.#backends);
    button.addEventListener("click", () => this.toggle());
  }

  toggle() {
    this.#node.hidden = !this.#node.hidden;
    this.#button.setAttribute("aria-expanded", !this.#node.hidden);
    clearTimeout(this.#timer);
    if (!this.#node.hidden) this.#ask();
  }

  async #ask() {
    clearTimeout(this.#timer);
    if (!document.hidden) {
      try {
        this.#showMetrics(await ownMetrics());
        setText(this.#error, "");
      } catch (error) {
        setText(this.#error, "the counters are from before: " + safe(error.message));
      }
    }
    if (!this.#node.hidden) this.#timer = setTimeout(() => this.#ask(), INTERVAL);
  }

  /** Shows the backends. */
  update(backends) {
    const columns = ["Backend", "State", "Circuit", "Fetches failed", "Last success", "Requests", "In flight",
      "Budget", "Last error"];
    fill(this.#backends, columns, backends, it => [
      { text: safe(it.name) },
      { text: it.state, className: it.state === "down" ? "bad" : "" },
      {
        text: it.breaker + (it.retryInSeconds === null ? "" : ", tried again in " + duration(it.retryInSeconds)),
        className: it.breaker === "closed" ? "" : "bad",
      },
      { text: it.recentFailures + " of the last " + it.recentLooks },
      it.lastSuccessAgeSeconds === null ? missing("none yet") : { text: duration(it.lastSuccessAgeSeconds) + " ago" },
      count(it.requests),
      { text: it.requestsInFlight + " of " + it.maxRequestsInFlight },
      { text: it.requestsPerSecond === null ? "no limit" : it.burstLeft + " now, " + it.requestsPerSecond + " a second" },
      { text: it.lastError === null ? "none" : safe(it.lastError), className: it.lastError === null ? "" : "bad" },
    ]);
  }

  #showMetrics(metrics) {
    const one = name => count(metrics.get(name), "the collector does not report it");
    const sum = (family, label = "") => {
      let found = null;
      for (const [series, value] of metrics) {
        if (series.startsWith(family + "{") && series.includes(label)) found = (found ?? 0) + value;
      }
      return found;
    };
    const [hits, misses] = ["hits", "misses"].map(it => metrics.get("collector_cache_" + it + "_total"));
    const bytes = metrics.get("collector_cache_bytes");
    const unused = "switched off, or not used yet";
    const groups = [
      ["Cache", [
        ["Entries", one("collector_cache_entries")],
        ["Size", bytes === undefined ? missing() : { text: count(Math.ceil(bytes / 1024)).text + " KiB" }],
        ["Hits", one("collector_cache_hits_total")],
        ["Misses", one("collector_cache_misses_total")],
        ["Hit rate", hits + misses > 0 ? percent(hits / (hits + misses)) : missing("nothing was read yet")],
        ["Served stale", one("collector_cache_stale_serves_total")],
        ["Evicted", one("collector_cache_evictions_total")],
      ]],
      ["Refreshing", [
        ["Cycles", one("collector_background_cycles_total")],
        ["Cycles skipped", count(sum("collector_background_cycles_skipped_total"))],
        ["Requests to backends", count(sum("collector_backend_requests_total"))],
        ["Updates pushed", count(sum("collector_backend_pushes_total"))],
        ["Panics caught", one("collector_panics_total")],
      ]],
      ["Autoscalers", [
        ["PromQL queries", count(sum("collector_promql_requests_total"), unused)],
        ["of these refused", count(sum("collector_promql_requests_total", 'outcome="refused"'), unused)],
        ["of these failed", count(sum("collector_promql_requests_total", 'outcome="failed"'), unused)],
        ["KEDA calls", count(sum("collector_keda_calls_total"), unused)],
        ["KEDA streams", count(metrics.get("collector_keda_streams"), unused)],
      ]],
    ];
    each(this.#groups, groups, () => element("section", "", element("h2"), element("dl")), (group, [name, pairs]) => {
      setText(group.firstElementChild, name);
      each(group.lastElementChild, pairs, () => element("div", "", element("dt"), element("dd")), (pair, [label, value]) => {
        setText(pair.firstElementChild, label);
        show(pair.lastElementChild, value);
      });
    });
  }
}
