"""Makes messages from JSON as written in tests."""

from kubectl_gadget.wire.agent_messages import ContainerChanges, Hello, Hooks, Stats
from kubectl_gadget.wire.client_messages import FilterSpec, GadgetSpec, LookUp, Run, Update
from kubectl_gadget.wire.policy_messages import PolicySpec, Way

changes = ContainerChanges.from_json
hello = Hello.from_json
hooks = Hooks.from_json
stats = Stats.from_json
filter_spec = FilterSpec.from_json
gadget_spec = GadgetSpec.from_json
look_up_of = LookUp.from_json
run_of = Run.from_json
update_of = Update.from_json
policy_spec = PolicySpec.from_json
way = Way.from_json
