// A gateway that says what a test wants: the same stream for every request, cut off where the test says.
import http from "node:http";
import { once } from "node:events";

export const STREAM = "0123456789abcdef0123456789abcdef";
export const TEXTS = ["Ein ", "Füchs\n\n", "", "chen 🦊"];

const chunk = (text) =>
  JSON.stringify({ object: "chat.completion.chunk", choices: [{ index: 0, delta: { content: text } }] });
const EVENTS = [...TEXTS.map(chunk), "[DONE]"];

/** The bytes of the events after the first `after`, with a comment among them. */
export function stream(after = 0) {
  const events = EVENTS.map((data, place) => `id: ${place + 1}\ndata: ${data}\n\n`).slice(after);
  return Buffer.from(["", ...events].join(":\n\n"));
}

// How a response ends: as HTTP wants it, by a lost connection, or not.
export const [CLOSED, LOST, SILENT] = ["closed", "lost", "silent"];

export const whole = (last) => [stream(last), CLOSED];

/** The first `at` bytes of what is asked for. */
export const cut = (at, end = LOST) => (last) => [stream(last).subarray(0, at), end];

/** One more event, then the error that ends the stream. */
export function failing(last) {
  const rest = stream(last);
  const error = { message: "gone", type: "server_error", param: null, code: "lost" };
  const event = Buffer.from(`data: ${JSON.stringify({ error })}\n\n`);
  return [Buffer.concat([rest.subarray(0, rest.indexOf("\n\n:") + 2), event]), CLOSED];
}

/**
 * Answers each request with the next of `replies`: a status, or a function of the last event id that gives bytes and how
 * they end. Without more replies, it sends everything.
 */
export class Gateway {
  replies = [];
  requests = [];
  id = STREAM;
  #server = http.createServer((request, response) => this.#answer(request, response));

  async start() {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    this.url = `http://127.0.0.1:${this.#server.address().port}`;
    return this;
  }

  begin(...replies) {
    this.replies = replies;
    this.requests = [];
    this.id = STREAM;
  }

  stop() {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  async #answer(request, response) {
    request.resume();
    await once(request, "end");
    const last = Number(request.headers["last-event-id"] ?? 0);
    this.requests.push([request.method, request.url, last, request.headers.authorization]);
    const reply = this.replies.shift() ?? whole;
    if (typeof reply === "number") {
      response.writeHead(reply, { "content-type": "application/json", "retry-after": "7" });
      response.end(JSON.stringify({ error: { message: "no", type: "t", param: null, code: `code_${reply}` } }));
      return;
    }
    const [body, end] = reply(last);
    response.writeHead(200, { "content-type": "text/event-stream", ...(this.id && { "x-stream-id": this.id }) });
    response.flushHeaders();
    const written = body.length ? new Promise((resolve) => response.write(body, resolve)) : undefined;
    await written;
    if (end === CLOSED) response.end();
    if (end === LOST) response.socket.end();
  }
}
