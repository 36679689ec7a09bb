import assert from "node:assert/strict";
import { test } from "node:test";

import { FakeGateway } from "../fakes/gateway.js";
import { payingFetch } from "../index.js";

const KEY = { authorization: "Bearer key", "content-type": "application/json" };
const UNLIMITED = { maxWork: Infinity, maxSeconds: Infinity };
const PASSES = "/tollkeeper/v1/challenges";

/** A request for embeddings as `fetch` takes it. */
function asking(input, more = {}) {
  return { method: "POST", headers: KEY, body: JSON.stringify({ input }), ...more };
}

/** Asserts that this is the 402 of the gateway, with its body unread. */
async function assertRefused(response, code = "challenge_required") {
  assert.equal(response.status, 402);
  assert.equal((await response.json()).error.code, code);
}

for (const alg of ["sha-256", "scrypt"]) {
  test(`a ${alg} challenge is solved and the same body sent again`, async (t) => {
    const gateway = await FakeGateway.start(t, { alg });
    const response = await payingFetch()(gateway.url, asking("a"));
    assert.equal(response.status, 200);
    assert.equal((await response.json()).data.length, 1);
    const [first, second] = gateway.asked;
    assert.equal(first.body, second.body);
    assert.equal(second.headers.authorization, "Bearer key");
    assert.equal(response.headers.get("tollkeeper-receipt").length, 64);
  });
}

test("an answer that costs nothing is handed through", async (t) => {
  const gateway = await FakeGateway.start(t, { hashes: 0 });
  assert.equal((await payingFetch()(gateway.url, asking("a"))).status, 200);
  assert.deepEqual(gateway.codes, ["ok"]);
});

test("bodies of every repeatable kind are sent twice alike", async (t) => {
  const gateway = await FakeGateway.start(t);
  const fetch = payingFetch();
  const text = (input) => JSON.stringify({ input });
  const bytes = (input) => new TextEncoder().encode(text(input));
  const inits = [
    asking("string"),
    asking("", { body: bytes("bytes") }),
    asking("", { body: bytes("buffer").buffer }),
    asking("", { body: new Blob([text("blob")]) }),
  ];
  for (const init of inits) assert.equal((await fetch(new URL(gateway.url), init)).status, 200);
  const request = new Request(gateway.url, asking("request"));
  assert.equal((await fetch(request)).status, 200);
  const streamed = { body: new Blob([text("streamed")]).stream(), duplex: "half" };
  assert.equal((await fetch(new Request(gateway.url, asking("", streamed)))).status, 200);
  const bodies = gateway.asked.map(({ body }) => body);
  assert.equal(bodies.length, 12);
  for (let i = 0; i < 12; i += 2) assert.equal(bodies[i], bodies[i + 1]);
});

test("what is sent again is what was there when fetch was called", async () => {
  const sent = [];
  const fetch = payingFetch({
    fetch: async (_, { body, headers: given }) => {
      assert.equal(given.get("x-mark"), "1");
      sent.push(await new Response(body).text());
      const headers = { "www-authenticate": new FakeGateway().challenge(1, "d") };
      return new Response("", { status: given.has("tollkeeper-proof") ? 200 : 402, headers });
    },
  });
  const [query, bytes] = [new URLSearchParams({ a: "1" }), new Uint8Array([97, 98])];
  const headers = new Headers({ "x-mark": "1" });
  const both = [query, bytes].map((body) => fetch("http://x/", { method: "POST", body, headers }));
  headers.set("x-mark", "2");
  query.append("b", "2");
  bytes[0] = 122;
  await Promise.all(both);
  assert.deepEqual(sent.sort(), ["a=1", "a=1", "ab", "ab"]);
});

test("a body that can be sent only once comes back as the 402", async (t) => {
  const gateway = await FakeGateway.start(t);
  const body = new Blob([JSON.stringify({ input: "a" })]).stream();
  await assertRefused(await payingFetch()(gateway.url, asking("", { body, duplex: "half" })));
  assert.equal(gateway.asked.length, 1);
});

test("what is declined or not understood comes back as the 402", async (t) => {
  const gateway = await FakeGateway.start(t);
  await assertRefused(await payingFetch({ maxWork: 10 })(gateway.url, asking("a")));
  gateway.hashes = 2 ** 45;
  const slow = payingFetch({ maxSeconds: 0.05, maxWork: Infinity, workers: 0 });
  await assertRefused(await slow(gateway.url, asking("a")));
  for (const mangle of [() => "garbage,=", () => "Bearer realm=x", (header) => header.slice(9)]) {
    gateway.mangle = mangle;
    await assertRefused(await payingFetch()(gateway.url, asking("a")));
  }
  assert.equal(gateway.asked.length, 5);
});

test("an expired challenge and changed prices are followed by a new challenge", async (t) => {
  const gateway = await FakeGateway.start(t, { lifetime: -1 });
  gateway.mangle = (header) => {
    gateway.lifetime = 60;
    gateway.policy = gateway.asked.length < 1 ? "old" : "new";
    return header;
  };
  assert.equal((await payingFetch()(gateway.url, asking("a"))).status, 200);
  assert.deepEqual(gateway.codes, [
    "challenge_required",
    "proof_expired",
    "proof_wrong_policy",
    "ok",
  ]);
});

test("at most three challenges in a row are solved", async (t) => {
  const gateway = await FakeGateway.start(t, { lifetime: -1 });
  await assertRefused(await payingFetch()(gateway.url, asking("a")), "proof_expired");
  assert.equal(gateway.asked.length, 4);
});

test("a request that is refused without a proof too is handed through", async () => {
  const sent = [];
  const paying = payingFetch({
    ahead: 5,
    fetch: async (url, { headers }) => {
      const proof = new Headers(headers).has("tollkeeper-proof");
      if (String(url).endsWith(PASSES)) {
        return Response.json({ challenge: new FakeGateway().challenge(5), inputs: 5 });
      }
      sent.push(proof);
      return new Response("bad", { status: sent.length === 1 ? 402 : 400 });
    },
  });
  const ask = () => paying("http://x/v1/embeddings", asking("a"));
  for (let i = 0; i < 2; i++) assert.equal(await (await ask()).text(), "bad");
  assert.deepEqual(sent, [false, true, false, true, false]); // the pass was not forgotten
});

test("other refusals are handed through", async (t) => {
  const gateway = await FakeGateway.start(t);
  gateway.mangle = (header) => header.replace(/id="./, 'id="x');
  const response = await payingFetch()(gateway.url, asking("a"));
  assert.equal(response.status, 400);
  assert.equal((await response.json()).error.code, "proof_forged");
  assert.equal(gateway.asked.length, 2);
});

test("a pass that the server does not know any more is forgotten", async (t) => {
  const gateway = await FakeGateway.start(t);
  const fetch = payingFetch({ ahead: 10 });
  assert.equal((await fetch(gateway.url, asking("a"))).status, 200);
  gateway.secret = Buffer.alloc(32);
  const both = ["b", "c"].map((text) => fetch(gateway.url, asking(text)));
  for (const response of await Promise.all(both)) assert.equal(response.status, 200);
  assert.equal((await fetch(gateway.url, asking("d"))).status, 200);
  assert.equal(gateway.asked.filter(({ path }) => path === PASSES).length, 2);
  assert.equal(gateway.codes.at(-1), "ok");
  assert.equal(gateway.codes.filter((code) => code === "proof_forged").length, 2);
});

test("a kept proof that the server does not know any more is paid for anew", async (t) => {
  const gateway = await FakeGateway.start(t, { fails: "before", failsWith: 503 });
  const fetch = payingFetch();
  assert.equal((await fetch(gateway.url, asking("a"))).status, 503);
  gateway.secret = Buffer.alloc(32);
  assert.equal((await fetch(gateway.url, asking("a"))).status, 200);
  assert.deepEqual(gateway.codes.slice(2), ["proof_forged", "challenge_required", "ok"]);
});

for (const failsWith of [undefined, 503]) {
  for (const fails of ["before", "after"]) {
    const what = failsWith ?? "no answer";
    test(`a proof that met ${what} ${fails} it was charged is sent again`, async (t) => {
      const gateway = await FakeGateway.start(t, { fails, failsWith });
      const fetch = payingFetch();
      const first = await fetch(gateway.url, asking("a")).catch((error) => error);
      assert.ok(failsWith ? first.status === failsWith : first instanceof TypeError);
      assert.equal((await fetch(gateway.url, asking("b"))).status, 200); // another body
      const retry = { ...KEY, "x-retry-count": "1" };
      const request = new Request(gateway.url, asking("a", { headers: retry }));
      assert.equal((await fetch(request)).status, 200);
      const proofs = gateway.asked.map(({ headers }) => headers["tollkeeper-proof"]);
      assert.equal(proofs.length, 5);
      assert.equal(proofs[4], proofs[1]);
      assert.ok(proofs[2] === undefined && proofs[3] !== proofs[1]);
      assert.equal((await fetch(gateway.url, asking("a"))).status, 200);
      assert.equal(gateway.asked.at(-1).headers["tollkeeper-proof"], undefined); // sent once
    });
  }
}

test("the request's signal stops the solving, of string and Request alike", async (t) => {
  const gateway = await FakeGateway.start(t, { hashes: 2 ** 45 });
  for (const workers of [0, 1]) {
    for (const wrap of [(...given) => given, (...given) => [new Request(...given)]]) {
      const stop = new AbortController();
      const onProgress = () => stop.abort();
      const fetch = payingFetch({ workers, onProgress, ...UNLIMITED });
      const given = wrap(gateway.url, asking("a", { signal: stop.signal }));
      await assert.rejects(fetch(...given), { name: "AbortError" });
    }
  }
});

test("who waits for another's puzzle can give up, and the next is still served", async (t) => {
  const gateway = await FakeGateway.start(t, { hashes: 2 ** 45 });
  const [first, second] = [new AbortController(), new AbortController()];
  let began;
  const begun = new Promise((resolve) => (began = resolve));
  const options = { workers: 0, onProgress: () => began(), ...UNLIMITED };
  const answered = [];
  const send = async (...given) => {
    const response = await fetch(...given);
    answered.push(response);
    return response;
  };
  const paying = payingFetch({ ...options, fetch: send });
  let solving = true;
  const one = paying(gateway.url, asking("a", { signal: first.signal })).finally(() => {
    solving = false;
  });
  await begun;
  const two = paying(gateway.url, asking("b", { signal: second.signal }));
  while (answered.length < 2) await new Promise((resolve) => setImmediate(resolve));
  second.abort();
  await assert.rejects(two, { name: "AbortError" });
  assert.ok(solving);
  gateway.hashes = 100;
  const three = paying(gateway.url, asking("c"));
  first.abort();
  await assert.rejects(one, { name: "AbortError" });
  assert.equal((await three).status, 200);
});

test("who would have to wait too long for another's puzzle gets the 402", async (t) => {
  const gateway = await FakeGateway.start(t, { alg: "scrypt" });
  const texts = (name) => Array.from({ length: 100 }, (_, i) => name + i); // 150 runs expected
  const stop = new AbortController();
  let running;
  const begun = new Promise((resolve) => (running = resolve));
  const scrypt = () => new Promise((resolve) => setTimeout(resolve, 50, new Uint8Array(32)));
  const paying = payingFetch({ scrypt, maxSeconds: 12, onProgress: () => running() });
  const one = paying(gateway.url, asking(texts("a"), { signal: stop.signal }));
  await begun;
  await assertRefused(await paying(gateway.url, asking(texts("b"))));
  stop.abort();
  await assert.rejects(one, { name: "AbortError" });
});

test("many requests at once are all paid for", async (t) => {
  const gateway = await FakeGateway.start(t);
  const fetch = payingFetch();
  const all = Array.from({ length: 30 }, (_, i) => fetch(gateway.url, asking(`text ${i}`)));
  assert.ok((await Promise.all(all)).every(({ status }) => status === 200));
  assert.equal(gateway.spent.size, 30);
});

test("a pass pays for many requests, and a new one is bought when it is used up", async (t) => {
  const gateway = await FakeGateway.start(t);
  const fetch = payingFetch({ ahead: 10 });
  for (let i = 0; i < 25; i++) {
    assert.equal((await fetch(gateway.url, asking(`text ${i}`))).status, 200);
  }
  const bought = gateway.asked.filter(({ path }) => path === PASSES);
  assert.equal(bought.length, 3);
  assert.equal(bought[0].body, '{"inputs":10}');
  assert.equal(bought[0].headers.authorization, "Bearer key");
  assert.equal(gateway.codes.filter((code) => code === "proof_spent").length, 2);
});

test("requests at once share one pass", async (t) => {
  const gateway = await FakeGateway.start(t);
  const fetch = payingFetch({ ahead: 30 });
  const all = (name) => Array.from({ length: 15 }, (_, i) => fetch(gateway.url, asking(name + i)));
  const answers = [...(await Promise.all(all("a"))), ...(await Promise.all(all("b")))];
  assert.ok(answers.every(({ status }) => status === 200));
  assert.equal(gateway.spent.size, 1);
});

test("of those refused in the same moment one buys the new pass", async () => {
  let bought = 0;
  const paying = payingFetch({
    ahead: 5,
    fetch: async (url, { headers }) => {
      if (!String(url).endsWith(PASSES)) {
        return new Response("", { status: headers.has("tollkeeper-proof") ? 200 : 402 });
      }
      bought += 1;
      return Response.json({ challenge: new FakeGateway().challenge(5), inputs: 5 });
    },
  });
  const all = Array.from({ length: 5 }, (_, i) => paying("http://x/v1/embeddings", asking(`${i}`)));
  assert.ok((await Promise.all(all)).every(({ status }) => status === 200));
  assert.equal(bought, 1);
});

test("a request that a new pass does not cover is paid for alone", async (t) => {
  const gateway = await FakeGateway.start(t);
  const fetch = payingFetch({ ahead: 2 });
  assert.equal((await fetch(gateway.url, asking(["a", "b", "c"]))).status, 200);
  assert.deepEqual(gateway.codes, ["challenge_required", "proof_spent", "ok"]);
});

test("where passes are refused every request is paid for alone", async (t) => {
  for (const [passesRefused, asked] of [[400, 1], [503, 2]]) {
    const gateway = await FakeGateway.start(t, { passesRefused });
    const fetch = payingFetch({ ahead: 5 });
    for (const text of ["a", "b"]) {
      assert.equal((await fetch(gateway.url, asking(text))).status, 200);
    }
    assert.equal(gateway.asked.filter(({ path }) => path === PASSES).length, asked);
  }
});

test("of an answer that is longer than any pass only the beginning is read", async () => {
  let pulled = 0;
  let cancelled = false;
  const endless = () =>
    new ReadableStream({
      pull(controller) {
        pulled += 1;
        controller.enqueue(new Uint8Array(1024).fill(32));
        if (pulled === 1000) controller.close();
      },
      cancel() {
        cancelled = true;
      },
    });
  const paying = payingFetch({
    ahead: 5,
    fetch: async (url, { headers }) => {
      if (String(url).endsWith(PASSES)) return new Response(endless());
      const challenge = { "www-authenticate": new FakeGateway().challenge(1, "d") };
      const status = new Headers(headers).has("tollkeeper-proof") ? 200 : 402;
      return new Response("", { status, headers: challenge });
    },
  });
  assert.equal((await paying("http://x/v1/embeddings", asking("a"))).status, 200);
  assert.ok(cancelled && pulled < 12, `${pulled} KB`);
});

test("a pass above the cap is left alone, and what is below it paid", async (t) => {
  const gateway = await FakeGateway.start(t);
  const fetch = payingFetch({ ahead: 100, maxWork: 1000 });
  assert.equal((await fetch(gateway.url, asking("a"))).status, 200);
  assert.equal((await fetch(gateway.url, asking("b"))).status, 200);
  assert.equal(gateway.asked.filter(({ path }) => path === PASSES).length, 1);
});

test("a pass is solved on while one of those who wait for it has not given up", async (t) => {
  const gateway = await FakeGateway.start(t, { hashes: 20000 });
  const stop = new AbortController();
  const fetch = payingFetch({ ahead: 10, workers: 0, onProgress: () => stop.abort() });
  const one = fetch(gateway.url, asking("a", { signal: stop.signal }));
  const two = fetch(gateway.url, asking("b"));
  await assert.rejects(one, { name: "AbortError" });
  assert.equal((await two).status, 200);
  assert.equal(gateway.spent.size, 1);
});

test("when all have given up a pass, the next buys one", async (t) => {
  const gateway = await FakeGateway.start(t, { hashes: 2 ** 45 });
  const stop = new AbortController();
  const onProgress = () => stop.abort();
  const fetch = payingFetch({ ahead: 10, workers: 0, onProgress, ...UNLIMITED });
  const one = fetch(gateway.url, asking("a", { signal: stop.signal }));
  await assert.rejects(one, { name: "AbortError" });
  gateway.hashes = 100;
  assert.equal((await fetch(gateway.url, asking("b"))).status, 200);
  assert.equal(gateway.asked.filter(({ path }) => path === PASSES).length, 2);
});

test("a pass goes only to its origin, and only with its Authorization", async (t) => {
  const [gateway, other] = [await FakeGateway.start(t), await FakeGateway.start(t, { hashes: 0 })];
  const fetch = payingFetch({ ahead: 10 });
  await fetch(gateway.url, asking("a"));
  await fetch(other.url, asking("b"));
  await fetch(gateway.url, asking("a", { headers: { authorization: "Bearer other" } }));
  await fetch(gateway.url, asking("a", { headers: {} }));
  await fetch(gateway.url, asking("b"));
  const proofs = [...other.asked, ...gateway.asked.slice(-3)].map(
    ({ headers }) => headers["tollkeeper-proof"] !== undefined,
  );
  assert.deepEqual(proofs, [false, false, false, true]);
});

test("a redirect takes no proof along, and leads to no payment", async (t) => {
  const other = await FakeGateway.start(t);
  const gateway = await FakeGateway.start(t);
  const fetch = payingFetch({ ahead: 10 });
  await fetch(gateway.url, asking("a"));
  gateway.moved = other.url;
  await assertRefused(await fetch(gateway.url, asking("b")));
  assert.deepEqual(
    other.asked.map(({ headers }) => headers["tollkeeper-proof"]),
    [undefined],
  );
});

test("passes are asked for beside /v1, below a path too", async () => {
  const urls = [];
  const fetch = payingFetch({
    ahead: 1,
    fetch: async (url) => {
      urls.push(String(url));
      return new Response("{}", { status: 402 });
    },
  });
  await fetch("https://host/api/v1/embeddings", asking("a"));
  assert.deepEqual(urls, ["https://host/api/v1/embeddings", `https://host/api${PASSES}`]);
});

test("failures of the network and of the arguments are those of fetch", async () => {
  const fetch = payingFetch();
  await assert.rejects(fetch("http://127.0.0.1:1/"), TypeError);
  await assert.rejects(fetch("not a URL"), TypeError);
  const used = new Request("http://127.0.0.1:1/", { method: "POST", body: "x" });
  await used.text();
  await assert.rejects(fetch(used), TypeError);
});
