"""The image has every BPF object that the agent opens by name; those of gadgets come from clients."""

import re
from pathlib import Path

from image.build import OWN_OBJECTS

AGENT = Path(__file__).parents[2] / "kubectl_gadget" / "agent"


def test_every_object_that_the_agent_opens_by_name_is_in_the_image() -> None:
    texts = (path.read_text() for path in AGENT.glob("*.py"))
    opened = {name for text in texts for name in re.findall(r'own_(?:elf|program)\("(\w+)"', text)}
    assert opened
    assert opened == set(OWN_OBJECTS)
