"""A stand-in for Cloud Tasks: it answers as Google does in trouble, and delivers nothing."""

from __future__ import annotations

from concurrent import futures
from typing import Any


class Google:
    """A real server of the API that answers ``CreateTask`` with one status after the other, then takes the task."""

    def __init__(self) -> None:
        import grpc
        from google.cloud.tasks_v2 import CreateTaskRequest, Task, types

        self.troubles: list[tuple[Any, str]] = []
        self.calls = 0
        self.state: Any = None

        def get_queue(request: Any, context: Any) -> Any:
            if self.state is None:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "No.")
            return types.Queue(name=request.name, state=self.state)

        def create_task(request: Any, context: Any) -> Any:
            self.calls += 1
            if self.troubles:
                context.abort(*self.troubles.pop(0))
            return request.task

        handler = grpc.unary_unary_rpc_method_handler(
            create_task, request_deserializer=CreateTaskRequest.deserialize, response_serializer=Task.serialize
        )
        asked = grpc.unary_unary_rpc_method_handler(
            get_queue,
            request_deserializer=types.GetQueueRequest.deserialize,
            response_serializer=types.Queue.serialize,
        )
        handlers = {"CreateTask": handler, "GetQueue": asked}
        service = grpc.method_handlers_generic_handler("google.cloud.tasks.v2.CloudTasks", handlers)
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
        self.server.add_generic_rpc_handlers((service,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
