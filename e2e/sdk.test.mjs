// The main job on the hosted binary, with the real OpenAI SDKs and Azurite.
import test from "node:test";
import assert from "node:assert/strict";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { AzureOpenAI, OpenAI } from "openai";
import * as world from "./lib/world.mjs";

const promptMark = "xylophone-prompt-marker";
const tools = [{ type: "function", function: { name: "get_weather", parameters: { type: "object", properties: { location: { type: "string" } } } } }];
const question = [{ role: "user", content: `${promptMark}: what is the weather in Paris?` }];

test("the SDKs through the hosted gateway", async (t) => {
  const azurite = await world.azurite();
  const sim = await world.simulator();
  const hub = await world.hub();
  const env = world.settings(sim, azurite, { UsageEventHub: hub.connection });
  const gateway = await world.hosted(env);
  const p = await world.product(gateway, "5.00");
  const other = await world.product(gateway, "5.00");
  const answers = [];
  const azure = new AzureOpenAI({ endpoint: gateway.url, apiKey: p.key, apiVersion: "2024-10-21" });
  const openai = new OpenAI({ baseURL: gateway.url + "/openai/v1", apiKey: p.key });
  const stranger = new OpenAI({ baseURL: gateway.url + "/openai/v1", apiKey: other.key });

  await t.test("chat", async () => {
    for (const client of [azure, openai]) {
      const { data, response } = await client.chat.completions.create({ model: "gpt-4o", messages: question, max_tokens: 50 }).withResponse();
      answers.push(data.choices[0].message.content);
      assert.ok(data.usage.completion_tokens > 0);
      assert.ok(world.nano(response.headers.get("x-costgate-cost")) > 0n);
      const record = await (await fetch(`${gateway.url}/me/requests/${response.headers.get("x-costgate-request-id")}`, { headers: { "api-key": p.key } })).json();
      assert.equal(record.response_id, data.id);
      assert.equal(record.prompt_tokens, data.usage.prompt_tokens);
    }
  });
  await t.test("streamed chat, usage asked for or not", async () => {
    for (const options of [{}, { stream_options: { include_usage: true } }]) {
      const stream = await azure.chat.completions.create({ model: "gpt-4o", messages: question, max_tokens: 40, stream: true, ...options });
      let text = "", usage = 0;
      for await (const chunk of stream) {
        text += chunk.choices[0]?.delta?.content ?? "";
        if (chunk.usage) usage++;
      }
      answers.push(text);
      assert.ok(text.length > 0);
      assert.equal(usage, options.stream_options ? 1 : 0);
    }
  });
  await t.test("tool call, whole and streamed", async () => {
    const whole = await openai.chat.completions.create({ model: "gpt-4.1-mini", messages: question, tools, max_tokens: 100 });
    assert.equal(whole.choices[0].message.tool_calls[0].function.name, "get_weather");
    let text = "";
    for await (const chunk of await openai.chat.completions.create({ model: "gpt-4.1-mini", messages: question, tools, max_tokens: 100, stream: true })) {
      text += chunk.choices[0]?.delta?.tool_calls?.[0]?.function?.arguments ?? "";
    }
    assert.deepEqual(JSON.parse(text), { location: "Paris, France", unit: "celsius" });
  });
  await t.test("embeddings", async () => {
    const made = await azure.embeddings.create({ model: "text-embedding-3-small", input: [promptMark, "two"] });
    assert.equal(made.data.length, 2);
  });
  await t.test("legacy completions", async () => {
    const made = await azure.completions.create({ model: "gpt-35-turbo-instruct", prompt: promptMark, max_tokens: 20 });
    answers.push(made.choices[0].text);
    assert.ok(made.usage.completion_tokens > 0);
  });
  await t.test("responses, stored ones for their product only", async () => {
    const made = await openai.responses.create({ model: "gpt-4o", input: promptMark, max_output_tokens: 60 });
    answers.push(made.output_text);
    assert.equal((await openai.responses.retrieve(made.id)).id, made.id);
    const next = await openai.responses.create({ model: "gpt-4o", input: promptMark + " more", previous_response_id: made.id, max_output_tokens: 60 });
    assert.ok(next.usage.input_tokens > made.usage.input_tokens);
    await assert.rejects(stranger.responses.retrieve(made.id), OpenAI.NotFoundError);
    await assert.rejects(stranger.responses.create({ model: "gpt-4o", input: "x", previous_response_id: made.id }), OpenAI.NotFoundError);
    let done = 0;
    for await (const event of await openai.responses.create({ model: "gpt-4o", input: promptMark + " streamed", max_output_tokens: 60, stream: true })) {
      if (event.type === "response.completed") done++;
    }
    assert.equal(done, 1);
  });
  await t.test("routes, keys and the timer as the host has them", async () => {
    assert.equal((await fetch(gateway.url + "/HEALTH/")).status, 200);
    assert.equal((await fetch(gateway.url + "/api/Quota")).status, 401); // the host wants a function key
    assert.equal((await world.api(gateway, "DELETE", "/api/Quota")).status, 404);
    assert.equal((await world.api(gateway, "GET", `/API/QUOTA/${p.key}/`)).json.ProductId, p.id);
    assert.equal((await fetch(`${gateway.url}/api/Quota/${p.key}?code=${world.adminKey}`)).status, 200);
    assert.equal((await world.api(gateway, "POST", "/admin/functions/Maintain", {})).status, 202);
  });
  await t.test("a wrong key", async () => {
    const wrong = new AzureOpenAI({ endpoint: gateway.url, apiKey: "wrong-key-0123456789", apiVersion: "2024-10-21" });
    await assert.rejects(wrong.chat.completions.create({ model: "gpt-4o", messages: question }), OpenAI.AuthenticationError);
  });
  await t.test("a product run dry gets insufficient_quota after one try", async () => {
    const poor = await world.product(gateway, "0.01");
    let tries = 0;
    const counting = (url, init) => { tries++; return fetch(url, init); };
    const client = new AzureOpenAI({ endpoint: gateway.url, apiKey: poor.key, apiVersion: "2024-10-21", fetch: counting });
    let refused;
    for (let i = 0; !refused; i++) {
      assert.ok(i < 100, "the budget never ends");
      tries = 0;
      await client.chat.completions.create({ model: "gpt-4o", messages: [{ role: "user", content: `${promptMark} ${i}` }], max_tokens: 200 },
        { headers: { "x-simulator-completion-tokens": "200" } }).catch((error) => { refused = error; });
    }
    assert.equal(refused.status, 429);
    assert.equal(refused.code, "insufficient_quota");
    assert.equal(tries, 1);
    const view = (await world.api(gateway, "GET", `/api/Quota/${poor.key}`)).json;
    assert.ok(world.nano(view.Amount) >= 0n);
    assert.equal(world.nano(view.Budget) - world.nano(view.Spent), world.nano(view.Amount));
    answers.poor = poor;
  });
  await t.test("balance, records and the simulator's bill agree", async () => {
    const records = [];
    for (const { id } of [p, other, answers.poor]) {
      const own = await world.history(gateway, id);
      const view = (await world.api(gateway, "GET", `/api/Quota/${id}`)).json;
      assert.equal(world.nano(view.Spent), world.sum(own.map((r) => r.cost_nano_usd)));
      assert.equal(world.nano(view.Amount), world.nano(view.Budget) - world.sum(own.map((r) => r.charge)));
      assert.equal(view.Held, "0");
      records.push(...own);
    }
    const billed = await world.bill(sim);
    assert.equal(billed.unpriced, 0);
    assert.equal(records.length, billed.entries);
    assert.equal(world.sum(records.map((r) => r.cost_nano_usd)), BigInt(billed.cost_nano));
    const key = (id, cost) => `${id || ""} ${cost}`;
    assert.deepEqual(records.map((r) => key(r.response_id, r.cost_nano_usd)).sort(), billed.lines.map((l) => key(l.id, l.cost_nano)).sort());
    assert.ok(records.every((r) => r.usage_source === "provider"));
    const checked = await world.verify({ ...env, ADMIN_KEY: world.adminKey });
    assert.equal(checked.code, 0, checked.out);
    // The hub has every record, at least once, under its id.
    const events = await world.poll(() => hub.events(), (have) => records.every((r) => have.some((e) => e.message_id === r.id)), 30_000);
    for (const e of events) {
      const record = JSON.parse(e.body);
      assert.equal(record.id, e.message_id);
      assert.equal(e.properties["cloudEvents:subject"], record.product_id);
      assert.equal(e.content_type, "application/json");
    }
    const byID = new Map(events.map((e) => [e.message_id, JSON.parse(e.body)]));
    assert.equal(world.sum(records.map((r) => byID.get(r.id).cost_nano_usd)), BigInt(billed.cost_nano));
  });
  await t.test("no secret, prompt or completion is written anywhere", async () => {
    await azurite.kill("SIGINT"); // it writes its file then
    const texts = { stdout: gateway.stdout, stderr: gateway.stderr };
    const walk = (dir) => readdirSync(dir).forEach((name) => {
      const path = join(dir, name);
      if (statSync(path).isDirectory()) walk(path); else texts[path] = readFileSync(path, "latin1");
    });
    walk(azurite.location);
    walk(env.DATA_DIR);
    texts[hub.out] = readFileSync(hub.out, "latin1");
    assert.ok(hub.events().length > 15);
    assert.ok(Object.keys(texts).some((f) => f.startsWith(azurite.location) && texts[f].includes("cost_nano_usd")), "the tables were not dumped");
    const secrets = [p.key, other.key, answers.poor.key, world.upstreamKey, world.adminKey, promptMark, ...answers.filter((a) => a.length > 30)];
    for (const [file, text] of Object.entries(texts)) {
      for (const secret of secrets) assert.ok(!text.includes(secret), `${file} contains ${secret.slice(0, 12)}...`);
    }
    for (const r of await (await fetch(sim.url + "/_simulator/requests")).json()) {
      const head = JSON.stringify(r.header).toLowerCase() + r.query;
      for (const bad of [p.key, other.key, world.adminKey, "x-functions-key", "x-forwarded", "x-azure-functions", "x-ms-invocation-id"]) {
        assert.ok(!head.includes(bad.toLowerCase()), `upstream saw ${bad.slice(0, 12)}`);
      }
    }
  });
  await gateway.kill("SIGINT");
  await sim.kill();
  await hub.kill();
});
