"""pix2pix' checkpoints: `EPOCH_net_G.pth` and `EPOCH_net_D.pth` of the authors' PyTorch code.

Files do not say which way G translates; D judges G's input and output, in this order. A released model is a generator
alone. CycleGAN's files are of the same code, and `cyclegan.published` tells the two apart.
"""

from tfi2i.config import UserError
from tfi2i.conversion import PublishedModel, agree
from tfi2i.methods.cyclegan import published as cyclegan
from tfi2i.methods.pix2pix.model import DOWNS

# How files of one model at one time of its training are named; CycleGAN's have a letter more.
FILE_NAMES = cyclegan.FILE_NAMES[:1]
# The part that translates, whichever way it does.
GENERATOR_OF = {"a2b": "G", "b2a": "G"}


def files_of(states):
    """dict of part → state, as dict of the published code's file name → content."""
    return {f"latest_net_{part}.pth": state for part, state in states.items()}


def layout(model):
    """dict of "G", "D" → dict of published name → `Place`, of a built `Pix2Pix`.

    Raises:
        UserError: the published code has no such network.
    """
    c = model.config
    if c.pix2pix_variant == "cyclegan_tables":
        raise UserError("--pix2pix_variant=cyclegan_tables is not in the published code, whose norms learn no factors")
    if c.generator == "unet_64":
        raise UserError("--generator=unet_64 is not in the published code, which has unet_128 and unet_256")
    if c.discriminator == "multiscale":
        raise UserError("--discriminator=multiscale is not in the published code, which has one discriminator")
    generator = cyclegan.unet if c.generator in DOWNS else cyclegan.resnet
    return {"G": generator(model.generator), "D": cyclegan.discriminator(model.discriminators[0])}


def recognise(files, told):
    """What pix2pix' files are.

    Args:
        files: dict of file name without its extension → content.
        told: see `cyclegan.published.recognise`; of the method's own flags `dropout`, `test_dropout` and `test_norm`.

    Returns:
        `PublishedModel`, or None when none of the files is pix2pix'.

    Raises:
        UserError: they are, but not of a model that tfi2i has.
    """
    parts = cyclegan.paired_parts(files, told.get("method"))
    if parts is None:
        return None
    if "G" not in parts:
        raise UserError(f"{', '.join(files)}: a discriminator alone, nothing that translates")
    direction = told.get("direction") or "a2b"
    source, target = direction[0], direction[-1]
    options, channels_of = {}, {}
    own, channels = cyclegan.generator_options(parts["G"], "G")
    with_dropout = own.pop("dropout", None)  # which a ResNet's names tell
    agree("G", own | {"direction": direction}, channels, (source, target), options, channels_of)
    if "D" in parts:
        own, (judged,) = cyclegan.discriminator_options(parts["D"], "D")
        if judged != sum(channels):
            raise UserError(
                f"D judges {judged} channels, but G's input and output have {sum(channels)}: not of one pix2pix model"
            )
        agree("D", own, (), (), options, channels_of)
    unknown = ["the size of the pictures that it was trained on, and the weights of its losses"]
    unknown.append(f"which way it translates: A is what it takes, B what it makes, with --direction={direction}")
    if told.get("dropout") is not None:
        options["dropout"] = told["dropout"]
    elif with_dropout is not None:
        options["dropout"] = with_dropout
    else:
        unknown.append("whether it was trained with dropout, which leaves no trace in a U-Net: with, or --nodropout")
    given = {name: told[name] for name in ("test_dropout", "test_norm") if told.get(name) is not None}
    options |= given
    if not given and options["norm"] == "batch":
        unknown.append(
            "how it was tested: as published, or with the code's --eval: --test_norm=average --notest_dropout"
        )
    return PublishedModel("pix2pix", options, channels_of, parts, (direction,), unknown=unknown)
