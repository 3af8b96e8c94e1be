// The two Node clients of the live tests; what they saw goes out as one line of JSON.
//   node client.mjs ws URL [SUBPROTOCOL]     text, binary, large message, ping, close
//   node client.mjs sse URL COUNT            COUNT events, then a reconnect when the server ends the stream
import { EventSource } from "eventsource";
import WebSocket from "ws";

const [kind, url, extra] = process.argv.slice(2);
const deadline = setTimeout(() => tell({ error: "not in time" }, 1), 50_000);

let told = false;

function tell(seen, code = 0) {
  // once: events that came in one piece with the last one wanted are still handed out
  if (told) return;
  told = true;
  clearTimeout(deadline);
  process.stdout.write(`${JSON.stringify(seen)}\n`, () => process.exit(code));
}

if (kind === "ws") {
  const socket = new WebSocket(url, extra ? [extra, "other"] : [], { perMessageDeflate: true });
  const seen = { messages: [], pong: false };
  const large = "0123456789abcdef".repeat(40_000);
  socket.on("open", () => {
    seen.protocol = socket.protocol;
    seen.extensions = socket.extensions;
    socket.ping("are you there");
    socket.send("hello \u00fc\u4e16");
    socket.send(Buffer.from([0, 1, 2, 255]));
    socket.send(large);
  });
  socket.on("pong", (data) => (seen.pong = data.toString()));
  socket.on("message", (data, isBinary) => {
    const text = isBinary ? [...data] : data.toString();
    seen.messages.push(text === large ? "the large one" : text);
    if (seen.messages.length === 3) socket.send("close");
  });
  socket.on("close", (code, reason) => tell({ ...seen, code, reason: reason.toString() }));
  socket.on("error", (error) => tell({ error: error.message }, 1));
} else {
  const source = new EventSource(url);
  const ids = [];
  let opened = 0;
  source.onopen = () => (opened += 1);
  const see = (event) => {
    ids.push(event.lastEventId);
    // the first event is told at once, for a test that waits for it
    if (ids.length === 1) process.stderr.write("first event\n");
    if (ids.length >= Number(extra)) {
      source.close();
      tell({ ids, opened });
    }
  };
  source.onmessage = see;
  source.addEventListener("trade", see);
}
