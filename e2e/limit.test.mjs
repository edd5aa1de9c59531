// A hard limit shared by two processes through Table Storage, and records that
// survive SIGKILL.
import test from "node:test";
import assert from "node:assert/strict";
import * as world from "./lib/world.mjs";

test("200 parallel requests of $0.05 on $1.00, two processes", async (t) => {
  const azurite = await world.azurite();
  const sim = await world.simulator();
  const env = () => world.settings(sim, azurite);
  const first = await world.standalone(env());
  const second = await world.standalone(env());
  t.after(() => Promise.all([azurite.kill(), sim.kill(), first.kill(), second.kill()]));
  const p = await world.product(first, "1.00");

  // gpt-4o: 5,000 output tokens are $0.05.
  const body = JSON.stringify({ model: "gpt-4o", messages: [{ role: "user", content: "Say it." }], max_tokens: 4998 });
  const ask = (gateway) => fetch(gateway.url + "/openai/v1/chat/completions", {
    method: "POST", body, headers: { "api-key": p.key, "x-simulator-completion-tokens": "4998", "x-simulator-latency-ms": "500" },
  }).then(async (r) => ({ status: r.status, code: (await r.json()).error?.code }));
  const answers = await Promise.all(Array.from({ length: 200 }, (_, i) => ask(i % 2 ? first : second)));
  const admitted = answers.filter((a) => a.status === 200).length;
  for (const a of answers) {
    assert.ok(a.status === 200 || (a.status === 429 && ["budget_held", "insufficient_quota"].includes(a.code)), JSON.stringify(a));
  }
  const view = (await world.api(first, "GET", `/api/Quota/${p.id}`)).json;
  assert.ok(world.nano(view.Spent) >= 800_000_000n && world.nano(view.Spent) <= 1_000_000_000n, `spent ${view.Spent} in ${admitted} requests`);
  assert.equal(view.Held, "0");
  const billed = await world.bill(sim);
  assert.equal(billed.entries, admitted);
  assert.equal(BigInt(billed.cost_nano), world.nano(view.Spent));

  await t.test("SIGKILL in the middle of 50 streams: 50 records, nothing held", async () => {
    const rich = await world.product(first, "100");
    const stream = (i) => fetch(first.url + "/openai/v1/chat/completions", {
      method: "POST", body: JSON.stringify({ model: "gpt-4o", messages: [{ role: "user", content: `Stream ${i}.` }], max_tokens: 200, stream: true }),
      headers: { "api-key": rich.key, "x-simulator-completion-tokens": "200", "x-simulator-chunk-delay-us": "100000" },
    });
    const streams = await Promise.all(Array.from({ length: 50 }, (_, i) => stream(i))); // all have their heads
    assert.ok(streams.every((s) => s.status === 200));
    const cut = streams.map((s) => s.text().then(() => "whole", () => "cut"));
    await first.kill("SIGKILL");
    assert.deepEqual(new Set(await Promise.all(cut)), new Set(["cut"]));
    const held = (await world.api(second, "GET", `/api/Quota/${rich.id}`)).json;
    assert.notEqual(held.Held, "0");
    // The other process sweeps once a minute, when the heartbeat is 30 s old.
    const swept = await world.poll(async () => (await world.api(second, "GET", `/api/Quota/${rich.id}`)).json, (v) => v.Held === "0", 150_000);
    const records = await world.history(second, rich.id);
    assert.equal(records.length, 50);
    assert.ok(records.every((r) => r.outcome === "swept" && r.charge === r.hold_nano_usd));
    assert.equal(world.nano(swept.Spent), world.sum(records.map((r) => r.cost_nano_usd)));
    const checked = await world.verify({ ...env(), ADMIN_KEY: world.adminKey });
    assert.equal(checked.code, 0, checked.out);
  });
});
