"What a trained network says of an image: from a run, or from a file that a run was exported to."

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from rich.cells import cell_len, set_cell_size
from rich.text import Text
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.core.format import percent
from kdfast.data.dataset import center_crop
from kdfast.data.files import read_file
from kdfast.data.pixels import decode_8bit
from kdfast.models.saved import load_network_file, parse_description

SHOWN = 3  # classes an image
BATCH = 256


class Deployed(nn.Module):
    "From pixels in 0 … 1 to probabilities: what a program that knows nothing of training needs."

    def __init__(self, network):
        super().__init__()
        self.network = network
        for name in ('mean', 'std'):
            self.register_buffer(name, torch.tensor(network.built_by[name]).view(3, 1, 1))

    def forward(self, images):
        return self.network((images - self.mean) / self.std).softmax(1)


def classifier(
    file: Path,  # .onnx or .safetensors, that kdfast wrote
) -> tuple[
    Callable, dict
]:  # Probabilities (n, classes) of images (n, 3, height, width) in 0 … 1, and what the network says of itself
    "A network that can be asked. Raises KdfastError for a file that kdfast has not written."
    if not file.is_file():
        raise KdfastError(f'no file {file}')
    if file.suffix == '.onnx':
        return from_onnx(file)
    if file.suffix != '.safetensors':
        raise KdfastError(f'{file} holds no network: expected .onnx, .safetensors, a run\'s folder or a recipe\'s name')
    network = load_network_file(file)
    return from_network(network), network.built_by


def from_network(
    network: nn.Module,  # Of a run
) -> Callable:
    "Probabilities, of arrays like those that an ONNX file takes and gives."
    deployed = Deployed(network).eval()

    @torch.no_grad()
    def probabilities(images):
        return deployed(torch.from_numpy(images)).numpy()

    return probabilities


def from_onnx(file):
    try:
        import onnxruntime
    except ImportError as e:
        raise KdfastError("ONNX needs packages that are not installed: pip install 'kdfast[onnx]'") from e
    try:
        session = onnxruntime.InferenceSession(str(file), providers=['CPUExecutionProvider'])
    except Exception as e:
        raise KdfastError(f'{file} is no ONNX file that can be run: {e}') from e  # its errors share no base
    said = session.get_modelmeta().custom_metadata_map.get('kdfast')
    if not said:
        raise KdfastError(f'{file} does not say what its classes are: kdfast has not written it')
    return (lambda images: session.run(None, dict(images=images))[0]), parse_description(said, file)


def probabilities(
    classify: Callable,  # From `classifier`
    images: np.ndarray,  # (n, height, width, 3), uint8; or rows of such
) -> np.ndarray:  # (n, classes)
    "Of any number of images, a batch at a time."
    batches = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
    return np.concatenate([classify(batch.transpose(0, 3, 1, 2).astype(np.float32) / 255) for batch in batches])


def fitted(
    file: Path,  # Of an image
    facts: dict,  # What the network says of itself
) -> np.ndarray:  # (height, width, 3), uint8
    "The image as the network's validation images were made: scaled and its middle cut out. Raises KdfastError for what is no image."
    if not file.is_file():
        raise KdfastError(f'{file} is a folder: give images' if file.is_dir() else f'no image {file}')
    side, (height, width) = facts.get('presized'), facts['size']
    pixels, problem, _ = decode_8bit(read_file(partial(open, file, 'rb')), side, facts.get('range'))
    if problem:
        raise KdfastError(f'{file}: {problem}')
    if side:
        return center_crop(pixels, height)
    return (
        pixels
        if pixels.shape[:2] == (height, width)
        else np.asarray(ImageOps.fit(Image.fromarray(pixels), (width, height), Image.BILINEAR))
    )


def predict(
    classify: Callable,  # From `classifier`
    facts: dict,
    files: list[Path],  # Of images
) -> list[dict]:  # `image`, `classes` and their `probabilities`, the likeliest first
    "What the network says of each image. Raises KdfastError, naming the file, before anything is asked."
    images = np.stack([fitted(file, facts) for file in files])
    found = []
    for file, row in zip(files, probabilities(classify, images)):
        order = row.argsort()[::-1]
        found.append(
            dict(
                image=str(file),
                classes=[facts['classes'][k] for k in order],
                probabilities=[float(row[k]) for k in order],
            )
        )
    return found


def view(
    found: list[dict],  # From `predict`
) -> Text:
    "A line an image, never broken, with the classes it may be."
    rows = [
        [said['image'], *(f'{name} {percent(p)}' for name, p in zip(said['classes'][:SHOWN], said['probabilities']))]
        for said in found
    ]
    widths = [max(map(cell_len, column)) for column in zip(*rows)]
    styles = ['', 'bold', *['dim'] * SHOWN]

    def line(row):
        cells = Text('  ').join(
            Text(set_cell_size(cell, width), style) for cell, width, style in zip(row, widths, styles)
        )
        cells.rstrip()
        return cells

    return Text('\n').join(map(line, rows))
