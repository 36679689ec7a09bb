// Prints how many embeddings came: node javascript_script.mjs BASE_URL KEY TEXT...
// BASE_URL ends in /v1; MODEL names another model than the built-in one. With AHEAD=n in the environment it buys passes of n inputs.

import { payingFetch } from "../../javascript/index.js";

const [base, key, ...texts] = process.argv.slice(2);
const fetch = payingFetch({ ahead: Number(process.env.AHEAD) || undefined });
const response = await fetch(`${base}/embeddings`, {
  method: "POST",
  headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
  body: JSON.stringify({ model: process.env.MODEL || "tollkeeper-text", input: texts }),
});
if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
console.log((await response.json()).data.length, response.headers.has("tollkeeper-receipt"));
