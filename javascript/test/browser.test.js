// The paths that Node does not take, in a process that looks like a page.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";

import { FakeGateway } from "../fakes/gateway.js";
import { parseChallenges } from "../index.js";

const INDEX = new URL("../index.js", import.meta.url);
const SHA256 = new URL("../sha256.js", import.meta.url);

/** Runs a script without Node's globals, and returns what it prints last. */
async function inPage(script) {
  const page = `
    const print = console.log;
    const { setImmediate: later } = globalThis;
    globalThis.process = globalThis.setImmediate = undefined;
    Object.defineProperty(globalThis, "navigator", { value: { hardwareConcurrency: 2 } });
    const { solve } = await import(${JSON.stringify(INDEX)});
    ${script}`;
  const { stdout } = await promisify(execFile)(process.execPath, [
    "--input-type=module",
    "--eval",
    page,
  ]);
  return stdout.trim();
}

function challenge(settings) {
  return Object.assign(new FakeGateway(), settings).challenge(1);
}

/** Asserts that the script solves a puzzle that is worth a worker. */
async function assertSolves(script) {
  const value = challenge({ hashes: 2 ** 19, searches: 8 });
  const proof = await inPage(`${script}; print(await solve(${JSON.stringify(value)}))`);
  assert.ok(proof.startsWith(parseChallenges(value)[0].id), proof);
}

test("a page without workers solves on its own thread", async () => {
  await assertSolves("");
});

test("a page whose workers fail to load goes on on its own thread", async () => {
  await assertSolves(`globalThis.Worker = class {
    postMessage() { later(() => this.onerror({ preventDefault() {} })); }
    terminate() {}
  }`);
});

test("a page gives the work to module workers, and ends them", async () => {
  const value = JSON.stringify(challenge({ hashes: 2 ** 19, searches: 8 }));
  const printed = await inPage(`
    const { search } = await import(${JSON.stringify(SHA256)});
    const events = [];
    globalThis.Worker = class {
      constructor(url, { type }) { events.push(url.pathname.split("/").at(-1) + " " + type); }
      postMessage({ prefix, target, from, count }) {
        later(() => this.onmessage({ data: search(prefix, target, from, count) }));
      }
      terminate() { events.push("ended"); }
    };
    await solve(${value});
    print(events.join());`);
  assert.equal(printed, "worker.js module,worker.js module,ended,ended");
});

test("a page without a scrypt declines such a challenge", async () => {
  const value = JSON.stringify(challenge({ alg: "scrypt" }));
  assert.equal(await inPage(`print(await solve(${value}))`), "null");
});
