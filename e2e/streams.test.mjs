// Streams: none is cut on a busy machine, and their bytes are upstream's.
import test from "node:test";
import assert from "node:assert/strict";
import http from "node:http";
import { Worker } from "node:worker_threads";
import * as world from "./lib/world.mjs";

const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });

// raw sends a request without any client's help and reads the bytes of the answer.
function raw(url, path, body, headers) {
  return new Promise((resolve, reject) => {
    const request = http.request(url + path, { method: "POST", agent, headers: { "content-type": "application/json", "content-length": Buffer.byteLength(body), ...headers } },
      (answer) => {
        const chunks = [];
        answer.on("data", (chunk) => chunks.push(chunk));
        answer.on("end", () => resolve({ status: answer.statusCode, text: Buffer.concat(chunks).toString(), trailers: answer.trailers }));
        answer.on("error", reject);
      });
    request.on("error", reject);
    request.end(body);
  });
}

test("streams through a standalone gateway", async (t) => {
  const sim = await world.simulator();
  const env = world.settings(sim);
  const gateway = await world.standalone(env);
  t.after(() => Promise.all([sim.kill(), gateway.kill()]));
  const p = await world.product(gateway, "1000");
  const path = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
  const chat = (more) => JSON.stringify({ messages: [{ role: "user", content: "Stream." }], max_tokens: 30, stream: true, ...more });

  await t.test("bytes equal the simulator's for 20 random chunkings", async () => {
    for (let seed = 1; seed <= 20; seed++) {
      const headers = { "x-simulator-split": String(seed), "x-simulator-completion-tokens": "25" };
      const body = chat({ user: `u${seed}`, stream_options: { include_usage: true } });
      const direct = await raw(sim.url, path, body, { ...headers, "api-key": world.upstreamKey });
      const through = await raw(gateway.url, path, body, { ...headers, "api-key": p.key });
      assert.equal(direct.status, 200);
      assert.equal(through.text, direct.text);
      assert.equal(through.trailers["x-costgate-usage-source"], "provider");
      // Without the question for usage the gateway asks it, and takes out the
      // chunk that answers it: nothing else.
      const plainBody = chat({ user: `u${seed}` });
      const plain = await raw(gateway.url, path, plainBody, { ...headers, "api-key": p.key });
      const asked = await raw(sim.url, path, '{"stream_options":{"include_usage":true},' + plainBody.slice(1), { ...headers, "api-key": world.upstreamKey });
      assert.equal(plain.text, asked.text.split("\n\n").filter((e) => !e.includes('"usage":{')).join("\n\n"));
      assert.equal(plain.trailers["x-costgate-usage-source"], "provider");
    }
  });

  await t.test("5,000 short streams, 64 at a time, on a busy machine", async () => {
    const burn = new Worker("for (;;) Math.sqrt(Math.random())", { eval: true });
    const body = chat({});
    const headers = { "api-key": p.key, "x-simulator-completion-tokens": "10", "x-simulator-chunk-delay-us": "1000" };
    let left = 5000, whole = 0;
    const bad = [];
    const worker = async () => {
      while (left-- > 0) {
        const answer = await raw(gateway.url, path, body, headers).catch((error) => ({ text: String(error) }));
        if (answer.text.endsWith("data: [DONE]\n\n")) whole++; else bad.push(answer.text.slice(-200));
      }
    };
    await Promise.all(Array.from({ length: 64 }, worker));
    await burn.terminate();
    assert.deepEqual(bad.slice(0, 3), []);
    assert.equal(whole, 5000);
    const view = (await world.api(gateway, "GET", `/api/Quota/${p.id}`)).json;
    assert.equal(view.Held, "0");
    const records = await world.history(gateway, p.id);
    assert.equal(records.length, 5040);
    assert.equal(world.nano(view.Spent), world.sum(records.map((r) => r.cost_nano_usd)));
  });

  agent.destroy();
  await gateway.kill("SIGINT");
  const checked = await world.verify({ ...env, ADMIN_KEY: world.adminKey });
  assert.equal(checked.code, 0, checked.out);
});
