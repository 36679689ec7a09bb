/**
 * SHA-256 (FIPS 180-4), synchronous and without allocation in the search loop.
 *
 * WebCrypto answers each call through a promise, far too slowly for millions of short messages.
 * In Node, createHash and crypto.hash take longer to be called than these rounds take to run;
 * test/sha256.test.js prints the rates of all three, so the choice can be checked anywhere.
 */

const K = new Int32Array([
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
]);

const START = new Int32Array([
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
]);

const schedule = new Int32Array(64);

/** Adds the block of 16 words at `at` to `state`. */
function compress(state, words, at) {
  const w = schedule;
  for (let t = 0; t < 16; t++) w[t] = words[at + t];
  for (let t = 16; t < 64; t++) {
    const x = w[t - 15];
    const y = w[t - 2];
    const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
    const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
    w[t] = (w[t - 16] + s0 + w[t - 7] + s1) | 0;
  }
  let a = state[0];
  let b = state[1];
  let c = state[2];
  let d = state[3];
  let e = state[4];
  let f = state[5];
  let g = state[6];
  let h = state[7];
  for (let t = 0; t < 64; t++) {
    const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
    const t1 = (h + s1 + (g ^ (e & (f ^ g))) + K[t] + w[t]) | 0;
    const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
    const t2 = (s0 + ((a & b) | (c & (a | b)))) | 0;
    h = g;
    g = f;
    f = e;
    e = (d + t1) | 0;
    d = c;
    c = b;
    b = a;
    a = (t1 + t2) | 0;
  }
  state[0] += a;
  state[1] += b;
  state[2] += c;
  state[3] += d;
  state[4] += e;
  state[5] += f;
  state[6] += g;
  state[7] += h;
}

/** The message with its padding, as big-endian words, 16 to a block. */
function padded(bytes) {
  const words = new Int32Array(16 * Math.ceil((bytes.length + 9) / 64));
  for (let i = 0; i < bytes.length; i++) words[i >> 2] |= bytes[i] << (24 - 8 * (i & 3));
  words[bytes.length >> 2] |= 0x80 << (24 - 8 * (bytes.length & 3));
  words[words.length - 2] = Math.floor(bytes.length / 0x20000000); // the length counts bits
  words[words.length - 1] = bytes.length << 3;
  return words;
}

/**
 * @param {Uint8Array} bytes
 * @returns {Uint8Array} 32 bytes
 */
export function sha256(bytes) {
  const state = START.slice();
  const words = padded(bytes);
  for (let at = 0; at < words.length; at += 16) compress(state, words, at);
  const out = new DataView(new ArrayBuffer(32));
  state.forEach((word, i) => out.setInt32(4 * i, word));
  return new Uint8Array(out.buffer);
}

/** Adds one to the decimal digits that end before byte `end`; they must not all be nines. */
function increment(words, end) {
  for (let at = end - 1; ; at--) {
    const shift = 24 - 8 * (at & 3);
    if (((words[at >> 2] >>> shift) & 0xff) !== 0x39) {
      words[at >> 2] += 1 << shift;
      return;
    }
    words[at >> 2] -= 9 << shift;
  }
}

/**
 * Finds the first c in [from, from + count) such that the first 48 bits of SHA-256(prefix c) are
 * below the target.
 *
 * @param {string} prefix ASCII
 * @param {number} target at most 2^48
 * @param {number} from
 * @param {number} count
 * @returns {number} c, or -1
 */
export function search(prefix, target, from, count) {
  const encoder = new TextEncoder();
  const high = Math.floor(target / 0x10000);
  const low = target % 0x10000;
  const state = new Int32Array(8);
  const stop = from + count;
  let words;
  let end = 0;
  let longer = from; // the next c that has one digit more than the one before it
  for (let c = from; c < stop; c++) {
    if (c === longer) {
      const message = encoder.encode(prefix + c);
      words = padded(message);
      end = message.length;
      longer = 10 ** String(c).length;
    } else {
      increment(words, end);
    }
    state.set(START);
    for (let at = 0; at < words.length; at += 16) compress(state, words, at);
    const first = state[0] >>> 0;
    if (first < high || (first === high && state[1] >>> 16 < low)) return c;
  }
  return -1;
}
