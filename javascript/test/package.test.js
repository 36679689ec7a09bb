import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const read = (path) => readFileSync(new URL(path, import.meta.url), "utf8");

test("the package holds the license of the repository", () => {
  assert.equal(read("../LICENSE"), read("../../LICENSE"));
  assert.ok(JSON.parse(read("../package.json")).files.includes("LICENSE"));
});

test("the README links to nothing outside of the package", () => {
  assert.doesNotMatch(read("../README.md"), /\]\(\.\.\//);
});
