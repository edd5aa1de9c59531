// Notifications of budgets: 200 parallel requests on two processes, a receiver
// that fails, and a process that is killed in the middle of a delivery.
import test from "node:test";
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import * as world from "./lib/world.mjs";

const key = randomBytes(32);
const tenths = { 0.5: 5n, 0.8: 8n, 0.9: 9n, 1: 10n };

// receiver answers the deliveries of each id in turn: 500, no reply though it has
// read everything, 500, 204. Those of the products in hanging: never, 204.
async function receiver(hanging) {
  const deliveries = [];
  const server = createServer((request, response) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk)).on("end", () => {
      const body = Buffer.concat(chunks), id = request.headers["webhook-id"];
      const d = { id, from: request.url.slice(1), headers: request.headers, text: body.toString(), event: JSON.parse(body), at: Date.now() };
      const before = deliveries.filter((other) => other.id === id).length;
      deliveries.push(d);
      const hangs = hanging.has(d.event.product_id);
      if (hangs && before === 0) return;
      if (!hangs && before === 1) return request.socket.destroy();
      if (!hangs && before < 3) return response.writeHead(500).end();
      d.taken = true;
      response.writeHead(204).end();
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, deliveries, close: () => { server.closeAllConnections(); server.close(); } };
}

function verified({ headers, text }) {
  const at = headers["webhook-timestamp"];
  const want = createHmac("sha256", key).update(`${headers["webhook-id"]}.${at}.${text}`).digest();
  const got = headers["webhook-signature"].split(" ").map((s) => s.split(",")).filter(([version]) => version === "v1").map(([, s]) => Buffer.from(s, "base64"));
  return Math.abs(Date.now() / 1000 - Number(at)) < 300 && got.some((s) => s.length === want.length && timingSafeEqual(s, want));
}

test("crossings under 200 parallel requests on two processes, a failing receiver, SIGKILL", async (t) => {
  const hanging = new Set();
  const hooks = await receiver(hanging);
  const azurite = await world.azurite();
  const sim = await world.simulator();
  const gateways = await Promise.all(["a", "b", "c"].map(async (name) => Object.assign(await world.standalone(world.settings(sim, azurite, {
    NOTIFY_WEBHOOK_URL: `${hooks.url}/${name}`, NOTIFY_WEBHOOK_SECRET: "whsec_" + key.toString("base64"),
  })), { name })));
  t.after(() => Promise.all([hooks.close(), azurite.kill(), sim.kill(), ...gateways.map((g) => g.kill())]));
  const ask = (gateway, product) => fetch(gateway.url + "/openai/v1/chat/completions", {
    method: "POST", headers: { "api-key": product.key, "x-simulator-completion-tokens": "4998", "x-simulator-latency-ms": "300" },
    body: JSON.stringify({ model: "gpt-4o", messages: [{ role: "user", content: "Say it." }], max_tokens: 4998 }),
  }).then(async (r) => { assert.equal(r.status, 200, await r.text()); return world.nano(r.headers.get("x-costgate-cost")); });
  const dollars = (n) => `${n / 1_000_000_000n}.${String(n % 1_000_000_000n).padStart(9, "0")}`;
  const of = (product) => hooks.deliveries.filter((d) => d.event.product_id === product.id);

  // A crossing whose delivery hangs: the process that makes it is killed.
  const cost = await ask(gateways[2], await world.product(gateways[2], "100"));
  const orphan = await world.product(gateways[2], dollars(cost * 2n), { notifyAt: [0.5] });
  hanging.add(orphan.id);
  await ask(gateways[2], orphan);
  const [first] = await world.poll(async () => of(orphan), (all) => all.length > 0, 20_000);
  const victim = gateways.find((g) => g.name === first.from);
  await victim.kill("SIGKILL");
  const [left, right] = gateways.filter((g) => g !== victim);

  const p = await world.product(left, dollars(cost * 200n), { enforcement: "soft", productName: "Crossing" });
  await Promise.all(Array.from({ length: 200 }, (_, i) => ask(i % 2 ? left : right, p)));
  await world.poll(async () => new Set(of(p).filter((d) => d.taken).map((d) => d.id)).size, (n) => n >= 4, 30_000);
  const ids = new Map(of(p).map((d) => [d.id, of(p).filter((other) => other.id === d.id)]));
  assert.equal(ids.size, 4, "one id for each share");
  assert.deepEqual([...ids.values()].map((all) => all[0].event.share).sort(), [0.5, 0.8, 0.9, 1]);
  const view = (await world.api(left, "GET", `/api/Quota/${p.id}`)).json;
  for (const [id, all] of ids) {
    assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.ok(all.length >= 4 && all.filter((d) => d.taken).length >= 1, `${id}: ${all.length} deliveries`);
    assert.equal(new Set(all.map((d) => d.text)).size, 1, "every delivery says the same");
    assert.ok(all.every(verified), "a signature is wrong");
    const e = all[0].event;
    assert.equal(e.id, id);
    assert.equal(e.type, "costgate.budget.crossed");
    assert.deepEqual([e.product, e.unit, e.budget, e.period, e.resets_at && Date.parse(e.resets_at)],
      ["Crossing", "usd", view.Budget, view.Period, Date.parse(view.PeriodEnd)]);
    assert.ok(world.nano(e.spent) * 10n >= world.nano(e.budget) * tenths[e.share], JSON.stringify(e));
    assert.equal(e.state, world.nano(e.spent) >= world.nano(e.budget) ? "exhausted" : "open");
  }

  // The other process has told what the killed one had claimed, under the same id.
  await world.poll(async () => of(orphan).some((d) => d.taken), Boolean, 60_000);
  assert.deepEqual([...new Set(of(orphan).map((d) => d.id))], [first.id]);
  assert.ok(of(orphan).slice(1).every((d) => d.from !== victim.name && verified(d) && d.text === first.text));
});
