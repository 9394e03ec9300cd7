"""Writes the files, verifies them, and only then gives them their name."""

import contextlib
import dataclasses
import importlib.metadata
import inspect
import json
import logging
import os
import pathlib
import re
import shutil

import numpy as np
import tensorflow as tf

import tfi2i
from tfi2i import checkpoints, files, flops, machine
from tfi2i.config import Data, UserError, local_path, size_flag
from tfi2i.data import images, sources
from tfi2i.levels import to_levels
from tfi2i.progress import Progress
from tfi2i.translation import resolve_fit

from . import (
    FLOORS,
    FORMATS,
    SAMPLE,
    USUAL,
    litert,
    quantization,
    reporting,
    resolve_floors,
    samples,
    saved_model,
    serving,
    verify,
    web,
)

_PICTURES = 4
# Calibration images that convolutions are judged on, each alone.
_JUDGED = 4
# Least dB, pooled and of the worst image, of the float32 file after equalisation.
_EXACT = (90.0, 80.0)
# All that an export consists of.
_OWN = re.compile(
    rf"(\d+|web)(/.*)?|({'|'.join(FLOORS)})\.tflite|model\.json|report\.(json|png)|README\.md"
    r"|(models|batching|monitoring)\.config"
)
# What the folder of a version holds beside the SavedModel, so that it is known when a later one is at the root.
_OF_A_VERSION = ("model.json", "report.json", "report.png")
# What README.md and models.config call the model.
_SERVED_AS = "translator"
_MADE_WITH = ("tensorflow", "keras", "ai-edge-litert", "ai-edge-quantizer")


class FloorError(UserError):
    """A written file is not close enough to the model; `report` says how far each one is."""

    def __init__(self, message, report):
        super().__init__(message)
        self.report = report


def export(
    model,
    output,
    direction=None,
    formats=USUAL,
    size=None,
    fit=None,
    max_side=2048,
    model_version=None,
    io="uint8",
    data=None,
    calibration_images=100,
    norm_bits=8,
    verification_images=None,
    floors=None,
    overwrite=False,
    litert_js=None,
    log=print,
):
    """Exports one direction of a model and proves the files equal to it.

    OUTPUT/VERSION/ is the SavedModel, OUTPUT/KIND.tflite are the LiteRT files, README.md says which one to take and how
    to call it, model.json how to feed them, report.json and report.png how close they are. models.config,
    batching.config and monitoring.config are for TF Serving. OUTPUT/web is a page for browsers. All is written beside,
    and takes its place when every file has reached its floors. Otherwise the folder is kept as OUTPUT.failed, in place
    of an earlier failure.

    A SavedModel alone is added to an earlier export as a further version, which holds its own report; all else there
    stays as it is. With `overwrite`, the files beside the versions are replaced.

    Args:
        model: a built `Translator` that computes in float32, such as `tfi2i.load` returns, or a run directory.
        output: the folder to make.
        direction: "a2b" or "b2a"; None: the first of the model's. "sample": what draws pairs, of a method that has a
            `latent_size` and no other export, as `samples.write` describes. Arguments about pictures are refused then.
        formats: some of the `FORMATS`; `quantization.quantize` says what the LiteRT files are. "web" is a page around
            the files in `web.FILES`, which are then written too.
        size: N or (height, width) of the LiteRT files' images, and what "resize" resizes to; None: the
            only size that the networks take, or the crop that the model was trained on.
        fit: the SavedModel's rule for other sizes, "pad" or "resize"; None: by method. The rule is
            `tfi2i.translation.resolve_fit`.
        max_side: pixels; the SavedModel refuses encoded pictures with a longer side, which bounds its memory.
        model_version: number of the SavedModel's folder, 1 or more; None: the next one in `output`.
        io: type of the pixels that LiteRT files take and give: "uint8" or "float32", 0 to 255, or "int8", less 128.
            With "int8", int8_full has no conversion at its ends; nor has int16x8, whose ends are then int16. gpu always
            has float32.
        data: a folder, see `pictures`, or `config.Data`; None: what the model was trained on. Calibration
            takes training images, verification those for test, or else for validation.
        calibration_images: how many images set the scales of quantized files.
        norm_bits: 8 or 16, of the norms and additions of int8_full.
        verification_images: how many images to verify on; None: all.
        floors: dict of format → least PSNR in dB, over `FLOORS`: a number, or a pair for all images pooled and for
            the worst image, see `resolve_floors`.
        overwrite: replace the files of an earlier export in `output`, and its SavedModel of this version. Other
            versions, and what is not of an export, stay.
        litert_js: where the LiteRT.js of "web" is, see `web.read_litert_js`.
        log: function that is told, in lines of text, how far it is; `print` also shows bars.

    Returns:
        dict, the content of report.json.

    Raises:
        FloorError: a file is below its floor.
        UserError: an argument or the data cannot be used.
    """
    if isinstance(model, (str, os.PathLike)):
        model = checkpoints.load(model)
    floors = resolve_floors(floors or {})
    output = pathlib.Path(local_path(output, "output")).resolve()
    if model_version is None:
        model_version = max(serving.versions(output), default=0) + 1
    if direction is None and model.latent_size is not None:
        direction = SAMPLE
    samples.check_direction(model, direction)
    if direction == SAMPLE:
        of_pictures = {
            "size": size, "fit": fit, "max_side": max_side, "io": io, "data": data, "norm_bits": norm_bits,
            "calibration_images": calibration_images, "verification_images": verification_images,
            "litert_js": litert_js,
        }  # fmt: skip
        return _export_pairs(model, output, formats, model_version, floors, overwrite, log, of_pictures)
    run = getattr(model, "run", None)
    if run is not None:
        run.check_translates()
    direction = model.resolve_direction(direction)
    if isinstance(data, (str, os.PathLike)):
        if run is None:
            raise UserError("the model has no run that says how pictures are prepared: give data=config.Data(…)")
        data = pictures(run.data, str(data), direction)
    if data is None and run:
        data = run.data
        _check_found(data)
    size = tuple(size_flag(size) or model.sizes.fixed or (run and run.data.crop) or ())
    _check(model, formats, size, max_side, io, norm_bits, data)
    formats, page = web.resolve(model, formats, io, litert_js)
    fit, _ = resolve_fit(model, fit, size)
    if any(f != "saved_model" for f in formats) and not model.sizes.fit(*size):
        log(
            f"--size={size[0]},{size[1]}: the networks take multiples of {model.sizes.multiple} from "
            f"{model.sizes.minimum}, so the LiteRT files mirror the edges and cut them off again, by operations that "
            "the CPU delegate does not run"
        )
    if {*formats} & {*quantization.CALIBRATED}:
        sources.open_domain(data, direction[0].upper(), "train")  # an error now, not after the work
    held_out, split = _held_out(data, direction)
    chosen = _spread(len(held_out), verification_images)
    _, typical = next(_read(held_out, chosen, size, lambda _: None, "verification images"))
    writer = _Export(model, direction, size, fit, max_side, model_version, io, data, calibration_images, norm_bits, log)
    with _placed(output, formats, model_version, overwrite, page) as partial:
        graphs = writer.write(partial, formats)
        log(f"verifying on {len(chosen)} images, {split} split")
        report = writer.verify(partial, formats, graphs, held_out, chosen, typical, split, floors)
        report["web"] = web.files() if page else None
        _write_json(partial / "report.json", report)
        if page:
            web.write(partial, page)
        sidecar = writer.sidecar(partial, formats)
        sidecar["web"] = web.describe(size, fit, data.background) if page else None
        _write_json(partial / "model.json", sidecar)
        if page:
            shutil.copy(partial / "model.json", partial / "web")
        files.write_text(partial / "README.md", reporting.readme(report, sidecar))
        if "saved_model" in formats:
            writer.write_for_servers(partial, report)
        log(reporting.table(report))
        if report.get("translation_note"):
            log(report["translation_note"])
        for result in report["formats"].values():
            for note in result["notes"]:
                log(note)
    return report


@contextlib.contextmanager
def _placed(output, formats, version, overwrite, page=None):
    """A folder to write an export into, which then takes its place: `output`, or OUTPUT.failed as its report.json says.

    Raises:
        FloorError: a file is below its floor.
        UserError: what is in `output` may not be replaced, or nothing can be written there.
    """
    failed = output / "failed" if files.is_fixed(output) else output.with_name(output.name + ".failed")
    _check_output(output, formats, version, overwrite, page)
    _check_failed(failed)
    try:
        with files.beside(output / str(version) if _holds_something(output) else output) as partial:
            yield partial
            report = _json_of(partial / "report.json")
            # Once more: all this may have taken an hour.
            if report["passed"]:
                _check_output(output, formats, version, overwrite, page)
                _put_in_place(partial, output, overwrite)
            else:
                _check_failed(failed)
                files.swap(partial, failed)
    except (OSError, tf.errors.OpError) as error:  # a full disk is one of TensorFlow's where TensorFlow writes
        raise UserError(f"--output={output} cannot be written: {files.reason(error)}") from error
    if not report["passed"]:
        faults = dict.fromkeys(fault for r in report["formats"].values() for fault in r["faults"])
        raise FloorError(f"not exported: {'; '.join(faults)}; see {failed}/report.png", report)


def _export_pairs(model, output, formats, version, floors, overwrite, log, of_pictures):
    """Exports what draws pairs; `of_pictures` has the arguments of `export` that are about pictures."""
    usual = inspect.signature(export).parameters
    for name, value in of_pictures.items():
        if value != usual[name].default:
            flags = "--data, or --a and --b" if name == "data" else f"--{name}"
            raise UserError(f"leave out {flags}: what draws pairs takes no pictures")
    formats = samples.FORMATS if tuple(formats) == USUAL else formats
    samples.check(model, formats)
    with _placed(output, formats, version, overwrite) as partial:
        report = samples.write(model, partial, formats, version, floors, log)
        if "saved_model" in formats:
            _describe_version(partial, version)
    return report


def pictures(data, folder, direction):
    """What to verify on and calibrate with, where a folder is named for that.

    Args:
        data: `config.Data` of the run, how images are prepared.
        folder: one of the layouts of --data; or any pictures of the domain translated from, of which one half
            calibrates and the other verifies.
        direction: "a2b" or "b2a".

    Returns:
        `config.Data`.

    Raises:
        UserError: the folder may not be read.
    """
    if sources.has_layout(folder):
        return data.in_folder(folder)
    if data.ab:
        return data.in_folder_of_halves(folder)
    return data.of_one_domain(direction[0], folder, holdout=0.5)


def ends(kind, io):
    """Type of the pixels that a LiteRT file takes and gives: `io`, but of "gpu" and "int16x8" as `export` says."""
    if kind == "gpu":
        return "float32"
    return "int16" if kind == "int16x8" and io == "int8" else io


@dataclasses.dataclass
class _Export:
    """One export: what is written, and the same thing computed by Keras.

    Attributes:
        equalised: the float32 file that calibrated files are made of; None without such files.
        largest: `quantization.largest` of it.
        spared: `quantization.spared_layers` of it.
        segmented: `quantization.segmented_convolutions` of it.
    """

    model: object
    direction: str
    size: tuple
    fit: str
    max_side: int
    version: int
    io: str
    data: Data
    calibration_images: int
    norm_bits: int
    log: object
    equalised: bytes = None
    largest: dict = None
    spared: dict = dataclasses.field(default_factory=dict)
    segmented: list = dataclasses.field(default_factory=list)

    def write(self, folder, formats):
        """Writes all files into `folder`; returns LiteRT kind → the file before `litert.with_pixels`."""
        kinds = [f for f in formats if f != "saved_model"]
        graphs = {"float32": litert.convert(self.model, self.direction, self.size)} if kinds else {}
        for kind in kinds:
            quantization.check(graphs["float32"], kind)
        if "saved_model" in formats:
            saved_model.write_saved_model(
                self.model,
                folder / str(self.version),
                self.direction,
                self.fit,
                self.size,
                self.data.background,
                self.data.resize_filter or "bicubic",
                self.max_side,
            )
            self.log(f"SavedModel written as version {self.version}")
        calibrated = [kind for kind in kinds if kind in quantization.CALIBRATED]
        if calibrated:
            self.equalised, values, few = self._calibrate(
                graphs["float32"], counted=bool({*kinds} & {*quantization.COUNTED})
            )
            if {*kinds} & {"dynamic", "int8"}:
                self.spared = quantization.spared_layers(
                    self.equalised, values, few, static="int8" in kinds, show=self.log is print
                )
            if "int8_full" in kinds:
                self.segmented = quantization.segmented_convolutions(self.equalised, values, few)
            self.largest = quantization.largest(self.equalised, values)
        for kind in kinds:
            if kind in calibrated:
                graphs[kind] = quantization.quantize(
                    self.equalised, kind, values, self.norm_bits, self.spared, self.segmented
                )
            elif kind != "float32":
                graphs[kind] = quantization.quantize(graphs["float32"], kind)
            file = litert.with_pixels(graphs[kind], ends(kind, self.io))
            (folder / f"{kind}.tflite").write_bytes(file)
            self.log(f"{kind}.tflite written, {len(file) / 2**20:.2f} MiB")
        return {kind: graphs[kind] for kind in kinds}

    def _calibrate(self, file, counted):
        """`quantization.calibrate` on the training images, and a few of these; bars say how many are done."""
        source = sources.open_domain(self.data, self.direction[0].upper(), "train")
        chosen = _spread(len(source), self.calibration_images)
        images = []

        def inputs(x, *style):
            x = x[None].astype(np.float32)
            return (x, style[0][None]) if style else x

        def read():
            for _, *given in self.styled(_read(source, chosen, self.size, self.log, "calibration images")):
                images.append(given)
                yield inputs(*given)

        def again():
            progress = Progress(len(images), "calibration images once more", active=self.log is print)
            for done, given in enumerate(images, 1):
                yield inputs(*given)
                progress.update(done)
            progress.close()

        calibrated = quantization.calibrate(file, read(), again() if counted else None)
        return *calibrated, [inputs(*images[i]) for i in _spread(len(images), _JUDGED)]

    def styled(self, stream):
        """Adds to each (name, uint8 [H, W, C]) its style, float32 [style_size], where the method takes one."""
        for name, x in stream:
            yield (name, x, self.model.draw_styles(0, [name])[0]) if self.model.style_size else (name, x)

    def reference(self, pixels, *style):
        """uint8 [1, H, W, C], and a style float32 [1, S] → float32 pixels [1, H, W, C'], by the live Keras model."""
        x = self.model.to_float(tf.convert_to_tensor(pixels))
        if self.fit == "pad":
            y = self.model.translate(x.numpy(), self.direction, **dict(zip(["style"], style)))
        else:
            filter = self.data.resize_filter or "bicubic"
            resized = saved_model.any_size(self.model, self.direction, self.fit, self.size, filter)
            y = resized(x, *style).numpy()
        return to_levels(y, self.model.value_range)

    def style_of(self, pixels):
        """The style of a picture of the domain translated to, uint8 [H, W, C'], as the SavedModel sees it."""
        filter = self.data.resize_filter or "bicubic"
        pixels = images.resize(pixels, self.size, filter) if self.fit == "resize" else pixels
        return self.model.styles_of([0], self.direction, reference=pixels)[0]

    def verify(self, folder, formats, graphs, held_out, chosen, typical, split, floors):
        """Runs the files in `folder` on the `chosen` images of `held_out`; returns the report.

        `typical` is one of these images, for warm-up and latency.
        """
        threads = verify.threads()
        written, candidates = {}, {}
        ((_, _, *style),) = self.styled([("typical", typical)])
        if "saved_model" in formats:
            loaded = tf.saved_model.load(str(folder / str(self.version)))
            serve = loaded.signatures["serving_default"]

            def run(x, *style):
                named = {"style": tf.constant(s) for s in style}
                return serve(images=tf.constant(x), **named)["images"].numpy()

            candidates["saved_model"] = run
        for kind, graph in graphs.items():
            written[kind] = verify.LiteRT(folder / f"{kind}.tflite", threads)
            candidates[kind] = written[kind]
            before = verify.LiteRT(graph, threads)
            if written[kind].rounds and not before.rounds:
                candidates[f"{kind} before rounding"] = before
        if self.equalised:
            candidates["before quantization"] = verify.LiteRT(self.equalised, threads)
        if "saved_model" in formats:
            png = images.encode_image(".png", typical)
            if saved_model.write_warmup(folder / str(self.version), typical, png, _SERVED_AS, *style) is None:
                self.log("no warm-up requests for TF Serving: they need 'pip install tfi2i[serving]'")
        keep = _spread(len(chosen), _PICTURES)
        stream = _read(held_out, chosen, self.size, self.log, "verification images")
        scores, kept = verify.compare(self.reference, candidates, self.styled(stream), keep)
        kept = [{k: v for k, v in row.items() if "before" not in k} for row in kept]
        times = verify.latencies({k: candidates[k] for k in formats}, typical, *style)
        of_float32 = times["float32"]["processor_ms"] if "float32" in times else None
        report = {
            "direction": self.direction,
            "method": self.model.name,
            "translation_note": self.model.translation_note,
            "images": scores[formats[0]].images,
            "split": split,
            "size": list(self.size),
            **dict(zip(("macs", "parameters"), flops.cost(self.model, self.direction, *self.size))),
            "threads": threads,
            "passed": True,
            "model_version": self.version if "saved_model" in formats else None,
            "formats": {},
        }
        if self.equalised:
            report["before_quantization"] = scores["before quantization"].summary()
        for kind in formats:
            before = scores.get(f"{kind} before rounding")
            result = scores[kind].summary()
            if before:
                result["before_rounding"] = before.summary()
            path = folder / reporting.file_name(kind, self.version)
            result |= {
                "floor": floors[kind][0],
                "worst_floor": floors[kind][1],
                "bytes": sum(f.stat().st_size for f in _files(path)),
                **times[kind],
                "processor_ratio": times[kind]["processor_ms"] / of_float32 if of_float32 else None,
            }
            if kind == "saved_model":
                encode = lambda x: images.encode_image(".png", x)  # noqa: E731
                by_style = (*style, self.style_of) if style else ()
                faults = verify.saved_model_faults(loaded, self.reference, typical, encode, *by_style)
            else:
                result |= self._graph_figures(path, written[kind]) | verify.alone(path, threads)
                faults = []
            result["notes"] = self._notes(kind, result, written.get("float32"))
            result["faults"] = verify.floor_faults(kind, scores[kind], before, floors[kind]) + faults
            if kind in quantization.CALIBRATED:
                result["faults"] += verify.floor_faults(
                    "equalised float32", scores["before quantization"], None, _EXACT
                )
            if kind in ("int8_full", "int16x8") and "float32" in litert.tensor_types(graphs[kind]):
                result["faults"].append(f"{kind}: some of its tensors are float32")
            if kind == "gpu":
                result["largest"] = self.largest
                if not self.largest["value"] <= quantization.LARGEST_HALF:
                    result["faults"].append(
                        f"gpu: {self.largest['tensor']} reaches {self.largest['value']:.6g} on the calibration images, "
                        f"and the 16-bit floats of GPUs end at {quantization.LARGEST_HALF:g}"
                    )
            report["passed"] &= not result["faults"]
            report["formats"][kind] = result
        images.write_image(folder / "report.png", reporting.picture(report, kept))
        return report

    def _notes(self, kind, result, float32):
        """Sentences about a file that does not bring what its format promises."""
        notes = []
        if kind == "int8" and not quantization.inner_convolutions(self.equalised, self.spared):
            notes.append(
                "int8 is the same as dynamic: fixed scales are for convolutions on maps of at most a quarter of the "
                "image's height that write into no residual sum and lose little by them, and the networks of this "
                "model have none"
            )
        in_float = sum(how == "float" for how in self.spared.values())
        if kind in ("dynamic", "int8") and in_float:
            layers = sum(n for op, n in litert.operations(self.equalised).items() if op in quantization.LAYERS)
            notes.append(
                f"{kind} computes {in_float} of {layers} convolutions and dense layers in float, which lose most by 8 "
                "bits and have at most a tenth of the multiplications"
            )
        if kind == "int8_full" and self.segmented:
            notes.append(
                f"int8_full computes {len(self.segmented)} of {litert.operations(self.equalised)['CONV_2D']} "
                "convolutions in segments of their range, because 8 bits hold the whole too coarsely; these and the "
                "convolutions behind them have two or three times as much to multiply"
            )
        if kind == "gpu" and self.largest["sum"] > quantization.LARGEST_HALF:
            notes.append(
                f"gpu may add up to {self.largest['sum']:.6g} where it takes means, and a GPU that adds in 16-bit "
                f"floats, which end at {quantization.LARGEST_HALF:g}, may overflow there: compare it with the CPU"
            )
        if kind not in ("saved_model", "float32") and result["processor_ratio"] and result["processor_ratio"] > 1.05:
            notes.append(
                f"{kind} takes {result['processor_ratio']:.2f} times the processor time of float32: "
                f"{_why_slower(kind, result['delegate_partitions'], float32.partitions)}"
            )
        return notes

    def write_for_servers(self, folder, report):
        """Writes the configuration of TF Serving, and into the SavedModel's folder what is to stay with it."""
        latency = report["formats"]["saved_model"]["latency_ms"]
        for name, text in serving.configs(_SERVED_AS, latency, machine.cores()).items():
            files.write_text(folder / name, text)
        _describe_version(folder, self.version)

    @staticmethod
    def _graph_figures(path, runner):
        return {
            "dtype": np.dtype(runner.input["dtype"]).name,
            "operations": litert.operations(path.read_bytes()),
            "tensors": litert.tensor_types(path.read_bytes()),
            "delegate_partitions": runner.partitions,
        }

    def sidecar(self, folder, formats):
        """What a client must know to use the files, and what they are made of."""
        inputs, outputs = (self.model.channels_of(domain) for domain in (self.direction[0], self.direction[-1]))
        hashes = {str(p.relative_to(folder)): checkpoints.sha256(p) for p in _files(folder) if "report" not in p.name}
        lite = {
            "name": "images",
            "layout": "NHWC",
            "input": {"shape": [1, *self.size, inputs], "range": [0, 255]},
            "output": {"shape": [1, *self.size, outputs], "range": [0, 255]},
            "signature": "translate",
            # A level, or a number of a style, is scale (integer - zero_point).
            "files": {
                f"{kind}.tflite": verify.LiteRT(folder / f"{kind}.tflite").ends()
                for kind in formats
                if kind != "saved_model"
            },
        }
        if self.model.style_size:
            lite["style"] = {"name": "style", "shape": [1, self.model.style_size], "drawn_from": "N(0, 1)"}
        dynamic = {"layout": "NHWC", "dtype": "uint8", "range": [0, 255]}
        served = {
            "version": self.version,
            "fit": self.fit,
            "resized_to": list(self.size) if self.fit == "resize" else None,
            "serving_default": {
                "images": {"shape": [None, None, None, inputs], **dynamic},
                "returns": {"images": {"shape": [None, None, None, outputs], **dynamic}},
            },
            "image_bytes": {
                "image_bytes": "string [N]: JPEG, PNG, BMP of 24 or 32 bits, or GIF",
                "max_side": self.max_side,
                "colour": "pixels are taken for sRGB: TensorFlow applies no colour profile, tfi2i.translate does",
                "returns": {
                    "image_bytes": "string [N]: PNG, empty where there is an error",
                    "errors": "string [N]: a sentence, empty for a translated picture",
                },
            },
        }
        if self.model.style_size:
            style = {"shape": [None, self.model.style_size], "dtype": "float32", "drawn_from": "N(0, 1)"}
            served["reference_bytes"] = served["image_bytes"] | {"reference_bytes": "string [N]: as image_bytes"}
            served["serving_default"]["style"] = served["image_bytes"]["style"] = style
        return {
            "method": self.model.name,
            "direction": self.direction,
            "checkpoint_step": getattr(self.model, "checkpoint_step", None),
            # Of the network inside; the files' own pixels go from 0 to 255.
            "value_range": list(self.model.value_range),
            "size_multiple": self.model.sizes.multiple,
            "litert": lite if any(f != "saved_model" for f in formats) else None,
            "saved_model": served if "saved_model" in formats else None,
            "licenses": getattr(self.model, "licenses", None),
            "sha256": hashes,
            "versions": {
                "tfi2i": tfi2i.__version__,
                **{p: importlib.metadata.version(p) for p in _MADE_WITH},
            },
        }


def _check(model, formats, size, max_side, io, norm_bits, data):
    unknown = [f for f in formats if f not in FORMATS]
    if unknown or not formats:
        raise UserError(
            f"--formats={','.join(formats)}: expected some of {', '.join(FORMATS)}; saved_model is for TF Serving, web "
            "is a page for browsers, the others are the kinds of .tflite files"
        )
    if model.dtype_policy.compute_dtype != "float32":
        raise UserError(
            f"the model computes in {model.dtype_policy.compute_dtype}: load it with tfi2i.load, or "
            "build it with dtype='float32'; the files choose their own precision"
        )
    if data is None:
        raise UserError("the model has no run to take images from: give --data (or data=)")
    if len(size) != 2:
        raise UserError("the run does not say what size it was trained on: give --size=N or H,W")
    if min(size) < 8:
        raise UserError(f"--size={size[0]},{size[1]}: expected at least 8 pixels a side")
    if max_side < max(size):
        raise UserError(f"--max_side={max_side}: expected at least {max(size)}, the longer side of --size")
    if io not in ("uint8", "int8", "float32"):
        raise UserError(f"--io={io}: expected uint8, int8 or float32")
    if norm_bits not in (8, 16):
        raise UserError(f"--norm_bits={norm_bits}: expected 8 or 16")
    if norm_bits == 16 and "int8_full" not in formats:
        raise UserError("--norm_bits=16 is about int8_full, which --formats does not have")


def _check_found(data):
    if not (data.data or data.a or data.b or data.tfds or data.csv):
        raise UserError(
            "an export compares its files with the model on pictures, which also set the scales of int8, and this run "
            "has none of its own: give --data=FOLDER, any pictures to translate"
        )
    sources.check_found(data)


def _holds_something(folder):
    """Whether a folder is there and not empty; what an export is still writing does not count."""
    return folder.is_dir() and any(not p.name.startswith(files.PARTIAL) for p in folder.iterdir())


def _check_output(output, formats, version, overwrite, page):
    """Raises `UserError`: what is in `output` is no export, or would have to be replaced and may not be."""
    if version < 1:
        raise UserError(f"--model_version={version}: expected 1 or more")
    if output.exists() and not output.is_dir():
        raise UserError(f"--output={output} is a file: expected a folder that is new or empty")
    if not _holds_something(output):
        return
    sidecar = _json_of(output / "model.json")
    if "sha256" not in sidecar or "tfi2i" not in sidecar.get("versions", {}):
        raise UserError(
            f"--output={output} is not empty, and is no export (it has no model.json of one): give a folder that is "
            "new or empty"
        )
    if page and not sidecar.get("web") and (output / "web").exists():
        raise UserError(f"--output={output} holds a folder web that is of no export: move it away")
    if overwrite:
        return
    if [*formats] != ["saved_model"]:
        raise UserError(
            f"--output={output} holds an export: add --overwrite to replace its files, or add a version of the "
            "SavedModel alone with --formats=saved_model"
        )
    if version in serving.versions(output):
        raise UserError(
            f"--output={output} has a version {version} already: leave --model_version out for the next one, or add "
            "--overwrite to replace it"
        )


def _put_in_place(partial, output, overwrite):
    """Moves an export to where it belongs: as a whole, or a version and files into an earlier export.

    Raises:
        OSError: something cannot be renamed.
    """
    if not _holds_something(output):
        files.swap(partial, output)
        return
    for version in serving.versions(partial):
        files.swap(partial / str(version), output / str(version))
    if overwrite:
        if (partial / "web").is_dir():
            files.swap(partial / "web", output / "web")
        elif _json_of(output / "model.json").get("web") and (output / "web").is_dir():
            shutil.rmtree(output / "web")
        new = {path.name for path in partial.iterdir() if path.is_file()}
        for name in new:
            (partial / name).replace(output / name)
        for path in output.iterdir():
            if path.suffix == ".tflite" and path.stem in FLOORS and path.name not in new:
                path.unlink()


def _describe_version(folder, version):
    """Copies what is to stay with a version into the folder of its SavedModel."""
    for name in _OF_A_VERSION:
        shutil.copy(folder / name, folder / str(version))


def _check_failed(failed):
    """Raises `UserError`: what is there is not what a failed export has left."""
    if not failed.exists() or (failed.is_dir() and not any(failed.iterdir())):
        return
    ours = failed.is_dir() and _json_of(failed / "report.json").get("passed") is False
    if not ours or files.foreign(failed, _OWN):
        raise UserError(f"{failed}, where an export goes that fails, holds something else: move it away")


def _json_of(path):
    """The dict in a JSON file; empty where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _held_out(data, direction):
    """The source of the domain translated from, of the first split there is, and that one's name."""
    for split in ("test", "val"):
        try:
            return sources.open_domain(data, direction[0].upper(), split), split
        except sources.MissingSplit:
            pass
    logging.warning("no test or validation images: verifying on training images")
    return sources.open_domain(data, direction[0].upper(), "train"), "train"


def _spread(total, wanted):
    """`wanted` positions, or all for None, evenly spread over `total`."""
    return sorted({*np.linspace(0, total - 1, min(total, wanted or total)).round().astype(int).tolist()})


def _read(source, chosen, size, log, what):
    """Yields (name, uint8 [*size, C]) of the readable ones of the `chosen` images; a bar says how many are done.

    Raises:
        UserError: none can be read.
    """
    progress = Progress(len(chosen), what, active=log is print)
    say = progress.note if progress.active else log
    read = 0
    for done, i in enumerate(chosen, 1):
        try:
            pixels = source.read(i)
        except images.BadImage as error:
            say(f"left out: {error}")
        else:
            if pixels.dtype == np.uint16:
                pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
            yield source.names[i], images.resize(pixels, size)
            read += 1
        progress.update(done)
    progress.close()
    if not read:
        raise UserError(f"none of the {len(chosen)} {what} can be read")


def _why_slower(kind, parts, parts_of_float32):
    """Why a LiteRT file is slower than float32."""
    if kind in ("float16", "gpu"):
        return "it computes in float32 on a CPU; the gain there is its size"
    if not parts:
        return "the CPU delegate runs nothing of it; it is for NPUs"
    if parts > parts_of_float32:
        return (
            f"the CPU delegate runs it in {parts} parts, float32 in {parts_of_float32}; operations between them run "
            "without it"
        )
    return (
        "scaling the activations to 8 bits costs more here than 8-bit convolutions save, as happens with few channels, "
        "small images or a processor without 8-bit instructions"
    )


def _files(path):
    """A file, or the files in a folder."""
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def _write_json(path, content):
    files.write_text(path, json.dumps(content, indent=2) + "\n")
