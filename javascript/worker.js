/** A thread that searches what it is told to, one job at a time. */

import { NODE } from "./platform.js";
import { search } from "./sha256.js";

const answer = ({ prefix, target, from, count }) => search(prefix, target, from, count);

if (NODE) {
  import("node:worker_threads").then(({ parentPort: port }) => {
    port.on("message", (job) => port.postMessage(answer(job)));
  });
} else {
  self.onmessage = ({ data }) => self.postMessage(answer(data));
}
