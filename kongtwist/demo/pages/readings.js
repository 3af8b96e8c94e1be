// The sensors' panel: readings go out and answers come back on one bidirectional gRPC stream (sensor_client.js).
import { address, byId, element, median, milliseconds, showState } from "./common.js";
import { DataServiceClient } from "./sensor_client.js";

const EVERY = 250;
/** Sensor -> where it is, its usual temperature and humidity. */
const PLACES = { boiler: ["cellar", 26, 40], greenhouse: ["garden", 24, 78], roof: ["roof", 12, 60] };

const client = new DataServiceClient(address("sensors"));
const sensors = { stream: null, timer: 0, sent: 0, count: 0, attempts: 0, turn: 0, begun: new Map(), middle: median() };

const rows = new Map(
  Object.keys(PLACES).map((name) => {
    const row = document.createElement("tr");
    const [reading, said] = [element("td"), element("td")];
    row.append(element("td", name), reading, said);
    byId("sensors-rows").append(row);
    return [name, { reading, said }];
  }),
);

const around = (value, spread) => Math.round((value + (Math.random() - 0.5) * spread) * 10) / 10;

const send = () => {
  const names = Object.keys(PLACES);
  const sensorId = names[sensors.turn++ % names.length];
  const [location, usual, humid] = PLACES[sensorId];
  const heat = sensorId === "boiler" ? Number(byId("sensors-heat").value) : usual;
  const temperature = around(heat, 1.5);
  const humidity = Math.min(100, around(humid, 6));
  const timestamp = Date.now();
  sensors.stream.write({ sensorId, temperature, humidity, location, timestamp });
  sensors.begun.set(`${sensorId} ${timestamp}`, performance.now());
  sensors.sent += 1;
  byId("sensors-sent").textContent = sensors.sent;
  rows.get(sensorId).reading.textContent = `${temperature.toFixed(1)} °C, ${humidity.toFixed(0)} %`;
};

const hear = ({ sensorId, status, alertMessage, timestamp }) => {
  if (sensors.count === 0 || byId("sensors-state").dataset.state !== "open") showState("sensors", "open");
  sensors.attempts = 0;
  sensors.count += 1;
  byId("sensors-count").textContent = sensors.count;
  const key = `${sensorId} ${timestamp}`;
  if (sensors.begun.has(key)) {
    byId("sensors-latency").textContent = milliseconds(sensors.middle(performance.now() - sensors.begun.get(key)));
    sensors.begun.delete(key);
  }
  const { said } = rows.get(sensorId);
  said.textContent = alertMessage || status;
  said.className = status === "alert" ? "down" : "up";
};

const stop = () => {
  clearInterval(sensors.timer);
  sensors.begun.clear();
};

const openSensors = () => {
  showState("sensors", "connecting");
  byId("sensors-end").textContent = "End the stream";
  const stream = (sensors.stream = client.streamSensorData());
  stream.on("data", hear);
  stream.on("end", () => {
    stop();
    sensors.stream = null;
    showState("sensors", "idle", "ended");
    byId("sensors-end").textContent = "Open it again";
    byId("sensors-note").textContent = `The service has answered ${sensors.count} of ${sensors.sent} readings and ended its side.`;
  });
  stream.on("error", ({ code, message }) => {
    stop();
    sensors.attempts += 1;
    const wait = Math.min(500 * 2 ** (sensors.attempts - 1), 8000);
    showState("sensors", "closed", `lost (${code}), again in ${wait / 1000} s`);
    byId("sensors-note").textContent = message;
    setTimeout(openSensors, wait);
  });
  send();
  sensors.timer = setInterval(send, EVERY);
};

byId("sensors-end").addEventListener("click", () => {
  if (sensors.stream) {
    stop();
    sensors.stream.end();
    return;
  }
  byId("sensors-note").textContent = "A new stream.";
  openSensors();
});
openSensors();
