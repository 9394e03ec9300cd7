"""Two logical CPU devices in every test process, so that replicas can be tested anywhere."""

import functools
import gc
import re

import pytest
import tensorflow as tf
from xdist.scheduler import LoadScopeScheduling

from tests.toy import ROWS
from tfi2i.methods import METHODS
from tfi2i.training import strategies

# As `strategies.make_strategy` does on CPUs, here for every graph.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
_cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(_cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategies.share_cores()  # as in the commands that tests start, whose results are compared bit for bit


def pytest_collection_finish(session):
    """What was imported lives as long as the process: searched again and again for garbage, it costs a tenth of the
    time. Graphs, which refer to themselves, are garbage that has to be found, but need not be found at once."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


class _ByFileAndMethod(LoadScopeScheduling):
    """A process takes the tests of a file, and of a file those of one method, together: what they share is made once.

    xdist's own groups need a nodeid that can be changed, and pytest 9.2's cannot.
    """

    def _split_scope(self, nodeid):
        path, _, test = nodeid.partition("::")
        parameters = re.findall(r"\w+", test.partition("[")[2])
        return " ".join([path, *(p for p in parameters if p in METHODS or p in ROWS)])


@pytest.hookimpl(optionalhook=True)  # without xdist too
def pytest_xdist_make_scheduler(config, log):
    return _ByFileAndMethod(config, log)


@pytest.fixture(autouse=True)
def own_collectives():
    """Every strategy of a process numbers its collective operations from the same start, and TensorFlow remembers the
    shapes of each number: two models on replicas in one process, here two tests, would be a shape mismatch."""
    tf.distribute.MirroredStrategy._collective_key_base += 100
    strategies._made.clear()


@pytest.fixture(autouse=True, scope="session")
def fewest_runs():
    """No test depends on a latency, so an export takes the fewest runs of each file."""
    from tfi2i.export import verify

    with pytest.MonkeyPatch.context() as patch:
        for name in ("latencies", "alone"):
            patch.setattr(verify, name, functools.partial(getattr(verify, name), seconds=0.0))
        yield


@pytest.fixture(scope="module")
def toy():
    """Puts "toy" and "one_way_toy" into the table of methods."""
    with pytest.MonkeyPatch.context() as patch:
        for name, row in ROWS.items():
            patch.setitem(METHODS, name, row)
        yield
