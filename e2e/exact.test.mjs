// Everything that is not a plain chat, with the real OpenAI SDK: images, sound,
// tools sold by the call, background responses, tiers. What the gateway charges
// is the simulator's bill, line by line.
import test from "node:test";
import assert from "node:assert/strict";
import { OpenAI, AzureOpenAI, toFile } from "openai";
import * as world from "./lib/world.mjs";

// wav is silence: 8 kHz, 8 bit, mono.
function wav(ms) {
  const data = Buffer.alloc(ms * 8), head = Buffer.alloc(44);
  head.write("RIFF", 0); head.writeUInt32LE(36 + data.length, 4); head.write("WAVEfmt ", 8); head.writeUInt32LE(16, 16);
  head.writeUInt16LE(1, 20); head.writeUInt16LE(1, 22); head.writeUInt32LE(8000, 24); head.writeUInt32LE(8000, 28);
  head.writeUInt16LE(1, 32); head.writeUInt16LE(8, 34); head.write("data", 36); head.writeUInt32LE(data.length, 40);
  return Buffer.concat([head, data]);
}
const png = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==", "base64");

test("exact cost of everything else", async (t) => {
  const azurite = await world.azurite();
  const sim = await world.simulator();
  const env = world.settings(sim, azurite);
  const gateway = await world.hosted(env);
  const p = await world.product(gateway, "500.00");
  const openai = new OpenAI({ baseURL: gateway.url + "/openai/v1", apiKey: p.key, maxRetries: 0 });
  const azure = new AzureOpenAI({ endpoint: gateway.url, apiKey: p.key, apiVersion: "2025-04-01-preview", maxRetries: 0 });
  const records = () => world.history(gateway, p.id);

  await t.test("images, by the piece and by tokens", async () => {
    assert.equal((await azure.images.generate({ model: "dall-e-3", prompt: "a cat" })).data.length, 1);
    assert.equal((await openai.images.generate({ model: "dall-e-3", prompt: "a cat", quality: "hd", size: "1024x1792" })).data.length, 1);
    const made = await openai.images.generate({ model: "gpt-image-1", prompt: "a cat", quality: "medium", size: "1024x1024", n: 2 });
    assert.ok(made.usage.output_tokens > 0 && made.data[0].b64_json.length > 0);
    const edited = await openai.images.edit({ model: "gpt-image-1", prompt: "a hat", image: await toFile(png, "a.png", { type: "image/png" }), quality: "low" });
    assert.ok(edited.usage.input_tokens_details.image_tokens > 0);
    let last;
    for await (const event of await openai.images.generate({ model: "gpt-image-1", prompt: "a cat", quality: "low", stream: true, partial_images: 2 })) last = event;
    assert.equal(last.type, "image_generation.completed");
    const [streamed] = await records();
    assert.equal(streamed.operation, "images");
    assert.equal(streamed.completion_tokens, last.usage.output_tokens);
  });
  await t.test("transcription and translation", async () => {
    const file = () => toFile(wav(12_345), "a.wav", { type: "audio/wav" });
    for (const response_format of ["json", "verbose_json", "text", "srt"]) {
      await azure.audio.transcriptions.create({ model: "whisper-1", file: await file(), response_format });
    }
    await openai.audio.translations.create({ model: "whisper-1", file: await file() });
    const heard = await openai.audio.transcriptions.create({ model: "gpt-4o-transcribe", file: await file() });
    assert.ok(heard.usage.input_tokens > 0);
    let done;
    for await (const event of await openai.audio.transcriptions.create({ model: "gpt-4o-mini-transcribe", file: await file(), stream: true })) done = event;
    assert.equal(done.type, "transcript.text.done");
    assert.ok((await records()).slice(0, 7).every((r) => r.operation === "transcription" && r.cost_nano_usd > 0));
  });
  await t.test("speech", async () => {
    const input = "Say it plainly. ".repeat(10);
    assert.ok((await (await openai.audio.speech.create({ model: "tts-1", voice: "alloy", input })).arrayBuffer()).byteLength > 100);
    const [byCharacter] = await records();
    assert.deepEqual(byCharacter.items, [{ meter: "char_in", quantity: input.length }]);
    const spoken = await openai.audio.speech.create({ model: "gpt-4o-mini-tts", voice: "alloy", input, stream_format: "sse" });
    assert.match(await spoken.text(), /speech\.audio\.done/);
    assert.equal((await records())[0].usage_source, "provider");
  });
  await t.test("tools sold by the call", async () => {
    const made = await openai.responses.create({ model: "gpt-4o", input: "What is new?", max_output_tokens: 100, tools: [{ type: "web_search" }] });
    assert.ok(made.output.some((item) => item.type === "web_search_call"));
    for await (const _ of await openai.responses.create({ model: "gpt-4.1", input: "Sum up", max_output_tokens: 100, stream: true,
      tools: [{ type: "web_search" }, { type: "code_interpreter", container: { type: "auto" } }] })) { /* to its end */ }
    const meters = (await records())[0].items.map((item) => item.meter).sort();
    assert.deepEqual(meters, ["code_interpreter_session", "web_search_call"]);
  });
  await t.test("a background response is charged at its hold, then at its cost", async () => {
    let made = await openai.responses.create({ model: "gpt-4o", input: "Think it over", background: true, max_output_tokens: 500 });
    assert.equal(made.status, "queued");
    const [held] = await records();
    assert.equal(held.usage_source, "estimate");
    assert.equal(held.cost_nano_usd, held.hold_nano_usd);
    while (made.status !== "completed") made = await openai.responses.retrieve(made.id);
    await openai.responses.retrieve(made.id);
    const [known] = await records();
    assert.equal(known.id, held.id);
    assert.equal(known.rev, 2);
    assert.equal(known.usage_source, "provider");
    assert.equal(known.completion_tokens, made.usage.output_tokens);
    const next = await openai.responses.create({ model: "gpt-4o", input: "And?", previous_response_id: made.id, max_output_tokens: 50 });
    assert.ok(next.usage.input_tokens > made.usage.input_tokens);
  });
  await t.test("tiers and the prompt cache", async () => {
    const messages = [{ role: "user", content: "A long story. ".repeat(600) }];
    const fast = await openai.chat.completions.create({ model: "gpt-5", messages, service_tier: "priority", max_completion_tokens: 300 });
    assert.equal(fast.service_tier, "priority");
    for (let i = 0; i < 2; i++) await openai.chat.completions.create({ model: "gpt-5.6-sol", messages, max_completion_tokens: 300 });
    const [again, first, priority] = await records();
    assert.ok(first.cache_write_tokens > 0 && again.cached_tokens > 0);
    assert.equal(priority.service_tier, "priority");
  });
  await t.test("one cent and no output limit", async () => {
    const poor = await world.product(gateway, "0.01");
    const client = new OpenAI({ baseURL: gateway.url + "/openai/v1", apiKey: poor.key, maxRetries: 0 });
    const answer = await client.chat.completions.create({ model: "gpt-5", messages: [{ role: "user", content: "Hello" }] }, { headers: { "x-simulator-completion-tokens": "100000" } });
    assert.equal(answer.choices[0].finish_reason, "length");
    const [record] = await world.history(gateway, poor.id);
    assert.ok(record.cost_nano_usd > 5_000_000 && record.cost_nano_usd <= 10_000_000, String(record.cost_nano_usd));
    p.poor = poor;
  });
  await t.test("records and the simulator's bill agree, line by line", async () => {
    const all = [...await records(), ...await world.history(gateway, p.poor.id)];
    const billed = await world.bill(sim);
    assert.equal(billed.unpriced, 0);
    const byID = (id, cost) => `${id} ${cost}`;
    assert.deepEqual(all.map((r) => byID(r.response_id ?? r.upstream_request_id, r.cost_nano_usd)).sort(), billed.lines.map((l) => byID(l.id || l.request_id, l.cost_nano)).sort());
    for (const r of all) assert.ok(r.cost_nano_usd <= Math.max(r.hold_nano_usd, 0) || r.rev > 1, `${r.operation} ${r.model}: ${r.cost_nano_usd} of ${r.hold_nano_usd}`);
    const checked = await world.verify({ ...env, ADMIN_KEY: world.adminKey });
    assert.equal(checked.code, 0, checked.out);
  });
  await gateway.kill("SIGINT");
  await sim.kill();
  await azurite.kill();
});
