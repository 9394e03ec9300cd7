"""Protocols that published figures were made with: which split, which sizes, which network, which numbers.

Sources: the codes of LS4GAN/uvcgan2 (scripts/eval_fid.py), LS4GAN/benchmarking, ML-GSAI/EGSDE (run_score.py),
taki0112/GAN_Metrics-Tensorflow, and the papers' sections on evaluation.
"""

import dataclasses
import typing


@dataclasses.dataclass(frozen=True)
class Preset:
    """A published protocol.

    Args:
        flags: what the flags of `tfi2i.evaluate` are that are not given.
        data: fields of `config.Data`: how images are resized and cut before anything is measured.
        note: what else belongs to it, and what is not the same here.
    """

    flags: typing.Mapping
    data: typing.Mapping
    note: str


def _square(side, filter="bicubic"):
    size = (side, side)
    return {"resize": size, "resize_mode": "exact", "resize_filter": filter, "crop": size}


_FIDELITY = {
    "metrics": ["fid", "kid"], "network": "inception_2015", "feature_resize": "original", "kid_subset_size": 100,
    "kid_subsets": 100, "seed": 2020,
}  # fmt: skip
PRESETS = {
    "uvcgan2_celeba": Preset(
        {"split": "test", **_FIDELITY},
        _square(256, "bilinear") | {"resize_mode": "short_side"},
        "torch-fidelity on all test images, 256 wide, centre cut out. Their test images are CelebA's val and test "
        "parts; the subset size of KID that the paper has for each data set is not in its code",
    ),
    "uvcgan2_afhq": Preset(
        {"split": "val", **_FIDELITY},
        _square(256, "lanczos"),
        "torch-fidelity on all val images, 500 a domain, at 256; the paper's subset size of KID is not in its code",
    ),
    "egsde": Preset(
        {"split": "val", "metrics": ["l2", "mean_psnr", "ssim"]},
        _square(256),
        "cat2dog and wild2dog: 500 translations of AFHQ val, compared with their inputs at 256. FID: egsde_fid",
    ),
    "egsde_fid": Preset(
        {"split": "val", "metrics": ["fid"], "network": "inception_2015", "feature_resize": "pytorch_fid"},
        {},
        "cat2dog and wild2dog: 500 translations against AFHQ val, both as they are: give --real=FOLDER and "
        "--fake=FOLDER, with --run_dir the real images are at the run's size. Their male2female compares with the "
        "train images and normalises otherwise, which is not here",
    ),
    "cyclegan_maps": Preset(
        {"split": "test", "metrics": ["l1", "psnr", "pixel_accuracy"]},
        _square(256),
        "1098 test pairs at 256. The paper's own figures are people's choices: see --study",
    ),
    "cyclegan_cityscapes": Preset(
        {"split": "test", "metrics": ["fcn_score", "l1", "psnr", "pixel_accuracy"]},
        _square(128),
        "500 test pairs at 128, compared with label maps of 1024 x 2048. How the paper made classes of the colours of "
        "translated labels is not known: here the nearest one, at 128, then enlarged",
    ),
    "unit_maps": Preset(
        {"split": "test", "metrics": ["pixel_accuracy"]},
        _square(256),
        "1098 test pairs at 256; all channels within 16 of 255. The paper does not say the size that it measured at",
    ),
    "ugatit": Preset(
        {
            "split": "test",
            "metrics": ["kid", "mean_kid"],
            "network": "inception_2015",
            "feature_resize": "original",
            "kid_subset_size": 10,
            "kid_subsets": 100,
        },
        _square(256),
        "blocks of 10 images, drawn at random here; the published figures most probably are its code's mean KID, not "
        "KID. Its ± is the standard error over blocks, the one here is their standard deviation",
    ),
}
