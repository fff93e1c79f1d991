"Weights that torchvision and timm publish, and weights that only timm can convert."

from types import ModuleType

from kdfast.core.errors import KdfastError
from kdfast.core.names import Name
from kdfast.models.sizes import height_and_width

SET_BY_TORCHVISION = {'aux_logits', 'init_weights', 'image_size', 'input_size'}  # arguments, when it loads weights


def pretrained_state(
    name: Name,  # Of a network of torchvision or timm
) -> dict:
    "Return the state dict that a library publishes. Raises KdfastError if it cannot be had."
    try:
        if name.where == 'timm':
            return import_timm().create_model(name.what, pretrained=True, **name.keywords).state_dict()
        if name.where == 'torchvision':
            from torchvision.models import get_model, get_model_weights

            arguments = {key: value for key, value in name.arguments if key not in SET_BY_TORCHVISION}
            return get_model(name.what, weights=get_model_weights(name.what).DEFAULT, **arguments).state_dict()
    except (OSError, RuntimeError, ValueError) as e:
        raise KdfastError(
            f'the weights of {name.where}:{name.what} could not be fetched ({e}): go online once, or name a file '
            'behind the @'
        ) from e
    raise KdfastError(f'{name.what} comes with no weights: name a file behind the @')


def published_preparations(
    name: Name,  # Of a network
) -> list[dict]:  # size, mean, std; empty for networks of other code
    "Return how a library prepares images for its published weights of a network."
    if name.where == 'timm':
        config = timm_config(name)
        entries = [(config.input_size[1:], config.mean, config.std)] if config else []
    elif name.where == 'torchvision':
        transforms = [weights.transforms() for weights in torchvision_weights(name)]
        entries = [(tuple(height_and_width(t.crop_size)), t.mean, t.std) for t in transforms]
    else:
        entries = []
    return [dict(size=size, mean=list(mean), std=list(std)) for size, mean, std in entries]


def published_classes(
    name: Name,  # Of a network of torchvision or timm
) -> list[list[str]]:
    "Return the classes of a library's published weights: as words, and as the folders of ImageNet."
    found = [weights.meta['categories'] for weights in torchvision_weights(name)] if name.where == 'torchvision' else []
    try:
        info = import_timm().data.ImageNetInfo()
    except KdfastError:
        return found
    published = (
        getattr(timm_config(name), 'num_classes', 0) if name.where == 'timm' else max(map(len, found), default=0)
    )
    return [*found, info.label_names()] if published == info.num_classes() else found


def torchvision_weights(
    name: Name,  # Of a network of torchvision
) -> list:  # Of torchvision's Weights; may be empty
    "Return the weights that torchvision publishes for a network."
    from torchvision.models import get_model_weights

    return list(get_model_weights(name.what))


def timm_config(
    name: Name,  # Of a network of timm
) -> object:  # None if timm publishes no weights
    "Return timm's configuration of a network."
    timm = import_timm()
    return timm.models.get_pretrained_cfg(name.what) or timm.models.get_pretrained_cfg(name.what.partition('.')[0])


def import_timm() -> ModuleType:
    "Import timm. Raises KdfastError if it is not installed."
    try:
        import timm
    except ImportError as e:
        raise KdfastError("timm:NAME needs a package that is not installed: pip install 'kdfast[timm]'") from e
    return timm


def converted_by_timm(
    name: Name,  # Of a network of timm
    state: dict,  # With the names of its authors or of an older timm
) -> dict | None:  # None if timm cannot convert it
    """Return the state of a network into which timm has loaded a state dict.

    timm renames and resizes the tensors that it knows. The network has as many classes as the weights.
    """
    timm, config = import_timm(), timm_config(name)
    for n_classes in dict.fromkeys([*classifier_rows(config, state), getattr(config, 'num_classes', 1000)]):
        overlay = dict(source='', state_dict=dict(state), num_classes=n_classes, label_offset=0)
        try:
            return timm.create_model(
                name.what, pretrained=True, num_classes=n_classes, pretrained_cfg_overlay=overlay, **name.keywords
            ).state_dict()
        except (RuntimeError, ValueError, KeyError, AttributeError, TypeError, AssertionError):
            pass  # timm's converters raise different exceptions for weights that they do not know
    return None


def classifier_rows(
    config: object,  # timm's configuration of the network, or None
    state: dict,  # State dict
) -> list[int]:
    "Return the lengths of tensors that may be the classifier's: those that timm names, and the last."
    heads = getattr(config, 'classifier', None) or []
    if isinstance(heads, str):
        heads = [heads]
    keys = (*(f'{head}.weight' for head in heads), list(state)[-1])
    return [len(state[key]) for key in keys if key in state and state[key].dim()]
