"""A report with everything in it that a hostile program can choose."""

from dataclasses import replace

from kubectl_gadget.reports.model import (
    Activity,
    Check,
    Explanation,
    FileUse,
    Finding,
    JobStep,
    RemoteEnd,
    RunReport,
    SeenProcess,
    Severity,
    SourceLocation,
    Where,
)

HOSTILE = (
    "a|b`c``d",
    "<script>alert(1)</script>",
    "</pre></details><img src=x onerror=alert(1)>",
    "::error::fake",
    "\n::set-output name=x::y",
    "##[error]fake ##vso[task.complete]",
    "\x1b[31mred\x1b[0m\x00\x07\x0b\ufffe\ud800",
    "\u202egnp.exe",
    "[link](javascript:alert(1)) ![x](http://evil.example/x.png) https://evil.example www.evil.example",
    "section_start:1:x\r\x1b[0K ]]> <!-- & \" '",
    "# head\n\n- list\n\n| a |\n|---|\n",
    "@org/team #1 ~~x~~ *b* __c__ $x$ :tada:",
    "```\n~~~",
    "x" * 3000,
)


def finding(text: str, level: Severity = Severity.ERROR) -> Finding:
    """A finding whose every text is `text`."""
    return Finding(
        f"assertion/{text}",
        level,
        text,
        Where(text, text, text, text, text),
        (text,),
        ({"comm": text, text: [text]},),
        3,
        "2026-01-02T03:04:05.000000006Z",
        text,
        SourceLocation(f"{text.replace(chr(0), '')}.yaml", 7, 3),
        tables=(((text,), (text,)),),
        explanation=Explanation(text, text, text, text, text, text, explains=(Finding("r", level, text),)),
    )


def report(**changes: object) -> RunReport:
    """A report with hostile texts everywhere."""
    activity = Activity()
    for number, text in enumerate(HOSTILE):
        activity.add_process(SeenProcess(str(number), str(number - 1), text, (text, text), number, text, "", text))
        activity.add_peer(RemoteEnd("connect", "tcp", "2001:db8::1", 443, text, text))
        activity.add_name(text)
        activity.add_files([FileUse(text, "write"), FileUse(text, "read", "EACCES"), FileUse(text, "read", "ENOENT")])
    checks = [
        Check(
            "assertion",
            text,
            text,
            (finding(text), finding(text, Severity.WARNING)),
            1,
            source=SourceLocation("a.yaml", 3),
        )
        for text in HOSTILE
    ]
    found = RunReport(
        version="1.2.3",
        where=HOSTILE[0],
        began="2026-01-02T03:04:05.000000006Z",
        seconds=1.5,
        command=HOSTILE,
        warnings=HOSTILE,
        command_code=0,
        checks=(*checks, Check("policy", "quiet"), Check("expect", "lost", undecided=HOSTILE[3])),
        incomplete=HOSTILE,
        lost={"ring buffer full": 7},
        events=12,
        nodes=("n1",),
        gadgets=("open",),
        steps=tuple(JobStep(text, "2026-01-02T03:04:05.000000006Z") for text in HOSTILE),
        activity=activity,
    )
    return replace(found, **changes)  # type: ignore[arg-type]
