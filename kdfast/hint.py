"The old path of kdfast.models.front and kdfast.distill.hint, for scripts of version 0.1."

from kdfast.distill.hint import Hint  # noqa: F401
from kdfast.distill.regressor import regressor  # noqa: F401
from kdfast.models.front import front, front_back  # noqa: F401
