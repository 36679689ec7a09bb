/** Solves puzzles within the caller's limits. */

import { expectedWork, parseChallenges, writeProof } from "./challenge.js";
import { orAbort } from "./platform.js";
import { Rates } from "./rates.js";
import * as scrypt from "./scrypt.js";
import * as searches from "./searches.js";

const MAX_WORK = 2 ** 30;
const MAX_SECONDS = 60;

/**
 * Solves the cheapest challenge of a header.
 *
 * @param {string | null | undefined} value of WWW-Authenticate, or `challenge` of a pass
 * @param {import("./index.js").SolveOptions} [options]
 * @returns {Promise<string | null>} the value of Tollkeeper-Proof; null where there is nothing to
 *     solve, it cannot be solved here, or it would be, or has become, more work than allowed
 * @throws {unknown} the reason of `options.signal` once it is aborted, and nothing else
 */
export async function solve(value, { signal, ...options } = {}) {
  return new Solver(options).solve(value, signal);
}

/** A challenge could be solved in time, but not after all that wait already. */
export class Busy extends Error {}

/**
 * Solves one challenge at a time: at once they would all be ready late, and maybe too late.
 * It remembers how fast the machine is.
 */
export class Solver {
  #line = Promise.resolve();
  #ahead = 0; // seconds that all in the line are expected to take

  /**
   * @param {Omit<import("./index.js").SolveOptions, "signal">} options
   * @param {Rates} [rates]
   */
  constructor(options, rates = new Rates()) {
    this.options = { maxWork: MAX_WORK, maxSeconds: MAX_SECONDS, ...given(options) };
    this.onProgress = harmless(options.onProgress);
    this.rates = rates;
  }

  /**
   * As `solve`.
   *
   * @throws {Busy} besides
   */
  async solve(value, signal) {
    signal?.throwIfAborted();
    const challenge = this.#cheapest(value);
    if (!challenge) return null;
    try {
      const seconds = await orAbort(this.#seconds(challenge.puzzle), signal);
      if (seconds > this.options.maxSeconds) return null;
      if (this.#ahead + seconds > this.options.maxSeconds) throw new Busy();
      const solution = await this.#inTurn(seconds, signal, () => this.#work(challenge, signal));
      return solution === null ? null : writeProof(challenge, solution);
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof Busy) throw error;
      return null; // scrypt fails, the given one or Node's
    }
  }

  /** The challenge of least work, if that is allowed. */
  #cheapest(value) {
    const work = ({ puzzle }) => expectedWork(puzzle);
    const able = ({ puzzle }) => puzzle.alg !== "scrypt" || scrypt.isAble(this.options);
    const [first] = parseChallenges(value).filter(able).sort((a, b) => work(a) - work(b));
    return first && work(first) <= this.options.maxWork ? first : undefined;
  }

  /** What a puzzle takes on average, on this machine. */
  async #seconds(puzzle) {
    const { sizes, sample, lanes } = methodOf(puzzle);
    const rate = await this.rates.of(sizes(puzzle), () => sample(puzzle, this.options));
    return expectedWork(puzzle) / (rate * (await lanes(puzzle, this.options)));
  }

  async #inTurn(seconds, signal, work) {
    const before = this.#line;
    let leave;
    this.#line = new Promise((resolve) => {
      leave = resolve;
    });
    this.#ahead += seconds;
    try {
      await orAbort(before, signal);
      return await work();
    } finally {
      this.#ahead -= seconds;
      before.then(leave);
    }
  }

  #work({ puzzle }, signal) {
    const method = methodOf(puzzle);
    const saw = (...done) => this.rates.saw(method.sizes(puzzle), ...done);
    const until = performance.now() + 1000 * this.options.maxSeconds;
    const { onProgress } = this;
    return method.solve(puzzle, { ...this.options, signal, until, onProgress, saw });
  }
}

const methodOf = ({ alg }) => (alg === "scrypt" ? scrypt : searches);

/** Without what is undefined: that is to be as if it were not there. */
function given(options) {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

/** What the caller's function throws, at once or later, must not lose work that is half done. */
function harmless(told = () => {}) {
  return (done, expected) => {
    new Promise((resolve) => resolve(told(done, expected))).catch(() => {});
  };
}
