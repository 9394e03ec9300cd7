"""What an export says about its files: the table, report.png, and README.md.

The texts are keyed by format. An export shows those of the formats that it has.
"""

import pathlib

import jinja2
import numpy as np

from tfi2i import pictures

from . import web

# What each format is for.
USES = {
    "saved_model": "servers: TF Serving or TensorFlow, for pictures of any size",
    "float32": "comparisons on a CPU: as exact as the model, large and slow",
    "float16": "CPUs where half the size of float32 is small enough; it is no faster",
    "dynamic": "CPUs of phones and computers: 8-bit weights, a quarter of the size",
    "int8": "CPUs and delegates that want 8-bit convolutions with fixed scales",
    "int8_full": "NPUs that compute in 8-bit integers and nothing else",
    "int16x8": "NPUs that take 16-bit activations: closer than int8_full; slow on CPUs",
    "gpu": "GPUs, and browsers with WebGPU: floats in and out, and operations that GPUs take",
}

# The columns of the table.
COLUMNS = {
    "format": "the file: saved_model is the folder of a number, its version; every other FORMAT is `FORMAT.tflite`.",
    "PSNR dB": "how close the file is to the model: the PSNR of the squared error of all pictures together, for LiteRT "
    "files before the last rounding. More is closer; at 48 dB the root mean square error is one level of 255.",
    "worst dB": "the PSNR of the picture that came out worst.",
    ">1 level": "share of the written values that are off by more than one level.",
    "MiB": "size of the file.",
    "memory": "MiB that a process needs more once it has loaded and run the file.",
    "ms": "median time of one picture on the processor of the machine that exported; other programs make it longer.",
    "float32=1": "processor time compared with float32: 0.5 is half the work. Other programs hardly change it.",
    "compiled": "processor time with LiteRT's `CompiledModel` API compared with its interpreter, which the column ms "
    "measures.",
    "parts": "parts of the graph that XNNPACK, LiteRT's delegate for CPUs, runs. One is best: operations between parts "
    "run without it.",
    "floor": "the dB that were asked for, of all pictures and of the worst one, and whether the file has both.",
}

# Which file the examples of README.md load, the first that is there.
_ON_CPU = ("dynamic", "int8", "float16", "float32", "gpu", "int8_full", "int16x8")
_IN_BROWSER = ("gpu", "float16", "float32", "dynamic", "int8")
# More decibels look the same: the plot ends here.
_MOST = 80


def table(report):
    """The report's figures as lines of text, with the `COLUMNS`."""
    rows = [tuple(COLUMNS)]
    for kind, r in report["formats"].items():
        compiled = r.get("compiled_model", {})
        rows.append(
            (
                kind,
                *_decibels(r),
                f"{100 * r['off_by_more_than_one_level']:.2f} %",
                _mib(r),
                _text(r.get("peak_memory_mib"), ".0f"),
                _text(r["latency_ms"], ".2f"),
                _text(r["processor_ratio"], ".2f"),
                _text(compiled.get("processor_ratio"), ".2f"),
                _text(r.get("delegate_partitions"), "d"),
                f"{r['floor']:g}/{r['worst_floor']:g} {'ok' if not r['faults'] else 'FAILED'}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def picture(report, kept, amplify=8):
    """What each file is for, dB over milliseconds, and examples: input, Keras' output, each file's, and its error.

    Args:
        report: as `exporter.export` returns it.
        kept: of `verify.compare`.
        amplify: factor of the errors shown.

    Returns:
        uint8 [H, W, 3].
    """
    points = []
    for kind, r in report["formats"].items():
        figures = r.get("before_rounding", r)
        psnr, worst = _decibels(r)
        title = f"{kind}: {psnr} dB, worst {worst} dB, {_text(r['latency_ms'], '.1f')} ms, {_mib(r)} MiB"
        y = _MOST if figures["exact"] else figures["psnr"]
        points.append((title, USES[kind], r["latency_ms"], y, r["bytes"]))
    overview = pictures.frontier(points, "ms for one picture (area: size of the file)", "PSNR dB", _MOST)
    columns, titles = [], []
    for name in kept[0]:
        columns.append(np.stack([row[name] for row in kept]))
        titles.append(name)
        if name not in ("input", "Keras"):
            difference = np.abs(columns[-1].astype(np.int32) - columns[1])
            columns.append(np.minimum(amplify * difference, 255).astype(np.uint8))
            titles.append(f"error x{amplify}")
    return pictures.stack([overview, pictures.page(columns, titles)])


def readme(report, sidecar):
    """README.md of an export.

    Args:
        report: the content of report.json.
        sidecar: the content of model.json.

    Returns:
        str, Markdown.
    """
    formats = report["formats"]
    files = []
    for kind, r in formats.items():
        psnr, worst = _decibels(r)
        figures = {"mib": _mib(r), "psnr": psnr, "worst": worst, "ms": _text(r["latency_ms"], ".1f")}
        files.append({"file": file_name(kind, report["model_version"]), "use": USES[kind]} | figures)
    on_cpu, served = next((k for k in _ON_CPU if k in formats), None), sidecar["saved_model"]
    in_browser = None
    by_compiled_model = {k: r["compiled_model"] for k, r in formats.items() if "compiled_model" in r}
    values = {"phone": None, "style": None}
    if on_cpu:
        ends = sidecar["litert"]
        of_files = {kind: ends["files"][file_name(kind)] for kind in formats if kind != "saved_model"}
        of_floats = [kind for kind, end in of_files.items() if end["input"]["dtype"] == "float32"]
        in_browser = next((k for k in _IN_BROWSER if k in of_floats), None)
        _, height, width, channels = ends["input"]["shape"]
        output = of_files[on_cpu]["output"]
        values = {
            "phone": {
                "kind": on_cpu,
                "file": file_name(on_cpu),
                "dtype": output["dtype"],
                "scale": output["quantization"] and output["quantization"]["scale"],
            },
            "size": f"{height} rows of {width}",
            "height": height,
            "width": width,
            "channels": channels,
            "channels_out": ends["output"]["shape"][-1],
            "shape": ends["input"]["shape"],
            "inputs": f"{height} * {width} * {channels}",
            "outputs": f"{height} * {width} * {ends['output']['shape'][-1]}",
            "pixel": "red, green and blue" if channels == 3 else "the grey",
            "style": None,
        }
        if "style" in ends:
            values["style"] = {"shape": ends["style"]["shape"], "size": ends["style"]["shape"][-1]}
            values["style"] |= of_files[on_cpu]["style"]
    style = served and served["serving_default"].get("style")
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return templates.get_template("README.md.jinja").render(
        report=report,
        files=files,
        table=table(report),
        columns=COLUMNS,
        whole=[k for k, found in by_compiled_model.items() if found.get("fully_accelerated")],
        skipped={k: found["skipped"] for k, found in by_compiled_model.items() if "skipped" in found},
        step=sidecar["checkpoint_step"],
        gpu=file_name("gpu") if "gpu" in formats else None,
        page=sidecar["web"],
        web=file_name(in_browser) if in_browser else None,
        litert_js=web.PACKAGE,
        saved_model="saved_model" in formats,
        served_style=bool(style),
        zeros=[0] * style["shape"][-1] if style else None,
        numbers=_numbers(values["style"]),
        tensorflow=sidecar["versions"]["tensorflow"],
        licenses=sidecar["licenses"],
        **values,
    )


def _numbers(style):
    """What the style of a LiteRT file is, for a program's comment: None where it takes none."""
    if not style:
        return None
    scale = style["quantization"]
    how = f", as round(number / {scale['scale']:g}) + {scale['zero_point']}" if scale else ""
    return f"{style['size']} numbers from N(0, 1){how}"


def file_name(kind, version=None):
    """What a format is called in the folder of an export; `version` is the SavedModel's."""
    return str(version) if kind == "saved_model" else f"{kind}.tflite"


def _decibels(result):
    """PSNR of all pictures and of the worst one, as texts; before rounding where that was measured."""
    figures = result.get("before_rounding", result)
    if figures["exact"]:
        return "exact", "exact"
    return _text(figures["psnr"], ".1f"), _text(figures["worst"]["psnr"], ".1f")


def _mib(result):
    return f"{result['bytes'] / 2**20:.2f}"


def _text(value, form):
    return "-" if value is None else format(value, form)
