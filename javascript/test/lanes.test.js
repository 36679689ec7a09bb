import assert from "node:assert/strict";
import { syncBuiltinESMExports } from "node:module";
import { test } from "node:test";
import threads from "node:worker_threads";

import { FakeGateway } from "../fakes/gateway.js";
import { parseChallenges, solve } from "../index.js";

const { Worker } = threads;

/** A challenge that is worth a worker. */
const challenge = () =>
  Object.assign(new FakeGateway(), { hashes: 2 ** 19, searches: 8 }).challenge(1);

/** Runs with workers of this code instead of ours. */
async function withWorkers(code, run) {
  threads.Worker = class extends Worker {
    constructor() {
      super(code, { eval: true });
    }
  };
  syncBuiltinESMExports();
  try {
    return await run();
  } finally {
    threads.Worker = Worker;
    syncBuiltinESMExports();
  }
}

const ON_MESSAGE = 'require("node:worker_threads").parentPort.once("message", () => {';

for (const [how, code] of [
  ["exits at once", "process.exit(0)"],
  ["exits when it is asked", `${ON_MESSAGE} process.exit(0); })`],
  ["runs out of code when it is asked", `${ON_MESSAGE} })`],
  ["throws when it is asked", `${ON_MESSAGE} throw new Error("broken"); })`],
]) {
  test(`where a worker ${how} its lane goes on on this thread`, { timeout: 60_000 }, async () => {
    const value = challenge();
    const proof = await withWorkers(code, () => solve(value, { workers: 2 }));
    assert.ok(proof.startsWith(parseChallenges(value)[0].id));
  });
}
