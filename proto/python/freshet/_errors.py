"""The conditions that a caller can act on, one class each, as ps/errors.go has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "freshet"

M = TypeVar("M", bound=Message)


class FreshetError(Exception):
    """What went wrong. The classes below say what to do about it.

    reason: the protocol's name of the condition, or that of the gRPC code.
    code: the gRPC code; None if the client itself found it.
    retryable: whether to ask again, perhaps elsewhere, can help. A Cluster does, until
    the time is up.
    """

    reason = "INTERNAL"
    retryable = False

    def __init__(self, message: str, code: grpc.StatusCode | None = None) -> None:
        super().__init__(message)
        self.code = code

    def about(self, what: str) -> FreshetError:
        """Returns the same condition, whose message begins with what it is about."""
        error = type(self)(f"{what}: {self}", self.code)
        error.__dict__.update(self.__dict__)
        return error


class Invalid(FreshetError, ValueError):
    """The request can never succeed as it is. Do not retry."""

    reason = "INVALID"


class TooLarge(FreshetError, ValueError):
    """A request is over a documented limit. Send less at a time."""

    reason = "TOO_LARGE"


class UnknownModel(FreshetError, LookupError):
    """The cluster has no such model."""

    reason = "UNKNOWN_MODEL"


class ModelMismatch(FreshetError):
    """The layout is not, or no longer, the model's. Get the model again."""

    reason = "MODEL_MISMATCH"


class NotOwner(FreshetError):
    """The node that was asked does not own the shard."""

    reason = "NOT_OWNER"
    retryable = True


class NoOwner(FreshetError):
    """No node owned the shard while there was time. Ask again later."""

    reason = "NO_OWNER"
    retryable = True


class Replaced(FreshetError):
    """A newer assignment of the partition exists."""

    reason = "REPLACED"


class Conflict(FreshetError):
    """Somebody else changed what this change was based on. Read again."""

    reason = "CONFLICT"


class Unavailable(FreshetError, ConnectionError):
    """The other side cannot be reached, or has nothing to answer from yet. Ask again later."""

    reason = "UNAVAILABLE"
    retryable = True


class OutOfMemory(FreshetError):
    """A node has no memory for a row."""

    reason = "OUT_OF_MEMORY"


class Corrupt(FreshetError):
    """What came does not decode to what it claims to be."""

    reason = "CORRUPT"


class KeysUnknown(FreshetError):
    """A push refers to keys of a pull that the node does not have."""

    reason = "KEYS_UNKNOWN"


class Behind(FreshetError):
    """A shard has less than was seen of it, or was not changed for longer than is accepted.

    Look up again later, or ask for less.
    """

    reason = "BEHIND"


class Limited(FreshetError):
    """More was asked for in a second than this reader may. Ask more slowly.

    wait: seconds until what was asked for can be asked for again, if the node has said so.
    """

    reason = "LIMITED"
    wait = 0.0


class DeadlineExceeded(FreshetError, TimeoutError):
    """There was no answer in time. Give a longer timeout, or ask for less at a time."""

    reason = "DEADLINE_EXCEEDED"
    retryable = True


class Closed(FreshetError):
    """The client was closed. Connect again."""

    reason = "CLOSED"


# Reasons are part of the protocol: append only. Those of the two above never travel.
CONDITIONS = {
    c.reason: c
    for c in (
        Invalid, TooLarge, UnknownModel, ModelMismatch, NotOwner, NoOwner, Replaced, Conflict, Unavailable,
        OutOfMemory, Corrupt, KeysUnknown, Behind, Limited,
    )
}  # fmt: skip


def of_status(code: grpc.StatusCode, message: str | None, trailers: Iterable[tuple[str, Any]] | None) -> FreshetError:
    """Returns how a call ended as the condition that it carries.

    A connection that cannot be made, broke, or was closed while the call was under way
    is Unavailable.
    """
    message = message or code.name
    details = next((status_pb2.Status.FromString(v).details for k, v in trailers or () if k == "grpc-status-details-bin"), ())
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    if any(d.Unpack(info) and info.domain == DOMAIN for d in details):
        error = of_reason(info.reason, message, code)
        if isinstance(error, Limited) and any(d.Unpack(retry) for d in details):
            error.wait = retry.retry_delay.ToTimedelta().total_seconds()
        return error
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return Unavailable(f"not reached: {message}", code)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(message, code)
    return of_reason(code.name, message, code)


def of_reason(reason: str, message: str, code: grpc.StatusCode | None = None) -> FreshetError:
    """Returns the condition of that name, or a FreshetError with it as its reason."""
    if reason in CONDITIONS:
        return CONDITIONS[reason](message, code)
    error = FreshetError(message, code)
    error.reason = reason
    return error


def decoded(kind: type[M], message: bytes) -> M:
    """Returns a message that came; what is none is Corrupt."""
    try:
        return kind.FromString(message)
    except DecodeError:
        raise Corrupt(f"{len(message)} bytes are no {kind.__name__}") from None
