"""Small real servers of the protocols, for what a cluster of one machine cannot be made to
do: they answer by what a test sets."""

from __future__ import annotations

import json
import threading
from concurrent import futures
from typing import Any, Callable

import grpc
import numpy as np
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from freshet._proto import admin_pb2, predict_pb2, ps_pb2

SHARDS = 8
WIDTH = 4
LAYOUT = json.dumps(
    {"seed": 1, "tables": [{"name": "linear", "kind": 0, "width": 1}, {"name": "factors", "kind": 0, "width": WIDTH}]},
    separators=(",", ":"),
).encode()


class Refused(Exception):
    """An answer with an ErrorInfo, as ps/wire makes it."""

    def __init__(self, code: grpc.StatusCode, reason: str, message: str = "refused", wait: float | None = None) -> None:
        self.code, self.reason, self.message, self.wait = code, reason, message, wait


NOT_OWNER = Refused(grpc.StatusCode.FAILED_PRECONDITION, "NOT_OWNER")


def expected(keys: Any, width: int = WIDTH) -> np.ndarray:
    """Rows that say which keys they are of."""
    keys = np.asarray(keys, np.uint64)
    return np.stack([(keys >> np.uint64(8 * i) & np.uint64(0xFF)).astype("<f4") for i in range(width)], axis=-1).reshape(-1, width)


class Server:
    """A gRPC server on loopback whose methods are functions of a message."""

    def __init__(self, methods: dict[str, tuple[Any, Callable[..., Any]]], streams: tuple[str, ...] = ()) -> None:
        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        for path, (request, method) in methods.items():
            service, name = path.rsplit("/", 1)
            make = grpc.unary_stream_rpc_method_handler if path in streams else grpc.unary_unary_rpc_method_handler
            handler = make(
                self._stream(method) if path in streams else self._answer(method),
                request_deserializer=request.FromString,
                response_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
            )
            self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service.lstrip("/"), {name: handler})])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()

    @staticmethod
    def _answer(method: Callable[..., Any]) -> Callable[..., Any]:
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                return method(request, context)
            except Refused as r:
                status = status_pb2.Status(code=r.code.value[0], message=r.message)
                details: list[Any] = [error_details_pb2.ErrorInfo(domain="freshet", reason=r.reason)]
                if r.wait is not None:
                    details.append(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=int(r.wait * 1e9))))
                for detail in details:
                    packed = any_pb2.Any()
                    packed.Pack(detail)
                    status.details.append(packed)
                context.set_trailing_metadata([("grpc-status-details-bin", status.SerializeToString())])
                context.abort(r.code, r.message)

        return answer

    @staticmethod
    def _stream(method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda request, context: method(request, context)


class Node:
    """A parameter-server node that owns whatever it is asked for. A test sets refuse, which
    is called with every request and may raise Refused, or return the reply."""

    def __init__(self, cluster: Fake) -> None:
        self.pulls = 0
        self.refuse: Callable[[Any, grpc.ServicerContext], bytes | None] = lambda request, context: None
        self.last: Any = None
        self.metadata: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._server = Server(
            {
                "/freshet.ps.v1.Parameters/Pull": (ps_pb2.PullRequest, self._pull),
                "/freshet.ps.v1.Lookups/Lookup": (ps_pb2.LookupRequest, self._lookup),
                "/freshet.ps.v1.Routes/Watch": (ps_pb2.WatchRequest, cluster.watch),
            },
            streams=("/freshet.ps.v1.Routes/Watch",),
        )
        self.address, self.stop = self._server.address, self._server.stop

    def _rows(self, request: Any) -> np.ndarray:
        (table,) = request.tables
        keys = np.frombuffer(table.keys, "<u8")
        assert list(table.counts) == [int(np.sum(keys >> np.uint64(61) == s)) for s in request.shards], "keys are grouped by shard"
        assert sum(table.counts) == len(keys)
        return expected(keys, 1 if table.table == 0 else WIDTH)

    def _pull(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._lock:
            self.pulls += 1
            self.last, self.metadata = request, dict(context.invocation_metadata())
        return self.refuse(request, context) or ps_pb2.PullResponse(values=[self._rows(request).tobytes()])

    def _lookup(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._lock:
            self.last, self.metadata = request, dict(context.invocation_metadata())
        reply = self.refuse(request, context)
        if reply is not None:
            return reply
        fresh = [
            ps_pb2.ShardFreshness(boundary=ps_pb2.Boundary(fence=1, seq=100 + s), applied=[s, 7], event_time=9, age_ms=1.5)
            for s in request.shards
        ]
        return ps_pb2.LookupResponse(values=[self._rows(request).tobytes()], shards=fresh)


class Fake:
    """A coordinator and two nodes, of which the first owns the even shards."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._version = 0
        self.layout = LAYOUT
        self.models = 0
        self.coordinator = Server(
            {
                "/freshet.ps.v1.Routes/Watch": (ps_pb2.WatchRequest, self.watch),
                "/freshet.admin.v1.Admin/GetModel": (admin_pb2.GetModelRequest, self._model),
            },
            streams=("/freshet.ps.v1.Routes/Watch",),
        )
        self.nodes = [Node(self), Node(self)]
        self._map = ps_pb2.ShardMap()
        self._stopped = False
        self.route(lambda s: s % 2)

    def route(self, owner: Callable[[int], int | None], fence: int = 1) -> None:
        """Publishes a newer shard map."""
        m = ps_pb2.ShardMap(addresses={f"n{i}": n.address for i, n in enumerate(self.nodes)})
        for s in range(SHARDS):
            o = owner(s)
            m.shards.append(ps_pb2.ShardOwner(node="" if o is None else f"n{o}", fence=fence))
        with self._news:
            self._version += 1
            m.version = self._version
            self._map = m
            self._news.notify_all()

    def watch(self, request: Any, context: grpc.ServicerContext) -> Any:
        after = request.after_version
        context.add_callback(self._wake)
        while context.is_active() and not self._stopped:
            with self._news:
                self._news.wait_for(lambda after=after: self._version > after or self._stopped or not context.is_active())
                m = self._map
            if m.version > after:
                after = m.version
                yield m

    def _wake(self) -> None:
        with self._news:
            self._news.notify_all()

    def _model(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.models += 1
        if request.name not in ("", "shop"):
            raise Refused(grpc.StatusCode.NOT_FOUND, "UNKNOWN_MODEL", f"no model {request.name}")
        return admin_pb2.Model(name="shop", version=2, layout=self.layout, spec=b"model: shop", stream="file:1", partitions=8)

    def stop(self) -> None:
        self._stopped = True
        self._wake()
        for server in (self.coordinator, *self.nodes):
            server.stop()


class FakePod:
    """An inference pod: the value of an event is its number in column n, over 10."""

    def __init__(self) -> None:
        self.last: Any = None
        self.metadata: dict[str, Any] = {}
        self.answer: Callable[[Any], Any] | None = None
        service = "/freshet.predict.v1.Predictions/"
        self._server = Server(
            {
                service + name: (getattr(predict_pb2, f"{name}Request"), self._method(getattr(self, f"_{name.lower()}")))
                for name in ("Predict", "Rank", "Retrieve", "Explain")
            }
        )
        self.address, self.stop = self._server.address, self._server.stop
        self.served = predict_pb2.Served(version=3, parameters="live", applied=[5, 6], event_time=1700, age_ms=2.5)

    def _method(self, method: Callable[[Any], Any]) -> Callable[..., Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            self.last, self.metadata = request, dict(context.invocation_metadata())
            return self.answer(request) if self.answer else method(request)

        return call

    @staticmethod
    def _prediction(text: str) -> Any:
        try:
            return predict_pb2.Prediction(score=float(text), value=float(text) / 10)
        except ValueError:
            return predict_pb2.Prediction(error=f"column n: {text!r} is no number")

    def _predict(self, request: Any) -> Any:
        n = max(len(c.values) for c in request.columns)
        texts = next(list(c.values) for c in request.columns if c.name == "n")
        texts = texts * n if len(texts) == 1 else texts
        return predict_pb2.PredictResponse(predictions=[self._prediction(t) for t in texts], served=self.served)

    def _rank(self, request: Any) -> Any:
        texts = next(list(c.values) for c in request.candidates if c.name == "n")
        order = sorted(range(len(texts)), key=lambda i: -float(texts[i]))[: request.top or None]
        ranked = [predict_pb2.Ranked(candidate=i, score=float(texts[i]), value=float(texts[i]) / 10) for i in order]
        return predict_pb2.RankResponse(ranked=ranked, filtered=1, unusable=2, served=self.served)

    def _retrieve(self, request: Any) -> Any:
        items = [predict_pb2.Retrieved(item=f"i{k}", score=9 - k) for k in range(request.top)]
        return predict_pb2.RetrieveResponse(items=items, served=self.served)

    def _explain(self, request: Any) -> Any:
        features = [predict_pb2.FeatureContribution(feature=c.name, contribution=0.5) for c in request.columns]
        return predict_pb2.ExplainResponse(prediction=self._prediction(request.columns[0].values[0]), features=features, served=self.served)
