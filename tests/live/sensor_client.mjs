// grpc-js's client of the sensor service: node sensor_client.mjs TARGET [CA]; what it saw goes out as a line of JSON.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [target, authority] = process.argv.slice(2);
const proto = fileURLToPath(new URL("../../kongtwist/demo/sensors/sensor.proto", import.meta.url));
const google = process.env.GOOGLE_PROTOS; // the folder that has google/api/annotations.proto
const definition = loader.loadSync(proto, { keepCase: true, longs: Number, includeDirs: [google] });
const { sensor } = grpc.loadPackageDefinition(definition);
const credentials = authority ? grpc.credentials.createSsl(readFileSync(authority)) : grpc.credentials.createInsecure();
const client = new sensor.DataService(target, credentials);
const options = () => ({ deadline: Date.now() + 30_000 });
const reading = (temperature) => ({ sensor_id: "s", temperature, location: "café", timestamp: 2 ** 40 });
const TEMPERATURES = [20, 31.5, 25];

const unary = (request) =>
  new Promise((resolve, reject) =>
    client.GetReading(request, new grpc.Metadata(), options(), (error, answer) => (error ? reject(error) : resolve(answer))),
  );

const seen = {};
const first = await unary(reading(31.5));
seen.unary = [first.status, first.alert_message, first.timestamp];
try {
  await unary({ sensor_id: "unknown" });
} catch (error) {
  seen.error = [error.code, error.details, error.metadata.get("detail-bin")[0].toString("hex")];
}
seen.upload = await new Promise((resolve, reject) => {
  const call = client.UploadReadings(new grpc.Metadata(), options(), (error, answer) => (error ? reject(error) : resolve(answer.status)));
  TEMPERATURES.forEach((each) => call.write(reading(each)));
  call.end();
});
seen.watch = await new Promise((resolve, reject) => {
  const call = client.WatchSensor({ sensor_id: "s" }, new grpc.Metadata(), options());
  call.on("data", (answer) => (resolve(answer.status), call.cancel()));
  call.on("error", reject); // after the answer: that it was cancelled, which nobody hears any more
});
Object.assign(
  seen,
  await new Promise((resolve, reject) => {
    const call = client.StreamSensorData(new grpc.Metadata(), options());
    const told = { stream: [], more: 0 };
    const left = [...TEMPERATURES];
    call.on("data", (answer) => {
      told.stream.push(answer.status);
      if (left.length) call.write(reading(left.shift()));
      else call.end();
    });
    call.on("status", (status) => resolve({ ...told, more: told.stream.length - TEMPERATURES.length, ended: status.code }));
    call.on("error", reject);
    call.write(reading(left.shift()));
  }),
);
console.log(JSON.stringify(seen));
client.close();
