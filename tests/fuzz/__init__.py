"""Fuzzing of what reads the bytes of strangers: tables, pushed zips, manifests and ONNX graphs.

A reader may answer or refuse with an error of Nelbo's own. It may not fail in another way, crash,
hang, take more memory than is asserted, or write outside of its folder. `python -m tests.fuzz`
starts a process for each reader, which runs alone and is confined as in production; a process that
dies is a fault that is found, saved and counted, and the run goes on.
"""
