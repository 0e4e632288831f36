// The client.

import { APIConnectionError, APIError } from "./errors.js";
import type {
  ChatCompletion,
  ChatCompletionChunk,
  ChatRequest,
  Completion,
  CompletionChunk,
  CompletionRequest,
  Model,
  ModelList,
} from "./generated/types.js";
import { Stream } from "./stream.js";

export interface ClientOptions {
  /** One of the keys that the gateway was started with. */
  apiKey?: string;
  /** How long an answer may take to begin, in milliseconds; a stream may then be silent for a minute. */
  timeout?: number;
}

export interface RequestOptions {
  /** Ends the request, whose failure is then the signal's reason. */
  signal?: AbortSignal;
}

/** What a chat request asks; the methods say whether it streams. */
export type ChatFields = Omit<ChatRequest, "stream">;
/** What a completion request asks; the methods say whether it streams. */
export type CompletionFields = Omit<CompletionRequest, "stream">;

const CHAT = "/v1/chat/completions";
const COMPLETIONS = "/v1/completions";
/** Longer than any gateway lets a request wait. */
const ANSWER_MS = 600_000;

/** A client of one gateway. Throws `APIError` and `APIConnectionError`; nothing is sent twice. */
export class Client {
  readonly #base: string;
  readonly #headers: Record<string, string>;
  readonly #timeout: number;

  /** `baseUrl`: the gateway's, with or without `/v1` at its end. */
  constructor(baseUrl: string, { apiKey, timeout = ANSWER_MS }: ClientOptions = {}) {
    this.#base = baseUrl.replace(/\/+$/, "").replace(/\/v1$/, "");
    this.#headers = apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` };
    this.#timeout = timeout;
  }

  /** Answers a conversation. */
  chat(request: ChatFields, options?: RequestOptions): Promise<ChatCompletion> {
    return this.#json(CHAT, { ...request, stream: false }, options);
  }

  /** Answers a conversation, piece by piece. */
  chatStream(request: ChatFields, options?: RequestOptions): Stream<ChatCompletionChunk> {
    return this.#stream(CHAT, { ...request, stream: true }, options);
  }

  /** Continues prompts. */
  completion(request: CompletionFields, options?: RequestOptions): Promise<Completion> {
    return this.#json(COMPLETIONS, { ...request, stream: false }, options);
  }

  /** Continues prompts, piece by piece. */
  completionStream(request: CompletionFields, options?: RequestOptions): Stream<CompletionChunk> {
    return this.#stream(COMPLETIONS, { ...request, stream: true }, options);
  }

  /** What follows a chunk of a stream that was begun elsewhere with the same key, in the last 15 minutes. */
  readStream(id: string, lastEventId = 0, options?: RequestOptions): Stream<ChatCompletionChunk | CompletionChunk> {
    const ask = ({ lastEventId }: { lastEventId: number }, signal: AbortSignal) => this.#rest(id, lastEventId, signal);
    return new Stream(ask, this.#timeout, options?.signal, { id, lastEventId });
  }

  /** The models that can be asked. */
  async models(options?: RequestOptions): Promise<Model[]> {
    return (await this.#json<ModelList>("/v1/models", undefined, options)).data;
  }

  #stream<T>(path: string, body: object, options?: RequestOptions): Stream<T> {
    return new Stream(
      ({ id, lastEventId }, signal) =>
        id === null ? this.#fetch(path, body, signal) : this.#rest(id, lastEventId, signal),
      this.#timeout,
      options?.signal,
    );
  }

  #rest(id: string, lastEventId: number, signal: AbortSignal): Promise<Response> {
    const headers = { ...this.#headers, "last-event-id": String(lastEventId) };
    return fetch(`${this.#base}/v1/streams/${encodeURIComponent(id)}`, { headers, signal });
  }

  async #json<T>(path: string, body?: object, options?: RequestOptions): Promise<T> {
    const late = AbortSignal.timeout(this.#timeout);
    const signal = options?.signal ? AbortSignal.any([options.signal, late]) : late;
    try {
      const response = await this.#fetch(path, body, signal);
      if (!response.ok) throw await APIError.of(response);
      return await response.json();
    } catch (failure) {
      options?.signal?.throwIfAborted();
      throw failure instanceof APIError ? failure : new APIConnectionError(failure);
    }
  }

  #fetch(path: string, body: object | undefined, signal: AbortSignal): Promise<Response> {
    const url = `${this.#base}${path}`;
    if (body === undefined) return fetch(url, { headers: this.#headers, signal });
    const headers = { ...this.#headers, "content-type": "application/json" };
    return fetch(url, { method: "POST", headers, body: JSON.stringify(body), signal });
  }
}
