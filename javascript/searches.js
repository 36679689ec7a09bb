/** Solving SHA-256 puzzles: `searches` numbers, each found by trying one after another. */

import { expectedWork } from "./challenge.js";
import { countWorkers, openLanes } from "./lanes.js";
import { orAbort, pause } from "./platform.js";
import { search } from "./sha256.js";

const SAMPLE = 4096; // hashes; a few milliseconds
const USUAL = 10 ** 6; // as long a number as most that are tried

/** What one hash takes depends on this. */
export const sizes = ({ salt }) => `sha-256 ${salt.length}`;

/** How many lanes will share the work. */
export async function lanes(puzzle, { workers }) {
  return Math.max(1, await countWorkers(workers, expectedWork(puzzle)));
}

/** Some hashes in one lane, none of which is below the target of 0. */
export async function sample({ salt }) {
  await pause();
  search(`${salt}.0.`, 0, USUAL, SAMPLE);
  return SAMPLE;
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

/** The solution, or null if it was not found in time. */
export async function solve(puzzle, { workers, signal, until, onProgress, saw }) {
  const expected = expectedWork(puzzle);
  const searches = new Searches(puzzle);
  const opened = await openLanes(await countWorkers(workers, expected));
  let stopped = false;
  const isOver = () => stopped || performance.now() >= until;
  const report = (done) => onProgress(done, expected);
  const start = performance.now();
  try {
    const all = Promise.all(opened.map((lane) => searches.work(lane, isOver, report)));
    await orAbort(all, signal);
    await saw(searches.done / opened.length, performance.now() - start);
    return searches.solution;
  } finally {
    stopped = true;
    for (const lane of opened) lane.close();
  }
}
