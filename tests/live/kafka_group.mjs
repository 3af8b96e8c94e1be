// A kafkajs consumer: what it reads of a topic goes out as lines of JSON.
//   node kafka_group.mjs BROKER TOPIC GROUP COUNT
import {Kafka, logLevel} from "kafkajs";

const [broker, topic, groupId, count] = process.argv.slice(2);
const kafka = new Kafka({brokers: [broker], logLevel: logLevel.NOTHING});
const consumer = kafka.consumer({groupId});
let left = Number(count);

await consumer.connect();
await consumer.subscribe({topics: [topic], fromBeginning: true});
await consumer.run({
  eachMessage: async ({message}) => {
    process.stdout.write(`${message.value}\n`);
    left -= 1;
    if (left === 0) process.nextTick(() => consumer.disconnect().then(() => process.exit(0)));
  },
});
