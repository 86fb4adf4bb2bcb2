"""The unit files: systemd understands every line, rates the sandbox, and reads what is put in as it was meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.errors import UsageError
from backupd.operations.systemd_units import (
    SERVICES,
    TIMERS,
    UNITS,
    Site,
    body,
    drop_in,
    files,
    marked,
    quoted,
    shipped,
    untouched,
)
from tests.support.systemd_analyze import complaints, exposure

ROOT = Path(__file__).parents[2]
MOST_EXPOSED = 2.0
ODD = "my backups/100% of $HOME; 'it' is \"so\""


def put(folder: Path, site: Site) -> list[Path]:
    """The units and drop-ins as they are put in place, below a folder; the units."""
    units = []
    for file in files(site):
        if file.path.is_relative_to(UNITS):
            path = folder / file.path.relative_to(UNITS)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(marked(file.text))
            units += [path] if path.parent == folder else []
    return units


def program(folder: Path) -> Path:
    """Something that can be executed, at an odd place."""
    path = folder / "of $HOME/100% mine" / "backupd"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def everything(program: Path) -> Site:
    """A site with all there can be, each with a name that must be quoted."""
    return Site(
        [str(program), "a b", "$x", "%y"], user="ann", group="people",
        config=Path("/etc") / ODD, needed=[Path("/srv") / ODD],
        written=[Path("/srv") / ODD, Path("/home/ann") / ODD], read=[Path("/home/bob") / ODD, Path("/root/x y")],
        credentials=["passphrase", "alice@example.com", "bob"], encrypted=["bob"],
    )  # fmt: skip


@pytest.mark.parametrize("site", ["plain", "everything"])
def test_systemd_understands_every_line(tmp_path: Path, site: str) -> None:
    found = program(tmp_path)
    units = put(tmp_path / "units", Site([str(found)]) if site == "plain" else everything(found))
    assert [unit.name for unit in units] == [
        "backupd.service", "backupd-audit.service", "backupd-audit@.service",
        "backupd-audit.timer", "backupd-audit@.timer",
    ]  # fmt: skip
    assert complaints(*units) == []


def test_a_mistake_in_a_unit_or_a_drop_in_would_be_found(tmp_path: Path) -> None:
    units = put(tmp_path / "units", Site([str(program(tmp_path))]))
    assert complaints(*units) == []
    units[0].write_text(units[0].read_text().replace("ProtectHome=", "ProtectHme="))
    (tmp_path / "units/backupd-audit.service.d/20.conf").write_text("[Service]\nNice=very\n")
    found = complaints(*units)
    assert any("Unknown key 'ProtectHme'" in line or "ProtectHme" in line for line in found)
    assert any("very" in line for line in found)


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("site", ["plain", "everything"])
def test_the_sandbox_is_rated_well(tmp_path: Path, name: str, site: str) -> None:
    found = program(tmp_path)
    put(tmp_path / "units", Site([str(found)]) if site == "plain" else everything(found))
    assert exposure(tmp_path / "units" / name) <= MOST_EXPOSED


def test_a_worse_sandbox_would_be_rated_worse(tmp_path: Path) -> None:
    put(tmp_path / "units", Site([str(program(tmp_path))]))
    worse = "[Service]\nUser=root\nPrivateUsers=no\nProtectSystem=no\nProtectHome=no\n"
    (tmp_path / "units/backupd.service.d/20.conf").write_text(worse)
    assert exposure(tmp_path / "units/backupd.service") > MOST_EXPOSED


def test_all_services_have_the_same_sandbox() -> None:
    def sandbox(name: str) -> str:
        return shipped(name).split("# -- sandbox")[1].split("[Install]")[0].strip()

    assert len(sandbox(SERVICES[0]).splitlines()) > 25
    assert {sandbox(name) for name in SERVICES} == {sandbox(SERVICES[0])}


def test_what_the_daemon_needs_is_in_its_unit() -> None:
    lines = shipped("backupd.service").splitlines()
    for line in (
        "Type=notify", "WatchdogSec=2min", "Restart=on-failure", "StateDirectory=backupd", "StateDirectoryMode=0700",
        "RuntimeDirectory=backupd", "LoadCredential=passphrase:backupd.passphrase", "User=backupd",
        'ExecReload=sh -c "kill -HUP $MAINPID"',
    ):  # fmt: skip
        assert line in lines
    # Not: it would make the configuration writable to the service.
    assert not any(line.startswith("ConfigurationDirectory=") for line in lines)


def test_the_folder_at_the_top_is_the_one_in_the_package() -> None:
    there = {path.name: path.read_text() for path in (ROOT / "systemd").iterdir()}
    assert set(there) == {*SERVICES, *TIMERS, "backupd.sysusers.conf", "backupd.tmpfiles.conf"}
    for name, text in there.items():
        assert shipped(name) == text


# -- what is put into them ---------------------------------------------------------------------------------------------


def read_again(text: str, *, variables: bool = False) -> Iterator[str]:
    """Words as systemd reads them (systemd.syntax(7)), without what is not used here: one after the other."""
    for match in re.finditer(r'"((?:[^"\\]|\\.)*)"|(\S+)', text):
        word = match[2] or re.sub(
            rb"\\(?:x([0-9a-f]{2})|(.))",
            lambda found: bytes([int(found[1], 16)]) if found[1] else found[2],
            match[1].encode("utf-8", "surrogateescape"),
        ).decode("utf-8", "surrogateescape")
        word = word.replace("%%", "%")
        yield word.replace("$$", "$") if variables else word


ANY = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(ANY, st.booleans())
def test_a_word_is_read_as_it_was_written(word: str, variables: bool) -> None:
    written = quoted(word, variables=variables)
    assert written.isprintable()
    assert list(read_again(written, variables=variables)) == [word]


def test_a_path_that_is_not_utf_8_is_read_as_it_was_written() -> None:
    path = b"/srv/caf\xe9 1".decode("utf-8", "surrogateescape")
    assert quoted(path) == '"/srv/caf\\xe9 1"'
    assert list(read_again(quoted(path))) == [path]


def test_the_program_is_put_in_wherever_it_is_started() -> None:
    site = Site(["/opt/a b/python", "-m", "backupd"])
    text = {file.path.name: file.text for file in files(site)}
    assert 'ExecStart="/opt/a b/python" -m backupd run\n' in text["backupd.service"]
    assert 'ExecReload="/opt/a b/python" -m backupd config check --without-secrets\n' in text["backupd.service"]
    assert 'ExecStart="/opt/a b/python" -m backupd audit $OPTIONS %i\n' in text["backupd-audit@.service"]
    assert not any("/usr/bin/backupd" in each for each in text.values())


@pytest.mark.parametrize("path", ["/opt/it's/backupd", '/opt/"a"/backupd', "/opt/a\\b/backupd", "/opt/a\nb/backupd"])
def test_a_program_that_systemd_would_not_start_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="systemd starts no program"):
        files(Site([path]))


def test_the_drop_in_names_what_is_written_to_and_no_more() -> None:
    site = Site(
        ["/usr/bin/backupd"], needed=[Path("/srv/mail")], credentials=["passphrase", "alice"],
        written=[Path("/var/lib/backupd"), Path("/srv/mail"), Path("/mnt/usb")],
        read=[Path("/opt/backupd"), Path("/etc/backupd")],
    )  # fmt: skip
    assert [line for line in drop_in(site, SERVICES[0]).splitlines() if line and not line.startswith("#")] == [
        "[Unit]",
        "RequiresMountsFor=/srv/mail",
        "[Service]",
        "ReadWritePaths=-/srv/mail -/mnt/usb",
        "LoadCredential=alice:backupd.alice",
    ]


def test_homes_are_hidden_but_for_what_is_needed_of_them() -> None:
    site = Site(
        ["/home/ann/venv/bin/backupd"], written=[Path("/home/ann/backup"), Path("/root/copy")],
        read=[Path("/home/ann/venv"), Path("/home/ann/mail"), Path("/home/ann/mail/ca.pem"), Path("/usr/lib")],
    )  # fmt: skip
    lines = drop_in(site, SERVICES[0]).splitlines()
    assert lines[lines.index("ProtectHome=tmpfs") + 1 :] == [
        "BindReadOnlyPaths=-/home/ann/venv",
        "BindReadOnlyPaths=-/home/ann/mail",
        "BindPaths=-/home/ann/backup",
        "BindPaths=-/root/copy",
    ]
    with pytest.raises(UsageError, match="colon"):
        drop_in(Site(["/usr/bin/backupd"], written=[Path("/home/ann/a:b")]), SERVICES[0])


def test_restarts_become_rarer_where_systemd_can_do_that() -> None:
    new, old = Site(["/usr/bin/backupd"], version=254), Site(["/usr/bin/backupd"], version=253)
    assert "RestartMaxDelaySec=10min\n" in drop_in(new, "backupd.service")
    assert "RestartMaxDelaySec" not in drop_in(old, "backupd.service") + drop_in(new, "backupd-audit.service")


def test_another_user_is_not_made_but_owns_the_folders() -> None:
    text = {str(file.path): file.text for file in files(Site(["/usr/bin/backupd"], user="ann", group="people"))}
    assert "/etc/sysusers.d/backupd.conf" not in text
    assert "d /var/lib/backupd :0700 ann people\n" in text["/etc/tmpfiles.d/backupd.conf"]
    assert "d /etc/backupd :0755 root root\n" in text["/etc/tmpfiles.d/backupd.conf"]
    assert "User=ann\nGroup=people\n" in text["/etc/systemd/system/backupd.service.d/10-backupd.conf"]


# -- the mark ----------------------------------------------------------------------------------------------------------


@given(st.text())
def test_what_was_marked_is_known_again(text: str) -> None:
    assert untouched(marked(text))
    assert body(marked(text)) == text


@given(st.text(), st.data())
def test_whatever_is_changed_is_noticed(text: str, data: st.DataObject) -> None:
    whole = marked(text)
    place = data.draw(st.integers(0, len(whole)))
    cut = data.draw(st.integers(0, 3))
    changed = whole[:place] + data.draw(st.text(max_size=3)) + whole[place + cut :]
    assert untouched(changed) == (changed == whole)


@given(st.text())
def test_a_file_of_somebody_else_is_not_ours(text: str) -> None:
    assert not untouched(text)
    assert body(text) == text
