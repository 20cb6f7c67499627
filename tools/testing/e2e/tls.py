# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS set up as QEMU's users do: credentials as an object, named by a migration parameter."""

import subprocess

import migrations
import refusals
import vm
from vm import expect

PORT = vm.PORT

hosts = migrations.hosts


def fill(host_name, *folders):
    """Credentials of one CA, which the CA of no other call is."""
    subprocess.run([str(vm.BIN / "fill_folder"), host_name, *map(str, folders)], check=True)


def credentials(folder, endpoint, kind="x509"):
    return f"-object tls-creds-{kind},id=tls0,dir={folder},endpoint={endpoint}"


def listening(host, options, parameter="tls0"):
    destination = vm.Guest(host, "destination", incoming="defer", options=options).start()
    destination.job.wait_output(r"\(qemu\)", 60)
    destination.ask(f"migrate_set_parameter tls-creds {parameter}", r"\(qemu\)")
    destination.type(f"migrate_incoming tcp:0:{PORT}")
    destination.wait_event("LISTENING")
    return destination


def has_credentials(guest, name="tls0"):
    guest.ask("info migrate_parameters", rf"tls-creds: '{name}'")


def moves(source, destination):
    vm.migrate(source, destination)
    vm.wait_end(source, destination)
    migrations.check_guest(destination, 1)
    for guest in (source, destination):
        has_credentials(guest)
        expect("unencrypted" not in guest.job.output(), f"the {guest.name} says unencrypted")


def guest_moves_with_certificates(pair):
    a, b = pair
    fill(b.ip, a.dir / "pki", b.dir / "pki")
    destination = listening(b, credentials(b.dir / "pki", "server"))
    source = vm.Guest(a, "source", pages=2000, options=credentials(a.dir / "pki", "client")).boot()
    source.type("migrate_set_parameter tls-creds tls0")
    moves(source, destination)


def guest_moves_with_keys_after_precopy(pair):
    """The parameter as QEMU's own command line has it, so -incoming need not be deferred."""
    a, b = pair
    fill(b.ip, a.dir / "pki", b.dir / "pki")
    named = "-global migration.tls-creds=tls0"
    destination = vm.Guest(b, "destination", incoming=f"tcp:0:{PORT}",
                           options=f"{credentials(b.dir / 'pki', 'server', 'psk')} {named}").start()
    destination.wait_event("LISTENING")
    source = vm.Guest(a, "source", pages=2000, rate=200,
                      options=f"{credentials(a.dir / 'pki', 'client', 'psk')} {named}").boot()
    source.type("migrate_set_capability postcopy-ram on")
    source.type(f"migrate -d tcp:{b.ip}:{PORT}")
    source.type("migrate_start_postcopy")
    destination.wait_event("RESUME")
    vm.wait_end(source, destination)
    migrations.check_guest(destination, 1)
    has_credentials(source)
    has_credentials(destination)


def wrong_credentials_are_refused_and_the_guest_runs_on(pair):
    a, b = pair
    uri = f"tcp:{b.ip}:{PORT}"
    fill(b.ip, b.dir / "pki", a.dir / "good")
    fill(b.ip, a.dir / "other")
    destination = listening(b, credentials(b.dir / "pki", "server"))
    source = vm.Guest(a, "source", pages=2000, options=credentials(a.dir / "other", "client")).boot()
    refusals.refused(source, uri, r"it speaks TLS, wanted none: set tls-creds")
    source.type("migrate_set_parameter tls-creds tls0")
    refusals.refused(source, uri, r"of the other side has a wrong signature")
    has_credentials(source)
    source.type("migrate_set_parameter tls-creds tls9")
    refusals.refused(source, uri, r'tls-creds is "tls9", wanted the id of a -object')
    source.type(f"object_add tls-creds-x509,id=tls1,dir={a.dir / 'good'},endpoint=client")
    source.type("migrate_set_parameter tls-creds tls1")
    source.type("migrate_set_parameter tls-hostname else.example")
    refusals.refused(source, uri, r'does not name host "else\.example"')
    source.type('migrate_set_parameter tls-hostname ""')
    destination.wait_for(lambda: len(destination.says("REFUSED")) >= 3, 180, "refuse three times")
    said = [event.text for event in destination.says("REFUSED")]
    expect(len(said) == 3 and "speaks without TLS" in said[0], f"the destination says {said}")
    vm.migrate(source, destination)
    vm.wait_end(source, destination)
    migrations.check_guest(destination, 1)
    has_credentials(source, "tls1")


TESTS = [
    guest_moves_with_certificates,
    guest_moves_with_keys_after_precopy,
    wrong_credentials_are_refused_and_the_guest_runs_on,
]
