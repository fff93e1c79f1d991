"How PyTorch computes matrix products and convolutions of float32: exactly, or with rounded factors."

import torch


def float32_precisions() -> tuple[str, ...]:
    """Return the settings of all libraries, whichever of PyTorch's names the user has set them by.

    The older names, `get_float32_matmul_precision` and `allow_tf32`, raise an error after the newer ones were set.
    """
    backends = torch.backends
    libraries = (
        backends,
        backends.cuda.matmul,
        backends.cudnn,
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.mkldnn,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
        backends.mkldnn.rnn,
    )
    return tuple(library.fp32_precision for library in libraries)
