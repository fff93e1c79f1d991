"The old path of kdfast.data.dataloaders, for scripts of version 0.1."

from kdfast.data.dataloaders import loaders  # noqa: F401
