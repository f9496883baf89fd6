"""The clients for asyncio: the methods of freshet.Cluster and freshet.Pod, awaited.

    async with await freshet.aio.connect("127.0.0.1:7400") as cluster:
        rows = await cluster.pull("shop", "linear", keys)

A client belongs to the event loop that it was made in. Cancelling a method ends its calls.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, Callable, TypeVar, Union

import grpc
import grpc.aio
import numpy as np

from . import _key, _model, _questions, _routes, _rows
from ._errors import Closed, DeadlineExceeded, FreshetError, Invalid, ModelMismatch, NoOwner, Unavailable, of_status
from ._model import Model
from ._proto import admin_pb2, ps_pb2
from ._questions import Event, Events, Explanation, Filter, Predictions, Question, Ranking, Retrieved, Value
from ._reading import Look, Lookup, Pull
from ._rows import Part, Rows

if TYPE_CHECKING:
    from typing_extensions import Self

Layouts = Union[None, bytes, Mapping[str, bytes]]
Options = Sequence[tuple[str, Any]]
T = TypeVar("T")
R = TypeVar("R", bound=Pull)

_MESSAGE_BYTES_MAX = 64 << 20  # wire.MessageBytesMax
_ATTEMPT_SECONDS = 5.0
_CALLS_AT_ONCE = 8  # of one read
_PAUSE_MIN, _PAUSE_MAX = 0.01, 0.5  # seconds before shards are asked again without a newer map

# A dead node is noticed within keep-alive time plus timeout, and one that is back at its
# address within a second.
_CHANNEL_OPTIONS: Options = (
    ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


async def connect(
    *addresses: str,
    layout: Layouts = None,
    timeout: float = 10.0,
    identity: str = "",
    credentials: grpc.ChannelCredentials | None = None,
    options: Options = (),
) -> Cluster:
    """Returns a client, as freshet.connect does."""
    cluster = Cluster(addresses, layout, timeout, identity, credentials, options)
    try:
        await cluster._started()
    except BaseException:
        await cluster.close()
        raise
    return cluster


_Metadata = tuple[tuple[str, str], ...]


def _metadata(name: str, value: str) -> _Metadata:
    """Returns what to say with a call, or nothing for an empty value."""
    if not (isinstance(value, str) and value.isascii() and value.isprintable()):  # as the empty text is
        raise Invalid(f"{name} {value!r}: give printable ASCII, which is what gRPC carries")
    return ((name, value),) if value else ()


class _Deadline:
    """The end of a method's time."""

    def __init__(self, seconds: float) -> None:
        if not 0 < seconds < float("inf"):
            raise Invalid(f"timeout of {seconds}: give seconds above 0")
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    def left(self) -> float:
        return self._at - time.monotonic()

    def attempt(self) -> float:
        """Returns the time of one call, so that a node that hangs is asked again."""
        return min(self.left(), _ATTEMPT_SECONDS)


class _Client:
    """What both clients have: channels, and a time for what has none of its own."""

    def __init__(self, timeout: float, credentials: grpc.ChannelCredentials | None, options: Options) -> None:
        self._timeout = _Deadline(timeout).seconds
        self._credentials = credentials
        self._options = (*_CHANNEL_OPTIONS, *options)
        self._channels: dict[str, grpc.aio.Channel] = {}  # by address; each connects with its first call
        self._closed = False

    async def close(self) -> None:
        """Ends all calls. It may be called more than once."""
        self._closed = True
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _deadline(self, timeout: float | None) -> _Deadline:
        return _Deadline(self._timeout if timeout is None else timeout)

    def _channel(self, address: str) -> grpc.aio.Channel:
        if self._closed:
            raise Closed("the client was closed: connect again")
        if address not in self._channels:
            if self._credentials is None:
                self._channels[address] = grpc.aio.insecure_channel(address, self._options)
            else:
                self._channels[address] = grpc.aio.secure_channel(address, self._credentials, self._options)
        return self._channels[address]

    def _begin(self, address: str, method: str, request: bytes, seconds: float, metadata: _Metadata = ()) -> Any:
        """Begins a call of one request and one reply, both bytes."""
        if seconds < 1e-3:  # which gRPC does not count in: it might be answered nevertheless
            raise DeadlineExceeded(f"{address}: less than a millisecond is left for the call")
        call: Any = self._channel(address).unary_unary(method)
        return call(request, timeout=seconds, metadata=metadata)

    async def _reply(self, address: str, call: Any) -> bytes:
        """Returns the reply to a call, or raises why there is none.

        Awaiting the call itself would raise CancelledError where its channel was closed, as
        if the caller had been cancelled.
        """
        code = await call.code()
        if code is grpc.StatusCode.OK:
            reply: bytes = await call
            return reply
        if self._closed:
            raise Closed("the client was closed: connect again")
        raise of_status(code, await call.details(), await call.trailing_metadata()).about(address)


class Cluster(_Client):
    """Reads a cluster's parameters, as freshet.Cluster does."""

    def __init__(
        self,
        addresses: Sequence[str],
        layout: Layouts,
        timeout: float,
        identity: str,
        credentials: grpc.ChannelCredentials | None,
        options: Options,
    ) -> None:
        super().__init__(timeout, credentials, options)
        self._metadata = _metadata("freshet-identity", identity)
        if not addresses or not all(isinstance(a, str) and ":" in a for a in addresses):
            raise Invalid(f"addresses {addresses!r}: give host:port of a coordinator or of nodes")
        self._addresses = tuple(addresses)
        self._layouts = layout
        self._models: dict[str, Model] = {}
        self._routes = _routes.NONE
        self._news = asyncio.Event()  # set, and replaced, when there is a newer map
        self._trouble: FreshetError = Unavailable("no answer")  # of those who were asked for a map
        self._follower = asyncio.get_running_loop().create_task(self._follow())

    async def pull(self, model: str, table: str, keys: Any, *, timeout: float | None = None) -> Rows:
        """Returns the rows of a table, as freshet.Cluster.pull does."""
        checked = _key.checked(keys)
        pull = await self._read(model, lambda m: Pull(m, table, checked), timeout)
        return pull.wanted.rows()

    async def lookup(
        self,
        model: str,
        table: str,
        keys: Any,
        *,
        encoding: str = "plain",
        seen: Mapping[int, tuple[int, int]] | None = None,
        max_age_ms: float | None = None,
        timeout: float | None = None,
    ) -> Lookup:
        """Returns rows and how fresh they are, as freshet.Cluster.lookup does."""
        checked = _key.checked(keys)
        look = await self._read(model, lambda m: Look(m, table, checked, encoding, seen or {}, max_age_ms), timeout)
        return look.found()

    async def model(self, name: str = "", *, timeout: float | None = None) -> Model:
        """Returns a model as it is now, as freshet.Cluster.model does."""
        return await self._model(name, self._deadline(timeout))

    async def close(self) -> None:
        """Ends all calls and the background task. It may be called more than once."""
        self._follower.cancel()
        await asyncio.wait([self._follower])
        await super().close()
        self._tell()

    async def _started(self) -> None:
        deadline = self._deadline(None)
        while self._routes is _routes.NONE:
            if not await self._heard(deadline.left()):
                addresses = ", ".join(self._addresses)
                raise Unavailable(f"no shard map from {addresses} within {deadline.seconds:g} s: {self._trouble}")

    async def _read(self, name: str, begin: Callable[[Model], R], timeout: float | None) -> R:
        """Reads by the layout that is known, and once more where the model has a newer one."""
        deadline = self._deadline(timeout)
        given = self._layouts.get(name) if isinstance(self._layouts, Mapping) else self._layouts
        m = self._models.get(name) if given is None else Model(name, given)
        m = m or await self._model(name, deadline)
        reading = begin(m)
        try:
            await self._each(reading, deadline)
        except ModelMismatch:
            newer = m if given is not None else await self._model(name, deadline)
            if newer.hash == m.hash:
                raise
            reading = begin(newer)
            await self._each(reading, deadline)
        return reading

    async def _model(self, name: str, deadline: _Deadline) -> Model:
        """Asks the coordinators among the addresses for a model, until there is no time left."""
        request = admin_pb2.GetModelRequest(name=name).SerializeToString()
        pause = _PAUSE_MIN
        while True:
            trouble: FreshetError | None = None
            for address in self._addresses:
                call = self._begin(address, "/freshet.admin.v1.Admin/GetModel", request, deadline.attempt())
                try:
                    self._models[name] = _model.of_message(await self._reply(address, call))
                    return self._models[name]
                except FreshetError as error:
                    if error.retryable:
                        trouble = error
                    elif error.code is not grpc.StatusCode.UNIMPLEMENTED:  # as it is at a node
                        raise error.about(f"model {name!r}") from None
                finally:
                    call.cancel()
            if trouble is None:
                raise Invalid(
                    f"model {name!r}: only coordinators know models, and none of {', '.join(self._addresses)} is one: "
                    "connect to a coordinator, or give connect a layout"
                )
            await self._pause(pause, trouble, deadline)
            pause = min(2 * pause, _PAUSE_MAX)

    async def _each(self, reading: Pull, deadline: _Deadline) -> None:
        """Asks the owners of all keys, and again for what failed in a way that can be mended,
        until all has been taken."""
        left: _rows.Places | None = None
        version, pause = -1, _PAUSE_MIN
        because: FreshetError | None = None
        while True:
            routes = self._routes
            if routes.version != version:  # a new owner may need a moment more, and not half a second
                version, pause = routes.version, _PAUSE_MIN
            parts, homeless = reading.wanted.parts(routes, left)
            failed, trouble = await self._ask(reading, parts, deadline)
            if len(homeless):
                trouble = trouble or NoOwner(f"shard {routes.shards(reading.wanted.keys[homeless])[0]} has no owner")
            if trouble is None:
                return
            left = np.sort(np.concatenate([homeless, *(part.at for part in failed)]))
            if because is None or not isinstance(trouble, DeadlineExceeded):
                because = trouble  # says more than that the last attempt had no time
            await self._pause(pause, because, deadline)
            pause = min(2 * pause, _PAUSE_MAX)

    async def _ask(self, reading: Pull, parts: Iterable[Part], deadline: _Deadline) -> tuple[Sequence[Part], FreshetError | None]:
        """Asks for the parts, for some of them at the same time, and returns those that
        failed in a way that can be mended, and how. Any other failure it raises."""
        waiting = iter(parts)
        failed: list[Part] = []
        trouble: FreshetError | None = None
        flying: deque[tuple[Part, Any]] = deque()
        try:
            while True:
                for part in islice(waiting, _CALLS_AT_ONCE - len(flying)):
                    request, seconds = reading.ask(part), deadline.attempt()
                    flying.append((part, self._begin(part.address, reading.method, request, seconds, self._metadata)))
                if not flying:
                    return failed, trouble
                part, call = flying[0]
                try:
                    reading.take(part, await self._reply(part.address, call))
                except FreshetError as error:
                    trouble = reading.refused(part, error)
                    if not trouble.retryable:
                        raise trouble from None
                    failed.append(part)
                flying.popleft()
        finally:
            for _, call in flying:
                call.cancel()

    async def _pause(self, seconds: float, trouble: FreshetError, deadline: _Deadline) -> None:
        """Waits so long or until there is a newer map. If the time is up, raises what
        troubled the caller."""
        await self._heard(min(seconds, deadline.left()))
        if deadline.left() <= 0:
            raise trouble.about(f"given up after {deadline.seconds:g} s")

    async def _heard(self, seconds: float) -> bool:
        """Waits for a newer map for so many seconds, and reports whether there is one."""
        try:
            await asyncio.wait_for(self._news.wait(), max(0.0, seconds))
        except asyncio.TimeoutError:
            return False
        return True

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _follow(self) -> None:
        """Watches the shard map at one address until that fails, then at the next, with a
        pause behind the last of them."""
        for i, address in enumerate(cycle(self._addresses), start=1):
            try:
                await self._follow_at(address)
            except FreshetError as error:
                self._trouble = error.about(address)
            if i % len(self._addresses) == 0:
                await asyncio.sleep(_PAUSE_MAX)

    async def _follow_at(self, address: str) -> None:
        request = ps_pb2.WatchRequest(after_version=self._routes.version).SerializeToString()
        call: Any = self._channel(address).unary_stream("/freshet.ps.v1.Routes/Watch")
        watch = call(request)
        try:
            async for message in watch:
                await self._learn(_routes.of_message(message))
        except grpc.aio.AioRpcError as error:
            trailers: Any = error.trailing_metadata()
            raise of_status(error.code(), error.details(), trailers) from None
        finally:
            watch.cancel()

    async def _learn(self, routes: _routes.Routes) -> None:
        """Takes in a newer map and closes channels to addresses that are gone."""
        if routes.version <= self._routes.version:
            return
        self._routes = routes
        self._tell()
        for address in set(self._channels) - {*routes.addresses, *self._addresses}:
            await self._channels.pop(address).close()


class Pod(_Client):
    """Asks a pod that serves a model, as freshet.Pod does."""

    def __init__(
        self, address: str, *, timeout: float = 5.0, credentials: grpc.ChannelCredentials | None = None, options: Options = ()
    ) -> None:
        super().__init__(timeout, credentials, options)
        self._address = address

    async def predict(self, events: Events, *, model: str = "", routing_key: str = "", timeout: float | None = None) -> Predictions:
        """Scores events, as freshet.Pod.predict does."""
        return await self._ask(_questions.predict(events, model), timeout, routing_key)

    async def rank(
        self,
        context: Event,
        candidates: Events,
        *,
        top: int = 0,
        filters: Sequence[Filter] = (),
        model: str = "",
        routing_key: str = "",
        timeout: float | None = None,
    ) -> Ranking:
        """Ranks candidates, as freshet.Pod.rank does."""
        return await self._ask(_questions.rank(context, candidates, top, filters, model), timeout, routing_key)

    async def retrieve(
        self,
        context: Event | None = None,
        *,
        vector: Any = None,
        top: int = 10,
        not_in: Sequence[Value] = (),
        model: str = "",
        routing_key: str = "",
        timeout: float | None = None,
    ) -> Retrieved:
        """Retrieves items, as freshet.Pod.retrieve does."""
        return await self._ask(_questions.retrieve(context, vector, top, not_in, model), timeout, routing_key)

    async def explain(self, event: Event, *, model: str = "", routing_key: str = "", timeout: float | None = None) -> Explanation:
        """Explains a prediction, as freshet.Pod.explain does."""
        return await self._ask(_questions.explain(event, model), timeout, routing_key)

    async def _ask(self, question: Question[T], timeout: float | None, routing_key: str) -> T:
        said = _metadata("freshet-key", routing_key)
        call = self._begin(self._address, question.method, question.request, self._deadline(timeout).seconds, said)
        try:
            return question.read(await self._reply(self._address, call))
        finally:
            call.cancel()
