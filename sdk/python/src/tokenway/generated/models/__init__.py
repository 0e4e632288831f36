"""Contains all the data models used in inputs/outputs"""

from .answer_message import AnswerMessage
from .answer_role import AnswerRole
from .called_function import CalledFunction
from .chat_choice import ChatChoice
from .chat_chunk_choice import ChatChunkChoice
from .chat_completion import ChatCompletion
from .chat_completion_chunk import ChatCompletionChunk
from .chat_delta import ChatDelta
from .chat_logprob import ChatLogprob
from .chat_logprobs import ChatLogprobs
from .chat_request import ChatRequest
from .chat_request_chat_template_kwargs import ChatRequestChatTemplateKwargs
from .chat_request_logit_bias import ChatRequestLogitBias
from .completion import Completion
from .completion_choice import CompletionChoice
from .completion_chunk import CompletionChunk
from .completion_logprobs import CompletionLogprobs
from .completion_logprobs_top_logprobs_item import CompletionLogprobsTopLogprobsItem
from .completion_request import CompletionRequest
from .completion_request_logit_bias import CompletionRequestLogitBias
from .content_part import ContentPart
from .error_body import ErrorBody
from .error_detail import ErrorDetail
from .finish_reason import FinishReason
from .health import Health
from .image_url import ImageUrl
from .message import Message
from .message_role import MessageRole
from .model import Model
from .model_list import ModelList
from .pipeline_readiness import PipelineReadiness
from .readiness import Readiness
from .response_format import ResponseFormat
from .stream_options import StreamOptions
from .tool_call import ToolCall
from .top_logprob import TopLogprob
from .usage import Usage

__all__ = (
    "AnswerMessage",
    "AnswerRole",
    "CalledFunction",
    "ChatChoice",
    "ChatChunkChoice",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatDelta",
    "ChatLogprob",
    "ChatLogprobs",
    "ChatRequest",
    "ChatRequestChatTemplateKwargs",
    "ChatRequestLogitBias",
    "Completion",
    "CompletionChoice",
    "CompletionChunk",
    "CompletionLogprobs",
    "CompletionLogprobsTopLogprobsItem",
    "CompletionRequest",
    "CompletionRequestLogitBias",
    "ContentPart",
    "ErrorBody",
    "ErrorDetail",
    "FinishReason",
    "Health",
    "ImageUrl",
    "Message",
    "MessageRole",
    "Model",
    "ModelList",
    "PipelineReadiness",
    "Readiness",
    "ResponseFormat",
    "StreamOptions",
    "ToolCall",
    "TopLogprob",
    "Usage",
)
