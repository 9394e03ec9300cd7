"""Translates a folder of pictures by a server: TF Serving with a SavedModel of `tfi2i export`.

  python -m tfi2i.export.client --server=localhost:8501 --model=translator --input=photos --output=translated
  python -m tfi2i.export.client --server=localhost:8500 --api=grpc --model=translator --input=photos --output=translated

Names and sub-folders are kept, and every result is a .png. Pictures whose results are there already are left out, so
that the same command goes on after any end. A picture that the server cannot translate is reported, the others are
translated, and the exit status is 1. Requests are repeated, with growing pauses, where the server is not there or has
too much to do. With --api=rest no TensorFlow is loaded.

A model that gives many translations of one picture takes the style of a picture, --reference=picture.png, or numbers,
--style_vector=0.3,-1.2,…; every translation has that style.
"""

import base64
import collections
import concurrent.futures
import http.client
import itertools
import json
import os
import pathlib
import random
import re
import sys
import threading
import time
import urllib.parse

from absl import flags

from tfi2i import command, files, machine
from tfi2i.config import UserError, local_path
from tfi2i.data import images
from tfi2i.progress import Progress

# Seconds of the pause before the first repetition, and the longest one.
_PAUSE, _LONGEST_PAUSE = 0.5, 8.0
# What TF Serving says, over HTTP and gRPC, of a signature that is not there or that has other inputs.
_OTHER_SIGNATURE = re.compile(
    "Serving signature|does not match signature|does not have named input|keys must be equal to"
)


class Unavailable(Exception):
    """The server is not there, or has too much to do: the same request may succeed later."""


class Refused(Exception):
    """The server will not answer this request, however often it is sent."""


class Unusable(Exception):
    """No request to this server can succeed: it lacks the model, or the model is no export of this package."""


class Rest:
    """Requests over HTTP.

    Args:
        server: HOST:PORT.
        model: name of the model.
        version: number of its version, or None: the newest.
        label: of its version, or None.
        deadline: seconds without a byte from the server after which a request has failed.
        style: list of floats, the style of all translations; or bytes, a picture file that shows it. None: the model
            takes no style.
    """

    def __init__(self, server, model, version=None, label=None, deadline=60.0, style=None):
        self.server, self.deadline = server, deadline
        self._signature, self._style_input = _signature_of(style)
        self._style = {"b64": base64.b64encode(style).decode()} if isinstance(style, bytes) else style
        chosen = f"/versions/{version}" if version else f"/labels/{urllib.parse.quote(label)}" if label else ""
        self._path = f"/v1/models/{urllib.parse.quote(model)}{chosen}:predict"
        self._of_thread = threading.local()

    def __call__(self, pictures):
        """Translates encoded pictures.

        Args:
            pictures: list of bytes, the files.

        Returns:
            list of (bytes of a PNG, error), where one of both is empty.

        Raises:
            Unavailable, Refused, Unusable: there is no answer.
        """
        instances = [{"image_bytes": {"b64": base64.b64encode(picture).decode()}} for picture in pictures]
        if self._style_input:
            instances = [instance | {self._style_input: self._style} for instance in instances]
        status, answer = self._post(json.dumps({"signature_name": self._signature, "instances": instances}))
        if status != 200:
            raise _failure(_by_status(status), f"HTTP status {status}: {_message(answer)}", self._style)
        try:
            predictions = json.loads(answer)["predictions"]
            return [(base64.b64decode(p["image_bytes"]["b64"]), p["errors"]) for p in predictions]
        except (ValueError, KeyError, TypeError) as error:
            raise Unusable(f"the answer has no image_bytes and errors, as models of tfi2i export give them: {error!r}")

    def _post(self, body):
        """Status and content of the answer. Every thread keeps its connection."""
        connection = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self.server, timeout=self.deadline)
            self._of_thread.connection = connection
        try:
            connection.request("POST", self._path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except TimeoutError as error:
            connection.close()
            raise Refused(_too_late(self.deadline)) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unavailable(files.reason(error)) from error


class Grpc:
    """Requests over gRPC; arguments and calls are those of `Rest`, and `deadline` is for the whole request.

    Raises:
        UserError: tensorflow-serving-api is not installed.
    """

    def __init__(self, server, model, version=None, label=None, deadline=60.0, style=None):
        machine.import_tensorflow()  # which the messages are part of
        try:
            import grpc
            from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
        except ImportError as error:
            raise UserError("--api=grpc needs 'pip install tfi2i[serving]'; --api=rest does not") from error
        self.server, self.deadline, self._grpc = server, deadline, grpc
        unlimited = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server, unlimited))
        self._style, (signature, self._style_input) = style, _signature_of(style)
        self._request = predict_pb2.PredictRequest()
        self._request.model_spec.name, self._request.model_spec.signature_name = model, signature
        if version:
            self._request.model_spec.version.value = version
        elif label:
            self._request.model_spec.version_label = label

    def __call__(self, pictures):
        request = type(self._request)()
        request.CopyFrom(self._request)
        self._put_files(request, "image_bytes", pictures)
        if isinstance(self._style, bytes):
            self._put_files(request, self._style_input, [self._style] * len(pictures))
        elif self._style_input:
            tensor = request.inputs[self._style_input]
            tensor.dtype = 1  # DT_FLOAT
            tensor.tensor_shape.dim.add(size=len(pictures))
            tensor.tensor_shape.dim.add(size=len(self._style))
            tensor.float_val.extend(self._style * len(pictures))
        try:
            outputs = self._stub.Predict(request, timeout=self.deadline).outputs
        except self._grpc.RpcError as error:
            code = error.code()
            if code is self._grpc.StatusCode.DEADLINE_EXCEEDED:
                raise Refused(_too_late(self.deadline)) from error
            kinds = {self._grpc.StatusCode.UNAVAILABLE: Unavailable}
            kinds |= dict.fromkeys((self._grpc.StatusCode.NOT_FOUND, self._grpc.StatusCode.UNIMPLEMENTED), Unusable)
            raise _failure(kinds.get(code, Refused), f"{code.name}: {error.details()}", self._style) from error
        if not {"image_bytes", "errors"} <= outputs.keys():
            raise Unusable("the answer has no image_bytes and errors, as models of tfi2i export give them")
        errors = [error.decode() for error in outputs["errors"].string_val]
        return list(zip(outputs["image_bytes"].string_val, errors, strict=True))

    @staticmethod
    def _put_files(request, name, contents):
        """Makes the list of bytes an input of the request."""
        tensor = request.inputs[name]
        tensor.dtype = 7  # DT_STRING
        tensor.tensor_shape.dim.add(size=len(contents))
        tensor.string_val.extend(contents)


def _signature_of(style):
    """(name of the signature that translates files with such a style, name of the input that takes the style)."""
    if style is None:
        return "image_bytes", None
    return ("reference_bytes", "reference_bytes") if isinstance(style, bytes) else ("image_bytes", "style")


def _failure(kind, message, style):
    """The exception of this kind; no picture can be translated where the model takes a style and none is given."""
    if not _OTHER_SIGNATURE.search(message):
        return kind(message)
    if style is None:
        return Unusable(f"the model takes a style: give --style_vector or --reference ({message})")
    return Unusable(f"the model takes no style: leave --style_vector and --reference out ({message})")


def _by_status(status):
    """The exception for an HTTP status: what TF Serving's UNAVAILABLE becomes, and what proxies before it say."""
    return {404: Unusable, 429: Unavailable, 502: Unavailable, 503: Unavailable}.get(status, Refused)


def _message(answer):
    """The sentence in an error that TF Serving gives, or the beginning of whatever else there is."""
    try:
        return json.loads(answer)["error"]
    except (ValueError, KeyError, TypeError):
        return answer[:200].decode(errors="replace")


def _too_late(deadline):
    return f"no answer within {deadline:g} s: raise --deadline, or lower --parallel or --batch_size"


def with_repetitions(send, pictures, retries, sleep=time.sleep):
    """Sends a request until it is answered, with growing pauses, if the server is not there or has too much to do.

    Args:
        send: `Rest` or `Grpc`.
        pictures: list of bytes.
        retries: how often it is sent again.
        sleep: function of seconds.

    Returns, raises:
        as `Rest.__call__`; `Unavailable` after the last repetition.
    """
    for repetition in itertools.count():
        try:
            return send(pictures)
        except Unavailable:
            if repetition == retries:
                raise
            # Not all clients at once, where a server comes back.
            sleep(random.uniform(0.5, 1) * min(_PAUSE * 2**repetition, _LONGEST_PAUSE))


def plan(input, output):
    """Which picture becomes which file.

    Args:
        input: path of a file or folder, or a pattern.
        output: path of a folder.

    Returns:
        dict of input path → output path. Pictures that differ by their extension only keep it before the .png.

    Raises:
        UserError: there are no pictures, or two results would have one name.
    """
    folder = pathlib.Path(output)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output={output} is a file: expected a folder")
    root = pathlib.Path(input).parent if os.path.isfile(input) else images.root(input)
    sources = [f for f in images.find_images(input) if folder.resolve() not in f.resolve().parents]
    if not sources:
        raise UserError(f"--input={input} has no images outside --output={output}")
    names = {source: source.relative_to(root) for source in sources}
    count = collections.Counter(name.with_suffix(".png") for name in names.values())
    targets, taken = {}, {}
    for source, name in names.items():
        alone = count[name.with_suffix(".png")] == 1
        target = folder / (name.with_suffix(".png") if alone else name.with_name(f"{name.name}.png"))
        if target in taken:
            raise UserError(f"the results of {taken[target]} and {source} would both be {target}: rename one of them")
        targets[source] = target
        taken[target] = source
    return targets


def translate_files(send, targets, batch_size=8, parallel=4, retries=5, sleep=time.sleep, active=True):
    """Translates picture files by a server.

    Args:
        send: `Rest` or `Grpc`.
        targets: dict of input path → output path, see `plan`.
        batch_size: pictures in a request.
        parallel: requests at the same time.
        retries, sleep: as of `with_repetitions`.
        active: False prints nothing.

    Returns:
        (list of paths written, list of (input path, reason) of pictures that were refused, and the reason why the work
        ended early: an empty text if it did not).
    """

    def translate(paths):
        """The (path, reason) of each picture; the reason is empty where the result was written."""
        contents, unread = {}, []
        for path in paths:
            try:
                contents[path] = path.read_bytes()
            except OSError as error:
                unread.append((path, f"cannot be read: {error.strerror}"))
        if not contents:
            return unread
        try:
            answers = with_repetitions(send, list(contents.values()), retries, sleep)
        except Refused as error:
            if len(contents) == 1:
                return [*unread, (*contents, str(error))]
            # It may be about one picture among them, or about all being too much.
            return [*unread, *itertools.chain.from_iterable(translate([path]) for path in contents)]
        results = []
        for path, (png, error) in zip(contents, answers, strict=True):
            if png:
                with files.whole(targets[path]) as partial:
                    partial.write_bytes(png)
            results.append((path, error or ("" if png else "the server gave an empty file")))
        return [*unread, *results]

    todo = iter(targets)
    batches = iter(lambda: list(itertools.islice(todo, batch_size)), [])
    progress = Progress(len(targets), "pictures", active=active)
    written, failed, ended = [], [], ""
    pool = concurrent.futures.ThreadPoolExecutor(parallel)
    try:
        running = {pool.submit(translate, batch) for batch in itertools.islice(batches, parallel)}
        while running:
            done, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                try:
                    results = future.result()
                except (Unavailable, Unusable) as error:
                    ended = ended or str(error)
                    continue
                for path, reason in results:
                    if reason:
                        failed.append((path, reason))
                        progress.note(f"failed: {path}: {reason}")
                    else:
                        written.append(targets[path])
                progress.update(len(written) + len(failed))
            if not ended:
                running |= {pool.submit(translate, batch) for batch in itertools.islice(batches, len(done))}
    finally:
        pool.shutdown(cancel_futures=True)
        progress.close()
    return written, failed, ended


def read_style(style, reference):
    """The style that `Rest` and `Grpc` take.

    Args:
        style: list of texts, the numbers of --style_vector, or None.
        reference: path of a picture, or None.

    Raises:
        UserError: both are given, the picture cannot be read, there is no number, or a text is none.
    """
    if style is not None and reference is not None:
        raise UserError("--reference and --style_vector both say what style to take: give one of them")
    if reference is not None:
        try:
            return pathlib.Path(local_path(reference, "reference")).read_bytes()
        except OSError as error:
            raise UserError(f"--reference={reference} cannot be read: {error.strerror}") from error
    if style is None:
        return None
    if not style:
        raise UserError("--style_vector= is empty: expected numbers with commas between, e.g. 0.3,-1.2")
    try:
        return [float(number) for number in style]
    except ValueError as error:
        raise UserError(
            f"--style_vector={','.join(style)}: expected numbers with commas between, e.g. 0.3,-1.2"
        ) from error


def define_flags(values):
    """Declares the flags of this command in `values`."""
    flags.DEFINE_string("server", None, "HOST:PORT of the server", required=True, flag_values=values)
    flags.DEFINE_enum(
        "api",
        "rest",
        ("rest", "grpc"),
        "rest: HTTP, TF Serving's port 8501; grpc: its port 8500, which sends a quarter less",
        flag_values=values,
    )
    flags.DEFINE_string("model", None, "name of the model on the server", required=True, flag_values=values)
    flags.DEFINE_integer(
        "model_version", None, "version of the model [the newest that is served]", lower_bound=1, flag_values=values
    )
    flags.DEFINE_string("version_label", None, "label of the version, such as canary", flag_values=values)
    flags.DEFINE_string(
        "input",
        None,
        "a picture, a folder with its sub-folders, or a pattern in quotes",
        required=True,
        flag_values=values,
    )
    flags.DEFINE_string("output", None, "folder for the results", required=True, flag_values=values)
    flags.DEFINE_string(
        "reference",
        None,
        "a picture of the domain translated to, whose style every translation takes; for models with a style",
        flag_values=values,
    )
    flags.DEFINE_list(
        "style_vector",
        None,
        "numbers, which are the style of every translation: as many as the model's style has",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "overwrite", False, "translate pictures again whose results are there already", flag_values=values
    )
    flags.DEFINE_integer("batch_size", 8, "pictures in a request", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("parallel", 4, "requests at the same time", lower_bound=1, flag_values=values)
    flags.DEFINE_float("deadline", 60.0, "seconds that a request may take", lower_bound=0.001, flag_values=values)
    flags.DEFINE_integer(
        "retries",
        5,
        "how often a request is sent again where the server is not there or has too much to do, after pauses of 0.5 to "
        "8 s",
        lower_bound=0,
        flag_values=values,
    )


def main(_):
    values = flags.FLAGS
    if not values.server.rpartition(":")[2].isdecimal():
        raise UserError(f"--server={values.server}: expected HOST:PORT, e.g. localhost:8501")
    if values.model_version and values.version_label:
        raise UserError("give --model_version or --version_label, not both")
    style = read_style(values.style_vector, values.reference)
    input, output = local_path(values.input, "input"), local_path(values.output, "output")
    targets = plan(input, output)
    files.check_writable(os.path.join(output, "x.png"), "output")
    todo = {source: target for source, target in targets.items() if values.overwrite or not target.exists()}
    there = len(targets) - len(todo)
    kind = Rest if values.api == "rest" else Grpc
    send = kind(values.server, values.model, values.model_version, values.version_label, values.deadline, style)
    written, failed, ended = translate_files(send, todo, values.batch_size, values.parallel, values.retries)
    print(
        f"translated {len(written)} of {len(todo)} pictures into {output}"
        + (f"; {there} were there already" if there else "")
    )
    if failed:
        print(f"error: {len(failed)} failed:", file=sys.stderr)
        for path, reason in failed:
            print(f"  {path}: {reason}", file=sys.stderr)
    left = len(todo) - len(written) - len(failed)
    if ended:
        print(
            f"error: {values.server} does not translate with the model {values.model}: {ended}. {left} pictures are "
            "left; the same command goes on with them",
            file=sys.stderr,
        )
    return command.FAILED if failed or ended else 0


def run():
    """Console entry point."""
    define_flags(flags.FLAGS)
    command.run(main)


if __name__ == "__main__":
    run()
