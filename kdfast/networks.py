"The old path of kdfast.models.build, kdfast.models.saved and kdfast.models.adapt, for scripts of version 0.1."

from kdfast.models.adapt import adapt_teacher as adapted  # noqa: F401
from kdfast.models.build import build_network as build  # noqa: F401
from kdfast.models.saved import load_network as load  # noqa: F401
