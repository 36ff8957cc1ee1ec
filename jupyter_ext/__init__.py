"""The Jupyter server extension: a proxy from Lab to the scheduler's REST API, and its change events.

Handlers, the events schema, the start of the embedded control plane and the links to TensorBoard and the Spark UI belong
here. Logic does not: a handler checks who is asking, forwards with the typed client and returns the answer unchanged. The
notebook's own commands live in `magics`, the panel in `labextension`.
"""
