"Load images: layouts, decoding, cache, DataLoaders."

from kdfast.core.lazy import lazy_name

PLACES = dict(
    load='kdfast.data.sources',
    loaders='kdfast.data.dataloaders',
    from_arrays='kdfast.data.from_python',
    from_dataset='kdfast.data.from_python',
    from_frame='kdfast.data.from_python',
)


def __getattr__(name):
    return lazy_name(PLACES, name)
