"""Is a file the model? Runs written files against the Keras model on held-out images.

The figure is the PSNR of the squared error pooled over all images, peak 255: a mean of decibels per
image would hide the bad ones. A file with float output is compared before rounding. One with uint8
output is compared after rounding, on both sides; as rounding alone turns an error of a hundredth of
a level into a whole one now and then, such a LiteRT file is also judged before rounding, on the
graph it was made of (`litert.with_pixels` adds only its two ends).
"""

import json
import subprocess
import sys
import time

import numpy as np

from tfi2i import machine
from tfi2i.files import reason
from tfi2i.metrics.faithfulness import decibels

# What two roundings of a nearly equal value leave: no floor above it can be asked of uint8 output.
ROUNDING = 59.0
# The same of one image. Every value of a flat one may lie halfway between two levels, and be rounded up on one side and
# down on the other: one level everywhere is 48.1 dB.
ROUNDING_OF_ONE = 48.0


class Score:
    """Adds up how far outputs are from the reference."""

    def __init__(self):
        self.images, self.squares, self.values, self.off = 0, 0.0, 0, 0
        self.worst = (-1.0, None)

    def add(self, name, reference, output):
        """Compares one image.

        Args:
            name: of the image.
            reference: float32 pixels, 0 to 255, not rounded.
            output: uint8, or float32 on the same scale.
        """
        if output.dtype == np.uint8:
            reference = np.rint(np.clip(reference, 0, 255))
        error = output.astype(np.float64) - reference
        mean = float(np.mean(error**2))
        self.images += 1
        self.squares += mean * error.size
        self.values += error.size
        # Not a number counts as off and as worst.
        self.off += int(np.sum(~(np.abs(error) <= 1)))
        badness = np.inf if np.isnan(mean) else mean
        if badness > self.worst[0]:
            self.worst = (badness, name)

    @property
    def psnr(self):
        """Pooled PSNR in dB; infinite for equal images."""
        return float(decibels(self.squares / self.values))

    @property
    def worst_psnr(self):
        """PSNR in dB of the worst image."""
        return float(decibels(self.worst[0]))

    def summary(self):
        return {
            "psnr": _number(self.psnr),
            "exact": self.squares == 0,
            "worst": {"psnr": _number(self.worst_psnr), "image": self.worst[1]},
            "off_by_more_than_one_level": self.off / self.values,
        }


class LiteRT:
    """A LiteRT file, ready to run.

    Args:
        file: path, or bytes.
        threads: that it may use.
    """

    def __init__(self, file, threads=None):
        from ai_edge_litert import interpreter

        source = {"model_content": file} if isinstance(file, bytes) else {"model_path": str(file)}
        self._interpreter = interpreter.Interpreter(**source, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._runner = self._interpreter.get_signature_runner()
        inputs = self._runner.get_input_details()
        self.input, self.style = inputs["images"], inputs.get("style")
        (self.output,) = self._runner.get_output_details().values()

    def __call__(self, pixels, style=None):
        """Runs the file.

        Args:
            pixels: uint8 [1, H, W, C].
            style: float32 [1, style_size], where the file takes one.

        Returns:
            the file's output [1, H, W, C'], as uint8, or as float32 levels.
        """
        given = {"images": _as_input(pixels, self.input)}
        if style is not None:
            given["style"] = _as_input(style, self.style)
        output = self._runner(**given)["images"]
        if self.rounds:
            return output if output.dtype == np.uint8 else (output.astype(np.int16) + 128).astype(np.uint8)
        return output.astype(np.float32) * np.float32(self.output["quantization"][0] or 1)

    @property
    def rounds(self):
        """Whether it gives whole levels, as uint8 or, less 128, as int8."""
        return self.output["dtype"] in (np.uint8, np.int8)

    def ends(self):
        """What the file takes and gives: dict of "input", "output" and, where it takes one, "style" → dtype, and scale
        and zero point of integers."""
        described = {}
        for end, details in (("input", self.input), ("output", self.output), ("style", self.style)):
            if details is None:
                continue
            scale, zero = details["quantization"]
            described[end] = {
                "dtype": np.dtype(details["dtype"]).name,
                "quantization": {"scale": float(scale), "zero_point": int(zero)} if scale else None,
            }
        return described

    @property
    def partitions(self):
        """Parts of the graph that the CPU delegate (XNNPACK) runs; 1 is best, 0 is none."""
        return sum(o["op_name"] == "DELEGATE" for o in self._interpreter._get_ops_details())


def signature_runner(file, threads=None):
    """What runs the one signature of a LiteRT file: takes and gives arrays by their names.

    Args:
        file: path.
        threads: that it may use.
    """
    from ai_edge_litert import interpreter

    return interpreter.Interpreter(model_path=str(file), num_threads=threads).get_signature_runner()


class Compiled:
    """A LiteRT file, ready to run by `CompiledModel`, the newer API, on the CPU.

    Args:
        file: path.
        threads: that it may use.

    Raises:
        RuntimeError: LiteRT cannot load the file so.
    """

    def __init__(self, file, threads):
        from ai_edge_litert import compiled_model

        options = compiled_model.Options(cpu_options=compiled_model.CpuOptions(num_threads=threads))
        self._model = compiled_model.CompiledModel.from_file(str(file), options=options)
        self._inputs, self._outputs = self._model.create_input_buffers(0), self._model.create_output_buffers(0)
        self._input, self._output = (ends[0].get_tensor_details() for ends in (self._inputs, self._outputs))

    def __call__(self, pixels, *style):
        """uint8 [1, H, W, C], and float32 [1, style_size] → the file's output [1, H, W, C'], uint8 or float32."""
        self._inputs[0].write(pixels.astype(self._input["dtype"]))
        for buffer, values in zip(self._inputs[1:], style):
            buffer.write(values)
        self._model.run_by_index(0, self._inputs, self._outputs)
        shape = self._output["shape"]
        return self._outputs[0].read(int(np.prod(shape)), np.dtype(self._output["dtype"])).reshape(shape)

    @property
    def fully_accelerated(self):
        """Whether the CPU delegate runs all operations, by LiteRT's own word."""
        return self._model.is_fully_accelerated()


def _as_input(x, details):
    """Numbers as an input of a file takes them; integers by its scale, cut off where they end."""
    (scale, zero), dtype = details["quantization"], details["dtype"]
    if dtype in (np.int8, np.int16):
        x = np.clip(np.rint(x / scale) + zero, np.iinfo(dtype).min, np.iinfo(dtype).max)
    return x.astype(dtype)


def compare(reference, candidates, images, keep=()):
    """Runs everything on every image.

    Args:
        reference: function of uint8 [1, H, W, C] to float32 pixels; where the method takes a style, also of float32
            [1, style_size].
        candidates: dict of name → function of these to uint8 or float32 pixels.
        images: iterable of (name, uint8 [H, W, C]) or (name, uint8 [H, W, C], float32 [style_size]).
        keep: positions of images whose outputs are returned too.

    Returns:
        (dict of name → `Score`, list of dicts of input, reference and outputs as uint8).
    """
    scores = {name: Score() for name in candidates}
    kept = []
    for i, (name, image, *style) in enumerate(images):
        inputs = [x[None] for x in (image, *style)]
        expected = reference(*inputs)
        outputs = {kind: run(*inputs) for kind, run in candidates.items()}
        for kind, output in outputs.items():
            scores[kind].add(name, expected, output)
        if i in keep:
            pictures = {"input": image, "Keras": expected[0]}
            pictures |= {kind: output[0] for kind, output in outputs.items()}
            kept.append({k: _rounded(v) for k, v in pictures.items()})
    return scores, kept


def latencies(candidates, image, *style, seconds=1.0):
    """Milliseconds per image; candidates take turns.

    On a busy machine more time passes, and in a long run more than in a short one. Candidates are therefore compared by
    processor time, of all threads together, which other programs hardly change.

    Args:
        candidates: dict of name → function as in `compare`.
        image: uint8 [H, W, C].
        *style: float32 [style_size], where the method takes one.
        seconds: to spend on each, about; at least 5 runs.

    Returns:
        dict of name → dict of "latency_ms", the median of the time that passes, and "processor_ms", the mean of the
        processor time.
    """
    times, inputs = {name: [] for name in candidates}, [x[None] for x in (image, *style)]
    for run in candidates.values():
        run(*inputs)
    end = time.perf_counter() + seconds * len(candidates)
    while min(map(len, times.values())) < 5 or time.perf_counter() < end:
        for name, run in candidates.items():
            start = time.perf_counter(), time.process_time()
            run(*inputs)
            times[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    found = {}
    for name, measured in times.items():
        passed, processor = 1e3 * np.transpose(measured)
        found[name] = {"latency_ms": float(np.median(passed)), "processor_ms": float(np.mean(processor))}
    return found


def alone(path, threads, seconds=0.5):
    """Measures a LiteRT file in a process of its own: the memory that it needs, and the `CompiledModel` API.

    That API is not loaded here, because it may end the process with what it cannot run, and lists on stderr every
    accelerator that it looks for.

    Args:
        path: of the file.
        threads: that it may use.
        seconds: as in `latencies`.

    Returns:
        dict of "peak_memory_mib": MiB that a process needs more once the interpreter has loaded and run the file, None
        where it cannot; "compiled_model": dict of "latency_ms" and "processor_ms" as in `latencies`, "processor_ratio",
        the latter to the interpreter's, which takes turns with it, and "fully_accelerated", whether the CPU delegate
        runs all operations by LiteRT's own word; or of "skipped", the reason.
    """
    program = "import sys; from tfi2i.export import verify; verify._measure(*sys.argv[1:])"
    command = [sys.executable, "-c", program, str(path), str(threads), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    ended = {"skipped": f"the process that ran the file ended with status {done.returncode}"}
    found = {"peak_memory_mib": None, "compiled_model": ended}
    for line in done.stdout.splitlines():
        found |= json.loads(line)
    return found


def _measure(path, threads, seconds):
    """Prints what `alone` finds, a part a line: whatever is known when the process ends is known."""
    import ai_edge_litert.interpreter  # noqa: F401, the library's own memory is no file's

    before = machine.peak_resident()
    interpreter = LiteRT(path, int(threads))
    inputs = [np.zeros(interpreter.input["shape"][1:], np.uint8)]
    if interpreter.style is not None:
        inputs.append(np.zeros(interpreter.style["shape"][1:], np.float32))
    interpreter(*(x[None] for x in inputs))
    print(json.dumps({"peak_memory_mib": (machine.peak_resident() - before) / 2**20}), flush=True)
    try:
        compiled = Compiled(path, int(threads))
    except RuntimeError as error:
        found = {"skipped": reason(error)}
    else:
        times = latencies({"interpreter": interpreter, "compiled": compiled}, *inputs, seconds=float(seconds))
        ratio = times["compiled"]["processor_ms"] / times["interpreter"]["processor_ms"]
        found = times["compiled"] | {"processor_ratio": ratio, "fully_accelerated": compiled.fully_accelerated}
    print(json.dumps({"compiled_model": found}), flush=True)


def threads():
    """Threads that LiteRT is measured with."""
    return min(4, machine.cores())


def saved_model_faults(loaded, reference, image, encode, style=None, encode_style=None):
    """Checks a loaded SavedModel beyond its figure: batches, an odd size, files of mixed sizes and a broken one.

    Args:
        loaded: of `tf.saved_model.load`.
        reference: function as in `compare`.
        image: uint8 [H, W, C].
        encode: function of uint8 [H, W, C] to the bytes of a PNG.
        style: float32 [style_size], where the method takes one.
        encode_style: function of uint8 [H, W, C'] to its style, where the method takes a reference.

    Returns:
        list of sentences, empty when all is well.
    """
    import tensorflow as tf

    from tfi2i.data import images

    serve, files = (loaded.signatures[s] for s in ("serving_default", "image_bytes"))
    faults = []

    def styles(count):
        """The style, its negative and so on: others that belong to their pictures alone."""
        return None if style is None else np.stack([style * (-1) ** i for i in range(count)])

    def named(rows):
        return {} if rows is None else {"style": tf.constant(rows)}

    def expect(x, row):
        return reference(x[None]) if row is None else reference(x[None], row[None])

    odd = np.ascontiguousarray(image[: image.shape[0] - 3, : image.shape[1] - 1])
    for what, batch in (("an odd size", odd[None]), ("a batch", np.stack([image, image[::-1]]))):
        rows = styles(len(batch))
        output = serve(images=tf.constant(batch), **named(rows))["images"].numpy()
        score = Score()
        for i, (x, y) in enumerate(zip(batch, output)):
            score.add(what, expect(x, None if rows is None else rows[i]), y[None])
        if output.shape[:3] != batch.shape[:3] or not score.psnr >= ROUNDING:
            seen = f"{output.shape}, {score.psnr:.1f} dB"
            faults.append(f"serving_default on {what} {batch.shape} gives {seen}")
    three = tf.constant([encode(image), b"no picture", encode(odd)])
    answers = {"image_bytes": (files(image_bytes=three, **named(styles(3))), styles(3))}
    if encode_style:
        # What is made of a picture is a picture of the domain that references are of.
        shown = serve(images=tf.constant(image[None]), **named(styles(1)))["images"].numpy()[0]
        by_reference = loaded.signatures["reference_bytes"]
        same = tf.constant([encode(shown)] * 3)
        answers["reference_bytes"] = by_reference(image_bytes=three, reference_bytes=same), [encode_style(shown)] * 3
    for signature, (answer, rows) in answers.items():
        (first, broken, last), errors = answer["image_bytes"].numpy(), answer["errors"].numpy()
        if broken or [bool(error) for error in errors] != [False, True, False]:
            faults.append(f"{signature} on a broken file between two good ones gives the errors {errors.tolist()}")
            continue
        for pixels, png, i in ((image, first, 0), (odd, last, 2)):
            # Two graphs of the same networks: values halfway between two levels can be rounded up in one only.
            row = named(None if rows is None else rows[i][None])
            expected = serve(images=tf.constant(pixels[None]), **row)["images"].numpy()[0]
            output, score = images.read_image(png), Score()
            if output.shape == expected.shape:
                score.add("a file", expected, output)
            if output.shape != expected.shape or not score.psnr >= ROUNDING:
                faults.append(f"{signature} and serving_default differ on {pixels.shape}")
    return faults


def floor_faults(kind, score, before_rounding, floors):
    """What is wrong with a file that does not reach its floors: a list of sentences, empty if it does.

    Args:
        kind: one of the formats.
        score: of the written file.
        before_rounding: of its graph, for a LiteRT file with uint8 output, else None.
        floors: dB for all images pooled, dB for the worst image.
    """
    stages = [("", score, floors)]
    if before_rounding is not None:
        capped = map(min, floors, (ROUNDING, ROUNDING_OF_ONE))
        stages = [(" before rounding", before_rounding, floors), (" after rounding", score, capped)]
    faults = []
    for when, measured, (pooled, worst) in stages:
        of_worst = f" in the worst image, {measured.worst[1]}"
        for of, value, least in (("", measured.psnr, pooled), (of_worst, measured.worst_psnr, worst)):
            if not value >= least:
                faults.append(f"{kind}: {value:.1f} dB{when}{of}, the floor is {least:g} dB")
    return faults


def _rounded(pixels):
    return np.rint(np.clip(np.nan_to_num(pixels), 0, 255)).astype(np.uint8)


def _number(value):
    """For JSON, which knows neither infinity nor NaN."""
    return value if np.isfinite(value) else None
