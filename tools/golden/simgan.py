"""SimGAN as CycleGAN's authors ran it: the networks are the official ones, its losses and steps are computed here.

The code of that model is in Torch7, which was not run. What it should compute, without the defects that
`tfi2i/methods/simgan/model.py` names, is written here in PyTorch.

Checkout: github.com/junyanz/pytorch-CycleGAN-and-pix2pix at commit c3268ed (2024-03-22).
"""

import functools

import numpy as np
import torch
from golden import common, cyclegan, made_weights
from golden.common import gradients, random_images, random_weights, state, to_numpy, to_torch

COMMIT = cyclegan.COMMIT
OFFICIAL = {"models/networks.py": cyclegan.OFFICIAL["models/networks.py"]}
LAMBDA = 10.0


def randomize(net, seed):
    """Random weights; the norms' factors too."""
    rng = np.random.default_rng(seed)
    common.randomize(net, rng)
    for module in net.modules():
        if isinstance(module, torch.nn.InstanceNorm2d):
            module.weight.data = random_weights(rng, module.num_features, 1.0, 0.2)
    return net


def judged(net, images, target):
    """The least-squares loss: the mean of (D - target)²."""
    return (net(images) - target).square().mean()


def record_steps(output, networks):
    """Two steps; in the second, the discriminator is shown the translation of the first, as from a history."""
    norm = functools.partial(torch.nn.InstanceNorm2d, affine=True, track_running_stats=False)
    nets = {
        "G": randomize(networks.ResnetGenerator(3, 3, 1, norm_layer=norm, n_blocks=6), 1),
        "D": randomize(networks.NLayerDiscriminator(3, 2, n_layers=3, norm_layer=norm), 2),
    }
    adam = {name: torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for name, net in nets.items()}
    rng = np.random.default_rng(3)
    arrays = {f"real_{domain}": random_images(rng, (2, 32, 32, 3)) for domain in "AB"}
    real_a, real_b = (to_torch(arrays[f"real_{domain}"]) for domain in "AB")
    for name, net in nets.items():
        arrays |= state(net, f"weights/{name}")
    remembered = None
    for k in (1, 2):
        a, b = real_a[k - 1 : k], real_b[k - 1 : k]
        fake = nets["G"](a)
        remembered = fake.detach() if remembered is None else remembered
        loss_d = 0.5 * (judged(nets["D"], b, 1.0) + judged(nets["D"], remembered, 0.0))
        adam["D"].zero_grad()
        loss_d.backward()
        adam["D"].step()
        if k == 1:
            arrays |= gradients(nets["D"], "gradients1/D")
            arrays["fake1"] = to_numpy(fake)
        loss_gan, content = judged(nets["D"], fake, 1.0), LAMBDA * (fake - a).abs().mean()
        adam["G"].zero_grad()
        (loss_gan + content).backward()
        adam["G"].step()
        if k == 1:
            arrays |= gradients(nets["G"], "gradients1/G")
        arrays[f"losses{k}"] = np.array([loss.item() for loss in (loss_gan, content, loss_d)], np.float32)
        for name, net in nets.items():
            arrays |= state(net, f"after{k}/{name}")
    common.save(output, "simgan_steps", arrays)


def vgg_features():
    """VGG16 up to relu4_2 with weights by formula, of levels 0 to 255, blue first and less ImageNet's means."""
    layers, channels = [], 3
    for block in ((64, 64), (128, 128), (256, 256, 256), (512, 512)):
        if layers:
            layers.append(torch.nn.MaxPool2d(2))
        for filters in block:
            layers += [torch.nn.Conv2d(channels, filters, 3, padding=1), torch.nn.ReLU()]
            channels = filters
    net = torch.nn.Sequential(*layers)
    made = made_weights.state({name: tuple(v.shape) for name, v in net.state_dict().items()})
    net.load_state_dict({name: torch.from_numpy(v) for name, v in made.items()})
    mean = torch.tensor([103.939, 116.779, 123.68])[:, None, None]

    def features(x, side):
        x = torch.nn.functional.interpolate(x, (side, side), mode="bilinear", align_corners=True)
        return net((x.flip(1) + 1) * 127.5 - mean)

    return features


def record_content(output):
    """The content loss of features, at 48 pixels instead of 224, and its gradient in the translation."""
    rng, features = np.random.default_rng(4), vgg_features()
    arrays = {"source": random_images(rng, (2, 24, 32, 3)), "fake": random_images(rng, (2, 24, 32, 3))}
    source, fake = to_torch(arrays["source"]), to_torch(arrays["fake"]).requires_grad_()
    of_fake = features(fake, 48)
    loss = LAMBDA * (of_fake - features(source, 48)).abs().mean()
    loss.backward()
    arrays |= {"features": common.sparse(to_numpy(of_fake)), "loss": np.array(loss.item(), np.float32)}
    arrays["gradient"] = to_numpy(fake.grad)
    common.save(output, "simgan_content", arrays)


def record(checkout, output):
    (networks,) = common.import_official(checkout, OFFICIAL, COMMIT, ["models.networks"])
    record_steps(output, networks)
    record_content(output)
