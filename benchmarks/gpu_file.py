"""Runs a LiteRT file on a GPU: does the GPU take all of it, and how close does it come to the CPU?

  python -m benchmarks.gpu_file --file=exported/gpu.tflite
  python -m benchmarks.gpu_file --file=exported/gpu.tflite --pictures=photos/testA --count=20

Prints the PSNR against LiteRT's CPU interpreter, of all pictures together and of the worst one, with the GPU computing
in float32 and in float16. float16 is what LiteRT chooses on phones. If the GPU refuses operations, the program prints
which, and its exit status is 1. A file that the GPU takes whole can still be wrong there, so look at the PSNR too.

Any GPU with a Vulkan driver will do. Without one, take a driver that computes on the CPU. It shows what a GPU takes
and which numbers come out, but nothing about speed. On Debian:

- lavapipe (float32 and float16) is in mesa-vulkan-drivers, from version 23 on: `apt install libvulkan1
  mesa-vulkan-drivers`, for Debian 12 with `-t bookworm-backports`. Programs find it by themselves.
- SwiftShader (float32 only, several times faster) is in chromium-common, which need not be installed: unpack it with
  `dpkg -x`, and put its folder usr/lib/chromium into LD_LIBRARY_PATH and the path of vk_swiftshader_icd.json in that
  folder into VK_DRIVER_FILES.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
from absl import flags
from tfi2i.export import verify

from tfi2i import command
from tfi2i.config import Data, UserError
from tfi2i.data import images, sources

# In a process of its own: drivers can crash, and LiteRT tells its log alone what the GPU refuses. Without the CPU
# beside the GPU, a file that is not taken whole is an error, and nothing can run elsewhere unnoticed.
_PROGRAM = """
import sys
import numpy as np
from ai_edge_litert.compiled_model import CompiledModel, GpuOptions, HardwareAccelerator, Options
file, folder, precision = sys.argv[1:]
options = Options(HardwareAccelerator.GPU, gpu_options=GpuOptions(enforce_f32=precision == "float32"))
model = CompiledModel.from_file(file, options=options)
assert model.is_fully_accelerated()
inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
made = np.load(folder + "/outputs.npy")
for x, y in zip(np.load(folder + "/inputs.npy"), made):
    inputs[0].write(x)
    model.run_by_index(0, inputs, outputs)
    y[...] = outputs[0].read(y.size, made.dtype).reshape(y.shape)
np.save(folder + "/outputs.npy", made)
"""


def define_flags(values):
    """Declares the flags of this benchmark in `values`."""
    flags.DEFINE_string("file", None, "the .tflite file to run", required=True, flag_values=values)
    flags.DEFINE_string("pictures", None, "folder of pictures to translate [the bundled drawings]", flag_values=values)
    flags.DEFINE_integer("count", 8, "how many of them, evenly spread", lower_bound=1, flag_values=values)


def main(_):
    """Runs the file on the CPU and twice on the GPU, and prints the table."""
    values = flags.FLAGS
    path = pathlib.Path(values.file)
    if not path.is_file():
        raise UserError(f"--file={path} is no file: expected the path of a .tflite file")
    try:
        cpu = verify.LiteRT(path, verify.threads())
    except ValueError as error:
        raise UserError(f"--file={path}: LiteRT cannot load it: {error}") from error
    shape = tuple(cpu.input["shape"])
    if len(shape) != 4 or shape[0] != 1 or shape[3] not in (1, 3):
        raise UserError(f"--file={path} takes {shape}: expected one picture, (1, height, width, 1 or 3)")
    pictures = read(values.pictures, values.count, shape)
    inputs = [x.astype(cpu.input["dtype"]) for _, x in pictures]
    expected = [cpu(x) for _, x in pictures]
    made = {}
    for precision in ("float32", "float16"):
        gpu, refused, outputs = on_gpu(path, inputs, cpu.output, precision)
        if refused:
            print("\n".join([f"{gpu} does not take all of {path.name}:", *refused]))
            return 1
        made[precision] = outputs
        if np.array_equal(made["float32"], outputs) and precision == "float16":
            print(f"float16: {gpu} gives the float32 results, so it has no float16")
            continue
        score = verify.Score()
        for (name, _), y, output in zip(pictures, expected, outputs):
            score.add(name, y.astype(np.float32), output)
        print(f"{precision}: {described(score)}, on {gpu}")
    return 0


def read(folder, count, shape):
    """`count` pictures of a folder, or of the bundled ones for None: list of (name, uint8 [1, H, W, C]) of `shape`."""
    source = sources.open_folder(folder) if folder else sources.open_domain(Data(data="emoji"), "A", "test")
    pictures = []
    for i in np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int):
        try:
            pixels = source.read(i)
        except images.BadImage as error:
            raise UserError(f"--pictures: {error}") from error
        if pixels.dtype == np.uint16:
            pixels = (pixels // 257).astype(np.uint8)
        pixels = images.resize(images.to_channels(pixels, shape[3]), shape[1:3])
        pictures.append((source.names[i], pixels[None]))
    return pictures


def on_gpu(path, inputs, output, precision):
    """Runs a file with one input and one output on the GPU.

    Args:
        path: of the .tflite file.
        inputs: list of arrays, each of the shape and dtype of the file's input.
        output: dict with the "shape" and "dtype" of the file's output.
        precision: "float32"; or "float16", which is float32 on a GPU that lacks it.

    Returns:
        (name of the GPU, list of lines on the operations that it refuses, outputs as one array [len(inputs), *shape]);
        the outputs mean nothing if there are such lines.

    Raises:
        UserError: there is no GPU, or the run failed.
    """
    with tempfile.TemporaryDirectory(prefix="tfi2i-") as folder:
        np.save(f"{folder}/inputs.npy", np.stack(inputs))
        np.save(f"{folder}/outputs.npy", np.zeros((len(inputs), *output["shape"]), output["dtype"]))
        program = [sys.executable, "-c", _PROGRAM, str(path), folder, precision]
        done = subprocess.run(program, capture_output=True, text=True, errors="replace", check=False)
        outputs = np.load(f"{folder}/outputs.npy")
    gpu, refused = told(done.stderr)
    if gpu is None:
        raise UserError(
            "LiteRT finds no GPU: install a Vulkan driver, or one that computes on the CPU; --help says which"
        )
    if done.returncode and not refused:
        raise UserError(f"LiteRT failed on {gpu} with status {done.returncode}:\n{done.stderr[-2000:]}")
    return gpu, refused, outputs


def told(log):
    """What LiteRT's log says: (name of the GPU or None, list of lines on the operations that it refuses)."""
    gpu = re.search(r"Selected adapter: (.*?), arch=", log)
    refused = re.search(r"not supported by GPU delegate:\n(.*?)\n[^\n]*operations will run", log, re.DOTALL)
    return gpu and gpu[1], refused[1].splitlines() if refused else []


def described(score):
    """A `verify.Score` in words."""
    summary = score.summary()
    if summary["exact"]:
        return f"equal to the CPU on {score.images} pictures"
    worst, image = (summary["worst"][key] for key in ("psnr", "image"))
    worst = "not a number" if worst is None else f"{worst:.1f} dB"
    return f"{score.psnr:.1f} dB to the CPU on {score.images} pictures, {worst} on the worst ({image})"


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    command.run(main)
