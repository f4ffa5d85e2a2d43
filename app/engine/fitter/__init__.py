"""Fits in a process of their own, so that they never take a step from serving.

`fitter` is that process as the engine uses it, `worker` is what runs there, `upper_layers` is the part of the model
that it holds, and `messages` is what passes between both.
"""
