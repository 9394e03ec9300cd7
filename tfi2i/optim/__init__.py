"""Optimizer, schedules and averages as the published codes have them."""

from tfi2i.optim.adam import Adam as Adam
from tfi2i.optim.adam import AlternatingAdam as AlternatingAdam
from tfi2i.optim.adam import UncorrectedAdam as UncorrectedAdam
from tfi2i.optim.average import Average as Average
from tfi2i.optim.average import AveragedScope as AveragedScope
from tfi2i.optim.schedules import Schedule as Schedule
