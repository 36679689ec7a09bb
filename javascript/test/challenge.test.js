import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { finds } from "../fakes/gateway.js";
import { parseChallenges, solve } from "../index.js";

const PAGE = readFileSync(new URL("../../docs/challenge.md", import.meta.url), "utf8");
const [HASH, PASS] = PAGE.match(/^Payment id="[0-9a-f]{64}".*$/gm);
const [HASH_SOLUTION] = PAGE.match(/(?<=its solution is `)[\d-]+/);
const [PASS_SOLUTION] = PAGE.match(/(?<=with the solution `)[\w-]+/);

/** A header with this puzzle in it. */
function header(puzzle) {
  const request = Buffer.from(JSON.stringify(puzzle)).toString("base64url");
  return HASH.replace(/request="[^"]+"/, `request="${request}"`);
}

const PREFIX = "A".repeat(16);
const HASHES = { alg: "sha-256", salt: "AAAA", searches: 2, target: 2 ** 40 };
const SIZES = { n: 16, r: 1, p: 1 };
const MEMORY = { alg: "scrypt", salt: "AAAA", first: 0, cost: 3, ...SIZES, prefix: PREFIX };

test("the page's first challenge is read and solved as it says", async () => {
  const [{ digest, puzzle }] = parseChallenges(HASH);
  assert.equal(digest, "sha-256=:1xAfMjgDVUmI2irQ4zs4pHWtz1Gl7dJx7QyGS9a56pI=:");
  assert.deepEqual(puzzle, {
    alg: "sha-256",
    salt: "AAAAAAAAAAAAAAAA",
    searches: 3,
    target: 281474976711,
  });
  const proof = await solve(HASH, { workers: 0 });
  const [id, , expires, , solution] = proof.split(".");
  assert.equal(id, HASH.match(/id="(\w+)"/)[1]);
  assert.equal(expires, "2027-01-15T08:00:00Z");
  assert.equal(solution, HASH_SOLUTION);
  assert.ok(HASH_SOLUTION.split("-").every((c, i) => finds(puzzle, i, c)));
});

test("the page's pass is solved as it says, with an empty fourth part", async () => {
  const [, , , digest, solution] = (await solve(PASS)).split(".");
  assert.equal(digest, "");
  assert.equal(solution, PASS_SOLUTION);
});

test("a given scrypt is used", async () => {
  const { scryptSync } = await import("node:crypto");
  let runs = 0;
  const scrypt = (password, salt, { N, r, p, dkLen }) => {
    if (salt.length > 0) runs += 1; // what is measured has none
    return new Uint8Array(scryptSync(password, salt, dkLen, { N, r, p }));
  };
  assert.ok((await solve(PASS, { scrypt })).endsWith(PASS_SOLUTION));
  assert.ok(runs >= 1 && runs <= 3);
});

test("parameters come in any order and case, among unknown ones and other schemes", async () => {
  const parameters = HASH.slice("Payment ".length).split(", ").reverse();
  const ours = parameters.join(" ,").replace("realm=", "REALM = ");
  const others = 'Basic realm="a, b", Negotiate abc==, Digest';
  const mixed = `${others}, pAYMENT new="\\"x, Payment", ${ours}, Bearer realm=x`;
  assert.deepEqual(parseChallenges(mixed), parseChallenges(HASH));
  assert.equal(parseChallenges(`${HASH}, ${PASS}`).length, 2);
});

test("garbage and what is for others is passed over without an error", async () => {
  const others = [
    HASH.replace("Payment", "Bearer"),
    HASH.replace('realm="tollkeeper"', 'realm="other"'),
    HASH.replace("tollpow", "card"),
    HASH.replace('"charge"', '"session"'),
    HASH.replace("id=", "ident="),
    HASH.replace("Z", ".5Z"), // a dot would make six parts
    HASH.replace("expires=", 'id="1", expires='),
    HASH.replace(/request="[^"]+"/, 'request="@@@"'),
    HASH.replace(/request="[^"]+"/, 'request="bm8gSlNPTg"'),
    HASH.slice(0, 150),
    `"${HASH}`,
  ];
  for (const value of [...others, "", " ,, ", "=", '"', "Payment", "\u0000é", null, undefined, 7]) {
    assert.deepEqual(parseChallenges(value), []);
    assert.equal(await solve(value), null);
  }
});

test("unreasonable puzzles are declined", async () => {
  const bad = [
    null,
    7,
    [],
    { ...HASHES, alg: "md5" },
    { ...HASHES, alg: "constructor" },
    { ...HASHES, salt: undefined },
    { ...HASHES, salt: "é" },
    { ...HASHES, salt: "" },
    { ...HASHES, salt: "A".repeat(65) },
    { ...HASHES, searches: 0 },
    { ...HASHES, searches: 65 },
    { ...HASHES, searches: "2" },
    { ...HASHES, target: 0 },
    { ...HASHES, target: 0.5 },
    { ...HASHES, target: 2 ** 48 + 1 },
    { ...HASHES, more: "x".repeat(600) }, // over 1,000 characters with what else is sent back
    { ...MEMORY, n: 2 ** 19 },
    { ...MEMORY, n: 17 },
    { ...MEMORY, n: 2 ** 15, r: 16 },
    { ...MEMORY, p: 2 ** 20 },
    { ...MEMORY, n: 2 ** 12, r: 8, p: 9 },
    { ...MEMORY, first: -1 },
    { ...MEMORY, first: 2 ** 52 },
    { ...MEMORY, cost: 0 },
    { ...MEMORY, cost: 2 ** 44 + 1 },
    { ...MEMORY, prefix: "A".repeat(15) },
    { ...MEMORY, prefix: "A".repeat(17) },
    { ...MEMORY, prefix: [PREFIX] },
  ];
  for (const puzzle of bad) assert.deepEqual(parseChallenges(header(puzzle)), [], puzzle);
});

test("what the page's limits just allow is taken", () => {
  const good = [
    { ...HASHES, salt: "A".repeat(64), searches: 64, target: 2 ** 48 },
    { ...HASHES, salt: "A", searches: 1, target: 1 },
    { ...HASHES, more: "x".repeat(500) },
    { ...MEMORY, n: 2 ** 15, r: 8 },
    { ...MEMORY, n: 2 ** 12, r: 8, p: 8 },
    { ...MEMORY, first: 2 ** 52 - 1, cost: 2 ** 44 },
  ];
  for (const puzzle of good) assert.equal(parseChallenges(header(puzzle)).length, 1, puzzle);
});

test("a scrypt puzzle without a solution is given up", async () => {
  assert.equal(await solve(header(MEMORY)), null);
});
