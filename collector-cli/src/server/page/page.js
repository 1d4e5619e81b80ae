// Puts the page together: summary, banners, list and detail, from what `data.js` receives.

import { Unauthorized, watch } from "./data.js";
import { Detail } from "./detail.js";
import { Internals } from "./internals.js";
import { List } from "./list.js";
import { Models, STATUSES } from "./models.js";
import { count, counted, each, element, missing, safe, setText, show, tenths } from "./text.js";

const byId = id => document.getElementById(id);
const time = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

const models = new Models();
const list = new List(byId("models"), models, open);
const detail = new Detail(byId("detail"), models, close);
const internals = new Internals(byId("internals-button"), byId("internals"));
/** How the collector is; null before the first answer. */
let status = null;
let lastHeard = null;
let failure = null;
/** The status of the models that are shown; null for all. */
let shown = null;

function open(key) {
  detail.open(key);
  list.opened(key);
}

function close() {
  detail.close();
  list.opened(null);
  list.focus();
}

function knownModels() {
  if (typeof status?.known === "number") return count(status.known);
  return missing(status?.discovery?.message ?? "no backend has listed its models");
}

function untracked() {
  const { known, discovery } = status ?? {};
  if (typeof known !== "number") return missing("it is not known which models there are");
  if (!discovery?.enabled) return missing("listed models are only tracked once they are read (tracking.discover)");
  return count(discovery.excluded + discovery.leftOut);
}

function summary() {
  const sum = (name, cell, format) => {
    const { value, without } = models.total(cell);
    const note = without > 0 ? counted(without, "model", "models") + " without" : "";
    return [name, format(value, "no model reports it"), note];
  };
  const rows = [
    ["Models", count(models.all.size), status ? "tracked" : ""],
    sum("Replicas", "replicas", count),
    sum("Queue", "queue", count),
    sum("Requests/min", "rate", tenths),
    ["Known", knownModels(), ""],
    ["Not tracked", untracked(), ""],
  ];
  const make = () => element("div", "", element("dt"), element("dd", "", element("span"), element("small")));
  each(byId("summary"), rows, make, (tile, [name, value, note]) => {
    const [term, data] = tile.children;
    setText(term, name);
    show(data.firstElementChild, value);
    setText(data.lastElementChild, note);
  });
}

function statuses() {
  const counts = new Map(STATUSES.map(name => [name, 0]));
  for (const { cells } of models.all.values()) counts.set(cells.status, (counts.get(cells.status) ?? 0) + 1);
  const make = () => {
    const button = element("button", "", element("span", "dot"), element("span"));
    button.type = "button";
    button.addEventListener("click", () => {
      shown = shown === button.dataset.status ? null : button.dataset.status;
      list.filter(shown);
      statuses();
      nothing();
    });
    return button;
  };
  const some = [...counts].filter(([name, number]) => number > 0 || name === "fresh" || name === shown).reverse();
  each(byId("statuses"), some, make, (button, [name, number]) => {
    button.dataset.status = name;
    button.firstElementChild.className = "dot " + name;
    button.setAttribute("aria-pressed", name === shown);
    setText(button.lastElementChild, count(number).text + " " + name);
  });
}

/** What is wrong, from the worst on. No seconds: a text that changes all the time is read aloud all the time. */
function banners() {
  if (!models.connected) {
    if (failure === null) return [];
    const since = lastHeard ? "since " + time.format(lastHeard) + "; what follows is from before" : "";
    return [["bad", "Not connected to the collector " + since + " (" + failure + ")"]];
  }
  const found = [];
  const { backends, discovery, configuration, ready } = status;
  if (configuration.error) {
    found.push(["bad", "The configuration was not reloaded, the one before is in use: " + configuration.error]);
  }
  if (configuration.restartFor.length > 0) {
    found.push(["warn", "Takes effect after a restart: " + configuration.restartFor.join(", ")]);
  }
  for (const { name, state, breaker, lastError } of backends) {
    if (state !== "down") continue;
    const circuit = breaker === "closed" ? "" : " (its circuit is " + breaker + ")";
    found.push(["bad", "The backend " + name + " is down" + circuit + ": " + lastError]);
  }
  const notFresh = [...models.all.values()].filter(({ cells }) => cells.status !== "fresh").length;
  if (notFresh > 0) found.push(["warn", counted(notFresh, "model has", "models have") + " no fresh reading"]);
  if (!ready) found.push(["warn", "The collector is starting: not every backend has answered yet"]);
  if (discovery?.message) found.push(["warn", discovery.message]);
  return found;
}

function showBanners() {
  each(byId("banners"), banners(), () => element("p"), (banner, [kind, text]) => {
    banner.className = kind;
    setText(banner, safe(text));
  });
}

function nothing() {
  const note = byId("nothing");
  note.hidden = list.length > 0 || (!models.connected && failure === null);
  setText(note, models.all.size > 0 ? "No model matches." : "No model is tracked.");
}

function showAll() {
  document.body.classList.toggle("disconnected", !models.connected);
  const connection = models.connected ? "connected" : "not connected";
  setText(byId("connection"), connection);
  summary();
  statuses();
  showBanners();
  list.update();
  nothing();
  detail.update();
  if (status) internals.update(status.backends);
}

const useToken = watch({
  onChanges(changes) {
    byId("access").hidden = true;
    failure = null;
    lastHeard = new Date();
    status = changes.status;
    models.take(changes);
    detail.ask();
    showAll();
  },
  onError(error) {
    byId("access").hidden = !(error instanceof Unauthorized);
    failure = error.message;
    models.lose();
    showAll();
  },
});

byId("access").addEventListener("submit", event => {
  event.preventDefault();
  useToken(byId("token").value.trim());
  byId("token").value = "";
});

// Ages grow between readings.
setInterval(() => {
  if (document.hidden) return;
  models.version += 1;
  list.draw();
  detail.update();
}, 1000);

const search = byId("search");
search.addEventListener("input", () => {
  list.search(search.value);
  nothing();
});

document.addEventListener("keydown", event => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "/" && event.target !== search) {
    event.preventDefault();
    search.select();
    search.focus();
  } else if (event.key === "Escape") {
    if (detail.key !== null) close();
    else if (event.target === search) {
      search.value = "";
      list.search("");
      nothing();
      list.focus();
    }
  } else if (event.key === "ArrowDown" && event.target === search) {
    event.preventDefault();
    list.focus();
  }
});
