/** Solving scrypt puzzles: one number among `cost`, found by running scrypt on each. */

import { expectedWork, workOfRun } from "./challenge.js";
import { NODE, cores, orAbort, pause } from "./platform.js";

const MOST_RUNS_AT_ONCE = 4; // in Node, which has four threads for them by default

/** What one run takes depends on these. */
export const sizes = ({ n, r, p }) => `scrypt ${n} ${r} ${p}`;

/** How many runs go on at once. */
export async function lanes({ cost }, { scrypt }) {
  return scrypt ? 1 : Math.min(await cores(), MOST_RUNS_AT_ONCE, cost);
}

/** Whether there is a scrypt to run. */
export const isAble = ({ scrypt }) => NODE || Boolean(scrypt);

/** One run. */
export async function sample(puzzle, { scrypt }) {
  await pause();
  await texts(scrypt ?? (await nodeScrypt()), { ...puzzle, salt: "" })(0);
  return workOfRun(puzzle);
}

/** The solution, or null if there is none or it was not found in time. */
export async function solve(puzzle, { scrypt, signal, until, onProgress, saw }) {
  const atOnce = await lanes(puzzle, { scrypt });
  const attempt = texts(scrypt ?? (await nodeScrypt()), puzzle);
  const start = performance.now();
  for (let done = 0; done < puzzle.cost && performance.now() < until; ) {
    const some = Array.from({ length: Math.min(atOnce, puzzle.cost - done) }, (_, i) =>
      attempt(puzzle.first + done + i),
    );
    const all = await orAbort(Promise.all(some), signal);
    const found = all.find((text) => text.startsWith(puzzle.prefix));
    done += some.length;
    onProgress(done * workOfRun(puzzle), expectedWork(puzzle));
    await saw((done * workOfRun(puzzle)) / atOnce, performance.now() - start);
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
