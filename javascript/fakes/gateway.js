/** A gateway that takes proofs by the rules of docs/challenge.md and answers with ones. */

import { createHash, createHmac, randomBytes, scryptSync } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";

const ACCOUNT = "1e72be0c4f70";
const SCRYPT = { N: 16, r: 1, p: 1 };

export class FakeGateway {
  secret = randomBytes(32);
  policy = "00c0ffee";
  hashes = 200; // per new input, expected
  searches = 2;
  alg = "sha-256";
  lifetime = 60; // seconds
  mangle = (header) => header;
  passesRefused = undefined; // status
  fails = undefined; // "before" or "after" charging, the next request with a proof has no answer
  failsWith = undefined; // status instead of no answer
  moved = undefined; // where every request is redirected to
  asked = []; // {path, headers, body, code} of every request
  seen = new Set(); // inputs that were paid for
  spent = new Map(); // id of a proof: inputs left

  /** @returns {Promise<FakeGateway>} listening on loopback; closed after the test */
  static async start(test, settings = {}) {
    const gateway = Object.assign(new FakeGateway(), settings);
    gateway.server = createServer((request, response) => gateway.#serve(request, response));
    gateway.server.listen(0, "127.0.0.1");
    await once(gateway.server, "listening");
    gateway.root = `http://127.0.0.1:${gateway.server.address().port}`;
    gateway.url = `${gateway.root}/v1/embeddings`;
    test.after(() => {
      gateway.server.closeAllConnections?.(); // Node 18.2
      gateway.server.close();
    });
    return gateway;
  }

  /** The codes given to embedding requests, in order. */
  get codes() {
    return this.asked.filter(({ path }) => path.endsWith("/embeddings")).map(({ code }) => code);
  }

  async #serve(request, response) {
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    const [path, headers, body] = [request.url, request.headers, Buffer.concat(pieces)];
    const isPass = path.endsWith("/tollkeeper/v1/challenges");
    const answer = this.#redirect() ?? (isPass ? this.#pass(body) : this.#fail(headers, body));
    this.asked.push({ path, headers, body: body.toString(), code: answer.code });
    if (answer.code === "broken") return response.destroy();
    response.writeHead(answer.status, { "content-type": "application/json", ...answer.headers });
    response.end(JSON.stringify(answer.body));
  }

  #redirect() {
    if (!this.moved) return undefined;
    return { status: 307, code: "moved", headers: { location: this.moved }, body: null };
  }

  #fail(headers, body) {
    const { fails } = this;
    if (!headers["tollkeeper-proof"] || !fails) return this.#embed(headers, body);
    this.fails = undefined;
    if (fails === "after") this.#embed(headers, body);
    return refusal(this.failsWith ?? 500, this.failsWith ? "failed" : "broken");
  }

  #pass(body) {
    const { inputs } = JSON.parse(body);
    if (this.passesRefused) return refusal(this.passesRefused, "refused");
    const challenge = this.hashes ? this.challenge(inputs) : null;
    return { status: 200, code: "ok", body: { challenge, inputs } };
  }

  #embed(headers, body) {
    const { input } = JSON.parse(body);
    const inputs = [input].flat();
    const fresh = inputs.filter((text) => !this.seen.has(text));
    const proof = headers["tollkeeper-proof"];
    let receipt = {};
    if (fresh.length && this.hashes) {
      const code = proof ? this.#check(proof, body, fresh.length) : "challenge_required";
      if (code !== "ok") return this.#refuse(code, fresh.length, body);
      receipt = { "tollkeeper-receipt": proof.split(".")[0] };
    }
    fresh.forEach((text) => this.seen.add(text));
    const data = inputs.map((_, index) => ({ object: "embedding", index, embedding: [1, 1] }));
    const usage = { prompt_tokens: 1, total_tokens: 1 };
    const answer = { object: "list", data, model: "tollkeeper-text", usage };
    return { status: 200, code: "ok", headers: receipt, body: answer };
  }

  #refuse(code, inputs, body) {
    if (/malformed|large|forged|wrong_account|wrong_body|unsolved/.test(code)) {
      return refusal(400, code);
    }
    const header = this.mangle(this.challenge(inputs, digest(body)));
    const headers = { "www-authenticate": header, "x-should-retry": "false" };
    return { ...refusal(402, code), headers };
  }

  /** A challenge for some new inputs: of this body, or a pass. */
  challenge(inputs, bodyDigest) {
    const salt = randomBytes(12).toString("base64url");
    const puzzle = { account: ACCOUNT, alg: this.alg, inputs, policy: this.policy, salt };
    Object.assign(puzzle, this.alg === "scrypt" ? this.#scrypt(salt, inputs) : this.#hash(inputs));
    const request = Buffer.from(JSON.stringify(puzzle)).toString("base64url");
    const expires = new Date(Date.now() + 1000 * this.lifetime).toISOString().replace(/\.\d+/, "");
    const id = this.#sign(request, expires, bodyDigest ?? "");
    const all = { id, realm: "tollkeeper", method: "tollpow", intent: "charge", request, expires };
    if (bodyDigest) all.digest = bodyDigest;
    return `Payment ${Object.entries(all).map(([name, value]) => `${name}="${value}"`).join(", ")}`;
  }

  #hash(inputs) {
    const target = Math.floor((2 ** 48 * this.searches) / (this.hashes * inputs));
    return { searches: this.searches, target: Math.min(target, 2 ** 48) };
  }

  #scrypt(salt, inputs) {
    const [first, cost] = [99, 3 * inputs];
    const solution = scryptText(first + cost - 1, salt);
    const seal = createHmac("sha256", this.secret).update(solution).digest("hex");
    const { N: n, r, p } = SCRYPT;
    return { cost, first, n, r, p, prefix: solution.slice(0, 16), seal };
  }

  #sign(request, expires, bodyDigest) {
    const text = `tollkeeper|tollpow|charge|${request}|${expires}|${bodyDigest}|`;
    return createHmac("sha256", this.secret).update(text).digest("hex");
  }

  #check(proof, body, fresh) {
    if (proof.length > 2048) return "proof_too_large";
    const parts = proof.split(".");
    if (parts.length !== 5) return "proof_malformed";
    const [id, request, expires, bodyDigest, solution] = parts;
    if (id !== this.#sign(request, expires, bodyDigest)) return "proof_forged";
    const puzzle = JSON.parse(Buffer.from(request, "base64url"));
    if (Date.parse(expires) <= Date.now()) return "proof_expired";
    if (bodyDigest && bodyDigest !== digest(body)) return "proof_wrong_body";
    if (puzzle.policy !== this.policy) return "proof_wrong_policy";
    if (!this.#solves(puzzle, solution)) return "proof_unsolved";
    const left = this.spent.get(id) ?? puzzle.inputs;
    if (left < fresh) return "proof_spent";
    this.spent.set(id, left - fresh);
    return "ok";
  }

  #solves(puzzle, solution) {
    if (puzzle.alg === "scrypt") {
      return createHmac("sha256", this.secret).update(solution).digest("hex") === puzzle.seal;
    }
    const numbers = solution.split("-");
    return numbers.length === puzzle.searches && numbers.every((c, i) => finds(puzzle, i, c));
  }
}

/** Whether c solves search i, by Node's own SHA-256. */
export function finds({ salt, target }, i, c) {
  if (!/^(0|[1-9]\d{0,14})$/.test(c)) return false;
  return createHash("sha256").update(`${salt}.${i}.${c}`).digest().readUIntBE(0, 6) < target;
}

export function digest(body) {
  return `sha-256=:${createHash("sha256").update(body).digest("base64")}:`;
}

function scryptText(c, salt) {
  return scryptSync(String(c), salt, 32, SCRYPT).toString("base64url");
}

function refusal(status, code) {
  const error = { message: "No.", type: "payment_required", param: null, code };
  return { status, code, body: { error } };
}
