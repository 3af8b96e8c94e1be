// The analytics panel: clicks go into a topic of Kafka, and the counts that a pipeline makes of them come back as events.
import { about, address, byId, element, median, milliseconds, showState } from "./common.js";
import { followCounts } from "./event_counts.js";
import { eventTracker } from "./event_tracker.js";

const tracking = { sent: 0, waiting: new Set(), counted: new Map(), middle: median() };
const buttons = document.querySelectorAll("#events-buttons button");
const track = eventTracker(address("analytics"), `visitor-${Math.random().toString(36).slice(2, 8)}`);

const rows = new Map();
const rowOf = (type) => {
  if (!rows.has(type)) {
    const row = document.createElement("tr");
    const [count, share] = [element("td"), element("td")];
    const meter = document.createElement("meter");
    meter.setAttribute("aria-label", `share of ${type}`);
    share.append(meter);
    row.append(element("td", type), count, share);
    byId("events-rows").append(row);
    rows.set(type, { count, meter });
  }
  return rows.get(type);
};

const click = async (type) => {
  const began = performance.now();
  try {
    const { partition, offset } = await track(type);
    tracking.waiting.add({ partition, offset, began });
    tracking.sent += 1;
    byId("events-sent").textContent = tracking.sent;
    byId("events-note").textContent = `Kafka has the event: partition ${partition}, offset ${offset}.`;
    measure();
  } catch (error) {
    byId("events-note").textContent = `Not sent: ${error.message}`;
  }
};

/** Take the time of clicks that are counted. The count may be here before the answer to the click is. */
const measure = () => {
  for (const click of tracking.waiting) {
    const { offset, at } = tracking.counted.get(click.partition) ?? { offset: 0 };
    if (click.offset >= offset) continue;
    tracking.waiting.delete(click);
    byId("events-latency").textContent = milliseconds(tracking.middle(at - click.began));
  }
};

const show = (counts, told) => {
  const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
  byId("events-count").textContent = total;
  for (const [type, { count, meter }] of rows) {
    if (!counts.has(type)) [count.textContent, meter.value] = ["0", 0];
  }
  for (const [type, number] of counts) {
    const { count, meter } = rowOf(type);
    count.textContent = number;
    meter.value = number / total;
  }
  tracking.counted.set(told.partition, { offset: told.offset, at: performance.now() });
  measure();
};

const { broker } = await about;
if (broker) {
  byId("events-broker").textContent = `The broker is noida-db at ${broker}: small, for trying things. docs/kafka.md does the same with Apache Kafka.`;
  buttons.forEach((button) => {
    button.disabled = false;
    button.addEventListener("click", () => click(button.dataset.event));
  });
  followCounts(address("counts"), { onCounts: show, onState: (state) => showState("events", state) });
} else {
  showState("events", "idle", "not here");
  byId("events-note").textContent = "There is no small broker. Get it with: pip install noida-db, and start the demo again.";
}
