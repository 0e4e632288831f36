// The server's answers: failures and streams.

/** What a response that is not OK says. */
export async function failureOf(response) {
  let detail = {};
  try {
    detail = (await response.json()).error;
  } catch {
    // Not the server's own words, e.g. a proxy's page.
  }
  const message = detail?.message ?? `The server answered ${response.status} ${response.statusText}`;
  return Object.assign(new Error(message), { code: detail?.code, status: response.status });
}

const READ_ON_AFTER_MS = 250;
const READ_ON_AFTER_MS_MAX = 2000;
const READ_ON_FOR_MS = 60000;

/**
 * The events of a stream, parsed, until `[DONE]`. When the connection or the gateway is lost, it is read on from there:
 * `readOn(id, last)` asks for what follows event `last` of stream `id`.
 */
export async function* eventsOf(response, readOn) {
  const id = response.headers.get("x-stream-id");
  const place = { last: 0, isDone: false };
  for (;;) {
    try {
      yield* eventsOfOne(response, place);
      if (place.isDone) return;
      if (id === null) throw new Error("The connection was closed before the end of the answer");
    } catch (failure) {
      if (id === null || failure.name === "AbortError") throw failure;
    }
    response = await reachedAgain(() => readOn(id, place.last));
  }
}

async function* eventsOfOne(response, place) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    const events = buffer.split("\n\n");
    buffer = events.pop();
    for (const event of events) {
      const fields = Object.fromEntries(event.split("\n").map((line) => line.split(/: (.*)/s, 2)));
      if (fields.data === undefined) continue;
      if (fields.id !== undefined) place.last = Number(fields.id);
      place.isDone = fields.data === "[DONE]";
      if (place.isDone) return;
      yield JSON.parse(fields.data);
    }
  }
}

/** The response of `ask`, asked again while nobody answers or a part of the server is away. */
async function reachedAgain(ask) {
  const until = Date.now() + READ_ON_FOR_MS;
  for (let pause = READ_ON_AFTER_MS; ; pause = Math.min(2 * pause, READ_ON_AFTER_MS_MAX)) {
    await new Promise((resolve) => setTimeout(resolve, pause * (0.5 + Math.random())));
    try {
      const response = await ask();
      if (response.ok) return response;
      if (response.status !== 503 || Date.now() > until) throw await failureOf(response);
    } catch (failure) {
      // `fetch` throws a TypeError when it reaches nobody.
      if (!(failure instanceof TypeError) || Date.now() > until) throw failure;
    }
  }
}
