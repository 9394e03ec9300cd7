"""Translates any number of pictures by an exported SavedModel, as a pipeline of Apache Beam.

  python translate.py --input='photos/**' --saved_model=exported/1 --output=translated

Names and sub-folders are kept, and every result is a .png. Pictures whose results are there already are left out, so
that the same command goes on after any end. Pictures that cannot be translated are listed in OUTPUT/failed.txt, and the
exit status is then 1. Options that are not of this program are Beam's, such as --runner.

A model that gives many translations of one picture, such as MUNIT, takes a style: --style_seed draws one for each
picture, by default with seed 0; --reference takes that of a picture; and --style_vector says it in numbers.

It needs Apache Beam and TensorFlow, and nothing else of tfi2i: workers load the SavedModel, one copy in each process.
"""

import argparse
import math
import os
import sys
import zlib

import apache_beam as beam
from apache_beam.io import fileio, filesystems
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions

PICTURES = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png")
# Bytes, so that large files do not come in large batches.
_BATCH_BYTES = 32 << 20


class Translator(ModelHandler):
    """A SavedModel: (name of a file, the file) in; (PNG file, error) out, where one of both is empty.

    Args:
        saved_model: path of a SavedModel of `tfi2i export`.
        batch_size: pictures at once, at most.
        style: of a model that takes a style, what says it: int, the seed of styles that are drawn by the files' names;
            bytes, a picture file that shows the style of all; or list of floats, the style of all. None: it takes none.
    """

    def __init__(self, saved_model, batch_size, style=None):
        super().__init__(min_batch_size=1, max_batch_size=batch_size)
        self.saved_model = saved_model
        self.style = style

    def load_model(self):
        import tensorflow as tf

        return tf.saved_model.load(self.saved_model)

    def run_inference(self, batch, model, inference_args=None):
        batch, start = list(batch), 0
        while start < len(batch):
            end, size = start + 1, len(batch[start][1])
            while end < len(batch) and size + len(batch[end][1]) <= _BATCH_BYTES:
                size += len(batch[end][1])
                end += 1
            answer = self._ask(model.signatures, *zip(*batch[start:end]))
            yield from zip(answer["image_bytes"].numpy(), (error.decode() for error in answer["errors"].numpy()))
            start = end

    def _ask(self, signatures, names, pictures):
        import tensorflow as tf

        given = {"image_bytes": tf.constant(pictures)}
        if isinstance(self.style, bytes):
            references = tf.constant([self.style] * len(pictures))
            return signatures["reference_bytes"](reference_bytes=references, **given)
        translate = signatures["image_bytes"]
        if isinstance(self.style, int):
            given["style"] = drawn_styles(self.style, names, translate.structured_input_signature[1]["style"].shape[1])
        elif self.style is not None:
            given["style"] = tf.constant([self.style], tf.float32)
        return translate(**given)

    def get_metrics_namespace(self):
        return "translate"


class Write(beam.DoFn):
    """((picture, target), (PNG file, error)) → "picture: error" of what failed; a file appears whole."""

    def process(self, element):
        (picture, target), (png, error) = element
        if error:
            Metrics.counter("translate", "failed").inc()
            yield f"{picture}: {error}"
            return
        folder, name = filesystems.FileSystems.split(target)
        if not filesystems.FileSystems.exists(folder):
            try:
                filesystems.FileSystems.mkdirs(folder)
            except OSError:  # another worker was first
                pass
        partial = filesystems.FileSystems.join(folder, f".{name}.{os.getpid()}.tmp")
        with filesystems.FileSystems.create(partial, "application/octet-stream") as file:
            file.write(png)
        filesystems.FileSystems.rename([partial], [target])
        Metrics.counter("translate", "written").inc()


def drawn_styles(seed, names, size):
    """Styles from N(0, 1), float32 [N, size], each by the seed and a file's name: those of `tfi2i translate`."""
    import tensorflow as tf

    fold_in = tf.random.experimental.stateless_fold_in
    base = fold_in(tf.constant([seed & 0x7FFFFFFF, zlib.crc32(b"style") & 0x7FFFFFFF]), 0)
    seeds = [fold_in(base, zlib.crc32(name.encode()) & 0x7FFFFFFF) for name in names]
    return tf.stack([tf.random.stateless_normal((size,), s) for s in seeds])


def style_size(saved_model):
    """How many numbers the style of a SavedModel has, or None where it takes none; it is not loaded for that.

    Raises:
        ValueError: there is no SavedModel, or one that translates no files.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    path = filesystems.FileSystems.join(saved_model, "saved_model.pb")
    try:
        with filesystems.FileSystems.open(path) as file:
            graph = saved_model_pb2.SavedModel.FromString(file.read()).meta_graphs[0]
    except (OSError, filesystems.BeamIOError) as error:
        raise ValueError(f"{path} cannot be read: give the folder of a version, such as exported/1") from error
    if "image_bytes" not in graph.signature_def:
        raise ValueError(f"{saved_model} translates no files: it has no signature image_bytes")
    inputs = graph.signature_def["image_bytes"].inputs
    return inputs["style"].tensor_shape.dim[1].size if "style" in inputs else None


def read_style(values):
    """What `Translator` takes as the style, of the options; raises ValueError: they do not fit the SavedModel."""
    size = style_size(values.saved_model)
    given = [o for o in ("style_seed", "reference", "style_vector") if getattr(values, o) is not None]
    if size is None and given:
        raise ValueError(f"--{given[0]}: {values.saved_model} takes no style: leave it out")
    if values.reference is not None:
        try:
            with filesystems.FileSystems.open(values.reference) as file:
                return file.read()
        except (OSError, filesystems.BeamIOError) as error:
            raise ValueError(f"--reference={values.reference} cannot be read") from error
    if values.style_vector is None:
        return None if size is None else values.style_seed or 0
    try:
        style = [float(number) for number in values.style_vector.split(",")]
    except ValueError:
        style = []
    if len(style) != size or not all(map(math.isfinite, style)):
        raise ValueError(f"--style_vector={values.style_vector}: expected {size} numbers with commas between")
    return style


def root_of(pattern):
    """The folder that names are relative to: the part of a pattern before its first wildcard."""
    start = pattern[: min((pattern.find(c) for c in "*?[" if c in pattern), default=len(pattern))]
    return start.rpartition("/")[0]


def target_of(path, root, output):
    """Where the translation of a picture goes. Its extension stays before the .png: x.jpg and x.bmp are two results."""
    name = path[len(root) :].lstrip("/")
    return filesystems.FileSystems.join(output, name if name.lower().endswith(".png") else f"{name}.png")


def run(arguments):
    """Runs the pipeline.

    Args:
        arguments: those of the command line.

    Returns:
        dict of "written" and "failed" → how many pictures.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, help="pattern of files, in quotes; ** stands for sub-folders")
    parser.add_argument("--saved_model", required=True, help="path of a SavedModel, such as exported/1")
    parser.add_argument("--output", required=True, help="folder for the results")
    parser.add_argument("--batch_size", type=int, default=16, help="pictures at once, at most")
    styles = parser.add_mutually_exclusive_group()
    styles.add_argument(
        "--style_seed", type=int, help="seed of a style for each picture, drawn by its name (default: 0)"
    )
    styles.add_argument("--reference", help="a picture of the domain translated to, whose style all translations take")
    styles.add_argument("--style_vector", help="numbers with commas between, the style of all translations")
    values, options = parser.parse_known_args(arguments)
    try:
        style = read_style(values)
    except ValueError as error:
        parser.error(str(error))
    root = root_of(values.input)

    def is_todo(metadata):
        if not metadata.path.lower().endswith(PICTURES):
            return False
        return not filesystems.FileSystems.exists(target_of(metadata.path, root, values.output))

    def to_element(file):
        path = file.metadata.path
        name = filesystems.FileSystems.split(path)[1]
        return (path, target_of(path, root, values.output)), (name, file.read())

    pipeline = beam.Pipeline(options=PipelineOptions(options, save_main_session=True))
    failed = (
        pipeline
        | fileio.MatchFiles(values.input)
        | beam.Filter(is_todo)
        | beam.Reshuffle()  # spread over all workers
        | fileio.ReadMatches()
        | beam.Map(to_element)
        | RunInference(KeyedModelHandler(Translator(values.saved_model, values.batch_size, style)))
        | beam.ParDo(Write())
    )
    failed | beam.io.WriteToText(filesystems.FileSystems.join(values.output, "failed"), ".txt", shard_name_template="")
    result = pipeline.run()
    result.wait_until_finish()
    counters = {counter.key.metric.name: counter.committed for counter in result.metrics().query()["counters"]}
    return {name: counters.get(name, 0) for name in ("written", "failed")}


if __name__ == "__main__":
    counts = run(sys.argv[1:])
    print(f"{counts['written']} pictures written, {counts['failed']} failed")
    sys.exit(1 if counts["failed"] else 0)
