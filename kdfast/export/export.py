"Export the network of a run as one file, and verify it against the run's predictions."

import io
import json
import re
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from kdfast.core.atomic import replace, write
from kdfast.core.errors import KdfastError
from kdfast.core.explain import error_reason
from kdfast.core.silence import silenced
from kdfast.data import load
from kdfast.data.dataset import Data
from kdfast.export.predict import BATCH, InferenceModel, classifier, from_network, onnx_session, probabilities
from kdfast.models.description import read_description
from kdfast.models.saved import load_network
from kdfast.runs import trust
from kdfast.runs.run_dir import RunDir
from kdfast.stats.labels import THRESHOLD

NAMES = dict(input_names=['images'], output_names=['probabilities'])
ATTENTION = functional.scaled_dot_product_attention
CLOSE = 1e-3  # largest difference of a probability
MAX_CHANGED = 0.001  # fraction of the validation images whose predicted class may change


def export(
    folder: RunDir,  # A finished run
    file: Path,  # .onnx, or .safetensors
    source: str | None = None,  # Where its images are now; where they were by default
) -> tuple[int, float, int]:  # What `check` returns, and the number of images
    """Export a run's network beside the file, verify it, then replace the file and add its sources.

    Raises KdfastError if predictions differ. However this ends before, what was there stays as it was.
    """
    predicted = folder.arrays('predictions.npz')['predicted']
    data = images_of(folder, source)
    network = load_network(folder)
    with tempfile.TemporaryDirectory(prefix='.kdfast-', dir=file.parent) as directory:
        new = Path(directory) / file.name
        if file.suffix == '.onnx':
            to_onnx(network, new)
        else:
            to_safetensors(folder, new)
        checked = check(new, network, data, predicted)
        if (new.parent / trust.SOURCE).exists():
            trust.save_sources(trust.read_sources(read_description(new), new), file.parent)
        replace(new, file)
    return *checked, len(predicted)


def images_of(
    folder: RunDir,  # A finished run
    source: str | None,  # Where its images are now; where they were if None
) -> Data:
    "Load the data of a run. Raises KdfastError if the images are missing or have changed."
    recorded = folder.run.get('images')
    if not (recorded or source):
        raise KdfastError(f'{folder} does not record where its images were: name them with --images')
    try:
        data = load(**(recorded or {}) | (dict(source=source) if source else {}))
    except KdfastError as e:
        raise KdfastError(f'{e.message}; if the images of {folder} have moved, name them with --images') from e
    if data.fingerprint != folder.run['data_sha256']:
        raise KdfastError(f'{data.load_arguments["source"]}: these are not the images of {folder}')
    return data


def to_safetensors(
    folder: RunDir,  # A finished run
    file: Path,  # .safetensors
):
    "Copy a run's weights with their description, and beside them the sources that build the network."
    weights = folder / 'weights.safetensors'
    trust.save_sources(trust.read_sources(read_description(weights), weights), file.parent)
    write(file, weights.read_bytes())


def to_onnx(
    network: nn.Module,  # Of a run
    file: Path,  # .onnx
):
    """Write a network as ONNX.

    The input `images` is (n, 3, height, width), RGB from 0 to 1; the output `probabilities` is (n, classes).
    Normalization is part of the model; classes and image size are in its metadata, under `kdfast`. PyTorch has several
    ways to convert a network, each with gaps of its own: the first one that gives the network's outputs counts. Raises
    KdfastError if there is none.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as e:
        raise KdfastError("ONNX needs packages that are not installed: pip install 'kdfast[onnx]'") from e
    failures = []
    for convert in CONVERSIONS:
        try:
            content = converted(convert, network)
        except Exception as e:  # those of the exporters and of ONNX Runtime have no common base class
            failures.append(e)
            continue
        model = onnx.load_from_string(content)
        onnx.helper.set_model_props(model, dict(kdfast=json.dumps(network.build_info)))
        return write(file, model.SerializeToString())
    cause = first_cause(failures[0])
    raise KdfastError(f'{network.build_info["network"]} cannot be written as ONNX: {cause}') from failures[0]


def converted(
    convert: Callable,  # One of CONVERSIONS
    network: nn.Module,  # Of a run
) -> bytes:  # An ONNX model
    """Convert a network, and compare its outputs for one and for three images.

    Raises any exception if a conversion fails, and ValueError for other outputs.
    """
    model, size = InferenceModel(network).eval(), network.build_info['size']
    with (
        patch.object(functional, 'scaled_dot_product_attention', attention_in_4d),
        warnings.catch_warnings(action='ignore'),
        silenced(),  # a failed conversion prints the whole graph
    ):
        content = convert(model, torch.zeros(2, 3, *size))
        session = onnx_session(content)
        compare(session, model, size)
    return content


def compare(
    session: Any,  # An onnxruntime.InferenceSession
    model: nn.Module,  # The InferenceModel that was converted
    size: Sequence[int],  # Height and width of the images
):
    "Raise ValueError if the converted model has other outputs for one or for three images."
    for n in 1, 3:
        images = torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(n))
        with torch.no_grad():
            expected = model(images)
        found = torch.from_numpy(session.run(None, dict(images=images.numpy()))[0])
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=0, atol=CLOSE):
            raise ValueError(f'the converted network has other outputs for {n} image{"s" * (n > 1)}')


def by_graph(
    model: nn.Module,  # An InferenceModel
    images: torch.Tensor,  # Two of them
    optimize: bool = True,  # Whether the exporter simplifies the model
) -> bytes:  # An ONNX model
    "Convert a model by the graph that `torch.export` captures."
    program = torch.onnx.export(
        model,
        (images,),
        **NAMES,
        dynamo=True,
        verbose=False,
        optimize=optimize,
        dynamic_shapes=dict(images={0: torch.export.Dim('n')}),
    )
    return program.model_proto.SerializeToString()


def by_tracing(
    model: nn.Module,  # An InferenceModel
    images: torch.Tensor,  # Two of them
) -> bytes:  # An ONNX model
    "Convert a model by the operations that it does for some images."
    content = io.BytesIO()
    axes = {name: {0: 'n'} for names in NAMES.values() for name in names}
    torch.onnx.export(model, (images,), content, **NAMES, dynamo=False, dynamic_axes=axes)
    return content.getvalue()


CONVERSIONS = (by_graph, partial(by_graph, optimize=False), by_tracing)


def attention_in_4d(
    query,  # (…, heads, tokens, features)
    key,  # The same
    value,  # The same
    attn_mask=None,  # None, or broadcastable to (…, heads, tokens, tokens)
    *args,  # Further arguments of the attention
    **kwargs,  # The same, by name
):
    "Compute attention with all dimensions before the heads as one: the exporter knows no more than four."
    outer = query.shape[:-3]
    if len(outer) < 2:
        return ATTENTION(query, key, value, attn_mask, *args, **kwargs)
    if attn_mask is not None and attn_mask.dim() > 3:
        attn_mask = attn_mask.expand(*outer, *attn_mask.shape[-3:]).flatten(0, -4)
    query, key, value = (x.flatten(0, -4) for x in (query, key, value))
    return ATTENTION(query, key, value, attn_mask, *args, **kwargs).unflatten(0, outer)


def first_cause(
    error: BaseException,  # Of PyTorch's exporter
) -> str:
    "Return the first line of the error that caused the others, without colors."
    while error.__cause__:
        error = error.__cause__
    return re.sub(r'\x1b\[\d*m', '', error_reason(error))


def check(
    file: Path,  # The exported file
    network: nn.Module,  # The run's network
    data: Data,  # The run's data
    predicted: np.ndarray,  # The run's predictions of the validation images: classes (n,), or labels (n, classes)
) -> tuple[
    int, float
]:  # Images whose class or labels differ from the run's; largest difference of a probability from the network's
    "Verify an exported file. Raises KdfastError if more than one prediction in a thousand differs."
    images = data.valid[0]
    changed, difference = 0, 0.0
    exported_model, own_model = classifier(file)[0], from_network(network)
    size, order = network.build_info['size'], [network.build_info['classes'].index(name) for name in data.classes]
    for start in range(0, len(images), BATCH):
        batch = data.shown(images[start : start + BATCH])
        exported, own = (probabilities(model, batch, size)[:, order] for model in (exported_model, own_model))
        found = exported > THRESHOLD if data.several else exported.argmax(1)
        differs = found != predicted[start : start + BATCH]
        changed += int((differs.any(1) if data.several else differs).sum())
        difference = np.maximum(difference, np.abs(exported - own).max())
    if changed > MAX_CHANGED * len(images):
        raise KdfastError(
            f'{file.name} predicts {"other labels" if data.several else "another class"} than the run for {changed} of '
            f'{len(images)} validation images'
        )
    return changed, float(difference)
