// Follows the counts of events. No library, nothing to build.

const AGAIN = 2000;

/**
 * @param {string|URL} address of a route of the gateway with the plugin kafka-consume on the topic of counts
 * @param {{onCounts: function, onState?: function}} listener onCounts(counts, told): a Map of event type to how many, and the newest
 *   record; onState(state): "connecting" or "open"
 * @returns a function that ends it
 */
export const followCounts = (address, { onCounts, onState = () => {} }) => {
  const partitions = new Map(); // each record has all counts of one partition of the events
  let source = null;
  let timer = 0;

  const open = () => {
    source = new EventSource(address);
    source.onopen = () => onState("open");
    source.onmessage = ({ data }) => {
      const told = JSON.parse(data);
      partitions.set(told.partition, told.counts);
      const counts = new Map();
      for (const each of partitions.values()) {
        for (const [type, count] of Object.entries(each)) counts.set(type, (counts.get(type) ?? 0) + count);
      }
      onCounts(counts, told);
    };
    source.addEventListener("resync", () => partitions.clear()); // records are missing: what comes now is all there is
    source.onerror = () => {
      onState("connecting");
      if (source.readyState !== EventSource.CLOSED) return; // the browser comes back by itself
      clearTimeout(timer);
      timer = setTimeout(open, AGAIN);
    };
  };
  open();
  return () => {
    clearTimeout(timer);
    source.close();
  };
};
