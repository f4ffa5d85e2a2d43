"""The training of the models that the scope ships, from written pairs: `python -m app.scope_training`.

It knows the scope; nothing that serves knows it, and its pairs are in no wheel.
"""
