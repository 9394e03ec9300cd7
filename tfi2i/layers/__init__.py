"""Layers that several methods share."""

import keras

from tfi2i.layers.activations import gelu as gelu
from tfi2i.layers.activations import leaky_relu as leaky_relu
from tfi2i.layers.alike import TracedOnce as TracedOnce
from tfi2i.layers.alike import in_turn as in_turn
from tfi2i.layers.attention import SelfAttention as SelfAttention
from tfi2i.layers.attention import TransformerBlock as TransformerBlock
from tfi2i.layers.convolution import Conv2D as Conv2D
from tfi2i.layers.convolution import Conv2DTranspose as Conv2DTranspose
from tfi2i.layers.convolution import bias_initializer as bias_initializer
from tfi2i.layers.convolution import initializer as initializer
from tfi2i.layers.enlarging import Enlarge as Enlarge
from tfi2i.layers.modulation import ModulatedConv2D as ModulatedConv2D
from tfi2i.layers.network import Network as Network
from tfi2i.layers.network import derived_seed as derived_seed
from tfi2i.layers.normalization import BatchNormalization as BatchNormalization
from tfi2i.layers.normalization import InstanceNormalization as InstanceNormalization
from tfi2i.layers.normalization import LayerInstanceNormalization as LayerInstanceNormalization
from tfi2i.layers.normalization import SampleNormalization as SampleNormalization
from tfi2i.layers.quantization import QuantizableConv2D as QuantizableConv2D
from tfi2i.layers.quantization import QuantizableDepthwiseConv2D as QuantizableDepthwiseConv2D
from tfi2i.layers.quantization import depth_to_space as depth_to_space
from tfi2i.layers.quantization import fake_quantize as fake_quantize
from tfi2i.layers.quantization import fake_quantize_kernel as fake_quantize_kernel
from tfi2i.layers.random import Dropout as Dropout
from tfi2i.layers.random import batch_draws as batch_draws
from tfi2i.layers.random import batch_dropout as batch_dropout
from tfi2i.layers.random import batch_seeds as batch_seeds
from tfi2i.layers.random import normal as normal
from tfi2i.layers.random import sample_seeds as sample_seeds
from tfi2i.layers.random import uniform as uniform
from tfi2i.layers.rematerialization import rectified as rectified
from tfi2i.layers.rematerialization import remat as remat
from tfi2i.layers.scope import StepScope as StepScope
from tfi2i.layers.spectral import SpectralConv2D as SpectralConv2D
from tfi2i.layers.spectral import SpectralNormalization as SpectralNormalization

# Everything here has channels last, whatever the user's keras.json says.
keras.config.set_image_data_format("channels_last")
