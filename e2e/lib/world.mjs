// Starts the real parts of an end-to-end test: Azurite, the simulator, gateways
// on their own and behind the simulated Functions host. Everything ends with the
// test process.
import { createServer } from "node:net";
import { spawn, execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, existsSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, dirname } from "node:path";
import { fileURLToPath } from "node:url";

export const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
export const adminKey = "e2e-admin-" + randomBytes(12).toString("hex");
export const upstreamKey = "e2e-upstream-" + randomBytes(12).toString("hex");
const account = "devstoreaccount1";
const accountKey = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));

export const scratch = () => mkdtempSync(join(tmpdir(), "costgate-e2e-"));

// start runs a program and waits for the line that names its URL.
export function start(command, args, { env = {}, cwd = root, url = /http:\/\/[\d.]+:\d+/ } = {}) {
  const child = spawn(command, args, { cwd, env: { PATH: process.env.PATH, HOME: process.env.HOME, TMPDIR: process.env.TMPDIR ?? "", ...env } });
  running.add(child);
  const started = { child, stdout: "", stderr: "", url: "" };
  child.stderr.on("data", (data) => (started.stderr += data));
  const exited = new Promise((resolve) => child.on("exit", (code, signal) => { running.delete(child); resolve({ code, signal }); }));
  started.exited = exited;
  started.kill = (signal = "SIGKILL") => { child.kill(signal); return exited; };
  started.until = (pattern) => new Promise((resolve, reject) => {
    const look = () => { const found = started.stdout.match(pattern); if (found) { child.stdout.off("data", look); resolve(found); } };
    child.stdout.on("data", look);
    look();
    exited.then(({ code, signal }) => reject(new Error(`${command} ended (${code ?? signal}) before ${pattern}: ${started.stdout}\n${started.stderr}`)));
  });
  child.stdout.on("data", (data) => (started.stdout += data));
  return started.until(url).then((found) => { started.url = found[0]; return started; });
}

const freePort = () => new Promise((resolve) => {
  const server = createServer().listen(0, "127.0.0.1", () => { const { port } = server.address(); server.close(() => resolve(port)); });
});

export async function azurite() {
  const location = scratch();
  const script = join(root, "e2e", "node_modules", "azurite", "dist", "src", "table", "main.js");
  if (!existsSync(script)) throw new Error("Azurite is not installed: run make deps");
  const port = await freePort(); // Azurite does not say which one it got
  const started = await start(process.execPath, [script, "--disableTelemetry", "--skipApiVersionCheck", "--tableHost", "127.0.0.1",
    "--tablePort", String(port), "--location", location], { url: /successfully started/ });
  started.url = `http://127.0.0.1:${port}`;
  started.location = location;
  started.connection = `DefaultEndpointsProtocol=http;AccountName=${account};AccountKey=${accountKey};TableEndpoint=${started.url}/${account};`;
  return started;
}

export const simulator = () => start(join(root, "gateway"), ["simulator", "-listen", "127.0.0.1:0", "-key", upstreamKey]);

// hub is a peer of Event Hubs: what it stores is in the file out, a JSON line for each event.
export async function hub() {
  const dir = scratch(), binary = join(dir, "ehpeer"), out = join(dir, "events.jsonl");
  execFileSync("go", ["build", "-o", binary, "./handler/internal/testkit/ehpeer/cmd/ehpeer"], { cwd: root, stdio: "inherit" });
  const started = await start(binary, ["-listen", "127.0.0.1:0", "-hub", "usage", "-out", out, "-control", "127.0.0.1:0"]);
  started.connection = started.stdout.split("\n")[0];
  started.out = out;
  started.events = () => (existsSync(out) ? readFileSync(out, "utf8") : "").split("\n").filter(Boolean).map((line) => JSON.parse(line));
  return started;
}

export function settings(sim, storage, more = {}) {
  return { AZURE_OPENAI_ENDPOINT: sim.url, AZURE_OPENAI_API_KEY: upstreamKey, DATA_DIR: scratch(), ...(storage ? { QuotaStorage: storage.connection } : {}), ...more };
}

export const standalone = (env) => start(join(root, "gateway"), ["-listen", "127.0.0.1:0"], { env: { ADMIN_KEY: adminKey, ...env } });

let hostsim;
export function hosted(env) {
  if (!hostsim) {
    hostsim = join(scratch(), "hostsim");
    execFileSync("go", ["build", "-o", hostsim, "./handler/internal/testkit/hostsim/cmd/hostsim"], { cwd: root, stdio: "inherit" });
  }
  return start(hostsim, ["-dist", join(root, "dist"), "-listen", "127.0.0.1:0", "-key", adminKey], { env });
}

// api calls a quota route.
export async function api(gateway, method, path, body, headers = {}) {
  const answer = await fetch(gateway.url + path, {
    method, headers: { "x-functions-key": adminKey, "content-type": "application/json", ...headers },
    body: body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body),
  });
  const text = await answer.text();
  let json;
  try { json = JSON.parse(text); } catch { /* the caller sees the text */ }
  return { status: answer.status, headers: answer.headers, text, json };
}

export async function product(gateway, amount, more = {}) {
  const subscriptionKey = "e2e-product-" + randomBytes(12).toString("hex");
  const made = await api(gateway, "POST", "/api/Quota", { subscriptionKey, productName: "E2E", amount, ...more });
  if (made.status !== 200) throw new Error(`create: ${made.status} ${made.text}`);
  return { key: subscriptionKey, id: made.json.ProductId };
}

// nano reads a decimal amount of dollars as an exact number of nano-dollars.
export function nano(text) {
  const [whole, fraction = ""] = String(text).replace("-", "").split(".");
  const n = BigInt(whole) * 1_000_000_000n + BigInt(fraction.padEnd(9, "0"));
  return String(text).startsWith("-") ? -n : n;
}

// history reads all records of a product, page by page.
export async function history(gateway, id) {
  const records = [];
  for (let path = `/api/Quota/${id}/history`; path;) {
    const page = await api(gateway, "GET", path);
    if (page.status !== 200) throw new Error(`history: ${page.status} ${page.text}`);
    records.push(...page.json);
    path = page.headers.get("link")?.match(/<([^>]+)>/)?.[1];
  }
  return records.filter((r) => ["request", "update", "write_off"].includes(r.kind));
}

export const bill = async (sim) => (await fetch(sim.url + "/_simulator/bill")).json();

// poll asks again and again until the answer is good; the deadline is for bugs.
export async function poll(what, good, ms = 120_000) {
  const deadline = Date.now() + ms;
  for (;;) {
    const answer = await what();
    if (good(answer)) return answer;
    if (Date.now() > deadline) throw new Error("gave up waiting; last: " + JSON.stringify(answer).slice(0, 2000));
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

export function verify(env) {
  return new Promise((resolve) => {
    const child = spawn(join(root, "gateway"), ["verify", "-json"], { cwd: root, env: { PATH: process.env.PATH, ...env } });
    let out = "";
    child.stdout.on("data", (data) => (out += data));
    child.stderr.on("data", (data) => (out += data));
    child.on("exit", (code) => resolve({ code, out }));
  });
}

export const sum = (values) => values.reduce((a, b) => a + BigInt(b), 0n);
