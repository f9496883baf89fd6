"""The clients for programs with threads. Those of freshet.aio do the work, in an event loop
in a thread that each client has to itself: that is faster than gRPC's own blocking calls,
and there is one client to keep right."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from . import aio
from ._errors import Closed
from ._model import Model
from ._questions import Event, Events, Explanation, Filter, Predictions, Ranking, Retrieved, Value
from ._reading import Lookup
from ._rows import Rows
from .aio import Layouts, Options

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


class _Blocking:
    """Runs a client's coroutines in a thread, and waits for them."""

    _aio: aio.Cluster | aio.Pod

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="freshet", daemon=True)
        self._thread.start()
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._closed = False  # guarded by lock, so that nothing is begun behind the end

    def close(self) -> None:
        """Ends all calls, and the thread. It may be called more than once."""
        self._end(self._aio.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._process != os.getpid():  # the thread is in the parent, who may have held the lock
            work.close()
            raise Closed("the client was made before a fork: connect in each process")
        with self._lock:
            if self._closed:
                work.close()
                raise Closed("the client was closed: connect again")
            running = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return running.result()
        finally:
            running.cancel()  # if the wait was interrupted

    def _end(self, close: Coroutine[Any, Any, None]) -> None:
        if self._process != os.getpid():
            close.close()
            return
        with self._lock:
            if self._closed:
                close.close()
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._last(close), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _last(self, close: Coroutine[Any, Any, None]) -> None:
        """Closes, and waits until everybody has been told so."""
        await close
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)


def connect(
    *addresses: str,
    layout: Layouts = None,
    timeout: float = 10.0,
    identity: str = "",
    credentials: grpc.ChannelCredentials | None = None,
    options: Options = (),
) -> Cluster:
    """Returns a client of the cluster that these coordinators or nodes (host:port) are of.

    Any one that answers is enough to find all shards; one of them has to be a coordinator,
    which alone knows models, unless layout is given: Model.layout of the one model that is
    read, or of each by its name. timeout is that of every call that has none of its own, in
    seconds, and of the wait for a first shard map. identity is who looks up, by which nodes
    limit it; if it is empty, that is whoever is at this address. Without credentials
    connections are in clear text. options are gRPC channel arguments.

    A process that forks connects in its children. Raises Unavailable if nobody answers in
    time, Invalid where the arguments cannot be meant.
    """
    return Cluster(aio.connect(*addresses, layout=layout, timeout=timeout, identity=identity, credentials=credentials, options=options))


class Cluster(_Blocking):
    """Reads a cluster's parameters. It is safe for concurrent use by threads; connect
    returns it, and it has to be closed, or used as a context manager.

    Every method asks again, until its timeout (seconds) is over, while shards are moving or
    nodes are gone; it then raises what kept it from succeeding (NoOwner, NotOwner,
    Unavailable, DeadlineExceeded). After close it raises Closed.
    """

    _aio: aio.Cluster

    def __init__(self, connecting: Coroutine[Any, Any, aio.Cluster]) -> None:
        super().__init__()
        try:
            self._aio = self._run(connecting)
        except BaseException:
            self._end(asyncio.sleep(0))
            raise

    def pull(self, model: str, table: str, keys: Any, *, timeout: float | None = None) -> Rows:
        """Returns the rows of a table: (len(keys), width), float32 for learned weights.

        keys: uint64, (n,), or whole numbers; in any order, with duplicates; rows are in the
        order of the keys. A row that was never learned has its initial value. model may be
        empty where there is only one. Some 256 KiB are asked for at a time, so there may be
        any number of keys that memory and timeout allow.

        The array is to be read only. Of ascending keys without duplicates that one node
        answers at once it is the reply itself, which was not copied.

        Raises UnknownModel, Invalid (a table that there is not, keys that are none),
        ModelMismatch (the layout given to connect is not the model's) and what Cluster says.
        """
        return self._run(self._aio.pull(model, table, keys, timeout=timeout))

    def lookup(
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
        """Returns the rows of a table, as pull does, and how fresh they are.

        encoding: how float32 travels: plain, float16, bfloat16 or int8 (a scale and a byte
        for each weight); rows are floats again when they are returned. seen: Lookup.seen of
        an earlier look-up, behind which this one must not be. max_age_ms: how long ago a
        shard may have changed last.

        Raises Behind if a shard has less than that, Limited if this reader asks for more in
        a second, TooLarge if for more at once, than it may, and what pull raises.
        """
        found = self._aio.lookup(model, table, keys, encoding=encoding, seen=seen, max_age_ms=max_age_ms, timeout=timeout)
        return self._run(found)

    def model(self, name: str = "", *, timeout: float | None = None) -> Model:
        """Returns a model as a coordinator has it now; an empty name means the only one.

        Raises UnknownModel, Invalid (no address is a coordinator's) and what Cluster says.
        """
        return self._run(self._aio.model(name, timeout=timeout))


class Pod(_Blocking):
    """Asks a pod that serves a model (freshet serve) at host:port. It is safe for
    concurrent use by threads, and has to be closed, or used as a context manager.

    timeout is that of every call that has none of its own, in seconds; without credentials
    the connection is in clear text; options are gRPC channel arguments. It connects with its
    first call, and asks once: a balancer between pods knows better whom to ask again.

    model may be empty where the pod has only one. Requests with the same routing_key (a
    user's mask, say) are answered by the same version where a pod serves several. Every method raises Invalid (an unknown
    column, values that cannot be meant), TooLarge (more than a request may have),
    UnknownModel, Unavailable (the pod cannot be reached, or has no parameters yet),
    DeadlineExceeded and Closed.
    """

    _aio: aio.Pod

    def __init__(
        self, address: str, *, timeout: float = 5.0, credentials: grpc.ChannelCredentials | None = None, options: Options = ()
    ) -> None:
        self._aio = aio.Pod(address, timeout=timeout, credentials=credentials, options=options)
        super().__init__()

    def predict(self, events: Events, *, model: str = "", routing_key: str = "", timeout: float | None = None) -> Predictions:
        """Scores events: by column ({"uid": ["1", "2"], "hour": "3"}, where one value is for
        all of them), or one by one ([{"uid": 1, "hour": 3}, ...])."""
        return self._run(self._aio.predict(events, model=model, routing_key=routing_key, timeout=timeout))

    def rank(
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
        """Scores candidates, given as events are to predict, in the context that all of them
        share, and returns the best, at most top if it is not 0."""
        return self._run(
            self._aio.rank(context, candidates, top=top, filters=filters, model=model, routing_key=routing_key, timeout=timeout)
        )

    def retrieve(
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
        """Returns, of all items that the pod has a list of, those with the largest inner
        product with a query: that of a context, or a vector by itself. not_in are names of
        items to leave out."""
        return self._run(
            self._aio.retrieve(context, vector=vector, top=top, not_in=not_in, model=model, routing_key=routing_key, timeout=timeout)
        )

    def explain(self, event: Event, *, model: str = "", routing_key: str = "", timeout: float | None = None) -> Explanation:
        """Tells what each feature adds to the score of an event."""
        return self._run(self._aio.explain(event, model=model, routing_key=routing_key, timeout=timeout))
