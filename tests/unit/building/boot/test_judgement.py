"""How the boot test judges a guest: facts in, problems out."""

from dataclasses import replace

import pytest

from lago_images.building.boot.console_signs import faults
from lago_images.building.boot.inspection import (
    Answers,
    Facts,
    FailedUnit,
    Identity,
    Root,
    addresses,
    parse,
)
from lago_images.building.boot.judgement import Terms, changed, judge, shared

MAC = "52:54:00:12:34:01"
GIB = 2**30
SIZE = 6 * GIB
ROOT = Root(device="/dev/vda1", start=2**20, size=12 * GIB - 2**20, disk=12 * GIB)
ME = Identity(machine_id="abc", host_keys=frozenset({"k1", "k2"}), dhcp=frozenset({"d"}))
GOOD_ANSWERS = Answers(sshd=("active",), root=ROOT, grows="grow-root.service", identity=ME)
GOOD = Facts(
    answers=GOOD_ANSWERS,
    addresses=("10.0.2.100",),
    root_used=GIB,
    root_total=int(11.2 * GIB),
    greets=True,
)


TERMS = Terms(mac=MAC, size=SIZE)


def problems(facts, console="", **more):
    verdict = judge(facts, faults(console), replace(TERMS, **more))
    return {each.check: each for each in verdict.problems}


def having(**answers):
    return replace(GOOD, answers=replace(GOOD_ANSWERS, **answers))


def test_a_good_guest_has_no_problems_and_all_is_judged():
    verdict = judge(GOOD, (), TERMS)
    assert verdict.problems == ()
    assert verdict.checks == (
        *("console", "network", "units", "sshd", "ssh", "identity", "permissions"),
        *("room", "root grows"),
    )


def test_private_keys_that_no_command_names_are_refused_also_where_the_agent_may_not_look():
    secrets = ("/root/b\x1b[31m", "/etc/a.key")
    for facts in (GOOD, Facts()):
        problem = problems(facts, secrets=secrets)["identity"]
        assert problem.text.endswith("every machine made of it the same: /etc/a.key, /root/b")
        assert "named by its path in a command" in problem.advice
    assert problems(GOOD, secrets=secrets, is_again=True) == {}


def test_an_identity_that_is_baked_in_is_told_once():
    told = judge(
        having(baked=("/etc/machine-id",)), (), replace(TERMS, secrets=("/etc/machine-id",))
    )
    assert [each.check for each in told.problems] == ["identity"]


def test_a_guest_whose_agent_may_not_look_is_judged_by_the_rest():
    told = Facts(addresses=("10.0.2.115",))
    assert judge(told, (), TERMS).checks == ("console", "network")
    assert problems(told) == {}
    assert judge(Facts(), (), TERMS).checks == ("console",)
    assert judge(Facts(), None, TERMS).checks == ()


def test_trouble_on_the_console_fails_a_guest_that_answers():
    told = problems(GOOD, "[    1.0] EXT4-fs error (device vda1): bad block bitmap checksum\n")
    assert "file system error: EXT4-fs error (device vda1)" in told["console"].text
    assert "fsck" in told["console"].advice


def test_a_network_card_without_an_address():
    assert MAC in problems(replace(GOOD, addresses=()))["network"].text


@pytest.mark.parametrize("address", ["192.168.1.7", "10.0.2.15", "169.254.3.4", "10.0.2.116"])
def test_an_address_that_dhcp_did_not_give(address):
    told = problems(replace(GOOD, addresses=(address,)))["network"]
    assert told.text.endswith(f"({MAC}); it has {address}")
    assert problems(replace(GOOD, addresses=(address, "10.0.2.101"))) == {}


def test_a_unit_that_never_ends():
    told = problems(replace(having(jobs=("hang.service",)), is_starting=True))["units"]
    assert told.text.startswith("systemd was still starting hang.service when")
    assert not told.is_starvation
    # Whoever starts it waits for it, too: the script in the guest may not come back.
    assert "some of its units" in problems(Facts(is_starting=True))["units"].text
    assert problems(having(jobs=("timer.service",))) == {}


def test_first_boot_commands_that_wait_for_nothing():
    assert "first boot" not in judge(GOOD, (), TERMS).checks
    assert "first boot" in judge(having(early=""), (), TERMS).checks
    assert problems(having(early="")) == {}
    assert problems(having(early="too soon"))["first boot"].text.endswith("a network: too soon")
    assert problems(having(early="too soon"), is_again=True) == {}


def test_a_guest_that_did_not_unmount_its_disk():
    line = "[ 3.1] EXT4-fs (vda3): recovery complete"
    told = problems(having(recovered=(line,)), is_again=True)["shutdown"]
    assert told.text.endswith(line)
    assert told.tail == (line,)


@pytest.mark.parametrize(
    ("mac", "address", "found"),
    [
        (MAC, "10.0.2.15", ("10.0.2.15",)),
        (MAC.upper(), "192.168.1.7", ("192.168.1.7",)),
        ("52:54:00:aa:bb:cc", "172.17.0.1", ()),
    ],
)
def test_the_address_is_the_cards_own(mac, address, found):
    interfaces: list[dict[str, object]] = [
        {"name": "lo", "ip-addresses": [{"ip-address-type": "ipv4", "ip-address": "127.0.0.1"}]},
        {"name": "down", "hardware-address": MAC},
        {
            "name": "eth0",
            "hardware-address": mac,
            "ip-addresses": [
                {"ip-address-type": "ipv6", "ip-address": "fe80::1"},
                {"ip-address-type": "ipv4", "ip-address": address},
            ],
        },
    ]
    assert addresses(interfaces, MAC) == found


def test_failed_units_are_named_with_their_last_words():
    failed = (FailedUnit(name="broken.service", journal=("starting", "no such \x1b[1mfile")),)
    told = problems(having(failed=(*failed, FailedUnit(name="x.mount"))))["units"]
    assert (told.text, told.tail) == ("x.mount failed", ())
    one = problems(having(failed=failed))["units"]
    assert one.text == "broken.service failed (no such file)"
    assert one.advice.endswith("systemctl mask broken.service")
    assert one.tail == ("broken.service: starting", "broken.service: no such file")


def test_a_unit_that_ran_out_of_time_may_have_had_none():
    for result, late in (("timeout", True), ("watchdog", True), ("exit-code", False)):
        told = problems(having(failed=(FailedUnit(name="a.service", result=result),)))["units"]
        assert told.is_starvation is late
        assert told.text == f"a.service {'took too long' if late else 'failed'}"


def test_an_sshd_that_nobody_reaches():
    assert "port 22" in problems(replace(GOOD, greets=False))["ssh"].text
    assert problems(replace(GOOD, greets=None)) == {}


def test_a_login_that_does_not_work():
    logins = {"password of root": False, "key of me": True}
    told = problems(having(logins=logins))
    assert list(told) == ["password of root"]
    assert logins.keys() <= set(judge(having(logins=logins), (), TERMS).checks)


def test_identities_in_the_image():
    files = ("/etc/machine-id", "/etc/ssh/ssh_host_rsa_key")
    assert problems(having(baked=files))["identity"].text.endswith(", ".join(files))
    assert problems(having(baked=files), is_again=True) == {}


def test_files_that_others_may_write_to():
    told = problems(having(writable=("/etc/a", "/etc/pam.d/\x1bb")))
    assert told["permissions"].text == "others than root may write to /etc/a, /etc/pam.d/b"
    assert "chmod go-w" in told["permissions"].advice


@pytest.mark.parametrize(
    ("root", "total", "grows", "problem"),
    [
        (ROOT, int(11.2 * GIB), "grow-root.service", None),
        (replace(ROOT, size=6 * GIB - 2**20), int(5.6 * GIB), "", None),
        (
            replace(ROOT, size=6 * GIB - 2**20),
            int(5.6 * GIB),
            "cloud-init",
            "/dev/vda1 ends at 6.0 GiB of a disk of 12.0 GiB, although cloud-init is there",
        ),
        (
            ROOT,
            int(5.6 * GIB),
            "grow-root.service",
            "the root file system has 5.6 GiB, and its partition 12.0 GiB, although",
        ),
    ],
)
def test_the_root_file_system_must_grow_where_something_promises_it(root, total, grows, problem):
    told = problems(replace(having(root=root, grows=grows), root_total=total))
    assert list(told) == (["root grows"] if problem else [])
    if problem:
        assert told["root grows"].text.startswith(problem)


@pytest.mark.parametrize(
    ("total", "used", "is_full"),
    [(11.2, 5.58, True), (11.2, 5.0, False), (11.2, 7.0, True)],
)
def test_a_disk_is_full_by_its_own_size_not_by_that_which_is_booted(total, used, is_full):
    facts = replace(GOOD, root_total=int(total * GIB), root_used=int(used * GIB))
    assert list(problems(facts)) == (["room"] if is_full else [])


def test_an_image_that_has_to_grow_and_has_nothing_for_it():
    facts = having(grows="")
    assert "root grows" not in judge(facts, (), TERMS).checks
    told = problems(facts, grows=True)["root grows"]
    assert told.text.startswith("nothing in the guest is there to grow its root file system")
    assert problems(GOOD, grows=True) == {}


def test_a_full_disk_that_does_not_grow():
    own = replace(ROOT, size=6 * GIB - 2**20)
    facts = replace(having(root=own, grows=""), root_total=int(5.6 * GIB))
    assert problems(facts) == {}
    assert "5.6 GiB of 5.6 GiB" in problems(replace(facts, root_used=int(5.59 * GIB)))["room"].text


def test_a_full_disk_whose_root_is_on_no_partition():
    facts = replace(having(root=None, grows=""), root_total=4 * GIB, root_used=4 * GIB)
    assert list(problems(facts)) == ["room"]
    assert problems(replace(facts, root_used=GIB)) == {}


def test_a_machine_keeps_its_identity():
    assert list(changed(ME, ME)) == []
    assert list(changed(Identity(), ME)) == []
    again = replace(ME, machine_id="def", host_keys=frozenset())
    assert [each.text for each in changed(ME, again)] == [
        "the machine has another machine id than before",
        "the machine has lost its ssh host keys",
    ]


def test_machines_of_one_image_have_nothing_in_common():
    other = Identity(machine_id="x", host_keys=frozenset({"k3"}), dhcp=frozenset({"e"}))
    assert list(shared(ME, other)) == []
    assert list(shared(Identity(), Identity())) == []
    mixed = replace(other, machine_id="abc", host_keys=frozenset({"k2", "k3"}))
    assert [each.text.rsplit("same ")[-1] for each in shared(ME, mixed)] == [
        "machine id",
        "ssh host keys",
    ]
    assert [each.text.rsplit("same ")[-1] for each in shared(ME, ME)][-1] == "DHCP client id"


def test_machines_of_one_image_send_dhcp_servers_nothing_in_common():
    one, other = (
        Identity(sent=frozenset({f"client id ff:{each}", "DUID 00:02:aa"})) for each in ("01", "02")
    )
    [problem] = shared(one, other)
    assert problem.text == (
        "two machines made of the image send DHCP servers the same DUID 00:02:aa: they would get "
        "one address"
    )
    assert list(shared(one, Identity(sent=frozenset({"hardware address 52:54"})))) == []
    # What a machine sends at its first start may differ from what it sends later.
    assert list(changed(one, Identity())) == []


def test_a_guests_answers_are_read():
    text = (
        "unit broken.service\nresult exit-code\njournal one\njournal  two \nunit x.mount\n"
        "job slow.service\nfirst-boot too soon\nrecovered [ 1.0] x\n"
        "sshd active\nroot /dev/vda1 2048 4096 8192\ngrows cloud-init\nmachine-id abc\n"
        "host-key SHA256:a\nhost-key SHA256:b\ndhcp-duid d\nbaked /b\nbaked /a\nbaked /a\n"
        "login-works key of me\nlogin-fails password of root\nsomething else\n\n"
    )
    assert parse(text) == Answers(
        failed=(
            FailedUnit(name="broken.service", result="exit-code", journal=("one", " two ")),
            FailedUnit(name="x.mount"),
        ),
        jobs=("slow.service",),
        early="too soon",
        recovered=("[ 1.0] x",),
        sshd=("active",),
        root=Root(device="/dev/vda1", start=2**20, size=2**21, disk=2**22),
        grows="cloud-init",
        identity=Identity(
            machine_id="abc", host_keys=frozenset({"SHA256:a", "SHA256:b"}), dhcp=frozenset("d")
        ),
        baked=("/a", "/b"),
        logins={"key of me": True, "password of root": False},
    )
    assert parse("journal lost\nroot nonsense\n") == Answers()
