"""A server on this machine's loopback that answers by the documented rules of TF Serving, for tests alone.

It loads versions of SavedModels as a server does, by their signatures in a session, runs their warm-up requests,
batches by the rules of the batching session, and answers over gRPC, by the real stubs, and over HTTP. It is not TF
Serving: what the tests prove with it is that SavedModels and client keep to these rules.
"""

import base64
import collections
import concurrent.futures
import contextlib
import http.server
import json
import re
import threading

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc

Code = grpc.StatusCode
_HTTP = {
    Code.INVALID_ARGUMENT: 400,
    Code.NOT_FOUND: 404,
    Code.FAILED_PRECONDITION: 412,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}
_PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(:predict)?")


class Error(Exception):
    """A status other than OK."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Version:
    """A SavedModel that is loaded; `signatures` are those of its meta graph."""

    def __init__(self, folder):
        with tf.Graph().as_default():
            self._session = tf.compat.v1.Session()
            loaded = tf.compat.v1.saved_model.load(self._session, ["serve"], str(folder))
        self.signatures = {k: s for k, s in loaded.signature_def.items() if not k.startswith("__")}
        self._calls, self.warmed_up = {}, 0
        for name, signature in self.signatures.items():
            ends = {"feed": signature.inputs.values(), "fetch": signature.outputs.values()}
            options = config_pb2.CallableOptions(**{end: [tensor.name for tensor in ends[end]] for end in ends})
            self._calls[name] = self._session._make_callable_from_options(options)
        for record in tf.compat.v1.io.tf_record_iterator(str(folder / "assets.extra" / "tf_serving_warmup_requests")):
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            self.run(request.model_spec.signature_name, {k: tf.make_ndarray(v) for k, v in request.inputs.items()})
            self.warmed_up += 1

    def run(self, name, inputs):
        """dict of arrays → dict of arrays."""
        signature = self.signatures[name]
        try:
            values = self._calls[name](*(inputs[key] for key in signature.inputs))
        except tf.errors.OpError as error:
            code = next(code for code in Code if code.value[0] == error.error_code)
            raise Error(code, error.message) from error
        return dict(zip(signature.outputs, values))


class Batcher:
    """Requests of one signature that come within `wait` seconds share a run."""

    def __init__(self, run, size, wait, queued):
        self._run, self._size, self._wait, self._queued = run, size, wait, queued
        self._tasks, self._lock = [], threading.Condition()
        self.batches = []
        threading.Thread(target=self._work, daemon=True).start()

    def __call__(self, inputs):
        shapes = [np.shape(x) for x in inputs.values()]
        if not all(shapes):
            raise Error(Code.INVALID_ARGUMENT, "Batching session Run() input tensors must have at least one dimension")
        count = shapes[0][0]
        if count > self._size:
            message = f"Task size {count} is larger than maximum input batch size {self._size}"
            raise Error(Code.INVALID_ARGUMENT, message)
        answer = concurrent.futures.Future()
        with self._lock:
            if len(self._tasks) >= self._queued * self._size:
                message = "The batch scheduling queue to which this task was submitted is full"
                raise Error(Code.UNAVAILABLE, message)
            self._tasks.append((count, inputs, answer))
            self._lock.notify()
        return answer.result()

    def _work(self):
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._tasks)
                self._lock.wait_for(lambda: sum(task[0] for task in self._tasks) >= self._size, self._wait)
                batch, total = [], 0
                while self._tasks and total + self._tasks[0][0] <= self._size:
                    total += self._tasks[0][0]
                    batch.append(self._tasks.pop(0))
            self.batches.append([count for count, _, _ in batch])
            try:
                results = self._merged(batch, total)
            except Error as error:
                results = [error] * len(batch)
            for (_, _, answer), result in zip(batch, results):
                answer.set_exception(result) if isinstance(result, Error) else answer.set_result(result)

    def _merged(self, batch, total):
        merged = {}
        for name in batch[0][1]:
            parts = [inputs[name] for _, inputs, _ in batch]
            if len({part.shape[1:] for part in parts}) > 1:
                message = f"Tensors with name '{name}' from different tasks have different shapes and padding is off"
                raise Error(Code.FAILED_PRECONDITION, message)
            merged[name] = np.concatenate(parts)
        outputs = self._run(merged)
        if any(len(value) != total for value in outputs.values()):
            message = "Batched output tensor's 0th dimension does not equal the sum of those of the input tensors"
            raise Error(Code.FAILED_PRECONDITION, message)
        ends = np.cumsum([count for count, _, _ in batch])[:-1]
        parts = {name: np.split(value, ends) for name, value in outputs.items()}
        return [{name: value[i] for name, value in parts.items()} for i in range(len(batch))]


class Server:
    """Serves the versions of one model.

    Args:
        name: of the model.
        folder: path whose sub-folders of numbers are the versions.
        labels: dict of label → version.
        batching: arguments of `Batcher` without its `run`, or None: every request is run by itself.

    Attributes:
        rest, grpc: HOST:PORT.
        refuse: `Error`s that the next requests get in place of an answer.
        asked, answered: how many requests came, and how many of them were answered with translations.
    """

    def __init__(self, name, folder, labels=None, batching=None):
        self.name, self.labels, self.refuse, self.answered = name, labels or {}, collections.deque(), 0
        self.asked = 0
        self.versions = {int(p.name): Version(p) for p in folder.iterdir() if p.name.isdecimal()}
        self.runs = {
            (number, signature): self._runner(version, signature, batching)
            for number, version in self.versions.items()
            for signature in version.signatures
        }

    @staticmethod
    def _runner(version, signature, batching):
        run = lambda inputs: version.run(signature, inputs)  # noqa: E731
        return Batcher(run, **batching) if batching else run

    def version(self, name, version, label):
        """The number of the version that a request is about."""
        if name == self.name and label:
            version = self.labels.get(label)
        if name != self.name or version not in (*self.versions, 0, None) or label and not version:
            raise Error(Code.NOT_FOUND, f"Servable not found for request: {name} {label or version or 'latest'}")
        return version or max(self.versions)

    def predict(self, version, signature, inputs):
        """dict of arrays → dict of arrays."""
        if self.refuse:
            raise self.refuse.popleft()
        signature = signature or "serving_default"
        if signature not in self.versions[version].signatures:
            raise Error(Code.FAILED_PRECONDITION, f'Serving signature key "{signature}" not found.')
        expected = self.versions[version].signatures[signature].inputs.keys()
        if inputs.keys() != expected:
            message = (
                f"input size does not match signature: {len(inputs)}!={len(expected)}. Sent extra: "
                f"{sorted(inputs.keys() - expected)}. Missing but required: {sorted(expected - inputs.keys())}."
            )
            raise Error(Code.INVALID_ARGUMENT, message)
        outputs = self.runs[version, signature](inputs)
        self.answered += 1
        return outputs

    @contextlib.contextmanager
    def running(self):
        """While open, it answers."""
        rest = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Rest,), {"model": self}))
        rest.daemon_threads = True
        remote = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Grpc(self), remote)
        self.grpc = f"127.0.0.1:{remote.add_insecure_port('127.0.0.1:0')}"
        self.rest = f"127.0.0.1:{rest.server_address[1]}"
        remote.start()
        thread = threading.Thread(target=rest.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            remote.stop(0).wait()
            rest.shutdown()
            rest.server_close()
            thread.join()


class _Grpc(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, model):
        self.model = model

    def Predict(self, request, context):
        spec = request.model_spec
        try:
            version = self.model.version(spec.name, spec.version.value, spec.version_label)
            inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
            self.model.asked += 1
            outputs = self.model.predict(version, spec.signature_name, inputs)
        except Error as error:
            context.abort(error.code, str(error))
        response = predict_pb2.PredictResponse()
        response.model_spec.name, response.model_spec.version.value = spec.name, version
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


class _Rest(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept

    def do_GET(self):
        self._answer(self._status)

    def do_POST(self):
        self._answer(self._predict)

    def log_message(self, *_):
        pass

    def _answer(self, function):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            path = _PATH.fullmatch(self.path)
            if not path:
                raise Error(Code.INVALID_ARGUMENT, f"Malformed request: {self.command} {self.path}")
            name, version, label, _ = path.groups()
            status, answer = 200, function(self.model.version(name, int(version or 0), label), body)
        except Error as error:
            status, answer = _HTTP[error.code], {"error": str(error)}
        answer = json.dumps(answer).encode()
        with contextlib.suppress(ConnectionError):  # the client may have waited long enough
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    def _status(self, version, _):
        fine = {"error_code": "OK", "error_message": ""}
        return {"model_version_status": [{"version": str(version), "state": "AVAILABLE", "status": fine}]}

    def _predict(self, version, body):
        self.model.asked += 1
        try:
            request = json.loads(body)
        except ValueError as error:
            raise Error(Code.INVALID_ARGUMENT, f"JSON Parse error: {error}") from error
        if ("instances" in request) == ("inputs" in request):
            raise Error(Code.INVALID_ARGUMENT, "Request must have one of 'instances' or 'inputs'")
        name = request.get("signature_name", "serving_default")
        signature = self.model.versions[version].signatures.get(name)
        if signature is None:
            raise Error(Code.INVALID_ARGUMENT, f'Serving signature name: "{name}" not found in signature def')
        rows = "instances" in request
        if rows and not request["instances"]:
            raise Error(Code.INVALID_ARGUMENT, "Request 'instances' must not be empty")
        outputs = self.model.predict(version, name, self._inputs(request, rows, signature.inputs))
        values = {key: _plain(value, key.endswith("_bytes")) for key, value in outputs.items()}
        if len(values) == 1:
            (values,) = values.values()
        elif rows:
            values = [dict(zip(values, row)) for row in zip(*values.values())]
        return {"predictions" if rows else "outputs": values}

    @staticmethod
    def _inputs(request, rows, tensors):
        given = request["instances"] if rows else request["inputs"]
        first = given[0] if rows else given
        if not isinstance(first, dict) or "b64" in first:  # without names, which a signature of one input allows
            if len(tensors) > 1:
                raise Error(Code.INVALID_ARGUMENT, "the signature has several inputs: name them")
            given = dict.fromkeys(tensors, given)
        elif rows:
            for name in first:
                if name not in tensors:
                    raise Error(Code.INVALID_ARGUMENT, f"JSON object: does not have named input: {name}")
            if first.keys() != tensors.keys():
                names = ",".join(sorted(tensors))
                raise Error(Code.INVALID_ARGUMENT, f"JSON object: keys must be equal to: {names}")
            given = {name: [row[name] for row in given] for name in first}
        return {
            k: np.array(_bytes(v), tf.DType(tensors[k].dtype).as_numpy_dtype) for k, v in given.items() if k in tensors
        }


def _bytes(value):
    """JSON with bytes in place of texts and of objects of b64."""
    if isinstance(value, list):
        return [_bytes(v) for v in value]
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return value.encode() if isinstance(value, str) else value


def _plain(value, is_bytes):
    """An array as JSON."""
    if value.dtype != object:
        return value.tolist()
    return [{"b64": base64.b64encode(v).decode()} if is_bytes else v.decode() for v in value]
