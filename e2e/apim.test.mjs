// The flow of the predecessor's API Management fragments.
import test from "node:test";
import assert from "node:assert/strict";
import * as world from "./lib/world.mjs";

const event = (object) => `data: ${JSON.stringify(object)}\n\n`;
const stream = (id, usage) => event({ choices: [], created: 0, id: "", model: "", object: "", prompt_filter_results: [] }) +
  event({ id, model: "gpt-4o-2024-11-20", object: "chat.completion.chunk", choices: [{ index: 0, delta: { content: "Hello there" }, finish_reason: null }] }) +
  event({ id, model: "gpt-4o-2024-11-20", object: "chat.completion.chunk", choices: [{ index: 0, delta: {}, finish_reason: "stop" }] }) +
  (usage ? event({ id, model: "gpt-4o-2024-11-20", object: "chat.completion.chunk", choices: [], usage }) : "") + "data: [DONE]\n\n";

test("API Management: check, forward, update", async (t) => {
  const sim = await world.simulator();
  const gateway = await world.standalone(world.settings(sim));
  t.after(() => Promise.all([sim.kill(), gateway.kill()]));
  const key = "apim-subscription-0123456789";
  const made = await world.api(gateway, "POST", "/api/Quota", { SubscriptionKey: key, ProductName: "Apim", Amount: 0.01, RateLimitOnCost: true });
  assert.equal(made.status, 200, made.text);
  const amount = async () => {
    const view = await world.api(gateway, "GET", `/api/Quota/${key}`);
    assert.equal(view.status, 200);
    assert.equal(typeof view.json.Amount, "string");
    assert.equal(view.json.SubscriptionKey, key);
    return world.nano(view.json.Amount);
  };
  const update = async (responseBody, prompt = JSON.stringify({ messages: [{ role: "user", content: "Hello" }] }), headers = {}) => {
    const answer = await world.api(gateway, "POST", "/api/Quota/Update", { subscriptionKey: key, prompt, responseBody }, headers);
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.text, "true");
  };
  assert.equal(await amount(), 10_000_000n);
  await update(stream("chatcmpl-a", { prompt_tokens: 100, completion_tokens: 50, total_tokens: 150 }));
  assert.equal(await amount(), 10_000_000n - 750_000n); // 100 at $2.5 and 50 at $10 a million
  await update(stream("chatcmpl-a", { prompt_tokens: 100, completion_tokens: 50, total_tokens: 150 })); // the same answer again
  assert.equal(await amount(), 9_250_000n);
  await update(stream("chatcmpl-b")); // without usage: counted, 8 in, 2 and 1 hidden out
  const counted = (await world.history(gateway, key))[0];
  assert.equal(counted.usage_source, "tokenizer");
  assert.equal(await amount(), 9_250_000n - BigInt(counted.cost_nano_usd));
  assert.ok(counted.prompt_tokens === 8 && counted.completion_tokens >= 2 && counted.completion_tokens <= 3, JSON.stringify(counted));
  const before = await amount();
  const json = { model: "gpt-4o-2024-11-20", choices: [], usage: { prompt_tokens: 10, completion_tokens: 1 } };
  await update(json, { messages: [] }); // an object, and no id: every time
  await update(json, { messages: [] });
  assert.equal(await amount(), before - 70_000n);
  await update(json, "x", { "idempotency-key": "once" });
  await update(json, "x", { "idempotency-key": "once" });
  assert.equal(await amount(), before - 105_000n);
  await update({ ...json, usage: { prompt_tokens: 10_000, completion_tokens: 1000 } }); // over the limit: the money is spent
  assert.ok((await amount()) < 0n);

  const other = await world.api(gateway, "POST", "/api/Quota/Update", { subscriptionKey: key, prompt: "y", responseBody: json }, { "idempotency-key": "once" });
  assert.equal(other.status, 422);
  const unknown = await world.api(gateway, "GET", "/api/Quota/no-such-key-0123456789");
  assert.equal(unknown.status, 404);
  assert.equal(unknown.json.Amount, "0");
  assert.match(unknown.headers.get("content-type"), /problem\+json/);
  assert.equal((await world.api(gateway, "POST", "/api/Quota/Update", { subscriptionKey: "no-such-key-0123456789", prompt: "", responseBody: json })).status, 404);
  assert.equal((await world.api(gateway, "POST", "/api/Quota/Update", { subscriptionKey: key, prompt: "", responseBody: "nonsense" })).status, 400);
  const all = (await world.api(gateway, "GET", "/api/quota/")).json;
  assert.equal(all[0].SubscriptionKey, null);
  assert.equal(all[0].Amount, 0.01);
  const refused = await fetch(gateway.url + "/openai/v1/chat/completions", { method: "POST", headers: { "ocp-apim-subscription-key": key }, body: '{"model":"gpt-4o","max_tokens":1}' });
  assert.equal(refused.status, 429);
});
