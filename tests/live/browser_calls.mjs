// Calls of the sensor service from a page, by the clients that browsers have for gRPC. Bundled by tests/live/test_grpc_browser.py, which
// calls these functions; DESCRIPTORS is a FileDescriptorSet as base64, GATEWAY where the calls go to.
import {createFileRegistry, create, fromBinary, toBinary, toJson} from '@bufbuild/protobuf';
import {FileDescriptorSetSchema} from '@bufbuild/protobuf/wkt';
import {Code, ConnectError, createClient} from '@connectrpc/connect';
import {createConnectTransport, createGrpcWebTransport} from '@connectrpc/connect-web';
import {grpc} from '@improbable-eng/grpc-web';
import {GrpcWebClientBase, MethodDescriptor, MethodType} from 'grpc-web';

const bytes = Uint8Array.from(atob(DESCRIPTORS), each => each.charCodeAt(0));
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, bytes));
const service = registry.getService('sensor.DataService');

// What grpc-web and improbable's client take for messages of google-protobuf.
const messageOf = schema => class Message {
  constructor(fields = {}) { this.message = create(schema, fields); }
  serializeBinary() { return toBinary(schema, this.message); }
  static deserializeBinary(data) { const made = new Message(); made.message = fromBinary(schema, data); return made; }
  toObject() { return toJson(schema, this.message); }
};
const Request = messageOf(registry.getMessage('sensor.SensorRequest'));
const Response = messageOf(registry.getMessage('sensor.SensorResponse'));
const reading = (id, temperature = 21.5) => ({sensorId: id, temperature, timestamp: 1732600000123n});

const described = (name, type) => new MethodDescriptor(
  `/sensor.DataService/${name}`, type, Request, Response, each => each.serializeBinary(), Response.deserializeBinary);

const failed = error => ({code: error.code, message: error.message, metadata: error.metadata});

// grpc-web: format is "binary" or "text".
const web = {
  unary: (format, id, metadata = {}) => new Promise(done => {
    const client = new GrpcWebClientBase({format});
    client.rpcCall(`${GATEWAY}/sensor.DataService/GetReading`, new Request(reading(id)), metadata,
      described('GetReading', MethodType.UNARY),
      (error, answer) => done(error ? failed(error) : answer.toObject()));
  }),
  stream: (format, id, count) => new Promise(done => {
    const seen = web.seen = [];
    const stream = new GrpcWebClientBase({format}).serverStreaming(
      `${GATEWAY}/sensor.DataService/WatchSensor`, new Request(reading(id)), {}, described('WatchSensor', MethodType.SERVER_STREAMING));
    stream.on('data', each => { seen.push(each.toObject().status); if (seen.length === count) { stream.cancel(); done({seen}); } });
    stream.on('error', error => done({seen, ...failed(error)}));
    stream.on('end', () => done({seen, end: true}));
  }),
};

// A sensor that nobody has heard of: what comes then has a code, a message and trailers.
web.missing = format => new Promise(done => {
  const client = new GrpcWebClientBase({format});
  client.rpcCall(`${GATEWAY}/sensor.DataService/GetReading`, new Request({sensorId: 'nobody'}), {},
    described('GetReading', MethodType.UNARY), (error, answer) => done(error ? failed(error) : answer.toObject()));
});

// Watches a sensor, and sends a reading of it when one has come: `count` of them.
web.watch = (id, count) => new Promise((done, fail) => {
  const seen = [];
  const stream = new GrpcWebClientBase({format: 'text'}).serverStreaming(
    `${GATEWAY}/sensor.DataService/WatchSensor`, new Request(reading(id)), {}, described('WatchSensor', MethodType.SERVER_STREAMING));
  stream.on('data', async each => {
    seen.push(each.toObject().status);
    if (seen.length < count) await web.unary('binary', id);
    else { stream.cancel(); done(seen); }
  });
  stream.on('error', fail);
});

// @improbable-eng/grpc-web: all kinds over WebSockets; steps are readings to send, "finish", "close", or a number of answers to wait for.
const improbable = {
  call: (method, steps, headers = {}, socket = true) => new Promise(done => {
    const names = {requestStream: true, responseStream: true, requestType: Request, responseType: Response};
    const transport = socket ? grpc.WebsocketTransport() : grpc.CrossBrowserHttpTransport({});
    const client = grpc.client({methodName: method, service: {serviceName: 'sensor.DataService'}, ...names}, {host: GATEWAY, transport});
    const seen = improbable.seen = [], told = {};
    const left = [...steps];
    const go = () => {
      while (left.length) {
        const step = left[0];
        if (typeof step === 'number') { if (seen.length < step) return; left.shift(); continue; }
        left.shift();
        if (step === 'finish') client.finishSend();
        else if (step === 'close') { client.close(); done({seen, ...told, closed: true}); return; }
        else client.send(new Request(reading(step)));
      }
    };
    client.onHeaders(each => { told.type = each.get('content-type')[0]; });
    client.onMessage(each => { seen.push(each.toObject().status); go(); });
    client.onEnd((code, message, trailers) => done({seen, ...told, code, message, trailers: trailers.headersMap}));
    client.start(new grpc.Metadata(headers));
    go();
  }),
};

// @connectrpc/connect-web: kind is "connect-json", "connect-binary", "connect-get" or "grpc-web".
const transports = {
  'connect-json': () => createConnectTransport({baseUrl: GATEWAY}),
  'connect-binary': () => createConnectTransport({baseUrl: GATEWAY, useBinaryFormat: true}),
  'connect-get': () => createConnectTransport({baseUrl: GATEWAY, useHttpGet: true}),
  'grpc-web': () => createGrpcWebTransport({baseUrl: GATEWAY}),
};
const wrong = error => {
  const found = ConnectError.from(error);
  return {code: Code[found.code], message: found.rawMessage, metadata: Object.fromEntries(found.metadata.entries())};
};
const connect = {
  unary: async (kind, id, options = {}) => {
    const told = {};
    try {
      const answer = await createClient(service, transports[kind]()).getReading(reading(id), {
        ...options, onHeader: each => { told.type = each.get('content-type'); }, onTrailer: each => { told.trailers = Object.fromEntries(each.entries()); }});
      return {status: answer.status, timestamp: String(answer.timestamp), ...told};
    } catch (error) { return wrong(error); }
  },
  stream: async (kind, id, count, options = {}) => {
    const seen = [];
    try {
      for await (const answer of createClient(service, transports[kind]()).watchSensor(reading(id), options)) {
        seen.push(answer.status);
        if (seen.length === count) break;
      }
      return {seen};
    } catch (error) { return {seen, ...wrong(error)}; }
  },
};

connect.missing = async kind => {
  try {
    return await createClient(service, transports[kind]()).getReading({sensorId: 'nobody'});
  } catch (error) { return wrong(error); }
};

Object.assign(globalThis, {web, improbable, connect});
