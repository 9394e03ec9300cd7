"""What FCN-8s of pix2pix computes, by OpenCV's reader and runner of Caffe's networks.

Checkout: github.com/phillipi/pix2pix. The authors' deploy.prototxt is taken with fewer channels, and a file of weights
that a formula makes, the same here and in the tests. Besides torch (for the command) it needs
opencv-python-headless 4.10.0.84 and protobuf.
"""

import pathlib
import re
import tempfile

import cv2
import numpy as np
from golden import caffe_files, made_weights
from golden.common import check_checkout, save

COMMIT = "89ff2a8 (2020-08-04)"
PROTOTXT = "scripts/eval_cityscapes/caffemodel/deploy.prototxt"
OFFICIAL = {PROTOTXT: "f4d7e71e9243e41b36544424add6007b1eafc849"}
MEAN_BGR = np.array((72.78044, 83.21195, 73.45286), np.float32)


def record(checkout, output):
    check_checkout(checkout, OFFICIAL, COMMIT)
    text = (checkout / PROTOTXT).read_text()
    for width, narrow in made_weights.FCN_WIDTHS.items():
        text = re.sub(rf"num_output: {width}\b", f"num_output: {narrow}", text)
    arrays = {}
    with tempfile.TemporaryDirectory() as folder:
        prototxt, weights = pathlib.Path(folder, "deploy.prototxt"), pathlib.Path(folder, "net.caffemodel")
        prototxt.write_text(text)
        weights.write_bytes(caffe_files.network(made_weights.fcn_layers()))
        net = cv2.dnn.readNetFromCaffe(str(prototxt), str(weights))
        rng = np.random.default_rng(50)
        for name, (h, w) in {"small": (37, 58), "large": (96, 70)}.items():
            image = rng.integers(0, 256, (-(-h // 4), -(-w // 4), 3), np.uint8).repeat(4, 0).repeat(4, 1)[:h, :w]
            pixels = image[..., ::-1].astype(np.float32) - MEAN_BGR
            net.setInput(pixels.transpose(2, 0, 1)[None])
            arrays[f"image/{name}"] = image
            arrays[f"scores/{name}"] = net.forward("score")[0].transpose(1, 2, 0)[::3, ::3]
    save(output, "fcn8s", arrays)
