import assert from "node:assert/strict";
import * as crypto from "node:crypto";
import { test } from "node:test";

import { finds } from "../fakes/gateway.js";
import { search, sha256 } from "../sha256.js";

test("SHA-256 agrees with node:crypto at every length around the block borders", () => {
  for (let length = 0; length <= 260; length++) {
    for (let round = 0; round < 4; round++) {
      const message = crypto.randomBytes(length);
      const expected = crypto.createHash("sha256").update(message).digest("hex");
      assert.equal(Buffer.from(sha256(message)).toString("hex"), expected);
    }
  }
});

test("a search finds the first number below the target, whatever the length of the salt", () => {
  const target = 2 ** 48 / 300;
  for (const length of [1, 16, 49, 50, 51, 52, 53, 60, 61, 62, 63, 64, 130, 256]) {
    const salt = crypto.randomBytes(length).toString("hex").slice(0, length);
    let slow = 95; // over the step from two digits to three
    while (!finds({ salt, target }, 7, String(slow))) slow++;
    assert.equal(search(`${salt}.7.`, target, 95, 100000), slow);
    assert.equal(search(`${salt}.7.`, target, 95, slow - 95), -1);
  }
});

test("below means below: a hash equal to the target does not count", () => {
  const found = Buffer.from(sha256(Buffer.from("salt.0.5"))).readUIntBE(0, 6);
  assert.equal(search("salt.0.", found, 5, 1), -1);
  assert.equal(search("salt.0.", found + 1, 5, 1), 5);
});

test("hash rate", (t) => {
  const rate = (count, run) => {
    const start = performance.now();
    run(count);
    return Math.round(count / (performance.now() - start));
  };
  const prefix = "AAAAAAAAAAAAAAAA.0.";
  const each = (hash) => (count) => {
    for (let c = 0; c < count; c++) hash(prefix + c);
  };
  const ours = (count) => assert.equal(search(prefix, 0, 0, count), -1);
  ours(20000); // let it be compiled
  t.diagnostic(`ours: ${rate(400000, ours)} thousand hashes a second`);
  const created = each((text) => crypto.createHash("sha256").update(text).digest());
  t.diagnostic(`createHash: ${rate(40000, created)}`);
  if (!crypto.hash) return; // Node 20.12
  t.diagnostic(`crypto.hash: ${rate(100000, each((text) => crypto.hash("sha256", text, "hex")))}`);
});
