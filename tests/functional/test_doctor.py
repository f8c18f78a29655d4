"""``lago-images doctor`` through the real command line."""

import os
import re
import shutil

import pytest

from lago_images.cli import doctor
from lago_images.cli.main import main
from tests.support.emulators import failing_qemu
from tests.support.policies import published_bucket
from tests.support.specs import SpecsRepo
from tests.tools import need

need("git")


@pytest.fixture
def repo(tmp_path):
    return SpecsRepo.create(tmp_path / "specs", failing_qemu(tmp_path / "qemu"))


def checks(ran):
    return {check["name"]: check for check in ran.json()["checks"]}


def test_doctor_runs_all_checks_and_writes_nothing(repo):
    # With the host's own QEMU.
    ran = repo.run("doctor", "--format", "json", environ={"PATH": os.environ["PATH"]})
    found = checks(ran)
    assert found["git"]["state"] == "ok"
    assert found["store"]["state"] == "ok"
    assert "nothing is signed" in found["signing"]["found"]
    assert all(check["do"] for check in found.values() if check["state"] != "ok")
    assert ran.code == (1 if "missing" in {c["state"] for c in found.values()} else 0)
    assert not (repo.root / "image-repo").exists()


def test_text_output_lists_each_check_once(repo):
    text = repo.run("doctor").out
    for name in ("tools", "kvm", "kernel", "space", "specs", "git", "store", "signing"):
        assert sum(line.split()[1:2] == [name] for line in text.splitlines()) == 1


def test_it_ends_with_what_to_do_next(repo):
    said = repo.run("doctor", "--host", environ={"PATH": "/nowhere"})
    assert "1. tools: as root: apt-get install " in said.err
    assert said.err.endswith("then: lago-images doctor again\n")


@pytest.mark.parametrize(
    ("specs", "bucket", "expected"),
    [
        (True, "", "next: lago-images lint && lago-images build"),
        (
            True,
            "s3://example-images",
            "commit; lago-images ci rebuild --changed, or push and let CI publish",
        ),
        (False, "", "next, in a folder for specs: lago-images init"),
    ],
)
def test_the_first_commands_are_those_of_a_folder_with_specs_or_without(
    tmp_path, capsys, monkeypatch, specs, bucket, expected
):
    monkeypatch.setenv("LAGO_IMAGES_REPOSITORY", bucket)
    (tmp_path / ("image-specs" if specs else "other")).mkdir()
    monkeypatch.chdir(tmp_path)
    # Whatever this machine lacks.
    monkeypatch.setattr(doctor, "_checks", lambda _invocation, host: ())
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--host"])
    assert ended.value.code == 0
    assert capsys.readouterr().err.strip().endswith(expected)


def test_a_host_with_a_missing_tool_fails(repo, tmp_path):
    repo.write("lago-images.toml", 'signing-key = "file:nowhere.key"\nrequire-kvm = true\n')
    ran = repo.run("doctor", "--format", "json", environ={"PATH": "/nowhere"})
    found = checks(ran)
    assert ran.code == 1
    assert found["signing"]["state"] == "missing"
    assert found["tools"]["state"] == "missing"
    assert "apt-get install" in found["tools"]["do"]
    assert "qemu-img" in found["tools"]["found"]


def test_missing_git_is_reported_like_any_other_tool(repo, tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in ("env", "sh", "gpg", "qemu-img"):
        if path := shutil.which(program):
            (programs / program).symlink_to(path)
    ran = repo.run("doctor", "--format", "json", environ={"PATH": str(programs)})
    found = checks(ran)
    assert ran.code == 1, ran.err
    assert "git (reading the specs' history)" in found["tools"]["found"]
    assert re.search(r"apt-get install .*\bgit\b", found["tools"]["do"])
    assert (found["git"]["state"], found["git"]["do"]) == ("missing", "apt-get install git")
    assert "not installed" in found["git"]["found"]


def test_commands_missing_from_the_installed_virt_sysprep_are_listed(repo, tmp_path):
    need("virt-sysprep")
    assert checks(repo.run("doctor", "--format", "json"))["commands"]["state"] == "ok"
    program = tmp_path / "bin/virt-sysprep"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nexec /usr/bin/virt-sysprep "$@" | grep -v sm-register\n')
    program.chmod(0o755)
    environ = {"PATH": f"{program.parent}:{repo.environ['PATH']}"}
    check = checks(repo.run("doctor", "--format", "json", environ=environ))["commands"]
    assert check["state"] == "warning"
    assert check["found"] == "the installed virt-sysprep does not have sm-register"


def test_an_unreachable_store_is_reported(repo):
    environ = {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    ran = repo.run("doctor", "--format", "json", "--repository", "s3://bk-1/p", environ=environ)
    found = checks(ran)
    assert ran.code == 1
    assert found["store"]["state"] == "missing"
    assert found["store"]["do"]
    # What needs no store is said at once.
    assert found["base-url"]["state"] == "missing"
    assert "base-url is not set" in found["base-url"]["found"]
    assert re.search(r"^\d\. store: .*^\d\. base-url: ", ran.err, re.MULTILINE | re.DOTALL)


def test_every_signing_key_that_is_wrong_is_reported(repo):
    need("gpg")
    environ = {"LAGO_IMAGES_SIGNING_KEY": "file:a.key, env:NOT_SET"}
    ran = repo.run("doctor", "--format", "json", environ=environ)
    found = [each["found"] for each in ran.json()["checks"] if each["name"] == "signing"]
    assert [key for text in found for key in ("a.key", "NOT_SET") if key in text] == [
        "a.key",
        "NOT_SET",
    ]


@pytest.mark.parametrize(
    ("reference", "is_several"),
    [
        ("file:a.key file:b.key", True),
        ("a.key; file:b.key", True),
        ("env:NOT_SET env:NEITHER", True),
        (f"agent:{'AB' * 20} agent:{'CD' * 20}", True),
        ("file:a b.key", False),
        ("file:a.key,file:b.key", False),
        (f"agent:{'ABCD ' * 10}", False),
    ],
)
def test_keys_that_no_comma_parts_are_told_of_it(repo, tmp_path, reference, is_several):
    need("gpg")
    (tmp_path / "gpg").mkdir(mode=0o700)
    environ = {"GNUPGHOME": str(tmp_path / "gpg"), "LAGO_IMAGES_SIGNING_KEY": reference}
    found = checks(repo.run("doctor", "--format", "json", environ=environ))["signing"]
    assert found["state"] == "missing"
    assert ("parted by commas" in found["do"]) is is_several


def test_who_has_no_credentials_is_told_to_set_them_to_write(repo, ceph20):
    """A policy is the cause only where there are some."""
    bucket = published_bucket(ceph20)
    keyless = {name: value for name, value in ceph20.environ.items() if "KEY" not in name}
    environ = {**keyless, "LAGO_IMAGES_BASE_URL": "https://images.example.org"}
    ran = repo.run("doctor", "--format", "json", "--repository", f"s3://{bucket}", environ=environ)
    found = checks(ran)["conditional writes"]
    assert found["state"] == "warning"
    assert "without credentials" in found["found"]
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE" in found["do"]
    assert "policy" not in found["do"]


def test_conditional_writes_are_checked_for_a_chosen_directory(repo, tmp_path):
    ran = repo.run("doctor", "--format", "json", "--repository", str(tmp_path / "out"))
    assert checks(ran)["conditional writes"]["state"] == "ok"
    assert not (tmp_path / "out").exists()


def test_doctor_host_needs_no_store_key_or_specs(tmp_path):
    """CI sets a builder's host up before it hands out credentials, and never the signing key."""
    repo = SpecsRepo.create(tmp_path / "specs")
    repo.write(
        "lago-images.toml",
        'repository = "s3://not-there/x"\nsigning-key = "env:NOT_SET"\n',
    )
    names = {
        each["name"] for each in repo.run("doctor", "--host", "--format", "json").json()["checks"]
    }
    assert "kvm" in {name.lower() for name in names}
    assert not names & {"store", "signing", "specs", "git", "conditional writes"}


@pytest.mark.parametrize("only", [[], ["--host"]])
def test_a_settings_error_is_reported_beside_the_other_checks(repo, only):
    repo.write("lago-images.toml", "job = 1\nrequire-kvm = true\n")
    ran = repo.run("doctor", *only, "--format", "json", environ={"LAGO_IMAGES_JOBS": "x"})
    found = checks(ran)
    assert ran.code == 1
    assert found["settings"]["state"] == "missing"
    assert "did you mean 'jobs'?" in found["settings"]["found"]
    assert "LAGO_IMAGES_JOBS" in found["settings"]["found"]
    assert {"tools", "kvm", "space"} < found.keys()
    assert found.keys().isdisjoint({"store", "signing"})


def test_a_missing_folder_is_not_reported_as_readable(repo):
    found = checks(repo.run("doctor", "--format", "json"))["store"]
    assert found["state"] == "ok"
    assert "can be read" not in found["found"]
    assert "does not exist" in found["found"]


def test_a_bucket_without_a_base_url_cannot_be_published_to(repo, moto):
    bucket = ["--repository", f"s3://{moto.new_bucket()}/prefix"]
    found = checks(repo.run("doctor", "--format", "json", *bucket, environ=moto.environ))
    assert found["store"]["state"] == "ok"
    assert found["base-url"]["state"] == "missing"
    # doctor itself has no such option.
    assert found["base-url"]["do"].startswith(
        "set it in lago-images.toml, or as LAGO_IMAGES_BASE_URL or --base-url of lago-images "
    )
    environ = {**moto.environ, "LAGO_IMAGES_BASE_URL": "https://images.example.org"}
    found = checks(repo.run("doctor", "--format", "json", *bucket, environ=environ))
    assert found["base-url"] == {
        "name": "base-url",
        "state": "ok",
        "found": "https://images.example.org",
        "do": "",
    }


def test_a_key_missing_from_gpg_is_to_be_imported_and_not_exported(repo, tmp_path):
    need("gpg")
    (tmp_path / "gpg").mkdir(mode=0o700)
    environ = {
        "GNUPGHOME": str(tmp_path / "gpg"),
        "LAGO_IMAGES_SIGNING_KEY": "agent:" + "AB" * 20,
    }
    found = checks(repo.run("doctor", "--format", "json", environ=environ))["signing"]
    assert found["state"] == "missing"
    assert "gpg --list-secret-keys" in found["do"]
    assert "export" not in found["do"]
