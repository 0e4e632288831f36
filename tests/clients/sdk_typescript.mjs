// Talks to live gateways with the TypeScript SDK, which tsc has compiled: sdk_typescript.mjs URL [OTHER_URL]
// A stream that was begun at the first is taken up at the other. As `sdk_typescript.mjs URL --lose-gateway` it prints
// "streaming" when an answer is on its way: then whoever runs this kills the gateway and starts another. It prints the
// whole answer as JSON at its end.
import assert from "node:assert/strict";

import { APIError, Client } from "../../sdk/typescript/dist/index.js";

const [url, other = url] = process.argv.slice(2);
const client = new Client(url);
const model = (await client.models())[0].id;

const asking = (content, more) => ({ model, messages: [{ role: "user", content }], ...more });
const STORY = asking("Tell me a story about a fox.", { temperature: 1.5, seed: 7, max_tokens: 400 });

const text = (chunks) => chunks.flatMap(({ choices }) => choices.map(({ delta }) => delta.content ?? "")).join("");

async function all(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

async function loseGateway() {
  let read = "";
  for await (const chunk of client.chatStream(STORY)) {
    const begun = read.length > 10;
    read += text([chunk]);
    if (!begun && read.length > 10) console.log("streaming");
  }
  console.log(JSON.stringify(read));
}

async function check() {
  const question = asking("What is 12 + 34?", { temperature: 0 });
  const answer = await client.chat(question);
  assert.equal(answer.choices[0].message.content, "46");
  assert.equal(answer.choices[0].finish_reason, "stop");

  const chunks = await all(client.chatStream({ ...question, stream_options: { include_usage: true } }));
  assert.equal(text(chunks), "46");
  assert.deepEqual(chunks.at(-1).usage, answer.usage);

  const prompts = { model, max_tokens: 4, temperature: 0 };
  const completion = await client.completion({ ...prompts, prompt: ["abc", "xyz"], logprobs: 2 });
  assert.equal(completion.choices.length, 2);
  assert.equal(completion.choices[0].logprobs.tokens.length, 4);
  const pieces = await all(client.completionStream({ ...prompts, prompt: "abc" }));
  assert.equal(pieces.map(({ choices }) => choices[0].text).join(""), completion.choices[0].text);

  const elsewhere = new Client(other);
  const begun = [];
  const stream = client.chatStream(STORY);
  for await (const chunk of stream) {
    begun.push(chunk);
    if (begun.length === 2) break;
  }
  const rest = await all(elsewhere.readStream(stream.id, stream.lastEventId));
  assert.equal(text([...begun, ...rest]), text(await all(elsewhere.readStream(stream.id))));

  for (const [wrong, status, param, code] of [
    [{ temprature: 1 }, 400, "temprature", "unknown_field"],
    [{ temperature: 9 }, 400, "temperature", null],
    [{ model: "nobody" }, 404, "model", "model_not_found"],
  ]) {
    for (const ask of [(request) => client.chat(request), (request) => all(client.chatStream(request))]) {
      await assert.rejects(ask({ ...question, ...wrong }), (error) => {
        assert.ok(error instanceof APIError && error.message, String(error));
        assert.deepEqual([error.status, error.param, error.code], [status, param, code]);
        return true;
      });
    }
  }
  console.log("all checks passed");
}

await (other === "--lose-gateway" ? loseGateway() : check());
