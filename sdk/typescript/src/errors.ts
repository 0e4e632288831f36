// What goes wrong.

/** A request or a stream that failed. */
export class TokenwayError extends Error {
  override name = "TokenwayError";
}

/** What the gateway says instead of an answer, or in a stream instead of its rest. */
export class APIError extends TokenwayError {
  override name = "APIError";
  /** The HTTP status; null in a stream. */
  readonly status: number | null;
  /** A word for programs, e.g. `context_length_exceeded`. */
  readonly code: string | null;
  /** The family of the error. */
  readonly type: string | null;
  /** The field at fault. */
  readonly param: string | null;
  /** Seconds after which the request may pass. */
  readonly retryAfter: number | null;

  constructor(error: ErrorFields, status: number | null = null, retryAfter: number | null = null) {
    super(error.message);
    this.status = status;
    this.code = error.code ?? null;
    this.type = error.type ?? null;
    this.param = error.param ?? null;
    this.retryAfter = retryAfter;
  }

  /** What a response that is not OK says. */
  static async of(response: Response): Promise<APIError> {
    let error: ErrorFields | undefined;
    try {
      error = ((await response.json()) as { error?: ErrorFields }).error;
    } catch (failure) {
      // A SyntaxError is not the gateway's own words, e.g. a proxy's page.
      if (!(failure instanceof SyntaxError)) throw failure;
    }
    const seconds = Number.parseFloat(response.headers.get("retry-after") ?? "");
    error ??= { message: `the server answered ${response.status} ${response.statusText}` };
    return new APIError(error, response.status, Number.isNaN(seconds) ? null : seconds);
  }
}

/** What OpenAI's error body has in its `error`. */
export interface ErrorFields {
  message: string;
  type?: string | null;
  param?: string | null;
  code?: string | null;
}

/**
 * The gateway was not reached, or the connection to it broke; of a stream, nobody sent the rest. With `streamId` and
 * `lastEventId`, `readStream` reads the rest later.
 */
export class APIConnectionError extends TokenwayError {
  override name = "APIConnectionError";

  constructor(
    failure: unknown,
    readonly streamId: string | null = null,
    readonly lastEventId = 0,
  ) {
    super(failure instanceof Error ? failure.message : String(failure), { cause: failure });
  }
}
