// Where the page's data comes from: the only place that asks the collector for readings.

const INTERVAL = 2000;
const LONGEST_PAUSE = 30000;
const DEADLINE = 10000;

/** The token that `server.read_token_path` asks for, for as long as the tab is open. */
const TOKEN = "collector-token";

export class Unauthorized extends Error {}

function get(path) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token === null ? {} : { Authorization: "Bearer " + token };
  return fetch(path, { headers, signal: AbortSignal.timeout(DEADLINE), cache: "no-store" });
}

/** Asks for JSON. An answer with an error status is an answer too: it says what is wrong. */
export async function ask(path) {
  const answer = await get(path);
  if (answer.status === 401) throw new Unauthorized("the collector asks for a token");
  if (!answer.headers.get("content-type")?.startsWith("application/json")) {
    throw new Error(path + " answers with status " + answer.status);
  }
  return answer.json();
}

/**
 * Calls `onChanges(answer)` with what has changed since the call before, and `onError(error)` whenever that cannot be
 * had. Asks every two seconds while the page is seen, more seldom when answers take long or fail. Returns a function that
 * takes a token and asks again at once.
 */
export function watch({ onChanges, onError }) {
  let timer;
  let version = null;
  let failures = 0;
  let busy = false;

  async function poll() {
    if (busy || document.hidden) return;
    busy = true;
    clearTimeout(timer);
    const start = performance.now();
    try {
      const answer = await ask("page/changes" + (version === null ? "" : "?after=" + version));
      if (!Array.isArray(answer.models)) throw new Error(answer.error?.message ?? "the answer has no models");
      // Whoever fails to take a change gets everything the next time.
      version = null;
      onChanges(answer);
      version = answer.version;
      failures = 0;
    } catch (error) {
      failures += 1;
      onError(error);
    }
    busy = false;
    // Long answers are a burden to both sides: at most a fifth of the time goes into them.
    const pause = Math.max(INTERVAL * 2 ** Math.min(failures, 4), 4 * (performance.now() - start));
    timer = setTimeout(poll, Math.min(pause, LONGEST_PAUSE));
  }

  document.addEventListener("visibilitychange", poll);
  poll();
  return token => {
    sessionStorage.setItem(TOKEN, token);
    poll();
  };
}

/** The counters and gauges of the collector itself, by name and labels. */
export async function ownMetrics() {
  const answer = await get("page/internals");
  if (!answer.ok) throw new Error("page/internals answers with status " + answer.status);
  const metrics = new Map();
  for (const line of (await answer.text()).split("\n")) {
    const space = line.lastIndexOf(" ");
    if (space > 0 && !line.startsWith("#")) metrics.set(line.slice(0, space), Number(line.slice(space + 1)));
  }
  return metrics;
}
