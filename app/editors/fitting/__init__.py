"""The modules that two or more editors share: the fitting loop, views of the frozen model, hooks, sites and buffers."""
