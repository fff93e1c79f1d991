"""The method: callbacks Distill, Hint and Match; losses; regressors. Imported when they are used."""

from kdfast.core.lazy import lazy_name

PLACES = dict(
    Distill='kdfast.distill.distill',
    Hint='kdfast.distill.hint',
    Match='kdfast.distill.match',
    folded='kdfast.models.folding',
)


def __getattr__(name):
    return lazy_name(PLACES, name)
