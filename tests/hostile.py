"""Artifacts of a stranger: every file is as training writes it, and running them takes too much."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.artifacts import linear_artifact

STEPS = 20_000_000
"""Of a scan: some ten seconds of work at the least."""


def slow_artifact(folder: Path, only_with_values: bool = False) -> Path:
    """Its score graph takes many seconds for a batch; if asked, only for one with a number in
    it."""
    return _artifact(folder, _slow_nodes(), STEPS, only_with_values)


def greedy_artifact(folder: Path, gib: int, only_with_values: bool = False) -> Path:
    """Its score graph makes an array of so many GiB."""
    sum_up = helper.make_node("ReduceSum", ["expanded"], ["bomb"], keepdims=0)
    return _artifact(folder, [sum_up], gib * 2**30 // 8, only_with_values)


def large_batch_artifact(folder: Path, mib: int) -> Path:
    """Its score graph makes an array of so many MiB where a number is there, which is no more than
    it may."""
    sum_up = helper.make_node("ReduceSum", ["expanded"], ["bomb"], keepdims=0)
    return _artifact(folder, [sum_up], mib * 2**20 // 8, only_with_values=True)


def wrong_artifact(folder: Path) -> Path:
    """Its score graph declares a kl for each row and gives half of them: how many, only its inputs
    tell."""
    linear_artifact(folder)
    model = onnx.load(folder / "score.onnx")
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["true_kl" if name == "kl" else name for name in names]
    constants = {"none": np.array([0]), "half": np.array([8])}
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    model.graph.node.extend(
        [
            helper.make_node("Mul", ["codes", "none"], ["zeros"]),
            helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
            helper.make_node("Add", ["zero", "half"], ["end"]),
            helper.make_node("Slice", ["true_kl", "none", "end"], ["kl"]),
        ]
    )
    return _rewritten(folder, model)


def _slow_nodes() -> list[onnx.NodeProto]:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Add", ["state", "step"], ["state_next"])],
        "body",
        [value("state", TensorProto.DOUBLE, []), value("step", TensorProto.DOUBLE, [])],
        [value("state_next", TensorProto.DOUBLE, [])],
    )
    return [
        helper.make_node("Scan", ["nothing", "expanded"], ["bomb"], body=body, num_scan_inputs=1)
    ]


def _artifact(folder: Path, bomb: list[onnx.NodeProto], size: int, only_with_values: bool) -> Path:
    """nelbo = nelbo + 0 * bomb, where the bomb is made of `size` zeros, or of one zero where no
    number is there."""
    linear_artifact(folder)
    model = onnx.load(folder / "score.onnx")
    (output,) = (node for node in model.graph.node if "nelbo" in node.output)
    output.output[0] = "true_nelbo"
    constants = {
        "nothing": 0.0,
        "all": np.array([size]),
        "one": np.array([1]),
        "from_one": np.array([0]),
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(array), name) for name, array in constants.items()
    )
    shape = "all"
    if only_with_values:
        shape = "size"
        model.graph.node.extend(
            [
                helper.make_node("IsNaN", ["numbers"], ["missing"]),
                helper.make_node("Where", ["missing", "from_one", "all"], ["sizes"]),
                helper.make_node("ReduceMax", ["sizes"], ["largest"], keepdims=0),
                helper.make_node("Max", ["largest", "one"], ["size"]),
            ]
        )
    model.graph.node.extend(
        [
            helper.make_node("Expand", ["nothing", shape], ["expanded"]),
            *bomb,
            helper.make_node("Mul", ["bomb", "nothing"], ["dud"]),
            helper.make_node("Add", ["true_nelbo", "dud"], ["nelbo"]),
        ]
    )
    return _rewritten(folder, model)


def _rewritten(folder: Path, model: onnx.ModelProto) -> Path:
    content = model.SerializeToString(deterministic=True)
    (folder / "score.onnx").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["graphs"]["score"]["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
