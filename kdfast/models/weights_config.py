"""Read how images were prepared, and the order of classes, from the JSON files that lie beside a file of weights.

Hubs publish them with weights: `config.json` of timm (mean, std and input_size in `pretrained_cfg`, `label_names`), and
`config.json` with `preprocessor_config.json` of transformers (`id2label`, image_mean, image_std, size). The same
entries in a file that is called like the weights (photos.json beside photos.pth) come first.
"""

import json
import math
import re
from pathlib import Path

from kdfast.core.errors import KdfastError
from kdfast.core.names import PRETRAINED, Name
from kdfast.models.sizes import height_and_width

FILES = 'config.json', 'preprocessor_config.json'
SIZES = 'input_size', 'crop_size', 'size'  # the first is used
WITHOUT_NAMES = re.compile(r'LABEL_\d+')  # what transformers writes for classes whose names are unknown


def read_weights_config(
    named: Name,  # Of a network, with its weights
) -> dict:  # mean, std, size (height, width) and classes, as far as they are known; file: where they were found
    "Read what is recorded beside a file of weights. Raises KdfastError for values that cannot be meant."
    if not named.weights or named.weights == PRETRAINED:
        return {}
    weights, found = Path(named.weights), {}
    for file in (weights.with_suffix('.json'), *(weights.with_name(name) for name in FILES)):
        if file != weights and file.is_file():
            recorded = recorded_in(file)
            found = recorded | found | (dict(file=file.name) if recorded and not found else {})
    return found


def recorded_in(
    file: Path,  # JSON
) -> dict:  # As of `read_weights_config`, without file
    "Return what a file records. Raises KdfastError."
    try:
        content = json.loads(file.read_text('utf-8'))
        if not isinstance(content, dict):
            return {}
        entries = content | (content.get('pretrained_cfg') or {})
        return {name: value for name, value in recorded_entries(entries).items() if value is not None}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
        raise KdfastError(
            f'{file}, which lies beside the weights, does not say how their images were prepared: {e}. Expected mean '
            'and std of three channels (of 0 … 1), input_size [3, height, width] and label_names, as timm writes '
            'them; correct the file or move it away'
        ) from e


def recorded_entries(
    entries: dict,  # Of a JSON file
) -> dict:  # mean, std, size, classes; None where there is no such entry
    "Return what is recorded. Raises ValueError, TypeError or KeyError for values that cannot be meant."
    mean, std = (entries.get(name, entries.get(f'image_{name}')) for name in ('mean', 'std'))
    if (mean is None) != (std is None):
        raise ValueError('only one of mean and std is there')
    size = next((entries[name] for name in SIZES if name in entries), None)
    classes = entries.get('label_names', entries.get('id2label'))
    return dict(
        mean=None if mean is None else channels('mean', mean, least=-math.inf),
        std=None if std is None else channels('std', std, least=1e-6),
        size=None if size is None else height_and_width(size),
        classes=None if classes is None else class_names(classes),
    )


def channels(
    name: str,  # For the error
    values: object,  # A number, or one for each channel
    least: float,  # Allowed
) -> list[float]:  # Of three channels
    "Return a number for each channel. Raises ValueError or TypeError for others."
    found = [float(value) for value in (values if isinstance(values, list) else [values])]
    if len(found) not in (1, 3) or not all(math.isfinite(value) and value >= least for value in found):
        raise ValueError(f'{name} {values}')
    return found * (3 // len(found))


def class_names(
    names: object,  # A list, or names by index
) -> list[str] | None:  # None if they are not known
    "Return the names of classes in the order of the logits. Raises ValueError or KeyError for gaps."
    if isinstance(names, dict):
        by_index = {int(index): name for index, name in names.items()}
        names = [by_index[index] for index in range(len(by_index))]
    found = [str(name) for name in names]
    return None if found and all(map(WITHOUT_NAMES.fullmatch, found)) else found or None
