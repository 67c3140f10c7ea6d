"""AppArmor profiles from facts."""

import shutil
import subprocess
from pathlib import Path

import pytest

from kubectl_gadget.advise.apparmor import operator_objects, patches, profiles
from kubectl_gadget.behavior.facts import USUAL_KINDS, Behavior, FactKind
from tests.behavior.made import behavior, fact

MULTICALL = ("busybox",)
FOUND = behavior(
    fact("program", "/bin/busybox sh", "(runtime)", evidence={"exe": "/bin/busybox"}),
    fact("program", "/srv/app.py", "/bin/busybox sh", evidence={"exe": "/usr/bin/python3.13"}),
    fact("open", "/srv/app.py", "read /etc/cart/*"),
    fact("open", "/srv/app.py", "read /lib/libssl.so.3"),
    fact("open", "/srv/app.py", "read /srv/mod.py"),
    fact("open", "/srv/app.py", "write /data/<uuid>.db"),
    fact("open", "/srv/app.py", "denied /etc/shadow"),
    fact("open", "/srv/app.py", "read /run/secrets/token"),
    fact("capability", "/srv/app.py", "CAP_NET_BIND_SERVICE"),
    fact("capability", "/srv/app.py", "denied CAP_SYS_ADMIN"),
    fact("connect", "/srv/app.py", "service shop/redis:6379/tcp"),
    fact("resolve", "/srv/app.py", "redis.shop.svc"),
)


def text_of(found: Behavior) -> str:
    (text,) = profiles(found, MULTICALL).values()
    return text


def test_a_profile_allows_what_was_seen_and_nothing_that_was_denied() -> None:
    text = text_of(FOUND)

    assert "profile shop_deployment_cart_main flags=" in text
    rules = {line.strip() for line in text.splitlines()}
    assert '"/bin/busybox{,/}" mrix,' in rules
    assert '"/usr/bin/python3.13{,/}" mrix,' in rules
    assert '"/etc/cart/{,**}" r,' in rules
    assert '"/data/*.db{,/}" rw,' in rules
    assert '"/srv/__pycache__/*" r,' in rules
    assert '"/run/secrets/..*/**" r,' in rules
    assert {"capability net_bind_service,", "network inet stream,", "network inet6 dgram,"} <= rules
    assert "shadow" not in text
    assert "sys_admin" not in text


def test_no_name_of_a_file_ends_a_rule() -> None:
    hostile = ('/d/x" rw,', "/d/x\n  /** rwix,", "/d/x\n}", r"/d/\*\*")
    opens = (fact("open", "/bin/cart", f"write {path}") for path in hostile)
    text = text_of(behavior(fact("program", "/bin/cart", "(runtime)"), *opens))

    assert [line for line in text.splitlines() if "/d/" in line and not line.startswith("#")] == [
        r'  "/d/\*\*{,/}" rw,',
        r'  "/d/x\" rw,{,/}" rw,',
    ]
    assert text.count("cannot be written in a profile") == 2


def test_what_was_not_looked_at_gives_no_profile() -> None:
    assert profiles(behavior(), MULTICALL) == {}
    assert profiles(behavior(*FOUND.facts, kinds=USUAL_KINDS - {FactKind.OPEN}), MULTICALL) == {}
    assert patches(behavior(kinds=USUAL_KINDS - {FactKind.OPEN}), MULTICALL) == []


def test_workloads_select_the_profiles_by_the_names_that_they_have() -> None:
    (document,) = patches(FOUND, MULTICALL)

    (container,) = document.body["spec"]["template"]["spec"]["containers"]
    chosen = container["securityContext"]["appArmorProfile"]
    assert chosen == {"type": "Localhost", "localhostProfile": "shop_deployment_cart_main"}
    (operator,) = operator_objects(FOUND, MULTICALL)
    assert operator.body["spec"]["policy"] == text_of(FOUND)


@pytest.mark.skipif(shutil.which("apparmor_parser") is None, reason="apparmor_parser is not installed")
def test_the_real_parser_reads_it(tmp_path: Path) -> None:
    (tmp_path / "p").write_text(text_of(FOUND))

    ran = subprocess.run(["apparmor_parser", "-Q", "-K", tmp_path / "p"], capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stderr
