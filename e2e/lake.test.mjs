// From a gateway's lake to an analyst's table: what DuckDB adds up over the
// exported files is what GetAll says, to the nano-dollar. Every DuckDB query of
// docs/queries runs.
import test from "node:test";
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { DuckDBInstance } from "@duckdb/node-api";
import * as world from "./lib/world.mjs";

const queries = join(world.root, "docs", "queries", "duckdb");

test("the lake, exported and asked", async (t) => {
  const sim = await world.simulator();
  const env = world.settings(sim, null);
  const gateway = await world.standalone(env);
  const lake = join(env.DATA_DIR, "lake"), out = world.scratch();
  const products = [await world.product(gateway, "50.00"), await world.product(gateway, "50.00")];
  const ask = async (p, path, body) => {
    const answer = await fetch(gateway.url + path, {
      method: "POST", headers: { "api-key": p.key, "content-type": "application/json" }, body: JSON.stringify(body),
    });
    const text = await answer.text();
    assert.equal(answer.status, 200, text);
    return text;
  };
  const long = "A long story. ".repeat(600);
  for (const [i, p] of products.entries()) {
    for (let n = 0; n < 5 + i; n++) {
      await ask(p, "/openai/v1/chat/completions", { model: "gpt-4o", max_completion_tokens: 50, user: `user-${n % 2}`, messages: [{ role: "user", content: "Hello " + n }] });
    }
    await ask(p, "/openai/v1/chat/completions", { model: "gpt-5", service_tier: "priority", max_completion_tokens: 50, stream: true, messages: [{ role: "user", content: long }] });
    for (let n = 0; n < 2; n++) await ask(p, "/openai/v1/chat/completions", { model: "gpt-5.6-sol", max_completion_tokens: 50, messages: [{ role: "user", content: long }] });
    await ask(p, "/openai/v1/embeddings", { model: "text-embedding-3-small", input: "one two three" });
    await ask(p, "/openai/v1/responses", { model: "gpt-4o", input: "What is new?", max_output_tokens: 100, tools: [{ type: "web_search" }] });
    await ask(p, "/openai/v1/images/generations", { model: "gpt-image-1", prompt: "a cat", quality: "low", size: "1024x1024" });
  }
  // A record that is revised: held at first, known later.
  const made = JSON.parse(await ask(products[0], "/openai/v1/responses", { model: "gpt-4o", input: "Think", background: true, max_output_tokens: 300 }));
  await world.poll(async () => (await fetch(`${gateway.url}/openai/v1/responses/${made.id}`, { headers: { "api-key": products[0].key } })).json(), (r) => r.status === "completed");

  const records = [];
  for (const p of products) records.push(...await world.history(gateway, p.id));
  const inLake = () => readdirSync(lake).filter((name) => name.endsWith(".jsonl"))
    .flatMap((name) => readFileSync(join(lake, name), "utf8").split("\n").slice(0, -1)).map((line) => JSON.parse(line));
  await world.poll(() => { try { return inLake(); } catch { return []; } },
    (lines) => records.every((r) => lines.some((l) => l.id === r.id && l.rev === r.rev)));
  const listed = (await world.api(gateway, "GET", "/api/Quota")).json;
  const spent = new Map();
  for (const p of products) {
    const [product] = listed.filter((l) => l.ProductId === p.id);
    const view = (await world.api(gateway, "GET", `/api/Quota/${p.id}`)).json;
    assert.equal(world.nano(view.Spent) + world.nano(view.Amount), 50_000_000_000n);
    assert.equal(product.Spent, view.Spent);
    spent.set(p.id, world.nano(product.Spent));
    assert.ok(spent.get(p.id) > 0n);
  }
  const total = world.sum([...spent.values()]);

  const run = (...args) => spawnSync(join(world.root, "gateway"), ["lake", "export", "-from", lake, ...args], { cwd: out, encoding: "utf8", env: { PATH: process.env.PATH } });
  const exported = (...args) => {
    const { status, stdout, stderr } = run("-json", ...args);
    assert.equal(status, 0, stderr);
    return JSON.parse(stdout);
  };
  const usage = exported("-format", "parquet", "-to", "usage.parquet");
  assert.ok(usage.superseded >= 1, JSON.stringify(usage));
  assert.equal(BigInt(usage.cost_nano_usd), total);
  const focus = exported("-format", "focus", "-to", "focus.parquet");
  assert.equal(focus.unsplit, records.filter((r) => r.list_cost_nano_usd === 0).length, JSON.stringify(focus));
  assert.ok(focus.rows > usage.records);
  for (const name of readdirSync(lake)) if (name.endsWith(".jsonl")) copyFileSync(join(lake, name), join(out, name));

  const db = await (await DuckDBInstance.create(":memory:", { threads: "2" })).connect();
  const rows = async (sql) => (await db.runAndReadAll(sql)).getRowObjects();
  await db.run("SET TimeZone = 'Asia/Tokyo'"); // what an analyst's session is set to must not matter
  const back = process.cwd();
  process.chdir(out); // the queries name files without a folder
  const query = async (name) => {
    const text = readFileSync(join(queries, name), "utf8");
    assert.doesNotMatch(text.replace(/--.*$/gm, ""), /\b(DOUBLE|FLOAT|REAL)\b/i, `${name} counts money in floating point`);
    const answer = await rows(text);
    assert.ok(answer.length > 0, `${name} has no rows`);
    for (const row of answer) for (const [column, v] of Object.entries(row)) assert.notEqual(typeof v, "number", `${name}: ${column} is a float or too small an integer`);
    return answer;
  };
  const add = (answer, column = "cost_nano_usd") => world.sum(answer.map((row) => row[column] ?? 0n));
  const asNano = (decimal) => { assert.equal(decimal.scale, 9); return decimal.value; };

  const ran = new Set();
  const check = (name, body) => t.test(name, async () => { ran.add(name); await body(await query(name)); });
  await check("spend-by-product.sql", (answer) => {
    for (const p of products) {
      const own = answer.filter((row) => row.product_id === p.id);
      assert.equal(add(own), spent.get(p.id));
      assert.equal(world.sum(own.map((row) => asNano(row.cost_usd))), spent.get(p.id));
    }
    assert.equal(add(answer), total);
  });
  await check("spend-by-day.sql", (answer) => {
    assert.equal(add(answer), total);
    assert.deepEqual(answer.map((row) => row.day), [...new Set(records.map((r) => r.time.slice(0, 10)))].sort());
  });
  await check("spend-by-model.sql", (answer) => {
    assert.equal(add(answer), total);
    assert.equal(add(answer.filter((row) => row.deployment === "gpt-image-1")), world.sum(records.filter((r) => r.deployment === "gpt-image-1").map((r) => r.cost_nano_usd)));
  });
  await check("cached-share.sql", (answer) => {
    assert.equal(add(answer, "cached_tokens"), world.sum(records.map((r) => r.cached_tokens ?? 0)));
    assert.ok(answer.some((row) => row.cached_ppm > 0n && row.cached_ppm <= 1_000_000n));
  });
  await check("estimated-share.sql", (answer) => {
    assert.equal(add(answer), total);
    assert.equal(add(answer.filter((row) => row.usage_source === "provider")), world.sum(records.filter((r) => r.usage_source === "provider").map((r) => r.cost_nano_usd)));
  });
  await check("top-users.sql", (answer) => {
    assert.equal(add(answer), total);
    assert.equal(answer.filter((row) => row.user === "user-1").length, products.length);
  });
  await check("focus-by-meter.sql", (answer) => {
    assert.equal(add(answer), total);
    assert.equal(world.sum(answer.map((row) => asNano(row.effective_usd))), total);
    for (const p of products) assert.equal(add(answer.filter((row) => row.SubAccountId === p.id)), spent.get(p.id));
    const meters = new Set(answer.map((row) => row.SkuMeter));
    for (const meter of ["Input Tokens", "Cached Input Tokens", "Cache Write Tokens", "Output Tokens", "Priority Input Tokens", "Web Search Calls", "Image Output Tokens"]) {
      assert.ok(meters.has(meter), `${meter} is not in ${[...meters]}`);
    }
  });
  await check("lake-directly.sql", (answer) => {
    for (const row of answer) assert.equal(row.cost_nano_usd, spent.get(row.product_id));
    assert.equal(add(answer), total);
  });
  // Azure's export, as it would be: by day, in decimals of more digits. Its
  // days are a nano-dollar below ours, and something went past the gateway.
  await db.run(`COPY (
    SELECT (ChargePeriodStart AT TIME ZONE 'UTC')::DATE::TIMESTAMP AS ChargePeriodStart, 'Usage' AS ChargeCategory, 'USD' AS BillingCurrency, 'Azure OpenAI' AS ServiceName, RegionId,
           (sum(ListCost) - 0.000000001)::DECIMAL(38, 18) AS ListCost, sum(ListCost)::DECIMAL(38, 18) AS BilledCost, sum(ListCost)::DECIMAL(38, 18) AS EffectiveCost
    FROM read_parquet('focus.parquet') GROUP BY ALL
    UNION ALL SELECT TIMESTAMP '2026-01-01 00:00:00', 'Usage', 'USD', 'Azure OpenAI', 'westus', 3.5, 3.5, 3.5
    UNION ALL SELECT TIMESTAMP '2026-01-01 00:00:00', 'Usage', 'USD', 'Storage', 'westus', 9, 9, 9
  ) TO 'azure-focus.parquet' (FORMAT parquet)`);
  await check("drift.sql", (answer) => {
    assert.equal(world.sum(answer.map((row) => asNano(row.ours_usd))), world.sum(records.map((r) => r.list_cost_nano_usd ?? r.cost_nano_usd)));
    const [past, ...rest] = answer;
    assert.deepEqual([past.day, past.region, asNano(past.ours_usd), asNano(past.drift_usd)], ["2026-01-01", "westus", 0n, -3_500_000_000n]);
    for (const row of rest) assert.equal(asNano(row.drift_usd), 1n);
  });
  assert.deepEqual([...ran].sort(), readdirSync(queries).sort(), "a query without a test");

  await t.test("CSV has the same sums, partitions the same rows", async () => {
    exported("-format", "csv", "-to", "usage.csv");
    const [csv] = await rows("SELECT sum(cost_nano_usd)::BIGINT AS cost, count(*) AS n FROM read_csv('usage.csv', types = {cost_nano_usd: 'BIGINT', cost_usd: 'DECIMAL(38,9)'}) WHERE kind = 'request'");
    assert.equal(csv.cost, total);
    exported("-format", "parquet", "-to", "days", "-partition", "day");
    const [days] = await rows("SELECT sum(cost_nano_usd)::BIGINT AS cost, count(*) AS n FROM read_parquet('days/*/*.parquet', hive_partitioning = true) WHERE day >= '2026-01-01'");
    assert.equal(days.cost, total);
    assert.equal(Number(days.n), usage.records);
    mkdirSync("one");
    assert.equal(exported("-format", "focus", "-to", "one", "-product", products[1].id).cost_nano_usd, Number(spent.get(products[1].id)));
    assert.ok(statSync(join("one", "focus.csv")).size > 0);
    assert.equal(exported("-format", "csv", "-to", "none.csv", "-day", "2020-01-01").records, 0);
  });
  process.chdir(back);
  await gateway.kill("SIGINT");
  await sim.kill();
});
