"The old path of kdfast.data.pixels, for scripts of version 0.1."

from kdfast.data.pixels import decode_8bit as decoded  # noqa: F401
