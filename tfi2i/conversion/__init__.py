"""Published checkpoints: what their files hold, and where it goes in our networks.

The readers of files here know no method. What a method's files look like says `published.py` in its folder:

  FILE_NAMES    patterns of the names of its files, see `sources.read`
  recognise     looks at the names and shapes in files and says which configuration of ours they are, a `PublishedModel`
  layout        names every array of a model as the published code names it, a `Place`; reading and writing go by it
  files_of      which of these arrays the published code keeps in one file; where such files are written
  constants     what else the published code stores; where it does
  GENERATOR_OF  which part translates one way; where a published file may hold that alone
  LEFT_OUT      what the names of networks begin with that the published code does not have; where files are written
"""

import dataclasses

import numpy as np

from tfi2i.config import DIRECTIONS, UserError
from tfi2i.conversion.torch_files import Tensor

# torch.nn.Conv2d (out, in, h, w) and ConvTranspose2d (in, out, h, w) both become Keras' kernels so, without a flip.
KERNEL = (2, 3, 1, 0)
DENSE = (1, 0)
# Buffers of a norm that the networks here either have or, as without statistics, never read.
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a published array goes: `variable` = array.reshape(view).transpose(axes), in the variable's own shape.

    Args:
        variable: a built Keras variable.
        axes: which axis of theirs each of ours is.
        view: shape to give their array first; None: its own.
        shape: of their array; None: `view`.
    """

    variable: object
    axes: tuple = (0,)
    view: tuple | None = None
    shape: tuple | None = None

    def __post_init__(self):
        back = np.argsort(self.axes)
        view = self.view or tuple(self.variable.shape[i] for i in back)
        object.__setattr__(self, "view", tuple(view))
        object.__setattr__(self, "shape", tuple(self.shape or view))

    def ours(self, theirs):
        """Their array as the variable holds it."""
        return theirs.reshape(self.view).transpose(self.axes).reshape(self.variable.shape)

    def theirs(self):
        """The variable's value as they hold it."""
        ours = np.asarray(self.variable).reshape([self.view[i] for i in self.axes])
        return ours.transpose(np.argsort(self.axes)).reshape(self.shape)


def convolution(key, layer, axes=KERNEL):
    """dict of the published names of a convolution's kernel and bias → `Place`."""
    places = {f"{key}.weight": Place(layer.kernel, axes)}
    return places | ({f"{key}.bias": Place(layer.bias)} if layer.use_bias else {})


def batch_norm(key, layer):
    """dict of the published names of a norm's arrays → `Place`, of a `tfi2i.layers.BatchNormalization`."""
    names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    return {f"{key}.{theirs}": Place(getattr(layer, ours)) for theirs, ours in names.items()}


@dataclasses.dataclass
class PublishedModel:
    """A published model, as its files describe it.

    Attributes:
        method: a name in `methods.METHODS`.
        options: flags of that method, those that differ from its defaults or that the files say.
        channels: dict of domain, "a" and "b" → channels.
        states: dict of part, a key of `layout` → dict of published name → `Tensor`.
        directions: which of "a2b" and "b2a" it can translate.
        facts: sentences about what else the files say.
        unknown: sentences about what no file says, and what is assumed.
        step: steps that it was trained for; None: not said.
        size: (height, width) of the only pictures that it takes; None: any.
        tensorflow: whether `states` go by the names of code in TensorFlow, those of `layout(model, tensorflow=True)`.
    """

    method: str
    options: dict
    channels: dict
    states: dict
    directions: tuple = DIRECTIONS
    facts: list = dataclasses.field(default_factory=list)
    unknown: list = dataclasses.field(default_factory=list)
    step: int | None = None
    size: tuple | None = None
    tensorflow: bool = False


def is_state(content):
    """Whether a file's content is a dictionary of named tensors and nothing else."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    )


def without_module(content):
    """A state, or dictionary of states, without the prefix that DataParallel gives all names."""

    def bare(state):
        wrapped = is_state(state) and all(k.startswith("module.") for k in state)
        return {k.removeprefix("module."): v for k, v in state.items()} if wrapped else state

    if not isinstance(content, dict) or is_state(content):
        return bare(content)
    # No deeper: what a file holds may hold itself.
    return {k: bare(v) for k, v in content.items()}


def kernels(state):
    """dict of name → shape of the convolutions in a state, without `.weight`."""
    return {k.removesuffix(".weight"): v.shape for k, v in state.items() if k.endswith(".weight") and len(v.shape) == 4}


def expect_shape(state, key, shape, part):
    """Refuses a state whose array `key` has another shape, before a network of that width is made.

    Raises:
        UserError: it has.
    """
    actual = state[key].shape if key in state else "missing"
    if actual != shape:
        raise UserError(f"{part}: {key} is {actual}, expected {shape}: a network that tfi2i does not have")


def fill(places, state, part):
    """Gives the variables of `places` the arrays of `state`.

    Args:
        places: dict of published name → `Place`, one part of a `layout`.
        state: dict of published name → `Tensor`.
        part: what errors call it.

    Returns:
        The names of buffers in `state` that are of no use here: the statistics of an instance norm, counters.

    Raises:
        UserError: other names or shapes than `places`, or numbers that are not finite.
    """
    unused = {k for k in state if k not in places and k.rsplit(".", 1)[-1] in _BUFFERS}
    lacking, foreign = sorted(places.keys() - state.keys()), sorted(state.keys() - places.keys() - unused)
    if lacking or foreign:
        said = [f"lacks {len(lacking)} arrays ({', '.join(lacking[:3])}, …)"] if lacking else []
        said += [f"has {len(foreign)} that do not belong there ({', '.join(foreign[:3])}, …)"] if foreign else []
        raise UserError(f"{part} {' and '.join(said)}: it is not the network that its other arrays say")
    arrays = {}
    for key, place in places.items():
        if state[key].shape != place.shape:
            raise UserError(f"{part}: {key} is {state[key].shape}, expected {place.shape}")
        with np.errstate(over="ignore"):
            array = state[key].numpy().astype(np.float32)
        if not np.isfinite(array).all():
            raise UserError(f"{part}: {key} holds numbers that are not finite: the training that made it had failed")
        arrays[key] = array
    for key, place in places.items():
        place.variable.assign(place.ours(arrays[key]))
    return unused


def as_published(places):
    """The state of a part of a layout: dict of published name → float32 array, int64 for a batch norm's counter."""
    state = {key: np.asarray(place.theirs(), np.float32) for key, place in places.items()}
    counters = [k.replace("running_var", "num_batches_tracked") for k in places if k.endswith("running_var")]
    return state | {k: np.zeros((), np.int64) for k in counters}


def agree(part, own, channels, domains, options, channels_of):
    """Adds what one part of a model says to what the others said.

    Args:
        part: its name.
        own: dict of flag → value, by its arrays.
        channels: of its input and, for a generator, of its output.
        domains: "a" or "b" of each.
        options: dict of flag → value so far; is extended.
        channels_of: dict of domain → channels so far; is extended.

    Raises:
        UserError: they contradict each other.
    """
    for flag, value in own.items():
        if options.setdefault(flag, value) != value:
            raise UserError(f"{part} has --{flag}={value}, but the others {options[flag]}: not of one model")
    for domain, count in zip(domains, channels):
        if channels_of.setdefault(domain, count) != count:
            raise UserError(f"{part} has {count} channels of domain {domain.upper()}, the others {channels_of[domain]}")
