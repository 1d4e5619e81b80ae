// Text of the page: names made safe, numbers with units, and elements that keep what has not changed.

const SVG = "http://www.w3.org/2000/svg";
const LONGEST_NAME = 300;
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;

/** Shows characters that are not seen, or that turn the text around them, by their code. Names are anybody's. */
export function safe(text) {
  const whole = String(text);
  const shown = whole.slice(0, LONGEST_NAME).replace(UNSEEN, it => "\\u{" + it.codePointAt(0).toString(16) + "}");
  return whole.length > LONGEST_NAME ? shown + "…" : shown;
}

const number = digits => new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const [whole, tenth] = [number(0), number(1)];

/** What is shown of a value that was not measured, and why. */
export const missing = why => ({ text: "—", why: why ?? "not measured", className: "missing" });

const known = (format, value, why) =>
  typeof value === "number" && Number.isFinite(value) ? { text: format(value), value } : missing(why);

export const count = (value, why) => known(whole.format, value, why);
export const tenths = (value, why) => known(tenth.format, value, why);
export const percent = (ratio, why) => known(it => tenth.format(it * 100) + " %", ratio, why);
export const millis = (value, why) => known(it => (it < 100 ? tenth : whole).format(it) + " ms", value, why);
export const seconds = (value, why) => known(duration, value, why);

export function duration(seconds) {
  if (seconds < 100) return tenth.format(seconds) + " s";
  if (seconds < 6000) return whole.format(seconds / 60) + " min";
  if (seconds < 172800) return whole.format(seconds / 3600) + " h";
  return whole.format(seconds / 86400) + " d";
}

/** One thing or several. */
export const counted = (number, one, many) => whole.format(number) + " " + (number === 1 ? one : many);

export function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** Sets the text where it differs: what has not changed is neither laid out nor read aloud again. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Shows a value as made above. */
export function show(node, { text, why, className = "" }) {
  setText(node, text);
  if (node.className !== className) node.className = className;
  const title = why ?? "";
  if (node.title !== title) node.title = title;
}

/** Makes as many children as there are items, and lets `update(child, item)` fill each. */
export function each(parent, items, make, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, index) => {
    if (index === parent.children.length) parent.append(make());
    update(parent.children[index], item);
  });
}

/** A line through values from the oldest to the newest; it is broken where one is null. */
export function sparkLine(className) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  svg.setAttribute("class", className);
  svg.setAttribute("viewBox", "0 0 60 20");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  svg.append(path);
  return svg;
}

export function drawSparkLine(svg, values, length) {
  const greatest = values.reduce((so, it) => Math.max(so, it ?? 0), 1);
  let line = "";
  let pen = "M";
  values.forEach((value, index) => {
    if (value === null) {
      pen = "M";
      return;
    }
    const x = (index + length - values.length) * 60 / (length - 1);
    line += pen + x.toFixed(1) + " " + (19 - 18 * value / greatest).toFixed(1);
    // A point without neighbours is a line of no length, which round caps show.
    if (pen === "M") line += "h0";
    pen = "L";
  });
  const path = svg.firstElementChild;
  if (path.getAttribute("d") !== line) path.setAttribute("d", line);
}
