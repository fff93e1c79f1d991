"Classify images with a trained run or an exported model."

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from rich.cells import cell_len, set_cell_size
from rich.text import Text
from torch import Tensor, nn

from kdfast.core.errors import KdfastError, listed
from kdfast.core.explain import error_reason
from kdfast.core.format import percent
from kdfast.data.dataset import center_crop
from kdfast.data.files import read_file
from kdfast.data.formats import is_image
from kdfast.data.pixels import decode_8bit
from kdfast.models.adapt import Scale
from kdfast.models.description import parse_description
from kdfast.models.saved import load_network_file
from kdfast.stats.labels import THRESHOLD

N_SHOWN = 3  # classes per image
BATCH = 256


class InferenceModel(nn.Module):
    """Convert images (n, 3, height, width) with values from 0 to 1 to probabilities (n, classes).

    Those of several labels are independent of each other.
    """

    def __init__(
        self,
        network: nn.Module,  # With `build_info`, the normalization of its images
    ):
        super().__init__()
        self.network = network
        self.several = has_several_labels(network.build_info)
        for name in ('mean', 'std'):  # named unlike what exporters call results of operations
            self.register_buffer(f'{name}_of_images', torch.tensor(network.build_info[name]).view(3, 1, 1))

    def forward(
        self,
        images: Tensor,  # (n, 3, height, width), from 0 to 1
    ) -> Tensor:  # (n, classes)
        "Compute probabilities."
        logits = self.network((images - self.mean_of_images) / self.std_of_images)
        return logits.sigmoid() if self.several else logits.softmax(1)


def has_several_labels(
    description: dict,  # Of a network
) -> bool:
    "Return whether a network was trained on images with several labels."
    return description.get('labels') == 'several'


def classifier(
    file: Path,  # .onnx or .safetensors, written by kdfast
) -> tuple[Callable, dict]:  # Function of images (n, 3, height, width) from 0 to 1; description of the network
    """Load a classifier, which returns probabilities (n, classes).

    Raises KdfastError for files that kdfast has not written.
    """
    if not file.is_file():
        raise KdfastError(f'no file {file}')
    if file.suffix == '.onnx':
        return from_onnx(file)
    if file.suffix != '.safetensors':
        raise KdfastError(f'{file} holds no network: expected .onnx, .safetensors, a run\'s folder or a recipe\'s name')
    network = load_network_file(file)
    return from_network(network), network.build_info


def from_network(
    network: nn.Module,  # With `build_info`
) -> Callable:
    "Return a function that computes probabilities, with the inputs and outputs of the ONNX model."
    model = InferenceModel(network).eval()

    @torch.no_grad()
    def classify(images):
        return model(torch.from_numpy(images)).numpy()

    return classify


def from_onnx(
    file: Path,  # .onnx
) -> tuple[Callable, dict]:  # As `classifier`
    "Load an ONNX model that kdfast has exported. Raises KdfastError for any other file."
    try:
        session = onnx_session(str(file))
    except ImportError as e:
        raise KdfastError("ONNX needs packages that are not installed: pip install 'kdfast[onnx]'") from e
    except Exception as e:  # its exceptions have no common base class
        raise KdfastError(f'{file} is no ONNX file that can be run: {e}') from e
    description = session.get_modelmeta().custom_metadata_map.get('kdfast')
    if not description:
        raise KdfastError(f'{file} does not name its classes: kdfast has not written it')

    def classify(images):
        return session.run(None, dict(images=images))[0]

    description = parse_description(description, file)
    check_outputs(classify, description, file)
    return classify, description


def check_outputs(
    classify: Callable,  # Of an ONNX model
    description: dict,  # Of its network
    file: Path,  # Which holds both
):
    "Raise KdfastError unless a model returns a number per class for images of the described size."
    n_classes = len(description['classes'])
    try:
        found = classify(np.zeros((1, 3, *description['size']), np.float32))
    except Exception as e:  # those of ONNX Runtime have no common base class
        raise KdfastError(f'{file} is no classifier of the images that it describes: {error_reason(e)}') from e
    shape = getattr(found, 'shape', None)
    if shape != (1, n_classes):
        raise KdfastError(f'{file} returns {shape} for one image: expected {(1, n_classes)}, one number per class')


def onnx_session(
    model: str | bytes,  # Path of a file, or its content
):  # An onnxruntime.InferenceSession
    "Return what runs an ONNX model on the CPU, with as many threads as torch. Needs ONNX Runtime."
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # by default, one per core of the machine
    return onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])


def probabilities(
    classify: Callable,  # From `classifier`
    images: np.ndarray,  # (n, height, width, 3), uint8; or an object with slices of such
    size: list[int] | None = None,  # Height and width to scale them to
) -> np.ndarray:  # (n, classes)
    "Compute probabilities in batches."
    scale = Scale(size or images.shape[1:3])
    batches = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
    scaled = (scale(torch.from_numpy(np.array(batch)).movedim(-1, 1).float() / 255) for batch in batches)
    return np.concatenate([classify(batch.contiguous().numpy()) for batch in scaled])


def image_files(
    paths: list[Path],  # Images, and folders of images
) -> list[Path]:
    "Return images as given, and those below folders, by name. Raises KdfastError if there are none."
    return [file for path in paths for file in (images_below(path) if path.is_dir() else [path])]


def images_below(
    folder: Path,  # Searched with its folders
) -> list[Path]:
    "Return the images below a folder, without hidden files. Raises KdfastError if there are none."
    below = sorted(file for file in folder.rglob('*') if file.is_file())
    visible = [file for file in below if not any(part.startswith('.') for part in file.relative_to(folder).parts)]
    found = [file for file in visible if is_image(file.name, partial(open, file, 'rb'))]
    if not found:
        raise KdfastError(f'{folder}: found no images')
    return found


def load_image(
    file: Path,  # An image
    description: dict,  # Of the network
) -> np.ndarray:  # (height, width, 3), uint8
    "Load an image, scaled and cropped as validation images are. Raises KdfastError if it is no image."
    if not file.is_file():
        raise KdfastError(f'no image {file}')
    side = description.get('presized')
    height, width = description['size']
    pixels, problem, _ = decode_8bit(read_file(partial(open, file, 'rb')), side, description.get('range'))
    if problem:
        raise KdfastError(f'{file}: {problem}')
    if side:
        return center_crop(pixels, height)
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(ImageOps.fit(Image.fromarray(pixels), (width, height), Image.BILINEAR))


def predict(
    classify: Callable,  # From `classifier`
    description: dict,  # From `classifier`
    files: list[Path],  # Images
) -> list[dict]:  # `image`, `classes` and their `probabilities`, the most likely first; `labels`, if several
    """Classify images; of several labels, those above 0.5 are predicted.

    A file that cannot be read has a `problem` instead of classes.
    """
    found = []
    for i in range(0, len(files), BATCH):
        loaded = [try_load_image(file, description) for file in files[i : i + BATCH]]
        images = [image for image, _ in loaded if image is not None]
        rows = iter(probabilities(classify, np.stack(images)) if images else ())
        for file, (_, problem) in zip(files[i:], loaded):
            facts = dict(problem=problem) if problem else ranked(next(rows), description)
            found.append(dict(image=str(file)) | facts)
    return found


def try_load_image(
    file: Path,  # An image
    description: dict,  # Of the network
) -> tuple[np.ndarray | None, str]:
    "Return an image as `load_image` and no problem, or None and why it cannot be read."
    try:
        return load_image(file, description), ''
    except KdfastError as e:
        return None, e.message


def ranked(
    probabilities: np.ndarray,  # (classes,)
    description: dict,  # Of the network
) -> dict:
    "Return classes and their probabilities, the most likely first, and the labels, if there are several."
    order = probabilities.argsort()[::-1]
    names, found = [description['classes'][k] for k in order], probabilities[order].tolist()
    labels = [name for name, p in zip(names, found) if p > THRESHOLD]
    several = dict(labels=labels) if has_several_labels(description) else {}
    return dict(classes=names, probabilities=found) | several


def check_all_read(
    predictions: list[dict],  # From `predict`
):
    "Raise KdfastError if files could not be read."
    problems = [prediction['problem'] for prediction in predictions if 'problem' in prediction]
    if problems:
        whole = f'{len(problems)} of {len(predictions)} images cannot be read: ' if len(predictions) > 1 else ''
        raise KdfastError(whole + listed(problems))


def shown_classes(
    prediction: dict,  # From `predict`
) -> list[str]:
    "Return the most likely classes with their probabilities; of several labels all that are predicted."
    n = len(prediction['labels']) if 'labels' in prediction else N_SHOWN
    likely = zip(prediction['classes'][:n], prediction['probabilities'])
    return [f'{name} {percent(p)}' for name, p in likely] or ['no label']


def view(
    predictions: list[dict],  # From `predict`
) -> Text:
    "Return a line per image that was read with its most likely classes; lines are never wrapped."
    read = [prediction for prediction in predictions if 'problem' not in prediction]
    rows = [[prediction['image'], *shown_classes(prediction)] for prediction in read]
    n_columns = max(map(len, rows), default=0)
    rows = [row + [''] * (n_columns - len(row)) for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*rows)]
    styles = ['', 'bold', *['dim'] * n_columns]

    def line(row):
        cells = Text('  ').join(
            Text(set_cell_size(cell, width), style) for cell, width, style in zip(row, widths, styles)
        )
        cells.rstrip()
        return cells

    return Text('\n').join(map(line, rows))
