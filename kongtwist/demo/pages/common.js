// What the parts of the demo page share. All addresses are relative to the page.
export const byId = (id) => document.getElementById(id);
export const here = new URL(".", location.href);
export const address = (path, scheme = "") => {
  const url = new URL(path, here);
  if (scheme) url.protocol = location.protocol === "https:" ? `${scheme}s:` : `${scheme}:`;
  return url;
};
/** What the demo tells about itself. */
export const about = fetch(address("about.json")).then((answer) => answer.json());
export const element = (tag, text = "", className = "") => {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
};
export const showState = (panel, state, text = state) => {
  const shown = byId(`${panel}-state`);
  if (shown.textContent !== text) shown.textContent = text;
  shown.dataset.state = state;
};
/** Milliseconds since the epoch, finer than Date.now(). */
export const now = () => performance.timeOrigin + performance.now();
export const milliseconds = (value) => (value < 10 ? `${value.toFixed(1)} ms` : `${Math.round(value)} ms`);

/** The middle of the last few values: one slow sample does not make the figure jump. */
export const median = (kept = 9) => {
  const values = [];
  return (value) => {
    values.push(value);
    if (values.length > kept) values.shift();
    return [...values].sort((a, b) => a - b)[values.length >> 1];
  };
};
