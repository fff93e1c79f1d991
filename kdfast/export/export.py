"Out of the door: a run's network as one file, and the proof that it still says the same."

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from kdfast.core.atomic import write
from kdfast.core.errors import KdfastError
from kdfast.data import load
from kdfast.data.dataset import Data
from kdfast.export.predict import BATCH, Deployed, classifier, from_network, probabilities
from kdfast.models.saved import load_network, read_description
from kdfast.runs import trust
from kdfast.runs.run_dir import RunDir

ALLOWED = 0.001  # share of the validation images that the file may class otherwise than the run did


def export(
    folder: RunDir,  # A finished run
    file: Path,  # .onnx, or .safetensors
    source: str | None = None,  # Where its images are now, unless where they were
) -> tuple[int, float, int]:  # As `check` gives, and how many images that was
    "Write the run's network and check it. Raises KdfastError, and leaves nothing, where it says something else than the run did."
    predicted, data, network = (
        folder.arrays('predictions.npz')['predicted'],
        images_of(folder, source),
        load_network(folder),
    )
    try:
        if file.suffix == '.onnx':
            to_onnx(network, file)
        else:
            to_safetensors(folder, file)
        return *check(file, network, data, predicted), len(predicted)
    except KdfastError:
        file.unlink(missing_ok=True)
        raise


def images_of(folder, source):
    "What the run was validated on. Raises KdfastError where that is somewhere else by now"
    asked = folder.run.get('images')
    if not (asked or source):
        raise KdfastError(f'{folder} does not say where its images were: name them with --images')
    try:
        data = load(**(asked or {}) | (dict(source=source) if source else {}))
    except KdfastError as e:
        raise KdfastError(f'{e.message}; where the images of {folder} are now, --images says') from e
    if data.fingerprint != folder.run['data_sha256']:
        raise KdfastError(f'{data.asked["source"]}: these are not the images of {folder}')
    return data


def to_safetensors(
    folder: RunDir,  # A finished run
    file: Path,  # .safetensors
):
    "The run's weights, which know what it takes to build their network again; the sources that build it go beside them."
    weights = folder / 'weights.safetensors'
    trust.keep(trust.read(read_description(weights), weights), file.parent)
    write(file, weights.read_bytes())


def to_onnx(
    network: nn.Module,  # Of a run
    file: Path,  # .onnx
):
    """Write the network as ONNX: `images` (n, 3, height, width), red, green and blue in 0 … 1, to `probabilities` (n, classes).

    The normalisation is inside; classes and image size are in the file's metadata, under `kdfast`. Raises KdfastError for
    a network that ONNX cannot say.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript
    except ImportError as e:
        raise KdfastError("ONNX needs packages that are not installed: pip install 'kdfast[onnx]'") from e
    images = torch.zeros(2, 3, *network.built_by['size'])
    try:
        program = torch.onnx.export(
            Deployed(network).eval(),
            (images,),
            input_names=['images'],
            output_names=['probabilities'],
            dynamo=True,
            verbose=False,
            dynamic_shapes=dict(images={0: torch.export.Dim('n')}),
        )
    except torch.onnx.OnnxExporterError as e:
        raise KdfastError(f'{network.built_by["network"]} cannot be written as ONNX: {str(e).splitlines()[0]}') from e
    model = program.model_proto
    onnx.helper.set_model_props(model, dict(kdfast=json.dumps(network.built_by)))
    write(file, model.SerializeToString())


def check(
    file: Path,  # That was exported
    network: nn.Module,  # That it was made from
    data: Data,  # What the run was validated on
    predicted: np.ndarray,  # What the run took the validation images for, (n,)
) -> tuple[
    int, float
]:  # How many of them the file classes otherwise, and the largest difference of a probability from the network's
    """Compare the file with what the run said, a batch of images at a time.

    Raises KdfastError where more than one image in a thousand is classed otherwise.
    """
    images, changed, difference = data.valid[0], 0, 0.0
    classifiers = classifier(file)[0], from_network(network)
    for start in range(0, len(images), BATCH):
        batch = data.shown(images[start : start + BATCH])
        exported, own = (probabilities(classify, batch) for classify in classifiers)
        changed += int((exported.argmax(1) != predicted[start : start + BATCH]).sum())
        difference = np.maximum(difference, np.abs(exported - own).max())
    if changed > ALLOWED * len(images):
        raise KdfastError(f'{file} classes {changed} of {len(images)} validation images otherwise than the run did')
    return changed, float(difference)
