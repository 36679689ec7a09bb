/** `searches` numbers are to be found, for 2^48 / `target` hashes each on average. */
export interface HashPuzzle {
  alg: "sha-256";
  salt: string;
  searches: number;
  target: number;
}

/** One of `cost` numbers from `first` is to be found, by running scrypt on each. */
export interface ScryptPuzzle {
  alg: "scrypt";
  salt: string;
  first: number;
  cost: number;
  n: number;
  r: number;
  p: number;
  prefix: string;
}

export type Puzzle = HashPuzzle | ScryptPuzzle;

export interface Challenge {
  id: string;
  /** The puzzle as it came; a proof repeats it. */
  request: string;
  /** RFC 3339, UTC. */
  expires: string;
  /** Of the body that the proof pays for; empty in a pass. */
  digest: string;
  puzzle: Puzzle;
}

/** scrypt with the signature of `scryptAsync` and `scrypt` of @noble/hashes. */
export type Scrypt = (
  password: Uint8Array,
  salt: Uint8Array,
  options: { N: number; r: number; p: number; dkLen: number },
) => Uint8Array | Promise<Uint8Array>;

export interface SolveOptions {
  /** Expected hashes above which a challenge is declined; 2^30. A scrypt run counts as n r p. */
  maxWork?: number;
  /**
   * Seconds above which a challenge is declined, as it is expected to take on this machine and
   * after those that wait before it; and of solving, after which it is given up. 60.
   */
  maxSeconds?: number;
  /** Threads to search with; as many as the machine has. 0: on this thread, in short slices. */
  workers?: number;
  /** For browsers, which have none; without it they decline scrypt challenges. */
  scrypt?: Scrypt;
  /**
   * Told of hashes done and expected; `done` goes beyond `expected` when luck is bad.
   * What it throws is ignored, and a promise that it returns is not waited for.
   */
  onProgress?: (done: number, expected: number) => void;
  /** Stops the solving. */
  signal?: AbortSignal;
}

export interface PayingFetchOptions extends Omit<SolveOptions, "signal"> {
  /** What sends the requests; the global fetch. */
  fetch?: typeof fetch;
  /** New inputs to pay for at once, with a pass; each request is paid for alone without it. */
  ahead?: number;
}

/**
 * A fetch that solves 402 challenges of Tollkeeper and sends the same body again. A challenge that
 * it declines, or cannot pay for because the body can be sent only once, comes back as the 402.
 */
export function payingFetch(options?: PayingFetchOptions): typeof fetch;

/**
 * Solves a challenge: the value of `WWW-Authenticate`, or `challenge` of a pass.
 *
 * @returns the value of `Tollkeeper-Proof`, or null if there is nothing to solve, it cannot be solved
 *     here, or it is more work than allowed
 * @throws the reason of `signal`, once it is aborted
 */
export function solve(
  challenge: string | null | undefined,
  options?: SolveOptions,
): Promise<string | null>;

/** The challenges in a `WWW-Authenticate` value that this client can take; never throws. */
export function parseChallenges(value: string | null | undefined): Challenge[];
