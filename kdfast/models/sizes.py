"Sizes of images: height and width, or one number for both. Imports no torch."

from kdfast.core.errors import KdfastError
from kdfast.core.names import Name

SIZE_ARGUMENTS = dict(timm=('img_size',), torchvision=('image_size', 'input_size'))  # of networks for one image size


def height_and_width(
    size: object,  # [3, 224, 224], [224, 224], 224, or height and width or shortest_edge by name
) -> list[int]:
    "Return height and width. Raises ValueError or TypeError for what is none."
    if isinstance(size, dict):
        edge = size.get('shortest_edge')
        size = [size.get('height', edge), size.get('width', edge)]
    sides = [int(side) for side in (size[-2:] if isinstance(size, list | tuple) else [size])]
    if not sides or min(sides) < 1:
        raise ValueError(f'size {size}')
    return [sides[0], sides[-1]]


def given_size(
    named: Name,  # Of a network
) -> tuple[int, int] | None:  # None if the name gives no size
    "Return the height and width that a network's name gives. Raises KdfastError for what is none."
    for argument in SIZE_ARGUMENTS.get(named.where, ()):
        if argument in named.keywords:
            try:
                return tuple(height_and_width(named.keywords[argument]))
            except (TypeError, ValueError, OverflowError) as e:
                raise KdfastError(
                    f'{named}: {argument} is {named.keywords[argument]!r}: expected a number, or height and width'
                ) from e
    return None
