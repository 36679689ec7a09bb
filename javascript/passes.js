/** Passes: paid ahead, shared by all requests to one origin with one Authorization header. */

import { parseChallenges } from "./challenge.js";
import { orAbort } from "./platform.js";

const LONGEST_ANSWER = 8192; // to a request for a pass; ours have some 1,000 characters

/** Work that several wait for; it is stopped when the last of them has given up. */
class Shared {
  #stop = new AbortController();
  #waiting = 0;

  constructor(task) {
    this.result = task(this.#stop.signal);
    const settled = (value) => {
      this.value = value;
    };
    this.result.then(settled, () => {}); // who waits hears of a failure
  }

  async wait(signal) {
    this.#waiting += 1;
    try {
      return await orAbort(this.result, signal);
    } finally {
      this.#waiting -= 1;
      if (this.#waiting === 0) this.#stop.abort();
    }
  }
}

export class Passes {
  #held = new Map();

  /**
   * @param {number} inputs per pass; without it there are none
   * @param {typeof fetch} fetch
   * @param {(challenge: string, signal: AbortSignal) => Promise<string | null>} solve
   */
  constructor(inputs, fetch, solve) {
    this.inputs = inputs;
    this.fetch = fetch;
    this.solve = solve;
  }

  /** The proof to send with a request: of the pass that is there or being bought, if any. */
  async current(call) {
    return (await this.#held.get(call.account)?.wait(call.signal).catch(aborted(call))) ?? null;
  }

  /** Forgets a pass that the server does not recognize any more. */
  forget(call, pass) {
    if (this.#held.get(call.account)?.value === pass) this.#held.delete(call.account);
  }

  /** A pass other than the `refused` one, or null: then the request is to be paid for alone. */
  async renew(call, refused) {
    if (!this.inputs || !call.account) return null;
    const held = this.#held.get(call.account);
    const pass = await this.current(call);
    if (held && (!pass || pass !== refused)) return pass; // there is none, or a new one already
    if (this.#held.get(call.account) === held) this.#buy(call);
    return this.current(call);
  }

  #buy(call) {
    const pass = new Shared((signal) => this.#purchase(call, signal));
    this.#held.set(call.account, pass);
    const forget = () => {
      if (this.#held.get(call.account) === pass) this.#held.delete(call.account);
    };
    pass.result.catch(forget);
  }

  /**
   * @returns {Promise<string | null>} null where there is no use in asking again
   * @throws where there is
   */
  async #purchase({ passes, authorization }, signal) {
    const response = await this.fetch(passes, {
      method: "POST",
      headers: { authorization, "content-type": "application/json" },
      body: JSON.stringify({ inputs: this.inputs }),
      redirect: "error", // the header is for this origin
      signal,
    });
    const text = await beginning(response);
    if (response.status === 429 || response.status >= 500) throw new Error("no pass now");
    const challenge = response.ok ? read(text) : undefined;
    if (challenge === null) throw new Error("nothing to pay now");
    const isPass = parseChallenges(challenge).some(({ digest }) => digest === "");
    return isPass ? this.solve(challenge, signal) : null;
  }
}

/** The text of an answer; where it is longer than any of ours, it is left there. */
async function beginning({ body }) {
  const decoder = new TextDecoder();
  let text = "";
  const reader = body?.getReader();
  for (let piece; reader && !(piece = await reader.read()).done; ) {
    text += decoder.decode(piece.value, { stream: true });
    if (text.length > LONGEST_ANSWER) {
      reader.cancel().catch(() => {});
      return "";
    }
  }
  return text;
}

/** `challenge` of an answer; undefined if it is none of ours. */
function read(text) {
  try {
    return JSON.parse(text).challenge;
  } catch {
    return undefined;
  }
}

/** Passes on that the caller has aborted; any other failure only means that there is no pass. */
function aborted({ signal }) {
  return () => signal?.throwIfAborted();
}
