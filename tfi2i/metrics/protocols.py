"""Protocols: what is measured and how, of one's own choice or as published figures were made.

Sources of the published ones: the codes of LS4GAN/uvcgan2 (scripts/eval_fid.py), LS4GAN/benchmarking, ML-GSAI/EGSDE
(run_score.py), taki0112/GAN_Metrics-Tensorflow, and the papers' sections on evaluation.
"""

import dataclasses
import logging
import typing

from tfi2i import config
from tfi2i.config import UserError, did_you_mean
from tfi2i.metrics import METRICS

# Feature networks, see `features.FeatureNetwork` → what tables call them; how images are brought to a network's size.
NETWORKS = {
    "efficientnet_lite0": "EfficientNet-Lite0", "inception_2015": "InceptionV3 2015",
    "inception_torchvision": "InceptionV3 torchvision", "inception_keras": "InceptionV3 Keras",
}  # fmt: skip
RESIZES = ("clean", "original", "pytorch_fid")
# What is measured where nothing else is asked for; data without pairs are an error then.
DEFAULT_METRICS = ("l1", "pixel_accuracy", "psnr")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is measured and how: numbers of different protocols cannot be compared.

    Attributes:
        metrics: names in `METRICS`; None: `DEFAULT_METRICS`, and data without pairs are an error.
        split: "test" or "val"; None for folders.
        limit: no more images than this, evenly spread; None: all.
        network: a `features.FeatureNetwork`, where a metric needs one.
        kid_subset_size: images in each subset of KID; None: see `realism.subset_size`.
        kid_subsets: how many subsets.
        seed: of the draw of the subsets.
        feature_cache: folder of the features of real images, see `features.cached`.
        segmentation: a `segmentation.Segmentation`, where a metric needs one.
        pairs: whether images of one name in both domains are pairs.
        preparation: dict of fields of `config.Data` that say how images are resized and cut; what it does not name is
            as the data say.
        preset: name in `PRESETS` that all this comes from, or None.
    """

    metrics: tuple | None = None
    split: str | None = "test"
    limit: int | None = None
    network: object | None = None
    kid_subset_size: int | None = None
    kid_subsets: int = 100
    seed: int = 2020
    feature_cache: str | None = None
    segmentation: object | None = None
    pairs: bool = True
    preparation: typing.Mapping = dataclasses.field(default_factory=dict)
    preset: str | None = None

    def __post_init__(self):
        unknown = [name for name in self.metrics or () if name not in METRICS]
        if unknown:
            raise UserError(
                f"--metrics={','.join(self.metrics)}: {unknown[0]} is none of {', '.join(METRICS)}"
                f"{did_you_mean(unknown[0], METRICS)}"
            )

    @property
    def names(self):
        """The metrics, in the order of `METRICS`."""
        return tuple(name for name in METRICS if name in (self.metrics or DEFAULT_METRICS))

    def compares_with(self, other):
        """Whether any metric compares translations with `other`, see `Metric.compared_with`."""
        return any(METRICS[name].compared_with == other for name in self.names)

    @property
    def of_features(self):
        """Whether any metric needs a feature network."""
        return any(METRICS[name].of_features for name in self.names)

    def prepare(self, data):
        """`config.Data` with this protocol's way of resizing and cutting."""
        return dataclasses.replace(data, **self.preparation)

    def check_counts(self, n_real, n_fake):
        """Raises `UserError`: fewer real images or translations than a metric needs that compares the two sets."""
        for name in self.names:
            least = METRICS[name].least_images
            if METRICS[name].compared_with == "real" and min(n_real, n_fake) < least:
                raise UserError(
                    f"--metrics={name} needs at least {least} images on either side, here are {n_real} real ones and "
                    f"{n_fake} translations"
                )
        size = self.kid_subset_size
        if size and {"kid", "mean_kid"} & set(self.names) and size > min(n_real, n_fake):
            raise UserError(
                f"--kid_subset_size={size}: expected at most {min(n_real, n_fake)}, the images of the smaller set"
            )

    def report(self):
        """A dict for metrics.json."""
        report = {"preset": self.preset, "note": PRESETS[self.preset].note} if self.preset else {}
        report |= {"metrics": list(self.names), "split": self.split, "pairs": self.pairs, "limit": self.limit}
        if self.network:
            report |= self.network.protocol
        if {"kid", "mean_kid"} & set(self.names):
            report |= {
                "kid": "unbiased, kernel (x.y/d + 1)^3", "kid_subset_size": self.kid_subset_size or "automatic",
                "kid_subsets": self.kid_subsets, "seed": self.seed,
            }  # fmt: skip
        if self.segmentation:
            report |= self.segmentation.protocol
        return report


def make_protocol(protocol=None, size=None, filter=None, **flags):
    """The `Protocol` that flags of `tfi2i.evaluate` describe, with its networks loaded.

    Args:
        protocol: a name in `PRESETS`, whose values are taken for all that is not given; None: the defaults are.
        size: (height, width) that all images are brought to, as a tuple or a text; None: the preset's, or else the
            data's own.
        filter: antialiased filter that brings images to `size`, as Pillow's; None: the preset's, or else bicubic.
        **flags: `metrics`, in upper or lower case, `split`, `limit`, `kid_subset_size`, `kid_subsets`, `seed`,
            `feature_cache` and `pairs`, see `Protocol`; `network`, `network_weights` and `feature_resize`: name,
            weights and resize of a `features.FeatureNetwork`; `download_weights`: fetch its weights where they are not
            here, see `published.download`; `labels`, `segmentation_weights` and `label_domain`: labels, weights and
            label_domain of a `segmentation.Segmentation`.

    Raises:
        UserError: an unknown protocol or metric, or weights or label maps that a metric needs are not there.
    """
    if protocol and protocol not in PRESETS:
        raise UserError(f"--protocol={protocol}: expected one of {', '.join(PRESETS)}")
    preset = PRESETS[protocol] if protocol else Preset({}, {}, "")
    size = config.size_flag(size)
    if filter and not size:
        raise UserError(f"--filter={filter} is the filter that brings pictures to --size: give --size=N or H,W with it")
    filter = filter or preset.data.get("resize_filter", "bicubic")
    preparation = _exact(size, filter) if size else dict(preset.data)
    return _with_networks(preset=protocol, preparation=preparation, **{**preset.flags, **flags})


def _with_networks(
    metrics=None,
    network="efficientnet_lite0",
    network_weights=None,
    feature_resize="clean",
    labels=None,
    segmentation_weights=None,
    label_domain="b",
    download_weights=False,
    **fields,
):
    from tfi2i.metrics import published
    from tfi2i.metrics.features import FeatureNetwork
    from tfi2i.metrics.segmentation import Segmentation

    protocol = Protocol(tuple(name.strip().lower() for name in metrics) if metrics else None, **fields)
    if "fcn_score" in protocol.names:
        if not labels:
            raise UserError(
                "--metrics=fcn_score compares with label maps: give --labels=FOLDER, Cityscapes' gtFine/val"
            )
        segmentation = Segmentation(segmentation_weights, labels, label_domain)
        protocol = dataclasses.replace(protocol, segmentation=segmentation)
    if protocol.of_features:
        if download_weights and not network_weights:
            published.download(network)
        protocol = dataclasses.replace(protocol, network=FeatureNetwork(network, network_weights, feature_resize))
        if protocol.network.standard is False:
            name, file, sha256 = protocol.network.name, protocol.network.weights, protocol.network.sha256
            logging.warning("%s is not the published file of %s: SHA-256 %s", file, name, sha256)
    return protocol


# -------------------------------------------------------------------------------------------------- published protocols


@dataclasses.dataclass(frozen=True)
class Preset:
    """A published protocol.

    Args:
        flags: values of flags of `tfi2i.evaluate` that are not given.
        data: fields of `config.Data`: how images are resized and cut before anything is measured.
        note: what else belongs to it, and what is not the same here.
    """

    flags: typing.Mapping
    data: typing.Mapping
    note: str


def _exact(size, filter="bicubic"):
    return {"resize": size, "resize_mode": "exact", "resize_filter": filter, "crop": size}


_FIDELITY = {
    "metrics": ["fid", "kid"], "network": "inception_2015", "feature_resize": "original", "kid_subset_size": 100,
    "kid_subsets": 100, "seed": 2020,
}  # fmt: skip
PRESETS = {
    "uvcgan2_celeba": Preset(
        {"split": "test", **_FIDELITY},
        _exact((256, 256), "bilinear") | {"resize_mode": "short_side"},
        "torch-fidelity on all test images, 256 wide, centre cut out. Their test images are CelebA's val and test "
        "parts; the subset size of KID that the paper has for each data set is not in its code",
    ),
    "uvcgan2_afhq": Preset(
        {"split": "val", **_FIDELITY},
        _exact((256, 256), "lanczos"),
        "torch-fidelity on all val images, 500 a domain, at 256; the paper's subset size of KID is not in its code",
    ),
    "egsde": Preset(
        {"split": "val", "metrics": ["l2", "mean_psnr", "ssim"]},
        _exact((256, 256)),
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
        _exact((256, 256)),
        "1098 test pairs at 256. The paper's own figures are people's choices: see --study",
    ),
    "cyclegan_cityscapes": Preset(
        {"split": "test", "metrics": ["fcn_score", "l1", "psnr", "pixel_accuracy"]},
        _exact((128, 128)),
        "500 test pairs at 128, compared with label maps of 1024 x 2048. How the paper made classes of the colours of "
        "translated labels is not known: here the nearest one, at 128, then enlarged",
    ),
    "unit_maps": Preset(
        {"split": "test", "metrics": ["pixel_accuracy"]},
        _exact((256, 256)),
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
        _exact((256, 256)),
        "blocks of 10 images, drawn at random here; the published figures most probably are its code's mean KID, not "
        "KID. Its ± is the standard error over blocks, the one here is their standard deviation",
    ),
}
