"""Which paths a glob of a policy covers."""

import re
from functools import cache

from kubectl_gadget.policies.language.patterns import bytewise, glob_part_pattern, glob_parts


def glob_matches(pattern: str, text: str) -> bool:
    """Whether a glob covers the whole text: `*` and `?` within a component, `**` over components, [a-z], [!a-z]. Both
    are compared as bytes."""
    return _glob(pattern).fullmatch(bytewise(text)) is not None


@cache
def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile("".join(map(glob_part_pattern, glob_parts(pattern))), re.DOTALL)
