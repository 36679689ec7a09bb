/** A fetch that pays. */

import { KeptProofs } from "./kept.js";
import { Passes } from "./passes.js";
import { Busy, Solver } from "./solve.js";

const PROOF = "Tollkeeper-Proof";
const MOST_IN_A_ROW = 3;
const REDIRECTS = [301, 302, 303, 307, 308];

/**
 * @param {import("./index.js").PayingFetchOptions} [options]
 * @returns {typeof fetch}
 */
export function payingFetch(options = {}) {
  const payer = new Payer(options);
  return (input, init) => payer.fetch(input, init);
}

class Payer {
  constructor({ fetch, ahead, ...options }) {
    this.send = fetch ?? ((...given) => globalThis.fetch(...given));
    this.solver = new Solver(options);
    this.kept = new KeptProofs();
    this.passes = new Passes(ahead, this.send, (...given) => this.solver.solve(...given));
  }

  async fetch(input, init) {
    const call = Call.of(input, init);
    if (!call) return this.send(input, init);
    let proof = (await this.kept.take(call)) ?? (await this.passes.current(call));
    let response = await this.sendOld(call, proof);
    for (let row = 0; row < MOST_IN_A_ROW && call.isAsked(response); row++) {
      const paid = await this.pay(call, response, row === 0, proof);
      if (!paid) break;
      await drain(response);
      proof = paid;
      response = await (isPass(paid) ? this.sendOld(call, paid) : this.sendNew(call, paid));
    }
    return response;
  }

  /** Sends with a proof of before; then without it where the server may not know it any more. */
  async sendOld(call, proof) {
    const response = await this.sendNew(call, proof);
    if (!proof || response.status !== 400 || response.redirected) return response;
    await drain(response);
    const plain = await call.send(this.send, null);
    if (plain.ok || plain.status === 402) this.passes.forget(call, proof);
    return plain;
  }

  /** Sends with a proof, and keeps it where the answer leaves open whether it was used. */
  async sendNew(call, proof) {
    try {
      const response = await call.send(this.send, proof);
      if (response.status >= 500) this.kept.keep(call, proof);
      return response;
    } catch (error) {
      this.kept.keep(call, proof);
      throw error;
    }
  }

  /** A proof for one refused request. Where a new pass was refused too, it is paid for alone. */
  async pay(call, response, mayUsePass, refused) {
    try {
      const pass = mayUsePass ? await this.passes.renew(call, refused) : null;
      const challenge = response.headers.get("www-authenticate");
      return pass ?? (await this.solver.solve(challenge, call.signal));
    } catch (error) {
      if (error instanceof Busy) return null;
      response.body?.cancel().catch(() => {});
      throw error;
    }
  }
}

/** One request that can be sent more than once. */
class Call {
  /** @returns {Call | null} null for what cannot, or is not a request at all */
  static of(input, init) {
    const request = typeof input?.clone === "function" ? input : undefined;
    const body = snapshot(init?.body);
    if (body === null || request?.bodyUsed) return null;
    try {
      return new Call(input, request, body === undefined ? { ...init } : { ...init, body });
    } catch {
      return null; // fetch knows better what is wrong with it
    }
  }

  constructor(input, request, init) {
    this.input = input;
    this.request = request;
    this.init = init;
    this.url = new URL(request ? request.url : input, globalThis.location?.href);
    this.headers = new Headers(init.headers ?? request?.headers);
    if (init.headers) init.headers = this.headers; // as they are now
    this.method = (init.method ?? request?.method ?? "GET").toUpperCase();
    this.redirect = init.redirect ?? request?.redirect ?? "follow";
    this.signal = init.signal ?? request?.signal;
    this.authorization = this.headers.get("authorization");
  }

  /** Whom a pass is for; undefined without an Authorization header. */
  get account() {
    return this.authorization ? `${this.url.origin} ${this.authorization}` : undefined;
  }

  /** Where passes are to be had: beside /v1, which may be mounted below a path. */
  get passes() {
    const [, mount] = /^(.*)\/v1\//.exec(this.url.pathname) ?? ["", ""];
    return `${this.url.origin}${mount}/tollkeeper/v1/challenges`;
  }

  /** Whether it is to be paid for here: a challenge that a redirect led to is somebody else's. */
  isAsked(response) {
    return response.status === 402 && !response.redirected;
  }

  /** The body, as it is sent. */
  async bytes() {
    const { body } = this.init;
    const source = body === undefined && this.request ? this.request.clone() : new Response(body);
    return new Uint8Array(await source.arrayBuffer());
  }

  async send(fetch, proof) {
    const input = () => this.request?.clone() ?? this.input;
    const plain = () => fetch(input(), this.init);
    if (!proof) return plain();
    const headers = new Headers(this.headers);
    headers.set(PROOF, proof);
    // Following a redirect, fetch would take the proof along to another origin.
    const redirect = this.redirect === "follow" ? "manual" : this.redirect;
    const paid = { ...this.init, headers, redirect };
    const response = await fetch(input(), paid);
    return redirect !== this.redirect && isRedirect(response) ? plain() : response;
  }
}

/** Whether it is bound to no body. */
const isPass = (proof) => proof.split(".")[3] === "";

/** Reads to the end what nobody wants: or its connection stays taken. */
const drain = (response) => response.arrayBuffer().catch(() => {});

const isRedirect = ({ type, status }) => type === "opaqueredirect" || REDIRECTS.includes(status);

/** The body as it is now, as often as needed; undefined for none, null for what goes only once. */
function snapshot(body) {
  if (body === undefined || body === null) return undefined;
  if (typeof body === "string" || body instanceof Blob) return body;
  if (body instanceof URLSearchParams) return new URLSearchParams(body);
  if (body instanceof ArrayBuffer) return body.slice(0);
  if (!ArrayBuffer.isView(body)) return null; // streams; and forms, whose boundary is new each time
  return new Uint8Array(body.buffer, body.byteOffset, body.byteLength).slice();
}
