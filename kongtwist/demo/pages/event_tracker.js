// Sends the events of a page. No library, nothing to build.

/**
 * @param {string|URL} address of a route of the gateway with the plugin kafka-upstream
 * @param {string} userId whose events they are
 * @returns a function that sends an event of a type. Its promise gives what the gateway answers, with topic, partition and offset
 *   where the plugin waits for the broker; it fails where the event is not in the topic, or may not be.
 */
export const eventTracker = (address, userId) => async (eventType) => {
  const event = { event_type: eventType, user_id: userId, page: location.pathname, at: Date.now() };
  const answer = await fetch(address, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(event),
    keepalive: true, // goes out even when the page is left
  });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error ?? told.message ?? `status ${answer.status}`);
  return told;
};
