"""Two logical CPU devices in every test process, so that replicas can be tested anywhere."""

import tensorflow as tf

tf.config.optimizer.set_experimental_options({"remapping": False})
_cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(_cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
