// gateway import, as an operator runs it: the predecessor's table in Azurite, the products in another table there, and
// then the old keys at work.
import test from "node:test";
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { AzureOpenAI } from "openai";
import * as world from "./lib/world.mjs";

const table = "AIKeyValueStore";
const keys = { search: "a1b2c3d4e5f60718293a4b5c6d7e8f90", spent: "b1b2c3d4e5f60718293a4b5c6d7e8f91", tokens: "c1b2c3d4e5f60718293a4b5c6d7e8f92" };

// rest calls the table service with a shared key.
async function rest(store, method, path, body) {
  const [, account, key] = store.connection.match(/AccountName=([^;]+);AccountKey=([^;]+);/);
  const date = new Date().toUTCString();
  const signature = createHmac("sha256", Buffer.from(key, "base64")).update(`${date}\n/${account}/${account}/${path}`).digest("base64");
  const answer = await fetch(`${store.url}/${account}/${path}`, { method, body: JSON.stringify(body), headers: {
    authorization: `SharedKeyLite ${account}:${signature}`, "x-ms-date": date, "x-ms-version": "2019-02-02", "content-type": "application/json", accept: "application/json;odata=nometadata" } });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${await answer.text()}`);
}

// Rows as the predecessor wrote them, each a moment after the other: the service gives the time.
async function seed(store) {
  await rest(store, "POST", "Tables", { TableName: table });
  const rows = [
    [keys.search, { Operation: "Create", ProductName: "Search", Amount: 5 }],
    [keys.search, { Operation: "Update", Model: "gpt-4", TotalTokens: 150, PromptTokens: 100, Amount: 0, TransCost: "0.0275", Balance: "4.9725" }],
    [keys.search, { Operation: "Update", Model: "gpt-4", TotalTokens: 150, PromptTokens: 100, Amount: 0, TransCost: "0.0275", Balance: "4.9450" }],
    [keys.spent, { Operation: "Create", ProductName: "Spent", Amount: 1.5 }],
    [keys.spent, { Operation: "Update", Model: "gpt-4", TotalTokens: 1, PromptTokens: 1, Amount: 0, TransCost: "9", Balance: "0" }],
    [keys.tokens, { Operation: "Create", ProductName: "Tokens", Amount: 100000, RateLimitOnCost: false }],
  ];
  for (const [i, [key, more]] of rows.entries()) {
    await rest(store, "POST", table, { PartitionKey: key, RowKey: `${9 - i}0000000-1111-4222-8333-444455556666`, ...more, "Amount@odata.type": "Edm.Double" });
    await new Promise((resolve) => setTimeout(resolve, 5)); // its clock has milliseconds
  }
}

const run = (env, ...args) => new Promise((resolve) => {
  const child = spawn(join(world.root, "gateway"), ["import", ...args], { cwd: world.root, env: { PATH: process.env.PATH, ...env } });
  let out = "";
  child.stdout.on("data", (data) => (out += data));
  child.stderr.on("data", (data) => (out += data));
  child.on("exit", (code) => resolve({ code, out }));
});

test("gateway import: old keys go on with what they had left", async (t) => {
  const [store, sim] = await Promise.all([world.azurite(), world.simulator()]);
  t.after(() => Promise.all([store.kill(), sim.kill()]));
  await seed(store);
  const env = { ...world.settings(sim, store), IMPORT_STORAGE: store.connection };

  const plan = await run(env, "-table", table);
  assert.equal(plan.code, 0, plan.out);
  assert.match(plan.out, /3 keys, 6 rows: 3 new, 0 created/);
  assert.match(plan.out, /Nothing was written/);
  const done = await run(env, "-table", table, "-apply");
  assert.equal(done.code, 0, done.out);
  assert.match(done.out, /3 keys, 6 rows: 0 new, 3 created/);
  for (const key of Object.values(keys)) assert.ok(!(plan.out + done.out).includes(key), "shows a key");

  const gateway = await world.standalone(env);
  t.after(() => gateway.kill());
  const view = async (key) => (await world.api(gateway, "GET", `/api/Quota/${key}`)).json;
  const shown = ({ SubscriptionKey, ProductName, Amount, RateLimitOnCost, Spent, Unit, Period, State }) => [SubscriptionKey, ProductName, Amount, RateLimitOnCost, Spent, Unit, Period, State];
  assert.deepEqual(shown(await view(keys.search)), [keys.search, "Search", "4.945", true, "0", "USD", "total", "open"]);
  assert.deepEqual(shown(await view(keys.spent)), [keys.spent, "Spent", "0", true, "0", "USD", "total", "exhausted"]);
  assert.deepEqual(shown(await view(keys.tokens)), [keys.tokens, "Tokens", "100000", false, "0", "tokens", "total", "open"]);

  // The SDK, with the key that it always had.
  const ask = (apiKey) => new AzureOpenAI({ endpoint: gateway.url, apiKey, apiVersion: "2024-10-21", maxRetries: 0 })
    .chat.completions.create({ model: "gpt-4o", max_tokens: 10, messages: [{ role: "user", content: "Hello" }] });
  await ask(keys.search);
  const [record] = await world.history(gateway, keys.search);
  assert.equal(world.nano((await view(keys.search)).Amount), 4_945_000_000n - BigInt(record.cost_nano_usd));
  await assert.rejects(ask(keys.spent), (error) => error.status === 429 && error.code === "insufficient_quota");
  const all = (await world.api(gateway, "GET", "/api/Quota")).json;
  assert.deepEqual(all.map((p) => [p.ProductName, p.Amount]).sort(), [["Search", 5], ["Spent", 1.5], ["Tokens", 100000]]); // as created there

  // The gateway serves on while the import comes again: nothing changes.
  const before = await view(keys.search);
  const again = await run(env, "-table", table, "-apply");
  assert.equal(again.code, 0, again.out);
  assert.match(again.out, /0 created, 3 there before/);
  assert.deepEqual(await view(keys.search), before);
  const verified = await world.verify(env);
  assert.equal(verified.code, 0, verified.out);

  // A row that cannot be read is named, and the exit code says so.
  await rest(store, "POST", table, { PartitionKey: keys.tokens, RowKey: "bad", Operation: "Update", Amount: 0, "Amount@odata.type": "Edm.Double", Balance: "99,5" });
  const bad = await run(env, "-table", table, "-product", "Tokens");
  assert.equal(bad.code, 1, bad.out);
  assert.match(bad.out, /cannot be read: k_[0-9a-f]{12} \(\.\.\.8f92\), row bad: its Balance is not a decimal number/);
  const file = join(world.scratch(), "balances.csv");
  writeFileSync(file, `key,balance\n${keys.tokens},99000\n`);
  const mended = await run(env, "-table", table, "-product", "Tokens", "-balances", file);
  assert.match(mended.out, /99000 +tokens +balances +there p_/);
  assert.equal((await run(env, "-table", "NoSuchTable")).code, 2);
});
