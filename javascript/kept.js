/** Proofs whose answer never came, for those who send the same request again. */

import { sha256 } from "./sha256.js";

const MOST = 100;

export class KeptProofs {
  #proofs = new Map(); // by request; in the order of coming

  /** Keeps a proof that pays for this one body; a pass is held elsewhere. */
  keep(call, proof) {
    const digest = proof?.split(".")[3];
    if (!digest) return;
    this.#proofs.set(keyOf(call, digest), proof);
    if (this.#proofs.size > MOST) this.#proofs.delete(this.#proofs.keys().next().value);
  }

  /** The proof of such a request, if any; it is handed out once. */
  async take(call) {
    if (this.#proofs.size === 0) return null; // or every body would be hashed
    const digest = btoa(String.fromCharCode(...sha256(await call.bytes())));
    const key = keyOf(call, `sha-256=:${digest}:`);
    const proof = this.#proofs.get(key) ?? null;
    this.#proofs.delete(key);
    return proof;
  }
}

/** Headers may differ: clients count their retries there. */
function keyOf({ method, url, authorization }, digest) {
  return [method, url.href, authorization, digest].join(" ");
}
