// The demo page: a WebSocket and an EventSource, both through the gateway; readings.js adds gRPC, tracking.js Kafka.
import { about as told, address, byId, element, here, median, milliseconds, now, showState } from "./common.js";

// -- chat ------------------------------------------------------------------------------------------------------------

const chat = { socket: null, name: "", count: 0, attempts: 0, lastLine: 0, sent: new Map(), token: 0, middle: median() };

const addLine = ({ id, name, text, at }) => {
  if (id <= chat.lastLine) return; // known from before a reconnect
  chat.lastLine = id;
  const log = byId("chat-log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const line = element("li", "", name === chat.name ? "mine" : "");
  const when = new Date(at);
  const time = element("time", when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" }));
  time.dateTime = when.toISOString();
  line.append(element("b", name), time, element("span", text));
  log.append(line);
  while (log.children.length > 200) log.firstChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
};

const hear = {
  welcome(message) {
    const isNewServer = message.history.length > 0 ? message.history.at(-1).id < chat.lastLine : chat.lastLine > 0;
    if (isNewServer) chat.lastLine = 0;
    chat.name = message.name;
    message.history.forEach(addLine);
    byId("chat-name").placeholder = message.name;
    if (byId("chat-name").value.trim()) introduce();
  },
  presence(message) {
    byId("chat-members").textContent = message.members.length;
    byId("chat-members").title = message.members.join(", ");
  },
  message: addLine,
  echo(message) {
    const sentAt = chat.sent.get(message.token);
    chat.sent.clear();
    if (sentAt !== undefined) byId("chat-latency").textContent = milliseconds(chat.middle(performance.now() - sentAt));
  },
};

const tell = (message) => {
  if (chat.socket?.readyState === WebSocket.OPEN) chat.socket.send(JSON.stringify(message));
};
const introduce = () => {
  chat.name = byId("chat-name").value.trim() || chat.name;
  tell({ type: "join", name: chat.name });
};
const measure = () => {
  chat.token += 1;
  chat.sent.set(chat.token, performance.now());
  tell({ type: "echo", token: chat.token });
};

const openChat = () => {
  showState("chat", "connecting");
  const socket = (chat.socket = new WebSocket(address("chat", "ws")));
  socket.onopen = () => {
    chat.attempts = 0;
    showState("chat", "open");
    byId("chat-send").disabled = false;
    measure();
  };
  socket.onmessage = ({ data }) => {
    chat.count += 1;
    byId("chat-count").textContent = chat.count;
    const message = JSON.parse(data);
    hear[message.type]?.(message);
  };
  socket.onclose = ({ code }) => {
    byId("chat-send").disabled = true;
    chat.sent.clear();
    chat.attempts += 1;
    const wait = Math.min(500 * 2 ** (chat.attempts - 1), 8000);
    showState("chat", "closed", `closed (${code}), again in ${wait / 1000} s`);
    setTimeout(openChat, wait);
  };
};

byId("chat-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("chat-text").value.trim();
  if (text) tell({ type: "say", text });
  byId("chat-text").value = "";
  byId("chat-text").focus();
});
byId("chat-name").addEventListener("change", introduce);
setInterval(measure, 1000);
openChat();

// -- ticker ----------------------------------------------------------------------------------------------------------

const ticker = { source: null, count: 0, lastId: "", rows: new Map(), middle: median(), dropped: false };
const MINUTE = 60_000;
const CLIENT = Math.random().toString(36).slice(2);

const rowOf = (symbol) => {
  if (!ticker.rows.has(symbol)) {
    const row = document.createElement("tr");
    const [price, change] = [element("td"), element("td")];
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    svg.setAttribute("viewBox", "0 0 100 30");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    svg.append(line);
    const chart = element("td");
    chart.append(svg);
    row.append(element("td", symbol), price, change, chart);
    byId("ticker-rows").append(row);
    ticker.rows.set(symbol, { price, change, line, points: [] });
  }
  return ticker.rows.get(symbol);
};

const draw = ({ line, points }) => {
  const end = now();
  while (points.length > 1 && points[0].at < end - MINUTE) points.shift();
  const prices = points.map((point) => point.price);
  const [low, high] = [Math.min(...prices), Math.max(...prices)];
  const span = Math.max(end - points[0].at, 1000); // fills the width before the first minute is over
  const across = (at) => 100 - ((end - at) / span) * 100;
  const up = (price) => (high === low ? 15 : 28 - ((price - low) / (high - low)) * 26);
  const corners = points.map(({ at, price }) => `${across(at).toFixed(1)},${up(price).toFixed(1)}`);
  corners.push(`100,${up(points.at(-1).price).toFixed(1)}`);
  line.setAttribute("points", corners.join(" "));
};

const showQuote = ({ symbol, price, change }, at) => {
  const row = rowOf(symbol);
  row.price.textContent = price.toFixed(2);
  row.change.textContent = `${change > 0 ? "+" : change < 0 ? "\u2212" : ""}${Math.abs(change).toFixed(2)} %`;
  row.change.className = change > 0 ? "up" : change < 0 ? "down" : "";
  row.points.push({ at, price });
  draw(row);
  return row;
};

const count = (event) => {
  ticker.count += 1;
  ticker.lastId = event.lastEventId;
  byId("ticker-count").textContent = ticker.count;
  byId("ticker-id").textContent = event.lastEventId;
  return JSON.parse(event.data);
};

const openTicker = () => {
  showState("ticker", "connecting");
  const source = (ticker.source = new EventSource(address(`ticker/?client=${CLIENT}`)));
  source.onopen = () => showState("ticker", "open");
  source.onerror = () => {
    if (source.readyState !== EventSource.CLOSED) {
      showState("ticker", "connecting", "coming back");
    } else {
      showState("ticker", "closed", "refused, again in 3 s");
      setTimeout(openTicker, 3000);
    }
  };
  source.addEventListener("snapshot", (event) => {
    const { quotes, at } = count(event);
    quotes.forEach((quote) => showQuote(quote, at));
  });
  source.addEventListener("trade", (event) => {
    const trade = count(event);
    byId("ticker-latency").textContent = milliseconds(Math.max(0, ticker.middle(now() - trade.at)));
    const { price } = showQuote(trade, trade.at);
    price.classList.remove("flash");
    void price.offsetWidth; // begin the animation anew
    price.classList.add("flash");
  });
};

// A page that closes its EventSource loses the place; so the server is asked to end the stream, as a network would.
byId("ticker-drop").addEventListener("click", async () => {
  const note = byId("ticker-note");
  note.textContent = "Cut. The browser comes back by itself in a moment\u2026";
  const { source } = ticker;
  source.addEventListener(
    "open",
    () => {
      const last = Number(ticker.lastId);
      const see = ({ lastEventId }) => {
        const first = Number(lastEventId);
        note.textContent =
          first === last + 1
            ? `Back with the event after ${last}: nothing was missed.`
            : `Back with event ${first}; the last one before was ${last}.`;
      };
      source.addEventListener("trade", see, { once: true });
    },
    { once: true },
  );
  await fetch(address(`ticker/drop?client=${CLIENT}`), { method: "POST" });
});
setInterval(() => ticker.rows.forEach(draw), 1000);
openTicker();

// -- one request -----------------------------------------------------------------------------------------------------

const ADDED = ["Via", "Server", "X-Kong-Upstream-Latency", "X-Kong-Proxy-Latency", "X-Kong-Request-Id"];

const sendRequest = async () => {
  showState("request", "connecting", "waiting");
  const began = performance.now();
  try {
    const answer = await fetch(address("ticker/quotes"), { cache: "no-store" });
    await answer.text();
    const took = performance.now() - began;
    const facts = [["Status", `${answer.status} ${answer.statusText}`], ["Took", milliseconds(took)]];
    ADDED.forEach((name) => answer.headers.has(name) && facts.push([name, answer.headers.get(name)]));
    byId("request-facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
    showState("request", answer.ok ? "open" : "closed", answer.ok ? "answered" : "failed");
  } catch (error) {
    showState("request", "closed", "no answer");
  }
};
byId("request-send").addEventListener("click", sendRequest);
sendRequest();

// -- wiring ----------------------------------------------------------------------------------------------------------

const fill = (name, text) => document.querySelectorAll(`[data-fill="${name}"]`).forEach((place) => (place.textContent = text));
fill("host", location.host);
fill("path", here.pathname);

const about = await told;
const WHAT = {
  "/demo": "this page",
  "/demo/chat": "the chat room",
  "/demo/ticker": "the market ticker",
  "/demo/sensors": "the sensor service",
  "/demo/analytics": "a topic for events",
  "/demo/counts": "a topic of their counts",
};
byId("wiring-rows").replaceChildren(
  ...Object.entries(about.urls).map(([path, url]) => {
    const row = document.createElement("tr");
    for (const text of [path, url]) {
      const cell = document.createElement("td");
      cell.append(element("code", text));
      row.append(cell);
    }
    row.append(element("td", WHAT[path]));
    return row;
  }),
);
byId("wiring-commands").textContent = [
  `curl -X PUT http://${about.admin}/services/events --data url=${about.urls["/demo/ticker"]}`,
  `curl -X PUT http://${about.admin}/services/events/routes/events --data paths=/events`,
  `curl -N http://${location.host}/events`,
].join("\n");
