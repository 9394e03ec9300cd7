"""The presets, as flagfiles: see `tfi2i.presets`."""
