"""Call stacks as OTLP profiles, as a collector decodes them."""

from collections.abc import Callable
from typing import Any

import pytest

from kubectl_gadget.export import delivery
from kubectl_gadget.export.http import HttpTransport
from kubectl_gadget.export.run import Export
from kubectl_gadget.export.targets import ExportOptions, target
from kubectl_gadget.rows.batch import Batch
from tests.export.collector import Collector, collector, value, values
from tests.output.sampled import PROFILE, batch, profile, stack
from tests.waiting import wait_until

PATH = "/v1development/profiles"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(HttpTransport, "linger", 0.0)


def later(node: str, pod: str, *rows: tuple[str, int, int, int]) -> Batch:
    """Return rows of the second that ends at 10."""
    made = batch(node, pod, *rows)
    made.clock_offset_ns = 10**10 - 1
    return made


def begun(server: Collector, warn: Callable[[str], object] = print) -> Export:
    made = Export(ExportOptions((target(f"otlp=http://127.0.0.1:{server.port}"),)), [PROFILE])
    made.begin(warn)
    return made


def read(request: Any) -> dict[tuple[str, str], dict[tuple[str, ...], tuple[int, dict[str, Any]]]]:
    """Return by pod and kind of value: by calls, outermost first, the value and the sample's attributes."""
    known = request.dictionary
    texts, found = known.string_table, {}
    assert texts[0] == ""
    for group in request.resource_profiles:
        pod = values(group.resource.attributes).get("k8s.pod.name", "")
        for one in (one for scope in group.scope_profiles for one in scope.profiles):
            samples = {}
            for sample in one.samples:
                places = [
                    known.location_table[place] for place in known.stack_table[sample.stack_index].location_indices
                ]
                calls = [
                    texts[known.function_table[place.lines[0].function_index].name_strindex]
                    + "@"
                    + texts[known.mapping_table[place.mapping_index].filename_strindex]
                    for place in reversed(places)
                ]
                pairs = [known.attribute_table[place] for place in sample.attribute_indices]
                attributes = {texts[pair.key_strindex]: value(pair.value) for pair in pairs}
                samples[tuple(calls)] = (sample.values[0], attributes)
            unit = f"{texts[one.sample_type.type_strindex]} in {texts[one.sample_type.unit_strindex]}"
            found[pod, unit] = samples
            assert (one.time_unix_nano, one.duration_nano) == (9 * 10**9, 10**9)
            assert len(one.profile_id) == 16
    return found


def test_stacks_are_profiles_of_containers_and_their_sums_metrics() -> None:
    kernel = stack("schedule", "syscall", module="")
    rows = profile(
        later("n1", "web", ("work", stack("spin", "main"), 0, 2), ("work", stack("spin", "main"), 0, 1)),
        later("n1", "web", ("work", stack("read", "main"), kernel, 1)),
        later("n2", "", ("sh", stack("spin", "main"), 0, 2)),
    )
    with collector() as server:
        made = begun(server)
        made.write(rows, rows.everything)
        made.close()
    assert made.lost == 0
    assert sorted(path for path, _ in server.asked) == ["/v1/metrics", PATH]
    (request,) = server.profiles
    found = read(request)
    work = {"process.pid": 77, "thread.name": "work"}
    assert {key: samples for key, samples in found.items() if key[0]} == {
        ("web", "samples in count"): {
            ("main@/bin/work", "spin@/bin/work"): (3, work),
            ("main@/bin/work", "read@/bin/work", "syscall@", "schedule@"): (1, work),
        },
        ("web", "cpu_time in nanoseconds"): {
            ("main@/bin/work", "spin@/bin/work"): (3 * 10**7, work),
            ("main@/bin/work", "read@/bin/work", "syscall@", "schedule@"): (10**7, work),
        },
    }
    assert found["", "samples in count"][("main@/bin/work", "spin@/bin/work")][0] == 2
    assert list(made.summary())[-1].endswith("4 profiles delivered")


def test_a_collector_without_profiles_is_told_once_and_loses_nothing() -> None:
    said: list[str] = []
    with collector() as server:
        server.missing.add(PATH)
        made = begun(server, said.append)
        rows = profile(later("n1", "web", ("work", stack("spin", "main"), 0, 3)))
        made.write(rows, rows.everything)
        wait_until(lambda: said)
        for _ in range(3):
            made.write(rows, rows.everything)
        made.close()
    assert said == [
        f"export otlp=http://127.0.0.1:{server.port}: 2 profiles refused: HTTP 404 Not Found; it takes no profiles; "
        "metrics are sent"
    ]
    assert [path for path, _ in server.asked].count(PATH) == 1
    assert made.lost == 0
    assert list(made.losses()) == []
    assert server.requests
