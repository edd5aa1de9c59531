// Services behind the gateway, driven by curl: methods, bodies, streams, exact
// charges, and what must not get through.
import test from "node:test";
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { connect } from "node:net";
import { spawn } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import * as world from "./lib/world.mjs";

// curl runs the real one; steps are when something arrived, in ms.
function curl(gateway, path, key, ...args) {
  return new Promise((resolve, reject) => {
    const dump = join(world.scratch(), "head");
    const child = spawn("curl", ["-sSN", "-D", dump, "--path-as-is", "--max-time", "60", "-H", `api-key: ${key}`, ...args, gateway.url + path]);
    const began = Date.now(), steps = [], chunks = [];
    let errors = "";
    child.stdout.on("data", (data) => { chunks.push(data); steps.push(Date.now() - began); });
    child.stderr.on("data", (data) => (errors += data));
    child.stdin.on("error", () => {}); // it may not want all of it
    child.on("error", reject);
    child.on("close", (code) => {
      const headers = {}, lines = readFileSync(dump, "latin1").split("\r\n"); // of an interim answer, the answer, and trailers
      const status = Number(lines.findLast((line) => line.startsWith("HTTP/")).split(" ")[1]);
      for (const line of lines.filter((line) => line.includes(": "))) headers[line.split(": ")[0].toLowerCase()] = line.slice(line.indexOf(": ") + 2);
      const bytes = Buffer.concat(chunks), body = bytes.toString();
      let error;
      try { error = JSON.parse(body).error?.code; } catch { /* the service's own */ }
      resolve({ code, status, headers, bytes, body, error, steps, errors });
    });
    if (args.includes("@-")) curl.feed(child.stdin); else child.stdin.end();
  });
}

// raw writes the bytes of a request, and reads all that comes.
const raw = (gateway, text) => new Promise((resolve, reject) => {
  const { hostname, port } = new URL(gateway.url);
  const socket = connect(Number(port), hostname, () => socket.write(text));
  let out = "";
  socket.on("data", (data) => (out += data)).on("end", () => resolve(out)).on("error", reject);
});

const listen = (handler) => new Promise((resolve) => {
  const server = createServer(handler).listen(0, "127.0.0.1", () => resolve({ server, url: `http://127.0.0.1:${server.address().port}` }));
});

// rest is a made-up service: it remembers what it got, and answers as the path says.
async function rest(elsewhere) {
  const seen = [];
  const made = await listen((request, response) => {
    const chunks = [];
    request.on("error", () => {}).on("data", (chunk) => chunks.push(chunk)).on("end", () => {
      const body = Buffer.concat(chunks);
      seen.push({ method: request.method, url: request.url, headers: request.headers, raw: request.rawHeaders, body });
      const path = request.url.split("?")[0];
      if (path.endsWith("/redirect")) return response.writeHead(302, { location: elsewhere() + "/stolen" }).end();
      if (path.endsWith("/bytes")) return response.writeHead(200, { "content-type": "application/octet-stream" }).end(Buffer.alloc(Number(request.headers["x-size"]), 7));
      if (path.endsWith("/missing")) return response.writeHead(404, { "content-type": "application/json" }).end('{"no":"such"}');
      if (path.endsWith("/dies")) return request.socket.destroy();
      if (path.endsWith("/breaks")) { response.writeHead(200); response.write("half"); return setTimeout(() => request.socket.destroy(), 50); }
      if (path.endsWith("/gzip")) return response.writeHead(200, { "content-encoding": "gzip" }).end(Buffer.from("1f8b08000000", "hex"));
      response.writeHead(200, { "content-type": "application/json", "x-request-id": "up-" + seen.length, "set-cookie": ["a=1", "b=2"] });
      response.end(request.method === "HEAD" ? undefined : JSON.stringify({ method: request.method, size: body.length }));
    });
  });
  return { ...made, seen };
}

// streaming is another: a step every 300 ms, as events or as plain chunks.
const streaming = () => listen((request, response) => {
  const events = request.url.includes("events");
  response.writeHead(200, { "content-type": events ? "text/event-stream" : "text/plain" });
  let n = 0;
  const timer = setInterval(() => {
    response.write(events ? `data: step ${++n}\n\n` : `step ${++n}\n`);
    if (n === 4) { clearInterval(timer); response.end(); }
  }, 300);
  response.on("close", () => clearInterval(timer));
});

test("services behind the gateway", async (t) => {
  const sim = await world.simulator();
  const stolen = [];
  const thief = await listen((request, response) => { stolen.push(request.url); response.end("stolen"); });
  const service = await rest(() => thief.url), streams = await streaming();
  const gone = await listen(() => {});
  gone.server.close();
  const price = { pricePerCall: "0.001" };
  const services = {
    rest: { url: service.url + "/base", ...price, pricePerKB: "0.00001", bodyBytesMax: 102400, timeout: "5s" },
    keyed: { url: service.url + "/keyed", ...price, auth: "header", header: "x-key", secretSetting: "REST_KEY" },
    streams: { url: streams.url, ...price, pricePerKB: "0.0001", bodyBytesMax: 102400 },
    down: { url: gone.url, ...price }, free: { url: service.url, pricePerCall: "0" }, dear: { url: service.url, pricePerCall: "0.4" },
  };
  const env = world.settings(sim, undefined, { SERVICES: JSON.stringify(services), REST_KEY: "s3cret-of-the-service", STREAM_KEEPALIVE: "200ms" });
  const gateway = await world.standalone(env);
  t.after(async () => {
    for (const { server } of [service, streams, thief]) { server.closeAllConnections(); server.close(); }
    await Promise.all([sim.kill(), gateway.kill()]);
  });
  const p = await world.product(gateway, "100");
  const me = async (key = p.key) => (await fetch(gateway.url + "/me", { headers: { "api-key": key } })).json();
  const record = async (answer, key = p.key) =>
    (await fetch(gateway.url + "/me/requests/" + answer.headers["x-costgate-request-id"], { headers: { "api-key": key } })).json();
  let expected = 0n; // nano-dollars spent, by hand
  const charged = async (answer, nano, outcome) => {
    expected += BigInt(nano);
    const r = await world.poll(() => record(answer), (r) => r.outcome); // a broken answer may end before its record
    assert.equal(r.outcome, outcome);
    assert.equal(r.charge, nano);
    assert.equal(r.operation, "service");
    assert.equal(world.nano((await me()).Spent), expected);
    return r;
  };

  await t.test("methods, bodies and headers pass; charges are exact", async () => {
    const plain = (method, ...args) => curl(gateway, "/services/rest/a%2Fb//c?q=1&code=fk&q=%20", p.key, "-X", method, ...args);
    for (const method of ["GET", "DELETE", "OPTIONS"]) {
      const answer = await plain(method);
      assert.equal(answer.status, 200);
      assert.deepEqual(JSON.parse(answer.body), { method, size: 0 });
      assert.equal(answer.headers["x-costgate-cost"], "0.00101"); // answers below 1 KB
      const r = await charged(answer, 1_010_000, "completed");
      assert.deepEqual(r.items, [{ meter: "service_call", quantity: 1 }, { meter: "service_kb", quantity: 1 }]);
      assert.equal(r.price_key, "service/rest");
      assert.equal(r.deployment, "rest");
      assert.equal(r.status, 200);
      assert.match(r.upstream_request_id, /^up-/);
    }
    for (const method of ["POST", "PUT", "PATCH"]) {
      const answer = await plain(method, "-H", "content-type: text/plain", "-d", "x".repeat(2000));
      assert.deepEqual(JSON.parse(answer.body), { method, size: 2000 });
      await charged(answer, 1_020_000, "completed"); // 2,000 and some bytes have begun 2 KB
    }
    const head = await curl(gateway, "/services/rest/x", p.key, "-I");
    assert.equal(head.status, 200);
    await charged(head, 1_000_000, "completed");
    const first = service.seen[0];
    assert.equal(first.url, "/base/a%2Fb//c?q=1&q=%20");
    assert.equal(first.headers.host, new URL(service.url).host);
    const zipped = await curl(gateway, "/services/rest/gzip", p.key, "-H", "accept-encoding: gzip");
    assert.equal(zipped.headers["content-encoding"], "gzip");
    assert.equal(zipped.bytes.toString("hex"), "1f8b08000000");
    await charged(zipped, 1_010_000, "completed");
    const missing = await curl(gateway, "/services/rest/missing", p.key);
    assert.equal(missing.status, 404);
    assert.equal(missing.body, '{"no":"such"}');
    await charged(missing, 1_010_000, "upstream_error");
    const free = await curl(gateway, "/SERVICES/Free/", p.key);
    assert.equal(free.headers["x-costgate-cost"], "0");
    await charged(free, 0, "completed");
  });

  await t.test("streams arrive step by step", async () => {
    for (const [path, stream] of [["/events", true], ["/chunks", false]]) {
      const answer = await curl(gateway, "/services/streams" + path, p.key);
      assert.equal(answer.status, 200);
      const steps = answer.body.match(/step \d/g);
      assert.deepEqual(steps, ["step 1", "step 2", "step 3", "step 4"]);
      assert.equal(answer.body.includes(": keepalive"), stream);
      assert.ok(answer.steps.at(-1) - answer.steps[0] > 700, `arrived at ${answer.steps}`);
      const r = await charged(answer, 1_100_000, "completed");
      assert.equal(r.stream, stream);
    }
  });

  await t.test("a redirect is passed on, not followed", async () => {
    const answer = await curl(gateway, "/services/rest/redirect", p.key);
    assert.equal(answer.status, 302);
    assert.equal(answer.headers.location, thief.url + "/stolen");
    assert.deepEqual(stolen, []);
    await charged(answer, 1_000_000, "completed");
  });

  await t.test("no path leaves the base", async () => {
    const before = service.seen.length;
    for (const path of ["/../admin", "/%2e%2e/admin", "/%252e%252e/admin", "/..;/admin", "/a/..%2F..%2Fadmin", "/..%5cadmin", "//host/x", "/%2Fhost", "/a%00b",
      "/a%0d%0aHost:%20evil", "/%c0%ae%c0%ae/admin", "/.", "/a/..", "/%2e%2e%3fx", "/..%23", "/%25252e%25252e/"]) {
      const answer = await curl(gateway, "/services/rest" + path, p.key);
      assert.equal(answer.error, "invalid_path", path);
      assert.equal(answer.status, 400);
    }
    const line = (target, more = "") => raw(gateway, `GET ${target} HTTP/1.1\r\nHost: gateway\r\napi-key: ${p.key}\r\n${more}Connection: close\r\n\r\n`);
    for (const target of ["/services/rest/..\\..\\admin", "/services/rest/a|b%2F..", "/services/rest/%2E%2E", `${thief.url}/services/rest/../x`, "/services/rest/\xff.."]) {
      assert.match(await line(target), /^HTTP\/1.1 400 /, target);
    }
    for (const target of ["/services/../services/rest/x", "//services/rest/x", "/services//rest/x", "/services/none/x", "/services/..%2Frest", "/services/%72est/x", "/services"]) {
      assert.match(await line(target), /^HTTP\/1.1 404 [^]*"not_found"/, target);
    }
    assert.match(await line(`${thief.url}/services/rest/fine`), /^HTTP\/1.1 200 /); // an absolute target names no other host
    assert.equal(service.seen.length, before + 1);
    assert.equal(service.seen.at(-1).url, "/base/fine");
    assert.deepEqual(stolen, []);
    expected += 1_010_000n;
  });

  await t.test("upgrades, unknown services, methods and keys are refused", async () => {
    const before = service.seen.length;
    const upgrade = await curl(gateway, "/services/rest/ws", p.key, "-H", "connection: Upgrade", "-H", "upgrade: websocket", "-H", "sec-websocket-version: 13",
      "-H", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==");
    assert.deepEqual([upgrade.status, upgrade.error], [501, "upgrade_not_supported"]);
    const unknown = await curl(gateway, "/services/none/x", p.key);
    assert.deepEqual([unknown.status, unknown.error], [404, "not_found"]);
    const method = await curl(gateway, "/services/rest/x", p.key, "-X", "PROPFIND");
    assert.deepEqual([method.status, method.error], [405, "method_not_allowed"]);
    const key = await curl(gateway, "/services/rest/x", "no-such-key-0123456789");
    assert.deepEqual([key.status, key.error], [401, "invalid_api_key"]);
    assert.equal(service.seen.length, before);
  });

  await t.test("a body may be as large as bodyBytesMax, with and without a stated size", async () => {
    const send = (size, ...args) => {
      curl.feed = (stdin) => stdin.end(Buffer.alloc(size, 1));
      return curl(gateway, "/services/rest/up", p.key, "-X", "POST", "--data-binary", "@-", "-H", "expect:", ...args);
    };
    for (const args of [[], ["-H", "transfer-encoding: chunked"]]) {
      const fits = await send(102400, ...args);
      assert.equal(JSON.parse(fits.body).size, 102400);
      await charged(fits, 2_010_000, "completed"); // 100 KB, and one begun
      const before = service.seen.length;
      const larger = await send(102401, ...args);
      assert.deepEqual([larger.status, larger.error], [413, "request_too_large"]);
      assert.equal(service.seen.length, before);
    }
  });

  await t.test("an answer that is larger than the hold is not served", async () => {
    const fits = await curl(gateway, "/services/rest/bytes", p.key, "-H", "x-size: 102400");
    assert.equal(fits.body.length, 102400);
    await charged(fits, 2_000_000, "completed");
    const larger = await curl(gateway, "/services/rest/bytes", p.key, "-H", "x-size: 102401");
    assert.ok(larger.body.length <= 102400);
    const r = await world.poll(() => record(larger), (r) => r.outcome);
    assert.equal(r.outcome, "upstream_error");
    assert.ok(r.charge <= r.hold_nano_usd);
    expected += BigInt(r.charge);
  });

  await t.test("a service that is down costs nothing; one that breaks off is charged", async () => {
    const down = await curl(gateway, "/services/down/x", p.key, "-d", "body");
    assert.deepEqual([down.status, down.error], [502, "upstream_error"]);
    assert.equal((await fetch(gateway.url + "/me/requests/" + down.headers["x-costgate-request-id"], { headers: { "api-key": p.key } })).status, 404);
    assert.equal(world.nano((await me()).Spent), expected);
    const dies = await curl(gateway, "/services/rest/dies", p.key, "-d", "body");
    assert.deepEqual([dies.status, dies.error], [502, "upstream_error"]);
    await charged(dies, 1_010_000, "upstream_error");
    const breaks = await curl(gateway, "/services/rest/breaks", p.key, "-d", "body");
    assert.equal(breaks.status, 200);
    assert.notEqual(breaks.code, 0); // curl knows that it is not whole
    await charged(breaks, 1_010_000, "upstream_error");
  });

  await t.test("the product's key never reaches a service", async () => {
    const at = service.seen.length;
    const without = (...args) => curl(gateway, "/services/rest/k", "", "-H", "api-key:", ...args);
    await without("-H", `authorization: Bearer ${p.key}`, "-H", "x-own: mine");
    await without("-H", `ocp-apim-subscription-key: ${p.key}`, "-H", "authorization: Basic b3du");
    await curl(gateway, "/services/rest/k", p.key, "-H", `authorization: Bearer ${p.key}`, "-H", "cookie: session=1", "-H", "x-functions-key: fk");
    await curl(gateway, "/services/keyed/k", p.key, "-H", "authorization: Bearer own", "-H", "x-key: forged");
    const [bearer, ocp, both, keyed] = service.seen.slice(at).map((s) => s.headers);
    assert.equal(bearer.authorization, undefined);
    assert.equal(bearer["x-own"], "mine");
    assert.equal(ocp.authorization, "Basic b3du");
    assert.equal(both.authorization ?? both.cookie ?? both["x-functions-key"], undefined);
    assert.equal(keyed["x-key"], "s3cret-of-the-service");
    assert.equal(keyed.authorization, undefined);
    for (const s of service.seen) assert.ok(!s.raw.join("\n").includes(p.key) && !s.url.includes(p.key));
    expected += 3n * 1_010_000n + 1_000_000n;
  });

  await t.test("a budget ends services too, and so does a stop", async () => {
    const poor = await world.product(gateway, "1");
    for (let i = 0; i < 2; i++) assert.equal((await curl(gateway, "/services/dear/x", poor.key)).status, 200);
    const over = await curl(gateway, "/services/dear/x", poor.key);
    assert.deepEqual([over.status, over.error], [429, "insufficient_quota"]);
    assert.equal(over.headers["x-should-retry"], "false");
    assert.equal((await me(poor.key)).Spent, "0.8");
    assert.equal((await world.api(gateway, "PATCH", `/api/Quota/${poor.id}`, { state: "stopped" })).status, 200);
    for (const path of ["/services/free/x", "/services/dear/x"]) { // a free one too, on every instance within 10 s
      const stopped = await world.poll(() => curl(gateway, path, poor.key), (a) => a.status === 429, 10_000);
      assert.equal(stopped.error, "insufficient_quota");
      assert.match(stopped.body, /is stopped/);
    }
    const counted = await world.product(gateway, "10", { rateLimitOnCost: false });
    const call = await curl(gateway, "/services/dear/x", counted.key);
    const r = await record(call, counted.key);
    assert.deepEqual([r.unit, r.charge, r.cost_nano_usd], ["tokens", 0, 400_000_000]); // services cost no tokens
  });

  await t.test("history and lake have every call; the books are right", async () => {
    const records = await world.history(gateway, p.id);
    assert.equal(world.sum(records.map((r) => r.charge)), expected);
    const view = await me();
    assert.equal(world.nano(view.Spent), expected);
    assert.equal(view.Held, "0");
    const lake = () => readdirSync(join(env.DATA_DIR, "lake"), { recursive: true }).filter((name) => name.endsWith(".jsonl"))
      .flatMap((name) => readFileSync(join(env.DATA_DIR, "lake", name), "utf8").split("\n").filter(Boolean).map((line) => JSON.parse(line)));
    const sent = await world.poll(lake, (all) => records.every((r) => all.some((e) => e.id === r.id)), 20_000);
    assert.ok(sent.filter((e) => e.operation === "service").length >= records.length);
    for (const text of [gateway.stdout, gateway.stderr, JSON.stringify(sent)]) assert.ok(!text.includes(p.key) && !text.includes("s3cret-of-the-service"));
    await gateway.kill("SIGINT");
    const checked = await world.verify({ ...env, ADMIN_KEY: world.adminKey });
    assert.equal(checked.code, 0, checked.out);
  });
});

test("services behind the Functions host", async (t) => {
  const azurite = await world.azurite(), sim = await world.simulator();
  const service = await rest(() => ""), streams = await streaming();
  const services = { rest: { url: service.url + "/base", pricePerCall: "0.001" }, streams: { url: streams.url, pricePerCall: "0.001" } };
  const env = world.settings(sim, azurite, { SERVICES: JSON.stringify(services), STREAM_KEEPALIVE: "200ms" });
  const gateway = await world.hosted(env);
  t.after(async () => {
    for (const { server } of [service, streams]) { server.closeAllConnections(); server.close(); }
    await Promise.all([azurite.kill(), sim.kill(), gateway.kill()]);
  });
  const p = await world.product(gateway, "1");
  const answer = await curl(gateway, "/Services/Rest/a%2Fb//c/?q=%20&code=fk", p.key, "-X", "PUT", "-d", "body", "-H", "x-functions-key: fk", "-H", "x-own: mine");
  assert.deepEqual(JSON.parse(answer.body), { method: "PUT", size: 4 });
  assert.equal(answer.headers["x-costgate-cost"], "0.001"); // in the head, since a KB costs nothing
  assert.equal(answer.headers.trailer, undefined);
  const [got] = service.seen;
  assert.equal(got.url, "/base/a%2Fb//c/?q=%20");
  assert.equal(got.headers["x-own"], "mine");
  const names = Object.keys(got.headers).filter((name) => /^x-(functions|azure|ms|forwarded|original|arr|waws)/.test(name));
  assert.deepEqual(names, []);
  for (const path of ["/..;/x", "/%252e%252e/x", "/..%5cx", "/%2Fhost/x"]) assert.equal((await curl(gateway, "/services/rest" + path, p.key)).error, "invalid_path", path);
  const events = await curl(gateway, "/services/streams/events", p.key);
  assert.deepEqual(events.body.match(/step \d/g), ["step 1", "step 2", "step 3", "step 4"]);
  assert.ok(events.steps.at(-1) - events.steps[0] > 700, `arrived at ${events.steps}`);
  assert.equal(service.seen.length, 1);
  const records = await world.poll(() => world.history(gateway, p.id), (all) => all.length === 2);
  assert.ok(records.every((r) => r.charge === 1_000_000 && r.operation === "service"));
});

test("bad settings end with 2, naming setting, entry and field", async () => {
  const run = (services) => new Promise((resolve) => {
    const child = spawn(join(world.root, "gateway"), ["-listen", "127.0.0.1:0"], { env: { ADMIN_KEY: world.adminKey, DATA_DIR: world.scratch(), SERVICES: services } });
    let out = "";
    child.stderr.on("data", (data) => (out += data));
    child.on("exit", (code) => resolve({ code, out }));
  });
  for (const [services, says] of [
    ['{"w":{"pricePerCall":"1"}}', "SERVICES: w.url: is missing"],
    ['{"w":{"url":"https://h?x=1","pricePerCall":"0"}}', "SERVICES: w.url: must be"],
    ['{"w":{"url":"https://h","pricePerCall":"0","auth":"header","header":"x-key","secretSetting":"NONE"}}', 'SERVICES: w.secretSetting: the setting "NONE" is not set'],
  ]) {
    const { code, out } = await run(services);
    assert.equal(code, 2);
    assert.ok(out.includes(says), out);
  }
});
