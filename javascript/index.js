export { parseChallenges } from "./challenge.js";
export { payingFetch } from "./fetch.js";
export { solve } from "./solve.js";
