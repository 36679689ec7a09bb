import assert from "node:assert/strict";
import { test } from "node:test";

import { FakeGateway, finds } from "../fakes/gateway.js";
import { parseChallenges, solve } from "../index.js";

/** A challenge of this many expected hashes. */
function challenge(hashes, searches = 4) {
  return Object.assign(new FakeGateway(), { hashes, searches }).challenge(1);
}

const ENDLESS = challenge(2 ** 47);

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
    const options = { workers, onProgress, signal: stop.signal, maxWork: Infinity };
    await assert.rejects(solve(ENDLESS, options), /enough/);
    let late = 0;
    await assert.rejects(solve(ENDLESS, { ...options, onProgress: () => late++ }), /enough/);
    assert.equal(late, 0); // it was aborted before it began
  });

  test(`with ${workers} workers it is given up after maxSeconds`, async () => {
    const options = { workers, maxSeconds: 0.1, maxWork: Infinity };
    assert.equal(await solve(ENDLESS, options), null);
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
  await solve(ENDLESS, { workers: 0, maxSeconds: 0.3, maxWork: Infinity });
  clearInterval(timer);
  assert.ok(gaps.length >= 5, `${gaps.length} turns in 0.3 s`);
});

test("the cheapest of several challenges is solved", async () => {
  const cheap = challenge(100);
  const proof = await solve(`${challenge(900)}, ${cheap}, ${challenge(800)}`);
  assert.ok(proof.startsWith(parseChallenges(cheap)[0].id));
});
