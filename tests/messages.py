"""Messages from JSON, as tests write them."""

from kubectl_gadget.wire.agent_messages import ContainerChanges, Hello, Hooks, Stats

changes, hello, hooks, stats = (cls.from_json for cls in (ContainerChanges, Hello, Hooks, Stats))
