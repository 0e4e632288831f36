from typing import Literal

AnswerRole = Literal["assistant"]

ANSWER_ROLE_VALUES: set[AnswerRole] = {
    "assistant",
}


def check_answer_role(value: str) -> AnswerRole:
    if value in ANSWER_ROLE_VALUES:
        return value
    raise TypeError(f"Unexpected value {value!r}. Expected one of {ANSWER_ROLE_VALUES!r}")
