/**
 * A lane runs searches one after another: on this thread in slices, or on a worker.
 *
 * @typedef {{prefix: string, target: number, from: number, count: number}} Job
 * @typedef {{size: number, run: (job: Job) => Promise<number>, close: () => void}} Lane
 */

import { NODE, cores, pause } from "./platform.js";
import { search } from "./sha256.js";

// A slice shorter than a frame (16 ms) keeps a page responsive. Workers get the same: a message
// costs far less, and little is thrown away when two of them work on one search.
const SLICE_MS = 10;
const LEAST = 1024;
// Below this many hashes a worker would take longer to start than to finish.
const WORTH_A_WORKER = 2 ** 18;
const MOST_WORKERS = 16;

/**
 * @param {number | undefined} workers as the caller wants it; undefined leaves it to us
 * @param {number} expected hashes
 * @returns {Promise<number>} 0 for work on this thread
 */
export async function countWorkers(workers, expected) {
  const wanted = Math.min(workers ?? (await cores()), MOST_WORKERS);
  return wanted >= 1 && expected >= WORTH_A_WORKER ? Math.floor(wanted) : 0;
}

/**
 * @param {number} workers
 * @returns {Promise<Lane[]>} at least one
 */
export async function openLanes(workers) {
  if (workers === 0) return [inlineLane()];
  return Promise.all(Array.from({ length: workers }, workerLane));
}

/** Sets the next slice by how long this one took; never more than twice as much at once. */
function adapt(lane, count, elapsed) {
  const fitting = Math.round((count * SLICE_MS) / Math.max(elapsed, 0.1));
  lane.size = Math.max(LEAST, Math.min(2 * count, fitting));
}

function inlineLane() {
  const lane = {
    size: LEAST,
    async run({ prefix, target, from, count }) {
      await pause();
      const start = performance.now();
      const found = search(prefix, target, from, count);
      if (found < 0) adapt(lane, count, performance.now() - start);
      return found;
    },
    close() {},
  };
  return lane;
}

/** A lane on a worker; where workers cannot be had, or break, it goes on on this thread. */
async function workerLane() {
  const inline = inlineLane();
  let waiting;
  let worker;
  const settle = (found) => waiting?.resolve(found);
  const fail = (error) => {
    worker = undefined;
    waiting?.reject(error);
  };
  try {
    worker = await startWorker(settle, fail);
  } catch {
    return inline; // a content security policy may forbid workers
  }
  const ask = (job) =>
    new Promise((resolve, reject) => {
      waiting = { resolve, reject };
      worker.postMessage(job);
    });
  const lane = {
    size: LEAST,
    async run(job) {
      if (!worker) return inline.run(job);
      const start = performance.now();
      const found = await ask(job).catch(() => inline.run(job));
      if (found < 0) adapt(lane, job.count, performance.now() - start);
      return found;
    },
    close() {
      waiting = undefined; // nobody waits for an answer any more
      worker?.terminate();
    },
  };
  return lane;
}

async function startWorker(settle, fail) {
  if (!NODE) {
    // Bundlers look for this very expression.
    const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }) => settle(data);
    worker.onerror = (event) => {
      event.preventDefault();
      fail(event);
    };
    return worker;
  }
  const threads = await import("node:worker_threads");
  const worker = new threads.Worker(new URL("./worker.js", import.meta.url));
  worker.on("message", settle);
  worker.on("error", fail);
  worker.on("exit", fail); // it may also end without an error
  return worker;
}
