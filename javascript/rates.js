/** How fast this machine is, so that what would take it too long is not begun. */

const SAMPLES = 5;
const ENOUGH_MS = 50; // of sampling; a slow scrypt run is not repeated
const LEAST_MS = 1; // what the coarse clock of a page may call nothing
const TELLING_MS = 100; // of solving, from which its rate is believed

/**
 * The best of a few samples: the first ones run before their code is compiled, and others while
 * something else has the processor.
 *
 * @param {() => Promise<number>} sample does some work, and says how much
 * @returns {Promise<number>} work a second
 */
export async function measure(sample) {
  let best = 0;
  const start = performance.now();
  for (let i = 0; i < SAMPLES && performance.now() - start < ENOUGH_MS; i++) {
    const before = performance.now();
    const work = await sample();
    best = Math.max(best, (1000 * work) / Math.max(performance.now() - before, LEAST_MS));
  }
  return best;
}

/** Rates of one lane, measured once for each algorithm with its sizes. */
export class Rates {
  #known = new Map();

  constructor(measureOne = measure) {
    this.measure = measureOne;
  }

  /** Work a second; measured by `sample` where it is not known. */
  async of(key, sample) {
    if (!this.#known.has(key)) this.#known.set(key, this.measure(sample));
    try {
      return await this.#known.get(key);
    } catch (error) {
      this.#known.delete(key);
      throw error;
    }
  }

  /** Raises a known rate to what solving has shown. */
  async saw(key, work, milliseconds) {
    if (milliseconds < TELLING_MS) return;
    const rate = Math.max(await this.#known.get(key), (1000 * work) / milliseconds);
    this.#known.set(key, rate);
  }
}
