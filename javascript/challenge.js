/** Reads challenges and writes proofs, as docs/challenge.md of Tollkeeper specifies them. */

// Limits of docs/challenge.md; what keeps them makes a proof of at most 2,048 characters.
const LONGEST_PARTS = 1000; // id, request, expires and digest, with the dots between them
const MOST_SEARCHES = 64;
const MOST_RUNS = 2 ** 44;
const LAST_FIRST = 2 ** 52 - 1;
const MOST_MEMORY = 2 ** 25; // bytes, of one scrypt run

const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
// One item of a WWW-Authenticate list (RFC 9110, 11.6.1): `name=value`, or a scheme, which may
// be followed by a token68 or by the first of its parameters.
const ITEM = new RegExp(
  `[ \\t,]*(?:(${TOKEN})[ \\t]*=[ \\t]*(?:(${TOKEN})|"((?:[^"\\\\]|\\\\.)*)")` +
    `|(${TOKEN})(?:[ \\t]+[A-Za-z0-9._~+/-]+=*(?=[ \\t]*(?:,|$)))?)`,
  "y",
);
// What the proof is put together from may hold neither its separator nor what headers forbid.
const PART = /^[\x21-\x2d\x2f-\x7e]+$/;

const SALT = /^[\x20-\x7e]{1,64}$/;

/** Splits a header into schemes and their parameters; stops where it is not well-formed. */
function split(value) {
  const found = [];
  const item = new RegExp(ITEM);
  for (let match; (match = item.exec(value)); ) {
    const [, name, token, quoted, scheme] = match;
    const last = found.at(-1);
    if (scheme) found.push({ scheme: scheme.toLowerCase(), parameters: new Map() });
    else if (last?.parameters.has(name.toLowerCase())) last.scheme = ""; // said twice: void
    else last?.parameters.set(name.toLowerCase(), token ?? quoted.replace(/\\(.)/g, "$1"));
  }
  return found;
}

const isWhole = (value, least, most) =>
  Number.isSafeInteger(value) && value >= least && value <= most;
const isPowerOfTwo = (n) => Math.log2(n) % 1 === 0;
const matches = (text, pattern) => typeof text === "string" && pattern.test(text);

const PUZZLES = {
  "sha-256": ({ alg, salt, searches, target }) =>
    isWhole(searches, 1, MOST_SEARCHES) && isWhole(target, 1, 2 ** 48)
      ? { alg, salt, searches, target }
      : undefined,
  scrypt: ({ alg, salt, first, cost, n, r, p, prefix }) =>
    isWhole(cost, 1, MOST_RUNS) &&
    isWhole(first, 0, LAST_FIRST) &&
    isWhole(n, 2, MOST_MEMORY) &&
    isPowerOfTwo(n) &&
    isWhole(r, 1, MOST_MEMORY) &&
    isWhole(p, 1, MOST_MEMORY) &&
    128 * n * r * p <= MOST_MEMORY &&
    matches(prefix, /^[\w-]{16}$/)
      ? { alg, salt, first, cost, n, r, p, prefix }
      : undefined,
};

function readPuzzle(request) {
  try {
    const puzzle = JSON.parse(atob(request.replaceAll("-", "+").replaceAll("_", "/")));
    if (!matches(puzzle.salt, SALT) || !Object.hasOwn(PUZZLES, puzzle.alg)) return undefined;
    return PUZZLES[puzzle.alg](puzzle);
  } catch {
    return undefined; // not base64, not JSON, or null
  }
}

function readChallenge({ scheme, parameters }) {
  const { id, realm, method, intent, request, expires, digest } = Object.fromEntries(parameters);
  if (scheme !== "payment" || realm !== "tollkeeper") return undefined;
  if (method !== "tollpow" || intent !== "charge") return undefined;
  const parts = [id, request, expires, digest ?? "absent"];
  if (!parts.every((part) => part !== undefined && PART.test(part))) return undefined;
  const puzzle = readPuzzle(request);
  const length = [id, request, expires, digest ?? ""].join(".").length;
  if (!puzzle || length > LONGEST_PARTS) return undefined;
  return { id, request, expires, digest: digest ?? "", puzzle };
}

/**
 * The challenges of a WWW-Authenticate header that this client understands and finds reasonable.
 *
 * @param {string | null | undefined} value
 * @returns {import("./index.js").Challenge[]} none if there is nothing but garbage
 */
export function parseChallenges(value) {
  if (typeof value !== "string") return [];
  return split(value).map(readChallenge).filter(Boolean);
}

/**
 * @param {import("./index.js").Puzzle} puzzle
 * @returns {number} what it takes on average, in hashes
 */
export function expectedWork(puzzle) {
  if (puzzle.alg === "sha-256") return (puzzle.searches * 2 ** 48) / puzzle.target;
  return ((puzzle.cost + 1) / 2) * workOfRun(puzzle);
}

/** One scrypt run in hashes: its 4 n r p Salsa20/8 blocks take about a fourth of one each. */
export function workOfRun({ n, r, p }) {
  return n * r * p;
}

/** The value of Tollkeeper-Proof. */
export function writeProof({ id, request, expires, digest }, solution) {
  return [id, request, expires, digest, solution].join(".");
}
