// Streams are read on, each event once: node --test sdk/typescript/test, after tsc.
import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";

import { APIConnectionError, APIError, Client } from "../dist/index.js";
import { PATIENCE } from "../dist/stream.js";
import { CLOSED, Gateway, LOST, SILENT, STREAM, TEXTS, cut, failing, stream, whole } from "./gateway.mjs";

const ASKED = { model: "m", messages: [{ role: "user", content: "hi" }] };
const KEY = "secret";
const patience = { ...PATIENCE, readOnAfterMs: 0.1, readOnAfterMsMax: 0.1 };
const gateway = new Gateway();
let client;

before(async () => {
  await gateway.start();
  client = new Client(`${gateway.url}/v1/`, { apiKey: KEY });
});
beforeEach(() => void Object.assign(PATIENCE, patience));
after(() => gateway.stop());

const text = (chunk) => chunk.choices[0].delta.content;

async function read(chunks) {
  const texts = [];
  for await (const chunk of chunks) texts.push(text(chunk));
  return texts;
}

const ask = (options) => read(client.chatStream(ASKED, options));

test("whatever byte is the last of a connection, each event comes once", async () => {
  const bytes = stream();
  for (const end of [LOST, CLOSED]) {
    for (let at = 0; at < bytes.length; at++) {
      gateway.begin(cut(at, end));
      assert.deepEqual(await ask(), TEXTS, `${at} ${end}`);
      const events = bytes.subarray(0, at).toString().split("\n\n").slice(0, -1);
      const seen = events.filter((event) => event.startsWith("id")).length;
      const [, ...rest] = gateway.requests;
      assert.deepEqual(rest, [["GET", `/v1/streams/${STREAM}`, seen, `Bearer ${KEY}`]], `${at} ${end}`);
    }
  }
});

test("every connection may be lost", async () => {
  // From the length of one event: shorter ones bring nothing.
  for (let at = 150; at < 400; at += 50) {
    gateway.begin(cut(at), ...Array(4).fill([503, cut(at)]).flat());
    assert.deepEqual(await ask(), TEXTS, `${at}`);
  }
});

test("a gateway that is away is asked again", async () => {
  gateway.begin(cut(100), 503, 502, 503);
  assert.deepEqual(await ask(), TEXTS);
  assert.equal(gateway.requests.length, 5);
});

test("any other refusal is final", async () => {
  for (const status of [400, 401, 404, 500]) {
    gateway.begin(cut(100), status);
    await assert.rejects(ask(), (error) => {
      assert.ok(error instanceof APIError);
      assert.deepEqual([error.status, error.code], [status, `code_${status}`]);
      return true;
    });
    assert.equal(gateway.requests.length, 2);
  }
});

test("a refused request is not sent again", async () => {
  for (const status of [429, 503]) {
    gateway.begin(status);
    await assert.rejects(ask(), { name: "APIError", status, retryAfter: 7 });
    gateway.begin(status);
    await assert.rejects(client.chat(ASKED), { name: "APIError", status, retryAfter: 7 });
    assert.equal(gateway.requests.length, 1);
  }
});

test("an error event is the end", async () => {
  for (const replies of [[failing], [cut(100), failing]]) {
    gateway.begin(...replies);
    await assert.rejects(ask(), { name: "APIError", status: null, code: "lost" });
    assert.equal(gateway.requests.length, replies.length);
  }
});

test("without a stream id, a lost connection is thrown", async () => {
  for (const end of [LOST, CLOSED]) {
    gateway.begin(cut(100, end));
    gateway.id = null;
    await assert.rejects(ask(), { name: "APIConnectionError", streamId: null });
    assert.equal(gateway.requests.length, 1);
  }
});

test("a silent connection is a lost one", async () => {
  PATIENCE.silenceMs = 50;
  gateway.begin(cut(200, SILENT));
  assert.deepEqual(await ask(), TEXTS);
});

test("when nobody answers in time, the place in the stream is told", async () => {
  PATIENCE.readOnForMs = 50;
  gateway.begin(cut(300), ...Array(1000).fill(503));
  await assert.rejects(ask(), (error) => {
    assert.ok(error instanceof APIConnectionError && error.cause instanceof APIError);
    assert.deepEqual([error.streamId, error.lastEventId], [STREAM, 2]);
    return true;
  });
});

test("a stream that was left is taken up elsewhere", async () => {
  gateway.begin();
  const chunks = client.chatStream(ASKED);
  assert.deepEqual([chunks.id, chunks.lastEventId], [null, 0]);
  let first;
  for await (const chunk of chunks) {
    first = text(chunk);
    break;
  }
  gateway.begin(503, cut(200), whole);
  const rest = client.readStream(chunks.id, chunks.lastEventId);
  assert.deepEqual([first, ...(await read(rest))], TEXTS);
  assert.deepEqual(await read(client.readStream(rest.id, rest.lastEventId)), []);
});

test("a signal ends a stream with its reason, while it reads and while it waits", async () => {
  for (const replies of [[cut(200, SILENT)], [cut(200), ...Array(1000).fill(503)]]) {
    gateway.begin(...replies);
    await assert.rejects(ask({ signal: AbortSignal.timeout(50) }), { name: "TimeoutError" });
  }
  gateway.begin();
  await assert.rejects(ask({ signal: AbortSignal.abort() }), { name: "AbortError" });
  assert.equal(gateway.requests.length, 0);
});

test("a stream that is closed ends", async () => {
  gateway.begin(cut(200, SILENT));
  const stream = client.chatStream(ASKED);
  const chunks = stream[Symbol.asyncIterator]();
  assert.equal(text((await chunks.next()).value), TEXTS[0]);
  const next = chunks.next();
  stream.close();
  assert.deepEqual(await next, { value: undefined, done: true });
});
