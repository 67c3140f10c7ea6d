"""`kubectl gadget ci`: its sub-commands by name."""

from kubectl_gadget.cli.framework.command import GadgetGroup, GroupParts, entries_in, make_group
from kubectl_gadget.cli.help.help_pages import Page
from kubectl_gadget.events.example import Example

_COMMANDS = (
    ("run", "Trace while a command runs, and judge what was seen", "ci_run:run:PAGE"),
    ("step", "Mark a step in the run around this command", "ci_step:step:PAGE"),
    ("start", "Trace from now on, until ci stop", "ci_start:start:START_PAGE"),
    ("stop", "End what ci start began, and judge what was seen", "ci_start:stop:STOP_PAGE"),
    ("judge", "Judge recordings, with checks that their runs did not have", "ci_judge:judge:PAGE"),
)
_PAGE = Page(
    "For CI jobs: what did this build, test or release do, and what of it was not expected?",
    (
        Example("sudo kubectl gadget ci run --local --report markdown=- -- make", "what a build does on this machine"),
        Example("kubectl gadget ci run -n shop --baseline shop.yaml -- ./release.sh", "what is new in a release"),
    ),
    usage="COMMAND [flags]",
    more="docs/ci/ has examples for GitHub Actions, GitLab, Jenkins, Tekton and Argo.",
)


def ci_group() -> GadgetGroup:
    """`kubectl gadget ci`."""
    entries = entries_in("kubectl_gadget.cli.ci", _COMMANDS)
    return make_group({}, "ci", GroupParts(_PAGE, entries))
