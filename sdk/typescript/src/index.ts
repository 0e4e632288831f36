// Client of tokenway, whose streams outlive their gateway.

export { Client } from "./client.js";
export type { ChatFields, ClientOptions, CompletionFields, RequestOptions } from "./client.js";
export { APIConnectionError, APIError, TokenwayError } from "./errors.js";
export { Stream } from "./stream.js";
export type {
  ChatCompletion,
  ChatCompletionChunk,
  ChatRequest,
  Completion,
  CompletionChunk,
  CompletionRequest,
  ContentPart,
  ErrorDetail,
  FinishReason,
  Message,
  Model,
  Usage,
} from "./generated/types.js";
