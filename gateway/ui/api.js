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

/** The events of a stream, parsed, until `[DONE]`. */
export async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    const events = buffer.split("\n\n");
    buffer = events.pop();
    for (const event of events) {
      if (!event.startsWith("data: ")) continue;
      const data = event.slice(6);
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}
