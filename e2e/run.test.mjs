// What `make run` does, as a newcomer would do it.
import test from "node:test";
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import * as world from "./lib/world.mjs";

test("the demo, its curl, and a restart", async () => {
  const cwd = world.scratch();
  const demo = () => world.start(join(world.root, "gateway"), ["demo", "-listen", "127.0.0.1:0"], { cwd });
  const sh = (line) => JSON.parse(execFileSync("sh", ["-c", line], { encoding: "utf8" }));
  let gateway = await demo();
  await gateway.until(/Stop with Ctrl-C/);
  let [ask, look] = gateway.stdout.match(/^ *curl .*$/gm);
  const answer = sh(ask);
  const { prompt_tokens: prompt, completion_tokens: completion } = answer.usage;
  const view = sh(look);
  assert.equal(world.nano(view.Spent), BigInt(prompt * 2500 + completion * 10_000));
  assert.equal(world.nano(view.Amount), 5_000_000_000n - world.nano(view.Spent));
  assert.deepEqual(await gateway.kill("SIGINT"), { code: 0, signal: null });

  gateway = await demo();
  await gateway.until(/Stop with Ctrl-C/);
  [ask, look] = gateway.stdout.match(/^ *curl .*$/gm);
  assert.equal(sh(look).Spent, view.Spent);
  assert.equal(sh(look.replace(/(api\/Quota\/[^']+)/, "$1/history")).filter((r) => r.kind === "request").length, 1);
  sh(ask);
  assert.ok(world.nano(sh(look).Spent) > world.nano(view.Spent));
  await gateway.kill("SIGKILL");
});
