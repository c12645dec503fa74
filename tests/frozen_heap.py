"""Imported last by the server that tests fork from: its children need not search the loaded libraries for garbage."""

import gc

gc.collect()
gc.freeze()
