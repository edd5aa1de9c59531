// What API Management does with the policies in infra/apim, as far as they use it: enough to send the very calls that
// they make, to the real gateway. It knows the policies and the C# that stand in those files, and nothing else: what it
// does not know is an error, so that a change there is noticed here. It is no proof that API Management agrees.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import sax from "sax";
import { root } from "./world.mjs";

const folder = join(root, "infra", "apim");
export const text = (name) => readFileSync(join(folder, name), "utf8");

// Sections that a policy may stand in, its attributes, and the elements in it, in the order that its reference gives them.
const all = ["inbound", "backend", "outbound", "on-error"];
const request = ["set-url", "set-method", "set-header*", "set-body"];
const knows = {
  "base": [all, [], []],
  "choose": [all, [], ["when*", "otherwise"]],
  "forward-request": [["backend"], ["timeout", "buffer-response"], []],
  "include-fragment": [all, ["fragment-id"], []],
  "retry": [all, ["condition", "count", "interval", "first-fast-retry"], null],
  "return-response": [all, [], ["set-status", "set-header*", "set-body"]],
  "send-request": [all, ["mode", "response-variable-name", "timeout", "ignore-error"], request],
  "set-backend-service": [["inbound", "backend"], ["base-url"], []],
  "set-header": [all, ["name", "exists-action"], ["value*"]],
  "set-query-parameter": [["inbound", "backend"], ["name", "exists-action"], ["value*"]],
  "set-variable": [all, ["name", "value"], []],
  "trace": [all, ["source", "severity"], ["message"]],
};
// Elements that are no policies by themselves: their attributes, and whether policies stand in them.
const parts = { "when": [["condition"], true], "otherwise": [[], true], "set-url": [[], false], "set-method": [[], false], "set-body": [[], false],
  "set-status": [["code", "reason"], false], "value": [[], false], "message": [[], false] };

// parse reads a document strictly: it must be well-formed.
export function parse(source) {
  const parser = sax.parser(true);
  const stack = [{ children: [] }];
  parser.onerror = (error) => { throw error; };
  parser.onopentag = ({ name, attributes }) => {
    const element = { name, attributes, children: [], text: "" };
    stack.at(-1).children.push(element);
    stack.push(element);
  };
  parser.ontext = (t) => { stack.at(-1).text += t; };
  parser.onclosetag = () => stack.pop();
  parser.write(source).close();
  return stack[0].children[0];
}

// check holds an element, and those in it, against what API Management takes in a section. It returns complaints.
export function check(element, sections, inside = "") {
  const where = `${inside}/${element.name}`;
  const policy = knows[element.name], part = parts[element.name];
  if (!policy && !part) return [`${where} is not known`];
  const [attributes, order] = policy ? [policy[1], policy[2]] : [part[0], part[1] ? null : []];
  const complaints = [];
  if (policy) complaints.push(...sections.filter((s) => !policy[0].includes(s)).map((s) => `${where} is not for ${s}`));
  for (const name of Object.keys(element.attributes)) if (!attributes.includes(name)) complaints.push(`${where} has no attribute ${name}`);
  let at = 0;
  for (const child of element.children) {
    if (order) { // each kind once, or with a star as often as one likes
      while (at < order.length && order[at].replace("*", "") !== child.name) at++;
      if (at === order.length) complaints.push(`${where}: ${child.name} does not belong here`);
      else if (!order[at].endsWith("*")) at++;
    } else if (parts[child.name]) complaints.push(`${where}: ${child.name} is no policy`);
    complaints.push(...check(child, sections, where));
  }
  const bodies = order === null || order.length > 0;
  if (bodies && element.children.length === 0 && !["set-header", "set-query-parameter"].includes(element.name)) complaints.push(`${where} is empty`);
  return complaints;
}

export function* walk(element) {
  yield element;
  for (const child of element.children) yield* walk(child);
}

// The C# types that the expressions use, as far as they do.
class JProperty { constructor(name, value) { Object.assign(this, { name, value }); } }
class JObject {
  constructor(...properties) { this.text = JSON.stringify(Object.fromEntries(properties.map((p) => [p.name, p.value ?? null]))); }
  toString() { return this.text; }
  static Parse(source) {
    const value = JSON.parse(source);
    if (value === null || typeof value !== "object" || Array.isArray(value)) throw new Error("not an object");
    return value;
  }
}
const toText = (v) => { // (string) of a JToken
  if (v === null || v === undefined) return null;
  if (typeof v === "object") throw new Error("cannot be converted to string");
  return typeof v === "boolean" ? (v ? "True" : "False") : String(v);
};
const toDecimal = (v) => { // (decimal) of a JToken
  if (!/^-?\d+(\.\d+)?$/.test(v)) throw new Error("cannot be converted to decimal");
  return Number(v);
};

// translate makes JavaScript of the C# in these policies.
function translate(code) {
  const token = /\((string|decimal)\)((?:\w+(?:\.\w+\((?:[^()]|\([^()]*\))*\))?)(?:\["\w+"\])+)/g;
  return code
    .replace(/\(string\)context\.Variables\["(\w+)"\]/g, 'context.Variables.GetValueOrDefault("$1")')
    .replace(token, (_, type, value) => `${type === "string" ? "toText" : "toDecimal"}(${value})`)
    .replace(/\.As<(\w+)>\((preserveContent: true)?\)/g, '.As("$1")')
    .replace(/GetValueOrDefault<\w+>/g, "GetValueOrDefault")
    .replaceAll("catch (Exception)", "catch").replaceAll(".Replace(", ".replaceAll(").replaceAll(".EndsWith(", ".endsWith(")
    .replaceAll(".StartsWith(", ".startsWith(").replaceAll(".ToString()", ".toString()");
}

// evaluate gives the value of an attribute or a text: a literal, or an expression, with named values in either.
export function evaluate(source, context, named) {
  const filled = source.trim().replace(/\{\{([^{}]+)\}\}/g, (_, name) => {
    if (named[name] === undefined) throw new Error(`no named value ${name}`);
    return named[name];
  });
  const [, body] = filled.match(/^@\{([\s\S]*)\}$/) ?? [], [, single] = filled.match(/^@\(([\s\S]*)\)$/) ?? [];
  if (body === undefined && single === undefined) return filled;
  const run = new Function("context", "JObject", "JProperty", "toText", "toDecimal", translate(body ?? `return (${single});`)); // our own files
  return run(context, JObject, JProperty, toText, toDecimal);
}

const variables = () => {
  const values = new Map();
  return { values, GetValueOrDefault: (name, otherwise = null) => (values.has(name) ? values.get(name) : otherwise) };
};
const headersOf = (headers) => ({ GetValueOrDefault: (name, otherwise = null) => headers.get(name) ?? otherwise });
const returned = Symbol("returned");

// apim serves one API: call(...) is what a client's request becomes. sent lists the calls that policies made.
export function apim({ policy, source = text(policy), named, backend, credential = {}, preset = {}, key }) {
  const top = parse(source);
  const section = (name) => top.children.find((c) => c.name === name)?.children ?? [];
  const sent = [];
  let context, out, base, response, traces;

  const run = async (policies) => { for (const p of policies) await one(p); };
  const value = (source) => evaluate(source, context, named);
  const headersIn = (element) => element.children.filter((c) => c.name === "set-header")
    .map((h) => [h.attributes.name, h.children.map((v) => String(value(v.text))).join(",")]);
  const child = (element, name) => element.children.find((c) => c.name === name);

  async function one(p) {
    switch (p.name) {
      case "base": return;
      case "include-fragment": return run(parse(text(`fragments/${p.attributes["fragment-id"]}.xml`)).children);
      case "set-variable": return void context.Variables.values.set(p.attributes.name, value(p.attributes.value));
      case "trace": return void traces.push(value(child(p, "message").text));
      case "set-backend-service": return void (base = value(p.attributes["base-url"]));
      case "set-query-parameter": return void context.query.delete(p.attributes.name);
      case "choose":
        for (const branch of p.children) if (branch.name === "otherwise" || value(branch.attributes.condition) === true) return run(branch.children);
        return;
      case "retry":
        for (let tries = 0; ; tries++) {
          await run(p.children);
          if (tries === Number(p.attributes.count) || value(p.attributes.condition) !== true) return;
        }
      case "set-header": {
        const headers = response ? response.headers : out;
        if (p.attributes["exists-action"] === "delete") headers.delete(p.attributes.name);
        else headers.set(p.attributes.name, String(value(p.children[0].text)));
        return;
      }
      case "return-response": {
        const status = child(p, "set-status").attributes;
        response = new Response(child(p, "set-body").text, { status: Number(status.code), statusText: status.reason, headers: headersIn(p) });
        throw returned;
      }
      case "send-request": return sendRequest(p);
      default: throw new Error(`no policy ${p.name}`);
    }
  }

  async function sendRequest(p) {
    const call = { method: value(child(p, "set-method").text), url: value(child(p, "set-url").text), headers: Object.fromEntries(headersIn(p)) };
    const body = child(p, "set-body");
    if (body) call.body = value(body.text);
    let answer = null;
    try {
      const got = await fetch(call.url, { ...call, redirect: "manual", signal: AbortSignal.timeout(1000 * Number(p.attributes.timeout)) });
      const content = await got.text();
      answer = { StatusCode: got.status, Body: { As: () => JObject.Parse(content) } };
    } catch (error) {
      if (p.attributes["ignore-error"] !== "true") throw error;
    }
    sent.push({ ...call, status: answer?.StatusCode });
    context.Variables.values.set(p.attributes["response-variable-name"], answer);
  }

  async function forward(method, path, body) {
    const element = section("backend")[0];
    if (element.name !== "forward-request" || element.attributes["buffer-response"] !== "false") throw new Error("the answer is buffered");
    if (base === backend) for (const [name, v] of Object.entries(credential)) out.set(name, v);
    const query = context.query.size ? `?${context.query}` : "";
    try {
      response = await fetch(base + path + query, { method, headers: out, body });
    } catch {
      context.LastError = { Source: "forward-request", Reason: "BackendConnectionFailure" };
      await run(section("on-error"));
      throw new Error("not mapped by on-error");
    }
    response = new Response(response.body, { status: response.status, headers: response.headers });
  }

  // call sends a request to the API; path is what comes behind /openai.
  async function call(path, { method = "POST", body, headers = {}, subscription = key, query = "" } = {}) {
    out = new Headers(headers);
    traces = [];
    response = undefined;
    base = backend;
    const state = { read: false };
    context = {
      Variables: variables(), RequestId: crypto.randomUUID(), Subscription: subscription === null ? null : { Key: subscription },
      Request: { Method: method, Url: { Path: "/openai" + path }, Body: body === undefined ? null : { As: () => String(body) } },
      query: new URLSearchParams(query),
    };
    for (const [name, v] of Object.entries(preset)) context.Variables.values.set(name, v);
    try {
      await run(section("inbound"));
      await forward(method, path, body);
      // The whole body is there for a policy that asks; whoever asks for a stream's has held it back.
      const whole = response.headers.get("content-type")?.startsWith("application/json") ? await response.text() : null;
      if (whole !== null) response = new Response(whole, { status: response.status, headers: response.headers });
      context.Response = { StatusCode: response.status, Headers: headersOf(response.headers),
        Body: { As: () => { state.read = true; if (whole === null) throw new Error("the body of a stream was read"); return whole; } } };
      await run(section("outbound"));
    } catch (error) {
      if (error !== returned) throw error;
    }
    return { response, traces, read: state.read, base, variables: context.Variables.values };
  }
  return { call, sent };
}
