"""The commands. Each module has `define_flags`, `work`, which is the command as one call, and `run`, its entry point.

`tfi2i.train` and the other functions of the package are calls of the same `work`: see `tfi2i.api`.
"""
