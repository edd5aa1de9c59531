// API Management in front of the gateway: the predecessor's calls, and those of the policies in infra/apim.
import test from "node:test";
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import * as world from "./lib/world.mjs";
import { apim, check, parse, text, walk } from "./lib/apim.mjs";

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

// The calls of the predecessor's own fragments: the key in the path, the function key as a header or in the URL, and
// whatever a named value may have had at its end.
test("API Management: the predecessor's fragments go on working", async (t) => {
  const sim = await world.simulator();
  const gateway = await world.standalone(world.settings(sim));
  t.after(() => Promise.all([sim.kill(), gateway.kill()]));
  const key = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
  await world.api(gateway, "POST", "/api/Quota/", { subscriptionKey: key, productName: "Apim", amount: "1" });
  for (const path of [`/api/Quota/${key}`, `/api/quota/${key}/`, `/API/QUOTA/${key}`, `/api/Quota/${key}?code=${world.adminKey}`]) {
    const answer = await fetch(gateway.url + path, { redirect: "manual", headers: path.includes("code=") ? {} : { "x-functions-key": world.adminKey } });
    const view = await answer.json();
    assert.equal(answer.status, 200, path);
    assert.ok(Number(view.Amount) > 0 && view.SubscriptionKey === key, path);
  }
  for (const path of ["/api/Quota/0000000000000000000000000000dead", "/api/quota/0000000000000000000000000000dead/", "/api/Quota/short"]) {
    const answer = await fetch(gateway.url + path, { headers: { "x-functions-key": world.adminKey } });
    assert.equal(answer.status, 404, path);
    assert.equal((await answer.json()).Amount, "0", path); // the fragment reads it, whatever the status
  }
  const answered = JSON.stringify({ id: "chatcmpl-p", model: "gpt-4o-2024-11-20", object: "chat.completion", choices: [], usage: { prompt_tokens: 100, completion_tokens: 50, total_tokens: 150 } }, null, 2);
  const post = (path, body) => fetch(gateway.url + path, { method: "POST", redirect: "manual", body: JSON.stringify(body, null, 2) }); // no content type, as there
  for (const path of [`/api/Quota/Update?code=${world.adminKey}`, `/api/quota/update/?code=${world.adminKey}`]) {
    const answer = await post(path, { subscriptionKey: key, prompt: "Hello", responseBody: answered });
    assert.equal(answer.status, 200);
    assert.equal(await answer.text(), "true");
  }
  const left = (await world.api(gateway, "GET", `/api/Quota/${key}`)).json.Amount;
  assert.equal(world.nano(left), 1_000_000_000n - 750_000n); // once: it is one response
  // Those fragments look at Amount only, and a stop does not change it: docs/MIGRATION.md says so.
  const stopped = (await world.api(gateway, "PATCH", `/api/Quota/${key}`, { state: "stopped" })).json;
  assert.deepEqual([stopped.State, stopped.Amount], ["stopped", left]);
  // The form before that, with tokens in place of the answer, is refused, by the names of its fields.
  const early = await post(`/api/Quota/Update?code=${world.adminKey}`, { subscriptionKey: key, model: "gpt-4", prompTokens: "1", CompletionTokens: "1", TotalTokens: "2" });
  assert.equal(early.status, 400);
  assert.match((await early.json()).detail, /Unknown fields: model, prompTokens, CompletionTokens, TotalTokens/);
});

const fragments = readdirSync(join(world.root, "infra", "apim", "fragments")).map((name) => "fragments/" + name);
const policies = readdirSync(join(world.root, "infra", "apim", "policies")).map((name) => "policies/" + name);
const paths = JSON.parse(text("named-values.json"));
const namedValues = [...Object.keys(paths), "QuotaQueryKey"];

test("API Management: policies are well-formed, in sections that take them", () => {
  const bicep = text("apim.bicep");
  const sectionsOf = { "fragments/Outbound-CustomRateLimiter.xml": ["outbound"] };
  for (const name of fragments) {
    const source = text(name), fragment = parse(source);
    assert.equal(fragment.name, "fragment", name);
    const complaints = fragment.children.flatMap((p) => check(p, sectionsOf[name] ?? ["inbound"]));
    assert.deepEqual(complaints, [], name);
    for (const e of walk(fragment)) assert.ok(!["base", "include-fragment"].includes(e.name), `${name}: ${e.name} cannot be in a fragment`);
    assert.ok(source.length < 32 * 1024, name);
    assert.ok(bicep.includes(`loadTextContent('${name}')`), `${name} is not registered`);
    assert.ok(bicep.includes(`name: '${name.slice("fragments/".length, -".xml".length)}'`), name);
  }
  for (const name of policies) {
    const policy = parse(text(name));
    assert.deepEqual([policy.name, ...policy.children.map((c) => c.name)], ["policies", "inbound", "backend", "outbound", "on-error"], name);
    for (const section of policy.children) {
      assert.deepEqual(section.children.flatMap((p) => check(p, [section.name])), [], `${name} ${section.name}`);
      if (section.name !== "backend") assert.equal(section.children[0].name, "base", name);
      else assert.equal(section.children.length, 1, name); // API Management takes one
      for (const e of walk(section)) if (e.name === "include-fragment") assert.ok(fragments.includes(`fragments/${e.attributes["fragment-id"]}.xml`), e.attributes["fragment-id"]);
    }
  }
});

// bicep answers with what the compiler wrote, errors and warnings first.
const bicep = (...args) => new Promise((resolve) => execFile(process.env.BICEP, args, { maxBuffer: 16 << 20 }, (_, out, problems) => resolve({ out, problems })));

test("API Management: the Bicep module compiles without a word", { skip: process.env.BICEP ? false : "BICEP does not name a compiler" }, async () => {
  const file = join(world.root, "infra", "apim", "apim.bicep");
  assert.deepEqual(await bicep("lint", file), { out: "", problems: "" });
  const { out, problems } = await bicep("build", file, "--stdout");
  assert.equal(problems, "");
  const template = JSON.parse(out);
  const values = template.resources ? Object.values(template.resources) : [];
  for (const name of [...fragments, "policies/proxy.xml"]) {
    assert.ok(Object.values(template.variables).includes(text(name)) || values.some((r) => r.properties?.value === text(name)), `${name} is not in the template`);
  }
  for (const name of namedValues) {
    const resource = values.find((r) => r.properties?.displayName === name);
    assert.equal(resource?.type, "Microsoft.ApiManagement/service/namedValues", name);
    assert.equal(resource.properties.secret === true, name === "QuotaQueryKey", name);
  }
  assert.equal(template.parameters.functionKey.type, "securestring");
  assert.ok(!JSON.stringify(template.outputs).includes("functionKey"));
});

test("API Management: policies keep keys out of logs, and fail neither open nor for ever", () => {
  for (const name of [...fragments, ...policies]) {
    const source = text(name);
    for (const [, used] of source.matchAll(/\{\{([^{}]*)\}\}/g)) assert.ok(namedValues.includes(used), `${name} uses ${used}`);
    assert.equal(source.split("{{").length, source.split("}}").length, `${name} has a brace that API Management takes for a named value`);
    for (const e of walk(parse(source))) {
      // Traces show variables and messages.
      if (e.name === "set-variable") assert.doesNotMatch(e.attributes.value, /Subscription|QuotaQueryKey/, name);
      if (e.name === "message") assert.doesNotMatch(e.text, /Subscription|QuotaQueryKey|prompt|Body/, name);
      if (e.name === "send-request") {
        assert.equal(e.attributes["ignore-error"], "true", name); // the fragment looks for null, and decides
        assert.ok(Number(e.attributes.timeout) >= 1 && Number(e.attributes.timeout) <= 30, name);
      }
      if (e.name === "forward-request") assert.deepEqual(e.attributes, { timeout: "240", "buffer-response": "false" }, name);
      if (e.name === "set-body" && !e.text.trim().startsWith("@")) JSON.parse(e.text);
    }
  }
  // Fragments cannot include one another: what both ways to Proxy set must be the same twice.
  const toProxy = (name) => [...walk(parse(text(name)))].filter((e) => ["set-backend-service", "set-query-parameter"].includes(e.name) ||
    e.name === "set-header" && ["Ocp-Apim-Subscription-Key", "api-key", "Authorization"].includes(e.attributes.name)).map(({ name: n, attributes, children }) =>
    ({ n, attributes, values: children.map((c) => c.text) }));
  assert.deepEqual(toProxy("fragments/Inbound-CustomRateLimiter.xml").slice(0, 5).map(JSON.stringify).sort(),
    toProxy("fragments/Costgate-Proxy.xml").map(JSON.stringify).sort());
});

const chat = "/deployments/gpt-4o/chat/completions", version = "api-version=2024-10-21";
const ask = (more = {}) => JSON.stringify({ messages: [{ role: "user", content: "What does this cost?" }], max_tokens: 20, ...more });

// Both forms of the check: the key in a header of its own, and in the URL as the predecessor had it.
for (const query of [paths.QuotaQueryURL, "/api/Quota/{keyId}", "/api/quota/{keyId}/"]) {
  test(`API Management: our check and update, ${query}`, async (t) => {
    const sim = await world.simulator();
    const gateway = await world.standalone(world.settings(sim));
    t.after(() => Promise.all([sim.kill(), gateway.kill()]));
    const product = await world.product(gateway, "1");
    const named = { CostgateURL: gateway.url + paths.CostgateURL, QuotaQueryURL: gateway.url + query, QuotaQueryKey: world.adminKey,
      CustomQuotaUpdateURL: gateway.url + paths.CustomQuotaUpdateURL };
    const api = { policy: "policies/check.xml", named, backend: sim.url + "/openai", credential: { "api-key": world.upstreamKey }, key: product.key };
    const front = apim(api);
    const left = async () => world.nano((await world.api(gateway, "GET", `/api/Quota/${product.id}`)).json.Amount);
    const call = (body, more = {}) => front.call(more.path ?? chat, { body, query: version, headers: { "content-type": "application/json", "api-key": product.key }, ...more });

    let done = await call(ask());
    assert.equal(done.response.status, 200);
    assert.deepEqual([done.traces, done.base, done.response.headers.get("x-costgate-charge")], [[], api.backend, null]);
    const [record] = await world.history(gateway, product.id);
    const answer = await done.response.json();
    assert.equal(record.kind, "update");
    assert.equal(record.response_id, answer.id);
    assert.deepEqual([record.usage_source, record.prompt_tokens, record.completion_tokens], ["provider", answer.usage.prompt_tokens, answer.usage.completion_tokens]);
    assert.equal(await left(), 1_000_000_000n - BigInt(record.cost_nano_usd));
    assert.deepEqual(front.sent.map((s) => [s.method, s.status, s.url.includes(product.key)]), [
      ["GET", 200, query.includes("{keyId}")], // the form that puts it there
      ["POST", 200, false],
    ]);

    // The charge's answer was lost, and it is sent again: once, embeddings too, which have no id.
    const before = await left();
    done = await call(JSON.stringify({ input: "Hello" }), { path: "/deployments/text-embedding-3-small/embeddings" });
    assert.equal(done.response.status, 200, await done.response.clone().text());
    const charged = front.sent.at(-1), once = await left();
    assert.ok(charged.status === 200 && once < before, JSON.stringify(charged));
    const again = await fetch(charged.url, charged);
    assert.equal(again.status, 200);
    assert.equal(await left(), once);

    // A stream is neither read nor held back: Proxy serves and charges it.
    const records = (await world.history(gateway, product.id)).length;
    for (const body of [ask({ stream: true }), ask({ stream: true, stream_options: { include_usage: true } })]) {
      done = await call(body);
      assert.equal(done.response.status, 200);
      assert.match(done.response.headers.get("content-type"), /^text\/event-stream/);
      assert.deepEqual([done.base, done.read, done.traces], [gateway.url + "/openai", false, []]);
      assert.match(await done.response.text(), /data: \[DONE\]/);
    }
    const streamed = (await world.history(gateway, product.id)).slice(0, -records);
    assert.deepEqual(streamed.map((r) => [r.kind, r.stream, r.usage_source]), [["request", true, "provider"], ["request", true, "provider"]]);
    for (const [path, body] of [["/responses", ask()], [chat, "no JSON"], [chat, ask({ stream: "true" })], [chat, "[]"], ["/v1/models", undefined]]) {
      done = await call(body, { path, method: body === undefined ? "GET" : "POST" });
      assert.equal(done.base, gateway.url + "/openai", `${path} ${body}`);
    }
    assert.equal((await call(ask({ stream: false }))).base, api.backend);
    assert.equal((await call(ask({ stream: null }))).base, api.backend);

    // A stopped product, and one whose money is spent.
    const refused = async (status, made) => {
      const at = front.sent.length, bill = (await world.bill(sim)).length;
      done = await made;
      assert.equal(done.response.status, status);
      const body = await done.response.json();
      assert.equal(body.statusCode, status);
      assert.ok(body.message && body.error.code, JSON.stringify(body));
      assert.equal(front.sent.length - at <= 1, true);
      assert.equal((await world.bill(sim)).length, bill, "it reached Azure OpenAI");
      return done;
    };
    await world.api(gateway, "PATCH", `/api/Quota/${product.id}`, { state: "stopped" });
    await refused(429, call(ask()));
    await world.api(gateway, "PATCH", `/api/Quota/${product.id}`, { state: "open" });
    assert.equal((await call(ask())).response.status, 200);
    await world.api(gateway, "PATCH", `/api/Quota/${product.id}`, { amount: "0.0000001" });
    assert.equal((await refused(429, call(ask()))).response.headers.get("x-should-retry"), "false");
    await refused(query === "/me" ? 401 : 429, call(ask(), { subscription: "nobody-has-this-key-0123456789" }));
    await refused(401, call(ask(), { subscription: null }));
    await world.api(gateway, "PATCH", `/api/Quota/${product.id}`, { amount: "1" });

    // A wrong function key is no reason to tell a client that its key is wrong.
    if (query !== "/me") {
      const misled = apim({ ...api, named: { ...named, QuotaQueryKey: "wrong-key-0123456789" } });
      done = await misled.call(chat, { body: ask(), query: version });
      assert.deepEqual([done.response.status, done.traces], [503, ["The budget could not be checked: status 401"]]);
    }
    // The charge is refused: the client has its answer, and both it and the trace say so.
    const unpaid = apim({ ...api, named: { ...named, CustomQuotaUpdateURL: gateway.url + "/api/Quota/Nowhere" } });
    done = await unpaid.call(chat, { body: ask(), query: version });
    assert.deepEqual([done.response.status, done.response.headers.get("x-costgate-charge"), unpaid.sent.length], [200, "failed", 2]);
    assert.match(done.traces.join(), /^An answer was not charged: status 404, request /);

    // The gateway is gone: refused, or passed by the variable, never silently.
    await gateway.kill();
    done = await call(ask());
    assert.deepEqual([done.response.status, done.response.headers.get("retry-after")], [503, "2"]);
    assert.match(done.traces.join(), /could not be checked: no answer/);
    const body = text("policies/check.xml").replace('value="refuse"', 'value="pass"');
    assert.notEqual(body, text("policies/check.xml"));
    const lenient = apim({ ...api, source: body });
    done = await lenient.call(chat, { body: ask(), query: version });
    assert.deepEqual([done.response.status, done.response.headers.get("x-costgate-check"), done.response.headers.get("x-costgate-charge")], [200, "failed", "failed"]);
    assert.equal(lenient.sent.length, 4); // the check once, the charge three times
    assert.equal(done.traces.length, 2);
    assert.ok(!done.traces.join().includes(product.key));
  });
}

test("API Management: an API that is not Azure OpenAI is only checked; a stream without the inbound fragment is traced", async (t) => {
  const sim = await world.simulator();
  const gateway = await world.standalone(world.settings(sim));
  t.after(() => Promise.all([sim.kill(), gateway.kill()]));
  const product = await world.product(gateway, "1");
  const named = { CostgateURL: gateway.url, QuotaQueryURL: gateway.url + "/me", QuotaQueryKey: world.adminKey, CustomQuotaUpdateURL: gateway.url + "/api/Quota/Update" };
  const api = { policy: "policies/check.xml", named, backend: sim.url + "/openai", credential: { "api-key": world.upstreamKey }, key: product.key };
  const other = apim({ ...api, preset: { costgateApi: "other" } });
  const done = await other.call("/v1/models", { method: "GET" });
  assert.deepEqual([done.base, done.variables.get("prompt"), other.sent.length, done.response.status], [api.backend, "", 1, 200]);

  const alone = apim({ ...api, source: text("policies/check.xml").replace('<include-fragment fragment-id="Inbound-CustomRateLimiter" />', "") });
  const stream = await alone.call(chat, { body: ask({ stream: true }), query: version, headers: { "content-type": "application/json" } });
  assert.deepEqual([stream.response.status, stream.read, stream.response.headers.get("x-costgate-charge")], [200, false, "failed"]);
  assert.match(stream.traces.join(), /A stream was not charged/);
});

test("API Management: the way through Proxy", async (t) => {
  const sim = await world.simulator();
  const gateway = await world.standalone(world.settings(sim));
  t.after(() => Promise.all([sim.kill(), gateway.kill()]));
  const product = await world.product(gateway, "1");
  const front = apim({ policy: "policies/proxy.xml", named: { CostgateURL: gateway.url }, backend: gateway.url + "/openai", key: product.key });
  const headers = { "content-type": "application/json" };
  // Whatever key the client called API Management with, the subscription's is the product's.
  for (const more of [{ "api-key": "another-key-0123456789" }, { authorization: "Bearer another-key-0123456789" }, {}]) {
    const done = await front.call(chat, { body: ask(), headers: { ...headers, ...more }, query: version + "&subscription-key=" + product.key });
    assert.equal(done.response.status, 200);
    assert.equal(done.response.headers.get("x-costgate-product"), product.id);
    assert.equal(done.read, false);
  }
  // Without a subscription the client's own key goes on.
  for (const more of [{ "api-key": product.key }, { authorization: "Bearer " + product.key }]) {
    assert.equal((await front.call("/v1/chat/completions", { body: ask({ model: "gpt-4o" }), headers: { ...headers, ...more }, subscription: null })).response.status, 200);
  }
  // A stream comes as it is made: its first bytes are here before the last are made.
  const slow = { ...headers, "x-simulator-chunks": "10", "x-simulator-chunk-delay-us": "50000" };
  const stream = await front.call(chat, { body: ask({ stream: true }), headers: slow, query: version });
  const reader = stream.response.body.getReader();
  const first = await reader.read();
  assert.ok(!first.done && first.value.length > 0 && !new TextDecoder().decode(first.value).includes("[DONE]"));
  let rest = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) rest += new TextDecoder().decode(part.value);
  assert.match(rest, /\[DONE\]/);
  const records = await world.history(gateway, product.id);
  assert.equal(records.length, 6);
  assert.ok(records.every((r) => r.kind === "request" && r.usage_source === "provider"));
  assert.equal(front.sent.length, 0); // no policy calls anything
  const refused = await front.call(chat, { body: ask(), headers, query: version, subscription: "nobody-has-this-key-0123456789" });
  assert.equal(refused.response.status, 401);
  assert.equal((await refused.response.json()).error.code, "invalid_api_key"); // the gateway's own answer

  await gateway.kill();
  const gone = await front.call(chat, { body: ask(), headers, query: version });
  assert.deepEqual([gone.response.status, gone.response.headers.get("retry-after"), (await gone.response.json()).error.code], [503, "2", "gateway_unreachable"]);
});
