// A client of sensor.DataService for browsers, without a library: gRPC-Web over a WebSocket (subprotocol "grpc-websockets"), which
// carries streams both ways. The gateway makes gRPC of it.
//
//   const client = new DataServiceClient("http://localhost:8000", { apikey: "..." });
//   const stream = client.streamSensorData();
//   stream.on("data", (response) => console.log(response.sensorId, response.status, response.alertMessage));
//   stream.on("end", () => console.log("the server has ended the stream"));
//   stream.on("error", (error) => console.log(error.code, error.message));
//   stream.write({ sensorId: "boiler", temperature: 31.5, humidity: 40, location: "cellar", timestamp: Date.now() });
//   stream.end();
//
// Messages are plain objects; what is missing has its default. `getReading(request)` is a promise.

const SERVICE = "sensor.DataService";

/** Number, name and kind of each field, as in sensor.proto. */
const REQUEST = [
  [1, "sensorId", "string"],
  [2, "temperature", "double"],
  [3, "humidity", "double"],
  [4, "location", "string"],
  [5, "timestamp", "int64"],
];
const RESPONSE = [
  [1, "sensorId", "string"],
  [2, "status", "string"],
  [3, "alertMessage", "string"],
  [4, "timestamp", "int64"],
];
const WIRE = { int64: 0, double: 1, string: 2 };

// -- protobuf: only what these two messages need -----------------------------------------------------------------------

const varint = (value) => {
  let left = BigInt.asUintN(64, BigInt(value));
  const bytes = [];
  while (left > 127n) {
    bytes.push(Number(left & 127n) | 128);
    left >>= 7n;
  }
  return [...bytes, Number(left)];
};

export const encode = (message, fields = REQUEST) => {
  const bytes = [];
  for (const [number, name, kind] of fields) {
    const value = message[name];
    if (!value) continue; // proto3 leaves out what has its default
    bytes.push((number << 3) | WIRE[kind]);
    if (kind === "int64") bytes.push(...varint(value));
    else if (kind === "double") bytes.push(...new Uint8Array(new Float64Array([value]).buffer));
    else {
      const text = new TextEncoder().encode(value);
      bytes.push(...varint(text.length), ...text);
    }
  }
  return Uint8Array.from(bytes);
};

export const decode = (bytes, fields = RESPONSE) => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const message = Object.fromEntries(fields.map(([, name, kind]) => [name, kind === "string" ? "" : 0]));
  let place = 0;
  const number = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = view.getUint8(place++);
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return Number(BigInt.asIntN(64, value));
    }
  };
  while (place < bytes.length) {
    const key = number();
    const field = fields.find(([known]) => known === key >> 3);
    let value;
    if ((key & 7) === WIRE.int64) value = number();
    else if ((key & 7) === WIRE.double) [value, place] = [view.getFloat64(place, true), place + 8];
    else if ((key & 7) === 5) [value, place] = [view.getUint32(place, true), place + 4];
    else {
      const length = number();
      value = new TextDecoder().decode(bytes.subarray(place, place + length));
      place += length;
    }
    if (field && WIRE[field[2]] === (key & 7)) message[field[1]] = value; // others are of a newer sensor.proto
  }
  return message;
};

// -- gRPC-Web over a WebSocket -----------------------------------------------------------------------------------------

const MESSAGE = 0;
const END_OF_REQUESTS = 1;
const FIELDS = 0x80; // flag of a frame that holds metadata

/** An error with gRPC's status: `code` (16 is UNAUTHENTICATED, 14 UNAVAILABLE ...) and `message`. */
export class CallError extends Error {
  constructor(code, message, metadata = {}) {
    super(message);
    Object.assign(this, { code, metadata });
  }
}

class Call {
  #handlers = { data: [], metadata: [], status: [], end: [], error: [] };
  #waiting = []; // frames that were written before the socket was open
  #received = new Uint8Array(0);
  #over = false;

  constructor(url, metadata) {
    const at = new URL(url, globalThis.location?.href);
    at.protocol = at.protocol.replace("http", "ws");
    this.socket = new WebSocket(at, "grpc-websockets");
    this.socket.binaryType = "arraybuffer";
    const fields = { "content-type": "application/grpc-web+proto", "x-grpc-web": "1", ...metadata };
    const lines = Object.entries(fields).map(([name, value]) => `${name.toLowerCase()}: ${value}\r\n`);
    this.#send(new TextEncoder().encode(lines.join("")));
    this.socket.onopen = () => this.#waiting.splice(0).forEach((frame) => this.socket.send(frame));
    this.socket.onmessage = ({ data }) => this.#take(new Uint8Array(data));
    this.socket.onclose = () => this.#finish(new CallError(14, "the connection was lost"));
  }

  /** Have `handler` called: "data" with each message, "metadata", "status", "end", or "error" with a `CallError`. */
  on(event, handler) {
    this.#handlers[event].push(handler);
    return this;
  }

  /** Send a message. */
  write(request) {
    const message = encode(request);
    const frame = new Uint8Array(1 + 5 + message.length);
    new DataView(frame.buffer).setUint32(2, message.length);
    frame[0] = MESSAGE;
    frame.set(message, 6);
    this.#send(frame);
    return this;
  }

  /** Say that no more messages follow. The server may go on. */
  end() {
    this.#send(Uint8Array.of(END_OF_REQUESTS));
  }

  /** Give the call up: nothing more comes of it. */
  cancel() {
    this.#over = true;
    this.socket.close();
  }

  /** Bytes that were written and are not on their way yet. */
  get buffered() {
    return this.socket.bufferedAmount;
  }

  #send(frame) {
    if (this.socket.readyState === WebSocket.CONNECTING) this.#waiting.push(frame);
    else if (this.socket.readyState === WebSocket.OPEN) this.socket.send(frame);
  }

  #take(piece) {
    let bytes = new Uint8Array(this.#received.length + piece.length);
    bytes.set(this.#received);
    bytes.set(piece, this.#received.length);
    while (bytes.length >= 5 && !this.#over) {
      const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(1);
      if (bytes.length < 5 + length) break;
      const frame = bytes.subarray(5, 5 + length);
      if (bytes[0] & FIELDS) this.#fields(new TextDecoder().decode(frame));
      else this.#tell("data", decode(frame));
      bytes = bytes.subarray(5 + length);
    }
    this.#received = bytes.slice();
  }

  #fields(text) {
    const lines = text.split("\r\n").filter((line) => line.includes(":"));
    const fields = Object.fromEntries(
      lines.map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]),
    );
    if (!("grpc-status" in fields)) return this.#tell("metadata", fields);
    const code = Number(fields["grpc-status"]);
    let message = fields["grpc-message"] ?? "";
    try {
      message = decodeURIComponent(message);
    } catch {
      // not percent-encoded as it should be: show it as it is
    }
    this.#tell("status", { code, details: message, metadata: fields });
    this.#finish(code === 0 ? null : new CallError(code, message, fields));
  }

  #finish(error) {
    if (this.#over) return;
    this.#over = true;
    if (error) this.#tell("error", error);
    else this.#tell("end");
    this.socket.close();
  }

  #tell(event, ...values) {
    this.#handlers[event].forEach((handler) => handler(...values));
  }
}

export class DataServiceClient {
  /**
   * @param {string} address where the gateway is, such as "http://localhost:8000"; a path is put before the service's.
   * @param {Object<string, string>} metadata sent with each call, such as credentials.
   */
  constructor(address, metadata = {}) {
    this.address = String(address).replace(/\/$/, "");
    this.metadata = metadata;
  }

  /** Readings one after the other, and an answer to each at once. */
  streamSensorData(metadata = {}) {
    return this.#call("StreamSensorData", metadata);
  }

  /** What is said of the last reading and of each new one of a sensor. */
  watchSensor(request, metadata = {}) {
    const call = this.#call("WatchSensor", metadata).write(request);
    call.end();
    return call;
  }

  /** Readings one after the other; "data" comes once, after `end()`. */
  uploadReadings(metadata = {}) {
    return this.#call("UploadReadings", metadata);
  }

  /** What is said of one reading, or of the last one known. */
  getReading(request, metadata = {}) {
    return new Promise((resolve, reject) => {
      const call = this.#call("GetReading", metadata).write(request);
      let answer;
      call.on("data", (response) => (answer = response));
      call.on("end", () => resolve(answer));
      call.on("error", reject);
      call.end();
    });
  }

  #call(method, metadata) {
    return new Call(`${this.address}/${SERVICE}/${method}`, { ...this.metadata, ...metadata });
  }
}
