import assert from "node:assert/strict";
import { test } from "node:test";

import { FakeGateway, finds } from "../fakes/gateway.js";
import { parseChallenges, solve } from "../index.js";
import { Rates } from "../rates.js";
import { Busy, Solver } from "../solve.js";

/** A challenge of this many expected hashes. */
function challenge(hashes, searches = 4) {
  return Object.assign(new FakeGateway(), { hashes, searches }).challenge(1);
}

const ENDLESS = challenge(2 ** 47);
const UNLIMITED = { maxWork: Infinity, maxSeconds: Infinity };

/** Solves with a rate, hashes a second, that was not measured. */
function solver(rate, options) {
  return new Solver({ workers: 0, maxWork: Infinity, ...options }, new Rates(async () => rate));
}

for (const workers of [0, 2]) {
  test(`with ${workers} workers every search is solved, and progress told`, async () => {
    const value = challenge(2 ** 19, 8);
    const told = [];
    const onProgress = (done, expected) => told.push([done, expected]);
    const proof = await solve(value, { workers, onProgress });
    const [{ puzzle }] = parseChallenges(value);
    const numbers = proof.split(".")[4].split("-");
    assert.equal(numbers.length, 8);
    assert.ok(numbers.every((c, i) => finds(puzzle, i, c)));
    assert.ok(told.length > 1);
    assert.ok(told.every(([done], i) => i === 0 || done > told[i - 1][0]));
    assert.ok(told.every(([, expected]) => Math.abs(expected - 2 ** 19) < 1));
  });

  test(`with ${workers} workers an abort stops the solving at once`, async () => {
    const stop = new AbortController();
    const onProgress = () => stop.abort(new Error("enough"));
    const options = { workers, onProgress, signal: stop.signal, ...UNLIMITED };
    await assert.rejects(solve(ENDLESS, options), /enough/);
    let late = 0;
    await assert.rejects(solve(ENDLESS, { ...options, onProgress: () => late++ }), /enough/);
    assert.equal(late, 0); // it was aborted before it began
  });

  test(`with ${workers} workers it is given up after maxSeconds`, async () => {
    let told = 0;
    const onProgress = () => told++;
    const lucky = solver(Infinity, { workers, maxSeconds: 0.1, onProgress });
    assert.equal(await lucky.solve(ENDLESS), null);
    assert.ok(told > 0);
  });
}

test("more work than allowed is not begun", async () => {
  let told = 0;
  const onProgress = () => told++;
  assert.equal(await solve(ENDLESS, { onProgress }), null);
  assert.equal(await solve(challenge(1001), { maxWork: 1000, onProgress }), null);
  assert.equal(told, 0);
  assert.notEqual(await solve(challenge(1000), { maxWork: 1001 }), null);
});

test("what is expected to take longer than maxSeconds on this machine is not begun", async () => {
  let told = 0;
  const options = { workers: 0, maxSeconds: 2, maxWork: Infinity, onProgress: () => told++ };
  const start = performance.now();
  assert.equal(await solve(ENDLESS, options), null);
  assert.ok(performance.now() - start < 1000);
  assert.equal(await solver(999, options).solve(challenge(2000)), null);
  assert.equal(told, 0);
  assert.notEqual(await solver(1001, options).solve(challenge(2000)), null);
});

test("what several workers share takes that much less time", async () => {
  const value = challenge(2 ** 18);
  const limits = { maxSeconds: 60, maxWork: Infinity };
  assert.equal(await solver(2 ** 17 / 60.1, { ...limits, workers: 2 }).solve(value), null);
  assert.notEqual(await solver(2 ** 17 / 59.9, { ...limits, workers: 2 }).solve(value), null);
});

test("the speed is measured once for each algorithm", async () => {
  const measured = [];
  const rates = new Rates(async (sample) => measured.push(await sample()) && 1e6);
  const one = new Solver({ workers: 0 }, rates);
  const memory = Object.assign(new FakeGateway(), { alg: "scrypt" }).challenge(1);
  await Promise.all([challenge(50), challenge(60), memory].map((value) => one.solve(value)));
  await one.solve(memory);
  assert.deepEqual(measured, [4096, 16]);
});

test("a speed that solving has shown takes the place of a slower one", async () => {
  const rates = new Rates(async () => 1000);
  await rates.of("a");
  await rates.saw("a", 1000, 99); // too short to tell
  assert.equal(await rates.of("a"), 1000);
  await rates.saw("a", 1000, 500);
  assert.equal(await rates.of("a"), 2000);
  await rates.saw("a", 1000, 1000);
  assert.equal(await rates.of("a"), 2000);
});

test("after a long search more is expected of the machine", async () => {
  const one = solver(5000, { maxSeconds: 120 });
  assert.equal(await one.solve(challenge(2 ** 20, 64)), null);
  assert.notEqual(await one.solve(challenge(2 ** 19, 64)), null);
  assert.notEqual(await one.solve(challenge(2 ** 20, 64)), null);
});

test("a measurement that fails is made again", async () => {
  let failed = 0;
  const scrypt = () => {
    failed += 1;
    throw new Error("no memory");
  };
  const memory = Object.assign(new FakeGateway(), { alg: "scrypt" }).challenge(1);
  const one = new Solver({ scrypt });
  assert.equal(await one.solve(memory), null);
  assert.equal(await one.solve(memory), null);
  assert.equal(failed, 2);
});

test("those who wait in the line count, until they are done or gone", async () => {
  const one = solver(1000, { maxSeconds: 1 });
  const stop = new AbortController();
  const first = one.solve(challenge(600));
  const second = one.solve(challenge(300), stop.signal);
  await assert.rejects(one.solve(challenge(600)), Busy);
  stop.abort();
  await assert.rejects(second, { name: "AbortError" });
  assert.notEqual(await first, null);
  assert.notEqual(await one.solve(challenge(600)), null);
});

for (const [how, fail] of [
  ["throws", () => { throw new Error("mine"); }],
  ["rejects", async () => { throw new Error("mine"); }],
]) {
  test(`an onProgress that ${how} does not stop the solving`, async () => {
    const value = challenge(2 ** 14);
    let told = 0;
    const onProgress = () => {
      told += 1;
      return fail();
    };
    const proof = await solve(value, { workers: 0, onProgress });
    assert.ok(proof.startsWith(parseChallenges(value)[0].id));
    assert.ok(told > 0);
  });
}

test("the event loop keeps turning while a puzzle is solved without workers", async () => {
  const gaps = [];
  let last = performance.now();
  const timer = setInterval(() => {
    gaps.push(performance.now() - last);
    last = performance.now();
  }, 1);
  await solver(Infinity, { maxSeconds: 0.3 }).solve(ENDLESS);
  clearInterval(timer);
  assert.ok(gaps.length >= 5, `${gaps.length} turns in 0.3 s`);
});

test("the cheapest of several challenges is solved", async () => {
  const cheap = challenge(100);
  const proof = await solve(`${challenge(900)}, ${cheap}, ${challenge(800)}`);
  assert.ok(proof.startsWith(parseChallenges(cheap)[0].id));
});
