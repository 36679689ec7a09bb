/** Solves puzzles within the caller's limits. */

import { expectedWork, parseChallenges, workOfRun, writeProof } from "./challenge.js";
import { openLanes } from "./lanes.js";
import { NODE, cores, orAbort, pause } from "./platform.js";

const MAX_WORK = 2 ** 30;
const MAX_SECONDS = 60;
const MOST_RUNS_AT_ONCE = 4; // of scrypt in Node, which has four threads for them by default

/**
 * Solves the cheapest challenge of a header.
 *
 * @param {string | null | undefined} value of WWW-Authenticate, or `challenge` of a pass
 * @param {import("./index.js").SolveOptions} [options]
 * @returns {Promise<string | null>} the value of Tollkeeper-Proof; null where there is nothing to
 *     solve, or it would be, or has become, more work than allowed
 * @throws {unknown} the reason of `options.signal` once it is aborted, and nothing else
 */
export async function solve(value, options = {}) {
  options.signal?.throwIfAborted();
  const work = ({ puzzle }) => expectedWork(puzzle);
  const able = ({ puzzle }) => puzzle.alg !== "scrypt" || NODE || options.scrypt;
  const [cheapest] = parseChallenges(value).filter(able).sort((a, b) => work(a) - work(b));
  if (!cheapest || work(cheapest) > (options.maxWork ?? MAX_WORK)) return null;
  const until = performance.now() + 1000 * (options.maxSeconds ?? MAX_SECONDS);
  const solver = cheapest.puzzle.alg === "scrypt" ? solveScrypt : solveSearches;
  const onProgress = harmless(options.onProgress);
  const solution = await solver(cheapest.puzzle, { ...options, onProgress, until });
  return solution === null ? null : writeProof(cheapest, solution);
}

/** What the caller's function throws, at once or later, must not lose work that is half done. */
function harmless(told = () => {}) {
  return (...given) => {
    new Promise((resolve) => resolve(told(...given))).catch(() => {});
  };
}

/** Hands out ranges of c, each search to as few lanes as possible. */
class Searches {
  done = 0;

  constructor({ salt, searches, target }) {
    this.target = target;
    this.list = Array.from({ length: searches }, (_, i) => ({
      prefix: `${salt}.${i}.`,
      next: 0,
      lanes: 0,
      found: -1,
    }));
  }

  /** Works in one lane on what is left, until all is found or `isOver`. */
  async work(lane, isOver, report) {
    for (let one; !isOver() && (one = this.#least()); ) {
      const [from, count] = [one.next, lane.size];
      one.next += count;
      one.lanes += 1;
      const found = await lane.run({ prefix: one.prefix, target: this.target, from, count });
      one.lanes -= 1;
      this.done += found < 0 ? count : found - from + 1;
      if (found >= 0) one.found = found;
      if (!isOver()) report(this.done);
    }
  }

  #least() {
    const open = this.list.filter(({ found }) => found < 0);
    return open.reduce((best, one) => (one.lanes < best.lanes ? one : best), open[0]);
  }

  /** The solution, or null where a search is still open. */
  get solution() {
    const found = this.list.map((one) => one.found);
    return found.includes(-1) ? null : found.join("-");
  }
}

async function solveSearches(puzzle, { workers, signal, until, onProgress }) {
  const expected = expectedWork(puzzle);
  const searches = new Searches(puzzle);
  const lanes = await openLanes(workers, expected);
  let stopped = false;
  const isOver = () => stopped || performance.now() >= until;
  const report = (done) => onProgress(done, expected);
  try {
    const all = Promise.all(lanes.map((lane) => searches.work(lane, isOver, report)));
    await orAbort(all, signal);
    return searches.solution;
  } finally {
    stopped = true;
    for (const lane of lanes) lane.close();
  }
}

async function solveScrypt(puzzle, { scrypt, signal, until, onProgress }) {
  const run = scrypt ?? (await nodeScrypt());
  const atOnce = scrypt ? 1 : Math.min(await cores(), MOST_RUNS_AT_ONCE);
  const attempt = texts(run, puzzle);
  for (let done = 0; done < puzzle.cost && performance.now() < until; ) {
    const lanes = Math.min(atOnce, puzzle.cost - done);
    const some = Array.from({ length: lanes }, (_, i) => attempt(puzzle.first + done + i));
    const all = await orAbort(Promise.all(some), signal);
    const found = all.find((text) => text.startsWith(puzzle.prefix));
    done += some.length;
    onProgress(done * workOfRun(puzzle), expectedWork(puzzle));
    if (found) return found;
    await pause(); // a given scrypt may be synchronous
  }
  return null;
}

/** What a number gives: a solution if it begins with the prefix. */
function texts(run, { salt, n: N, r, p }) {
  const encoder = new TextEncoder();
  const bytes = encoder.encode(salt);
  const sizes = { N, r, p, dkLen: 32 };
  return async (c) => base64url(await run(encoder.encode(String(c)), bytes, sizes));
}

/** scrypt of Node, on its own threads. */
async function nodeScrypt() {
  const { scrypt } = await import("node:crypto");
  return (password, salt, { N, r, p, dkLen }) =>
    new Promise((resolve, reject) => {
      const maxmem = 256 * (N + p) * r + 2 ** 16; // Node refuses more than 32 MiB unless told so
      const settled = (error, key) => (error ? reject(error) : resolve(key));
      scrypt(password, salt, dkLen, { N, r, p, maxmem }, settled);
    });
}

function base64url(bytes) {
  const text = btoa(String.fromCharCode(...bytes));
  return text.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}
