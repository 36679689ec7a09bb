/** What differs between Node and browsers. */

export const NODE = typeof process === "object" && Boolean(process.versions?.node);

/** @returns {Promise<number>} how many threads can work at once */
export async function cores() {
  if (!NODE) return globalThis.navigator?.hardwareConcurrency ?? 1;
  const os = await import("node:os");
  return os.availableParallelism?.() ?? os.cpus().length;
}

/** Lets events be handled, without the least delay that timers have. */
export function pause() {
  if (typeof setImmediate === "function") return new Promise((resolve) => setImmediate(resolve));
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

/**
 * The promise, or a rejection with the signal's reason as soon as it is aborted.
 *
 * @template T
 * @param {Promise<T>} promise
 * @param {AbortSignal | null | undefined} signal
 * @returns {Promise<T>}
 */
export function orAbort(promise, signal) {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    const leave = () => signal.removeEventListener("abort", stop);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
    promise.then(resolve, reject).finally(leave);
  });
}
