"""The methods: one folder each, found by one table. No TensorFlow is imported here."""

import dataclasses
import importlib


@dataclasses.dataclass(frozen=True)
class Method:
    """Where a method lives.

    Args:
        package: dotted path of its folder. PACKAGE.config has its dataclass of hyper-parameters, without TensorFlow.
        name: of its model, and of that dataclass.
        module: which module of the folder has the model.
        pretraining: name of what --task=pretrain trains, in PACKAGE.config and PACKAGE.pretraining, or None.
        published: whether PACKAGE.published reads and writes the checkpoints of the published code.
        command: the command of tfi2i that trains it.
    """

    package: str
    name: str
    module: str = "model"
    pretraining: str | None = None
    published: bool = True
    command: str = "train"

    @property
    def config_class(self):
        """The `config.Hyperparameters` of this method."""
        return getattr(importlib.import_module(f"{self.package}.config"), self.name)

    @property
    def model_module(self):
        """Dotted path of the module that has the model."""
        return f"{self.package}.{self.module}"

    @property
    def model_class(self):
        """The `Translator` of this method; imports TensorFlow."""
        return getattr(importlib.import_module(self.model_module), self.name)

    @property
    def published_module(self):
        """The module that knows the published checkpoints; imports TensorFlow."""
        return importlib.import_module(f"{self.package}.published")

    def of_task(self, task):
        """What --task trains: for "translate" the method itself, for "pretrain" its pre-training or None."""
        if task == "translate":
            return self
        return self.pretraining and dataclasses.replace(
            self, name=self.pretraining, module="pretraining", pretraining=None, published=False
        )


METHODS = {
    "cyclegan": Method("tfi2i.methods.cyclegan", "CycleGAN"),
    "pix2pix": Method("tfi2i.methods.pix2pix", "Pix2Pix"),
    "simgan": Method("tfi2i.methods.simgan", "SimGAN", published=False),
    "bigan": Method("tfi2i.methods.bigan", "BiGAN", published=False),
    "cogan": Method("tfi2i.methods.cogan", "CoGAN", published=False),
    # Before UNIT: its discriminators look like UNIT's of 2018, so its files must be recognised first.
    "munit": Method("tfi2i.methods.munit", "MUNIT"),
    "drit": Method("tfi2i.methods.drit", "DRIT"),
    "unit": Method("tfi2i.methods.unit", "UNIT"),
    "ugatit": Method("tfi2i.methods.ugatit", "UGATIT"),
    "aggan": Method("tfi2i.methods.aggan", "AGGAN"),
    "cartoongan": Method("tfi2i.methods.cartoongan", "CartoonGAN"),
    "uvcgan2": Method("tfi2i.methods.uvcgan2", "UVCGAN2", pretraining="Inpainting"),
    "uvcgan": Method("tfi2i.methods.uvcgan2", "UVCGAN", pretraining="UVCGANInpainting"),
    "adaptation": Method("tfi2i.methods.unit", "Adaptation", module="adaptation", published=False, command="adapt"),
    "cogan_adaptation": Method(
        "tfi2i.methods.cogan", "CoGANAdaptation", module="adaptation", published=False, command="adapt"
    ),
    "student": Method("tfi2i.methods.student", "Student", published=False, command="distill"),
}


def trained_by(command):
    """The part of the table that a command trains."""
    return {name: method for name, method in METHODS.items() if method.command == command}
