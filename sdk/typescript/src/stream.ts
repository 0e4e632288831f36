// Streams of events that are read on, each event once, when their connection or their gateway is lost.

import { APIConnectionError, APIError } from "./errors.js";

/** How long is waited for what. */
export const PATIENCE = {
  /** The gateway writes a comment after 15 seconds without an event. */
  silenceMs: 60_000,
  readOnAfterMs: 250,
  readOnAfterMsMax: 2_000,
  readOnForMs: 60_000,
};

// A part of the server is away, in the gateway's words or in those of a proxy before it.
const AWAY: readonly (number | null)[] = [502, 503, 504];
const CLOSED = Symbol("closed");

/** Where a reader is: in no stream yet, or after an event of one. */
export interface Place {
  id: string | null;
  lastEventId: number;
}

/** Asks for the events after a place; for all of a new stream where there is none. */
export type Ask = (place: Place, signal: AbortSignal) => Promise<Response>;

/** The chunks of an answer; asked for when the first is read. Closed at its end, by `close`, when its reader leaves. */
export class Stream<T> implements AsyncIterable<T> {
  readonly #place: Place;
  readonly #closing = new AbortController();
  readonly #chunks: Chunks<T>;

  constructor(ask: Ask, answerMs: number, signal?: AbortSignal, place: Place = { id: null, lastEventId: 0 }) {
    this.#place = place;
    const stop = signal ? AbortSignal.any([signal, this.#closing.signal]) : this.#closing.signal;
    this.#chunks = read(ask, answerMs, place, stop);
  }

  /** The stream's name at every gateway; null before the first chunk, and where the gateway keeps no journal. */
  get id(): string | null {
    return this.#place.id;
  }

  /** The number of the last chunk that was given out; 0 before the first. */
  get lastEventId(): number {
    return this.#place.lastEventId;
  }

  [Symbol.asyncIterator](): AsyncIterator<T, void, undefined> {
    return this.#chunks;
  }

  /** Closes the connection: the answer pauses, and `readStream` goes on with it. */
  close(): void {
    this.#closing.abort(CLOSED);
  }
}

type Chunks<T> = AsyncGenerator<T, void, undefined>;

async function* read<T>(ask: Ask, answerMs: number, place: Place, stop: AbortSignal): Chunks<T> {
  let pauses = pausesOf();
  while (stop.reason !== CLOSED) {
    stop.throwIfAborted();
    const connection = new Connection(stop);
    let failure: unknown;
    try {
      const beginMs = place.id === null ? answerMs : PATIENCE.silenceMs;
      const response = await connection.within(beginMs, ask(place, connection.signal));
      if (!response.ok) throw await connection.within(PATIENCE.silenceMs, APIError.of(response));
      place.id = response.headers.get("x-stream-id") ?? place.id;
      for await (const event of eventsOf(response, connection)) {
        // The end has an event id, too; without it, what is asked for after the last chunk is the end.
        if (event.data === "[DONE]") return;
        const chunk = JSON.parse(event.data);
        if (chunk.error) throw new APIError(chunk.error);
        place.lastEventId = event.id ?? place.lastEventId;
        pauses = pausesOf();
        yield chunk;
      }
      failure = new Error("the connection was closed before the end of the stream");
    } catch (error) {
      if (stop.aborted) continue;
      if (error instanceof SyntaxError) throw error;
      if (error instanceof APIError && (place.id === null || !AWAY.includes(error.status))) throw error;
      failure = error;
    } finally {
      connection.end();
    }
    const pause = pauses.next();
    if (place.id === null || pause.done) throw new APIConnectionError(failure, place.id, place.lastEventId);
    await sleep(pause.value, stop);
  }
}

/** What is said of one event. */
interface ServerEvent {
  id: number | undefined;
  data: string;
}

async function* eventsOf(response: Response, connection: Connection): Chunks<ServerEvent> {
  if (!response.body) return;
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let buffer = "";
  for (;;) {
    const { value, done } = await connection.within(PATIENCE.silenceMs, reader.read());
    if (done) return;
    buffer += decoder.decode(value, { stream: true });
    const events = buffer.split("\n\n");
    buffer = events.pop() ?? "";
    for (const event of events) {
      const fields = new Map(event.split("\n").map((line) => line.split(/: (.*)/s, 2) as [string, string]));
      const [id, data] = [fields.get("id"), fields.get("data")];
      if (data !== undefined) yield { id: id === undefined ? undefined : Number(id), data };
    }
  }
}

/** One connection, which is aborted when its time is up and when its reader has left. */
class Connection {
  readonly #ending = new AbortController();
  /** For `fetch`. */
  readonly signal: AbortSignal;

  constructor(stop: AbortSignal) {
    this.signal = AbortSignal.any([stop, this.#ending.signal]);
  }

  /** `promise`, which must hold within `ms`. */
  async within<V>(ms: number, promise: Promise<V>): Promise<V> {
    const late = new DOMException(`nothing came for ${ms / 1000} s`, "TimeoutError");
    const timer = setTimeout(() => this.#ending.abort(late), ms);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Closes it. */
  end(): void {
    this.#ending.abort();
  }
}

/** Milliseconds to wait before each time that the rest is asked for. */
function* pausesOf(): Generator<number, void, undefined> {
  const until = performance.now() + PATIENCE.readOnForMs;
  let pause = PATIENCE.readOnAfterMs;
  while (performance.now() < until) {
    yield pause * (0.5 + Math.random());
    pause = Math.min(2 * pause, PATIENCE.readOnAfterMsMax);
  }
}

function sleep(ms: number, stop: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const awake = () => {
      clearTimeout(timer);
      stop.removeEventListener("abort", awake);
      resolve();
    };
    const timer = setTimeout(awake, ms);
    stop.addEventListener("abort", awake);
  });
}
